//! Number formats of quantised models: `quantization_config` in the file, or `hf_quant_config.json` beside it.
//!
//! Quantised are the matrices of the layers; norms, biases, routers, embedding and head keep the format of the activations.
//! Which other parts are left out is told from the lists of names that the files keep.
//!
//! Where the file says that inputs of products are quantised too, and in the format of the weights, products take them so
//! ([`Model::products`]); other formats of inputs are remarked.

use super::json::Object;
use super::{Kind, Model};
use crate::error::Result;
use crate::units::Dtype;
use serde_json::Value;

/// Under which keys lists of parts stand that are not quantised.
const LISTS: [&str; 4] = ["ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers"];

/// Sets the formats of a model, if any of its files speaks of quantisation.
pub(super) fn read(model: &mut Model, outer: &Object, config: &Object) -> Result<()> {
    let inner = match config.object("quantization_config")? {
        None => outer.object("quantization_config")?,
        found => found,
    };
    let beside = outer.file().with_file_name("hf_quant_config.json");
    let beside = if beside.is_file() { Some(Object::read(&beside)?) } else { None };
    let beside = beside.map(|file| file.object("quantization")).transpose()?.flatten();
    let Some(quantised) = inner.or(beside) else { return Ok(()) };
    if let Some(Quantised { weights, inputs }) = weights(&quantised)? {
        model.weights = weights;
        match inputs {
            Inputs::Kept => {}
            Inputs::Quantised => model.products = Some(weights),
            Inputs::Other(remark) => model.remarks.push(remark),
        }
        leave_out(model, &quantised);
    }
    if kv_is_fp8(&quantised)? {
        model.kv = Dtype::Fp8;
    }
    Ok(())
}

/// What a file says of products.
struct Quantised {
    weights: Dtype,
    inputs: Inputs,
}

/// What becomes of the inputs of products.
#[derive(Clone, Debug, PartialEq)]
enum Inputs {
    /// They stay as the activations are.
    Kept,
    /// They take the format of the weights.
    Quantised,
    /// Another, which is not modelled: what the file says.
    Other(String),
}

impl Quantised {
    fn weights(weights: Dtype) -> Quantised {
        Quantised { weights, inputs: Inputs::Kept }
    }

    fn both(weights: Dtype) -> Quantised {
        Quantised { weights, inputs: Inputs::Quantised }
    }

    /// Inputs in a format that products are not modelled in, under the key that says so.
    fn other(weights: Dtype, key: &str, said: &str) -> Quantised {
        let remark =
            format!("quantization_config.{key}: {said} inputs of products, which run as the activations are");
        Quantised { weights, inputs: Inputs::Other(remark) }
    }
}

/// The format of quantised weights, and of what they are multiplied with; `None`: they are left as they are.
fn weights(config: &Object) -> Result<Option<Quantised>> {
    if let Some(name) = config.get("quant_algo").and_then(Value::as_str) {
        return algorithm(config, name).map(Some);
    }
    let groups = config.object("config_groups")?;
    if let Some(groups) = groups {
        return compressed(&groups).map(Some);
    }
    let method = config.text("quant_method")?.unwrap_or_default().to_owned();
    let four = |config: &Object| config.flag("load_in_4bit", false);
    let eight = |config: &Object| config.flag("load_in_8bit", false);
    let found = match method.as_str() {
        // Both multiply 8-bit floats: with one scale for all inputs or one a token, with blocks with one for each 128.
        "fp8" | "fbgemm_fp8" => match config.get("weight_block_size") {
            None => return Ok(Some(Quantised::both(Dtype::Fp8))),
            Some(_) if config.numbers("weight_block_size")? == [128, 128] => {
                return Ok(Some(Quantised::both(Dtype::Fp8Block)));
            }
            Some(_) => return Err(config.wrong("weight_block_size", "[128, 128]")),
        },
        "gptq" | "awq" | "auto-round" | "autoround" | "gptq_marlin" | "awq_marlin" => {
            let bits = config.number(config.first_of(&["bits", "w_bit"]), 16)?;
            grouped(config, bits, config.first_of(&["group_size", "q_group_size"]))?
        }
        "mxfp4" => Dtype::Mxfp4,
        "bitsandbytes" | "" if four(config)? => {
            match config.text("bnb_4bit_quant_type")? {
                None | Some("nf4" | "fp4") => {}
                Some(_) => return Err(config.wrong("bnb_4bit_quant_type", "nf4 or fp4")),
            }
            Dtype::Nf4
        }
        "bitsandbytes" | "" if eight(config)? => Dtype::Int8Channel,
        "bitsandbytes" => return Ok(None),
        "modelopt" => return Err(config.wrong("quant_algo", "the algorithm, as FP8 or NVFP4")),
        _ => {
            let what = "one of fp8, fbgemm_fp8, gptq, awq, auto-round, mxfp4, bitsandbytes, compressed-tensors, modelopt";
            return Err(config.wrong("quant_method", what));
        }
    };
    Ok(Some(Quantised::weights(found)))
}

/// Names of NVIDIA's modelopt. Engines multiply what it calls `FP8_PB_WO` in blocks of 8-bit floats, whatever its name says (vLLM
/// `modelopt.py`, TensorRT-LLM `QuantAlgo.FP8_BLOCK_SCALES`).
fn algorithm(config: &Object, name: &str) -> Result<Quantised> {
    let upper = name.to_ascii_uppercase();
    match upper.as_str() {
        "FP8" | "FP8_PER_CHANNEL_PER_TOKEN" => Ok(Quantised::both(Dtype::Fp8)),
        "FP8_PB_WO" | "FP8_BLOCK" => Ok(Quantised::both(Dtype::Fp8Block)),
        "NVFP4" | "NVFP4_AWQ" => Ok(Quantised::both(Dtype::Fp4)),
        "W4A16_NVFP4" => Ok(Quantised::weights(Dtype::Fp4)),
        "MXFP4" => Ok(Quantised::weights(Dtype::Mxfp4)),
        "W4A16_AWQ" | "W4A16" => grouped(config, 4, "group_size").map(Quantised::weights),
        "W8A16" => Ok(Quantised::weights(Dtype::Int8Channel)),
        "INT8_SQ" | "W8A8_SQ_PER_CHANNEL" => Ok(Quantised::other(Dtype::Int8Channel, "quant_algo", &upper)),
        "MIXED_PRECISION" => mixed(config),
        _ => Err(config
            .wrong("quant_algo", "one of FP8, FP8_PB_WO, NVFP4, MXFP4, W4A16_AWQ, INT8_SQ, MIXED_PRECISION")),
    }
}

/// Layers that differ: the algorithm of most of them.
fn mixed(config: &Object) -> Result<Quantised> {
    let Some(layers) = config.object("quantized_layers")? else {
        return Err(config.wrong("quantized_layers", "an object that names the layers"));
    };
    let mut counts: Vec<(String, usize)> = Vec::new();
    for (_, value) in layers.unread() {
        let name = value.get("quant_algo").and_then(Value::as_str).unwrap_or("none").to_owned();
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    match counts.iter().max_by_key(|(_, count)| *count) {
        Some((name, _)) if name != "MIXED_PRECISION" => algorithm(config, name),
        _ => Err(config.wrong("quantized_layers", "layers with a quant_algo each")),
    }
}

/// The groups of compressed-tensors: their weights must agree, and their inputs.
fn compressed(groups: &Object) -> Result<Quantised> {
    let mut found: Option<Quantised> = None;
    let names: Vec<String> = groups.unread().map(|(name, _)| name.clone()).collect();
    for name in names {
        let Some(group) = groups.object(&name)? else { continue };
        let Some(weights) = group.object("weights")? else { continue };
        let bits = weights.number("num_bits", 16)?;
        let float = weights.text("type")?.unwrap_or("int") == "float";
        let size = weights.get("group_size").and_then(Value::as_u64).filter(|&size| size > 0);
        let block = weights.get("block_structure").is_some_and(|block| !block.is_null());
        let format = match (float, bits, size) {
            (true, 8, _) if block => Dtype::Fp8Block,
            (true, 8, _) => Dtype::Fp8,
            (true, 4, Some(16)) => Dtype::Fp4,
            (true, 4, Some(32)) => Dtype::Mxfp4,
            (false, 8, None) => Dtype::Int8Channel,
            (false, ..) => grouped(&weights, bits, "group_size")?,
            _ => return Err(weights.wrong("group_size", "16 (NVFP4) or 32 (MXFP4) with floats of 4 bits")),
        };
        let group = compressed_inputs(&group, format)?;
        match &found {
            None => found = Some(group),
            Some(known) if known.weights == format && known.inputs == group.inputs => {}
            Some(known) if known.weights == format => {
                return Err(groups.wrong(&name, "input_activations alike in all groups"));
            }
            Some(_) => return Err(groups.wrong(&name, "weights of one format in all groups")),
        }
    }
    found.ok_or_else(|| groups.wrong("group_0", "an object with weights"))
}

/// What a group says of the inputs that its weights are multiplied with.
fn compressed_inputs(group: &Object, weights: Dtype) -> Result<Quantised> {
    let Some(inputs) = group.object("input_activations")? else { return Ok(Quantised::weights(weights)) };
    let (bits, kind) = (inputs.number("num_bits", 16)?, inputs.text("type")?.unwrap_or("int").to_owned());
    Ok(match (weights, kind.as_str(), bits) {
        (Dtype::Fp8 | Dtype::Fp8Block, "float", 8) | (Dtype::Fp4, "float", 4) => Quantised::both(weights),
        _ => Quantised::other(weights, "config_groups", &format!("{bits}-bit {kind}")),
    })
}

/// Integers with a 16-bit scale and a zero point for each group of so many.
fn grouped(config: &Object, bits: u64, key: &str) -> Result<Dtype> {
    let channel = config.get(key).is_some_and(|size| size == -1);
    let size = if channel { 0 } else { config.count_or(key, 128, 1 << 16)? };
    match (bits, size) {
        (4, 0) => Ok(Dtype::Int4Channel),
        (4, 32) => Ok(Dtype::Int4G32),
        (4, 64) => Ok(Dtype::Int4G64),
        (4, 128) => Ok(Dtype::Int4G128),
        (8, _) => Ok(Dtype::Int8Channel),
        (4, _) => Err(config.wrong(key, "-1, 32, 64 or 128")),
        _ => Err(config.wrong(config.first_of(&["bits", "w_bit", "num_bits"]), "4 or 8")),
    }
}

/// Whether keys and values are kept in 8-bit floats.
fn kv_is_fp8(config: &Object) -> Result<bool> {
    let key = config.first_of(&["kv_cache_quant_algo", "kv_cache_scheme"]);
    match config.get(key) {
        None => Ok(false),
        Some(Value::String(name)) if name.eq_ignore_ascii_case("fp8") => Ok(true),
        Some(Value::String(name)) if name.eq_ignore_ascii_case("none") => Ok(false),
        Some(Value::Object(scheme)) => {
            let is = |key: &str, value: Value| scheme.get(key) == Some(&value);
            if is("num_bits", 8.into()) && is("type", "float".into()) {
                return Ok(true);
            }
            Err(config.wrong(key, "floats of 8 bits"))
        }
        Some(_) => Err(config.wrong(key, "FP8 or null")),
    }
}

/// Marks the parts that stay in the format of the activations.
fn leave_out(model: &mut Model, config: &Object) {
    let mut patterns: Vec<String> = Vec::new();
    for key in LISTS {
        let Some(Value::Array(names)) = config.get(key) else { continue };
        patterns.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    if patterns.is_empty() {
        return;
    }
    let left_out =
        |names: [String; 2]| names.iter().any(|name| patterns.iter().any(|pattern| matches(pattern, name)));
    let kinds: Vec<Kind> = (0..model.layers)
        .map(|layer| {
            let of = |part: &str| {
                [
                    format!("model.layers.{layer}.{part}"),
                    format!("language_model.model.layers.{layer}.{part}"),
                ]
            };
            let kind = *model.kind(layer);
            let ffn = if kind.experts { "mlp.experts.0.down_proj" } else { "mlp.down_proj" };
            Kind {
                attention_kept: left_out(of("self_attn.o_proj")),
                ffn_kept: left_out(of(ffn)),
                shared_kept: left_out(of("mlp.shared_experts.down_proj")),
                ..kind
            }
        })
        .collect();
    model.set_kinds(kinds);
}

/// Whether a name in a list stands for a part: the part itself, a part of its path, a pattern with stars, or a regular
/// expression behind `re:`.
fn matches(pattern: &str, name: &str) -> bool {
    if let Some(expression) = pattern.strip_prefix("re:") {
        return regex_lite::Regex::new(expression).is_ok_and(|expression| expression.is_match(name));
    }
    if !pattern.contains('*') {
        // Names of single matrices (`gate`) must not match longer ones (`gate_proj`).
        let inside = format!(".{name}.");
        return inside.contains(&format!(".{pattern}."));
    }
    let mut rest = name;
    for (index, piece) in pattern.split('*').enumerate() {
        let Some(at) = rest.find(piece).filter(|&at| index > 0 || at == 0) else { return false };
        rest = &rest[at + piece.len()..];
    }
    pattern.ends_with('*') || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_stand_for_the_parts_that_their_makers_mean() {
        let name = "model.layers.10.self_attn.o_proj";
        for yes in [
            "model.layers.10.self_attn.o_proj",
            "self_attn",
            "model.layers.10*",
            "*.self_attn.*",
            "re:.*self_attn.*",
        ] {
            assert!(matches(yes, name), "{yes}");
        }
        for no in
            ["lm_head", "model.layers.1.*", "model.layers.1", "o", "*.mlp.*", "re:.*mlp.*", "layers.10*"]
        {
            assert!(!matches(no, name), "{no}");
        }
        assert!(!matches("gate", "model.layers.0.mlp.gate_proj"));
    }
}
