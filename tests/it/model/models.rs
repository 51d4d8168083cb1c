//! Shapes or sizes of a model are wrong, or a bad `config.json` is believed.

use radialsim::model::{Activation, Input, Model, QkNorm, builtin_names};
use radialsim::units::Dtype;
use serde_json::{Value, json};

/// Reads `text` as `NAME/config.json`.
pub fn read(name: &str, text: impl AsRef<[u8]>) -> radialsim::error::Result<Model> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join(name);
    std::fs::create_dir(&home).expect("a folder");
    std::fs::write(home.join("config.json"), text).expect("a file");
    Model::from_config(&home)
}

/// Reads a config that is right.
fn good(name: &str, config: &Value) -> Model {
    read(name, config.to_string()).expect("a good config")
}

/// `base` with `key` set; `null` removes it.
pub fn with(base: &Value, key: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let keys = changed.as_object_mut().expect("an object");
    if value.is_null() {
        keys.remove(key)
    } else {
        keys.insert(key.into(), value)
    };
    changed
}

pub fn opt_350m() -> Value {
    json!({
        "activation_function": "relu", "architectures": ["OPTForCausalLM"], "do_layer_norm_before": false,
        "ffn_dim": 4096, "hidden_size": 1024, "max_position_embeddings": 2048, "model_type": "opt",
        "num_attention_heads": 16, "num_hidden_layers": 24, "torch_dtype": "float16", "vocab_size": 50272,
        "word_embed_proj_dim": 512
    })
}

pub fn llama_8b() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "rope_scaling": {
            "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"
        },
        "vocab_size": 128256
    })
}

pub fn vit_huge() -> Value {
    json!({
        "architectures": ["ViTModel"], "hidden_act": "gelu", "hidden_size": 1280, "image_size": 224,
        "intermediate_size": 5120, "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 32,
        "patch_size": 14, "qkv_bias": true
    })
}

/// A Llama-like config from the numbers that differ.
pub fn like_llama(architecture: &str, dims: [u64; 6], tied: bool) -> Value {
    let [layers, hidden, heads, kv_heads, ffn, vocabulary] = dims;
    json!({
        "architectures": [architecture], "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": ffn,
        "max_position_embeddings": 4096, "num_attention_heads": heads, "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads, "tie_word_embeddings": tied, "dtype": "bfloat16", "vocab_size": vocabulary
    })
}

/// Counts of the published checkpoints (model cards, `safetensors` totals, `model.parameters()` of transformers).
#[test]
fn builtin_models_have_the_published_parameter_counts() {
    let published = [
        ("opt-125m", 125_239_296),
        ("opt-350m", 331_196_416),
        ("opt-1.3b", 1_315_758_080),
        ("opt-2.7b", 2_651_596_800),
        ("opt-6.7b", 6_658_473_984),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("qwen2.5-32b", 32_763_876_352),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-14b", 14_768_307_200),
        ("qwen3-32b", 32_762_123_264),
        ("gemma-3-1b", 999_885_952),
        ("gemma-3-4b", 3_880_263_168),
        ("gemma-3-12b", 11_766_034_176),
        ("gemma-3-27b", 27_009_346_304),
        ("mistral-7b", 7_248_023_552),
        ("mistral-nemo-12b", 12_247_782_400),
        ("mistral-small-24b", 23_572_403_200),
        ("phi-4", 14_659_507_200),
        ("smollm2-135m", 134_515_008),
        ("vit-huge", 630_764_800),
    ];
    for (name, count) in published {
        assert_eq!(Model::builtin(name).expect(name).total_params(), count, "{name}");
    }
}

/// The other OPT sizes, from first principles: 12 h^2 + 13 h a layer, tables of 50,272 and 2,050 rows, one norm.
#[test]
fn large_opt_models_follow_the_closed_formula() {
    for (name, layers, h) in [("opt-13b", 40, 5_120), ("opt-30b", 48, 7_168), ("opt-66b", 64, 9_216u64)] {
        let expected = layers * (12 * h * h + 13 * h) + (50_272 + 2_050) * h + 2 * h;
        assert_eq!(Model::builtin(name).expect(name).total_params(), expected, "{name}");
    }
}

#[test]
fn every_builtin_passes_its_own_check_and_describes_itself() {
    assert_eq!(builtin_names().count(), 34);
    for name in builtin_names() {
        let model = Model::resolve(name).expect(name);
        model.check().expect(name);
        assert_eq!(model.name, name);
        assert!(model.describe().contains(name));
        let parts = model.attention_params() + model.ffn_params(model.kind(0)) + model.norm_params();
        assert_eq!(parts, model.layer_params(model.kind(0)));
    }
}

#[test]
fn configs_give_the_shapes_of_the_builtin_models() {
    let opt_125m = json!({
        "architectures": ["OPTForCausalLM"], "_remove_final_layer_norm": false, "activation_function": "relu",
        "do_layer_norm_before": true, "ffn_dim": 3072, "hidden_size": 768, "max_position_embeddings": 2048,
        "num_attention_heads": 12, "num_hidden_layers": 12, "torch_dtype": "float16", "vocab_size": 50272,
        "word_embed_proj_dim": 768
    });
    let llama_2 = like_llama("LlamaForCausalLM", [32, 4096, 32, 32, 11008, 32000], false);
    let llama_2 = with(&llama_2, "dtype", Value::Null);
    let llama_2 = with(&llama_2, "torch_dtype", "float16".into());
    // Files of 2023 lack the key; then there are as many as query heads.
    let llama_2 = with(&llama_2, "num_key_value_heads", Value::Null);
    let llama_2 = with(&llama_2, "rms_norm_eps", json!(1e-5));
    let smollm2 = like_llama("LlamaForCausalLM", [30, 576, 9, 3, 1536, 49152], true);
    let smollm2 = with(&with(&smollm2, "rms_norm_eps", json!(1e-5)), "rope_theta", 100_000.into());
    let smollm2 = with(&smollm2, "max_position_embeddings", 8192.into());
    for (name, config) in [
        ("opt-125m", opt_125m),
        ("opt-350m", opt_350m()),
        ("llama-2-7b", llama_2),
        ("llama-3.1-8b", llama_8b()),
        ("smollm2-135m", smollm2),
        ("vit-huge", vit_huge()),
    ] {
        let mut builtin = Model::builtin(name).expect(name);
        builtin.source = "config.json".into();
        assert_eq!(good(name, &config), builtin);
    }
}

/// Families without a builtin, against the counts of their published checkpoints.
#[test]
fn other_families_have_the_published_parameter_counts() {
    let qwen2 = like_llama("Qwen2ForCausalLM", [24, 896, 14, 2, 4864, 151_936], true);
    let model = good("qwen2.5-0.5b", &qwen2);
    assert!(model.biases.qkv && !model.biases.output && !model.biases.ffn);
    assert_eq!(model.total_params(), 494_032_768);

    let qwen3 = like_llama("Qwen3ForCausalLM", [28, 1024, 16, 8, 3072, 151_936], true);
    let model = good("qwen3-0.6b", &with(&qwen3, "head_dim", 128.into()));
    assert_eq!((model.q_dim(), model.kv_dim(), model.qk_norm), (2048, 1024, QkNorm::Head));
    assert_eq!(model.total_params(), 596_049_920);

    let mistral = like_llama("MistralForCausalLM", [32, 4096, 32, 8, 14336, 32768], false);
    assert_eq!(good("mistral-7b-v0.3", &mistral).total_params(), 7_248_023_552);

    let phi3 = like_llama("Phi3ForCausalLM", [32, 3072, 32, 32, 8192, 32064], false);
    assert_eq!(good("phi-3-mini", &phi3).total_params(), 3_821_079_552);

    let gemma = like_llama("GemmaForCausalLM", [28, 3072, 16, 16, 24576, 256_000], true);
    let gemma = with(&with(&gemma, "head_dim", 256.into()), "hidden_activation", "gelu_pytorch_tanh".into());
    let model = good("gemma-7b", &gemma);
    assert_eq!(model.activation, Activation::Gelu);
    assert_eq!(model.total_params(), 8_537_680_896);

    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_embd": 768, "n_head": 12,
        "n_layer": 12, "n_positions": 1024, "n_inner": null, "vocab_size": 50257
    });
    let model = good("gpt2", &gpt2);
    assert_eq!(model.weights, Dtype::F32, "Hugging Face reads an absent dtype as 32-bit floats");
    assert_eq!(model.total_params(), 124_439_808);

    let classes: serde_json::Map<_, _> = (0..1000).map(|i| (i.to_string(), "class".into())).collect();
    let classifier = with(&vit_huge(), "architectures", json!(["ViTForImageClassification"]));
    let model = good("vit-huge-1k", &with(&classifier, "id2label", classes.into()));
    assert_eq!(model.input, Input::Patches { values: 588, count: 257 });
    assert_eq!(model.total_params(), 632_045_800);
    assert_eq!(good("vit", &classifier).outputs, 2, "Hugging Face's default");
}

/// Llama 3.1 8B in bytes, worked by hand.
#[test]
fn bytes_are_those_worked_by_hand() {
    let model = Model::builtin("llama-3.1-8b").expect("a builtin");
    let attention = 2 * 4096 * 4096 + 2 * 4096 * 1024;
    let ffn = 3 * 4096 * 14336;
    let table = 128_256 * 4096;
    assert_eq!(model.attention_weight_bytes(model.kind(0)), 2 * attention);
    assert_eq!(model.ffn_weight_bytes(model.kind(0)), 2 * ffn);
    assert_eq!(model.norm_weight_bytes(), 2 * 2 * 4096);
    assert_eq!(model.kv_entry_bytes(), 2 * 2 * 1024);
    assert_eq!(model.embedding_weight_bytes(), 2 * table);
    assert_eq!(model.head_weight_bytes(), 2 * table);
    assert_eq!(model.weight_bytes(32), 2 * model.total_params());
    assert_eq!(model.weight_bytes(0), 2 * (2 * table + 4096));

    // 4.5 bits a weight in NVFP4; embedding, head and norms stay as wide as the activations; 8.5 bits a KV value.
    let model = model.with_formats(Dtype::Fp4, Dtype::Bf16, Dtype::Int8);
    assert_eq!(model.layer_weight_bytes(model.kind(0)), (attention + ffn) * 9 / 16 + 4 * 4096);
    assert_eq!(model.head_weight_bytes(), 2 * table);
    assert_eq!(model.kv_entry_bytes(), 2 * (1024 + 2 * 1024 / 32));
}

#[test]
fn biases_keep_the_format_of_the_activations() {
    let model = Model::builtin("opt-125m").expect("a builtin");
    let model = model.with_formats(Dtype::Int4, Dtype::F16, Dtype::F16);
    assert_eq!(model.attention_weight_bytes(model.kind(0)), 4 * 768 * 768 * 5 / 8 + 4 * 768 * 2);
    assert_eq!(model.ffn_weight_bytes(model.kind(0)), 2 * 768 * 3072 * 5 / 8 + (3072 + 768) * 2);
}

#[test]
fn a_tied_head_is_read_but_not_stored_twice() {
    let smollm2 = Model::builtin("smollm2-135m").expect("a builtin");
    assert_eq!(smollm2.head_params(), 0);
    assert_eq!(smollm2.head_weight_bytes(), 2 * 49_152 * 576);
    assert_eq!(smollm2.weight_bytes(30), 2 * smollm2.total_params());
    let opt_350m = Model::builtin("opt-350m").expect("a builtin");
    assert_eq!(opt_350m.head_params(), 512 * 1024, "the projection out of the stream is the head's own");
    assert_eq!(opt_350m.head_weight_bytes(), 2 * (50_272 * 512 + 512 * 1024));
    assert_eq!(opt_350m.weight_bytes(24), 2 * opt_350m.total_params());
}

#[test]
#[should_panic(expected = "33 resident layers of 32")]
fn more_layers_than_there_are_cannot_be_resident() {
    Model::builtin("llama-2-7b").expect("a builtin").weight_bytes(33);
}

/// A change of one field of a good model.
type Damage = fn(&mut Model);

#[test]
fn check_names_the_field_that_cannot_be() {
    let cases: [(Damage, &str); 9] = [
        (|m| m.layers = 0, "layers: found 0, expected a whole number from 1 to 65535"),
        (|m| m.heads = 0, "heads: found 0, expected a whole number from 1 to 65535"),
        // Kernels count heads in 16 bits, where these would be none.
        (|m| m.heads = 65536, "heads: found 65536, expected a whole number from 1 to 65535"),
        (|m| m.kv_heads = 3, "kv_heads: found 3, expected a divisor of 32 heads"),
        (
            |m| m.head_dim = 65534,
            "head_dim: found 32 heads of 65534, expected at most 1048576 for all heads together",
        ),
        (
            |m| m.head_dim = 3,
            "head_dim: found 3, expected an even width, as rotation by position takes pairs",
        ),
        (|m| m.ffn = u64::MAX, "ffn: found 18446744073709551615, expected a whole number from 1 to 4194304"),
        (
            |m| (m.tied, m.outputs) = (true, 5),
            "outputs: found 5, expected the vocabulary of 128256, as the head is the embedding",
        ),
        (
            |m| (m.tied, m.input) = (true, Input::Patches { values: 3, count: 2 }),
            "tied: found true, expected false, as patches have no table to tie the head to",
        ),
    ];
    for (damage, expected) in cases {
        let mut model = Model::builtin("llama-3.1-8b").expect("a builtin");
        damage(&mut model);
        assert_eq!(model.check().expect_err(expected).to_string(), expected);
    }
}
