//! Keys of GGUF files: which of them can change what a model computes, and the value at which they do not.
//!
//! Names and meanings are those of ggml's `docs/gguf.md` and of gguf-py's `constants.py` (0.19); values that switch a thing off are
//! those of llama.cpp (`llama-model.cpp`, `llama-hparams.h`). A key of an architecture that is not listed, and that the reader of the
//! architecture does not read, is taken to change something.

use super::gguf::{Gguf, Value};
use crate::error::Result;

/// When a key changes nothing.
enum Neutral {
    /// Always: a size that the tensors say too, a limit, a name, a hint.
    Always,
    /// At these numbers, or a list of them.
    At(&'static [f64]),
    /// At this truth value.
    Flag(bool),
    /// At one of these texts.
    Texts(&'static [&'static str]),
    /// At 0, and where it is no shorter than the context.
    Window,
    /// At 0, and where it is what queries are scaled by anyway: 1 over the root of a head's width.
    HeadScale,
}

struct Key {
    /// Behind the architecture and a dot, or whole.
    name: &'static str,
    neutral: Neutral,
    meaning: &'static str,
}

const fn key(name: &'static str, neutral: Neutral, meaning: &'static str) -> Key {
    Key { name, neutral, meaning }
}

const OFF: Neutral = Neutral::At(&[0.0]);
const ONE: Neutral = Neutral::At(&[0.0, 1.0]);

/// Keys behind the name of an architecture.
const OF_ARCHITECTURE: [Key; 56] = [
    key("vocab_size", Neutral::Always, "the vocabulary, which the tokens say too"),
    key("context_length", Neutral::Always, "the longest context in training"),
    key("rope.scaling.finetuned", Neutral::Always, "whether training went on with the scaled rotation"),
    key(
        "rope.scaling.original_context_length",
        Neutral::Always,
        "the context before a scaling, without which it is nothing",
    ),
    key(
        "tensor_data_layout",
        Neutral::Texts(&["Meta AI original pth", "reference"]),
        "another order of rows",
    ),
    key("rope.scaling.type", Neutral::Texts(&["none"]), "a scaled rotary embedding"),
    key("rope.scaling.factor", ONE, "a scaled rotary embedding"),
    key("rope.scale_linear", ONE, "a scaled rotary embedding"),
    key("rope.scaling.alpha", OFF, "a scaled rotary embedding"),
    key("rope.scaling.attn_factor", ONE, "attention scaled with the rotary embedding"),
    key("rope.scaling.yarn_log_multiplier", OFF, "attention scaled with the rotary embedding"),
    key("rope.scaling.yarn_ext_factor", Neutral::At(&[-1.0, 0.0, 1.0]), "a scaled rotary embedding"),
    key("rope.scaling.yarn_attn_factor", ONE, "attention scaled with the rotary embedding"),
    key("rope.scaling.yarn_beta_fast", Neutral::At(&[0.0, 32.0]), "a scaled rotary embedding"),
    key("rope.scaling.yarn_beta_slow", ONE, "a scaled rotary embedding"),
    key("rope.dimension_sections", OFF, "rotary embeddings of several axes"),
    key("rope.dimension_count_swa", OFF, "another rotation in layers with a window"),
    key("rope.freq_base_swa", OFF, "another rotation in layers with a window"),
    key("attention.sliding_window", Neutral::Window, "an attention window"),
    key("attention.sliding_window_pattern", OFF, "an attention window in some layers"),
    key("attention.key_length_swa", OFF, "other heads in layers with a window"),
    key("attention.value_length_swa", OFF, "other heads in layers with a window"),
    key("attention.shared_kv_layers", OFF, "keys and values shared by layers"),
    key("attention.scale", Neutral::HeadScale, "another scale of attention"),
    key("attention.output_scale", ONE, "scaled outputs of attention"),
    key("attention.temperature_scale", OFF, "attention scaled by position"),
    key("attention.temperature_length", OFF, "attention scaled by position"),
    key("attention.clamp_kqv", OFF, "clamped queries, keys and values"),
    key("attention.max_alibi_bias", OFF, "attention biased by distance"),
    key("attention.causal", Neutral::Flag(true), "attention to later tokens"),
    key("attention.q_lora_rank", OFF, "latent attention"),
    key("attention.kv_lora_rank", OFF, "latent attention"),
    key("attention.key_length_mla", OFF, "latent attention"),
    key("attention.value_length_mla", OFF, "latent attention"),
    key("attn_logit_softcapping", OFF, "capped scores of attention"),
    key("router_logit_softcapping", OFF, "capped scores of a router"),
    key("final_logit_softcapping", OFF, "capped logits"),
    key("logit_scale", ONE, "scaled logits"),
    key("residual_scale", ONE, "scaled branches"),
    key("embedding_scale", ONE, "scaled embeddings"),
    key("use_parallel_residual", Neutral::Flag(false), "branches side by side"),
    key("swin_norm", Neutral::Flag(false), "norms behind branches"),
    key("swiglu_clamp_exp", OFF, "clamped gates"),
    key("swiglu_clamp_shexp", OFF, "clamped gates"),
    key("expert_count", OFF, "experts"),
    key("expert_used_count", OFF, "experts"),
    key("expert_shared_count", OFF, "shared experts"),
    key("expert_group_count", ONE, "experts chosen by groups"),
    key("expert_group_used_count", ONE, "experts chosen by groups"),
    key("expert_weights_scale", ONE, "scaled weights of experts"),
    key("expert_gating_func", ONE, "another way to weigh experts"),
    key("leading_dense_block_count", OFF, "layers without experts"),
    key("nextn_predict_layers", OFF, "layers that predict further tokens"),
    key("moe_every_n_layers", OFF, "experts in some layers"),
    key("interleave_moe_layer_step", OFF, "experts in some layers"),
    key("pooling_type", OFF, "pooled outputs"),
];

/// Whole keys that can change what a model computes, or what its tokens are.
const WHOLE: [Key; 5] = [
    key("general.type", Neutral::Texts(&["model"]), "a file that is no model"),
    key("tokenizer.ggml.remove_extra_whitespaces", Neutral::Flag(false), "a tokenizer that drops spaces"),
    key("tokenizer.ggml.normalizer.lowercase", Neutral::Flag(false), "a tokenizer that changes letters"),
    key("tokenizer.ggml.normalizer.strip_accents", Neutral::Flag(false), "a tokenizer that changes letters"),
    key("tokenizer.ggml.add_sep_token", Neutral::Flag(false), "a separator behind every text"),
];

/// Keys of tokenizers that are read, or that say nothing about text and its tokens.
const TOKENIZER: [&str; 35] = [
    "ggml.model",
    "ggml.pre",
    "ggml.tokens",
    "ggml.token_type",
    "ggml.token_type_count",
    "ggml.scores",
    "ggml.merges",
    "ggml.added_tokens",
    "ggml.bos_token_id",
    "ggml.eos_token_id",
    "ggml.eot_token_id",
    "ggml.eom_token_id",
    "ggml.unknown_token_id",
    "ggml.seperator_token_id",
    "ggml.padding_token_id",
    "ggml.mask_token_id",
    "ggml.cls_token_id",
    "ggml.add_bos_token",
    "ggml.add_eos_token",
    "ggml.add_space_prefix",
    "ggml.precompiled_charsmap",
    "ggml.fim_pre_token_id",
    "ggml.fim_suf_token_id",
    "ggml.fim_mid_token_id",
    "ggml.fim_pad_token_id",
    "ggml.fim_rep_token_id",
    "ggml.fim_sep_token_id",
    "ggml.prefix_token_id",
    "ggml.suffix_token_id",
    "ggml.middle_token_id",
    "chat_template",
    "chat_templates",
    "huggingface.json",
    "rwkv.world",
    "ggml.tokenizer_hash",
];

/// A key that can change what the model computes and that nobody reads.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread<'a> {
    pub key: &'a str,
    /// What it stands for; `None` where it is not known.
    pub meaning: Option<&'static str>,
}

/// Keys that are set to other than their neutral value and that a reader does not read. `read`: the keys that it reads, each behind
/// the name of the architecture. Keys of other makers (neither of the architecture nor `general`, `tokenizer`, `adapter`) say
/// nothing to any engine.
pub fn unread<'a>(gguf: &'a Gguf, architecture: &str, read: &[&str]) -> Vec<Unread<'a>> {
    let mut all = Vec::new();
    for (key, value) in gguf.keys() {
        let known = |known: &[Key], name: &str| known.iter().position(|known| known.name == name);
        let table: (&[Key], &str) = if let Some(at) = known(&WHOLE, key) {
            (&WHOLE[at..=at], key)
        } else if let Some(name) = key.strip_prefix(architecture).and_then(|name| name.strip_prefix('.')) {
            if read.contains(&name) {
                continue;
            }
            (&OF_ARCHITECTURE, name)
        } else if let Some(name) = key.strip_prefix("tokenizer.") {
            if TOKENIZER.contains(&name) || name.starts_with("chat_template.") {
                continue;
            }
            (&[], name)
        } else if key.starts_with("adapter.") {
            (&[], key)
        } else {
            continue;
        };
        let found = table.0.iter().find(|known| known.name == table.1);
        if !found.is_some_and(|known| known.neutral.holds(gguf, architecture, value)) {
            all.push(Unread { key, meaning: found.map(|known| known.meaning) });
        }
    }
    all
}

/// Refuses a file with such a key, by its name.
pub fn refuse_unread(gguf: &Gguf, architecture: &str, read: &[&str]) -> Result<()> {
    match unread(gguf, architecture, read).first() {
        None => Ok(()),
        Some(Unread { key, meaning: Some(meaning) }) => {
            Err(gguf.wrong(key, format!("none, as {meaning} is not supported for {architecture}")))
        }
        Some(Unread { key, meaning: None }) => {
            Err(gguf.wrong(key, format!("no such key: what it changes in {architecture} is not known")))
        }
    }
}

impl Neutral {
    fn holds(&self, gguf: &Gguf, architecture: &str, value: &Value) -> bool {
        let number = |key: &str| gguf.get(&format!("{architecture}.{key}")).and_then(number);
        match self {
            Neutral::Always => true,
            Neutral::Flag(flag) => *value == Value::Bool(*flag),
            Neutral::Texts(texts) => matches!(value, Value::Text(text) if texts.contains(&text.as_str())),
            Neutral::At(numbers) => all(value, &|found| numbers.contains(&found)),
            Neutral::Window => {
                let context = number("context_length").unwrap_or(f64::INFINITY);
                all(value, &|found| found == 0.0 || found >= context)
            }
            Neutral::HeadScale => {
                let by_heads = || Some(number("embedding_length")? / number("attention.head_count")?);
                let width = number("attention.key_length").or_else(by_heads);
                let same = |found: f64| width.is_some_and(|width| (found * width.sqrt() - 1.0).abs() < 1e-5);
                all(value, &|found| found == 0.0 || same(found))
            }
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Whole(whole) => Some(*whole as f64),
        Value::Float(float) => Some(*float),
        Value::Bool(flag) => Some(f64::from(*flag)),
        _ => None,
    }
}

/// Whether it holds for a number, or for all numbers of a list.
fn all(value: &Value, holds: &dyn Fn(f64) -> bool) -> bool {
    match value {
        Value::List(list) => list.iter().all(|value| number(value).is_some_and(holds)),
        one => number(one).is_some_and(holds),
    }
}
