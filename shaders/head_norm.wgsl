// A norm over the values of each head of queries and keys, in place: a subgroup a head.
override WORKGROUP: u32 = 8;   // a multiple of the subgroup's size
override LAYER: bool = false;  // mean taken out and variance, rather than the root mean square alone

struct Params {
    rows: u32,
    heads: u32,       // heads of a row: queries, then keys
    queries: u32,     // so many of them are queries
    each: u32,        // 1: every head has weights of its own; 0: queries share some, and keys others
    width4: u32,      // values of a head / 4
    stride4: u32,     // values from row to row / 4
    first4: u32,      // where in a row the heads begin / 4
    layers: u32,      // where in lists the layer of each row stands
    layer4: u32,      // weights of a layer / 4
    weight4: u32,     // where in them those of the first head begin / 4
    epsilon: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> lists: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let head = group.x * subgroups + subgroup;
    let row = group.y;
    if (head >= p.heads || row >= p.rows) { return; }
    let at = row * p.stride4 + p.first4 + head * p.width4;
    let count = f32(4u * p.width4);
    var mean = 0.0;
    if (LAYER) {
        var sum = vec4<f32>();
        for (var i = lane; i < p.width4; i += size) { sum += values[at + i]; }
        mean = subgroupAdd(dot(sum, vec4<f32>(1.0))) / count;
    }
    var squares = vec4<f32>();
    for (var i = lane; i < p.width4; i += size) {
        let x = values[at + i] - mean;
        squares = fma(x, x, squares);
    }
    let scale = 1.0 / sqrt(subgroupAdd(dot(squares, vec4<f32>(1.0))) / count + p.epsilon);
    let which = select(u32(head >= p.queries), head, p.each == 1u);
    let weight = lists[p.layers + row] * p.layer4 + p.weight4 + which * p.width4;
    for (var i = lane; i < p.width4; i += size) {
        values[at + i] = (values[at + i] - mean) * scale * weights[weight + i];
    }
}
