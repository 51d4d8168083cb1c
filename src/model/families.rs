//! Families of models as data: what each reads under which key, and what an absent key means there. Facts are those of the
//! `configuration_*.py` and `modeling_*.py` files of Hugging Face transformers 5.19.

mod dense;
mod mixtures;

use super::experts::ExpertKeys;
use super::flag::Flag;
use super::json::Object;
use super::window::{Every, Rotates, Window};
use super::{Model, Norm, NormPlacement, QkNorm};
use crate::error::Result;
use dense::*;
use mixtures::*;

/// Names of the keys that every family has under some name.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub layers: &'static str,
    pub hidden: &'static str,
    pub heads: &'static str,
    pub kv_heads: &'static str,
    pub ffn: &'static [&'static str],
    pub activation: &'static [&'static str],
    pub epsilon: &'static str,
    pub context: &'static str,
}

/// What an absent width of heads means.
#[derive(Clone, Copy)]
pub(super) enum HeadDim {
    /// The width of the stream, shared evenly.
    Even,
    /// So wide.
    Of(u64),
}

/// What an absent width of the feed-forward part means.
#[derive(Clone, Copy)]
pub(super) enum Ffn {
    /// The key must be there.
    Needed,
    /// So many times the width of the stream.
    Times(u64),
}

/// Which constant a key gives.
#[derive(Clone, Copy)]
pub(super) enum Scale {
    /// The embedding is multiplied with it.
    Embedding,
    /// So is what branches add.
    Residual,
    /// So are scores.
    Attention,
    /// Scores are divided by its root.
    AttentionRoot,
    /// Logits are multiplied with it.
    Logits,
    /// Logits are divided by it.
    LogitsInverse,
    /// Scores are capped at it.
    AttentionCap,
    /// Logits are.
    LogitCap,
}

/// A family.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// Values of `model_type`.
    pub types: &'static [&'static str],
    /// Values of `architectures` for models that write text; others of the family (`LlamaModel`) are found by `model_type`.
    pub architectures: &'static [&'static str],
    pub keys: Keys,
    pub head_dim: HeadDim,
    /// Key-value heads where the key is absent; 0: as many as query heads.
    pub kv_heads: u64,
    pub ffn: Ffn,
    pub gated: bool,
    /// The non-linearity where no key names one.
    pub activation: &'static str,
    pub norm: Norm,
    pub placement: NormPlacement,
    /// Whether the two branches run side by side, and how their norms stand then.
    pub parallel: (Flag, NormPlacement),
    pub qkv_bias: Flag,
    pub output_bias: Flag,
    pub ffn_bias: Flag,
    pub head_bias: bool,
    pub qk_norm: (Flag, QkNorm),
    /// Base of the rotation where no key names one; `None`: positions are learned.
    pub theta: Option<f64>,
    /// Share of a head that turns where no key names one.
    pub partial: f64,
    /// Whether neighbours turn together.
    pub interleaved: bool,
    pub window: Window,
    pub rotates: Rotates,
    /// Whether the head is the embedding where the key is absent.
    pub tied: bool,
    /// Rows of the position table in front of position 0; `None`: no table.
    pub positions: Option<u64>,
    pub scales: &'static [(&'static str, f64, Scale)],
    /// Whether the embedding is multiplied with the root of the width (Gemma).
    pub embedding_root: bool,
    pub experts: Option<ExpertKeys>,
    pub latent: bool,
    /// Keys whose other values are refused: they stand for arithmetic that is not modelled.
    pub only: &'static [(&'static str, bool)],
    /// Reads what stands under keys of the family's own, after all else but rotations and windows.
    pub own: Option<fn(&mut Model, &Object) -> Result<()>>,
    /// What reports say of every model of the family, since it is not modelled: execution is refused.
    pub remark: &'static str,
}

const HF: Keys = Keys {
    layers: "num_hidden_layers",
    hidden: "hidden_size",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    ffn: &["intermediate_size"],
    activation: &["hidden_act"],
    epsilon: "rms_norm_eps",
    context: "max_position_embeddings",
};
const LAYER_EPS: Keys = Keys { epsilon: "layer_norm_eps", ..HF };
const GPT2_KEYS: Keys = Keys {
    layers: "n_layer",
    hidden: "n_embd",
    heads: "n_head",
    kv_heads: "",
    ffn: &["n_inner"],
    activation: &["activation_function"],
    epsilon: "layer_norm_epsilon",
    context: "n_positions",
};

/// RMS norm with an epsilon of 1e-5.
const RMS_5: Norm = Norm { epsilon_1e12: 10_000_000, ..Norm::RMS };
const GEMMA_NORM: Norm = Norm { plus_one: true, ..Norm::RMS };

const LLAMA: Family = Family {
    types: &["llama"],
    architectures: &["LlamaForCausalLM"],
    keys: HF,
    head_dim: HeadDim::Even,
    kv_heads: 0,
    ffn: Ffn::Needed,
    gated: true,
    activation: "silu",
    norm: Norm::RMS,
    placement: NormPlacement::Before,
    parallel: (Flag::No, NormPlacement::Parallel),
    qkv_bias: Flag::Key("attention_bias", false),
    output_bias: Flag::Key("attention_bias", false),
    ffn_bias: Flag::Key("mlp_bias", false),
    head_bias: false,
    qk_norm: (Flag::No, QkNorm::None),
    theta: Some(10_000.0),
    partial: 1.0,
    interleaved: false,
    window: Window::NONE,
    rotates: Rotates::All,
    tied: false,
    positions: None,
    scales: &[],
    embedding_root: false,
    experts: None,
    latent: false,
    only: &[],
    own: None,
    remark: "",
};
/// Llama without any bias.
const BARE: Family = Family { qkv_bias: Flag::No, output_bias: Flag::No, ffn_bias: Flag::No, ..LLAMA };
/// Every family that is read.
pub(super) static FAMILIES: [Family; 41] = [
    LLAMA,
    MISTRAL,
    MIXTRAL,
    QWEN2,
    QWEN2_VL,
    QWEN2_MOE,
    QWEN3,
    QWEN3_MOE,
    QWEN3_VL,
    QWEN3_VL_MOE,
    PHI3,
    PHI,
    GEMMA,
    GEMMA2,
    GEMMA3,
    OLMO2,
    OLMO3,
    OLMOE,
    SMOLLM3,
    GRANITE,
    GRANITE_MOE,
    STABLELM,
    STARCODER2,
    GPT_NEOX,
    GPT2,
    OPT,
    FALCON,
    COHERE,
    COHERE2,
    GLM4,
    GLM4_MOE,
    MINIMAX_M2,
    DEEPSEEK,
    DEEPSEEK_V32,
    GPT_OSS,
    LLAMA4,
    EXAONE4,
    SEED_OSS,
    NEMOTRON,
    MIMO,
    ERNIE,
];
