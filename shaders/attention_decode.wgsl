// Softmax attention of one query row and head over the visible entries of a cache: a subgroup each. Scores with an entry a
// lane, results with four values a lane; running maximum and sum, so that no score is kept.
override WORKGROUP: u32 = 8;   // a multiple of the subgroup's size
override LISTED: bool = false; // whether entries are named one by one, as in a unified cache
override CAPPED: bool = false; // whether scores have an upper and lower bound

struct Params {
    heads: u32,
    group: u32,          // query heads that share a key and value head
    head4: u32,          // values of a head / 4
    kv4: u32,            // key values of an entry / 4; its values follow
    query_stride4: u32,
    output_stride4: u32,
    rows_at: u32,        // where in lists the rows stand: row, first entry, entries, list of entries
    scale: f32,
    count: u32,          // rows
    cap: f32,            // a score s becomes cap tanh(s / cap)
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> queries: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> cache: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> lists: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;

fn entry_at(first: u32, list: u32, entry: u32) -> u32 {
    if (LISTED) { return lists[list + entry] * 2u * p.kv4; }
    return (first + entry) * 2u * p.kv4;
}

fn part(sum: vec4<f32>, q: vec4<f32>, at: u32, k: u32) -> vec4<f32> {
    return fma(q, cache[at + min(k, p.head4 - 1u)], sum);
}

fn scored(products: vec4<f32>) -> f32 {
    let score = dot(products, vec4<f32>(p.scale));
    if (CAPPED) { return p.cap * tanh(score / p.cap); }
    return score;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let head = group.x * subgroups + subgroup;
    if (head >= p.heads || group.y >= p.count) { return; }
    let info = p.rows_at + 4u * group.y;
    let row = lists[info];
    let first = lists[info + 1u];
    let count = lists[info + 2u];
    let list = lists[info + 3u];
    let query = row * p.query_stride4 + head * p.head4;
    let key = head / p.group * p.head4;
    // This subgroup's part of the head: two times four values a lane.
    let a = group.z * 2u * size + lane;
    let b = a + size;

    var highest = -3.4e38;
    var total = 0.0;
    var sum_a = vec4<f32>();
    var sum_b = vec4<f32>();
    for (var base = 0u; base < count; base += size) {
        let mine = entry_at(first, list, min(base + lane, count - 1u)) + key;
        var products = vec4<f32>();
        for (var k = 0u; k < p.head4; k += 8u) {
            let at = k + (lane & 7u);
            let q = select(vec4<f32>(), queries[query + at], at < p.head4);
            products = part(products, subgroupBroadcast(q, 0u), mine, k);
            products = part(products, subgroupBroadcast(q, 1u), mine, k + 1u);
            products = part(products, subgroupBroadcast(q, 2u), mine, k + 2u);
            products = part(products, subgroupBroadcast(q, 3u), mine, k + 3u);
            products = part(products, subgroupBroadcast(q, 4u), mine, k + 4u);
            products = part(products, subgroupBroadcast(q, 5u), mine, k + 5u);
            products = part(products, subgroupBroadcast(q, 6u), mine, k + 6u);
            products = part(products, subgroupBroadcast(q, 7u), mine, k + 7u);
        }
        let valid = base + lane < count;
        let score = select(-3.4e38, scored(products), valid);
        let above = max(highest, subgroupMax(score));
        let shrink = exp(highest - above);
        let weight = select(0.0, exp(score - above), valid);
        total = fma(total, shrink, subgroupAdd(weight));
        sum_a *= shrink;
        sum_b *= shrink;
        highest = above;
        for (var j = 0u; j < min(size, count - base); j++) {
            let share = subgroupShuffle(weight, j);
            let at = entry_at(first, list, base + j) + p.kv4 + key;
            if (a < p.head4) { sum_a = fma(vec4<f32>(share), cache[at + a], sum_a); }
            if (b < p.head4) { sum_b = fma(vec4<f32>(share), cache[at + b], sum_b); }
        }
    }
    let to_at = row * p.output_stride4 + head * p.head4;
    if (a < p.head4) { output[to_at + a] = sum_a / total; }
    if (b < p.head4) { output[to_at + b] = sum_b / total; }
}
