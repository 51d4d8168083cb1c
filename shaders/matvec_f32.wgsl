// One input row times a matrix whose rows (f32) are output columns: decode.
// Four columns at a time an invocation; the input comes once for eight lanes and is passed on by broadcast.
override WORKGROUP: u32 = 8;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> lists: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

fn step(sums: mat4x4<f32>, rows: vec4<u32>, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        fma(x, weights[rows.x], sums[0]),
        fma(x, weights[rows.y], sums[1]),
        fma(x, weights[rows.z], sums[2]),
        fma(x, weights[rows.w], sums[3]),
    );
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
        let rows = (vec4<u32>(within * p.layer_words) + (min(wanted, vec4<u32>(last)) + p.first_row) * p.row_words) / 4u;
        var sums = mat4x4<f32>();
        for (var k = 0u; k < p.inner4; k += 8u) {
            let mine = k + (lane & 7u);
            // Behind the end of a row its last values are taken, times zero: what stands there may be no number.
            let x = select(vec4<f32>(), input[row * p.input_stride4 + mine], mine < p.inner4);
            sums = step(sums, rows + min(k, p.inner4 - 1u), subgroupBroadcast(x, 0u));
            sums = step(sums, rows + min(k + 1u, p.inner4 - 1u), subgroupBroadcast(x, 1u));
            sums = step(sums, rows + min(k + 2u, p.inner4 - 1u), subgroupBroadcast(x, 2u));
            sums = step(sums, rows + min(k + 3u, p.inner4 - 1u), subgroupBroadcast(x, 3u));
            sums = step(sums, rows + min(k + 4u, p.inner4 - 1u), subgroupBroadcast(x, 4u));
            sums = step(sums, rows + min(k + 5u, p.inner4 - 1u), subgroupBroadcast(x, 5u));
            sums = step(sums, rows + min(k + 6u, p.inner4 - 1u), subgroupBroadcast(x, 6u));
            sums = step(sums, rows + min(k + 7u, p.inner4 - 1u), subgroupBroadcast(x, 7u));
        }
        put(row, layer, column, dot(sums[0], vec4<f32>(1.0)));
        put(row, layer, column + p.run, dot(sums[1], vec4<f32>(1.0)));
        put(row, layer, column + 2u * p.run, dot(sums[2], vec4<f32>(1.0)));
        put(row, layer, column + 3u * p.run, dot(sums[3], vec4<f32>(1.0)));
    }
}
