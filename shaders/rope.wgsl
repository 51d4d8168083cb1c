// Rotates pairs of values of queries and keys by position, in place: an invocation a pair.
override WORKGROUP: u32 = 64;
override INTERLEAVED: bool = false; // pairs are neighbours (2i, 2i + 1) rather than halves apart (i, i + head / 2)

struct Params {
    rows: u32,
    heads: u32,
    half: u32,        // pairs of a head that turn: its first values
    head: u32,        // values of a head
    stride: u32,      // values from row to row
    positions: u32,   // where in lists the row of the angles stands for each row
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> angles: array<vec2<f32>>;  // cosine and sine: rows of angles x half
@group(0) @binding(1) var<storage, read> lists: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (id.x >= p.heads * p.half || row >= p.rows) { return; }
    let head = id.x / p.half;
    let pair = id.x % p.half;
    var a = row * p.stride + head * p.head + pair;
    var b = a + p.half;
    if (INTERLEAVED) {
        a += pair;
        b = a + 1u;
    }
    let turn = angles[lists[p.positions + row] * p.half + pair];
    let x = values[a];
    let y = values[b];
    values[a] = x * turn.x - y * turn.y;
    values[b] = y * turn.x + x * turn.y;
}
