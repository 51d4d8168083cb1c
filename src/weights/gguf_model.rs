//! A model from a GGUF file: keys and tensor names as llama.cpp writes them (`gguf-py/gguf/constants.py`). What architectures differ
//! in is data: `ARCHITECTURES`.

use super::gguf::{Gguf, Value};
use super::gguf_keys::refuse_unread;
use super::gguf_rope;
use super::gguf_words::words;
use super::names::{Pick, fused_in_gguf};
use super::{Checkpoint, LayerTensor, Name, Place, Words};
use crate::error::{Error, Result};
use crate::model::{Activation, Kind, Model, NormPlacement, QkNorm, Rotation};
use crate::units::Dtype;
use std::collections::HashMap;
use std::path::Path;

/// Tensors of a layer: `blk.N.` before.
const LAYER: [(&str, LayerTensor); 20] = [
    ("attn_norm.weight", LayerTensor::AttentionNorm),
    ("attn_q.weight", LayerTensor::Q),
    ("attn_k.weight", LayerTensor::K),
    ("attn_v.weight", LayerTensor::V),
    ("attn_q.bias", LayerTensor::QBias),
    ("attn_k.bias", LayerTensor::KBias),
    ("attn_v.bias", LayerTensor::VBias),
    ("attn_output.weight", LayerTensor::O),
    ("attn_output.bias", LayerTensor::OBias),
    ("attn_q_norm.weight", LayerTensor::QNorm),
    ("attn_k_norm.weight", LayerTensor::KNorm),
    ("post_attention_norm.weight", LayerTensor::AttentionAfter),
    ("ffn_norm.weight", LayerTensor::FfnNorm),
    ("ffn_gate.weight", LayerTensor::Gate),
    ("ffn_up.weight", LayerTensor::Up),
    ("ffn_down.weight", LayerTensor::Down),
    ("post_ffw_norm.weight", LayerTensor::FfnAfter),
    ("ffn_gate.bias", LayerTensor::GateBias),
    ("ffn_up.bias", LayerTensor::UpBias),
    ("ffn_down.bias", LayerTensor::DownBias),
];

/// Keys that are read for every architecture, behind its name.
const READ: [&str; 18] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.scale",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "rope.scale_linear",
];

/// Keys of attention windows.
const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";
/// Keys of bounds.
const CAP: &str = "attn_logit_softcapping";
const LOGIT_CAP: &str = "final_logit_softcapping";

/// What an architecture computes. Facts: `llama-model.cpp` of llama.cpp.
struct Architecture {
    name: &'static str,
    /// Rotation of neighbours rather than halves: converters reorder the rows of queries and keys.
    interleaved: bool,
    activation: Activation,
    placement: NormPlacement,
    qk_norm: QkNorm,
    /// Whether the embedding is multiplied with the root of its width.
    scaled_embedding: bool,
    /// Keys that it reads besides those of all.
    reads: &'static [&'static str],
    /// Whether gate and value of the feed-forward part are one tensor.
    fused: bool,
    /// Every so many layers, one sees all tokens and the others a window; 1: all layers have one; 0: none has.
    every: u64,
    /// Base of the angles of layers with a window, where it is another.
    local_theta: Option<f64>,
    /// Layers of the size whose scores are scaled by the heads' share of the stream rather than by their width (Gemma 2 and 3, 27B).
    by_share: u32,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    interleaved: true,
    activation: Activation::Silu,
    placement: NormPlacement::Before,
    qk_norm: QkNorm::None,
    scaled_embedding: false,
    reads: &[],
    fused: false,
    every: 0,
    local_theta: None,
    by_share: 0,
};

const GEMMA: Architecture = Architecture {
    name: "gemma",
    interleaved: false,
    activation: Activation::Gelu,
    scaled_embedding: true,
    ..LLAMA
};

const ARCHITECTURES: [Architecture; 8] = [
    LLAMA,
    Architecture { name: "qwen2", interleaved: false, ..LLAMA },
    Architecture { name: "qwen3", interleaved: false, qk_norm: QkNorm::Head, ..LLAMA },
    Architecture { name: "phi3", interleaved: false, fused: true, every: 1, reads: &[WINDOW], ..LLAMA },
    Architecture {
        name: "olmo2",
        interleaved: false,
        placement: NormPlacement::AfterBranch,
        qk_norm: QkNorm::Whole,
        ..LLAMA
    },
    GEMMA,
    Architecture {
        name: "gemma2",
        reads: &[WINDOW, PATTERN, CAP, LOGIT_CAP],
        placement: NormPlacement::Around,
        every: 2,
        by_share: 46,
        ..GEMMA
    },
    Architecture {
        name: "gemma3",
        reads: &[WINDOW, PATTERN, LOGIT_CAP],
        placement: NormPlacement::Around,
        qk_norm: QkNorm::Head,
        every: 6,
        local_theta: Some(10_000.0),
        by_share: 62,
        ..GEMMA
    },
];

/// Opens a GGUF file.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let gguf = Gguf::read(path)?;
    let name = gguf.text("general.architecture")?;
    let architecture = ARCHITECTURES.iter().find(|known| known.name == name).ok_or_else(|| {
        let names = ARCHITECTURES.each_ref().map(|known| known.name).join(", ");
        gguf.wrong("general.architecture", format!("one of {names}"))
    })?;
    refuse_unread(&gguf, name, &[&READ[..], architecture.reads].concat())?;
    let words = words(&gguf)?;
    let mut model = model(&gguf, architecture, words.tokens.len() as u64)?;
    let tensors = tensors(&gguf, architecture, &mut model)?;
    model.check().map_err(|error| error.in_file(path))?;
    let words = Words::Listed(path.to_owned(), Box::new(words));
    Ok(Checkpoint { model, files: gguf.files, tensors, words })
}

fn model(gguf: &Gguf, architecture: &Architecture, vocabulary: u64) -> Result<Model> {
    const MOST: u64 = 1 << 24;
    let key = |name: &str| format!("{}.{name}", architecture.name);
    let number = |name: &str| gguf.whole(&key(name), 1..=MOST);
    let (hidden, heads) = (number("embedding_length")?, number("attention.head_count")?);
    let kv_heads = gguf.whole_or(&key("attention.head_count_kv"), 1..=heads, heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(gguf.wrong(&key("attention.head_count_kv"), format!("a divisor of {heads} heads")));
    }
    let head_dim = gguf.whole_or(&key("attention.key_length"), 1..=MOST, hidden / heads)?;
    let values = key("attention.value_length");
    if gguf.whole_or(&values, 1..=MOST, head_dim)? != head_dim {
        return Err(gguf.wrong(&values, format!("the width of a head, {head_dim}")));
    }
    let file = gguf.files[0].file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut model = Model::plain(crate::error::shorten(&file), "GGUF", Dtype::F32);
    model.layers = gguf.whole(&key("block_count"), 1..=65_535)? as u32;
    (model.hidden, model.heads, model.kv_heads, model.head_dim) = (hidden, heads, kv_heads, head_dim);
    model.ffn = number("feed_forward_length")?;
    model.set_vocabulary(vocabulary, hidden);
    model.context = gguf.whole_or(&key("context_length"), 1..=1 << 40, 0)?;
    (model.activation, model.placement, model.qk_norm) =
        (architecture.activation, architecture.placement, architecture.qk_norm);
    let has = |name: &str| gguf.tensors.iter().any(|entry| entry.name == name);
    model.biases.qkv = has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias");
    (model.biases.output, model.biases.ffn) = (has("blk.0.attn_output.bias"), has("blk.0.ffn_down.bias"));
    // Norms of Gemma have their 1 already.
    let epsilon = gguf.positive_or(&key("attention.layer_norm_rms_epsilon"), 1e-5)?;
    model.norm.epsilon_1e12 = (epsilon * 1e12 + 0.5) as u64;
    let positive = |name: &str| match gguf.get(&key(name)) {
        Some(Value::Float(0.0)) | None => Ok(None),
        Some(_) => gguf.positive_or(&key(name), 1.0).map(Some),
    };
    let scales = &mut model.scales;
    if architecture.scaled_embedding {
        scales.embedding = libm::sqrt(hidden as f64);
    }
    scales.attention = positive("attention.scale")?;
    if scales.attention.is_none() && model.layers == architecture.by_share {
        scales.attention = Some(1.0 / libm::sqrt(hidden as f64 / heads as f64));
    }
    let read = |name: &str| if architecture.reads.contains(&name) { positive(name) } else { Ok(None) };
    (scales.attention_cap, scales.logit_cap) = (read(CAP)?, read(LOGIT_CAP)?);
    kinds(gguf, architecture, &mut model)?;
    gguf_rope::read(gguf, architecture.name, architecture.interleaved, architecture.local_theta, &mut model)?;
    Ok(model)
}

/// Which layers have a window.
fn kinds(gguf: &Gguf, architecture: &Architecture, model: &mut Model) -> Result<()> {
    let key = |name: &str| format!("{}.{name}", architecture.name);
    let window = key(WINDOW);
    if architecture.every == 0 || gguf.get(&window).is_none() {
        return Ok(());
    }
    let window = gguf.whole(&window, 0..=u32::MAX.into())? as u32;
    let every = gguf.whole_or(&key(PATTERN), 1..=1 << 16, architecture.every)?;
    let kind = |layer: u32| {
        let local = window > 0 && (every == 1 || u64::from(layer) % every < every - 1);
        let rotation =
            if local && architecture.local_theta.is_some() { Rotation::Local } else { Rotation::Main };
        Kind { window: local.then_some(window), rotation, ..Kind::default() }
    };
    model.set_kinds((0..model.layers).map(kind));
    Ok(())
}

/// Where each tensor lies. Says in `model` whether it is tied, and the formats.
fn tensors(gguf: &Gguf, architecture: &Architecture, model: &mut Model) -> Result<HashMap<Name, Place>> {
    let mut tensors = HashMap::new();
    for entry in gguf.tensors.iter().filter(|entry| !gguf_rope::holds(&entry.name)) {
        let wrong = |what: &str| -> Error {
            crate::error::InputError::expected(what).key(&entry.name).file(&gguf.files[entry.file]).into()
        };
        let held = held(&entry.name, architecture.fused, model)
            .ok_or_else(|| wrong("a tensor of this architecture"))?;
        let &[width, ref rows @ ..] = entry.dims.as_slice() else {
            return Err(wrong("at least one dimension"));
        };
        let (rows, width) = (rows.iter().product::<u64>() as usize, width as usize);
        for (name, pick) in held {
            let (rows, width) = match pick {
                None => (rows, width),
                Some(pick) => {
                    // A vector has one row.
                    let stored = [rows, width];
                    let from = usize::from(entry.dims.len() == 1);
                    pick.shape(&stored[from..])
                        .ok_or_else(|| wrong(&format!("{} rows in all, as the keys say", pick.of)))?
                }
            };
            let (called, file) = (entry.name.clone(), entry.file);
            let place = Place { called, file, offset: entry.offset, format: entry.format, rows, width, pick };
            if tensors.insert(name, place).is_some() {
                return Err(wrong("each tensor once"));
            }
        }
    }
    model.tied = !tensors.contains_key(&Name::Head);
    if let Some(matrix) = tensors.get(&Name::Layer(0, LayerTensor::O)) {
        model.weights = matrix.format.dtype();
    }
    if let Some(table) = tensors.get(&Name::Embedding) {
        model.embedding_weights = table.format.dtype();
    }
    Ok(tensors)
}

/// What a tensor holds.
fn held(called: &str, fused: bool, model: &Model) -> Option<Vec<(Name, Option<Pick>)>> {
    match called {
        "token_embd.weight" => return Some(vec![(Name::Embedding, None)]),
        "output_norm.weight" => return Some(vec![(Name::FinalNorm, None)]),
        "output.weight" => return Some(vec![(Name::Head, None)]),
        _ => {}
    }
    let (layer, part) = called.strip_prefix("blk.")?.split_once('.')?;
    let layer = layer.parse().ok().filter(|&layer: &u32| layer < model.layers)?;
    if let Some(held) = fused_in_gguf(layer, part, fused, model) {
        return Some(held);
    }
    LAYER.iter().find(|(known, _)| *known == part).map(|&(_, part)| vec![(Name::Layer(layer, part), None)])
}
