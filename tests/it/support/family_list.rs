//! The families of `family_models`: what each is, and how its files name things.

use crate::family_models::{EPSILON, FFN, Family, HIDDEN, LAYERS, NARROW, Norms, VOCABULARY};
use radialsim::reference::{Activation, Heads};
use serde_json::{Value, json};

pub fn llama_names(part: &str) -> String {
    match part {
        "norm1" => "input_layernorm".into(),
        "norm2" => "post_attention_layernorm".into(),
        "q" | "k" | "v" | "o" | "qkv" => format!("self_attn.{part}_proj"),
        "q_norm" | "k_norm" => format!("self_attn.{part}"),
        part => format!("mlp.{part}_proj"),
    }
}

fn around_names(part: &str) -> String {
    match part {
        "after1" => "post_attention_layernorm".into(),
        "norm2" => "pre_feedforward_layernorm".into(),
        "after2" => "post_feedforward_layernorm".into(),
        part => llama_names(part),
    }
}

fn mixtral_names(part: &str) -> String {
    match part.split_once('/') {
        Some((expert, part)) => {
            let matrix =
                ["gate", "down", "up"].iter().position(|known| *known == part).expect("a matrix") + 1;
            format!("block_sparse_moe.experts.{expert}.w{matrix}")
        }
        None if part == "router" => "block_sparse_moe.gate".into(),
        None => llama_names(part),
    }
}

fn qwen_names(part: &str) -> String {
    match part.split_once('/') {
        Some((expert, part)) => format!("mlp.experts.{expert}.{part}_proj"),
        None if part == "router" => "mlp.gate".into(),
        None => llama_names(part),
    }
}

fn neox_names(part: &str) -> String {
    match part {
        "qkv" => "attention.query_key_value".into(),
        "o" => "attention.dense".into(),
        "up" => "mlp.dense_h_to_4h".into(),
        "down" => "mlp.dense_4h_to_h".into(),
        part => llama_names(part),
    }
}

fn falcon_names(part: &str) -> String {
    match part {
        "qkv" => "self_attention.query_key_value".into(),
        "o" => "self_attention.dense".into(),
        part => neox_names(part),
    }
}

fn gpt2_names(part: &str) -> String {
    match part {
        "norm1" => "ln_1".into(),
        "norm2" => "ln_2".into(),
        "qkv" => "attn.c_attn".into(),
        "o" => "attn.c_proj".into(),
        "up" => "mlp.c_fc".into(),
        _ => "mlp.c_proj".into(),
    }
}

fn opt_names(part: &str) -> String {
    match part {
        "norm1" => "self_attn_layer_norm".into(),
        "norm2" => "final_layer_norm".into(),
        "o" => "self_attn.out_proj".into(),
        "up" => "fc1".into(),
        "down" => "fc2".into(),
        part => llama_names(part),
    }
}

/// All families.
pub fn families() -> Vec<Family> {
    let silu = Activation::Silu;
    let common = json!({
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY,
        "max_position_embeddings": 64, "rms_norm_eps": EPSILON, "hidden_act": "silu", "torch_dtype": "float32",
    });
    let config = |architecture: &str, kind: &str, heads: Heads, more: Value| {
        let mut all = common.as_object().expect("an object").clone();
        all.insert("architectures".into(), json!([architecture]));
        all.insert("model_type".into(), json!(kind));
        all.insert("num_attention_heads".into(), json!(heads.heads));
        all.insert("num_key_value_heads".into(), json!(heads.kv_heads));
        all.extend(more.as_object().expect("an object").clone());
        // What is no key of a family is refused.
        for (key, other) in [("rms_norm_eps", "layer_norm_eps"), ("rms_norm_eps", "layer_norm_epsilon")] {
            if all.contains_key(other) {
                all.remove(key);
            }
        }
        for (other, key) in [
            ("activation", "hidden_act"),
            ("hidden_activation", "hidden_act"),
            ("ffn_hidden_size", "intermediate_size"),
        ] {
            if all.contains_key(other) {
                all.remove(key);
            }
        }
        Value::Object(all)
    };
    let llama_outside = ["model.embed_tokens", "model.norm", "lm_head", ""];
    let heads = Heads { heads: 5, kv_heads: 1, head_dim: 8 };
    let base = Family {
        name: "mistral",
        heads,
        norms: Norms::Before,
        layer_norm: false,
        plus_one: false,
        qk: None,
        rope: Some((8, 700.0)),
        local: None,
        still: None,
        window: None,
        bias: false,
        gated: Some(silu),
        plain: silu,
        positions: 0,
        tied: false,
        projected: false,
        embedding: 1.0,
        residual: 1.0,
        score: 1.0 / 8f64.sqrt(),
        cap: None,
        logits: 1.0,
        logit_cap: None,
        experts: None,
        config: Value::Null,
        called: llama_names,
        outside: llama_outside,
        prefix: "model.layers",
    };
    let six = Heads { heads: 6, kv_heads: 3, head_dim: 12 };
    let mha = Heads { heads: 5, kv_heads: 5, head_dim: 8 };
    let theta = json!({ "rope_theta": 700.0, "tie_word_embeddings": false });
    let with = |more: Value| {
        let mut all = theta.as_object().expect("an object").clone();
        all.extend(more.as_object().expect("an object").clone());
        Value::Object(all)
    };
    let half = ["sliding_attention", "full_attention", "sliding_attention"];
    vec![
        Family {
            window: None,
            config: config("MistralForCausalLM", "mistral", heads, with(json!({ "sliding_window": null }))),
            ..base.clone()
        },
        Family {
            name: "qwen2 with windows",
            // Every second layer sees all.
            window: Some(4),
            config: config(
                "Qwen2ForCausalLM",
                "qwen2",
                heads,
                with(json!({
                    "use_sliding_window": true, "sliding_window": 4, "layer_types": half, "max_window_layers": 0,
                })),
            ),
            bias: true,
            ..base.clone()
        },
        Family {
            name: "qwen3",
            heads: six,
            qk: Some(false),
            rope: Some((12, 700.0)),
            score: 1.0 / 12f64.sqrt(),
            config: config("Qwen3ForCausalLM", "qwen3", six, with(json!({ "head_dim": 12 }))),
            ..base.clone()
        },
        Family {
            name: "phi3",
            rope: Some((4, 700.0)),
            config: config(
                "Phi3ForCausalLM",
                "phi3",
                heads,
                with(json!({ "partial_rotary_factor": 0.5, "sliding_window": null })),
            ),
            ..base.clone()
        },
        Family {
            name: "gemma2",
            heads: six,
            norms: Norms::Around,
            plus_one: true,
            rope: Some((12, 10_000.0)),
            window: Some(5),
            gated: Some(Activation::GeluTanh),
            tied: true,
            embedding: (HIDDEN as f64).sqrt(),
            score: 1.0 / 20f64.sqrt(),
            cap: Some(2.0),
            logit_cap: Some(3.0),
            config: config(
                "Gemma2ForCausalLM",
                "gemma2",
                six,
                json!({
                    "head_dim": 12, "sliding_window": 5, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 2.0,
                    "final_logit_softcapping": 3.0, "layer_types": half, "hidden_activation": "gelu_pytorch_tanh",
                    "rope_theta": 10000.0, "tie_word_embeddings": true,
                }),
            ),
            called: around_names,
            ..base.clone()
        },
        Family {
            name: "gemma3",
            heads: six,
            norms: Norms::Around,
            plus_one: true,
            qk: Some(false),
            rope: Some((12, 1_000_000.0)),
            local: Some(300.0),
            window: Some(3),
            gated: Some(Activation::GeluTanh),
            tied: true,
            embedding: (HIDDEN as f64).sqrt(),
            score: 1.0 / 30f64.sqrt(),
            config: config(
                "Gemma3ForCausalLM",
                "gemma3_text",
                six,
                json!({
                    "head_dim": 12, "sliding_window": 3, "query_pre_attn_scalar": 30, "layer_types": half,
                    "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true, "rope_theta": 1000000.0,
                    "rope_local_base_freq": 300.0,
                }),
            ),
            called: around_names,
            ..base.clone()
        },
        Family {
            name: "olmo2",
            norms: Norms::AfterBranch,
            qk: Some(true),
            config: config("Olmo2ForCausalLM", "olmo2", heads, with(json!({ "attention_bias": false }))),
            called: around_names,
            ..base.clone()
        },
        Family {
            name: "smollm3",
            still: Some(1),
            tied: true,
            config: config(
                "SmolLM3ForCausalLM",
                "smollm3",
                heads,
                with(json!({
                    "no_rope_layers": [1, 0, 1], "tie_word_embeddings": true,
                })),
            ),
            ..base.clone()
        },
        Family {
            name: "granite",
            embedding: 3.0,
            residual: 0.3,
            score: 0.2,
            logits: 1.0 / 5.0,
            config: config(
                "GraniteForCausalLM",
                "granite",
                heads,
                with(json!({
                    "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 5.0,
                })),
            ),
            ..base.clone()
        },
        Family {
            name: "gpt-neox",
            heads: mha,
            norms: Norms::ParallelEach,
            layer_norm: true,
            rope: Some((4, 700.0)),
            bias: true,
            gated: None,
            plain: Activation::GeluErf,
            config: config(
                "GPTNeoXForCausalLM",
                "gpt_neox",
                mha,
                json!({
                    "rotary_pct": 0.5, "rotary_emb_base": 700.0, "use_parallel_residual": true, "hidden_act": "gelu",
                    "layer_norm_eps": EPSILON, "tie_word_embeddings": false,
                }),
            ),
            called: neox_names,
            outside: ["gpt_neox.embed_in", "gpt_neox.final_layer_norm", "embed_out", ""],
            prefix: "gpt_neox.layers",
            ..base.clone()
        },
        Family {
            name: "falcon",
            norms: Norms::Parallel,
            layer_norm: true,
            gated: None,
            plain: Activation::GeluErf,
            tied: true,
            rope: Some((8, 10_000.0)),
            config: config(
                "FalconForCausalLM",
                "falcon",
                heads,
                json!({
                    "multi_query": true, "parallel_attn": true, "new_decoder_architecture": false, "bias": false, "alibi": false,
                    "layer_norm_epsilon": EPSILON, "ffn_hidden_size": FFN, "activation": "gelu", "rope_theta": 10000.0,
                    "tie_word_embeddings": true,
                }),
            ),
            called: falcon_names,
            outside: ["transformer.word_embeddings", "transformer.ln_f", "lm_head", ""],
            prefix: "transformer.h",
            ..base.clone()
        },
        Family {
            name: "gpt2",
            heads: mha,
            layer_norm: true,
            rope: None,
            bias: true,
            gated: None,
            plain: Activation::GeluTanh,
            positions: 64,
            tied: true,
            config: json!({
                "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 5,
                "n_positions": 64, "n_inner": FFN, "vocab_size": VOCABULARY, "activation_function": "gelu_new",
                "layer_norm_epsilon": EPSILON, "tie_word_embeddings": true, "torch_dtype": "float32",
            }),
            called: gpt2_names,
            outside: ["transformer.wte", "transformer.ln_f", "lm_head", "transformer.wpe"],
            prefix: "transformer.h",
            ..base.clone()
        },
        Family {
            name: "opt-350m",
            heads: mha,
            norms: Norms::AfterSum,
            layer_norm: true,
            rope: None,
            bias: true,
            gated: None,
            plain: Activation::Relu,
            positions: 66,
            tied: true,
            projected: true,
            config: json!({
                "architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": HIDDEN, "ffn_dim": FFN,
                "num_hidden_layers": LAYERS, "num_attention_heads": 5, "vocab_size": VOCABULARY, "max_position_embeddings": 64,
                "word_embed_proj_dim": NARROW, "activation_function": "relu", "do_layer_norm_before": false,
                "torch_dtype": "float32",
            }),
            called: opt_names,
            outside: ["model.decoder.embed_tokens", "", "lm_head", "model.decoder.embed_positions"],
            prefix: "model.decoder.layers",
            ..base.clone()
        },
        Family {
            name: "mixtral",
            experts: Some((5, 2, true)),
            config: config(
                "MixtralForCausalLM",
                "mixtral",
                heads,
                with(json!({
                    "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": null,
                })),
            ),
            called: mixtral_names,
            ..base.clone()
        },
        Family {
            name: "qwen3-moe",
            heads: six,
            qk: Some(false),
            rope: Some((12, 700.0)),
            score: 1.0 / 12f64.sqrt(),
            experts: Some((6, 3, false)),
            // Layer 1 has no experts.
            still: None,
            config: config(
                "Qwen3MoeForCausalLM",
                "qwen3_moe",
                six,
                with(json!({
                    "head_dim": 12, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": FFN, "norm_topk_prob": false,
                    "mlp_only_layers": [1], "decoder_sparse_step": 1,
                })),
            ),
            called: qwen_names,
            ..base
        },
    ]
}
