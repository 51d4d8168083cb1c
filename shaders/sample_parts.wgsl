// The most likely tokens of a part of each row in falling order, with the part's sum of exponentials over its largest logit: a
// workgroup of one subgroup a part. Parts keep loops short: Mesa's llvmpipe ends all loops of an invocation after 65,535 turns.
override WORKGROUP: u32 = 8;   // the subgroup's size

@group(0) @binding(0) var<storage, read> logits: array<f32>;
// A part: sum, numbers that are not finite, then (token, logit) pairs; 2 + 2 top words.
@group(0) @binding(1) var<storage, read_write> found: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    if (group.y >= p.rows) { return; }
    let from_at = group.y * p.stride;
    let begin = group.x * p.part;
    let end = min(begin + p.part, p.vocabulary);
    let to_at = (group.y * p.parts + group.x) * (2u + 2u * p.top);
    // Everything above or, if equal, before the last one found is taken already.
    var limit = 3.4e38;
    var limit_at = 0u;
    var highest = 0.0;
    for (var place = 0u; place < p.top; place++) {
        var best = -3.4e38;
        var at = 0xffffffffu;
        for (var i = begin + lane; i < end; i += size) {
            let x = logit(from_at + i);
            let free = place == 0u || x < limit || (x == limit && i > limit_at);
            if (free && x > best) {
                best = x;
                at = i;
            }
        }
        limit = subgroupMax(best);
        limit_at = subgroupMin(select(0xffffffffu, at, best == limit));
        if (place == 0u) { highest = limit; }
        if (lane == 0u) {
            found[to_at + 2u + 2u * place] = limit_at;
            found[to_at + 3u + 2u * place] = bitcast<u32>(limit);
        }
    }
    var sum = 0.0;
    var odd = 0u;
    for (var i = begin + lane; i < end; i += size) {
        sum += exp(logit(from_at + i) - highest);
        // By the bits, as compilers may take it that every number is finite.
        odd += u32((bitcast<u32>(logits[from_at + i]) & 0x7f800000u) == 0x7f800000u);
    }
    let total = subgroupAdd(sum);
    let infinite = subgroupAdd(odd);
    if (lane == 0u) {
        found[to_at] = bitcast<u32>(total);
        found[to_at + 1u] = infinite;
    }
}
