// What the experts of each row say, by their shares: four values an invocation.
override WORKGROUP: u32 = 64;

struct Params {
    rows: u32,
    width4: u32,
    from_stride4: u32,
    to_stride4: u32,
    top: u32,        // rows of the input that belong to a row of the output
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> shares: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.width4 || id.y >= p.rows) { return; }
    var sum = vec4<f32>();
    for (var i = 0u; i < p.top; i++) {
        let from_row = id.y * p.top + i;
        sum = fma(vec4<f32>(shares[from_row]), input[from_row * p.from_stride4 + id.x], sum);
    }
    output[id.y * p.to_stride4 + id.x] = sum;
}
