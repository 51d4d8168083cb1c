//! A folder as Hugging Face keeps models: `config.json`, one or several safetensors files, `tokenizer.json`.
//! Tensor names: `names`.

use super::{Checkpoint, Name, Place, TensorFormat, Words, bytes, folder_words, names, once};
use crate::error::{Error, InputError, Result};
use crate::json_text::{self, ObjectEntries};
use crate::model::{Input, Model, Network};
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Most bytes of a safetensors header (safetensors, MAX_HEADER_SIZE).
const MOST_HEADER: u64 = 100_000_000;

/// What the index of several files says: which file each tensor is in.
#[derive(Deserialize)]
struct Index {
    weight_map: ObjectEntries<Value>,
}

/// Opens a folder.
pub fn open(folder: &Path) -> Result<Checkpoint> {
    let model = Model::from_config(folder)?;
    let config = folder.join("config.json");
    let wrong = |key: &str, what: &str| -> Error { InputError::expected(what).key(key).file(&config).into() };
    if !matches!(model.input, Input::Tokens { .. }) || model.outputs == 0 {
        return Err(wrong("architectures", "a language model, which reads and writes tokens"));
    }
    let text = std::fs::read(&config).map_err(Error::io(&config, "read"))?;
    let keys: Value = json_text::from_slice(&text, "a JSON object").map_err(|error| error.file(&config))?;
    let mut files = files(folder)?;
    if keys.get("radial").is_some() {
        // Its tensors are none of the model's; `Checkpoint::router` reads them.
        files.retain(|file| !file.ends_with(Network::FILE));
    }
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
        let Index { weight_map } =
            json_text::from_slice(&text, "an index with a weight_map").map_err(|error| error.file(&index))?;
        if let Some(twice) = weight_map.repeated() {
            return Err(wrong(&index, twice, "each tensor once"));
        }
        for (_, file) in &weight_map.0 {
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
        once::tensors(&header[8..]).map_err(|error| error.file(path))?;
        for (called, info) in facts.tensors() {
            let wrong = |what: &str| -> Error { InputError::expected(what).key(&called).file(path).into() };
            if names::beside(&called, model) {
                continue;
            }
            let held = names::holds(&called, model)
                .ok_or_else(|| wrong("a tensor of a model that is executed: nobody knows this name"))?;
            let format = match info.dtype {
                Dtype::F32 => TensorFormat::F32,
                Dtype::F16 => TensorFormat::F16,
                Dtype::BF16 => TensorFormat::Bf16,
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
            for (name, pick) in held {
                let (rows, width) = match pick {
                    None => (rows, width),
                    Some(pick) => pick.shape(&info.shape).ok_or_else(|| {
                        wrong(&format!("{} rows in all, as the model's shapes say", pick.of))
                    })?,
                };
                let called = called.clone();
                if tensors.insert(name, Place { called, file, offset, format, rows, width, pick }).is_some() {
                    return Err(wrong("each tensor once"));
                }
            }
        }
    }
    Ok(tensors)
}
