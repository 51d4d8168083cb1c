// The experts that each row takes and their shares, out of a score for each: an invocation a row. Among equals the first wins.
override WORKGROUP: u32 = 64;
override SIGMOID: bool = false;    // a score's share is its sigmoid, rather than its part of the softmax over all
override NORMALISED: bool = false; // the shares of the chosen ones are made to sum to one

struct Params {
    rows: u32,
    experts: u32,     // experts of a layer
    stride: u32,      // scores from row to row
    top: u32,         // experts that a row takes
    layers: u32,      // where in lists the layer of each row stands
    chosen: u32,      // where in lists the chosen experts go, top a row: layer * experts + expert
    scale: f32,       // what shares are multiplied with
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> scores: array<f32>;
@group(0) @binding(1) var<storage, read_write> lists: array<u32>;
@group(0) @binding(2) var<storage, read_write> shares: array<f32>;   // rows x top

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= p.rows) { return; }
    let from_at = row * p.stride;
    let to_at = row * p.top;
    let first = lists[p.layers + row] * p.experts;
    var limit = 3.4e38;
    var limit_at = 0u;
    var highest = 0.0;
    var taken = 0.0;
    for (var place = 0u; place < p.top; place++) {
        // A row whose scores are not numbers takes some expert, so that what is wrong shows in the result.
        var best = -3.4e38;
        var at = 0u;
        for (var i = 0u; i < p.experts; i++) {
            let x = scores[from_at + i];
            let free = place == 0u || x < limit || (x == limit && i > limit_at);
            if (free && x > best) {
                best = x;
                at = i;
            }
        }
        limit = best;
        limit_at = at;
        if (place == 0u) { highest = best; }
        let x = scores[from_at + at];
        let share = select(exp(x - highest), 1.0 / (1.0 + exp(-x)), SIGMOID);
        taken += share;
        shares[to_at + place] = share;
        lists[p.chosen + to_at + place] = first + at;
    }
    var total = 1.0;
    if (NORMALISED) {
        total = taken;
    } else if (!SIGMOID) {
        total = 0.0;
        for (var i = 0u; i < p.experts; i++) { total += exp(scores[from_at + i] - highest); }
    }
    for (var place = 0u; place < p.top; place++) { shares[to_at + place] *= p.scale / total; }
}
