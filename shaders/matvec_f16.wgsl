// One input row times a matrix whose rows (f16, two a word) are output columns: decode.
// Four columns at a time an invocation; the input comes once for eight lanes and is passed on by broadcast.
override WORKGROUP: u32 = 8;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> lists: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

fn low(w: vec4<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)); }
fn high(w: vec4<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)); }

fn step(sums: mat4x4<f32>, rows: vec4<u32>, x: vec4<f32>, y: vec4<f32>) -> mat4x4<f32> {
    let a = weights[rows.x];
    let b = weights[rows.y];
    let c = weights[rows.z];
    let d = weights[rows.w];
    return mat4x4<f32>(
        fma(y, high(a), fma(x, low(a), sums[0])),
        fma(y, high(b), fma(x, low(b), sums[1])),
        fma(y, high(c), fma(x, low(c), sums[2])),
        fma(y, high(d), fma(x, low(d), sums[3])),
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
        let end = p.row_words / 4u - 1u;
        let rows = (vec4<u32>(within * p.layer_words) + (min(wanted, vec4<u32>(last)) + p.first_row) * p.row_words) / 4u;
        var sums = mat4x4<f32>();
        for (var k = 0u; k < p.inner4; k += 8u) {
            let mine = k + (lane & 7u);
            // Behind the end of a row its last values are taken, times zero: what stands there may be no number.
            let x = select(vec4<f32>(), input[row * p.input_stride4 + mine], mine < p.inner4);
            sums = step(sums, rows + min(k / 2u, end), subgroupBroadcast(x, 0u), subgroupBroadcast(x, 1u));
            sums = step(sums, rows + min(k / 2u + 1u, end), subgroupBroadcast(x, 2u), subgroupBroadcast(x, 3u));
            sums = step(sums, rows + min(k / 2u + 2u, end), subgroupBroadcast(x, 4u), subgroupBroadcast(x, 5u));
            sums = step(sums, rows + min(k / 2u + 3u, end), subgroupBroadcast(x, 6u), subgroupBroadcast(x, 7u));
        }
        put(row, layer, column, dot(sums[0], vec4<f32>(1.0)));
        put(row, layer, column + p.run, dot(sums[1], vec4<f32>(1.0)));
        put(row, layer, column + 2u * p.run, dot(sums[2], vec4<f32>(1.0)));
        put(row, layer, column + 3u * p.run, dot(sums[3], vec4<f32>(1.0)));
    }
}
