//! A folder as Hugging Face keeps models: `config.json`, one or several safetensors files, `tokenizer.json`.
//! Tensor names are those of the transformers library (`modeling_llama.py`, `modeling_opt.py`).

use super::{Checkpoint, Format, Name, Part, Place, Words, bytes, folder_words};
use crate::error::{Error, InputError, Result};
use crate::model::{Input, Model};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Tensors of a layer of a Llama-shaped model, behind `model.layers.N.`.
const LLAMA: [(&str, Part); 14] = [
    ("input_layernorm.weight", Part::AttentionNorm),
    ("self_attn.q_proj.weight", Part::Q),
    ("self_attn.k_proj.weight", Part::K),
    ("self_attn.v_proj.weight", Part::V),
    ("self_attn.o_proj.weight", Part::O),
    ("self_attn.q_proj.bias", Part::QBias),
    ("self_attn.k_proj.bias", Part::KBias),
    ("self_attn.v_proj.bias", Part::VBias),
    ("self_attn.q_norm.weight", Part::QNorm),
    ("self_attn.k_norm.weight", Part::KNorm),
    ("post_attention_layernorm.weight", Part::FfnNorm),
    ("mlp.gate_proj.weight", Part::Gate),
    ("mlp.up_proj.weight", Part::Up),
    ("mlp.down_proj.weight", Part::Down),
];

/// Tensors of a layer of OPT, behind `model.decoder.layers.N.`.
const OPT: [(&str, Part); 16] = [
    ("self_attn_layer_norm.weight", Part::AttentionNorm),
    ("self_attn_layer_norm.bias", Part::AttentionNormBias),
    ("self_attn.q_proj.weight", Part::Q),
    ("self_attn.k_proj.weight", Part::K),
    ("self_attn.v_proj.weight", Part::V),
    ("self_attn.out_proj.weight", Part::O),
    ("self_attn.q_proj.bias", Part::QBias),
    ("self_attn.k_proj.bias", Part::KBias),
    ("self_attn.v_proj.bias", Part::VBias),
    ("self_attn.out_proj.bias", Part::OBias),
    ("final_layer_norm.weight", Part::FfnNorm),
    ("final_layer_norm.bias", Part::FfnNormBias),
    ("fc1.weight", Part::Up),
    ("fc1.bias", Part::UpBias),
    ("fc2.weight", Part::Down),
    ("fc2.bias", Part::DownBias),
];

/// Tensors outside of layers, in both families.
const OUTSIDE: [(&str, Name); 8] = [
    ("model.embed_tokens.weight", Name::Embedding),
    ("model.norm.weight", Name::FinalNorm),
    ("model.decoder.embed_tokens.weight", Name::Embedding),
    ("model.decoder.embed_positions.weight", Name::Positions),
    ("model.decoder.final_layer_norm.weight", Name::FinalNorm),
    ("model.decoder.final_layer_norm.bias", Name::FinalNormBias),
    ("lm_head.weight", Name::Head),
    ("output.weight", Name::Head),
];

/// Most bytes of a safetensors header (safetensors, MAX_HEADER_SIZE).
const MOST_HEADER: u64 = 100_000_000;

/// Opens a folder.
pub fn open(folder: &Path) -> Result<Checkpoint> {
    let model = Model::from_config(folder)?;
    let config = folder.join("config.json");
    let wrong = |key: &str, what: &str| -> Error { InputError::expected(what).key(key).file(&config).into() };
    if !matches!(model.input, Input::Tokens { width, .. } if width == model.hidden && model.final_norm) {
        return Err(wrong(
            "architectures",
            "a language model with the norm before each branch and embeddings of its width",
        ));
    }
    let text = std::fs::read(&config).map_err(Error::io(&config, "read"))?;
    let keys: Value = serde_json::from_slice(&text).map_err(|error| wrong("config", &error.to_string()))?;
    let files = files(folder)?;
    let tensors = tensors(&files, &model)?;
    let words = Words::Folder(folder.to_owned(), folder_words::end_ids(folder, &keys)?);
    Ok(Checkpoint { model, files, tensors, words })
}

/// The safetensors files: those that the index names, or all there are.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    let wrong = |file: &Path, key: &str, what: &str| -> Error {
        InputError::expected(what).key(key).file(file).into()
    };
    let mut names = Vec::new();
    if index.exists() {
        let text = std::fs::read(&index).map_err(Error::io(&index, "read"))?;
        let parsed: Value =
            serde_json::from_slice(&text).map_err(|error| wrong(&index, "index", &error.to_string()))?;
        let map = parsed.get("weight_map").and_then(Value::as_object);
        for file in map.ok_or_else(|| wrong(&index, "weight_map", "an object"))?.values() {
            // A name, not a path: an index must not reach out of its folder.
            let name = file.as_str().filter(|name| !name.contains(['/', '\\']) && !name.starts_with('.'));
            names.push(
                name.ok_or_else(|| wrong(&index, "weight_map", "names of files in this folder"))?.to_owned(),
            );
        }
    } else {
        let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
        for entry in entries {
            let name = entry.map_err(Error::io(folder, "read"))?.file_name().to_string_lossy().into_owned();
            names.extend(Some(name).filter(|name| name.ends_with(".safetensors")));
        }
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(wrong(folder, "weights", "at least one .safetensors file"));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn tensors(files: &[PathBuf], model: &Model) -> Result<HashMap<Name, Place>> {
    let mut tensors = HashMap::new();
    for (file, path) in files.iter().enumerate() {
        let mut reader = File::open(path).map_err(Error::io(path, "read"))?;
        let bad = |what: String| -> Error { InputError::expected(what).key("header").file(path).into() };
        let length = bytes::at(&mut reader, 0, 8).map_err(Error::io(path, "read"))?;
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        if length > MOST_HEADER {
            return Err(bad(format!("a header of at most {MOST_HEADER} bytes, found {length}")));
        }
        let header = bytes::at(&mut reader, 0, 8 + length).map_err(Error::io(path, "read"))?;
        let facts: Metadata = serde_json::from_slice(&header[8..])
            .map_err(|error| bad(format!("a safetensors header ({error})")))?;
        for (called, info) in facts.tensors() {
            let wrong = |what: &str| -> Error { InputError::expected(what).key(&called).file(path).into() };
            // Tables that older versions of transformers stored, and tied heads that are stored again.
            if called.ends_with("rotary_emb.inv_freq") || (model.tied && called == "lm_head.weight") {
                continue;
            }
            let name = name(&called, model.layers)
                .ok_or_else(|| wrong("a tensor of a Llama- or OPT-shaped model"))?;
            let format = match info.dtype {
                Dtype::F32 => Format::F32,
                Dtype::F16 => Format::F16,
                Dtype::BF16 => Format::Bf16,
                other => return Err(wrong(&format!("F32, F16 or BF16 rather than {other:?}"))),
            };
            let (rows, width) = match info.shape[..] {
                [width] => (1, width),
                [rows, width] => (rows, width),
                _ => return Err(wrong("one or two dimensions")),
            };
            let (begin, end) = info.data_offsets;
            let values = rows.checked_mul(width).filter(|&values| values > 0);
            let bytes = values.and_then(|values| values.checked_mul(format.block().0));
            if bytes.is_none() || end.checked_sub(begin) != bytes {
                return Err(wrong(&format!(
                    "{rows} x {width} {}, at least one, where {begin} to {end} are its bytes",
                    format.name()
                )));
            }
            let offset = (8 + length).saturating_add(begin as u64);
            if tensors
                .insert(name, Place { called: called.clone(), file, offset, format, rows, width })
                .is_some()
            {
                return Err(wrong("each tensor once"));
            }
        }
    }
    Ok(tensors)
}

fn name(called: &str, layers: u32) -> Option<Name> {
    // OPT's checkpoints name tensors with and without the leading `model.`.
    let full = if called.starts_with("decoder.") { format!("model.{called}") } else { called.to_owned() };
    if let Some((_, name)) = OUTSIDE.iter().find(|(known, _)| *known == full) {
        return Some(*name);
    }
    let layer_of = |rest: &str, table: &[(&str, Part)]| {
        let (layer, part) = rest.split_once('.')?;
        let layer = layer.parse().ok().filter(|&layer: &u32| layer < layers)?;
        table.iter().find(|(known, _)| *known == part).map(|&(_, part)| Name::Layer(layer, part))
    };
    match full.strip_prefix("model.decoder.layers.") {
        Some(rest) => layer_of(rest, &OPT),
        None => layer_of(full.strip_prefix("model.layers.")?, &LLAMA),
    }
}
