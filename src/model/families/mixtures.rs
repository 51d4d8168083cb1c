//! Families whose layers have experts.

use super::dense::*;
use super::*;
use crate::model::Gating;
use crate::model::experts::{Dense, Shared};

pub const MIXTRAL: Family = Family {
    types: &["mixtral"],
    architectures: &["MixtralForCausalLM"],
    norm: RMS_5,
    kv_heads: 8,
    window: Window::ALL,
    theta: Some(1e6),
    experts: Some(ExpertKeys::MIXTRAL),
    ..BARE
};
pub const QWEN2_MOE: Family = Family {
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
pub const QWEN3_MOE: Family = Family {
    types: &["qwen3_moe"],
    architectures: &["Qwen3MoeForCausalLM"],
    head_dim: HeadDim::Even,
    kv_heads: 4,
    window: Window { default: 4_096, switch: "use_sliding_window", ..Window::ALL },
    experts: Some(ExpertKeys::QWEN),
    ..QWEN3
};
pub const QWEN3_VL_MOE: Family = Family {
    types: &["qwen3_vl_moe", "qwen3_vl_moe_text"],
    architectures: &["Qwen3VLMoeForConditionalGeneration"],
    window: Window::NONE,
    theta: Some(500_000.0),
    // Its class has no such key: the weights of the chosen always sum to one.
    experts: Some(ExpertKeys { normalised: Flag::Yes, ..ExpertKeys::QWEN }),
    ..QWEN3_MOE
};
pub const OLMOE: Family = Family {
    types: &["olmoe"],
    architectures: &["OlmoeForCausalLM"],
    norm: RMS_5,
    qk_norm: (Flag::Yes, QkNorm::Whole),
    ffn_bias: Flag::No,
    experts: Some(ExpertKeys { width: &["intermediate_size"], dense: Dense::No, ..ExpertKeys::QWEN }),
    ..LLAMA
};
pub const GRANITE_MOE: Family = Family {
    types: &["granitemoe"],
    architectures: &["GraniteMoeForCausalLM"],
    scales: GRANITE_SCALES,
    ffn_bias: Flag::No,
    experts: Some(ExpertKeys::MIXTRAL),
    ..LLAMA
};
pub const GLM4_MOE: Family = Family {
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
pub const MINIMAX_M2: Family = Family {
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
pub const DEEPSEEK: Family = Family {
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
pub const DEEPSEEK_V32: Family = Family {
    types: &["deepseek_v32", "glm_moe_dsa"],
    architectures: &["DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"],
    ..DEEPSEEK
};
pub const GPT_OSS: Family = Family {
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
pub const LLAMA4: Family = Family {
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
