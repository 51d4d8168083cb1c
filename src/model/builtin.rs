//! Models known by name, as published.

use super::{Activation, Input, Model, Norm};
use crate::error::{InputError, Result};
use crate::units::Dtype;
use std::path::Path;

/// Shapes of a family in which its members differ.
struct Row {
    name: &'static str,
    family: Family,
    layers: u32,
    hidden: u64,
    heads: u64,
    kv_heads: u64,
    ffn: u64,
}

/// What the members of a family share.
#[derive(Clone, Copy)]
enum Family {
    Opt,
    Llama2,
    Llama31,
    SmolLm2,
    Vit,
}

#[rustfmt::skip]
const ROWS: [Row; 15] = [
    // OPT: Zhang et al., "OPT: Open Pre-trained Transformer Language Models", arXiv 2205.01068, table 1; vocabulary and
    // positions from config.json of facebook/opt-*. The feed-forward part is four times as wide as the stream.
    row("opt-125m",       Family::Opt,      12,    768,  12, 12,  3_072),
    row("opt-350m",       Family::Opt,      24,  1_024,  16, 16,  4_096),
    row("opt-1.3b",       Family::Opt,      24,  2_048,  32, 32,  8_192),
    row("opt-2.7b",       Family::Opt,      32,  2_560,  32, 32, 10_240),
    row("opt-6.7b",       Family::Opt,      32,  4_096,  32, 32, 16_384),
    row("opt-13b",        Family::Opt,      40,  5_120,  40, 40, 20_480),
    row("opt-30b",        Family::Opt,      48,  7_168,  56, 56, 28_672),
    row("opt-66b",        Family::Opt,      64,  9_216,  72, 72, 36_864),
    // Llama 2: Touvron et al., arXiv 2307.09288; widths from config.json of meta-llama/Llama-2-*-hf.
    row("llama-2-7b",     Family::Llama2,   32,  4_096,  32, 32, 11_008),
    row("llama-2-70b",    Family::Llama2,   80,  8_192,  64,  8, 28_672),
    // Llama 3.1: Grattafiori et al., "The Llama 3 Herd of Models", arXiv 2407.21783, table 3.
    row("llama-3.1-8b",   Family::Llama31,  32,  4_096,  32,  8, 14_336),
    row("llama-3.1-70b",  Family::Llama31,  80,  8_192,  64,  8, 28_672),
    row("llama-3.1-405b", Family::Llama31, 126, 16_384, 128,  8, 53_248),
    // SmolLM2: Ben Allal et al., arXiv 2502.02737; config.json of HuggingFaceTB/SmolLM2-135M.
    row("smollm2-135m",   Family::SmolLm2,  30,    576,   9,  3,  1_536),
    // ViT-H/14: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929, table 1.
    row("vit-huge",       Family::Vit,      32,  1_280,  16, 16,  5_120),
];

/// One line of the table.
const fn row(
    name: &'static str,
    family: Family,
    layers: u32,
    hidden: u64,
    heads: u64,
    kv_heads: u64,
    ffn: u64,
) -> Row {
    Row { name, family, layers, hidden, heads, kv_heads, ffn }
}

/// Names that [`Model::builtin`] knows, in the order of the table.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

impl Model {
    /// The published model of this name, in the number format in which it was published.
    pub fn builtin(name: &str) -> Option<Model> {
        ROWS.iter().find(|row| row.name == name).map(Row::model)
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

impl Row {
    fn model(&self) -> Model {
        let (source, dtype) = match self.family {
            Family::Opt => ("OPT, arXiv 2205.01068, and config.json of facebook/opt-*", Dtype::F16),
            Family::Llama2 => ("Llama 2, arXiv 2307.09288, and config.json", Dtype::F16),
            Family::Llama31 => ("Llama 3.1, arXiv 2407.21783, table 3", Dtype::Bf16),
            Family::SmolLm2 => ("SmolLM2, arXiv 2502.02737, and config.json", Dtype::Bf16),
            Family::Vit => ("ViT-H/14 at 224 x 224, arXiv 2010.11929, without classes", Dtype::F32),
        };
        // As Llama; the other families change what differs.
        let mut model = Model {
            name: self.name.into(),
            source: source.into(),
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.hidden / self.heads,
            ffn: self.ffn,
            gated: true,
            activation: Activation::Silu,
            norm: Norm::Rms,
            final_norm: true,
            rope: true,
            qkv_bias: false,
            bias: false,
            qk_norm: false,
            input: Input::Tokens { vocabulary: 0, width: self.hidden },
            outputs: 0,
            tied: false,
            positions: 0,
            weights: dtype,
            embedding_weights: dtype,
            activations: dtype,
            kv: dtype,
        };
        match self.family {
            Family::Opt => {
                // OPT-350M alone has narrow tables, and norms after the branches and none before the head.
                let small = self.name == "opt-350m";
                model.set_vocabulary(50_272, if small { 512 } else { self.hidden });
                model.set_plain(Activation::Relu);
                model.tied = true;
                model.final_norm = !small;
                model.positions = 2_048 + 2;
            }
            Family::Llama2 => model.set_vocabulary(32_000, self.hidden),
            Family::Llama31 => model.set_vocabulary(128_256, self.hidden),
            Family::SmolLm2 => {
                model.set_vocabulary(49_152, self.hidden);
                model.tied = true;
            }
            Family::Vit => {
                model.set_plain(Activation::Gelu);
                let (channels, side) = (3, 14);
                let count = (224 / side) * (224 / side) + 1;
                model.input = Input::Patches { values: channels * side * side, count };
                model.positions = count;
            }
        }
        model
    }
}

impl Model {
    /// Words in, a score for each word out.
    pub(super) fn set_vocabulary(&mut self, vocabulary: u64, width: u64) {
        self.input = Input::Tokens { vocabulary, width };
        self.outputs = vocabulary;
    }

    /// The layer of OPT, GPT-2 and ViT: two matrices after attention, layer norms, biases, no rotation.
    pub(super) fn set_plain(&mut self, activation: Activation) {
        self.gated = false;
        self.activation = activation;
        self.norm = Norm::Layer;
        self.rope = false;
        self.qkv_bias = true;
        self.bias = true;
    }
}
