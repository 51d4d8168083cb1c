//! Keys of GGUF files that change what a model computes and are passed over.

use crate::gguf_support::{Gguf, list, text, typed};
use radialsim::model::Scaling;
use radialsim::weights::Checkpoint;

/// What opening a file says.
pub fn opened(gguf: &Gguf) -> Result<Checkpoint, String> {
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().expect("a file");
    std::fs::write(file.path(), gguf.bytes()).expect("a writable file");
    Checkpoint::open(file.path()).map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    })
}

fn whole(n: u32) -> Vec<u8> {
    typed(4, &n.to_le_bytes())
}

fn float(x: f32) -> Vec<u8> {
    typed(6, &x.to_le_bytes())
}

fn flag(flag: bool) -> Vec<u8> {
    typed(7, &[u8::from(flag)])
}

#[test]
fn keys_that_change_the_arithmetic_are_refused_by_name() {
    for (key, value) in [
        ("llama.rope.scaling.type", typed(8, &text("spiral"))),
        ("llama.rope.scaling.attn_factor", float(1.2)),
        ("llama.rope.dimension_sections", list(5, &[1i32, 1, 2, 0].map(|n| n.to_le_bytes().to_vec()))),
        ("llama.attention.sliding_window", whole(16)),
        ("llama.attention.causal", flag(false)),
        ("llama.attention.clamp_kqv", float(8.0)),
        ("llama.attn_logit_softcapping", float(50.0)),
        ("llama.final_logit_softcapping", float(30.0)),
        ("llama.logit_scale", float(0.0625)),
        ("llama.residual_scale", float(0.22)),
        ("llama.embedding_scale", float(12.0)),
        ("llama.use_parallel_residual", flag(true)),
        ("llama.expert_count", whole(8)),
        ("llama.tensor_data_layout", typed(8, &text("transposed"))),
        ("llama.something_new", whole(0)),
        ("general.type", typed(8, &text("adapter"))),
        ("adapter.type", typed(8, &text("lora"))),
        ("tokenizer.ggml.suppress_tokens", list(5, &[vec![1, 0, 0, 0]])),
        ("tokenizer.ggml.add_sep_token", flag(true)),
    ] {
        let said = opened(&Gguf::small().set(key, value)).expect_err(key);
        assert!(said.contains(&format!(".gguf: {key}: found ")), "{said}");
    }
}

/// Scalings under their new and old keys.
#[test]
fn scalings_are_read_and_those_that_lack_something_are_refused() {
    let kind = |kind: &str| ("llama.rope.scaling.type", typed(8, &text(kind)));
    let factor = |x| ("llama.rope.scaling.factor", float(x));
    let original = || ("llama.rope.scaling.original_context_length", whole(32));
    let yarn = Scaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original: 32,
        amplitude: 1.0 + 0.1 * libm::log(4.0),
        truncate: true,
    };
    for (keys, wanted) in [
        (vec![], Scaling::None),
        (vec![kind("linear")], Scaling::None),
        (vec![kind("linear"), factor(4.0)], Scaling::Linear { factor: 4.0 }),
        (vec![factor(4.0)], Scaling::Linear { factor: 4.0 }),
        (vec![("llama.rope.scale_linear", float(2.0))], Scaling::Linear { factor: 2.0 }),
        (vec![factor(4.0), ("llama.rope.scale_linear", float(2.0))], Scaling::Linear { factor: 4.0 }),
        (vec![kind("yarn"), factor(4.0), original()], yarn),
    ] {
        let gguf = keys.into_iter().fold(Gguf::small(), |gguf, (key, value)| gguf.set(key, value));
        let checkpoint = opened(&gguf).expect("a model");
        assert_eq!(checkpoint.rope().map(|rope| &rope.scaling), Some(&wanted));
    }
    for (keys, named) in [
        (vec![kind("yarn"), factor(4.0)], "llama.rope.scaling.original_context_length"),
        (vec![kind("none"), factor(4.0)], "llama.rope.scaling.type"),
        (vec![factor(4.0), ("llama.rope.scaling.attn_factor", float(1.2))], "llama.rope.scaling.attn_factor"),
    ] {
        let gguf = keys.into_iter().fold(Gguf::small(), |gguf, (key, value)| gguf.set(key, value));
        let said = opened(&gguf).map(drop).expect_err(named);
        assert!(said.contains(named), "{said}");
    }
    let scaled = opened(&Gguf::small().set("llama.attention.scale", float(0.25))).expect("a model");
    assert_eq!(scaled.model().scales.attention, Some(0.25));
}

/// A scale of attention is neutral where it is 1 over the root of a head's width: here 4, so a half.
#[test]
fn keys_at_their_neutral_values_are_taken() {
    let gguf = Gguf::small()
        .set("llama.context_length", whole(64))
        .set("llama.vocab_size", whole(3))
        .set("llama.rope.scaling.type", typed(8, &text("none")))
        .set("llama.rope.scaling.factor", float(1.0))
        .set("llama.rope.scale_linear", float(0.0))
        .set("llama.rope.scaling.finetuned", flag(false))
        .set("llama.rope.dimension_sections", list(5, &[0i32; 4].map(|n| n.to_le_bytes().to_vec())))
        .set("llama.attention.sliding_window", whole(64))
        .set("llama.attention.scale", float(0.5))
        .set("llama.attention.causal", flag(true))
        .set("llama.attn_logit_softcapping", float(0.0))
        .set("llama.logit_scale", float(1.0))
        .set("llama.residual_scale", float(1.0))
        .set("llama.expert_count", whole(0))
        .set("llama.tensor_data_layout", typed(8, &text("Meta AI original pth")))
        .set("general.type", typed(8, &text("model")))
        .set("general.file_type", whole(7))
        .set("general.sampling.temp", float(0.6))
        .set("tokenizer.ggml.add_sep_token", flag(false))
        .set("tokenizer.ggml.padding_token_id", whole(0))
        .set("tokenizer.chat_template.rag", typed(8, &text("x")))
        .set("quantize.imatrix.file", typed(8, &text("x")))
        .set("maker.of_this_file", typed(8, &text("x")));
    opened(&gguf).expect("a model");
    let longer = gguf.set("llama.context_length", whole(65));
    assert!(opened(&longer).expect_err("a window").contains("attention.sliding_window"));
}

/// A model in several files is one model; which of them is named, and which are there, must fit.
#[test]
fn a_model_in_several_files_is_read_whole() {
    let short = |n: u16| typed(2, &n.to_le_bytes());
    let folder = tempfile::tempdir().expect("a folder");
    let at = |number: u32| folder.path().join(format!("m-{number:05}-of-00002.gguf"));
    let whole_model = Gguf::small();
    let part = |number: u16, tensors: std::ops::Range<usize>| {
        let mut gguf = whole_model.clone();
        gguf.tensors = whole_model.tensors[tensors].to_vec();
        if number > 0 {
            gguf.keys.clear();
        }
        gguf.set("split.no", short(number))
            .set("split.count", short(2))
            .set("split.tensors.count", typed(5, &11i32.to_le_bytes()))
    };
    let write =
        |number: u32, gguf: &Gguf| std::fs::write(at(number), gguf.bytes()).expect("a writable folder");
    write(1, &part(0, 0..4));
    let missing = Checkpoint::open(at(1)).map(drop).expect_err("one is missing");
    assert!(missing.to_string().contains("m-00002-of-00002.gguf"), "{missing}");
    write(2, &part(1, 4..11));
    for path in [at(1), folder.path().to_owned()] {
        let checkpoint = Checkpoint::open(path).expect("a model");
        assert_eq!(checkpoint.files(), [at(1), at(2)]);
        assert_eq!(checkpoint.model().layers, 1);
    }
    let wrong = |parts: &[&str]| {
        let said = Checkpoint::open(at(1)).map(drop).expect_err("an error").to_string();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    };
    write(2, &part(1, 5..11));
    wrong(&["split.tensors.count", "11"]);
    write(2, &part(1, 3..10));
    wrong(&["m-00002-of-00002.gguf", "blk.0.attn_q.weight", "once"]);
    write(2, &part(0, 4..11));
    wrong(&["m-00002-of-00002.gguf", "split.no", "1"]);
    write(2, &part(1, 4..11));
    let second = Checkpoint::open(at(2)).map(drop).expect_err("not the first").to_string();
    assert!(second.contains("m-00002-of-00002.gguf") && second.contains("-00001-of-00002.gguf"), "{second}");
}

/// Counts and lengths that only an attacker writes: one error each, and no memory that the file does not warrant.
#[test]
fn hostile_lists_and_names_are_refused() {
    let refused = |gguf: &Gguf, part: &str| {
        let said = opened(gguf).map(drop).expect_err(part);
        assert!(said.contains(part), "no {part:?} in: {said}");
    };
    let many = list(0, &[vec![0; (1 << 23) + 1]]);
    // One list of so many bytes, which takes thirty-two times as much in memory.
    let mut bytes = typed(9, &[&0u32.to_le_bytes()[..], &((1u64 << 23) + 1).to_le_bytes()].concat());
    bytes.extend(&many[16..]);
    refused(&Gguf::small().set("x", bytes), "elements in all lists");
    refused(&Gguf::small().set(&"k".repeat(65_536), whole(1)), "65536 bytes");
    let mut big = Gguf::small().bytes();
    big[4..8].copy_from_slice(&3u32.to_be_bytes());
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().expect("a file");
    std::fs::write(file.path(), big).expect("a writable file");
    assert!(
        Checkpoint::open(file.path()).map(drop).expect_err("big-endian").to_string().contains("big-endian")
    );
}
