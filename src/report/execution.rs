//! What a run on the device said, for programs: a line of JSON for each prompt.

use crate::gpu::{Completion, Residual};
use serde_json::{Value, json};

/// One line. `last`: what each layer did to the last token of the prompt; empty where it was not measured. `remarks`: what a
/// reader may not expect of the prompt.
pub fn line(
    prompt_ids: &[u32],
    text: Option<&str>,
    answer: &Completion,
    last: &[Residual],
    remarks: &[String],
) -> Value {
    let top: Vec<Value> = answer.first.iter().take(5).map(|(id, logit)| json!([id, logit])).collect();
    let ratios = |of: fn(&Residual) -> f32| match last {
        [] => Value::Null,
        last => last.iter().map(of).collect::<Vec<f32>>().into(),
    };
    let mut line = json!({
        "prompt_ids": prompt_ids,
        "last_top5": top,
        "greedy_ids": answer.ids,
        "attn_ratio_last": ratios(|residual| residual.attention),
        "ffn_ratio_last": ratios(|residual| residual.feed_forward),
        "nll_prompt": answer.nll,
    });
    if let Some(text) = text {
        line["answer"] = text.into();
    }
    if !remarks.is_empty() {
        line["remarks"] = remarks.into();
    }
    line
}
