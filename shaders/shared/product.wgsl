// Parameters of a product and the store of one of its values: after the text of `matmul_tiles` and of each `matvec_*`, which bind
// input, weights, bias, lists and output.
override BIAS: bool = false;

struct Params {
    inner4: u32,        // values of a row / 4
    columns: u32,
    input_stride4: u32,
    output_stride: u32,
    row_words: u32,     // u32 words of a weight row
    layer_words: u32,   // u32 words of a layer's matrix
    rows_at: u32,       // where in lists the layer of each row stands; of tiles: first row, rows, layer
    columns_at: u32,    // first column of the output: the matrix may be split over buffers
    first_row: u32,     // first row of the matrix
    layer_rows: u32,    // rows of a layer's matrix, and biases
    from_row: u32,      // first row of input and output; tiles say it themselves
    first_layer: u32,   // layers of this buffer; rows of others are left alone
    layers: u32,
    run: u32,           // columns side by side that an invocation takes one after the other, for long reads of memory; not of tiles
}
var<immediate> p: Params;

fn put(row: u32, layer: u32, column: u32, value: f32) {
    if (column < p.columns) {
        var sum = value;
        if (BIAS) { sum += bias[layer * p.layer_rows + p.first_row + column]; }
        output[row * p.output_stride + p.columns_at + column] = sum;
    }
}
