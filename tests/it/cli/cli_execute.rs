//! `radialsim execute` from the outside: what it prints and writes, and what it refuses.

use crate::small_models::Small;
use radialsim::trace::read;
use safetensors::Dtype;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `radialsim execute`.
pub fn execute(weights: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_radialsim"));
    command.arg("execute").arg("--weights").arg(weights).args(args);
    if let Some(adapter) = std::env::var_os("RADIALSIM_ADAPTER") {
        command.arg("--adapter").arg(adapter);
    }
    command.output().expect("the program starts")
}

/// The line of an error, with its exit code.
fn error(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| line.starts_with("error: ") && !line.contains("XDG_RUNTIME_DIR"));
    (output.status.code().unwrap_or(-1), line.unwrap_or_default().to_owned())
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(false).write(folder.path(), Dtype::F32, 1);
    std::fs::write(
        folder.path().join("prompts.jsonl"),
        "{\"prompt_ids\":[1,2,3]}\n\n{\"prompt_ids\":[7]}\n{\"prompt_ids\":[9,8]}\n",
    )
    .expect("a writable folder");
    folder
}

#[test]
fn a_recorded_run_is_replayed_to_the_same_answers() {
    if crate::gpu().is_none() {
        return;
    }
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let prompts = at("prompts.jsonl");
    let run = |args: &[&str]| {
        let output =
            execute(folder.path(), &[&["--prompts", &prompts, "--max-tokens", "5", "-q"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty(), "results go to files");
    };
    run(&[
        "--oracle",
        "0.9,0.9",
        "--json",
        &at("a.jsonl"),
        "--trace",
        &at("a.trace.jsonl"),
        "--timeline",
        &at("a.json"),
        "--residuals",
        &at("a.csv"),
        "--residual-plot",
        &at("a.svg"),
        "--batch",
        "2",
    ]);
    let trace = read(at("a.trace.jsonl")).expect("a valid trace");
    assert_eq!(trace.requests.len(), 3);
    let taken: Vec<usize> = trace.routes.iter().map(|route| route.0.len()).collect();
    assert!(taken.iter().any(|&steps| steps < 3), "some branches are skipped: {taken:?}");

    run(&[
        "--replay",
        &at("a.trace.jsonl"),
        "--json",
        &at("b.jsonl"),
        "--trace",
        &at("b.trace.jsonl"),
        "--policy",
        "hop",
    ]);
    let again = read(at("b.trace.jsonl")).expect("a valid trace");
    let steps = |trace: &radialsim::trace::Trace| -> Vec<Vec<String>> {
        let of = |request: &radialsim::trace::Request| {
            request
                .runs
                .iter()
                .flat_map(|run| run.routes.iter())
                .map(|id| trace.routes.get(id).to_string())
                .collect()
        };
        trace.requests.iter().map(of).collect()
    };
    assert_eq!(steps(&trace), steps(&again));
    let answers = |name: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(at(name)).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let (a, b) = (answers("a.jsonl"), answers("b.jsonl"));
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a["greedy_ids"], b["greedy_ids"]);
        assert_eq!(a["prompt_ids"], b["prompt_ids"]);
        assert_eq!(a["attn_ratio_last"].as_array().map(Vec::len), Some(3));
        assert!(b["attn_ratio_last"].is_null(), "a replay measures nothing");
        assert_eq!(a["last_top5"].as_array().map(Vec::len), Some(5));
    }
    // A row for each token that was fed and each layer, in both files.
    let tokens: usize = steps(&trace).iter().map(Vec::len).sum();
    assert_eq!(std::fs::read_to_string(at("a.csv")).expect("a table").lines().count(), 1 + 3 * tokens);
    assert!(std::fs::read_to_string(at("a.svg")).expect("a picture").starts_with("<svg"));
    let timeline: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(at("a.json")).expect("a timeline")).expect("JSON");
    let events = timeline["traceEvents"].as_array().expect("events");
    let kernels = events.iter().filter(|event| event["args"]["source"] == "measured").count();
    let passes = events.iter().filter(|event| event["cat"] == "pass").count();
    assert!(kernels > 10 * passes && passes > 0, "{kernels} kernels in {passes} passes");
}

#[test]
fn wrong_arguments_and_files_are_refused_before_anything_runs() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let prompts = at("prompts.jsonl");
    std::fs::write(at("bad.jsonl"), "{\"prompt_ids\":[1]}\n{\"prompt\":1}\n").expect("a writable folder");
    std::fs::write(at("worse.jsonl"), "{\"prompt_ids\":[-1]}\n").expect("a writable folder");
    // The first line is one, behind its mark and with a number that nobody needs.
    std::fs::write(at("marked.jsonl"), "\u{feff}{\"prompt_ids\":[1],\"x\":NaN}\n{\"prompt_ids\":x}\n")
        .expect("a writable folder");
    let unified = ["--prompts", &prompts, "--route", "2 0", "--kv", "unified"];
    let cases: [(&[&str], i32, &str); 14] = [
        (&[], 2, ""),
        (&["--prompt", "x", "--prompts", &prompts], 2, ""),
        (&["--prompt", "x"], 2, "a tokenizer for text"),
        (&["--prompts", &at("bad.jsonl")], 2, "bad.jsonl:2"),
        (&["--prompts", &at("worse.jsonl")], 2, "prompt_ids"),
        (&["--prompts", &at("marked.jsonl")], 2, "marked.jsonl:2: prompt_ids: found x}"),
        (&["--prompts", &at("none.jsonl")], 2, "none.jsonl"),
        (&["--prompts", &prompts, "--route", "0 zero"], 2, "zero"),
        (&["--prompts", &prompts, "--oracle", "0.1,0.1", "--always", "3"], 2, "layers below 3"),
        (&["--prompts", &prompts, "--json", &at("x"), "--trace", &at("x")], 2, "a file of its own"),
        (&[&unified[..], &["--visibility", "some"]].concat(), 2, "one_per_token"),
        (&["--prompts", &prompts, "--visibility", "all_entries"], 2, "all_entries with write"),
        (&[&unified[..], &["--visibility", "one_per_token"]].concat(), 2, "ascend"),
        (&["--prompts", &prompts, "--adapter", "no such adapter"], 3, "no such adapter"),
    ];
    for (args, code, part) in cases {
        // A name of an adapter comes once.
        if args.contains(&"--adapter") && std::env::var_os("RADIALSIM_ADAPTER").is_some() {
            continue;
        }
        let (found, said) = error(&execute(folder.path(), args));
        assert_eq!(found, code, "{args:?}: {said}");
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    assert!(!Path::new(&at("x")).exists(), "no file is left");
    if crate::gpu().is_some() {
        let ran = execute(
            folder.path(),
            &[&unified[..], &["--visibility", "one_per_token", "--policy", "hop"]].concat(),
        );
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let (code, said) = error(&execute(Path::new("no such model"), &["--prompt", "x"]));
    assert!(code == 2 && said.contains("no such model"), "{said}");
}
