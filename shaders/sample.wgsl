// The most likely tokens of each row in falling order, with the row's logarithm of the sum of exponentials and the logit of a
// given token: a workgroup of one subgroup a row. Among equals the first token wins.
override WORKGROUP: u32 = 8;   // the subgroup's size

struct Params {
    rows: u32,
    vocabulary: u32,
    stride: u32,      // logits from row to row
    top: u32,         // how many tokens, at least 1
    targets: u32,     // where in lists the given token of each row stands
    first: u32,       // first row of the results
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> lists: array<u32>;
// A row: logarithm of the sum, logit of the given token, then (token, logit) pairs; 2 + 2 top words.
@group(0) @binding(2) var<storage, read_write> chosen: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x;
    if (row >= p.rows) { return; }
    let from_at = row * p.stride;
    let to_at = (p.first + row) * (2u + 2u * p.top);
    // Everything above or, if equal, before the last one found is taken already.
    var limit = 3.4e38;
    var limit_at = 0u;
    var highest = 0.0;
    for (var place = 0u; place < p.top; place++) {
        var best = -3.4e38;
        var at = 0xffffffffu;
        for (var i = lane; i < p.vocabulary; i += size) {
            let logit = logits[from_at + i];
            let free = place == 0u || logit < limit || (logit == limit && i > limit_at);
            if (free && logit > best) {
                best = logit;
                at = i;
            }
        }
        limit = subgroupMax(best);
        limit_at = subgroupMin(select(0xffffffffu, at, best == limit));
        if (place == 0u) { highest = limit; }
        if (lane == 0u) {
            chosen[to_at + 2u + 2u * place] = limit_at;
            chosen[to_at + 3u + 2u * place] = bitcast<u32>(limit);
        }
    }
    var sum = 0.0;
    for (var i = lane; i < p.vocabulary; i += size) { sum += exp(logits[from_at + i] - highest); }
    let total = subgroupAdd(sum);
    if (lane == 0u) {
        chosen[to_at] = bitcast<u32>(highest + log(total));
        chosen[to_at + 1u] = bitcast<u32>(logits[from_at + lists[p.targets + row]]);
    }
}
