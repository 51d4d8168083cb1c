//! Writes a model as Hugging Face keeps it: `config.json` and `model.safetensors`, in the names of Llama.

use super::{LayerTensor, Name};
use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::path::Path;

/// A weight: its name, rows and width (a vector is one row), and values row by row.
pub(crate) type Weight = (Name, [usize; 2], Vec<f32>);

/// Writes both files into a folder, in F32.
///
/// # Errors
/// Whatever the system refuses.
///
/// # Panics
/// Parts that a Llama does not have.
pub(crate) fn llama(folder: &Path, config: &Value, weights: &[Weight]) -> Result<()> {
    let path = folder.join("config.json");
    let text = serde_json::to_string_pretty(config).expect("a config is JSON");
    std::fs::write(&path, text + "\n").map_err(Error::io(&path, "write"))?;
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(name, shape, values)| {
            let (name, vector) = called(*name);
            let shape = if vector { vec![shape[1]] } else { shape.to_vec() };
            (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let view = |shape: &Vec<usize>, bytes| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many values as the shape says")
    };
    let views = bytes.iter().map(|(name, shape, bytes)| (name.as_str(), view(shape, bytes)));
    let bytes = safetensors::serialize(views, None).expect("tensors with names of their own");
    let path = folder.join("model.safetensors");
    std::fs::write(&path, bytes).map_err(Error::io(&path, "write"))
}

/// The name of a weight (`modeling_llama.py`), and whether it is a vector.
fn called(name: Name) -> (String, bool) {
    let of_layer = |layer: u32, part: &str| format!("model.layers.{layer}.{part}.weight");
    match name {
        Name::Embedding => ("model.embed_tokens.weight".into(), false),
        Name::Head => ("lm_head.weight".into(), false),
        Name::FinalNorm => ("model.norm.weight".into(), true),
        Name::Layer(layer, part) => {
            let (part, vector) = layer_part(part);
            (of_layer(layer, part), vector)
        }
        other => panic!("a Llama has no {other:?}"),
    }
}

/// The name of a part within its layer, and whether it is a vector.
pub(super) fn layer_part(part: LayerTensor) -> (&'static str, bool) {
    match part {
        LayerTensor::AttentionNorm => ("input_layernorm", true),
        LayerTensor::FfnNorm => ("post_attention_layernorm", true),
        LayerTensor::Q => ("self_attn.q_proj", false),
        LayerTensor::K => ("self_attn.k_proj", false),
        LayerTensor::V => ("self_attn.v_proj", false),
        LayerTensor::O => ("self_attn.o_proj", false),
        LayerTensor::Gate => ("mlp.gate_proj", false),
        LayerTensor::Up => ("mlp.up_proj", false),
        LayerTensor::Down => ("mlp.down_proj", false),
        other => panic!("a Llama has no {other:?}"),
    }
}

/// A matrix of rows and columns the other way round.
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns * rows).map(|at| values[(at % rows) * columns + at / rows]).collect()
}
