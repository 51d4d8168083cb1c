//! The readers of model files. The small models around what is read are written here, byte by byte, so that nothing but the reader
//! itself says what a file means.

use super::{accepted, check_model, file};
use radialsim::model::Model;
use radialsim::weights::{AnyRouter, Checkpoint, Date, LayerTensor, Name, Tokenizer};
use std::path::{Path, PathBuf};

/// Words of the small models.
const WORDS: [&str; 8] = ["<s>", "</s>", "a", "b", "ab", "<", ">", "s"];
/// Width of the residual stream and of the feed-forward part.
const WIDTH: u64 = 8;
/// Width of keys and values: one head of two.
const KV: u64 = 4;

/// A Llama of one layer with a tied head, as Hugging Face describes it.
const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,
"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":8,"max_position_embeddings":64,"rms_norm_eps":1e-5,"rope_theta":500.0,
"hidden_act":"silu","tie_word_embeddings":true,"dtype":"float32","bos_token_id":0,"eos_token_id":1}"#;

/// Its tokenizer.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":1,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,
"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,
"byte_fallback":false,"vocab":{"<s>":0,"</s>":1,"a":2,"b":3,"ab":4,"<":5,">":6,"s":7},"merges":["a b"]}}"#;

/// Names of the layer's tensors in both kinds of file, with their shapes, outermost dimension first.
const LAYER: [(&str, &str, &[u64]); 9] = [
    ("input_layernorm", "attn_norm", &[WIDTH]),
    ("self_attn.q_proj", "attn_q", &[WIDTH, WIDTH]),
    ("self_attn.k_proj", "attn_k", &[KV, WIDTH]),
    ("self_attn.v_proj", "attn_v", &[KV, WIDTH]),
    ("self_attn.o_proj", "attn_output", &[WIDTH, WIDTH]),
    ("post_attention_layernorm", "ffn_norm", &[WIDTH]),
    ("mlp.gate_proj", "ffn_gate", &[WIDTH, WIDTH]),
    ("mlp.up_proj", "ffn_up", &[WIDTH, WIDTH]),
    ("mlp.down_proj", "ffn_down", &[WIDTH, WIDTH]),
];

/// Every tensor of a small model with so many words: its names in both kinds of file, and its shape.
fn tensors(words: u64) -> Vec<(String, String, Vec<u64>)> {
    let layer = LAYER.iter().map(|(hugging_face, gguf, shape)| {
        (format!("model.layers.0.{hugging_face}.weight"), format!("blk.0.{gguf}.weight"), shape.to_vec())
    });
    let outside = [
        ("model.embed_tokens.weight".into(), "token_embd.weight".into(), vec![words, WIDTH]),
        ("model.norm.weight".into(), "output_norm.weight".into(), vec![WIDTH]),
    ];
    outside.into_iter().chain(layer).collect()
}

/// The header of the small model's safetensors file, and the bytes behind it.
fn header() -> (String, u64) {
    let (mut parts, mut end) = (Vec::new(), 0);
    for (name, _, shape) in tensors(WORDS.len() as u64) {
        let begin = end;
        end += 4 * shape.iter().product::<u64>();
        parts.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
    }
    (format!("{{{}}}", parts.join(",")), end)
}

/// A safetensors file of this header with so many bytes behind it.
fn container(header: &[u8], bytes: u64) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; bytes as usize]].concat()
}

/// A folder of this name with the small model in it.
pub fn folder(name: &str) -> PathBuf {
    let (header, bytes) = header();
    let weights = container(header.as_bytes(), bytes);
    // To read a template takes no words: a splitter without a pattern is read ten times as fast.
    let tokenizer = match name {
        "template" => TOKENIZER.replace("\"use_regex\":true", "\"use_regex\":false"),
        _ => TOKENIZER.to_owned(),
    };
    let files: [(&str, &[u8]); 3] = [
        ("config.json", CONFIG.as_bytes()),
        ("tokenizer.json", tokenizer.as_bytes()),
        ("model.safetensors", &weights),
    ];
    super::folder(name, &files)
}

/// Opens a model; all that was accepted can be read. Its tokenizer has readers of its own, and would take most of the time.
pub fn check(path: &Path) -> Option<Checkpoint> {
    let checkpoint = accepted(Checkpoint::open(path))?;
    check_model(checkpoint.model());
    let epsilon = checkpoint.model().norm.epsilon();
    assert!(epsilon > 0.0 && epsilon.is_finite());
    let last = checkpoint.model().layers - 1;
    for name in [
        Name::Embedding,
        Name::FinalNorm,
        Name::Layer(0, LayerTensor::Q),
        Name::Layer(last, LayerTensor::Down),
    ] {
        let Ok((format, rows, width)) = checkpoint.shape(name) else { continue };
        let tensor = checkpoint.tensor(name).expect("a tensor of an opened model can be read");
        assert_eq!((tensor.format, tensor.rows, tensor.width), (format, rows, width));
        assert_eq!(tensor.to_f32().len(), rows * width);
    }
    Some(checkpoint)
}

/// The same, and its tokenizer.
fn check_with_words(path: &Path) {
    if let Some(checkpoint) = check(path) {
        check_tokenizer(checkpoint.tokenizer());
    }
}

/// A tokenizer takes any text and gives tokens that it can show, or says why not.
fn check_tokenizer(read: radialsim::error::Result<Tokenizer>) {
    let Some(tokenizer) = accepted(read) else { return };
    for text in ["", "ab <s>ba\u{e9} 1234\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"] {
        let Ok(ids) = tokenizer.encode(text) else { continue };
        let _ = tokenizer.decode(&ids);
        let mut stream = tokenizer.stream();
        ids.iter().for_each(|&id| drop(stream.push(id)));
    }
    let _ = tokenizer.decode(&[0, u32::MAX]);
    check_template(&tokenizer);
}

/// The template takes any prompt, or says why not.
fn check_template(tokenizer: &Tokenizer) {
    for prompt in ["", "What is \"this\"?\n"] {
        // The vocabulary of a small model has few words; all that matters is that a refusal is a good one.
        accepted(
            tokenizer
                .ask(prompt, Date::parse("2026-01-31").expect("a day"))
                .map_err(|error| error.in_file("model")),
        );
    }
}

/// A `.safetensors` file, or its header alone where the bytes begin with a brace.
pub fn safetensors(bytes: &[u8]) {
    let folder = folder("safetensors");
    let whole = if bytes.starts_with(b"{") { container(bytes, header().1) } else { bytes.to_vec() };
    file(&folder, "model.safetensors", &whole);
    let _ = check(&folder);
}

/// The file of a router; what was read comes back equal when it is written and read again.
pub fn router(bytes: &[u8]) {
    let folder = super::folder("router", &[]);
    let path = file(&folder, "router.safetensors", bytes);
    let Some(Some(read)) = accepted(AnyRouter::read(&path)) else { return };
    let bytes = match &read {
        AnyRouter::Skip(router) => router.bytes(),
        AnyRouter::Radial(router) => router.bytes(),
        AnyRouter::Table(table) => table.bytes(),
    };
    let again = file(&folder, "again.safetensors", &bytes);
    assert!(AnyRouter::read(&again).expect("what was written can be read").as_ref() == Some(&read));
    let model = Model::builtin("llama-2-7b").expect("a shipped model");
    let _ = accepted(read.check(&model).map_err(|error| error.in_file("router")));
}

/// A GGUF file.
pub fn gguf(bytes: &[u8]) {
    let _ = check(&file(&super::folder("gguf", &[]), "model.gguf", bytes));
}

/// A model of llama2.c: what stands before a line of `----` is the model, the rest the tokenizer.
pub fn llama2c(bytes: &[u8]) {
    let folder = super::folder("llama2c", &[]);
    let cut = bytes.windows(5).position(|part| part == b"\n----");
    let (model, words) = bytes.split_at(cut.unwrap_or(bytes.len()));
    file(&folder, "tokenizer.bin", words.get(5..).unwrap_or_default());
    check_with_words(&file(&folder, "model.bin", model));
}

/// The small model whose folder has this name, opened once; what it does not keep in memory is read anew each time.
fn opened(name: &'static str, check: impl FnOnce(&Path, &Checkpoint)) {
    thread_local! {
        static OPENED: std::cell::RefCell<std::collections::HashMap<&'static str, Checkpoint>> = std::cell::RefCell::default();
    }
    OPENED.with_borrow_mut(|opened| {
        let folder = folder(name);
        let checkpoint = opened
            .entry(name)
            .or_insert_with(|| Checkpoint::open(&folder).expect("the small model can be opened"));
        check(&folder, checkpoint);
    });
}

/// A `tokenizer.json`.
pub fn tokenizer(bytes: &[u8]) {
    opened("tokenizer", |folder, checkpoint| {
        file(folder, "tokenizer.json", bytes);
        check_tokenizer(checkpoint.tokenizer());
    });
}

/// A chat template, in a file of its own.
pub fn template(bytes: &[u8]) {
    opened("template", |folder, checkpoint| {
        file(folder, "chat_template.jinja", bytes);
        if let Some(tokenizer) = accepted(checkpoint.tokenizer()) {
            check_template(&tokenizer);
        }
    });
}

/// The configuration of a tokenizer, and its vocabulary as `vocab.json` and `merges.txt`: three parts behind lines of `----`.
pub fn words(bytes: &[u8]) {
    opened("words", |folder, checkpoint| {
        let _ = std::fs::remove_file(folder.join("tokenizer.json"));
        let mut rest = bytes;
        for name in ["tokenizer_config.json", "vocab.json", "merges.txt"] {
            let cut = rest.windows(6).position(|part| part == b"\n----\n");
            let (part, behind) = rest.split_at(cut.unwrap_or(rest.len()));
            file(folder, name, part);
            rest = behind.get(6..).unwrap_or_default();
        }
        check_tokenizer(checkpoint.tokenizer());
    });
}

/// The vocabulary of a GGUF file as lines: its model, its splitter, then each token behind a digit for its kind and a byte for its score, and
/// each merge behind an `m`.
pub fn vocabulary(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let (model, split) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let (mut tokens, mut kinds, mut scores, mut merges) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        match line {
            [b'm', merge @ ..] => merges.push(text(merge)),
            [kind, score, token @ ..] => {
                tokens.push(text(token));
                kinds.push(i32::from(*kind).wrapping_sub(i32::from(b'0')).to_le_bytes().to_vec());
                scores.push((f32::from(*score) - 96.0).to_le_bytes().to_vec());
            }
            _ => {}
        }
    }
    let whole = |number: u64| typed(4, &(number as u32).to_le_bytes());
    let keys = [
        ("general.architecture", typed(8, &text(b"llama"))),
        ("llama.block_count", whole(1)),
        ("llama.context_length", whole(64)),
        ("llama.embedding_length", whole(WIDTH)),
        ("llama.feed_forward_length", whole(WIDTH)),
        ("llama.attention.head_count", whole(2)),
        ("llama.attention.head_count_kv", whole(1)),
        ("llama.attention.layer_norm_rms_epsilon", typed(6, &1e-5_f32.to_le_bytes())),
        ("tokenizer.ggml.model", typed(8, &text(model))),
        ("tokenizer.ggml.pre", typed(8, &text(split))),
        ("tokenizer.ggml.tokens", list(8, &tokens)),
        ("tokenizer.ggml.token_type", list(5, &kinds)),
        ("tokenizer.ggml.scores", list(6, &scores)),
        ("tokenizer.ggml.merges", list(8, &merges)),
        ("tokenizer.ggml.bos_token_id", whole(0)),
        ("tokenizer.ggml.eos_token_id", whole(1)),
    ];
    let (words, folder) = (tokens.len() as u64, super::folder("vocabulary", &[]));
    check_with_words(&file(&folder, "model.gguf", &whole_gguf(&keys, words)));
}

/// A GGUF file of version 3 with these keys and the tensors of a small model, all zero.
fn whole_gguf(keys: &[(&str, Vec<u8>)], words: u64) -> Vec<u8> {
    let tensors = tensors(words);
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        bytes.extend(text(key.as_bytes()));
        bytes.extend(value);
    }
    let mut end = 0;
    for (_, name, shape) in &tensors {
        bytes.extend(text(name.as_bytes()));
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(u64::to_le_bytes(end));
        end += (4 * shape.iter().product::<u64>()).next_multiple_of(32);
    }
    bytes.resize(bytes.len().next_multiple_of(32) + end as usize, 0);
    bytes
}

/// A text as GGUF keeps it.
fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// A value behind its type.
fn typed(kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], bytes].concat()
}

/// A list of values of one type.
fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    typed(9, &[&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()[..], &items.concat()].concat())
}
