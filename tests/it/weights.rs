//! Model files that are read wrongly: real ones against their published facts.

pub mod chat_templates;
pub mod gguf_blocks;
pub mod gguf_keys;
pub mod gguf_words;
pub mod router_files;
pub mod weights_bad;

use radialsim::weights::{Checkpoint, Date, LayerTensor, Name, TensorFormat};

#[test]
fn smollm2_is_read_as_it_was_trained() {
    let Some(path) = crate::smollm2() else { return };
    let checkpoint = Checkpoint::open(&path).expect("a valid file");
    let model = checkpoint.model();
    assert_eq!((model.layers, model.hidden, model.heads, model.kv_heads, model.ffn), (30, 576, 9, 3, 1536));
    assert_eq!(checkpoint.rope().map(|rope| (rope.theta, rope.interleaved)), Some((100_000.0, true)));
    assert_eq!(checkpoint.format(), TensorFormat::Q4_1);
    let table = checkpoint.tensor(Name::Embedding).expect("a table");
    assert_eq!((table.rows, table.width, table.format), (49_152, 576, TensorFormat::Q8_0));
    assert!(
        checkpoint
            .tensor(Name::Layer(29, LayerTensor::Down))
            .expect("a matrix")
            .to_f32()
            .iter()
            .all(|x| x.is_finite())
    );
}

#[test]
fn golden_prompts_become_the_golden_tokens() {
    let (Some(path), Some(golden)) = (crate::smollm2(), crate::data("golden/smollm2_dense.jsonl")) else {
        return;
    };
    let tokenizer =
        Checkpoint::open(&path).and_then(|checkpoint| checkpoint.tokenizer()).expect("a tokenizer");
    for line in std::fs::read_to_string(golden).expect("a readable file").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let text = line["text"].as_str().expect("a text");
        let ids: Vec<u32> = serde_json::from_value(line["prompt_ids"].clone()).expect("ids");
        assert_eq!(tokenizer.encode(text).expect("known text"), ids, "{text}");
        assert_eq!(tokenizer.decode(&ids).expect("known ids"), text);
        let asked = line["prompt"].as_str().expect("a prompt");
        let today = Date::parse("2024-07-26").expect("a day");
        let asked = tokenizer.ask(asked, today).expect("a template");
        assert_eq!((asked.text.as_str(), &asked.ids, asked.remarks.len()), (text, &ids, 0));
        let mut stream = tokenizer.stream();
        let said: String = ids.iter().map(|&id| stream.push(id).expect("known ids")).collect();
        assert_eq!(said, text);
    }
}

#[test]
fn llama2c_is_read_with_its_tokenizer() {
    let Some(path) = crate::data("models/stories260K.bin") else { return };
    let checkpoint = Checkpoint::open(path).expect("a valid file");
    let model = checkpoint.model();
    assert_eq!((model.layers, model.hidden, model.heads, model.kv_heads, model.outputs), (5, 64, 8, 4, 512));
    let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
    let ids = tokenizer.encode("Once upon a time, there was a little girl.").expect("known text");
    assert_eq!(ids[0], 1);
    assert_eq!(
        tokenizer.decode(&ids[1..]).expect("known ids").trim(),
        "Once upon a time, there was a little girl."
    );
}
