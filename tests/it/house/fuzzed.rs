//! Every reader on the corpus of its fuzz target and on mutations of it: the bounded form of `fuzz/`, the same for every run.

#[path = "../../../fuzz/src/readers.rs"]
mod readers;

use radialsim::rng::Stream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutations of each reader's corpus: some seconds for all readers together.
const MUTATIONS: u64 = 3000;

/// The inputs that a reader's target starts from, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file")).collect()
}

/// One to four changes: to a byte, a number, a part; or what stands in another input.
fn mutate(random: &mut Stream, corpus: &[Vec<u8>]) -> Vec<u8> {
    const NUMBERS: [&str; 8] =
        ["0", "-1", "1e999", "4294967296", "18446744073709551616", "NaN", "1e-320", "9223372036854775807"];
    let one = |random: &mut Stream| &corpus[random.below(corpus.len() as u64) as usize];
    let mut bytes = one(random).clone();
    for _ in 0..=random.below(4) {
        let mut at = random.below(bytes.len() as u64 + 1) as usize;
        let end = (at + 1 + random.below(16) as usize).min(bytes.len());
        match random.below(7) {
            0 if at < end => bytes[at] = random.below(256) as u8,
            1 if at < end => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let other = one(random);
                let from = random.below(other.len() as u64 + 1) as usize;
                let to = (from + random.below(64) as usize).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            5 => {
                // The next number, whole.
                at += bytes[at..].iter().position(u8::is_ascii_digit).unwrap_or(0);
                let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(at..at + digits, NUMBERS[random.below(8) as usize].bytes());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Feeds a reader its corpus, then mutations of it; a fault shows the input.
fn replay(name: &str) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let feed = |bytes: &[u8]| {
        let fed = catch_unwind(AssertUnwindSafe(|| readers::feed(name, bytes)));
        assert!(fed.is_ok(), "{name} breaks a rule on b\"{}\"", bytes.escape_ascii());
    };
    corpus.iter().for_each(|bytes| feed(bytes));
    let mut random = Stream::new(1, name);
    (0..MUTATIONS).for_each(|_| feed(&mutate(&mut random, &corpus)));
}

/// A test for each reader, and the list of their names.
macro_rules! replayed {
    ($($(#[$when:meta])? $name:ident)*) => {
        $($(#[$when])? #[test] fn $name() { replay(stringify!($name)); })*
        const NAMES: &[&str] = &[$($(#[$when])? stringify!($name)),*];
    };
}

replayed! {
    trace_jsonl
    #[cfg(feature = "parquet")] trace_parquet
    requests
    compressed
    config
    scenario
    profile
    fabric
    study
    #[cfg(feature = "gpu")] safetensors
    #[cfg(feature = "gpu")] gguf
    #[cfg(feature = "gpu")] llama2c
    #[cfg(feature = "gpu")] tokenizer
    #[cfg(feature = "gpu")] vocabulary
    #[cfg(feature = "gpu")] words
    #[cfg(feature = "gpu")] template
    #[cfg(feature = "gpu")] router
}

#[test]
fn every_reader_is_replayed_and_has_a_target() {
    let readers: Vec<&str> = readers::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(readers, NAMES);
    for name in readers {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(target.exists(), "{} is missing", target.display());
    }
}

/// What a refusal quotes of an input, here the names of all axes, leaves it on one line.
#[test]
fn what_was_expected_is_escaped_and_cut() {
    let error = radialsim::error::InputError::expected("one of a\u{7f}\nb").key("x").to_string();
    assert_eq!(error, r"x: expected one of a\u{7f}\nb");
    let long = radialsim::error::InputError::expected("y".repeat(1 << 20)).to_string();
    assert!(long.len() < 5000 && long.ends_with(" ..."), "{} bytes", long.len());
}

/// Such a number became null on its way to `--set`, whatever was set: an error that named another key, or, where the key may be absent, none.
#[test]
fn a_scenario_has_finite_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scenario.ron");
    let example =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/studies/power-and-policy.scenario.ron");
    let text = std::fs::read_to_string(example).expect("an example");
    for (was, number, shown) in [
        ("median: 400", "median: NaN", "lengths.prompt.median: found NaN"),
        ("rate_per_s: 24", "rate_per_s: 1e999", "arrivals.rate_per_s: found inf"),
        ("power_w: 700", "power_w: -inf", "limits.power_w: found inf"),
    ] {
        assert!(text.contains(was));
        std::fs::write(&path, text.replace(was, number)).expect("a file");
        let said = radialsim::scenario::Scenario::load(&path, &[]).expect_err("a refusal").to_string();
        assert!(said.contains(shown) && said.contains("expected a finite number"), "{said}");
    }
}

/// A key, a number or a text of some gigabytes takes a few megabytes of a compressed file, and was held while it was read.
#[test]
fn what_a_result_holds_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("result.json");
    let long = "1".repeat((16 << 20) + 1);
    for text in [
        format!("{{\n\"input_lens\": [1], \"output_lens\": [1], \"{long}\": 1}}"),
        format!("{{\n\"input_lens\": [1, {long}], \"output_lens\": [1]}}"),
        format!("{{\n\"input_lens\": [1, \"{long}\"], \"output_lens\": [1]}}"),
        format!("{{\n\"input_lens\": [1], \"output_lens\": [1], \"request_rate\": \"{long}\"}}"),
    ] {
        std::fs::write(&path, &text).expect("a file");
        let read = radialsim::workload::read(&path, &radialsim::workload::Reading::default());
        let said = read.expect_err("a refusal").to_string();
        assert!(said.contains("at most 16777216 bytes"), "{}: {said}", &text[..60]);
    }
}

/// Two lines took sixteen gigabytes for the hashes of their blocks.
#[test]
fn hashes_of_turns_are_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let line =
        r#"{"session_id": "a", "timestamp_ms": 0, "input_length": 268435456, "output_length": 268435456}"#;
    std::fs::write(folder.path().join("turns.jsonl"), format!("{line}\n{line}\n")).expect("a file");
    let spec = radialsim::workload::FileSpec {
        block_tokens: Some(1),
        ..radialsim::workload::FileSpec::new("turns.jsonl")
    };
    let said = spec.load(folder.path(), 1).expect_err("a refusal").to_string();
    assert!(said.contains("block_tokens: found 1, which makes 1610612736, expected"), "{said}");
}

/// The refusal of a model.
#[cfg(feature = "gpu")]
fn refusal(path: &Path) -> String {
    use radialsim::weights::Checkpoint;
    let opened = Checkpoint::open(path).and_then(|checkpoint| checkpoint.tokenizer().map(drop));
    opened.expect_err("a refusal").to_string()
}

/// Tensors were listed before the length of the file was asked for: 117 MB of memory for a file of 28 bytes.
#[cfg(feature = "gpu")]
#[test]
fn layers_that_a_short_file_cannot_hold_are_not_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.bin");
    let header = [8_i32, 8, 65_535, 2, 1, 8, 4].map(i32::to_le_bytes).concat();
    std::fs::write(&path, header).expect("a file");
    let said = refusal(&path);
    assert!(said.contains("n_layers: found 65535, expected as many as the 28 bytes"), "{said}");
}

/// All tensors were listed before the first was looked for: 11 MB of memory for a config of 428 bytes, and without end for a larger one.
#[cfg(feature = "gpu")]
#[test]
fn experts_that_no_file_holds_are_not_listed() {
    let folder = readers::weights::folder("a config of many experts");
    let config = r#"{"architectures":["MixtralForCausalLM"],"model_type":"mixtral","num_hidden_layers":60000,"hidden_size":8,
        "num_attention_heads":2,"num_key_value_heads":1,"intermediate_size":8,"vocab_size":8,"num_experts_per_tok":2,
        "num_local_experts":4000,"max_position_embeddings":64}"#;
    std::fs::write(folder.join("config.json"), config).expect("a file");
    let said = refusal(&folder);
    assert!(said.contains("a tensor for"), "{said}");
}

/// The library panics on a table of characters that is none.
#[cfg(feature = "gpu")]
#[test]
fn a_panic_of_the_tokenizer_library_is_a_refusal() {
    let folder = readers::weights::folder("a broken table of characters");
    let path = folder.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).expect("the small tokenizer");
    let table = r#""normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"}"#;
    std::fs::write(&path, text.replace(r#""normalizer":null"#, table)).expect("a file");
    let said = refusal(&folder);
    assert!(said.contains("tokenizer.json") && said.contains("charsmap"), "{said}");
}

/// A list is one value a hundred million times before anything is held; as JSON it took seven gigabytes.
#[cfg(feature = "gpu")]
#[test]
fn a_template_pays_for_what_it_writes() {
    for template in
        ["{{ [0] * 99999999 }}", "{{ ([0] * 99999999) | tojson }}", "{{ ([0] * 50000) | tojson(indent=32) }}"]
    {
        let folder = readers::weights::folder("a template that writes without end");
        std::fs::write(folder.join("chat_template.jinja"), template).expect("a file");
        let words = radialsim::weights::Checkpoint::open(&folder)
            .and_then(|model| model.tokenizer())
            .expect("a tokenizer");
        let day = radialsim::weights::Date::parse("2026-01-31").expect("a day");
        let said = words.ask("a", day).expect_err("a refusal").to_string();
        assert!(said.contains("out of fuel"), "{template}: {said}");
    }
}

/// One token of a high id made a list of 671 MB.
#[cfg(feature = "gpu")]
#[test]
fn ids_that_are_not_used_are_not_listed() {
    let folder = readers::weights::folder("a vocabulary of one high id");
    std::fs::remove_file(folder.join("tokenizer.json")).expect("the small tokenizer");
    std::fs::write(folder.join("merges.txt"), "").expect("a file");
    std::fs::write(folder.join("vocab.json"), r#"{"a": 16777215}"#).expect("a file");
    let said = refusal(&folder);
    assert!(said.contains("vocab.json") && said.contains("ids up to 16777215"), "{said}");
}

/// Merges that are left out by chance make each run another one.
#[cfg(feature = "gpu")]
#[test]
fn a_tokenizer_that_draws_is_refused() {
    let folder = readers::weights::folder("a tokenizer that draws");
    let path = folder.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).expect("the small tokenizer");
    std::fs::write(&path, text.replace(r#""dropout":null"#, r#""dropout":0.5"#)).expect("a file");
    let said = refusal(&folder);
    assert!(said.contains("model.dropout: found 0.5"), "{said}");
}
