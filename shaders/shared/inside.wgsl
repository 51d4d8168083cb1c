// The hidden layer of a router's MLP: after the text of each router, which binds `input` and `first` and says with `vector` what is
// added to the products.
const MOST_HIDDEN = 1024u;
var<workgroup> inside: array<f32, MOST_HIDDEN>;

// One over the root mean square of a row.
fn scale_of(row: u32, lane: u32, size: u32) -> f32 {
    var squares = vec4<f32>();
    for (var k = lane; k < p.width4; k += size) {
        let x = input[row * p.stride4 + k];
        squares = fma(x, x, squares);
    }
    let mean = subgroupAdd(dot(squares, vec4<f32>(1.0))) / f32(4u * p.width4);
    return 1.0 / sqrt(mean + p.epsilon);
}

// SiLU of `scale` times the row's products and the vector that begins at `vector_at`.
fn hidden_layer(row: u32, lane: u32, size: u32, scale: f32, vector_at: u32) {
    // Four at a time, so that there are fewer turns: Mesa's llvmpipe ends all loops of an invocation after 65,535 of them.
    for (var h = 0u; h < p.hidden; h += 4u) {
        var sums = mat4x4<f32>();
        for (var k = lane; k < p.width4; k += size) {
            let x = input[row * p.stride4 + k];
            let at = h * p.width4 + k;
            sums[0] = fma(x, first[at], sums[0]);
            sums[1] = fma(x, first[at + p.width4], sums[1]);
            sums[2] = fma(x, first[at + 2u * p.width4], sums[2]);
            sums[3] = fma(x, first[at + 3u * p.width4], sums[3]);
        }
        let product = scale * subgroupAdd(vec4<f32>(1.0) * sums);
        if (lane == 0u) {
            let x = product + vector(vector_at + h);
            let y = x / (1.0 + exp(-x));
            inside[h] = y.x;
            inside[h + 1u] = y.y;
            inside[h + 2u] = y.z;
            inside[h + 3u] = y.w;
        }
    }
    workgroupBarrier();
}
