//! Models known by name, as published.

use super::Model;
use super::json::Object;
use crate::error::{InputError, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Shapes of a family in which its members differ.
struct Row {
    name: &'static str,
    family: Family,
    layers: u32,
    hidden: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    ffn: u64,
    vocabulary: u64,
}

/// What the members of a family share.
#[derive(Clone, Copy)]
enum Family {
    Opt,
    Llama2,
    Llama31,
    Llama32,
    Qwen25,
    Qwen3,
    Gemma3,
    Mistral,
    Phi4,
    SmolLm2,
    Vit,
}

#[rustfmt::skip]
const ROWS: [Row; 34] = [
    // Layers, hidden, heads, key and value heads, width of a head, feed-forward width, vocabulary.
    // OPT: Zhang et al., "OPT: Open Pre-trained Transformer Language Models", arXiv 2205.01068, table 1; vocabulary and
    // positions from config.json of facebook/opt-*. The feed-forward part is four times as wide as the stream.
    row("opt-125m",          Family::Opt,     [ 12,    768,  12, 12,  64,  3_072,  50_272]),
    row("opt-350m",          Family::Opt,     [ 24,  1_024,  16, 16,  64,  4_096,  50_272]),
    row("opt-1.3b",          Family::Opt,     [ 24,  2_048,  32, 32,  64,  8_192,  50_272]),
    row("opt-2.7b",          Family::Opt,     [ 32,  2_560,  32, 32,  80, 10_240,  50_272]),
    row("opt-6.7b",          Family::Opt,     [ 32,  4_096,  32, 32, 128, 16_384,  50_272]),
    row("opt-13b",           Family::Opt,     [ 40,  5_120,  40, 40, 128, 20_480,  50_272]),
    row("opt-30b",           Family::Opt,     [ 48,  7_168,  56, 56, 128, 28_672,  50_272]),
    row("opt-66b",           Family::Opt,     [ 64,  9_216,  72, 72, 128, 36_864,  50_272]),
    // Llama 2: Touvron et al., arXiv 2307.09288; widths from config.json of meta-llama/Llama-2-*-hf.
    row("llama-2-7b",        Family::Llama2,  [ 32,  4_096,  32, 32, 128, 11_008,  32_000]),
    row("llama-2-70b",       Family::Llama2,  [ 80,  8_192,  64,  8, 128, 28_672,  32_000]),
    // Llama 3.1: Grattafiori et al., "The Llama 3 Herd of Models", arXiv 2407.21783, table 3. Llama 3.3 has the shapes of 3.1.
    row("llama-3.1-8b",      Family::Llama31, [ 32,  4_096,  32,  8, 128, 14_336, 128_256]),
    row("llama-3.1-70b",     Family::Llama31, [ 80,  8_192,  64,  8, 128, 28_672, 128_256]),
    row("llama-3.1-405b",    Family::Llama31, [126, 16_384, 128,  8, 128, 53_248, 128_256]),
    // Llama 3.2: config.json of meta-llama/Llama-3.2-*.
    row("llama-3.2-1b",      Family::Llama32, [ 16,  2_048,  32,  8,  64,  8_192, 128_256]),
    row("llama-3.2-3b",      Family::Llama32, [ 28,  3_072,  24,  8, 128,  8_192, 128_256]),
    // Qwen2.5: arXiv 2412.15115, table 1; widths from config.json of Qwen/Qwen2.5-*.
    row("qwen2.5-7b",        Family::Qwen25,  [ 28,  3_584,  28,  4, 128, 18_944, 152_064]),
    row("qwen2.5-14b",       Family::Qwen25,  [ 48,  5_120,  40,  8, 128, 13_824, 152_064]),
    row("qwen2.5-32b",       Family::Qwen25,  [ 64,  5_120,  40,  8, 128, 27_648, 152_064]),
    // Qwen3: arXiv 2505.09388, table 1; widths from config.json of Qwen/Qwen3-*.
    row("qwen3-0.6b",        Family::Qwen3,   [ 28,  1_024,  16,  8, 128,  3_072, 151_936]),
    row("qwen3-1.7b",        Family::Qwen3,   [ 28,  2_048,  16,  8, 128,  6_144, 151_936]),
    row("qwen3-4b",          Family::Qwen3,   [ 36,  2_560,  32,  8, 128,  9_728, 151_936]),
    row("qwen3-8b",          Family::Qwen3,   [ 36,  4_096,  32,  8, 128, 12_288, 151_936]),
    row("qwen3-14b",         Family::Qwen3,   [ 40,  5_120,  40,  8, 128, 17_408, 151_936]),
    row("qwen3-32b",         Family::Qwen3,   [ 64,  5_120,  64,  8, 128, 25_600, 151_936]),
    // Gemma 3: arXiv 2503.19786, table 1; widths from config.json of google/gemma-3-*, the part that reads and writes text.
    row("gemma-3-1b",        Family::Gemma3,  [ 26,  1_152,   4,  1, 256,  6_912, 262_144]),
    row("gemma-3-4b",        Family::Gemma3,  [ 34,  2_560,   8,  4, 256, 10_240, 262_208]),
    row("gemma-3-12b",       Family::Gemma3,  [ 48,  3_840,  16,  8, 256, 15_360, 262_208]),
    row("gemma-3-27b",       Family::Gemma3,  [ 62,  5_376,  32, 16, 128, 21_504, 262_208]),
    // Mistral: arXiv 2310.06825, table 1; config.json of mistralai/Mistral-7B-v0.3, -Nemo-*-2407, -Small-24B-*-2501.
    row("mistral-7b",        Family::Mistral, [ 32,  4_096,  32,  8, 128, 14_336,  32_768]),
    row("mistral-nemo-12b",  Family::Mistral, [ 40,  5_120,  32,  8, 128, 14_336, 131_072]),
    row("mistral-small-24b", Family::Mistral, [ 40,  5_120,  32,  8, 128, 32_768, 131_072]),
    // Phi-4: arXiv 2412.08905; config.json of microsoft/phi-4.
    row("phi-4",             Family::Phi4,    [ 40,  5_120,  40, 10, 128, 17_920, 100_352]),
    // SmolLM2: Ben Allal et al., arXiv 2502.02737; config.json of HuggingFaceTB/SmolLM2-135M.
    row("smollm2-135m",      Family::SmolLm2, [ 30,    576,   9,  3,  64,  1_536,  49_152]),
    // ViT-H/14: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929, table 1.
    row("vit-huge",          Family::Vit,     [ 32,  1_280,  16, 16,  80,  5_120,       0]),
];

/// One line of the table.
const fn row(name: &'static str, family: Family, shape: [u64; 7]) -> Row {
    let [layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary] = shape;
    Row { name, family, layers: layers as u32, hidden, heads, kv_heads, head_dim, ffn, vocabulary }
}

/// Names that [`Model::builtin`] knows, in the order of the table.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

impl Model {
    /// The published model of this name, in the number format in which it was published: read from the keys of its
    /// `config.json`, as any other model.
    pub fn builtin(name: &str) -> Option<Model> {
        let row = ROWS.iter().find(|row| row.name == name)?;
        let Value::Object(keys) = row.config() else { unreachable!("a configuration is an object") };
        let mut model =
            Model::from_object(&Object::of(row.name, keys), row.name).expect("a published configuration");
        model.source = row.family.source().into();
        Some(model)
    }

    /// A name from [`builtin_names`], else the path of a `config.json` or of a folder that holds one.
    pub fn resolve(name_or_path: &str) -> Result<Model> {
        if let Some(model) = Model::builtin(name_or_path) {
            return Ok(model);
        }
        if Path::new(name_or_path).exists() {
            return Model::from_config(name_or_path);
        }
        let names = builtin_names().collect::<Vec<_>>().join(", ");
        let expected = format!("one of {names}, or the path of a config.json or its folder");
        Err(InputError::expected(expected).key("model").found(name_or_path).into())
    }
}

impl Family {
    fn source(self) -> &'static str {
        match self {
            Family::Opt => "OPT, arXiv 2205.01068, and config.json of facebook/opt-*",
            Family::Llama2 => "Llama 2, arXiv 2307.09288, and config.json",
            Family::Llama31 => "Llama 3.1, arXiv 2407.21783, table 3",
            Family::Llama32 => "Llama 3.2, config.json",
            Family::Qwen25 => "Qwen2.5, arXiv 2412.15115, and config.json",
            Family::Qwen3 => "Qwen3, arXiv 2505.09388, and config.json",
            Family::Gemma3 => "Gemma 3, arXiv 2503.19786, and config.json; the part that writes text",
            Family::Mistral => "Mistral, arXiv 2310.06825, and config.json",
            Family::Phi4 => "Phi-4, arXiv 2412.08905, and config.json",
            Family::SmolLm2 => "SmolLM2, arXiv 2502.02737, and config.json",
            Family::Vit => "ViT-H/14 at 224 x 224, arXiv 2010.11929, without classes",
        }
    }
}

impl Row {
    /// The keys of the model's `config.json` that matter here.
    fn config(&self) -> Value {
        let Row { layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, .. } = *self;
        let mut keys = json!({
            "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": head_dim, "intermediate_size": ffn,
            "vocab_size": vocabulary, "dtype": "bfloat16", "rms_norm_eps": 1e-5,
        });
        let stretched = |factor: f64| {
            json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192})
        };
        let more = match self.family {
            // OPT-350M alone has narrow tables, and norms after the branches and none before the head.
            Family::Opt => json!({
                "model_type": "opt", "dtype": "float16", "ffn_dim": ffn, "max_position_embeddings": 2048,
                "activation_function": "relu", "rms_norm_eps": null, "do_layer_norm_before": self.name != "opt-350m",
                "word_embed_proj_dim": if self.name == "opt-350m" { 512 } else { hidden },
            }),
            Family::Llama2 => {
                json!({"model_type": "llama", "dtype": "float16", "max_position_embeddings": 4096})
            }
            Family::Llama31 => json!({
                "model_type": "llama", "max_position_embeddings": 131_072, "rope_theta": 5e5, "rope_scaling": stretched(8.0),
            }),
            Family::Llama32 => json!({
                "model_type": "llama", "max_position_embeddings": 131_072, "rope_theta": 5e5, "rope_scaling": stretched(32.0),
                "tie_word_embeddings": true,
            }),
            Family::Qwen25 => json!({
                "model_type": "qwen2", "max_position_embeddings": 131_072, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
            }),
            Family::Qwen3 => json!({
                "model_type": "qwen3", "max_position_embeddings": 40_960, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
                "tie_word_embeddings": hidden < 4_096,
            }),
            Family::Gemma3 => {
                let one = self.name == "gemma-3-1b";
                json!({
                    "model_type": "gemma3_text", "max_position_embeddings": if one { 32_768 } else { 131_072 },
                    "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rms_norm_eps": 1e-6, "sliding_window_pattern": 6,
                    "sliding_window": if one { 512 } else { 1_024 },
                    "query_pre_attn_scalar": if self.name == "gemma-3-27b" { 168 } else { 256 },
                    "rope_scaling": if one { Value::Null } else { json!({"rope_type": "linear", "factor": 8.0}) },
                })
            }
            Family::Mistral => {
                let (context, theta) = match self.name {
                    "mistral-nemo-12b" => (131_072, 1e6),
                    "mistral-small-24b" => (32_768, 1e8),
                    _ => (32_768, 1e6),
                };
                json!({
                    "model_type": "mistral", "max_position_embeddings": context, "rope_theta": theta, "sliding_window": null,
                })
            }
            Family::Phi4 => {
                json!({"model_type": "phi3", "max_position_embeddings": 16_384, "rope_theta": 2.5e5})
            }
            Family::SmolLm2 => json!({
                "model_type": "llama", "max_position_embeddings": 8_192, "rope_theta": 1e5, "tie_word_embeddings": true,
            }),
            Family::Vit => json!({
                "architectures": ["ViTModel"], "dtype": "float32", "hidden_act": "gelu", "rms_norm_eps": null, "image_size": 224, "num_channels": 3,
                "patch_size": 14, "qkv_bias": true,
            }),
        };
        let (Some(keys_of), Value::Object(more)) = (keys.as_object_mut(), more) else { return keys };
        keys_of.extend(more);
        keys
    }
}
