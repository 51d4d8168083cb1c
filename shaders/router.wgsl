// A routing decision for each row: an MLP with SiLU, softmax over its options and the likeliest one. A subgroup a row.
override WORKGROUP: u32 = 8;   // the subgroup's size
override LINEAR: bool = false; // one product and no hidden layer
const MOST_HIDDEN = 1024u;

struct Params {
    rows: u32,
    width4: u32,
    stride4: u32,
    hidden: u32,       // at most MOST_HIDDEN, a multiple of 4; 0 where it is linear
    options: u32,
    decisions: u32,    // where in the results this decision's stand
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> first: array<vec4<f32>>;   // hidden x width
@group(0) @binding(2) var<storage, read> second: array<f32>;        // options x hidden, or options x width
@group(0) @binding(3) var<storage, read_write> decisions: array<vec2<u32>>;  // option, probability

var<workgroup> inside: array<f32, MOST_HIDDEN>;

fn logit(row: u32, option: u32, lane: u32, size: u32) -> f32 {
    var sum = 0.0;
    if (LINEAR) {
        for (var k = lane; k < p.width4; k += size) {
            let at = (option * p.width4 + k) * 4u;
            let w = vec4<f32>(second[at], second[at + 1u], second[at + 2u], second[at + 3u]);
            sum += dot(input[row * p.stride4 + k], w);
        }
    } else {
        for (var k = lane; k < p.hidden; k += size) { sum = fma(inside[k], second[option * p.hidden + k], sum); }
    }
    return subgroupAdd(sum);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x;
    if (!LINEAR) {
        // Four at a time, so that there are fewer turns: Mesa's llvmpipe ends all loops of an invocation after 65,535 of them.
        for (var h = 0u; h < p.hidden; h += 4u) {
            var sums = mat4x4<f32>();
            for (var k = lane; k < p.width4; k += size) {
                let x = input[row * p.stride4 + k];
                let at = h * p.width4 + k;
                sums[0] = fma(x, first[at], sums[0]);
                sums[1] = fma(x, first[at + p.width4], sums[1]);
                sums[2] = fma(x, first[at + 2u * p.width4], sums[2]);
                sums[3] = fma(x, first[at + 3u * p.width4], sums[3]);
            }
            let x = subgroupAdd(vec4<f32>(1.0) * sums);
            if (lane == 0u) {
                let y = x / (1.0 + exp(-x));
                inside[h] = y.x;
                inside[h + 1u] = y.y;
                inside[h + 2u] = y.z;
                inside[h + 3u] = y.w;
            }
        }
        workgroupBarrier();
    }
    var highest = -3.4e38;
    var total = 0.0;
    var choice = 0u;
    for (var option = 0u; option < p.options; option++) {
        let x = logit(row, option, lane, size);
        let above = max(highest, x);
        if (x > highest) { choice = option; }
        total = total * exp(highest - above) + exp(x - above);
        highest = above;
    }
    if (lane == 0u) { decisions[p.decisions + row] = vec2<u32>(choice, bitcast<u32>(1.0 / total)); }
}
