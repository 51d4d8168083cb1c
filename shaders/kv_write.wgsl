// Keys and values of each row into its entry of the cache: four values an invocation.
override WORKGROUP: u32 = 64;

struct Params {
    rows: u32,
    width4: u32,     // keys and values of an entry / 4
    stride4: u32,    // values from row to row / 4
    from4: u32,      // where in a row they begin / 4
    entries: u32,    // where in lists the entry of each row stands; 0xffffffff there: none
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> lists: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let entry = lists[p.entries + id.y];
    if (id.x >= p.width4 || id.y >= p.rows || entry == 0xffffffffu) { return; }
    cache[entry * p.width4 + id.x] = input[id.y * p.stride4 + p.from4 + id.x];
}
