// Multiply-adds in registers: 48 a round and invocation, in chains that do not wait for each other.
override WORKGROUP: u32 = 64;
override ROUNDS: u32 = 1024;
@group(0) @binding(0) var<storage, read_write> values: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var a = values[id.x];
    var b = a + 1.0;
    var c = a + 2.0;
    let half = vec4<f32>(0.5);
    for (var i = 0u; i < ROUNDS; i++) {
        a = fma(a, half, b); b = fma(b, half, c); c = fma(c, half, a);
        a = fma(a, half, b); b = fma(b, half, c); c = fma(c, half, a);
        a = fma(a, half, b); b = fma(b, half, c); c = fma(c, half, a);
        a = fma(a, half, b); b = fma(b, half, c); c = fma(c, half, a);
    }
    values[id.x] = a + b + c;
}
