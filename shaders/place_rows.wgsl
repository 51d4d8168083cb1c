// Where the rows of a hop go, decided on the device: the layer of each row, the entry of the cache that it leaves and those that
// it sees. A row that chose to leave stays out. An invocation a row; rows belong to different sequences.
override WORKGROUP: u32 = 64;
override LISTED: bool = false;   // whether entries are named one by one, as in a unified cache

struct Params {
    rows: u32,
    layers: u32,      // options below are layers, this one is the exit
    slots: u32,       // entries of a layer in the cache
    hop: u32,
    bucket: u32,      // LISTED: which of a row's lists is seen at this hop
    decisions: u32,   // where in the decisions this hop's stand
    alive: u32,       // where in lists: 1 for rows that are still under way
    bases: u32,       // where in lists: first entry of each row's sequence; LISTED: the row's own at the first hop
    counts: u32,      // where in lists: entries so far, layers x rows; LISTED: of each list, lists x rows
    lists_at: u32,    // LISTED: where in lists the begin of each list stands, lists x rows
    layers_at: u32,   // where in lists the layer of each row goes
    entries_at: u32,  // where in lists the entry of each row goes; 0xffffffff: none
    seen_at: u32,     // where in lists row, first entry, entries and list of each row go
    weights_at: u32,  // where in lists the probability of each row's decision goes
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> decisions: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> lists: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= p.rows) { return; }
    let decision = decisions[p.decisions + row];
    let alive = lists[p.alive + row] == 1u && decision.x < p.layers;
    lists[p.alive + row] = u32(alive);
    lists[p.weights_at + row] = decision.y;
    let layer = select(0u, decision.x, alive);
    let at = select(layer, p.bucket, LISTED) * p.rows + row;
    let seen = lists[p.counts + at];
    let base = lists[p.bases + row];
    let first = layer * p.slots + base;
    let entry = select(first + seen, base + p.hop, LISTED);
    // What a row that has left would see is masked out; it sees something, so that no number is undefined.
    let sees = seen + u32(alive || seen == 0u);
    var list = 0u;
    if (LISTED) {
        list = lists[p.lists_at + at];
        if (sees > seen) { lists[list + seen] = entry; }
    }
    lists[p.layers_at + row] = layer;
    lists[p.entries_at + row] = select(0xffffffffu, entry, alive);
    let info = p.seen_at + 4u * row;
    lists[info] = row;
    lists[info + 1u] = first;
    lists[info + 2u] = sees;
    lists[info + 3u] = list;
    lists[p.counts + at] = seen + u32(alive);
}
