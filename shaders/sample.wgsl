// The most likely tokens of each row in falling order out of those of its parts, with the row's logarithm of the sum of exponentials
// and the logit of a given token: a workgroup of one subgroup a row. Among equals the first token wins.
override WORKGROUP: u32 = 8;   // the subgroup's size

@group(0) @binding(0) var<storage, read> logits: array<f32>;
// As `sample_parts` leaves them.
@group(0) @binding(1) var<storage, read> found: array<u32>;
@group(0) @binding(2) var<storage, read> lists: array<u32>;
// A row: logarithm of the sum, logit of the given token, numbers that are not finite, then (token, logit) pairs; 3 + 2 top words.
@group(0) @binding(3) var<storage, read_write> chosen: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x;
    if (row >= p.rows) { return; }
    let each = 2u + 2u * p.top;
    let from_at = row * p.parts * each;
    let to_at = (p.first + row) * (3u + 2u * p.top);
    var limit = 3.4e38;
    var limit_at = 0u;
    var highest = 0.0;
    for (var place = 0u; place < p.top; place++) {
        var best = -3.4e38;
        var at = 0xffffffffu;
        for (var i = lane; i < p.parts * p.top; i += size) {
            let pair = from_at + i / p.top * each + 2u + 2u * (i % p.top);
            let token = found[pair];
            let x = bitcast<f32>(found[pair + 1u]);
            let free = place == 0u || x < limit || (x == limit && token > limit_at);
            if (free && (x > best || (x == best && token < at))) {
                best = x;
                at = token;
            }
        }
        limit = subgroupMax(best);
        limit_at = subgroupMin(select(0xffffffffu, at, best == limit));
        if (place == 0u) { highest = limit; }
        if (lane == 0u) {
            chosen[to_at + 3u + 2u * place] = limit_at;
            chosen[to_at + 4u + 2u * place] = bitcast<u32>(limit);
        }
    }
    var sum = 0.0;
    var odd = 0u;
    for (var i = lane; i < p.parts; i += size) {
        let part = from_at + i * each;
        sum = fma(bitcast<f32>(found[part]), exp(bitcast<f32>(found[part + 3u]) - highest), sum);
        odd += found[part + 1u];
    }
    let total = subgroupAdd(sum);
    let infinite = subgroupAdd(odd);
    if (lane == 0u) {
        chosen[to_at] = bitcast<u32>(highest + log(total));
        chosen[to_at + 1u] = bitcast<u32>(logit(row * p.stride + lists[p.targets + row]));
        chosen[to_at + 2u] = infinite;
    }
}
