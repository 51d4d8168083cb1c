// Where the rows of a hop go, decided on the device: the layer of each row, the entry of the cache that it leaves and those that
// it sees. A row that chose to leave stays out. An invocation a row; rows belong to different sequences.
override WORKGROUP: u32 = 64;

struct Params {
    rows: u32,
    layers: u32,      // options below are layers, this one is the exit
    slots: u32,       // entries of a layer in the cache
    decisions: u32,   // where in the decisions this hop's stand
    alive: u32,       // where in lists: 1 for rows that are still under way
    bases: u32,       // where in lists: first entry of each row's sequence
    counts: u32,      // where in lists: entries so far, layers x rows
    layers_at: u32,   // where in lists the layer of each row goes
    entries_at: u32,  // where in lists the entry of each row goes; 0xffffffff: none
    seen_at: u32,     // where in lists row, first entry, entries and list of each row go
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> decisions: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> lists: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= p.rows) { return; }
    let choice = decisions[p.decisions + row].x;
    let alive = lists[p.alive + row] == 1u && choice < p.layers;
    lists[p.alive + row] = u32(alive);
    let layer = select(0u, choice, alive);
    let count = p.counts + layer * p.rows + row;
    let seen = lists[count];
    let first = layer * p.slots + lists[p.bases + row];
    lists[p.layers_at + row] = layer;
    lists[p.entries_at + row] = select(0xffffffffu, first + seen, alive);
    let info = p.seen_at + 4u * row;
    lists[info] = row;
    lists[info + 1u] = first;
    // What a row that has left would see is masked out; it sees something, so that no number is undefined.
    lists[info + 2u] = seen + u32(alive || seen == 0u);
    lists[info + 3u] = 0u;
    lists[count] = seen + u32(alive);
}
