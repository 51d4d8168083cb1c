// Softmax attention of up to eight query rows of one sequence, for one head: a subgroup for all of them, so that each key and
// each value is loaded once. Row i sees the entries from its own first up to its own count.
override WORKGROUP: u32 = 8;   // the subgroup's size
override LISTED: bool = false; // whether entries are named one by one, each with a bit for each row that sees it
override CAPPED: bool = false; // whether scores have an upper and lower bound

struct Params {
    heads: u32,
    group: u32,          // query heads that share a key and value head
    head4: u32,          // values of a head / 4
    kv4: u32,            // key values of an entry / 4; its values follow
    query_stride4: u32,
    output_stride4: u32,
    rows_at: u32,        // where in lists the tiles stand: eight rows, first entry or list of entries, eight counts, eight firsts
    scale: f32,
    count: u32,          // tiles
    cap: f32,            // a score s becomes cap tanh(s / cap)
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> queries: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> cache: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> lists: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;

// Scores of eight rows, or what else there is one of for each.
struct Rows { low: vec4<f32>, high: vec4<f32> }

fn products(row: u32, head: u32, k: u32, lane: u32, key: u32) -> f32 {
    let at = k + (lane & 7u);
    let q = select(vec4<f32>(), queries[row * p.query_stride4 + head * p.head4 + at], at < p.head4);
    let last = p.head4 - 1u;
    var sum = subgroupBroadcast(q, 0u) * cache[key + min(k, last)];
    sum = fma(subgroupBroadcast(q, 1u), cache[key + min(k + 1u, last)], sum);
    sum = fma(subgroupBroadcast(q, 2u), cache[key + min(k + 2u, last)], sum);
    sum = fma(subgroupBroadcast(q, 3u), cache[key + min(k + 3u, last)], sum);
    sum = fma(subgroupBroadcast(q, 4u), cache[key + min(k + 4u, last)], sum);
    sum = fma(subgroupBroadcast(q, 5u), cache[key + min(k + 5u, last)], sum);
    sum = fma(subgroupBroadcast(q, 6u), cache[key + min(k + 6u, last)], sum);
    sum = fma(subgroupBroadcast(q, 7u), cache[key + min(k + 7u, last)], sum);
    return dot(sum, vec4<f32>(p.scale));
}

fn four(at: u32) -> vec4<u32> { return vec4<u32>(lists[at], lists[at + 1u], lists[at + 2u], lists[at + 3u]); }

fn capped(scores: vec4<f32>) -> vec4<f32> {
    if (CAPPED) { return p.cap * tanh(scores / p.cap); }
    return scores;
}

fn entry_at(first: u32, entry: u32) -> u32 {
    if (LISTED) { return lists[first + 2u * entry]; }
    return first + entry;
}

// Which of four rows, from this bit on, see an entry.
fn named(first: u32, entry: u32, bit: u32) -> vec4<bool> {
    if (!LISTED) { return vec4<bool>(true); }
    let bits = vec4<u32>(lists[first + 2u * entry + 1u]) >> (vec4<u32>(0u, 1u, 2u, 3u) + bit);
    return (bits & vec4<u32>(1u)) == vec4<u32>(1u);
}

fn row_of(tile: u32, index: u32) -> u32 { return lists[tile + index]; }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let head = group.x;
    let tile = p.rows_at + 25u * group.y;
    let first = lists[tile + 8u];
    let low = four(tile + 9u);
    let high = four(tile + 13u);
    let from_low = four(tile + 17u);
    let from_high = four(tile + 21u);
    let before = min(from_low, from_high);
    let seen = max(low, high);
    let most = max(max(seen.x, seen.y), max(seen.z, seen.w));
    let key = head / p.group * p.head4;
    let d = group.z * size + lane;

    var highest = Rows(vec4<f32>(-3.4e38), vec4<f32>(-3.4e38));
    var total = Rows();
    var sums_low = mat4x4<f32>();
    var sums_high = mat4x4<f32>();
    for (var base = min(min(before.x, before.y), min(before.z, before.w)); base < most; base += size) {
        let here = min(base + lane, most - 1u);
        let mine = entry_at(first, here) * 2u * p.kv4 + key;
        var score = Rows();
        for (var k = 0u; k < p.head4; k += 8u) {
            score.low += vec4<f32>(
                products(row_of(tile, 0u), head, k, lane, mine), products(row_of(tile, 1u), head, k, lane, mine),
                products(row_of(tile, 2u), head, k, lane, mine), products(row_of(tile, 3u), head, k, lane, mine),
            );
            score.high += vec4<f32>(
                products(row_of(tile, 4u), head, k, lane, mine), products(row_of(tile, 5u), head, k, lane, mine),
                products(row_of(tile, 6u), head, k, lane, mine), products(row_of(tile, 7u), head, k, lane, mine),
            );
        }
        let entry = vec4<u32>(base + lane);
        let sees_low = (entry < low) & (entry >= from_low) & named(first, here, 0u);
        let sees_high = (entry < high) & (entry >= from_high) & named(first, here, 4u);
        score.low = select(vec4<f32>(-3.4e38), capped(score.low), sees_low);
        score.high = select(vec4<f32>(-3.4e38), capped(score.high), sees_high);
        let above = Rows(max(highest.low, subgroupMax(score.low)), max(highest.high, subgroupMax(score.high)));
        let shrink = Rows(exp(highest.low - above.low), exp(highest.high - above.high));
        let weight_low = select(vec4<f32>(), exp(score.low - above.low), sees_low);
        let weight_high = select(vec4<f32>(), exp(score.high - above.high), sees_high);
        total.low = fma(total.low, shrink.low, subgroupAdd(weight_low));
        total.high = fma(total.high, shrink.high, subgroupAdd(weight_high));
        highest = above;
        for (var i = 0u; i < 4u; i++) {
            sums_low[i] *= shrink.low[i];
            sums_high[i] *= shrink.high[i];
        }
        for (var j = 0u; j < min(size, most - base); j++) {
            let a = subgroupShuffle(weight_low, j);
            let b = subgroupShuffle(weight_high, j);
            let v = cache[entry_at(first, base + j) * 2u * p.kv4 + p.kv4 + key + min(d, p.head4 - 1u)];
            sums_low += mat4x4<f32>(a.x * v, a.y * v, a.z * v, a.w * v);
            sums_high += mat4x4<f32>(b.x * v, b.y * v, b.z * v, b.w * v);
        }
    }
    if (d >= p.head4) { return; }
    // Rows that fill the tile repeat one of it, and write the same.
    for (var i = 0u; i < 4u; i++) {
        output[row_of(tile, i) * p.output_stride4 + head * p.head4 + d] = sums_low[i] / total.low[i];
        output[row_of(tile, i + 4u) * p.output_stride4 + head * p.head4 + d] = sums_high[i] / total.high[i];
    }
}
