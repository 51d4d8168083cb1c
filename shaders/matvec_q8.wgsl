// One input row times a matrix whose rows (8-bit integers in pairs of blocks of 32: two f16 scales, then 64 values) are output columns: decode.
// Four columns at a time an invocation; the input comes once for eight lanes and is passed on by broadcast.
override WORKGROUP: u32 = 8;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> lists: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

// Eight words of a block times 32 values of the input, of which each lane holds four.
fn block(at: u32, x: vec4<f32>) -> f32 {
    var sum = subgroupBroadcast(x, 0u) * vec4<f32>(unpack4xI8(weights[at]));
    sum = fma(subgroupBroadcast(x, 1u), vec4<f32>(unpack4xI8(weights[at + 1u])), sum);
    sum = fma(subgroupBroadcast(x, 2u), vec4<f32>(unpack4xI8(weights[at + 2u])), sum);
    sum = fma(subgroupBroadcast(x, 3u), vec4<f32>(unpack4xI8(weights[at + 3u])), sum);
    sum = fma(subgroupBroadcast(x, 4u), vec4<f32>(unpack4xI8(weights[at + 4u])), sum);
    sum = fma(subgroupBroadcast(x, 5u), vec4<f32>(unpack4xI8(weights[at + 5u])), sum);
    sum = fma(subgroupBroadcast(x, 6u), vec4<f32>(unpack4xI8(weights[at + 6u])), sum);
    sum = fma(subgroupBroadcast(x, 7u), vec4<f32>(unpack4xI8(weights[at + 7u])), sum);
    return dot(sum, vec4<f32>(1.0));
}

fn pair(at: u32, x: vec4<f32>, y: vec4<f32>) -> f32 {
    let scales = unpack2x16float(weights[at]);
    return fma(scales.y, block(at + 9u, y), scales.x * block(at + 1u, x));
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = p.from_row + id.y;
    let layer = lists[p.rows_at + id.y];
    let within = layer - p.first_layer;
    if (within >= p.layers) { return; }
    let last = p.columns - 1u;
    for (var turn = 0u; turn < p.run; turn++) {
        let column = id.x * 4u * p.run + turn;
        let wanted = vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u) * p.run;
        var rows = vec4<u32>(within * p.layer_words) + (min(wanted, vec4<u32>(last)) + p.first_row) * p.row_words;
        var sums = vec4<f32>();
        for (var k = 0u; k < p.inner4; k += 16u) {
            let mine = k + (lane & 7u);
            let x = select(vec4<f32>(), input[row * p.input_stride4 + mine], mine < p.inner4);
            let y = select(vec4<f32>(), input[row * p.input_stride4 + mine + 8u], mine + 8u < p.inner4);
            sums += vec4<f32>(pair(rows.x, x, y), pair(rows.y, x, y), pair(rows.z, x, y), pair(rows.w, x, y));
            rows += 17u;
        }
        put(row, layer, column, sums.x);
        put(row, layer, column + p.run, sums.y);
        put(row, layer, column + 2u * p.run, sums.z);
        put(row, layer, column + 3u * p.run, sums.w);
    }
}
