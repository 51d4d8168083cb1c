// Up to 32 rows times a matrix whose rows are output columns, four columns an invocation, in registers. No workgroup memory and no
// barrier: each of eight lanes loads every eighth row of the input and passes them on by broadcast.
override WORKGROUP: u32 = 8;
override ROWS: u32 = 32;    // rows of a tile: 8, 16 or 32
override FORMAT: u32 = 0;   // 0 f32, 1 f16, 2 8-bit in pairs of blocks, 3 4-bit blocks with minimum
override BIAS: bool = false;

struct Params {
    inner4: u32,        // values of a row / 4
    columns: u32,
    input_stride4: u32,
    output_stride: u32,
    row_words: u32,     // u32 words of a weight row
    layer_words: u32,   // u32 words of a layer's matrix
    rows_at: u32,       // where in lists the tiles stand: first row, rows, layer
    columns_at: u32,    // first column of the output: the matrix may be split over buffers
    first_row: u32,     // first row of the matrix
    layer_rows: u32,    // rows of a layer's matrix, and biases
    from_row: u32,      // as the products of single rows have them; tiles say it here
    run: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read> quads: array<vec4<f32>>; // the same weights, where they are f32
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> lists: array<u32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;

// Values 4k to 4k + 3 of the weight row that begins at this word.
fn weight(row: u32, k: u32) -> vec4<f32> {
    if (FORMAT == 0u) {
        return quads[row / 4u + k];
    }
    if (FORMAT == 1u) {
        let at = row + 2u * k;
        return vec4<f32>(unpack2x16float(weights[at]), unpack2x16float(weights[at + 1u]));
    }
    if (FORMAT == 2u) {
        let at = row + 17u * (k >> 4u);
        let scales = unpack2x16float(weights[at]);
        let scale = select(scales.x, scales.y, (k & 8u) != 0u);
        return scale * vec4<f32>(unpack4xI8(weights[at + 1u + (k & 15u)]));
    }
    let at = row + 5u * (k >> 3u);
    let scale = unpack2x16float(weights[at]);
    let word = weights[at + 1u + (k & 3u)] >> (k & 4u);
    return fma(vec4<f32>(scale.x), vec4<f32>(unpack4xU8(word & 0x0f0f0f0fu)), vec4<f32>(scale.y));
}

fn mac(sum: vec4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> vec4<f32> {
    return fma(x.wwww, w[3], fma(x.zzzz, w[2], fma(x.yyyy, w[1], fma(x.xxxx, w[0], sum))));
}

fn rows_low(sums: mat4x4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        mac(sums[0], w, subgroupBroadcast(x, 0u)),
        mac(sums[1], w, subgroupBroadcast(x, 1u)),
        mac(sums[2], w, subgroupBroadcast(x, 2u)),
        mac(sums[3], w, subgroupBroadcast(x, 3u)),
    );
}

fn rows_high(sums: mat4x4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        mac(sums[0], w, subgroupBroadcast(x, 4u)),
        mac(sums[1], w, subgroupBroadcast(x, 5u)),
        mac(sums[2], w, subgroupBroadcast(x, 6u)),
        mac(sums[3], w, subgroupBroadcast(x, 7u)),
    );
}

fn put(rows: u32, first: u32, at: u32, layer: u32, column: u32, sum: vec4<f32>) {
    if (at >= rows) { return; }
    for (var j = 0u; j < 4u; j++) {
        let c = column + j * WORKGROUP;
        if (c < p.columns) {
            var value = sum[j];
            if (BIAS) { value += bias[layer * p.layer_rows + p.first_row + c]; }
            output[(first + at) * p.output_stride + p.columns_at + c] = value;
        }
    }
}

fn put4(rows: u32, first: u32, at: u32, layer: u32, column: u32, sums: mat4x4<f32>) {
    put(rows, first, at, layer, column, sums[0]);
    put(rows, first, at + 1u, layer, column, sums[1]);
    put(rows, first, at + 2u, layer, column, sums[2]);
    put(rows, first, at + 3u, layer, column, sums[3]);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let column = group.x * 4u * WORKGROUP + local.x;
    let tile = p.rows_at + 3u * group.y;
    let first = lists[tile];
    let rows = lists[tile + 1u];
    let layer = lists[tile + 2u];
    let wanted = vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u) * WORKGROUP;
    let matrix = vec4<u32>(layer * p.layer_words) + (min(wanted, vec4<u32>(p.columns - 1u)) + p.first_row) * p.row_words;
    let x0 = (first + min((lane & 7u) + 0u, rows - 1u)) * p.input_stride4;
    let x1 = (first + min((lane & 7u) + 8u, rows - 1u)) * p.input_stride4;
    let x2 = (first + min((lane & 7u) + 16u, rows - 1u)) * p.input_stride4;
    let x3 = (first + min((lane & 7u) + 24u, rows - 1u)) * p.input_stride4;
    var a0 = mat4x4<f32>();
    var b0 = mat4x4<f32>();
    var a1 = mat4x4<f32>();
    var b1 = mat4x4<f32>();
    var a2 = mat4x4<f32>();
    var b2 = mat4x4<f32>();
    var a3 = mat4x4<f32>();
    var b3 = mat4x4<f32>();
    for (var k = 0u; k < p.inner4; k++) {
        let w = transpose(mat4x4<f32>(
            weight(matrix.x, k), weight(matrix.y, k), weight(matrix.z, k), weight(matrix.w, k)));
        let v0 = input[x0 + k];
        a0 = rows_low(a0, w, v0);
        b0 = rows_high(b0, w, v0);
        if (ROWS > 8u) {
            let v1 = input[x1 + k];
            a1 = rows_low(a1, w, v1);
            b1 = rows_high(b1, w, v1);
        }
        if (ROWS > 16u) {
            let v2 = input[x2 + k];
            a2 = rows_low(a2, w, v2);
            b2 = rows_high(b2, w, v2);
            let v3 = input[x3 + k];
            a3 = rows_low(a3, w, v3);
            b3 = rows_high(b3, w, v3);
        }
    }
    put4(rows, first, 0u, layer, column, a0);
    put4(rows, first, 4u, layer, column, b0);
    if (ROWS > 8u) {
        put4(rows, first, 8u, layer, column, a1);
        put4(rows, first, 12u, layer, column, b1);
    }
    if (ROWS > 16u) {
        put4(rows, first, 16u, layer, column, a2);
        put4(rows, first, 20u, layer, column, b2);
        put4(rows, first, 24u, layer, column, a3);
        put4(rows, first, 28u, layer, column, b3);
    }
}
