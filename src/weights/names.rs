//! Names of tensors in the files of the transformers library (`modeling_*.py`), and what they hold.
//!
//! One table serves all families: a name means the same in all of them, but for the norm behind attention, whose place the model
//! tells. What differs is data here and nowhere else.

use super::{LayerTensor, Name, TensorFormat};
use crate::model::{Model, NormPlacement};

/// Rows of a stored tensor that make a tensor of the model: runs of `run`, one every `step`, from `first` on. Of a vector, its values;
/// of a transposed matrix, its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    pub first: usize,
    pub run: usize,
    pub step: usize,
    /// Rows that are picked.
    pub count: usize,
    /// Rows of the stored tensor.
    pub of: usize,
    /// Whether rows of the file are columns of the matrix.
    pub transposed: bool,
}

/// What stands before the name of a layer or of a tensor outside of layers.
const PREFIXES: [&str; 9] = [
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.decoder.",
    "decoder.",
    "model.",
    "transformer.",
    "gpt_neox.",
    "",
];

/// Parts of models that also see; the text needs none of them.
const BESIDE: [&str; 6] = [
    "vision_tower.",
    "model.vision_tower.",
    "multi_modal_projector.",
    "model.multi_modal_projector.",
    "visual.",
    "model.visual.",
];

/// Tables that older versions stored: frequencies of rotations, and masks of attention.
const STORED_TABLES: [&str; 5] =
    ["rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];

/// Outside of layers.
const OUTSIDE: [(&str, Name); 19] = [
    ("embed_tokens.weight", Name::Embedding),
    ("word_embeddings.weight", Name::Embedding),
    ("embed_in.weight", Name::Embedding),
    ("wte.weight", Name::Embedding),
    ("embed_positions.weight", Name::Positions),
    ("wpe.weight", Name::Positions),
    ("project_in.weight", Name::ProjectIn),
    ("project_out.weight", Name::ProjectOut),
    ("norm.weight", Name::FinalNorm),
    ("norm.bias", Name::FinalNormBias),
    ("final_layernorm.weight", Name::FinalNorm),
    ("final_layernorm.bias", Name::FinalNormBias),
    ("final_layer_norm.weight", Name::FinalNorm),
    ("final_layer_norm.bias", Name::FinalNormBias),
    ("ln_f.weight", Name::FinalNorm),
    ("ln_f.bias", Name::FinalNormBias),
    ("lm_head.weight", Name::Head),
    ("output.weight", Name::Head),
    ("embed_out.weight", Name::Head),
];

/// Of a layer: the part that weights are, and the one that biases are.
const LAYER: [(&str, LayerTensor, Option<LayerTensor>); 34] = [
    ("input_layernorm", LayerTensor::AttentionNorm, Some(LayerTensor::AttentionNormBias)),
    ("self_attn_layer_norm", LayerTensor::AttentionNorm, Some(LayerTensor::AttentionNormBias)),
    ("ln_1", LayerTensor::AttentionNorm, Some(LayerTensor::AttentionNormBias)),
    ("ln_attn", LayerTensor::AttentionNorm, Some(LayerTensor::AttentionNormBias)),
    ("pre_feedforward_layernorm", LayerTensor::FfnNorm, Some(LayerTensor::FfnNormBias)),
    ("final_layer_norm", LayerTensor::FfnNorm, Some(LayerTensor::FfnNormBias)),
    ("ln_2", LayerTensor::FfnNorm, Some(LayerTensor::FfnNormBias)),
    ("ln_mlp", LayerTensor::FfnNorm, Some(LayerTensor::FfnNormBias)),
    ("post_feedforward_layernorm", LayerTensor::FfnAfter, None),
    ("self_attn.q_proj", LayerTensor::Q, Some(LayerTensor::QBias)),
    ("self_attn.k_proj", LayerTensor::K, Some(LayerTensor::KBias)),
    ("self_attn.v_proj", LayerTensor::V, Some(LayerTensor::VBias)),
    ("self_attn.o_proj", LayerTensor::O, Some(LayerTensor::OBias)),
    ("self_attn.out_proj", LayerTensor::O, Some(LayerTensor::OBias)),
    ("self_attn.dense", LayerTensor::O, Some(LayerTensor::OBias)),
    ("self_attention.dense", LayerTensor::O, Some(LayerTensor::OBias)),
    ("attention.dense", LayerTensor::O, Some(LayerTensor::OBias)),
    ("attn.c_proj", LayerTensor::O, Some(LayerTensor::OBias)),
    ("self_attn.q_norm", LayerTensor::QNorm, None),
    ("self_attn.k_norm", LayerTensor::KNorm, None),
    ("mlp.gate_proj", LayerTensor::Gate, Some(LayerTensor::GateBias)),
    ("mlp.up_proj", LayerTensor::Up, Some(LayerTensor::UpBias)),
    ("mlp.down_proj", LayerTensor::Down, Some(LayerTensor::DownBias)),
    ("mlp.c_fc", LayerTensor::Up, Some(LayerTensor::UpBias)),
    ("mlp.c_proj", LayerTensor::Down, Some(LayerTensor::DownBias)),
    ("mlp.dense_h_to_4h", LayerTensor::Up, Some(LayerTensor::UpBias)),
    ("mlp.dense_4h_to_h", LayerTensor::Down, Some(LayerTensor::DownBias)),
    ("mlp.fc1", LayerTensor::Up, Some(LayerTensor::UpBias)),
    ("mlp.fc2", LayerTensor::Down, Some(LayerTensor::DownBias)),
    ("fc1", LayerTensor::Up, Some(LayerTensor::UpBias)),
    ("fc2", LayerTensor::Down, Some(LayerTensor::DownBias)),
    ("mlp.gate", LayerTensor::Router, None),
    ("block_sparse_moe.gate", LayerTensor::Router, None),
    ("feed_forward.router", LayerTensor::Router, None),
];

/// Of an expert, behind its number, or of a head, before it.
const EACH: [(&str, &str, LayerTensor); 8] = [
    ("block_sparse_moe.experts.", ".w1", LayerTensor::Gate),
    ("block_sparse_moe.experts.", ".w3", LayerTensor::Up),
    ("block_sparse_moe.experts.", ".w2", LayerTensor::Down),
    ("mlp.experts.", ".gate_proj", LayerTensor::Gate),
    ("mlp.experts.", ".up_proj", LayerTensor::Up),
    ("mlp.experts.", ".down_proj", LayerTensor::Down),
    ("self_attn.q_layernorm.norms.", "", LayerTensor::QNorm),
    ("self_attn.k_layernorm.norms.", "", LayerTensor::KNorm),
];

/// How several tensors lie in one.
#[derive(Clone, Copy)]
enum Fused {
    /// All queries, then all keys, then all values.
    Joined,
    /// The queries that share a key, the key, its value; then the next.
    ByKey,
    /// All gates, then all values.
    Gates,
}

const FUSED: [(&str, Fused); 5] = [
    ("self_attn.qkv_proj", Fused::Joined),
    ("attn.c_attn", Fused::Joined),
    ("self_attention.query_key_value", Fused::ByKey),
    ("attention.query_key_value", Fused::ByKey),
    ("mlp.gate_up_proj", Fused::Gates),
];

/// Whether a tensor is none of the text model's.
pub(super) fn beside(called: &str, model: &Model) -> bool {
    let tied = model.tied
        && ["lm_head.weight", "embed_out.weight", "language_model.lm_head.weight"].contains(&called);
    tied || STORED_TABLES.iter().any(|ending| called.ends_with(ending))
        || (model.beside > 0 && BESIDE.iter().any(|prefix| called.starts_with(prefix)))
}

/// What a tensor holds: tensors of the model, each with the rows that make it where they are not all. `None`: nobody knows.
pub(super) fn holds(called: &str, model: &Model) -> Option<Vec<(Name, Option<Pick>)>> {
    // Some names are the beginning of others: whichever fits.
    PREFIXES.iter().find_map(|prefix| {
        let rest = called.strip_prefix(prefix)?;
        if let Some((_, name)) = OUTSIDE.iter().find(|(known, _)| *known == rest) {
            return Some(vec![(*name, None)]);
        }
        let (word, rest) = rest.split_once('.').filter(|(word, _)| ["layers", "h"].contains(word))?;
        let (layer, part) = rest.split_once('.')?;
        let layer = layer.parse().ok().filter(|&layer: &u32| layer < model.layers)?;
        let (stem, kind) = part.rsplit_once('.')?;
        let bias = match kind {
            "weight" => false,
            "bias" => true,
            _ => return None,
        };
        // GPT-2 keeps matrices the other way round (`Conv1D`).
        let transposed =
            word == "h" && !bias && ["attn.c_", "mlp.c_"].iter().any(|start| stem.starts_with(start));
        of_layer(model, layer, stem, bias, transposed)
    })
}

fn of_layer(
    model: &Model,
    layer: u32,
    stem: &str,
    bias: bool,
    transposed: bool,
) -> Option<Vec<(Name, Option<Pick>)>> {
    if let Some((_, fused)) = FUSED.iter().find(|(known, _)| *known == stem) {
        let of_part = |(part, mut pick): ([LayerTensor; 2], Pick)| {
            pick.transposed = transposed;
            (Name::Layer(layer, part[usize::from(bias)]), Some(pick))
        };
        return Some(fused.parts(model).into_iter().map(of_part).collect());
    }
    if stem == "post_attention_layernorm" {
        let behind = matches!(model.placement, NormPlacement::AfterBranch | NormPlacement::Around);
        let part = match (behind, bias) {
            (true, false) => LayerTensor::AttentionAfter,
            (true, true) => return None,
            (false, false) => LayerTensor::FfnNorm,
            (false, true) => LayerTensor::FfnNormBias,
        };
        return Some(vec![(Name::Layer(layer, part), None)]);
    }
    if let Some(&(_, weight, of_bias)) = LAYER.iter().find(|(known, ..)| *known == stem) {
        let part = if bias { of_bias? } else { weight };
        let pick = transposed.then(|| {
            let rows = match part {
                LayerTensor::Up => model.ffn,
                _ => model.hidden,
            } as usize;
            Pick { first: 0, run: rows, step: rows, count: rows, of: rows, transposed }
        });
        return Some(vec![(Name::Layer(layer, part), pick)]);
    }
    EACH.iter().filter(|_| !bias).find_map(|(before, behind, part)| {
        let number = stem.strip_prefix(before)?.strip_suffix(behind)?;
        Some(vec![(Name::Each(layer, number.parse().ok()?, *part), None)])
    })
}

/// What a tensor of a layer in a GGUF file holds, where it is several; `gates`: gates and values of the feed-forward part are one.
pub(super) fn fused_in_gguf(
    layer: u32,
    part: &str,
    gates: bool,
    model: &Model,
) -> Option<Vec<(Name, Option<Pick>)>> {
    let (fused, bias) = match part {
        "attn_qkv.weight" => (Fused::Joined, 0),
        "attn_qkv.bias" => (Fused::Joined, 1),
        "ffn_up.weight" if gates => (Fused::Gates, 0),
        _ => return None,
    };
    let of_part = |(parts, pick): ([LayerTensor; 2], Pick)| (Name::Layer(layer, parts[bias]), Some(pick));
    Some(fused.parts(model).into_iter().map(of_part).collect())
}

impl Fused {
    /// What lies in it: the part of its weights and that of its biases, with the rows.
    fn parts(self, model: &Model) -> Vec<([LayerTensor; 2], Pick)> {
        let (q, kv, ffn) = (model.q_dim() as usize, model.kv_dim() as usize, model.ffn as usize);
        const QKV: [[LayerTensor; 2]; 3] = [
            [LayerTensor::Q, LayerTensor::QBias],
            [LayerTensor::K, LayerTensor::KBias],
            [LayerTensor::V, LayerTensor::VBias],
        ];
        let one = |first, count, of| Pick { first, run: count, step: of, count, of, transposed: false };
        match self {
            Fused::Joined => {
                let of = q + 2 * kv;
                QKV.into_iter().zip([one(0, q, of), one(q, kv, of), one(q + kv, kv, of)]).collect()
            }
            Fused::ByKey => {
                let head = model.head_dim as usize;
                let group = q / model.kv_heads.max(1) as usize;
                let (step, of) = (group + 2 * head, q + 2 * kv);
                let part = |first, run, count| Pick { first, run, step, count, of, transposed: false };
                let picks = [part(0, group, q), part(group, head, kv), part(group + head, head, kv)];
                QKV.into_iter().zip(picks).collect()
            }
            Fused::Gates => vec![
                ([LayerTensor::Gate, LayerTensor::GateBias], one(0, ffn, 2 * ffn)),
                ([LayerTensor::Up, LayerTensor::UpBias], one(ffn, ffn, 2 * ffn)),
            ],
        }
    }
}

impl Pick {
    /// Rows and width of what is picked out of a tensor of this shape; `None` where it is not as it should be.
    pub fn shape(&self, stored: &[usize]) -> Option<(usize, usize)> {
        match (stored, self.transposed) {
            (&[all], false) if all == self.of => Some((1, self.count)),
            (&[all, width], false) if all == self.of => Some((self.count, width)),
            (&[width, all], true) if all == self.of => Some((self.count, width)),
            _ => None,
        }
    }

    /// The picked rows out of `bytes`; `width` is that of the result, 0 for a vector.
    pub fn of_bytes(&self, bytes: &[u8], format: TensorFormat, width: usize) -> Vec<u8> {
        let each = format.block().0;
        let row = if width == 0 { each } else { format.bytes(width as u64) as usize };
        let indices =
            (0..self.count).map(|index| self.first + index / self.run * self.step + index % self.run);
        let mut picked = Vec::with_capacity(self.count * row);
        for index in indices {
            if self.transposed {
                for column in 0..width {
                    picked.extend_from_slice(&bytes[(column * self.of + index) * each..][..each]);
                }
            } else {
                picked.extend_from_slice(&bytes[index * row..][..row]);
            }
        }
        picked
    }
}
