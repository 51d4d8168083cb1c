// Measures what a branch adds to each row, and adds it where the ratio reaches a threshold: a subgroup a row.
override WORKGROUP: u32 = 8;   // a multiple of the subgroup's size

struct Params {
    rows: u32,
    width4: u32,
    stream_stride4: u32,
    branch_stride4: u32,
    record: u32,        // which of a row's records this is
    records: u32,       // records of a row
    over_input: u32,    // 1: ratio to the branch's input rather than its output
    threshold: f32,
    begins: u32,        // 1: a block begins; its input is kept for the block's own ratio
    scale: f32,         // what the branch is multiplied with
}
var<immediate> p: Params;

// Squared lengths of branch, input and output; squared length of what the block added, product of its input and output, and
// squared length of its input, as far as the block has come; whether the branch was added; the ratio.
struct Record { branch: f32, input: f32, output: f32, added: f32, along: f32, start: f32, taken: f32, ratio: f32 }

@group(0) @binding(0) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> stream: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> starts: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> result: array<Record>;

fn whole(x: vec4<f32>) -> f32 { return subgroupAdd(dot(x, vec4<f32>(1.0))); }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x * subgroups + subgroup;
    if (row >= p.rows) { return; }
    let at = row * p.stream_stride4;
    let from_at = row * p.branch_stride4;
    var bb = vec4<f32>();
    var xx = vec4<f32>();
    var yy = vec4<f32>();
    for (var i = lane; i < p.width4; i += size) {
        let b = p.scale * branch[from_at + i];
        let x = stream[at + i];
        let y = x + b;
        bb = fma(b, b, bb);
        xx = fma(x, x, xx);
        yy = fma(y, y, yy);
        if (p.begins == 1u) { starts[at + i] = x; }
    }
    let b2 = whole(bb);
    let x2 = whole(xx);
    let y2 = whole(yy);
    let ratio = sqrt(b2 / select(y2, x2, p.over_input == 1u));
    // By its bits, as compilers may take it that nothing is NaN: such a branch is taken, so that it shows.
    let defined = (bitcast<u32>(ratio) & 0x7fffffffu) <= 0x7f800000u;
    let taken = !defined || ratio >= p.threshold;
    var added = vec4<f32>();
    var along = vec4<f32>();
    var start = vec4<f32>();
    for (var i = lane; i < p.width4; i += size) {
        let y = stream[at + i] + select(vec4<f32>(), p.scale * branch[from_at + i], taken);
        stream[at + i] = y;
        let s = starts[at + i];
        added = fma(y - s, y - s, added);
        along = fma(y, s, along);
        start = fma(s, s, start);
    }
    let record = Record(b2, x2, y2, whole(added), whole(along), whole(start), select(0.0, 1.0, taken), ratio);
    if (lane == 0u) { result[row * p.records + p.record] = record; }
}
