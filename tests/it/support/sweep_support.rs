//! A small study with a search, and what its runs leave in a folder.

use crate::cli::{names_in, radialsim, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

pub const JOURNAL: &str = "shard-1-of-1.jsonl";

const SCENARIO: &str = r#"(
    title: "t",
    model: "smollm2-135m",
    hardware: "nvidia-h100-sxm",
    workload: (requests: (count: 4, lengths: (prompt: Fixed(24), output: Uniform(low: 2, high: 9)),
        arrivals: Poisson(rate_per_s: 60.0))),
    serving: (max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true),
    dispatch: (policy: aligned),
    fidelity: step,
    seed: 3,
    variants: [
        (name: "dense", routes: Method(Dense)),
        (name: "skips", routes: Method(IndependentSkips(
            skip: 0.3, branches: Separately, kv: project_only, router: (hidden: 256, device: host),
        ))),
    ],
)
"#;

/// 60 points, and those that the search asks for: alone, a request is faster with skips where memory is slow.
const STUDY: &str = r#"(
    title: "t",
    question: "q",
    scenario: "scenario.ron",
    seeds: 2,
    axes: [
        Values(key: "serving.max_sequences", values: [1, 2, 4]),
        LogRange(name: "bandwidth", key: "hardware.memory.dram_gb_per_s", from: 10, to: 5000, count: 10),
        Values(name: "chunks", key: "serving.chunked_prefill", values: [true, false]),
    ],
    objectives: [Least("tpot_s.p50"), Least("energy_per_output_token_j")],
    searches: [BreakEven(axis: "bandwidth", variants: ["skips"], against: "dense", of: Least("tpot_s.p50"))],
)
"#;

/// The study and its scenario in this folder, each changed by replacing texts that it has.
pub fn changed(folder: &Path, study: &[(&str, &str)], scenario: &[(&str, &str)]) -> PathBuf {
    let replaced = |name: &str, text: &str, changes: &[(&str, &str)]| {
        let text = changes.iter().fold(text.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{name} has no {from}");
            text.replacen(from, to, 1)
        });
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    replaced("scenario.ron", SCENARIO, scenario);
    replaced("study.ron", STUDY, study)
}

/// 5 points of one setting, and those that the search asks for.
pub const FEW: &[(&str, &str)] = &[
    ("[1, 2, 4]", "[1]"),
    ("count: 10", "count: 5"),
    ("[true, false]", "[true]"),
    ("dense\", of", "dense\", tolerance: 0.3, of"),
];

/// What happens with these paths and words behind `sweep` or `merge`.
pub fn program(words: &[&str]) -> (Option<i32>, String) {
    let out = radialsim(words);
    // The answer, unless it is not wanted or there is none yet.
    let says_nothing = words.contains(&"--quiet") || out.status.code() != Some(0);
    assert!(out.stdout.is_empty() || !says_nothing, "{words:?}");
    (out.status.code(), text(&out.stderr))
}

#[track_caller]
pub fn sweep(study: &Path, out: &Path, more: &[&str]) {
    let words = ["sweep", study.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"];
    assert_eq!(program(&[&words, more].concat()), (Some(0), String::new()), "{more:?}");
}

/// The one line on standard error of a sweep that exits with 2.
#[track_caller]
pub fn refused(study: &Path, out: &Path) -> String {
    let (code, said) =
        program(&["sweep", study.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"]);
    only_line(code, &said)
}

#[track_caller]
pub fn only_line(code: Option<i32>, said: &str) -> String {
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    said.strip_prefix("error: ").unwrap_or_else(|| panic!("{said}")).trim_end().to_owned()
}

/// Files that are written in the end.
fn results() -> Vec<&'static str> {
    let mut names = vec!["answers.csv", "points.csv", "points.parquet", "report.html"];
    names.retain(|name| cfg!(feature = "parquet") || !name.ends_with(".parquet"));
    names
}

/// All final files are there and equal.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    for name in results() {
        let [a, b] = [a, b].map(|folder| std::fs::read(folder.join(name)));
        assert!(a.unwrap() == b.unwrap(), "{name} differs");
    }
}

/// Final files that are there are equal to those of `whole`.
#[track_caller]
pub fn assert_none_partial(out: &Path, whole: &Path) {
    for name in names_in(out).into_iter().filter(|name| results().contains(&name.as_str())) {
        let [a, b] = [out, whole].map(|folder| std::fs::read(folder.join(&name)).unwrap());
        assert!(a == b, "{name} is there and not whole");
    }
}

/// Lines of a journal with their line breaks, as far as they are whole; the first one is its head.
pub fn lines(journal: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(journal).unwrap_or_default();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.map(<[u8]>::to_vec).collect()
}

/// The cases of all journals in a folder. Fails where a whole line is none.
pub fn cases(folder: &Path) -> Vec<String> {
    let journals = names_in(folder).into_iter().filter(|name| name.ends_with(".jsonl"));
    let entries = journals.flat_map(|name| lines(&folder.join(name)).into_iter().skip(1));
    let id = |line: Vec<u8>| {
        let entry: Value = serde_json::from_slice(&line).expect("a whole line is JSON");
        entry["id"].as_str().expect("a case has an id").to_owned()
    };
    entries.map(id).collect()
}

pub fn sorted(mut cases: Vec<String>) -> Vec<String> {
    cases.sort();
    cases
}

/// Kills the program as soon as `is_time`. False where it had ended.
pub fn strike(mut program: Child, mut is_time: impl FnMut() -> bool) -> bool {
    while !is_time() && program.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    program.kill().unwrap();
    program.wait().unwrap().code().is_none()
}
