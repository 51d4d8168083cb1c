// A routing decision for each row: an MLP with SiLU, softmax over its options and the likeliest one. A subgroup a row.
override WORKGROUP: u32 = 8;   // the subgroup's size
override LINEAR: bool = false; // one product and no hidden layer
override RADIAL: bool = false; // rows are divided by their root mean square; vectors and biases go by the decision before

struct Params {
    rows: u32,
    width4: u32,
    stride4: u32,
    hidden: u32,       // at most MOST_HIDDEN, a multiple of 4; 0 where it is linear
    options: u32,
    allowed: u32,      // the first so many may be chosen
    decisions: u32,    // where in the results this decision's stand
    before: u32,       // and those before it; 0xffffffff: there are none, which counts as the last option
    words: u32,        // where in lists the rows' words stand; 0xffffffff: it does not see words
    epsilon: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> first: array<vec4<f32>>;   // hidden x width
// options x hidden, or options x width. RADIAL: before it options x hidden vectors, behind it options x options biases and, where it sees
// words, a vector for each.
@group(0) @binding(2) var<storage, read> rest: array<f32>;
@group(0) @binding(3) var<storage, read_write> decisions: array<vec2<u32>>;  // option, probability
@group(0) @binding(4) var<storage, read> lists: array<u32>;

var<private> to_word: u32; // from the place of a value of the vector of the decision before to that of the row's word

fn four(at: u32) -> vec4<f32> { return vec4<f32>(rest[at], rest[at + 1u], rest[at + 2u], rest[at + 3u]); }

fn vector(at: u32) -> vec4<f32> {
    if (!RADIAL) { return vec4<f32>(); }
    if (p.words == 0xffffffffu) { return four(at); }
    return four(at) + four(at + to_word);
}

fn logit(row: u32, option: u32, before: u32, lane: u32, size: u32) -> f32 {
    var sum = 0.0;
    if (LINEAR) {
        for (var k = lane; k < p.width4; k += size) {
            let at = (option * p.width4 + k) * 4u;
            let w = vec4<f32>(rest[at], rest[at + 1u], rest[at + 2u], rest[at + 3u]);
            sum += dot(input[row * p.stride4 + k], w);
        }
        return subgroupAdd(sum);
    }
    let second = select(0u, p.options * p.hidden, RADIAL) + option * p.hidden;
    for (var k = lane; k < p.hidden; k += size) { sum = fma(inside[k], rest[second + k], sum); }
    let product = subgroupAdd(sum);
    if (RADIAL) { return product + rest[2u * p.options * p.hidden + before * p.options + option]; }
    return product;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x;
    var before = p.options - 1u;
    var scale = 1.0;
    if (RADIAL) {
        if (p.before != 0xffffffffu) { before = decisions[p.before + row].x; }
        scale = scale_of(row, lane, size);
        if (p.words != 0xffffffffu) {
            let behind = p.options * (2u * p.hidden + p.options);
            to_word = behind + lists[p.words + row] * p.hidden - before * p.hidden;
        }
    }
    if (!LINEAR) { hidden_layer(row, lane, size, scale, before * p.hidden); }
    var highest = -3.4e38;
    var total = 0.0;
    var choice = 0u;
    for (var option = 0u; option < p.allowed; option++) {
        let x = logit(row, option, before, lane, size);
        let above = max(highest, x);
        if (x > highest) { choice = option; }
        total = total * exp(highest - above) + exp(x - above);
        highest = above;
    }
    if (lane == 0u) { decisions[p.decisions + row] = vec2<u32>(choice, bitcast<u32>(1.0 / total)); }
}
