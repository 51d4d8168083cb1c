// Rows of a block back to where they came from: four values an invocation. Indices are distinct.
override WORKGROUP: u32 = 64;

struct Params {
    rows: u32,
    width4: u32,
    from_stride4: u32,
    to_stride4: u32,
    indices: u32,    // where in lists the indices stand
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> block: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> lists: array<u32>;
@group(0) @binding(2) var<storage, read_write> stream: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.width4 || id.y >= p.rows) { return; }
    stream[lists[p.indices + id.y] * p.to_stride4 + id.x] = block[id.y * p.from_stride4 + id.x];
}
