//! Families of models as data: what each reads under which key, and what an absent key means there. Facts are those of the
//! `configuration_*.py` and `modeling_*.py` files of Hugging Face transformers 5.19.

use super::experts::{Dense, ExpertKeys, Shared};
use super::json::Object;
use super::window::{Every, Rotates, Window};
use super::{Gating, Norm, Placement, QkNorm};
use crate::error::Result;

/// A truth value of a family.
#[derive(Clone, Copy)]
pub(super) enum Flag {
    /// Never.
    No,
    /// Always.
    Yes,
    /// As this key says, with a value for its absence.
    Key(&'static str, bool),
}

impl Flag {
    pub fn read(self, config: &Object) -> Result<bool> {
        match self {
            Flag::No => Ok(false),
            Flag::Yes => Ok(true),
            Flag::Key(key, absent) => config.flag(key, absent),
        }
    }
}

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
    pub norm_bias: Option<Flag>,
    pub placement: Placement,
    /// Whether the two branches run side by side, and how their norms stand then.
    pub parallel: (Flag, Placement),
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
    norm_bias: None,
    placement: Placement::Before,
    parallel: (Flag::No, Placement::Parallel),
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
    remark: "",
};
/// Llama without any bias.
const BARE: Family = Family { qkv_bias: Flag::No, output_bias: Flag::No, ffn_bias: Flag::No, ..LLAMA };
const MISTRAL: Family = Family {
    types: &["mistral", "ministral"],
    architectures: &["MistralForCausalLM", "MinistralForCausalLM"],
    kv_heads: 8,
    window: Window { default: 4_096, ..Window::ALL },
    ..BARE
};
const MIXTRAL: Family = Family {
    types: &["mixtral"],
    architectures: &["MixtralForCausalLM"],
    norm: RMS_5,
    kv_heads: 8,
    window: Window::ALL,
    theta: Some(1e6),
    experts: Some(ExpertKeys::MIXTRAL),
    ..BARE
};
const QWEN2: Family = Family {
    types: &["qwen2"],
    architectures: &["Qwen2ForCausalLM"],
    qkv_bias: Flag::Yes,
    window: Window::QWEN,
    ..BARE
};
const QWEN2_VL: Family = Family {
    types: &["qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"],
    architectures: &["Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"],
    ..QWEN2
};
const QWEN2_MOE: Family = Family {
    types: &["qwen2_moe"],
    architectures: &["Qwen2MoeForCausalLM"],
    qkv_bias: Flag::Key("qkv_bias", true),
    window: Window { every: Every::Odd, ..Window::QWEN },
    experts: Some(ExpertKeys {
        shared: Shared::Width("shared_expert_intermediate_size", true),
        ..ExpertKeys::QWEN
    }),
    ..QWEN2
};
const QWEN3: Family = Family {
    types: &["qwen3"],
    architectures: &["Qwen3ForCausalLM"],
    head_dim: HeadDim::Of(128),
    qkv_bias: Flag::Key("attention_bias", false),
    output_bias: Flag::Key("attention_bias", false),
    qk_norm: (Flag::Key("use_qk_norm", true), QkNorm::Head),
    ..QWEN2
};
const QWEN3_MOE: Family = Family {
    types: &["qwen3_moe"],
    architectures: &["Qwen3MoeForCausalLM"],
    head_dim: HeadDim::Even,
    kv_heads: 4,
    window: Window { default: 4_096, switch: "use_sliding_window", ..Window::ALL },
    experts: Some(ExpertKeys::QWEN),
    ..QWEN3
};
const QWEN3_VL: Family = Family {
    types: &["qwen3_vl", "qwen3_vl_text"],
    architectures: &["Qwen3VLForConditionalGeneration"],
    window: Window::NONE,
    theta: Some(500_000.0),
    ..QWEN3
};
const QWEN3_VL_MOE: Family = Family {
    types: &["qwen3_vl_moe", "qwen3_vl_moe_text"],
    architectures: &["Qwen3VLMoeForConditionalGeneration"],
    window: Window::NONE,
    theta: Some(500_000.0),
    // Its class has no such key: the weights of the chosen always sum to one.
    experts: Some(ExpertKeys { normalised: Flag::Yes, ..ExpertKeys::QWEN }),
    ..QWEN3_MOE
};
const PHI3: Family = Family {
    types: &["phi3"],
    architectures: &["Phi3ForCausalLM"],
    norm: RMS_5,
    window: Window::ALL,
    ..BARE
};
const PHI: Family = Family {
    types: &["phi"],
    architectures: &["PhiForCausalLM"],
    keys: LAYER_EPS,
    gated: false,
    activation: "gelu_new",
    norm: Norm::LAYER,
    placement: Placement::Parallel,
    qkv_bias: Flag::Yes,
    output_bias: Flag::Yes,
    ffn_bias: Flag::Yes,
    head_bias: true,
    partial: 0.5,
    only: &[("qk_layernorm", false)],
    ..LLAMA
};
const GEMMA: Family = Family {
    types: &["gemma"],
    architectures: &["GemmaForCausalLM"],
    keys: Keys { activation: &["hidden_activation", "hidden_act"], ..HF },
    head_dim: HeadDim::Of(256),
    activation: "gelu_pytorch_tanh",
    norm: GEMMA_NORM,
    tied: true,
    embedding_root: true,
    ffn_bias: Flag::No,
    only: &[("use_bidirectional_attention", false)],
    ..LLAMA
};
const GEMMA2: Family = Family {
    types: &["gemma2"],
    architectures: &["Gemma2ForCausalLM"],
    kv_heads: 4,
    placement: Placement::Around,
    window: Window { default: 4_096, every: Every::Odd, ..Window::ALL },
    scales: &[
        ("query_pre_attn_scalar", 256.0, Scale::AttentionRoot),
        ("attn_logit_softcapping", 50.0, Scale::AttentionCap),
        ("final_logit_softcapping", 30.0, Scale::LogitCap),
    ],
    ..GEMMA
};
const GEMMA3: Family = Family {
    types: &["gemma3_text", "gemma3"],
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    qk_norm: (Flag::Yes, QkNorm::Head),
    theta: Some(1e6),
    window: Window { every: Every::Pattern("sliding_window_pattern", 6), ..GEMMA2.window },
    rotates: Rotates::LocalInWindows(10_000.0),
    scales: &[
        ("query_pre_attn_scalar", 256.0, Scale::AttentionRoot),
        ("attn_logit_softcapping", 0.0, Scale::AttentionCap),
        ("final_logit_softcapping", 0.0, Scale::LogitCap),
    ],
    ..GEMMA2
};
const OLMO2: Family = Family {
    types: &["olmo2"],
    architectures: &["Olmo2ForCausalLM"],
    norm: RMS_5,
    placement: Placement::AfterBranch,
    qk_norm: (Flag::Yes, QkNorm::Whole),
    ffn_bias: Flag::No,
    ..LLAMA
};
const OLMO3: Family = Family {
    types: &["olmo3"],
    architectures: &["Olmo3ForCausalLM"],
    window: Window { default: 4_096, every: Every::Pattern("", 4), ..Window::ALL },
    // Scalings are for the layers that see everything; the others turn without.
    rotates: Rotates::PlainInWindows,
    ..OLMO2
};
const OLMOE: Family = Family {
    types: &["olmoe"],
    architectures: &["OlmoeForCausalLM"],
    norm: RMS_5,
    qk_norm: (Flag::Yes, QkNorm::Whole),
    ffn_bias: Flag::No,
    experts: Some(ExpertKeys { width: &["intermediate_size"], dense: Dense::No, ..ExpertKeys::QWEN }),
    ..LLAMA
};
const SMOLLM3: Family = Family {
    types: &["smollm3"],
    architectures: &["SmolLM3ForCausalLM"],
    kv_heads: 4,
    theta: Some(2_000_000.0),
    window: Window { switch: "use_sliding_window", every: Every::Unrotated, ..Window::ALL },
    rotates: Rotates::Listed,
    tied: true,
    ..LLAMA
};
const GRANITE_SCALES: &[(&str, f64, Scale)] = &[
    ("embedding_multiplier", 1.0, Scale::Embedding),
    ("residual_multiplier", 1.0, Scale::Residual),
    ("attention_multiplier", 1.0, Scale::Attention),
    ("logits_scaling", 1.0, Scale::LogitsInverse),
];
const GRANITE: Family =
    Family { types: &["granite"], architectures: &["GraniteForCausalLM"], scales: GRANITE_SCALES, ..LLAMA };
const GRANITE_MOE: Family = Family {
    types: &["granitemoe"],
    architectures: &["GraniteMoeForCausalLM"],
    scales: GRANITE_SCALES,
    ffn_bias: Flag::No,
    experts: Some(ExpertKeys::MIXTRAL),
    ..LLAMA
};
const STABLELM: Family = Family {
    types: &["stablelm"],
    architectures: &["StableLmForCausalLM"],
    keys: LAYER_EPS,
    norm: Norm::LAYER,
    parallel: (Flag::Key("use_parallel_residual", false), Placement::Parallel),
    qkv_bias: Flag::Key("use_qkv_bias", false),
    qk_norm: (Flag::Key("qk_layernorm", false), QkNorm::EachHead),
    partial: 0.25,
    ..BARE
};
const STARCODER2: Family = Family {
    types: &["starcoder2"],
    architectures: &["Starcoder2ForCausalLM"],
    keys: Keys { epsilon: "norm_epsilon", ..HF },
    kv_heads: 2,
    gated: false,
    activation: "gelu_pytorch_tanh",
    norm: Norm::LAYER,
    qkv_bias: Flag::Key("use_bias", true),
    output_bias: Flag::Key("use_bias", true),
    ffn_bias: Flag::Key("use_bias", true),
    window: Window::ALL,
    tied: true,
    ..LLAMA
};
const GPT_NEOX: Family = Family {
    types: &["gpt_neox"],
    architectures: &["GPTNeoXForCausalLM"],
    keys: Keys { kv_heads: "", ..LAYER_EPS },
    gated: false,
    activation: "gelu",
    norm: Norm::LAYER,
    parallel: (Flag::Key("use_parallel_residual", true), Placement::ParallelEach),
    qkv_bias: Flag::Key("attention_bias", true),
    output_bias: Flag::Key("attention_bias", true),
    ffn_bias: Flag::Yes,
    partial: 0.25,
    ..LLAMA
};
const GPT2: Family = Family {
    types: &["gpt2"],
    architectures: &["GPT2LMHeadModel"],
    keys: GPT2_KEYS,
    ffn: Ffn::Times(4),
    gated: false,
    activation: "gelu_new",
    norm: Norm::LAYER,
    qkv_bias: Flag::Yes,
    output_bias: Flag::Yes,
    ffn_bias: Flag::Yes,
    theta: None,
    tied: true,
    positions: Some(0),
    only: &[
        ("add_cross_attention", false),
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
    ],
    ..LLAMA
};
const OPT: Family = Family {
    types: &["opt"],
    architectures: &["OPTForCausalLM"],
    keys: Keys { ffn: &["ffn_dim"], activation: &["activation_function"], kv_heads: "", epsilon: "", ..HF },
    activation: "relu",
    qkv_bias: Flag::Key("enable_bias", true),
    output_bias: Flag::Key("enable_bias", true),
    ffn_bias: Flag::Key("enable_bias", true),
    // OPTLearnedPositionalEmbedding: two rows come before position 0.
    positions: Some(2),
    ffn: Ffn::Needed,
    only: &[("layer_norm_elementwise_affine", true)],
    ..GPT2
};
/// Its heads, norms and biases stand under keys of its own: `trunk::falcon` reads them.
const FALCON: Family = Family {
    types: &["falcon", "RefinedWeb", "RefinedWebModel"],
    architectures: &["FalconForCausalLM", "RWForCausalLM"],
    keys: Keys {
        kv_heads: "",
        ffn: &["ffn_hidden_size"],
        activation: &["activation"],
        epsilon: "layer_norm_epsilon",
        ..HF
    },
    ffn: Ffn::Times(4),
    gated: false,
    activation: "gelu",
    norm: Norm::LAYER,
    qkv_bias: Flag::Key("bias", false),
    output_bias: Flag::Key("bias", false),
    ffn_bias: Flag::Key("bias", false),
    tied: true,
    only: &[("alibi", false)],
    ..LLAMA
};
const COHERE: Family = Family {
    types: &["cohere"],
    architectures: &["CohereForCausalLM"],
    keys: LAYER_EPS,
    norm: Norm { bias: false, ..Norm::LAYER },
    placement: Placement::Parallel,
    qk_norm: (Flag::Key("use_qk_norm", false), QkNorm::EachHead),
    tied: true,
    ffn_bias: Flag::No,
    scales: &[("logit_scale", 0.0625, Scale::Logits)],
    interleaved: true,
    ..LLAMA
};
const COHERE2: Family = Family {
    types: &["cohere2"],
    architectures: &["Cohere2ForCausalLM"],
    window: Window { default: 4_096, every: Every::Pattern("sliding_window_pattern", 4), ..Window::ALL },
    rotates: Rotates::InWindows,
    qk_norm: (Flag::No, QkNorm::None),
    ..COHERE
};
const GLM4: Family = Family {
    types: &["glm4"],
    architectures: &["Glm4ForCausalLM"],
    head_dim: HeadDim::Of(128),
    kv_heads: 2,
    placement: Placement::Around,
    qkv_bias: Flag::Key("attention_bias", true),
    output_bias: Flag::No,
    ffn_bias: Flag::No,
    partial: 0.5,
    norm: Norm { epsilon_1e12: 156_250, ..Norm::RMS },
    interleaved: true,
    ..LLAMA
};
const GLM4_MOE: Family = Family {
    types: &["glm4_moe"],
    architectures: &["Glm4MoeForCausalLM"],
    kv_heads: 8,
    norm: RMS_5,
    output_bias: Flag::No,
    ffn_bias: Flag::No,
    qk_norm: (Flag::Key("use_qk_norm", false), QkNorm::Head),
    partial: 0.5,
    experts: Some(ExpertKeys::DEEPSEEK),
    ..LLAMA
};
const MINIMAX_M2: Family = Family {
    types: &["minimax_m2"],
    architectures: &["MiniMaxM2ForCausalLM"],
    head_dim: HeadDim::Of(128),
    kv_heads: 8,
    // All queries share one norm, all keys another (`qk_norm_type: per_layer`).
    qk_norm: (Flag::Key("use_qk_norm", true), QkNorm::Whole),
    theta: Some(5_000_000.0),
    experts: Some(ExpertKeys {
        width: &["intermediate_size"],
        gating: Gating::Sigmoid,
        choice_bias: Flag::Yes,
        ..ExpertKeys::MIXTRAL
    }),
    ..BARE
};
const DEEPSEEK: Family = Family {
    types: &["deepseek_v2", "deepseek_v3", "kimi_k2", "kimi_k25", "glm4_moe_lite", "longcat_flash"],
    architectures: &[
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "KimiK2ForCausalLM",
        "KimiK25ForConditionalGeneration",
        "Glm4MoeLiteForCausalLM",
    ],
    ffn_bias: Flag::No,
    experts: Some(ExpertKeys::DEEPSEEK),
    latent: true,
    only: &[("attention_bias", false)],
    ..BARE
};
const DEEPSEEK_V32: Family = Family {
    types: &["deepseek_v32", "glm_moe_dsa"],
    architectures: &["DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"],
    ..DEEPSEEK
};
const GPT_OSS: Family = Family {
    types: &["gpt_oss"],
    architectures: &["GptOssForCausalLM"],
    head_dim: HeadDim::Of(64),
    kv_heads: 8,
    norm: RMS_5,
    theta: Some(150_000.0),
    qkv_bias: Flag::Key("attention_bias", true),
    output_bias: Flag::Key("attention_bias", true),
    ffn_bias: Flag::Yes,
    window: Window { default: 128, every: Every::Odd, ..Window::ALL },
    experts: Some(ExpertKeys { router_bias: true, ..ExpertKeys::MIXTRAL }),
    remark: "attention sinks and clipped gates (gpt-oss)",
    ..LLAMA
};
const LLAMA4: Family = Family {
    types: &["llama4", "llama4_text"],
    architectures: &["Llama4ForCausalLM", "Llama4ForConditionalGeneration"],
    keys: Keys { ffn: &["intermediate_size_mlp"], ..HF },
    head_dim: HeadDim::Of(128),
    kv_heads: 8,
    norm: RMS_5,
    theta: Some(500_000.0),
    ffn_bias: Flag::No,
    window: Window::CHUNKS,
    rotates: Rotates::Listed,
    experts: Some(ExpertKeys {
        width: &["intermediate_size"],
        shared: Shared::One,
        gating: Gating::Sigmoid,
        normalised: Flag::No,
        dense: Dense::Interleaved,
        ..ExpertKeys::MIXTRAL
    }),
    remark: "attention within chunks is counted as a window, norms of queries and keys and temperatures are left out (Llama 4)",
    ..LLAMA
};
const EXAONE4: Family = Family {
    types: &["exaone4"],
    architectures: &["Exaone4ForCausalLM"],
    norm: RMS_5,
    placement: Placement::AfterBranch,
    qk_norm: (Flag::Yes, QkNorm::Head),
    window: Window { default: 4_096, every: Every::Pattern("sliding_window_pattern", 4), ..Window::ALL },
    rotates: Rotates::InWindows,
    ..BARE
};
const SEED_OSS: Family = Family {
    types: &["seed_oss"],
    architectures: &["SeedOssForCausalLM"],
    head_dim: HeadDim::Of(128),
    kv_heads: 8,
    qkv_bias: Flag::Key("attention_bias", true),
    output_bias: Flag::Key("attention_out_bias", false),
    ..LLAMA
};
const NEMOTRON: Family = Family {
    types: &["nemotron"],
    architectures: &["NemotronForCausalLM"],
    keys: Keys { epsilon: "norm_eps", ..HF },
    gated: false,
    activation: "relu2",
    norm: Norm { plus_one: true, ..Norm::LAYER },
    partial: 0.5,
    ..LLAMA
};
const MIMO: Family = Family {
    types: &["mimo"],
    architectures: &["MiMoForCausalLM"],
    qkv_bias: Flag::Key("attention_bias", true),
    ..QWEN2
};
const ERNIE: Family = Family {
    types: &["ernie4_5"],
    architectures: &["Ernie4_5ForCausalLM"],
    kv_heads: 2,
    norm: RMS_5,
    qkv_bias: Flag::Key("use_bias", false),
    output_bias: Flag::Key("use_bias", false),
    ffn_bias: Flag::Key("use_bias", false),
    theta: Some(500_000.0),
    tied: true,
    interleaved: true,
    ..LLAMA
};

/// Every family that is read.
pub(super) const FAMILIES: [Family; 41] = [
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
