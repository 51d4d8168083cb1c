//! Families whose layers have one feed-forward part.

use super::*;

pub const MISTRAL: Family = Family {
    types: &["mistral", "ministral"],
    architectures: &["MistralForCausalLM", "MinistralForCausalLM"],
    kv_heads: 8,
    window: Window { default: 4_096, ..Window::ALL },
    ..BARE
};
pub const QWEN2: Family = Family {
    types: &["qwen2"],
    architectures: &["Qwen2ForCausalLM"],
    qkv_bias: Flag::Yes,
    window: Window::QWEN,
    ..BARE
};
pub const QWEN2_VL: Family = Family {
    types: &["qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"],
    architectures: &["Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"],
    ..QWEN2
};
pub const QWEN3: Family = Family {
    types: &["qwen3"],
    architectures: &["Qwen3ForCausalLM"],
    head_dim: HeadDim::Of(128),
    qkv_bias: Flag::Key("attention_bias", false),
    output_bias: Flag::Key("attention_bias", false),
    qk_norm: (Flag::Key("use_qk_norm", true), QkNorm::Head),
    ..QWEN2
};
pub const QWEN3_VL: Family = Family {
    types: &["qwen3_vl", "qwen3_vl_text"],
    architectures: &["Qwen3VLForConditionalGeneration"],
    window: Window::NONE,
    theta: Some(500_000.0),
    ..QWEN3
};
pub const PHI3: Family = Family {
    types: &["phi3"],
    architectures: &["Phi3ForCausalLM"],
    norm: RMS_5,
    window: Window::ALL,
    ..BARE
};
pub const PHI: Family = Family {
    types: &["phi"],
    architectures: &["PhiForCausalLM"],
    keys: LAYER_EPS,
    gated: false,
    activation: "gelu_new",
    norm: Norm::LAYER,
    placement: NormPlacement::Parallel,
    qkv_bias: Flag::Yes,
    output_bias: Flag::Yes,
    ffn_bias: Flag::Yes,
    head_bias: true,
    partial: 0.5,
    only: &[("qk_layernorm", false)],
    ..LLAMA
};
pub const GEMMA: Family = Family {
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
pub const GEMMA2: Family = Family {
    types: &["gemma2"],
    architectures: &["Gemma2ForCausalLM"],
    kv_heads: 4,
    placement: NormPlacement::Around,
    window: Window { default: 4_096, every: Every::Odd, ..Window::ALL },
    scales: &[
        ("query_pre_attn_scalar", 256.0, Scale::AttentionRoot),
        ("attn_logit_softcapping", 50.0, Scale::AttentionCap),
        ("final_logit_softcapping", 30.0, Scale::LogitCap),
    ],
    ..GEMMA
};
pub const GEMMA3: Family = Family {
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
pub const OLMO2: Family = Family {
    types: &["olmo2"],
    architectures: &["Olmo2ForCausalLM"],
    norm: RMS_5,
    placement: NormPlacement::AfterBranch,
    qk_norm: (Flag::Yes, QkNorm::Whole),
    ffn_bias: Flag::No,
    ..LLAMA
};
pub const OLMO3: Family = Family {
    types: &["olmo3"],
    architectures: &["Olmo3ForCausalLM"],
    window: Window { default: 4_096, every: Every::Pattern("", 4), ..Window::ALL },
    // Scalings are for the layers that see everything; the others turn without.
    rotates: Rotates::PlainInWindows,
    ..OLMO2
};
pub const SMOLLM3: Family = Family {
    types: &["smollm3"],
    architectures: &["SmolLM3ForCausalLM"],
    kv_heads: 4,
    theta: Some(2_000_000.0),
    window: Window { switch: "use_sliding_window", every: Every::Unrotated, ..Window::ALL },
    rotates: Rotates::Listed,
    tied: true,
    ..LLAMA
};
pub const GRANITE_SCALES: &[(&str, f64, Scale)] = &[
    ("embedding_multiplier", 1.0, Scale::Embedding),
    ("residual_multiplier", 1.0, Scale::Residual),
    ("attention_multiplier", 1.0, Scale::Attention),
    ("logits_scaling", 1.0, Scale::LogitsInverse),
];
pub const GRANITE: Family =
    Family { types: &["granite"], architectures: &["GraniteForCausalLM"], scales: GRANITE_SCALES, ..LLAMA };
pub const STABLELM: Family = Family {
    types: &["stablelm"],
    architectures: &["StableLmForCausalLM"],
    keys: LAYER_EPS,
    norm: Norm::LAYER,
    parallel: (Flag::Key("use_parallel_residual", false), NormPlacement::Parallel),
    qkv_bias: Flag::Key("use_qkv_bias", false),
    qk_norm: (Flag::Key("qk_layernorm", false), QkNorm::EachHead),
    partial: 0.25,
    ..BARE
};
pub const STARCODER2: Family = Family {
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
pub const GPT_NEOX: Family = Family {
    types: &["gpt_neox"],
    architectures: &["GPTNeoXForCausalLM"],
    keys: Keys { kv_heads: "", ..LAYER_EPS },
    gated: false,
    activation: "gelu",
    norm: Norm::LAYER,
    parallel: (Flag::Key("use_parallel_residual", true), NormPlacement::ParallelEach),
    qkv_bias: Flag::Key("attention_bias", true),
    output_bias: Flag::Key("attention_bias", true),
    ffn_bias: Flag::Yes,
    partial: 0.25,
    ..LLAMA
};
pub const GPT2: Family = Family {
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
pub const OPT: Family = Family {
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
    own: Some(crate::model::trunk::opt),
    ..GPT2
};
pub const FALCON: Family = Family {
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
    own: Some(crate::model::trunk::falcon),
    ..LLAMA
};
pub const COHERE: Family = Family {
    types: &["cohere"],
    architectures: &["CohereForCausalLM"],
    keys: LAYER_EPS,
    norm: Norm { bias: false, ..Norm::LAYER },
    placement: NormPlacement::Parallel,
    qk_norm: (Flag::Key("use_qk_norm", false), QkNorm::EachHead),
    tied: true,
    ffn_bias: Flag::No,
    scales: &[("logit_scale", 0.0625, Scale::Logits)],
    interleaved: true,
    ..LLAMA
};
pub const COHERE2: Family = Family {
    types: &["cohere2"],
    architectures: &["Cohere2ForCausalLM"],
    window: Window { default: 4_096, every: Every::Pattern("sliding_window_pattern", 4), ..Window::ALL },
    rotates: Rotates::InWindows,
    qk_norm: (Flag::No, QkNorm::None),
    ..COHERE
};
pub const GLM4: Family = Family {
    types: &["glm4"],
    architectures: &["Glm4ForCausalLM"],
    head_dim: HeadDim::Of(128),
    kv_heads: 2,
    placement: NormPlacement::Around,
    qkv_bias: Flag::Key("attention_bias", true),
    output_bias: Flag::No,
    ffn_bias: Flag::No,
    partial: 0.5,
    norm: Norm { epsilon_1e12: 156_250, ..Norm::RMS },
    interleaved: true,
    ..LLAMA
};
pub const EXAONE4: Family = Family {
    types: &["exaone4"],
    architectures: &["Exaone4ForCausalLM"],
    norm: RMS_5,
    placement: NormPlacement::AfterBranch,
    qk_norm: (Flag::Yes, QkNorm::Head),
    window: Window { default: 4_096, every: Every::Pattern("sliding_window_pattern", 4), ..Window::ALL },
    rotates: Rotates::InWindows,
    ..BARE
};
pub const SEED_OSS: Family = Family {
    types: &["seed_oss"],
    architectures: &["SeedOssForCausalLM"],
    head_dim: HeadDim::Of(128),
    kv_heads: 8,
    qkv_bias: Flag::Key("attention_bias", true),
    output_bias: Flag::Key("attention_out_bias", false),
    ..LLAMA
};
pub const NEMOTRON: Family = Family {
    types: &["nemotron"],
    architectures: &["NemotronForCausalLM"],
    keys: Keys { epsilon: "norm_eps", ..HF },
    gated: false,
    activation: "relu2",
    norm: Norm { plus_one: true, ..Norm::LAYER },
    partial: 0.5,
    ..LLAMA
};
pub const MIMO: Family = Family {
    types: &["mimo"],
    architectures: &["MiMoForCausalLM"],
    qkv_bias: Flag::Key("attention_bias", true),
    ..QWEN2
};
pub const ERNIE: Family = Family {
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
