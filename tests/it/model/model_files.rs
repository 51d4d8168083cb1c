//! A bad `config.json` is believed, crashes the reader, or is refused in words that do not help.

use crate::model::models::{like_llama, llama_8b, opt_350m, read, vit_huge, with};
use proptest::prelude::*;
use radialsim::error::{Error, Result};
use radialsim::model::{Biases, Experts, Gating, Input, Model, NormPlacement, QkNorm, Rope};
use radialsim::units::Dtype;
use serde_json::{Value, json};

/// The complaint about a file, after the file's name: its folder is random.
fn complaint_about(text: impl AsRef<[u8]>) -> String {
    let error = read("bad", text).expect_err("a bad config");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    text.split_once("config.json:").expect("the file is named").1.trim_start().to_owned()
}

/// The complaint about `base` with `key` set to `value`; null removes the key.
fn complaint(base: &Value, key: &str, value: Value) -> String {
    complaint_about(with(base, key, value).to_string())
}

#[test]
fn wrong_numbers_are_named_with_their_range() {
    let llama = llama_8b();
    for (key, value, expected) in [
        (
            "num_hidden_layers",
            json!(0),
            "num_hidden_layers: found 0, expected a whole number from 1 to 65535",
        ),
        (
            "num_hidden_layers",
            json!(65536),
            "num_hidden_layers: found 65536, expected a whole number from 1 to 65535",
        ),
        ("hidden_size", json!(-4096), "hidden_size: found -4096, expected a whole number from 1 to 1048576"),
        (
            "hidden_size",
            json!(4096.5),
            "hidden_size: found 4096.5, expected a whole number from 1 to 1048576",
        ),
        (
            "hidden_size",
            json!("4096"),
            "hidden_size: found \"4096\", expected a whole number from 1 to 1048576",
        ),
        ("hidden_size", Value::Null, "hidden_size: found nothing, expected a whole number from 1 to 1048576"),
        (
            "vocab_size",
            json!(u64::MAX),
            "vocab_size: found 18446744073709551615, expected a whole number from 1 to 16777216",
        ),
        (
            "intermediate_size",
            json!(1u64 << 23),
            "intermediate_size: found 8388608, expected a whole number from 1 to 4194304",
        ),
        (
            "num_attention_heads",
            json!(33),
            "num_attention_heads: found 33, expected a divisor of the width 4096",
        ),
        (
            "num_key_value_heads",
            json!(64),
            "num_key_value_heads: found 64, expected a whole number from 1 to 32",
        ),
        (
            "num_key_value_heads",
            json!(5),
            "num_key_value_heads: found 5, expected a divisor of 32 (num_attention_heads)",
        ),
        (
            "head_dim",
            json!(65534),
            "head_dim: found 65534, expected 32 heads to be at most 1048576 wide together",
        ),
        (
            "head_dim",
            json!(127),
            "head_dim: found 127, expected heads of an even width, not 127, as rotation takes pairs",
        ),
    ] {
        assert_eq!(complaint(&llama, key, value), expected);
    }
    assert_eq!(
        complaint(&opt_350m(), "ffn_dim", Value::Null),
        "ffn_dim: found nothing, expected a whole number from 1 to 4194304"
    );
    assert_eq!(
        complaint(&vit_huge(), "patch_size", json!(225)),
        "patch_size: found 225, expected a whole number from 1 to 224"
    );
}

#[test]
fn what_the_model_cannot_express_is_refused() {
    let (llama, vit) = (llama_8b(), vit_huge());
    let qwen3 = like_llama("Qwen3ForCausalLM", [28, 1024, 16, 8, 3072, 151_936], true);
    for (base, key, value, expected) in [
        (
            &llama,
            "quantization_config",
            json!({"quant_method": "aqlm"}),
            "quantization_config.quant_method: found \"aqlm\", expected one of fp8",
        ),
        (
            &llama,
            "torch_dtype",
            json!("int9"),
            "torch_dtype: found \"int9\", expected one of float32, float16",
        ),
        (
            &llama,
            "hidden_act",
            json!("tanh"),
            "hidden_act: found \"tanh\", expected one of silu, swish, gelu",
        ),
        (&llama, "tie_word_embeddings", json!(1), "tie_word_embeddings: found 1, expected true or false"),
        (
            &qwen3,
            "layer_types",
            json!(["sliding_attention"]),
            "layer_types: found [\"sliding_attention\"], expected 28 entries rather than 1",
        ),
        (
            &qwen3,
            "rope_scaling",
            json!({"rope_type": "spiral"}),
            "rope_scaling.rope_type: found \"spiral\", expected one of default, linear, dynamic",
        ),
        (&vit, "qkv_bias", json!("no"), "qkv_bias: found \"no\", expected true or false"),
    ] {
        let says = complaint(base, key, value);
        assert!(says.starts_with(expected), "{says}");
    }
    let unknown = with(&llama, "architectures", json!(["NoSuchForCausalLM"]));
    let says = complaint_about(unknown.to_string());
    assert!(
        says.starts_with("architectures: found [\"NoSuchForCausalLM\"], expected a list with one of"),
        "{says}"
    );
    let says = complaint(&with(&llama, "architectures", Value::Null), "model_type", json!("bert"));
    assert!(says.starts_with("model_type: found \"bert\", expected one of llama, "), "{says}");
}

/// What a key switches on and nobody models is named, whatever the key; what switches nothing on is not.
#[test]
fn keys_that_are_not_known_are_remarked() {
    let remarks = |key: &str, value: Value| {
        read("keys", with(&llama_8b(), key, value).to_string()).expect("a good config").remarks
    };
    for (key, value, remark) in [
        ("attn_logit_softcapping", json!(50.0), "attn_logit_softcapping: 50.0"),
        ("is_causal", json!(false), "is_causal: false"),
        ("clip_qkv", json!(8.0), "clip_qkv: 8.0"),
        ("sliding_window", json!(4096), "sliding_window: 4096"),
        ("pretraining_tp", json!(2), "pretraining_tp: 2"),
        ("rope_scaling", json!({"factor": 8.0}), "rope_scaling.factor: 8.0"),
        (
            "rope_parameters",
            json!({"rope_type": "linear", "factor": 2.0, "bend": 3}),
            "rope_parameters.bend: 3",
        ),
    ] {
        let base = if key == "rope_parameters" {
            with(&llama_8b(), "rope_scaling", Value::Null)
        } else {
            llama_8b()
        };
        let found = read("keys", with(&base, key, value).to_string()).expect("a good config").remarks;
        assert_eq!(found, [remark], "{key}");
    }
    for (key, value) in [
        ("attn_logit_softcapping", Value::Null),
        ("is_causal", json!(true)),
        ("alibi", json!(false)),
        ("attention_dropout", json!(0.1)),
        ("pretraining_tp", json!(1)),
        ("transformers_version", json!("5.0")),
    ] {
        assert!(remarks(key, value).is_empty(), "{key}");
    }
}

#[test]
fn files_that_are_no_json_object_are_refused() {
    assert!(complaint_about("[1]").contains("expected a JSON object"));
    assert!(complaint_about("").contains("expected a JSON object"));
    assert!(complaint_about(b"{\"a\": \"\xff\"}").contains("expected a JSON object"));
    assert!(complaint_about("{\"a\":".repeat(100_000)).contains("recursion limit"));
    assert_eq!(complaint_about(vec![b' '; (4 << 20) + 1]), "found a larger file, expected at most 4 MiB");
}

#[test]
fn names_that_are_neither_model_nor_file_get_the_list() {
    let says = Model::resolve("llama-4-8b").expect_err("no such model").to_string();
    assert!(says.starts_with("model: found llama-4-8b, expected one of opt-125m, opt-350m, "), "{says}");
    assert!(says.ends_with(", vit-huge, or the path of a config.json or its folder"), "{says}");
    let empty = tempfile::tempdir().expect("a temporary folder");
    let error = Model::resolve(empty.path().to_str().expect("UTF-8")).expect_err("no config.json");
    assert!(matches!(error, Error::Io { doing: "read", .. }), "{error}");
}

/// Asks for every size in every format; an overflow panics in this profile.
fn ask_everything(model: &Model) {
    model.check().expect("a model that was read passes its check");
    for format in Dtype::ALL {
        let model = model.clone().with_formats(format, format, format);
        assert!(model.weight_bytes(model.layers) >= model.weight_bytes(0));
        assert!(model.total_params() > 0 && model.kv_entry_bytes() > 0 && !model.describe().is_empty());
    }
}

/// As many and as wide as the bounds allow.
fn largest_experts() -> Experts {
    Experts {
        count: 1 << 13,
        per_token: 1 << 13,
        width: 1 << 10,
        shared_width: 1 << 22,
        shared_gate: true,
        gating: Gating::Softmax,
        normalised: true,
        scale: 1.0,
        choice_bias: true,
        router_bias: true,
        groups: (1, 1),
    }
}

/// The bounds in `check` leave no room for overflow.
#[test]
fn the_largest_model_that_passes_still_fits_64_bits() {
    let mut model = Model::builtin("llama-3.1-8b").expect("a builtin");
    (model.layers, model.hidden, model.ffn) = (65_535, 1 << 20, 1 << 22);
    (model.heads, model.kv_heads, model.head_dim) = (65_535, 65_535, 16);
    model.biases = Biases { qkv: true, output: true, ffn: true, head: true };
    (model.qk_norm, model.placement) = (QkNorm::Whole, NormPlacement::Around);
    model.rope = Some(Rope::plain(1e4, 16));
    model.kinds[0].experts = true;
    model.experts = Some(largest_experts());
    model.input = Input::Tokens { vocabulary: 1 << 24, width: (1 << 20) - 1 };
    (model.outputs, model.positions) = (1 << 24, 1 << 24);
    ask_everything(&model);
    model.input = Input::Patches { values: 1 << 24, count: 1 << 24 };
    ask_everything(&model);
}

/// Values that a config should not have.
fn hostile() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0u32..64).prop_map(|bit| Value::from(1u64 << bit)),
        (0u64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(Value::Null),
    ]
}

/// One good config of each reader.
fn bases() -> [Value; 5] {
    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_embd": 768, "n_head": 12,
        "n_layer": 12, "n_positions": 1024, "n_inner": 3072, "vocab_size": 50257
    });
    let classifier = with(&vit_huge(), "architectures", json!(["ViTForImageClassification"]));
    let qwen3 = like_llama("Qwen3ForCausalLM", [28, 1024, 16, 8, 3072, 151_936], true);
    [
        llama_8b(),
        opt_350m(),
        gpt2,
        with(&classifier, "num_labels", json!(1000)),
        with(&qwen3, "head_dim", json!(128)),
    ]
}

/// A refusal is an input error that says something; a model that was read has sizes.
fn judge(read: Result<Model>) {
    match read {
        Ok(model) => ask_everything(&model),
        Err(error) => assert!(matches!(error, Error::Input(_)), "{error}"),
    }
}

proptest! {
    #[test]
    fn hostile_values_never_panic(
        base in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), hostile()), 1..4),
    ) {
        let mut config = bases()[base].clone();
        for (index, value) in changes {
            let keys: Vec<String> = config.as_object().expect("an object").keys().cloned().collect();
            if !keys.is_empty() {
                config = with(&config, &keys[index.index(keys.len())], value);
            }
        }
        judge(read("hostile", config.to_string()));
    }

    #[test]
    fn damaged_bytes_never_panic(
        base in 0usize..5,
        cut in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        whole in any::<bool>(),
    ) {
        let mut bytes = bases()[base].to_string().into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        judge(read("damaged", bytes));
    }
}
