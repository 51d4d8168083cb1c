// The branch's result added to the stream, in rows that the mask takes. Four values an invocation.
override WORKGROUP: u32 = 64;
override MASKED: bool = false;
override WEIGHTED: bool = false;

struct Params {
    rows: u32,
    width4: u32,
    stream_stride4: u32,
    branch_stride4: u32,
    mask: u32,       // where in lists the mask stands: 1 for rows that are added to
    weights: u32,    // where in lists the weight of each row stands, as the bits of a float
    scale: f32,      // what the branch is multiplied with
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> lists: array<u32>;
@group(0) @binding(2) var<storage, read_write> stream: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.width4 || id.y >= p.rows) { return; }
    if (MASKED) {
        if (lists[p.mask + id.y] == 0u) { return; }
    }
    var scale = p.scale;
    if (WEIGHTED) { scale *= bitcast<f32>(lists[p.weights + id.y]); }
    let at = id.y * p.stream_stride4 + id.x;
    stream[at] = fma(vec4<f32>(scale), branch[id.y * p.branch_stride4 + id.x], stream[at]);
}
