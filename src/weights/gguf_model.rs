//! A model of the architecture `llama` from a GGUF file: keys and tensor names as llama.cpp writes them
//! (`gguf-py/gguf/constants.py`).

use super::gguf::Gguf;
use super::gguf_keys::refuse_unread;
use super::gguf_words::words;
use super::{Checkpoint, Name, Part, Place, Words};
use crate::error::{Error, Result};
use crate::model::{Model, Rope};
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

/// Keys that are read here.
const READ: [&str; 10] = [
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
];

/// Opens a GGUF file.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let gguf = Gguf::read(path)?;
    if gguf.text("general.architecture")? != "llama" {
        return Err(gguf.wrong("general.architecture", "llama"));
    }
    refuse_unread(&gguf, "llama", &READ)?;
    let words = words(&gguf)?;
    let mut model = model(&gguf, words.tokens.len() as u64)?;
    let tensors = tensors(&gguf, &mut model)?;
    model.check().map_err(|error| error.in_file(path))?;
    let theta = gguf.positive_or("llama.rope.freq_base", 10_000.0)?;
    model.rope = Some(Rope { interleaved: true, ..Rope::plain(theta, model.head_dim) });
    let epsilon = gguf.positive_or("llama.attention.layer_norm_rms_epsilon", 1e-5)?;
    model.norm.epsilon_1e12 = (epsilon * 1e12 + 0.5) as u64;
    model.context = gguf.whole_or("llama.context_length", 1..=1 << 40, 0)?;
    Ok(Checkpoint {
        model,
        files: gguf.files,
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
    let name = gguf.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut model = Model::plain(crate::error::shorten(&name), "GGUF", Dtype::F32);
    model.layers = gguf.whole("llama.block_count", 1..=65_535)? as u32;
    (model.hidden, model.heads, model.kv_heads, model.head_dim) = (hidden, heads, kv_heads, head_dim);
    model.ffn = number("feed_forward_length")?;
    model.set_vocabulary(vocabulary, hidden);
    Ok(model)
}

/// Where each tensor lies. Says in `model` whether it is tied, and the formats.
fn tensors(gguf: &Gguf, model: &mut Model) -> Result<HashMap<Name, Place>> {
    let mut tensors = HashMap::new();
    for entry in &gguf.tensors {
        let wrong = |what: &str| -> Error {
            crate::error::InputError::expected(what).key(&entry.name).file(&gguf.files[entry.file]).into()
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
            file: entry.file,
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
