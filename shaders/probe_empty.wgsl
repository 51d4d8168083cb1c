// Does nothing: what a dispatch costs.
override WORKGROUP: u32 = 8;
@group(0) @binding(0) var<storage, read_write> output: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x == 0xffffffffu) { output[0] = 1u; }
}
