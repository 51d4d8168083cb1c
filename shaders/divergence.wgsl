// KL divergence of one model's predictions from another's, the teacher's, row by row: the sum over the vocabulary of p_t (log p_t - log p). A
// workgroup of one subgroup a row. Both heads left logits; the logarithms of the sums of their exponentials are known.
override WORKGROUP: u32 = 8;           // the subgroup's size
override CAPPED: bool = false;         // whether logits have an upper and lower bound
override TEACHER_CAPPED: bool = false; // whether the teacher's have

struct Params {
    rows: u32,
    vocabulary: u32,
    rows_at: u32,       // where in lists three words of each row stand: the teacher's row, its logarithm of the sum, the own one
    scale: f32,         // what logits are multiplied with
    cap: f32,           // then a logit l becomes cap tanh(l / cap)
    teacher_scale: f32, // the same for the teacher's
    teacher_cap: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> teacher: array<f32>;
@group(0) @binding(2) var<storage, read> lists: array<u32>;
@group(0) @binding(3) var<storage, read_write> divergences: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x;
    if (row >= p.rows) { return; }
    let known = p.rows_at + 3u * row;
    let own_at = row * p.vocabulary;
    let teacher_at = lists[known] * p.vocabulary;
    let teacher_sum = bitcast<f32>(lists[known + 1u]);
    let own_sum = bitcast<f32>(lists[known + 2u]);
    var sum = 0.0;
    for (var i = lane; i < p.vocabulary; i += size) {
        var own = p.scale * logits[own_at + i];
        if (CAPPED) { own = p.cap * tanh(own / p.cap); }
        var other = p.teacher_scale * teacher[teacher_at + i];
        if (TEACHER_CAPPED) { other = p.teacher_cap * tanh(other / p.teacher_cap); }
        let other_log = other - teacher_sum;
        sum = fma(exp(other_log), other_log - (own - own_sum), sum);
    }
    let total = subgroupAdd(sum);
    if (lane == 0u) { divergences[row] = total; }
}
