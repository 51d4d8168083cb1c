// Reads a buffer and keeps a sum: each invocation a run of its own.
override WORKGROUP: u32 = 8;
override EACH: u32 = 512;   // times sixteen bytes, a multiple of 4
@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var a = vec4<f32>();
    var b = vec4<f32>();
    var c = vec4<f32>();
    var d = vec4<f32>();
    var at = id.x * EACH;
    for (var i = 0u; i < EACH; i += 4u) {
        a += input[at];
        b += input[at + 1u];
        c += input[at + 2u];
        d += input[at + 3u];
        at += 4u;
    }
    output[id.x] = dot(a + b + c + d, vec4<f32>(1.0));
}
