// Parameters of `sample_parts` and `sample`, and the value of a logit: after their text, which binds the logits.
override CAPPED: bool = false; // whether logits have an upper and lower bound

struct Params {
    rows: u32,
    vocabulary: u32,
    stride: u32,      // logits from row to row
    top: u32,         // how many tokens, at least 1
    targets: u32,     // where in lists the given token of each row stands
    first: u32,       // first row of the results
    part: u32,        // logits of a part
    parts: u32,       // parts of a row
    scale: f32,       // what logits are multiplied with
    cap: f32,         // then a logit l becomes cap tanh(l / cap)
}
var<immediate> p: Params;

fn logit(at: u32) -> f32 {
    let x = p.scale * logits[at];
    if (CAPPED) { return p.cap * tanh(x / p.cap); }
    return x;
}
