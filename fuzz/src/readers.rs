//! One function for each reader: feeds it bytes and holds it to the rules of all readers. Shared by the fuzz targets and by
//! `tests/it/house/fuzzed.rs`, which replays the corpus and mutations of it.
//!
//! The rules: no panic; a refusal is one line, names no other file than the one that was read, and has exit code 2; what
//! is accepted holds together (it can be asked for its sizes, and comes back equal when it is written and read again).

use radialsim::error::{Error, Result};
use radialsim::{cost, hw, model, scenario, study, trace, workload};
use std::path::{Path, PathBuf};

#[cfg(feature = "gpu")]
#[path = "weights.rs"]
pub mod weights;

/// A reader, as bytes to be read.
pub type Reader = fn(&[u8]);

/// Every reader by its name, which is that of its fuzz target and of its folder in `corpus`.
pub const ALL: &[(&str, Reader)] = &[
    ("trace_jsonl", trace_jsonl),
    #[cfg(feature = "parquet")]
    ("trace_parquet", trace_parquet),
    ("requests", requests),
    ("compressed", compressed),
    ("config", config),
    ("scenario", scenario),
    ("profile", profile),
    ("fabric", fabric),
    ("study", study),
    #[cfg(feature = "gpu")]
    ("safetensors", weights::safetensors),
    #[cfg(feature = "gpu")]
    ("gguf", weights::gguf),
    #[cfg(feature = "gpu")]
    ("llama2c", weights::llama2c),
    #[cfg(feature = "gpu")]
    ("tokenizer", weights::tokenizer),
    #[cfg(feature = "gpu")]
    ("vocabulary", weights::vocabulary),
    #[cfg(feature = "gpu")]
    ("words", weights::words),
    #[cfg(feature = "gpu")]
    ("template", weights::template),
    #[cfg(feature = "gpu")]
    ("router", weights::router),
];

/// Feeds `bytes` to the reader of this name.
///
/// # Panics
/// No reader of this name, and a reader that breaks a rule.
pub fn feed(name: &str, bytes: &[u8]) {
    let (_, reader) = ALL.iter().find(|(known, _)| *known == name).expect("a reader of this name");
    reader(bytes);
}

/// A folder for the files of one reader, of this thread; `fixed` are files that lie in it from the start.
fn folder(name: &str, fixed: &[(&str, &[u8])]) -> PathBuf {
    thread_local! {
        static ALL: tempfile::TempDir = tempfile::tempdir().expect("a folder for temporary files");
    }
    let folder = ALL.with(|all| all.path().join(name));
    if !folder.exists() {
        std::fs::create_dir(&folder).expect("a folder of its own");
        fixed.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).expect("a file"));
    }
    folder
}

/// A file of these bytes in a folder.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// What was accepted; a refusal is held to its rules.
fn accepted<T>(read: Result<T>) -> Option<T> {
    let error = match read {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let said = error.to_string();
    assert_eq!(error.exit_code(), 2, "{said}");
    assert!(!said.chars().any(char::is_control), "one line without control characters: {said:?}");
    assert!(said.chars().count() < 5000, "a short refusal: {said}");
    if let Error::Input(error) = &error {
        assert!(error.file.is_some(), "a refusal names its file: {said}");
        assert!(!error.expected.is_empty(), "{said}");
    }
    None
}

fn trace_jsonl(bytes: &[u8]) {
    let folder = folder("trace_jsonl", &[]);
    let path = file(&folder, "trace.jsonl", bytes);
    check_trace(trace::read(&path), &folder);
}

#[cfg(feature = "parquet")]
fn trace_parquet(bytes: &[u8]) {
    let folder = folder("trace_parquet", &[]);
    let path = file(&folder, "trace.parquet", bytes);
    check_trace(trace::read(&path), &folder);
}

/// What was read can be counted, and comes back equal when it is written and read again.
fn check_trace(read: Result<trace::Trace>, folder: &Path) {
    let Some(read) = accepted(read) else { return };
    let stats = trace::Stats::of(&read);
    assert!(stats.mean_prompt_tokens() >= 0.0 && stats.skipped() <= 1.0, "{stats:?}");
    assert!(read.requests.is_sorted_by_key(|request| request.arrival));
    let path = folder.join("again.jsonl");
    trace::write(&path, &read).expect("what was read can be written");
    let again = trace::read(&path).expect("what was written can be read");
    assert!(again == read, "a trace differs when it is written and read again");
}

/// The first byte is `0` for a format that is told from the file, or a later digit or letter for one of those that there are; the second
/// picks options. The file follows.
fn requests(bytes: &[u8]) {
    let [format, options, bytes @ ..] = bytes else { return };
    let formats = workload::RequestFormat::ALL;
    let reading = workload::Reading {
        format: format.checked_sub(b'1').map(|at| formats[usize::from(at) % formats.len()].0),
        skip_empty: *options == b's',
        time_unit: (*options == b't').then_some(workload::TimeUnit::Ms),
        block_tokens: (*options == b'b').then_some(16),
        characters_per_token: (*options == b'c').then_some(4.0),
        without_arrivals: *options == b'w',
        ..workload::Reading::default()
    };
    let path = file(&folder("requests", &[]), "requests", bytes);
    check_load(workload::read(&path, &reading));
}

/// Requests come by arrival from zero on, and each has tokens.
fn check_load(read: Result<workload::RequestSet>) {
    let Some(load) = accepted(read) else { return };
    assert!(load.requests.is_sorted_by_key(|request| request.arrival));
    assert!(load.requests.first().is_some_and(|request| request.arrival.ps() == 0));
    let ids: std::collections::HashSet<u64> = load.requests.iter().map(|request| request.id).collect();
    for (id, link) in &load.turns {
        assert!(
            *id != link.after && ids.contains(id) && ids.contains(&link.after),
            "{id} after {}",
            link.after
        );
    }
    for request in &load.requests {
        assert!(request.prompt_tokens > 0 && request.output_tokens > 0, "{request:?}");
        if let Some(block) = load.prefix_block {
            assert!(
                request.prefix.len() as u64 * u64::from(block)
                    < u64::from(request.prompt_tokens) + u64::from(block)
            );
        }
    }
}

/// The first byte picks the compression. The file is read as requests and as a trace.
fn compressed(bytes: &[u8]) {
    let [first, bytes @ ..] = bytes else { return };
    let name = if first % 2 == 0 { "file.jsonl.gz" } else { "file.jsonl.zst" };
    let folder = folder("compressed", &[]);
    let path = file(&folder, name, bytes);
    check_load(workload::read(&path, &workload::Reading::default()));
    check_trace(trace::read(&path), &folder);
}

/// Sizes can be asked for, and the text form can be written. The folder has weights of a small model.
fn config(bytes: &[u8]) {
    #[cfg(feature = "gpu")]
    let folder = weights::folder("config");
    #[cfg(not(feature = "gpu"))]
    let folder = folder("config", &[]);
    let path = file(&folder, "config.json", bytes);
    if let Some(model) = accepted(model::Model::from_config(&path)) {
        check_model(&model);
    }
    #[cfg(feature = "gpu")]
    let _ = weights::check(&folder);
}

fn check_model(model: &model::Model) {
    model.check().expect("a model that was read is within its bounds");
    assert!(!model.describe().is_empty());
    assert!(model.total_params() > 0 && model.weight_bytes(model.layers) > 0 && model.kv_entry_bytes() > 0);
}

fn scenario(bytes: &[u8]) {
    let path = file(&folder("scenario", &[]), "scenario.ron", bytes);
    let Some(read) = accepted(scenario::Scenario::load(&path, &[])) else { return };
    let again =
        read.with_values(&[("seed", &serde_json::json!(7))]).expect("a scenario that was read can be set");
    assert!(
        again == scenario::Scenario { seed: 7, set_by: again.set_by, ..read },
        "a scenario differs when it is set"
    );
}

fn profile(bytes: &[u8]) {
    let path = file(&folder("profile", &[]), "profile.ron", bytes);
    let Some(read) = accepted(hw::Hardware::load(&path)) else { return };
    let again = hw::Hardware::parse(&read.text(), &path).expect("what was written can be read");
    assert!(again == read, "a profile differs when it is written and read again");
}

fn fabric(bytes: &[u8]) {
    let path = file(&folder("fabric", &[]), "fabric.ron", bytes);
    let Some(read) = accepted(hw::Fabric::load(&path)) else { return };
    let again = hw::Fabric::parse(&read.text(), &path).expect("what was written can be read");
    assert!(again == read, "a fabric differs when it is written and read again");
    let devices = (read.levels[0].units.value as u32).min(8);
    let ranks =
        cost::Ranks::new(&read, devices, hw::Library::Vllm).expect("so many devices as a level joins");
    let price = |bytes| ranks.exchange(hw::Operation::AllReduce, bytes).time;
    assert!(price(1 << 10) <= price(1 << 20), "a larger message is faster");
}

fn study(bytes: &[u8]) {
    const SCENARIO: &[u8] = include_bytes!("../../examples/studies/power-and-policy.scenario.ron");
    let folder = folder("study", &[("scenario.ron", SCENARIO)]);
    let path = file(&folder, "study.ron", bytes);
    let Some(study) = accepted(study::Study::load(&path)) else { return };
    assert!(study.grid.count() > 0);
    for index in [0, study.grid.count() / 2, study.grid.count() - 1] {
        assert_eq!(study.grid.at(index).len(), study.grid.leaves().len());
    }
}
