// Which branches of a layer each row takes: an MLP with SiLU over the row's values divided by their root mean square. A subgroup a row.
override WORKGROUP: u32 = 8;   // the subgroup's size

struct Params {
    rows: u32,
    width4: u32,
    stride4: u32,
    hidden: u32,       // at most MOST_HIDDEN, a multiple of 4
    vectors: u32,      // where in the rest of the weights the layer's vector begins,
    second: u32,       // its two rows of the second product,
    biases: u32,       // and its two biases
    scores: u32,       // where in the results the layer's scores stand, two a row
    masks: u32,        // where in lists the masks stand: `rows` for attention, then `rows` for the feed-forward branch
    candidates: u32,   // bit 0: attention may be left out; bit 1: the feed-forward branch may
    epsilon: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> first: array<vec4<f32>>;   // hidden x width
@group(0) @binding(2) var<storage, read> rest: array<f32>;          // vectors, second and biases of all layers
@group(0) @binding(3) var<storage, read_write> scores: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> lists: array<u32>;

fn vector(at: u32) -> vec4<f32> { return vec4<f32>(rest[at], rest[at + 1u], rest[at + 2u], rest[at + 3u]); }

// A branch is left out where its score is below zero; by its bits, as compilers may take it that nothing is NaN: then it is taken.
fn taken(score: f32, branch: u32) -> u32 {
    let bits = bitcast<u32>(score);
    let below = bits > 0x80000000u && bits <= 0xff800000u;
    let may = ((p.candidates >> branch) & 1u) == 1u;
    return select(1u, 0u, below && may);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x;
    hidden_layer(row, lane, size, scale_of(row, lane, size), p.vectors);
    var sum = vec2<f32>();
    for (var h = lane; h < p.hidden; h += size) {
        sum = fma(vec2<f32>(inside[h]), vec2<f32>(rest[p.second + h], rest[p.second + p.hidden + h]), sum);
    }
    let score = subgroupAdd(sum) + vec2<f32>(rest[p.biases], rest[p.biases + 1u]);
    if (lane == 0u) {
        scores[p.scores + row] = score;
        lists[p.masks + row] = taken(score.x, 0u);
        lists[p.masks + p.rows + row] = taken(score.y, 1u);
    }
}
