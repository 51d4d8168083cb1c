//! Model files that are broken or hostile: one clear error each, no panic, and nothing allocated that the file does not warrant.

use crate::gguf_support::{Gguf, list, text, typed};
use crate::small_models::Small;
use proptest::prelude::*;
use radialsim::error::Error;
use radialsim::weights::Checkpoint;
use safetensors::Dtype;
use std::path::{Path, PathBuf};

/// The error that opening these bytes under this ending gives, as text; it must be one of input.
fn error(bytes: &[u8], ending: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("model.{ending}"));
    std::fs::write(&path, bytes).expect("a writable folder");
    said(&path)
}

fn said(path: &Path) -> Option<String> {
    let opened = Checkpoint::open(path).and_then(|checkpoint| checkpoint.tokenizer().map(drop));
    opened.err().map(|error| {
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(!error.to_string().contains('\n'), "one line: {error}");
        error.to_string()
    })
}

#[track_caller]
fn refused(gguf: &Gguf, parts: &[&str]) {
    let said = error(&gguf.bytes(), "gguf").expect("an error");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn a_small_gguf_is_valid() {
    assert_eq!(error(&Gguf::small().bytes(), "gguf"), None);
}

#[test]
fn broken_keys_are_named() {
    let small = Gguf::small;
    let whole = |n: u32| typed(4, &n.to_le_bytes());
    refused(
        &small().set("general.architecture", typed(8, &text("bert"))),
        &["general.architecture", "bert", "llama"],
    );
    refused(&small().without("llama.block_count"), &["llama.block_count", "no such key"]);
    refused(&small().set("llama.block_count", whole(0)), &["llama.block_count", "found 0"]);
    refused(&small().set("llama.block_count", whole(70_000)), &["llama.block_count", "65535"]);
    refused(&small().set("llama.embedding_length", whole(1 << 31)), &["llama.embedding_length"]);
    refused(&small().set("llama.attention.head_count_kv", whole(3)), &["head_count_kv"]);
    refused(
        &small().set("llama.rope.scaling.type", typed(8, &text("spiral"))),
        &["rope.scaling.type", "spiral"],
    );
    refused(
        &small().set("llama.rope.freq_base", typed(6, &f32::NAN.to_le_bytes())),
        &["freq_base", "above 0"],
    );
    refused(&small().set("tokenizer.ggml.pre", typed(8, &text("other"))), &["tokenizer.ggml.pre", "smollm"]);
    refused(&small().set("tokenizer.ggml.eos_token_id", whole(3)), &["eos_token_id", "0 to 2"]);
    refused(&small().set("tokenizer.ggml.merges", list(8, &[text("a c")])), &["merges", "a c"]);
    refused(
        &small().set("tokenizer.ggml.tokens", list(8, &["a", "b", "ab", "c"].map(text))),
        &["token_embd.weight", "4 x 8"],
    );
    refused(&small().set("general.alignment", whole(0)), &["general.alignment"]);
    refused(&small().set("x", typed(77, &[])), &["type 77"]);
    refused(&small().set("x", typed(7, &[2])), &["found 2", "0 or 1"]);
    refused(&small().set("x", typed(8, &[&2u64.to_le_bytes()[..], &[0xff, 0xff]].concat())), &["UTF-8"]);
    let mut twice = small();
    twice.keys.push(("llama.block_count".into(), whole(1)));
    refused(&twice, &["llama.block_count", "once"]);
}

#[test]
fn huge_lengths_are_refused_before_anything_is_allocated() {
    let small = Gguf::small;
    let huge = u64::MAX.to_le_bytes();
    refused(&small().set("x", typed(8, &huge)), &["18446744073709551615 bytes", "at most"]);
    refused(
        &small().set("x", typed(9, &[&8u32.to_le_bytes()[..], &huge].concat())),
        &["18446744073709551615"],
    );
    let mut nested = typed(9, &[&4u32.to_le_bytes()[..], &1u64.to_le_bytes()[..], &[0; 4]].concat());
    for _ in 0..200 {
        nested = typed(9, &[&9u32.to_le_bytes()[..], &1u64.to_le_bytes()[..], &nested[4..]].concat());
    }
    refused(&small().set("x", nested), &["nested"]);
    for (at, name) in [(8, "tensor_count"), (16, "metadata_kv_count")] {
        let mut bytes = small().bytes();
        bytes[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(error(&bytes, "gguf").is_some_and(|said| said.contains(name)));
    }
    refused(
        &small().tensor("blk.0.attn_q", |tensor| tensor.1 = vec![1 << 40, 1 << 40]),
        &["blk.0.attn_q", "dimensions"],
    );
    refused(&small().tensor("blk.0.attn_q", |tensor| tensor.1 = vec![0, 8]), &["blk.0.attn_q", "dimensions"]);
    refused(&small().tensor("blk.0.attn_q", |tensor| tensor.1 = vec![1; 9]), &["9 dimensions"]);
}

#[test]
fn tensors_that_lie_wrongly_are_named() {
    let small = Gguf::small;
    refused(&small().tensor("blk.0.ffn_up", |tensor| tensor.3 = u64::MAX - 31), &["blk.0.ffn_up", "bytes"]);
    refused(&small().tensor("blk.0.ffn_up", |tensor| tensor.3 = 1 << 20), &["blk.0.ffn_up", "of the file"]);
    refused(&small().tensor("blk.0.ffn_up", |tensor| tensor.3 = 0), &["behind"]);
    refused(&small().tensor("blk.0.ffn_up", |tensor| tensor.3 += 1), &["blk.0.ffn_up", "multiple of 32"]);
    refused(
        &small().tensor("blk.0.ffn_up", |tensor| tensor.2 = 16),
        &["blk.0.ffn_up", "type 16, IQ2_XXS", "Q4_1"],
    );
    refused(&small().tensor("blk.0.ffn_up", |tensor| tensor.2 = 3), &["rows of 8", "blocks of 32"]);
    refused(&small().tensor("blk.0.ffn_up", |tensor| tensor.1 = vec![12, 8]), &["8 x 12", "12 x 8"]);
    refused(&small().tensor("blk.0.ffn_up", |tensor| tensor.0 = "blk.0.ffn_down.weight".into()), &["once"]);
    refused(
        &small().tensor("blk.0.ffn_up", |tensor| tensor.0 = "blk.1.ffn_up.weight".into()),
        &["blk.1.ffn_up"],
    );
    refused(
        &small().tensor("blk.0.ffn_up", |tensor| tensor.0 = "blk.0.extra.weight".into()),
        &["blk.0.extra"],
    );
    let mut missing = small();
    missing.tensors.retain(|tensor| !tensor.0.contains("ffn_up"));
    refused(&missing, &["Layer(0, Up)"]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = Gguf::small().bytes();
    // The last tensor's padding is not missed.
    let used = whole.len() - Gguf::small().data.len() + Gguf::small().data.len() - 31;
    for length in (0..used).step_by(3) {
        assert!(error(&whole[..length], "gguf").is_some(), "{length} of {}", whole.len());
    }
    let small = Small::new(false);
    let folder = tempfile::tempdir().expect("a folder");
    small.write(folder.path(), Dtype::F32, 1);
    let file = folder.path().join("model.safetensors");
    let whole = std::fs::read(&file).expect("a file");
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&file, &whole[..length]).expect("a writable folder");
        let said = Checkpoint::open(folder.path()).err().map(|error| (error.exit_code(), error.to_string()));
        assert!(said.is_some_and(|(code, said)| code == 2 && said.contains("model.safetensors")), "{length}");
    }
}

/// A llama2.c file with these seven numbers and `extra` bytes more or less than it should have.
fn llama2c(header: [i32; 7], extra: i64) -> Vec<u8> {
    let [dim, hidden, layers, heads, kv, vocabulary, sequence] = header.map(|x| i64::from(x).abs());
    let (head, kv_dim) = (dim / heads.max(1), dim / heads.max(1) * kv);
    let layer = 2 * dim + 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * hidden;
    let own = if header[5] < 0 { vocabulary * dim } else { 0 };
    let floats = vocabulary * dim + layers * layer + dim + sequence * head + own;
    let mut bytes: Vec<u8> = header.iter().flat_map(|x| x.to_le_bytes()).collect();
    bytes.resize((28 + floats * 4 + extra).max(0) as usize, 0);
    bytes
}

#[test]
fn llama2c_files_of_another_length_or_shape_are_refused() {
    let good = [8, 12, 2, 2, 1, 5, 16];
    let no_words = error(&llama2c(good, 0), "bin").expect("no tokenizer is there");
    assert!(no_words.contains("tok5.bin"), "{no_words}");
    for header in [good, [8, 12, 2, 2, 1, -5, 16]] {
        for extra in [-4, -1, 1, 4] {
            assert!(error(&llama2c(header, extra), "bin").is_some_and(|said| said.contains("length")));
        }
    }
    for (at, value) in
        [(0, 0), (0, i32::MAX), (1, -1), (2, i32::MAX), (3, 3), (4, 2 + 1), (5, 0), (6, i32::MIN)]
    {
        let mut header = good;
        header[at] = value;
        let bytes: Vec<u8> = header.iter().flat_map(|x| x.to_le_bytes()).chain([0; 400]).collect();
        assert!(error(&bytes, "bin").is_some(), "{header:?}");
    }
}

#[test]
fn folders_that_do_not_fit_together_are_refused() {
    let small = Small::new(false);
    let check = |change: &dyn Fn(&Path, &mut serde_json::Value), part: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        small.write(folder.path(), Dtype::F32, 2);
        let mut config = small.config();
        change(folder.path(), &mut config);
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("a writable folder");
        let said = Checkpoint::open(folder.path()).map(drop).expect_err(part);
        assert_eq!(said.exit_code(), 2);
        assert!(said.to_string().contains(part), "no {part:?} in: {said}");
    };
    check(&|_, config| config["vocab_size"] = 96.into(), "97 x 24");
    check(&|_, config| config["num_hidden_layers"] = 4.into(), "Layer(3");
    check(&|_, config| config["num_hidden_layers"] = 2.into(), "model.layers.2");
    check(&|_, config| config["intermediate_size"] = 40.into(), "36 x 24");
    check(
        &|folder, _| std::fs::remove_file(folder.join("model-1.safetensors")).expect("a file"),
        "model-1.safetensors",
    );
    check(
        &|folder, _| {
            let index = serde_json::json!({ "weight_map": { "x": "../model-0.safetensors" } }).to_string();
            std::fs::write(folder.join("model.safetensors.index.json"), index).expect("a writable folder");
        },
        "names of files in this folder",
    );
    check(
        &|folder, _| {
            let copy = folder.join("model-0.safetensors");
            std::fs::copy(copy, folder.join("model-1.safetensors")).map(drop).expect("a copy");
        },
        "once",
    );
    // Maps of the libraries that read these keep the last of two.
    check(
        &|folder, _| {
            let index = folder.join("model.safetensors.index.json");
            let text = std::fs::read_to_string(&index).expect("a file");
            let twice = text.replacen('{', "{\"weight_map\": {\"x\": \"a\"}, ", 1);
            std::fs::write(&index, twice).expect("a writable folder");
        },
        "duplicate field `weight_map`",
    );
    check(
        &|folder, _| {
            let index = folder.join("model.safetensors.index.json");
            let text = std::fs::read_to_string(&index).expect("a file");
            let entry = "\"model.norm.weight\":\"model-0.safetensors\",";
            std::fs::write(&index, text.replacen(":{", &format!(":{{{entry}"), 1))
                .expect("a writable folder");
        },
        "index.json: model.norm.weight: expected each tensor once",
    );
    check(
        &|folder, _| {
            let file = folder.join("model-0.safetensors");
            let bytes = std::fs::read(&file).expect("a file");
            let (length, rest) = bytes.split_first_chunk().expect("a length");
            let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
            let header = std::str::from_utf8(header).expect("JSON").trim_end();
            // The same entry twice, which reads as once.
            let end = header.find('}').expect("an entry") + 1;
            let twice = format!("{{{},{}", &header[1..end], &header[1..]);
            let bytes = [&(twice.len() as u64).to_le_bytes(), twice.as_bytes(), data].concat();
            std::fs::write(&file, bytes).expect("a writable folder");
        },
        "expected each tensor once",
    );
    // An index behind a byte order mark is an index.
    let folder = tempfile::tempdir().expect("a folder");
    small.write(folder.path(), Dtype::F32, 2);
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).expect("a file");
    std::fs::write(&index, format!("\u{feff}{text}")).expect("a writable folder");
    Checkpoint::open(folder.path()).expect("a model");
    let nothing = tempfile::tempdir().expect("a folder");
    assert!(said(nothing.path()).is_some_and(|said| said.contains("0 .gguf files")));
    assert!(matches!(Checkpoint::open(PathBuf::from("no such model")), Err(Error::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever bytes are wrong, nothing panics.
    #[test]
    fn any_wrong_byte_is_survived(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = Gguf::small().header();
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(Gguf::small().data);
        error(&bytes, "gguf");
    }
}
