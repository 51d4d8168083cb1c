// activation(gate) * up: gate and up stand side by side in a row. Four values an invocation.
override WORKGROUP: u32 = 64;
override KIND: u32 = 0;   // 0 SiLU, 1 GELU (tanh), 2 ReLU

struct Params {
    rows: u32,
    width4: u32,
    input_stride4: u32,
    output_stride4: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> output: array<vec4<f32>>;

fn bent(x: vec4<f32>) -> vec4<f32> {
    if (KIND == 0u) { return x / (1.0 + exp(-x)); }
    // sqrt(8 / pi): the tanh form of GELU as x / (1 + exp(-2u)).
    if (KIND == 1u) { return x / (1.0 + exp(-1.5957691216 * (x + 0.044715 * x * x * x))); }
    return max(x, vec4<f32>());
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.width4 || id.y >= p.rows) { return; }
    let from_at = id.y * p.input_stride4 + id.x;
    output[id.y * p.output_stride4 + id.x] = bent(input[from_at]) * input[from_at + p.width4];
}
