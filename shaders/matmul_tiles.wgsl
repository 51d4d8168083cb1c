// Up to 32 rows times a matrix whose rows are output columns, four columns an invocation, in registers. No workgroup memory and no
// barrier: each of eight lanes loads every eighth row of the input and passes them on by broadcast.
override WORKGROUP: u32 = 8;
override ROWS: u32 = 32;    // rows of a tile: 8, 16 or 32

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read> quads: array<vec4<f32>>; // the same weights, where they are f32
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> lists: array<u32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;

// Values 4k to 4k + 3 of the weight row that begins at this word.
fn weight(row: u32, k: u32) -> vec4<f32> {
    if (FORMAT == 0u) {
        return quads[row / 4u + k];
    }
    return packed(row, k);
}

fn mac(sum: vec4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> vec4<f32> {
    return fma(x.wwww, w[3], fma(x.zzzz, w[2], fma(x.yyyy, w[1], fma(x.xxxx, w[0], sum))));
}

fn rows_low(sums: mat4x4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        mac(sums[0], w, subgroupBroadcast(x, 0u)),
        mac(sums[1], w, subgroupBroadcast(x, 1u)),
        mac(sums[2], w, subgroupBroadcast(x, 2u)),
        mac(sums[3], w, subgroupBroadcast(x, 3u)),
    );
}

fn rows_high(sums: mat4x4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        mac(sums[0], w, subgroupBroadcast(x, 4u)),
        mac(sums[1], w, subgroupBroadcast(x, 5u)),
        mac(sums[2], w, subgroupBroadcast(x, 6u)),
        mac(sums[3], w, subgroupBroadcast(x, 7u)),
    );
}

fn put4(rows: u32, first: u32, at: u32, layer: u32, column: u32, sums: mat4x4<f32>) {
    for (var i = 0u; i < 4u && at + i < rows; i++) {
        for (var j = 0u; j < 4u; j++) { put(first + at + i, layer, column + j * WORKGROUP, sums[i][j]); }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let column = group.x * 4u * WORKGROUP + local.x;
    let tile = p.rows_at + 3u * group.y;
    let first = lists[tile];
    let rows = lists[tile + 1u];
    let layer = lists[tile + 2u];
    let wanted = vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u) * WORKGROUP;
    let matrix = vec4<u32>((layer - p.first_layer) * p.layer_words) + (min(wanted, vec4<u32>(p.columns - 1u)) + p.first_row) * p.row_words;
    let x0 = (first + min((lane & 7u) + 0u, rows - 1u)) * p.input_stride4;
    let x1 = (first + min((lane & 7u) + 8u, rows - 1u)) * p.input_stride4;
    let x2 = (first + min((lane & 7u) + 16u, rows - 1u)) * p.input_stride4;
    let x3 = (first + min((lane & 7u) + 24u, rows - 1u)) * p.input_stride4;
    var a0 = mat4x4<f32>();
    var b0 = mat4x4<f32>();
    var a1 = mat4x4<f32>();
    var b1 = mat4x4<f32>();
    var a2 = mat4x4<f32>();
    var b2 = mat4x4<f32>();
    var a3 = mat4x4<f32>();
    var b3 = mat4x4<f32>();
    for (var k = 0u; k < p.inner4; k++) {
        let w = transpose(mat4x4<f32>(
            weight(matrix.x, k), weight(matrix.y, k), weight(matrix.z, k), weight(matrix.w, k)));
        let v0 = input[x0 + k];
        a0 = rows_low(a0, w, v0);
        b0 = rows_high(b0, w, v0);
        if (ROWS > 8u) {
            let v1 = input[x1 + k];
            a1 = rows_low(a1, w, v1);
            b1 = rows_high(b1, w, v1);
        }
        if (ROWS > 16u) {
            let v2 = input[x2 + k];
            a2 = rows_low(a2, w, v2);
            b2 = rows_high(b2, w, v2);
            let v3 = input[x3 + k];
            a3 = rows_low(a3, w, v3);
            b3 = rows_high(b3, w, v3);
        }
    }
    put4(rows, first, 0u, layer, column, a0);
    put4(rows, first, 4u, layer, column, b0);
    if (ROWS > 8u) {
        put4(rows, first, 8u, layer, column, a1);
        put4(rows, first, 12u, layer, column, b1);
    }
    if (ROWS > 16u) {
        put4(rows, first, 16u, layer, column, a2);
        put4(rows, first, 20u, layer, column, b2);
        put4(rows, first, 24u, layer, column, a3);
        put4(rows, first, 28u, layer, column, b3);
    }
}
