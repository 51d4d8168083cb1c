// activation(gate) * up: gate and up stand side by side in a row. Four values an invocation.
override WORKGROUP: u32 = 64;

struct Params {
    rows: u32,
    width4: u32,
    input_stride4: u32,
    output_stride4: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> output: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.width4 || id.y >= p.rows) { return; }
    let from_at = id.y * p.input_stride4 + id.x;
    output[id.y * p.output_stride4 + id.x] = bent(input[from_at]) * input[from_at + p.width4];
}
