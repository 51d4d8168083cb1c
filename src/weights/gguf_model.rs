//! A model of the architecture `llama` from a GGUF file: keys and tensor names as llama.cpp writes them
//! (`gguf-py/gguf/constants.py`).

use super::gguf::{Gguf, Value};
use super::vocabulary::{self, Vocabulary};
use super::{Checkpoint, Name, Part, Place, Rope, Words};
use crate::error::{Error, Result};
use crate::model::{Activation, Input, Model, Norm};
use crate::units::Dtype;
use std::collections::HashMap;
use std::path::Path;

/// Tensors of a layer: `blk.N.` before and `.weight` behind.
const LAYER: [(&str, Part); 9] = [
    ("attn_norm", Part::AttentionNorm),
    ("attn_q", Part::Q),
    ("attn_k", Part::K),
    ("attn_v", Part::V),
    ("attn_output", Part::O),
    ("ffn_norm", Part::FfnNorm),
    ("ffn_gate", Part::Gate),
    ("ffn_up", Part::Up),
    ("ffn_down", Part::Down),
];

/// Opens a GGUF file.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let gguf = Gguf::read(path)?;
    if gguf.text("general.architecture")? != "llama" {
        return Err(gguf.wrong("general.architecture", "llama"));
    }
    let words = words(&gguf)?;
    let mut model = model(&gguf, words.tokens.len() as u64)?;
    let tensors = tensors(&gguf, &mut model)?;
    model.check().map_err(|error| error.in_file(path))?;
    let rope = Rope { theta: gguf.positive_or("llama.rope.freq_base", 10_000.0)?, interleaved: true };
    Ok(Checkpoint {
        model,
        epsilon: gguf.positive_or("llama.attention.layer_norm_rms_epsilon", 1e-5)?,
        rope: Some(rope),
        position_offset: 0,
        files: vec![path.to_owned()],
        tensors,
        words: Words::Listed(path.to_owned(), Box::new(words)),
    })
}

fn model(gguf: &Gguf, vocabulary: u64) -> Result<Model> {
    const MOST: u64 = 1 << 24;
    let number = |key: &str| gguf.whole(&format!("llama.{key}"), 1..=MOST);
    let (hidden, heads) = (number("embedding_length")?, number("attention.head_count")?);
    let kv_heads = gguf.whole_or("llama.attention.head_count_kv", 1..=heads, heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(gguf.wrong("llama.attention.head_count_kv", format!("a divisor of {heads} heads")));
    }
    let head_dim = gguf.whole_or("llama.attention.key_length", 1..=MOST, hidden / heads)?;
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if gguf.whole_or(key, 1..=MOST, head_dim)? != head_dim {
            return Err(gguf.wrong(key, format!("the width of a head, {head_dim}")));
        }
    }
    for key in ["llama.rope.scaling.type", "llama.expert_count"] {
        if gguf.get(key).is_some_and(|value| !matches!(value, Value::Text(text) if text == "none")) {
            return Err(gguf.wrong(key, "no such key: this is not supported"));
        }
    }
    let name = gguf.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok(Model {
        name: crate::error::shorten(&name),
        source: "GGUF".into(),
        layers: gguf.whole("llama.block_count", 1..=65_535)? as u32,
        hidden,
        heads,
        kv_heads,
        head_dim,
        ffn: number("feed_forward_length")?,
        gated: true,
        activation: Activation::Silu,
        norm: Norm::Rms,
        final_norm: true,
        rope: true,
        qkv_bias: false,
        bias: false,
        qk_norm: false,
        input: Input::Tokens { vocabulary, width: hidden },
        outputs: vocabulary,
        tied: false,
        positions: 0,
        weights: Dtype::F32,
        embedding_weights: Dtype::F32,
        activations: Dtype::F32,
        kv: Dtype::F32,
    })
}

/// Where each tensor lies. Says in `model` whether it is tied, and the formats.
fn tensors(gguf: &Gguf, model: &mut Model) -> Result<HashMap<Name, Place>> {
    let mut tensors = HashMap::new();
    for entry in &gguf.tensors {
        let wrong = |what: &str| -> Error {
            crate::error::InputError::expected(what).key(&entry.name).file(&gguf.path).into()
        };
        // Frequencies that some converters add say what theta says already.
        if entry.name == "rope_freqs.weight" {
            return Err(wrong("no table of frequencies: scaled rotary embeddings are not supported"));
        }
        let name = name(&entry.name, model.layers).ok_or_else(|| wrong("a tensor of a llama model"))?;
        let &[width, ref rows @ ..] = entry.dims.as_slice() else {
            return Err(wrong("at least one dimension"));
        };
        let rows = rows.iter().product::<u64>() as usize;
        let place = Place {
            called: entry.name.clone(),
            file: 0,
            offset: entry.offset,
            format: entry.format,
            rows,
            width: width as usize,
        };
        if tensors.insert(name, place).is_some() {
            return Err(wrong("each tensor once"));
        }
    }
    model.tied = !tensors.contains_key(&Name::Head);
    if let Some(matrix) = tensors.get(&Name::Layer(0, Part::O)) {
        model.weights = matrix.format.dtype();
    }
    if let Some(table) = tensors.get(&Name::Embedding) {
        model.embedding_weights = table.format.dtype();
    }
    Ok(tensors)
}

fn name(called: &str, layers: u32) -> Option<Name> {
    match called {
        "token_embd.weight" => return Some(Name::Embedding),
        "output_norm.weight" => return Some(Name::FinalNorm),
        "output.weight" => return Some(Name::Head),
        _ => {}
    }
    let (layer, part) = called.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
    let layer = layer.parse().ok().filter(|&layer: &u32| layer < layers)?;
    LAYER.iter().find(|(known, _)| *known == part).map(|&(_, part)| Name::Layer(layer, part))
}

/// The tokenizer that the file holds.
fn words(gguf: &Gguf) -> Result<Vocabulary> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
    let whole = |value: &Value| if let Value::Whole(whole) = value { Some(*whole) } else { None };
    let tokens = gguf.list(&key("tokens"), "texts", text)?;
    let count = tokens.len() as u64;
    let kinds = match gguf.get(&key("token_type")) {
        Some(_) => gguf.list(&key("token_type"), "whole numbers", whole)?,
        None => vec![vocabulary::NORMAL; tokens.len()],
    };
    if kinds.len() != tokens.len() {
        return Err(gguf.wrong(&key("token_type"), format!("{count}, one for each token")));
    }
    let flag = |name: &str, default| match gguf.get(&key(name)) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(gguf.wrong(&key(name), "a truth value")),
    };
    let id = |name: &str| match gguf.get(&key(name)) {
        None => Ok(None),
        Some(_) => gguf.whole(&key(name), 0..=count.saturating_sub(1)).map(|id| Some(id as u32)),
    };
    let model = gguf.text(&key("model"))?;
    let score = |value: &Value| if let Value::Float(score) = value { Some(*score) } else { None };
    let kind = match model {
        "gpt2" => {
            let pre = gguf.text(&key("pre"))?;
            let split = vocabulary::Split::of_gguf(pre)
                .ok_or_else(|| gguf.wrong(&key("pre"), format!("one of {}", vocabulary::Split::names())))?;
            vocabulary::Kind::Bytes { merges: gguf.list(&key("merges"), "texts", text)?, split }
        }
        "llama" => {
            let scores = gguf.list(&key("scores"), "numbers", score)?;
            if scores.len() != tokens.len() {
                return Err(gguf.wrong(&key("scores"), format!("{count}, one for each token")));
            }
            vocabulary::Kind::Scores { scores, prefix_space: flag("add_space_prefix", true)? }
        }
        _ => return Err(gguf.wrong(&key("model"), "gpt2 or llama")),
    };
    let mut end: Vec<u32> = [id("eos_token_id")?, id("eot_token_id")?].into_iter().flatten().collect();
    end.dedup();
    let begin = if flag("add_bos_token", model == "llama")? { id("bos_token_id")? } else { None };
    let template = gguf.text("tokenizer.chat_template").ok().map(str::to_owned);
    Ok(Vocabulary { tokens, kinds, kind, begin, end, template })
}
