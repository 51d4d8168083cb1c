// One input row times a matrix whose rows (4-bit integers in blocks of 32: f16 scale and minimum, then 16 low and 16 high halves) are output columns: decode.
// Four columns at a time an invocation; the input comes once for eight lanes and is passed on by broadcast.
override WORKGROUP: u32 = 8;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> lists: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

fn low(word: u32) -> vec4<f32> { return vec4<f32>(unpack4xU8(word & 0x0f0f0f0fu)); }
fn high(word: u32) -> vec4<f32> { return vec4<f32>(unpack4xU8((word >> 4u) & 0x0f0f0f0fu)); }

// A block times 32 values of the input, of which each lane holds four; total: their sum.
fn block(at: u32, x: vec4<f32>, total: f32) -> f32 {
    let scale = unpack2x16float(weights[at]);
    let a = weights[at + 1u];
    let b = weights[at + 2u];
    let c = weights[at + 3u];
    let d = weights[at + 4u];
    var sum = subgroupBroadcast(x, 0u) * low(a);
    sum = fma(subgroupBroadcast(x, 1u), low(b), sum);
    sum = fma(subgroupBroadcast(x, 2u), low(c), sum);
    sum = fma(subgroupBroadcast(x, 3u), low(d), sum);
    sum = fma(subgroupBroadcast(x, 4u), high(a), sum);
    sum = fma(subgroupBroadcast(x, 5u), high(b), sum);
    sum = fma(subgroupBroadcast(x, 6u), high(c), sum);
    sum = fma(subgroupBroadcast(x, 7u), high(d), sum);
    return fma(scale.x, dot(sum, vec4<f32>(1.0)), scale.y * total);
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
        for (var k = 0u; k < p.inner4; k += 8u) {
            let mine = k + (lane & 7u);
            let x = select(vec4<f32>(), input[row * p.input_stride4 + mine], mine < p.inner4);
            var total = dot(x, vec4<f32>(1.0));
            total += subgroupShuffleXor(total, 1u);
            total += subgroupShuffleXor(total, 2u);
            total += subgroupShuffleXor(total, 4u);
            sums += vec4<f32>(
                block(rows.x, x, total), block(rows.y, x, total), block(rows.z, x, total), block(rows.w, x, total),
            );
            rows += 5u;
        }
        put(row, layer, column, sums.x);
        put(row, layer, column + p.run, sums.y);
        put(row, layer, column + 2u * p.run, sums.z);
        put(row, layer, column + 3u * p.run, sums.w);
    }
}
