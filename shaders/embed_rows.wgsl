// Rows of a table by token: four values an invocation. A row outside of this part of the table is left alone.
override WORKGROUP: u32 = 64;

struct Params {
    rows: u32,
    width4: u32,
    stride4: u32,
    row_words: u32,    // u32 words of a row of the table
    tokens: u32,       // where in lists the tokens stand
    first: u32,        // the token of the table's first row
    count: u32,        // rows of this part of the table
    scale: f32,        // what values are multiplied with
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> weights: array<u32>;
@group(0) @binding(1) var<storage, read> lists: array<u32>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;

// Values 4k to 4k + 3 of the row that begins at this word.
fn weight(row: u32, k: u32) -> vec4<f32> {
    if (FORMAT == 0u) {
        let at = row + 4u * k;
        return bitcast<vec4<f32>>(vec4<u32>(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]));
    }
    return packed(row, k);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.width4 || id.y >= p.rows) { return; }
    let token = lists[p.tokens + id.y] - p.first;
    if (token < p.count) { output[id.y * p.stride4 + id.x] = p.scale * weight(token * p.row_words, id.x); }
}
