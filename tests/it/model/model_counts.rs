//! Configurations as people have them: parameters and bytes against what Hugging Face transformers builds, formats against what
//! the files of quantised models say.

use crate::data;
use crate::model::models::{like_llama, read, with};
use radialsim::model::{Model, QkNorm, Scaling};
use radialsim::units::Dtype;
use serde_json::{Value, json};

/// Real configurations with the parameters that transformers counts on its meta device: exact, or refused by name.
#[test]
fn real_configurations_have_the_counts_of_transformers() {
    let Some(folder) = data("../cases/configs") else { return };
    let mut table = csv::Reader::from_path(folder.join("counts.csv")).expect("a table");
    let (mut right, mut refused) = (0, Vec::new());
    for row in table.records() {
        let row = row.expect("a row");
        match Model::from_config(folder.join(&row[0])) {
            Ok(model) => {
                if let Ok(count) = row[1].parse::<u64>() {
                    assert_eq!(model.total_params(), count, "{}", &row[0]);
                    right += 1;
                }
            }
            Err(error) => {
                assert_eq!(error.exit_code(), 2);
                let says = error.to_string();
                assert!(says.contains("model_type: found"), "{says}");
                refused.push(row[0].to_owned());
            }
        }
    }
    assert!(right >= 30, "{right} right, refused: {refused:?}");
}

fn model(config: &Value) -> Model {
    read("m", config.to_string()).expect("a good config")
}

/// The same shapes in every format that configurations name: bits a weight, worked by hand.
#[test]
fn quantised_weights_are_counted_with_their_scales() {
    let llama = like_llama("LlamaForCausalLM", [2, 256, 4, 4, 512, 1000], false);
    let matrices = 2 * (4 * 256 * 256 + 3 * 256 * 512);
    let rest = 2 * (2 * 1000 * 256 + 5 * 256);
    for (quantised, format, bits) in [
        (json!({"quant_method": "fp8"}), Dtype::Fp8, 8.0),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
            Dtype::Fp8Block,
            8.0 + 32.0 / 16_384.0,
        ),
        (json!({"quant_method": "gptq", "bits": 4, "group_size": 128}), Dtype::Int4G128, 4.0 + 20.0 / 128.0),
        (json!({"quant_method": "awq", "bits": 4, "group_size": 64}), Dtype::Int4G64, 4.0 + 20.0 / 64.0),
        (json!({"quant_method": "gptq", "bits": 4, "group_size": 32}), Dtype::Int4G32, 4.0 + 20.0 / 32.0),
        (json!({"quant_method": "gptq", "bits": 8, "group_size": -1}), Dtype::Int8Channel, 8.0),
        (json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}), Dtype::Fp4, 4.5),
        (json!({"quant_method": "mxfp4"}), Dtype::Mxfp4, 4.25),
        (json!({"load_in_4bit": true, "quant_method": "bitsandbytes"}), Dtype::Nf4, 4.5),
        (
            json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights":
                {"num_bits": 4, "type": "float", "group_size": 16}}}}),
            Dtype::Fp4,
            4.5,
        ),
    ] {
        let model = model(&with(&llama, "quantization_config", quantised.clone()));
        assert_eq!(model.weights, format, "{quantised}");
        let expected = matrices as f64 * bits / 8.0 + rest as f64;
        assert!(
            (model.weight_bytes(2) as f64 - expected).abs() < 8.0,
            "{quantised}: {}",
            model.weight_bytes(2)
        );
        assert_eq!(model.kv, Dtype::Bf16);
    }
}

/// Parts that a list leaves out keep 16 bits; the cache is narrowed where the file says so.
#[test]
fn parts_that_are_left_out_keep_their_format() {
    let llama = like_llama("LlamaForCausalLM", [2, 256, 4, 4, 512, 1000], false);
    let quantised = json!({
        "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head", "model.layers.1*"],
    });
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, value: &Value| {
        std::fs::write(folder.path().join(name), value.to_string()).expect("a file")
    };
    write("config.json", &llama);
    write("hf_quant_config.json", &json!({"producer": {"name": "modelopt"}, "quantization": quantised}));
    let model = Model::from_config(folder.path()).expect("a good folder");
    assert_eq!((model.weights, model.kv), (Dtype::Fp4, Dtype::Fp8));
    assert_eq!(model.kv_entry_bytes(), 2 * 256);
    let matrices = 4 * 256 * 256 + 3 * 256 * 512;
    let layers = [model.kind(0), model.kind(1)].map(|kind| model.layer_weight_bytes(kind) - 2 * 2 * 256);
    assert_eq!(layers, [matrices * 9 / 16, matrices * 2]);
}

/// A model is found by `model_type` where `architectures` is absent, null or names a part of it.
#[test]
fn a_model_type_alone_is_enough() {
    let llama =
        with(&like_llama("LlamaForCausalLM", [2, 256, 4, 4, 512, 1000], false), "model_type", json!("llama"));
    let count = model(&llama).total_params();
    for value in [Value::Null, json!(["LlamaModel"]), json!([])] {
        assert_eq!(model(&with(&llama, "architectures", value)).total_params(), count);
    }
}

/// `attention_bias` and `mlp_bias` each on its own: 24 layers 5120 wide with four projections and their biases.
#[test]
fn biases_of_attention_and_feed_forward_part_are_apart() {
    let base = like_llama("LlamaForCausalLM", [24, 5120, 40, 40, 13_824, 1000], false);
    let count =
        |key: &str| model(&with(&base, key, json!(true))).total_params() - model(&base).total_params();
    assert_eq!(count("attention_bias"), 24 * 4 * 5120);
    assert_eq!(count("mlp_bias"), 24 * (2 * 13_824 + 5120));
}

/// Names that mean another arithmetic in old files and new ones.
#[test]
fn rotations_are_read_under_old_names_and_new() {
    let base = like_llama("LlamaForCausalLM", [2, 256, 4, 4, 512, 1000], false);
    let rope = |key: &str, value: Value| model(&with(&base, key, value)).rope.expect("a rotation");
    let linear = Scaling::Linear { factor: 4.0 };
    assert_eq!(rope("rope_scaling", json!({"type": "linear", "factor": 4.0})).scaling, linear);
    assert_eq!(rope("rope_scaling", json!({"rope_type": "linear", "factor": 4.0})).scaling, linear);
    let new = rope("rope_parameters", json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}));
    assert_eq!((new.scaling, new.theta), (linear, 5e5));
    assert_eq!(rope("partial_rotary_factor", json!(0.5)).width, 32);
    assert_eq!(
        rope("rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5})).width,
        32
    );
    // What is longer than it was trained for is a context too.
    assert_eq!(
        model(&with(&base, "rope_scaling", json!({"type": "linear", "factor": 4.0}))).context,
        4 * 4096
    );
}

/// Frequencies against values of `modeling_rope_utils.py` (transformers 5.19), width 8, theta 10,000.
#[test]
fn scaled_frequencies_are_those_of_transformers() {
    let base = like_llama("LlamaForCausalLM", [2, 32, 4, 4, 64, 1000], false);
    let rope = |scaling: Value| model(&with(&base, "rope_scaling", scaling)).rope.expect("a rotation");
    let near = |found: Vec<f64>, expected: [f64; 4]| {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-5, "{found} for {expected}");
        }
    };
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 64});
    near(rope(llama3).frequencies(1), [1.0, 0.013_042_256, 0.001_25, 0.000_125]);
    let yarn = rope(json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}));
    near(yarn.frequencies(1), [1.0, 0.0625, 0.0025, 0.00025]);
    assert!((yarn.amplitude() - 1.138_629_436).abs() < 1e-8, "0.1 ln 4 + 1");
    let dynamic = rope(json!({"rope_type": "dynamic", "factor": 4.0}));
    near(dynamic.frequencies(4096), [1.0, 0.1, 0.01, 0.001]);
    near(dynamic.frequencies(8192), [1.0, 0.058_480_352, 0.003_419_952, 0.0002]);
}

#[test]
fn norms_of_queries_and_keys_are_told_apart() {
    let qwen = like_llama("Qwen3ForCausalLM", [2, 256, 4, 2, 512, 1000], false);
    let olmo = like_llama("Olmo2ForCausalLM", [2, 256, 4, 2, 512, 1000], false);
    let (qwen, olmo) = (model(&qwen), model(&olmo));
    assert_eq!((qwen.qk_norm, olmo.qk_norm), (QkNorm::Head, QkNorm::Whole));
    assert_eq!(olmo.norm_params(), 2 * 256 + 256 + 128);
    assert_eq!(qwen.norm_params(), 2 * 256 + 2 * 128);
}
