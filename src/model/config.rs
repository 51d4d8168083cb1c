//! Shapes from a Hugging Face `config.json`.
//!
//! Keys and their defaults are those of the `configuration_*.py` files of the transformers library. Keys that change
//! the shapes or the work in a way the model cannot express are refused, not ignored.

use super::check::{FFN, HEADS, LAYERS, PATCH_VALUES, ROWS, WIDTH};
use super::json::Object;
use super::{Activation, Input, Model, Norm};
use crate::error::{Result, shorten};
use crate::units::Dtype;
use serde_json::Value;
use std::path::Path;

/// What the architectures differ in, once their keys are read.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Phi3,
    Gemma,
    Opt,
    Gpt2,
    /// Whether it is a bare encoder.
    Vit(bool),
}

/// Architectures that are read, by the name in `architectures`.
const ARCHITECTURES: [(&str, Family); 10] = [
    ("LlamaForCausalLM", Family::Llama),
    ("MistralForCausalLM", Family::Mistral),
    ("Qwen2ForCausalLM", Family::Qwen2),
    ("Qwen3ForCausalLM", Family::Qwen3),
    ("Phi3ForCausalLM", Family::Phi3),
    ("GemmaForCausalLM", Family::Gemma),
    ("OPTForCausalLM", Family::Opt),
    ("GPT2LMHeadModel", Family::Gpt2),
    ("ViTForImageClassification", Family::Vit(false)),
    ("ViTModel", Family::Vit(true)),
];

const ACTIVATIONS: [(&str, Activation); 7] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::Gelu),
    ("gelu_fast", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::Gelu),
    ("relu", Activation::Relu),
];

const DTYPES: [(&str, Dtype); 3] =
    [("float32", Dtype::F32), ("float16", Dtype::F16), ("bfloat16", Dtype::Bf16)];

impl Model {
    /// Reads a `config.json`, or the one in a folder. The model is named after the folder.
    ///
    /// All formats are that of `dtype` (formerly `torch_dtype`); where both are absent, 32-bit floats, as in
    /// Hugging Face's own reader. [`Model::with_formats`] changes them. The pooler of a bare `ViTModel` is left out.
    pub fn from_config(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        let config = Object::read(&file)?;
        let family = family(&config)?;
        if config.get("quantization_config").is_some() {
            return Err(config.wrong("quantization_config", "none, as quantised weights are not supported"));
        }
        let dtype_key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        let dtype = match config.get(dtype_key) {
            Some(_) => config.choice(dtype_key, &DTYPES)?,
            None => Dtype::F32,
        };
        let mut model = Model {
            name: folder_name(&file),
            source: "config.json".into(),
            layers: 0,
            hidden: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            ffn: 0,
            gated: true,
            activation: Activation::Silu,
            norm: Norm::Rms,
            final_norm: true,
            rope: true,
            qkv_bias: false,
            bias: false,
            qk_norm: false,
            input: Input::Tokens { vocabulary: 0, width: 0 },
            outputs: 0,
            tied: false,
            positions: 0,
            weights: dtype,
            embedding_weights: dtype,
            activations: dtype,
            kv: dtype,
        };
        match family {
            Family::Opt => read_opt(&mut model, &config)?,
            Family::Gpt2 => read_gpt2(&mut model, &config)?,
            Family::Vit(bare) => read_vit(&mut model, &config, bare)?,
            _ => read_llama(&mut model, &config, family)?,
        }
        model.check().map_err(|error| error.in_file(&file))?;
        Ok(model)
    }
}

/// The family that the only entry of `architectures` names.
fn family(config: &Object) -> Result<Family> {
    let name = match config.get("architectures").and_then(Value::as_array).map(Vec::as_slice) {
        Some([name]) => name.as_str(),
        _ => None,
    };
    ARCHITECTURES.iter().find(|(known, _)| Some(*known) == name).map(|(_, family)| *family).ok_or_else(|| {
        let names = ARCHITECTURES.map(|(name, _)| name).join(", ");
        config.wrong("architectures", format!("a list with one of {names}"))
    })
}

/// The name of the folder that holds the file, else the file's own.
fn folder_name(file: &Path) -> String {
    let full = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let name = full.parent().and_then(Path::file_name).or(full.file_name());
    name.map_or_else(|| "config".into(), |name| shorten(&name.to_string_lossy()))
}

/// Layers, width and heads, under the keys of most families.
fn read_common(model: &mut Model, config: &Object) -> Result<()> {
    read_trunk(model, config, ["num_hidden_layers", "hidden_size", "num_attention_heads"])
}

/// Layers, width and heads under the given keys; as many key as query heads, which share the width.
fn read_trunk(model: &mut Model, config: &Object, keys: [&str; 3]) -> Result<()> {
    let [layers, hidden, heads] = keys;
    model.layers = config.number(layers, LAYERS)? as u32;
    model.hidden = config.number(hidden, WIDTH)?;
    model.heads = config.number(heads, HEADS)?;
    model.kv_heads = model.heads;
    model.head_dim = model.hidden / model.heads;
    Ok(())
}

/// Refuses heads that do not share the width of the stream evenly.
fn check_even_heads(model: &Model, config: &Object, key: &str) -> Result<()> {
    if model.hidden.is_multiple_of(model.heads) {
        return Ok(());
    }
    Err(config.wrong(key, format!("a divisor of the width {}", model.hidden)))
}

/// Llama and those that differ from it in a bias, a norm or a default.
fn read_llama(model: &mut Model, config: &Object, family: Family) -> Result<()> {
    read_common(model, config)?;
    if config.get("head_dim").is_some() {
        model.head_dim = config.number("head_dim", HEADS)?;
    } else if family == Family::Qwen3 {
        model.head_dim = 128;
    } else if family == Family::Gemma {
        model.head_dim = 256;
    } else {
        check_even_heads(model, config, "num_attention_heads")?;
    }
    if model.q_dim() > WIDTH {
        let expected = format!("{} heads to be at most {WIDTH} wide together", model.heads);
        return Err(config.wrong("head_dim", expected));
    }
    if !model.head_dim.is_multiple_of(2) {
        let key = if config.get("head_dim").is_some() { "head_dim" } else { "num_attention_heads" };
        let expected = format!("heads of an even width, not {}, as rotation takes pairs", model.head_dim);
        return Err(config.wrong(key, expected));
    }
    model.kv_heads = config.number_or("num_key_value_heads", model.heads, model.heads)?;
    if !model.heads.is_multiple_of(model.kv_heads) {
        let expected = format!("a divisor of {} (num_attention_heads)", model.heads);
        return Err(config.wrong("num_key_value_heads", expected));
    }
    model.ffn = config.number("intermediate_size", FFN)?;
    let activation = match family {
        Family::Gemma if config.get("hidden_activation").is_some() => "hidden_activation",
        _ => "hidden_act",
    };
    model.activation = config.choice(activation, &ACTIVATIONS)?;
    model.set_vocabulary(config.number("vocab_size", ROWS)?, model.hidden);
    model.tied = config.flag("tie_word_embeddings", family == Family::Gemma)?;
    match family {
        Family::Qwen2 => model.qkv_bias = true,
        Family::Llama => {
            model.bias = config.flag("attention_bias", false)?;
            model.qkv_bias = model.bias;
            config.must_be("mlp_bias", model.bias)?;
        }
        Family::Qwen3 => {
            model.qk_norm = true;
            config.must_be("attention_bias", false)?;
        }
        _ => config.must_be("attention_bias", false)?,
    }
    check_windows(config, family)
}

/// Refuses attention that sees only the last tokens: its work and cache are not those of the model.
fn check_windows(config: &Object, family: Family) -> Result<()> {
    if matches!(family, Family::Qwen2 | Family::Qwen3) {
        config.must_be("use_sliding_window", false)?;
    } else if config.get("sliding_window").is_some() {
        let window = config.number("sliding_window", u64::MAX)?;
        // A window as long as the longest context never acts.
        if window < config.number("max_position_embeddings", u64::MAX)? {
            return Err(config.wrong("sliding_window", "null, as attention windows are not supported"));
        }
    }
    let full = |kinds: &Vec<Value>| kinds.iter().all(|kind| kind == "full_attention");
    match config.get("layer_types") {
        Some(kinds) if !kinds.as_array().is_some_and(full) => {
            Err(config.wrong("layer_types", "\"full_attention\" for every layer"))
        }
        _ => Ok(()),
    }
}

/// OPT. Its position table has two rows that no token uses.
fn read_opt(model: &mut Model, config: &Object) -> Result<()> {
    read_common(model, config)?;
    check_even_heads(model, config, "num_attention_heads")?;
    model.set_plain(config.choice("activation_function", &ACTIVATIONS)?);
    model.ffn = config.number("ffn_dim", FFN)?;
    let width = config.number_or("word_embed_proj_dim", model.hidden, WIDTH)?;
    model.set_vocabulary(config.number("vocab_size", ROWS)?, width);
    model.tied = config.flag("tie_word_embeddings", true)?;
    model.positions = config.number("max_position_embeddings", ROWS - 2)? + 2;
    let normed_first = config.flag("do_layer_norm_before", true)?;
    model.final_norm = normed_first && !config.flag("_remove_final_layer_norm", false)?;
    model.bias = config.flag("enable_bias", true)?;
    model.qkv_bias = model.bias;
    config.must_be("layer_norm_elementwise_affine", true)
}

/// GPT-2.
fn read_gpt2(model: &mut Model, config: &Object) -> Result<()> {
    read_trunk(model, config, ["n_layer", "n_embd", "n_head"])?;
    check_even_heads(model, config, "n_head")?;
    model.set_plain(config.choice("activation_function", &ACTIVATIONS)?);
    model.ffn = config.number_or("n_inner", 4 * model.hidden, FFN)?;
    model.set_vocabulary(config.number("vocab_size", ROWS)?, model.hidden);
    model.tied = config.flag("tie_word_embeddings", true)?;
    model.positions = config.number("n_positions", ROWS)?;
    config.must_be("add_cross_attention", false)
}

/// ViT. Its classes are the entries of `id2label`; a classifier without them has two, Hugging Face's default.
fn read_vit(model: &mut Model, config: &Object, bare: bool) -> Result<()> {
    read_common(model, config)?;
    check_even_heads(model, config, "num_attention_heads")?;
    model.set_plain(config.choice("hidden_act", &ACTIVATIONS)?);
    model.ffn = config.number("intermediate_size", FFN)?;
    model.qkv_bias = config.flag("qkv_bias", true)?;
    // With sides of at most 2^12 there are at most 2^24 patches, and no product below overflows.
    let image = config.number("image_size", (1 << 12) - 1)?;
    let side = config.number("patch_size", image)?;
    let channels = config.number("num_channels", PATCH_VALUES / (side * side))?;
    let count = (image / side) * (image / side) + 1;
    model.input = Input::Patches { values: channels * side * side, count };
    model.positions = count;
    if bare {
        return Ok(());
    }
    model.outputs = match config.get("id2label") {
        Some(Value::Object(labels)) if !labels.is_empty() && labels.len() as u64 <= ROWS => {
            labels.len() as u64
        }
        Some(_) => return Err(config.wrong("id2label", format!("an object of 1 to {ROWS} labels"))),
        None => config.number_or("num_labels", 2, ROWS)?,
    };
    Ok(())
}
