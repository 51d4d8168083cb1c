// x / sqrt(mean(x^2) + epsilon) * weight over each row: a subgroup a row.
override WORKGROUP: u32 = 8;   // a multiple of the subgroup's size
override IN_PLACE: bool = false; // the output is the input too

struct Params {
    rows: u32,
    width4: u32,          // values of a row / 4
    input_stride4: u32,
    output_stride4: u32,
    layers: u32,          // where in lists the layer of each row stands; 0xffffffff there: the row is left alone
    epsilon: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> lists: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;

fn value(at: u32, i: u32, row: u32) -> vec4<f32> {
    if (IN_PLACE) { return output[row * p.output_stride4 + i]; }
    return input[at + i];
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x * subgroups + subgroup;
    if (row >= p.rows) { return; }
    let layer = lists[p.layers + row];
    if (layer == 0xffffffffu) { return; }
    let from_at = row * p.input_stride4;
    var squares = vec4<f32>();
    for (var i = lane; i < p.width4; i += size) {
        let x = value(from_at, i, row);
        squares = fma(x, x, squares);
    }
    let mean = subgroupAdd(dot(squares, vec4<f32>(1.0))) / f32(4u * p.width4);
    let scale = 1.0 / sqrt(mean + p.epsilon);
    let weight = layer * p.width4;
    let to_at = row * p.output_stride4;
    for (var i = lane; i < p.width4; i += size) {
        output[to_at + i] = value(from_at, i, row) * scale * weights[weight + i];
    }
}
