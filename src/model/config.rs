//! Shapes from a Hugging Face `config.json`.
//!
//! Keys and their defaults are those of the `configuration_*.py` files of the transformers library; `families` has them as
//! a table. Every key is read, known not to matter (`inert`), or named among [`Model::remarks`].

use super::families::{FAMILIES, Family};
use super::json::Object;
use super::{Model, formats, inert, trunk, vision};
use crate::error::{Result, shorten};
use crate::units::Dtype;
use serde_json::Value;
use std::path::Path;

const DTYPES: [(&str, Dtype); 6] = [
    ("float32", Dtype::F32),
    ("float16", Dtype::F16),
    ("bfloat16", Dtype::Bf16),
    ("torch.float32", Dtype::F32),
    ("torch.float16", Dtype::F16),
    ("torch.bfloat16", Dtype::Bf16),
];

/// Under which keys models of images and text keep the part that writes.
const TEXT: [&str; 3] = ["text_config", "llm_config", "language_config"];

impl Model {
    /// Reads a `config.json`, or the one in a folder. The model is named after the folder.
    ///
    /// All formats are that of `dtype` (formerly `torch_dtype`); where both are absent, 32-bit floats, as in
    /// Hugging Face's own reader. Quantised weights have the format of `quantization_config`, or of the
    /// `hf_quant_config.json` beside the file. [`Model::with_formats`] changes them.
    ///
    /// # Errors
    /// What is not read, with file, key, what was found and what is expected.
    pub fn from_config(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        Model::from_object(&Object::read(&file)?, &folder_name(&file))
    }

    /// Reads the keys of a `config.json`.
    pub(super) fn from_object(outer: &Object, name: &str) -> Result<Model> {
        // A part without layers says something else of the text, such as its last token.
        let has_layers = |part: &Value| part.get("num_hidden_layers").is_some();
        let nested = TEXT.into_iter().find(|key| outer.get(key).is_some_and(has_layers));
        let inner = nested.map(|key| outer.object(key)).transpose()?.flatten();
        let config = inner.as_ref().unwrap_or(outer);
        let dtype = match dtype(config)? {
            Some(dtype) => dtype,
            None => dtype(outer)?.unwrap_or(Dtype::F32),
        };
        let mut model = Model::plain(name, "config.json", dtype);
        match vit(outer) {
            Some(bare) => trunk::read_vit(&mut model, config, bare)?,
            None => {
                let family = family(outer, config)?;
                check_unknown_parts(config)?;
                trunk::read(&mut model, config, family)?;
                if inner.is_some() {
                    // Tying is said of the whole where it is not said of the part.
                    outer.pass_over("tie_word_embeddings");
                    if config.get("tie_word_embeddings").is_none()
                        && outer.get("tie_word_embeddings").is_some()
                    {
                        model.tied = outer.flag("tie_word_embeddings", model.tied)?;
                    }
                    vision::add(&mut model, outer)?;
                }
            }
        }
        model.check().map_err(|error| error.in_file(outer.file()))?;
        formats::read(&mut model, outer, config)?;
        inert::remark(&mut model, config);
        if inner.is_some() {
            inert::remark(&mut model, outer);
        }
        Ok(model)
    }
}

/// The format that the object names, if it does.
fn dtype(config: &Object) -> Result<Option<Dtype>> {
    let key = config.first_of(&["dtype", "torch_dtype"]);
    config.pass_over("torch_dtype");
    match config.get(key) {
        None => Ok(None),
        Some(Value::String(name)) if name == "auto" => Ok(None),
        Some(_) => config.choice(key, &DTYPES).map(Some),
    }
}

/// Whether it is a bare encoder of images, or one with classes; `None`: neither.
fn vit(config: &Object) -> Option<bool> {
    match config.get("architectures").and_then(Value::as_array).map(Vec::as_slice) {
        Some([name]) if name == "ViTForImageClassification" => Some(false),
        Some([name]) if name == "ViTModel" => Some(true),
        Some([]) | None if config.get("model_type").is_some_and(|kind| kind == "vit") => Some(false),
        _ => None,
    }
}

/// The family that `architectures` names, else the one of `model_type`, as transformers finds it.
fn family<'a>(outer: &Object, config: &Object) -> Result<&'a Family> {
    let of_type = |object: &Object| {
        let kind = object.get("model_type").and_then(Value::as_str);
        FAMILIES.iter().find(|family| kind.is_some_and(|kind| family.types.contains(&kind)))
    };
    let named = outer.get("architectures").and_then(Value::as_array).and_then(|names| names.first());
    let named = named.and_then(Value::as_str);
    let by_name =
        FAMILIES.iter().find(|family| named.is_some_and(|name| family.architectures.contains(&name)));
    // The part that writes says itself what it is; else the name, which is more than the type.
    let inner = if std::ptr::eq(outer, config) { None } else { of_type(config) };
    if let Some(family) = inner.or(by_name).or_else(|| of_type(outer)) {
        return Ok(family);
    }
    let types: Vec<&str> = FAMILIES.iter().flat_map(|family| family.types).copied().collect();
    if outer.get("model_type").is_some() {
        return Err(outer.wrong("model_type", format!("one of {}, vit", types.join(", "))));
    }
    let names: Vec<&str> = FAMILIES.iter().flat_map(|family| family.architectures).copied().collect();
    let what = format!("a list with one of {}, ViTForImageClassification, ViTModel", names.join(", "));
    Err(outer.wrong("architectures", what))
}

/// Refuses layers that are no attention: their shapes are other ones, whatever the family.
fn check_unknown_parts(config: &Object) -> Result<()> {
    for key in [
        "hybrid_override_pattern",
        "linear_attn_config",
        "block_configs",
        "mamba_num_heads",
        "linear_num_key_heads",
    ] {
        if config.get(key).is_some() {
            return Err(
                config.wrong(key, "no such key: only layers of attention and feed-forward part are modelled")
            );
        }
    }
    Ok(())
}

/// The name of the folder that holds the file, else the file's own.
fn folder_name(file: &Path) -> String {
    let full = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let name = full.parent().and_then(Path::file_name).or(full.file_name());
    name.map_or_else(|| "config".into(), |name| shorten(&name.to_string_lossy()))
}
