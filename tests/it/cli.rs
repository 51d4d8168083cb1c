//! The program as a user meets it: exit codes, messages, files.

#[cfg(feature = "gpu")]
pub mod cli_execute;
pub mod cli_json;
pub mod cli_trace;
#[cfg(feature = "train")]
pub mod cli_train;
pub mod entry_point;
pub mod examples;
pub mod quick;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const EXAMPLE: &str = "examples/smollm2-skip25-h100.ron";

/// The program with these arguments.
pub fn radialsim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_radialsim")).args(arguments).output().expect("the program starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

/// Fails with exactly this line on standard error, and says nothing on standard output.
pub fn refuses(arguments: &[&str], line: &str) {
    let out = radialsim(arguments);
    assert_eq!(text(&out.stderr), format!("error: {line}\n"), "{arguments:?}");
    assert_eq!(out.status.code(), Some(2), "{arguments:?}");
    assert!(out.stdout.is_empty(), "{arguments:?}");
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub fn names_in(folder: &Path) -> Vec<String> {
    let names =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// A scenario of a few requests, with `variants` and `title` as written.
pub fn small(folder: &Path, title: &str, variants: &str) -> PathBuf {
    let path = folder.join("small.ron");
    let scenario = format!(
        r#"(
    title: "{title}",
    model: "smollm2-135m",
    hardware: "nvidia-h100-sxm",
    workload: (requests: (count: 4, lengths: (prompt: Fixed(24), output: Uniform(low: 2, high: 9)),
        arrivals: Poisson(rate_per_s: 60.0))),
    serving: (max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true),
    dispatch: (policy: aligned),
    seed: 3,
    variants: [{variants}],
)
"#
    );
    std::fs::write(&path, scenario).unwrap();
    path
}

pub const SKIPS: &str = "Method(IndependentSkips(skip: 0.3, branches: Separately, kv: project_only))";

#[test]
fn usage_errors_exit_with_two_and_help_with_zero() {
    for arguments in [
        &["simulate"][..],
        &["nope"],
        &[],
        &["simulate", EXAMPLE, "--threads", "0"],
        &["trace", "synth", "x"],
    ] {
        let out = radialsim(arguments);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        assert!(out.stdout.is_empty(), "{arguments:?}");
        assert!(!out.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["simulate", "--help"], &["trace", "synth", "--help"]]
    {
        let out = radialsim(arguments);
        assert_eq!(out.status.code(), Some(0), "{arguments:?}");
        assert!(out.stderr.is_empty() && !out.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    refuses(&["simulate", "nope.ron"], "nope.ron: cannot open: No such file or directory (os error 2)");
    refuses(
        &["trace", "stats", "nope.jsonl"],
        "nope.jsonl: cannot read: No such file or directory (os error 2)",
    );
    refuses(
        &["simulate", EXAMPLE, "--set", "serving.nothing=3"],
        "--set serving.nothing: found nothing, expected max_batched_tokens, max_sequences, chunked_prefill, \
         kv_block_tokens, kv_blocks, gpu_memory_utilization, watermark, max_model_len, beyond_context, \
         first, queue, admission, preemption, async_scheduling, prefix_caching, sampling",
    );
    refuses(
        &["simulate", EXAMPLE, "--set", "hardware.memory.nope=1"],
        "--set hardware.memory.nope: found nope, expected capacity_gb, runtime_gb, usable_fraction, dram_gb_per_s, l2_mb, l2_gb_per_s, l2_peak_gb_per_s, l2_parts",
    );
    refuses(
        &["simulate", EXAMPLE, "--set", "variants.9.name=x"],
        "--set variants.9.name: found 9, expected an index below 7",
    );
    refuses(&["simulate", EXAMPLE, "--set", "serving"], "--set: found serving, expected KEY=VALUE");
    refuses(
        &["simulate", EXAMPLE, "--set", "serving.max_sequences=x"],
        "--set serving.max_sequences: found \"x\", expected a value that fits: invalid type: string \"x\", expected u32",
    );
}

#[test]
fn what_cannot_be_is_refused_before_anything_runs() {
    refuses(
        &["simulate", EXAMPLE, "--set", "hardware.memory.dram_gb_per_s=-1"],
        "hardware.memory.dram_gb_per_s: found -1, expected a number above 0, at most 1e12",
    );
    refuses(
        &["simulate", EXAMPLE, "--set", "limits.power_w=5", "--set", "hardware=nvidia-l4"],
        "limits.power_w: found 5, expected a finite cap above 8.4 W, which the device draws at its lowest clock",
    );
    refuses(
        &["simulate", EXAMPLE, "--set", "serving.max_sequences=0"],
        &format!("{EXAMPLE}:7: serving.max_sequences: found 0, expected 1 to 65536 sequences"),
    );
    let same = ["simulate", EXAMPLE, "--json", "/tmp/x", "--timeline", "/tmp/x"];
    refuses(&same, "--timeline: expected a file of its own, which is not that of --json");
}

#[test]
fn a_broken_scenario_is_refused_with_line_and_key() {
    let folder = folder();
    let path = small(folder.path(), "t", &format!("(name: \"a\", routes: {SKIPS})"));
    let good = std::fs::read_to_string(&path).unwrap();
    let shown = path.display();
    for (from, to, line) in [
        ("max_sequences: 8", "max_sequences: many", "7: serving.max_sequences: expected integer"),
        (
            "max_sequences: 8,",
            "",
            "7: serving.max_sequences: expected the key `max_sequences`, which is missing",
        ),
        ("seed: 3,", "", "11: seed: expected the key `seed`, which is missing"),
        (
            "max_sequences: 8",
            "max_sequence: 8",
            "7: serving.max_sequence: found an unknown key, expected one of",
        ),
        (
            "max_sequences: 8",
            "max_sequences: 700",
            "7: serving.max_sequences: found 700, expected at most max_batched_tokens",
        ),
        ("policy: aligned", "policy: aligne", "8: dispatch.policy: found aligne, expected one of"),
        ("count: 4", "count: 0", "5: workload.requests.count: found 0, expected at least 1 request"),
    ] {
        std::fs::write(&path, good.replace(from, to)).unwrap();
        let out = radialsim(&["simulate", path.to_str().unwrap()]);
        let said = text(&out.stderr);
        assert!(said.starts_with(&format!("error: {shown}:{line}")), "{to}: {said}");
        assert_eq!((out.status.code(), said.lines().count()), (Some(2), 1), "{to}: {said}");
    }
}

#[test]
fn nothing_is_left_under_the_name_of_a_file_that_failed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // The run fails after the files were begun.
    let out = radialsim(&[
        "simulate",
        EXAMPLE,
        "--set",
        "limits.power_w=5",
        "--json",
        &at("a.json"),
        "--timeline",
        &at("b"),
    ]);
    assert_eq!(out.status.code(), Some(2));
    assert!(names_in(folder.path()).is_empty(), "{:?}", names_in(folder.path()));

    // What was there stays.
    std::fs::write(at("a.json"), "before").unwrap();
    assert_eq!(radialsim(&["simulate", "nope.ron", "--json", &at("a.json")]).status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(at("a.json")).unwrap(), "before");

    let missing = at("no/such/a.json");
    refuses(
        &["simulate", EXAMPLE, "--json", &missing],
        &format!("{missing}: cannot write: entity not found"),
    );
    let is_folder = folder.path().canonicalize().unwrap().display().to_string();
    refuses(
        &["simulate", EXAMPLE, "--json", &is_folder],
        &format!("{is_folder}: cannot write: is a directory"),
    );
    assert_eq!(names_in(folder.path()), ["a.json"]);
}

#[test]
#[cfg(unix)]
fn a_device_is_written_to_and_not_replaced() {
    let folder = folder();
    let path = small(folder.path(), "t", &format!("(name: \"a\", routes: {SKIPS})"));
    let path = path.to_str().unwrap();
    let out = radialsim(&["simulate", path, "--json", "/dev/stdout"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).starts_with("{\n  \"schema\": 1,\n"));
    assert!(!Path::new("/dev/null").is_file());
    assert_eq!(radialsim(&["simulate", path, "--timeline", "/dev/null"]).status.code(), Some(0));
    assert!(!Path::new("/dev/null").is_file());
    let found =
        "found a folder, a device or a pipe, expected the name of a new file, or of a file to replace";
    refuses(
        &["trace", "convert", "examples/traces/smollm2-dense.jsonl", "/dev/null"],
        &format!("/dev/null: {found}"),
    );
}

#[test]
#[cfg(unix)]
fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_radialsim"));
    let out = command.args(["inspect", "hw", "nvidia-h100-sxm"]).stdout(writer).stderr(Stdio::piped());
    let out = out.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));

    if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
        let mut command = Command::new(env!("CARGO_BIN_EXE_radialsim"));
        let out = command.args(["inspect", "hw", "nvidia-h100-sxm"]).stdout(full).stderr(Stdio::piped());
        let out = out.spawn().unwrap().wait_with_output().unwrap();
        let said = "error: standard output: cannot write: No space left on device (os error 28)\n";
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(2), said.to_owned()));
    }
}

#[test]
fn a_gpu_that_is_not_there_exits_with_three() {
    let out = radialsim(&["inspect", "gpu"]);
    if cfg!(feature = "gpu") && out.status.code() == Some(0) {
        assert!(text(&out.stdout).contains("backend"));
        return;
    }
    assert_eq!(out.status.code(), Some(3));
    assert!(text(&out.stderr).starts_with("error: no GPU: "));
}

#[test]
fn a_seed_changes_what_is_drawn_and_a_setting_what_is_run() {
    let folder = folder();
    let path = small(folder.path(), "t", &format!("(name: \"a\", routes: {SKIPS})"));
    let path = path.to_str().unwrap();
    let shown = |more: &[&str]| text(&radialsim(&[&["simulate", "--full", path], more].concat()).stdout);
    let plain = shown(&[]);
    assert_eq!(plain, shown(&["--seed", "3"]));
    assert_ne!(plain, shown(&["--seed", "4"]));
    assert_eq!(shown(&["--seed", "4"]), shown(&["--set", "seed=4"]));
    let set = shown(&["--set", "hardware.memory.dram_gb_per_s=2000"]);
    assert!(set.contains("memory.dram_gb_per_s") && !plain.contains("memory.dram_gb_per_s"), "{set}");
}

#[test]
fn hostile_names_reach_no_terminal() {
    let folder = folder();
    let name = r"\u{1b}[31mred\u{7}\u{202e}\n\u{0}".to_owned() + &"wide\u{4e00}".repeat(60);
    let path = small(folder.path(), r"\u{1b}]0;title\u{7}", &format!("(name: \"{name}\", routes: {SKIPS})"));
    let at = |name: &str| folder.path().join(name);
    let [json, timeline] = [at("j.json"), at("t.json")];
    let files = [
        "--json",
        json.to_str().unwrap(),
        "--timeline",
        timeline.to_str().unwrap(),
        "--timeline-events",
        "9",
    ];
    let out = radialsim(&[&["simulate", path.to_str().unwrap()], &files[..]].concat());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    for said in [text(&out.stdout), text(&out.stderr)] {
        assert!(!said.contains(['\u{1b}', '\u{7}', '\u{202e}', '\0']), "{said:?}");
    }
    let root: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert!(root["variants"][0]["name"].as_str().unwrap().starts_with("\u{1b}[31mred"));
    serde_json::from_slice::<Value>(&std::fs::read(timeline).unwrap()).unwrap();

    let out = radialsim(&["simulate", "no\nsuch\u{1b}[31m.ron"]);
    assert_eq!(text(&out.stderr).lines().count(), 1);
    assert!(!text(&out.stderr).contains('\u{1b}'));
}

#[test]
fn inspect_says_what_files_hold() {
    for (arguments, words) in [
        (&["inspect", "model", "smollm2-135m"][..], &["parameters", "30 alike, 576 wide"][..]),
        (
            &["inspect", "hw", "nvidia-h100-sxm"],
            &["memory.dram_gb_per_s", "3350", "datasheet", "assumed", "compute.tiles"],
        ),
        (
            &["inspect", "trace", "examples/traces/smollm2-dense.jsonl"],
            &["1302 with a route", "Most frequent routes, 1 of 1", "0-29", "100.0 % go to the next layer"],
        ),
        (
            &["inspect", "trace", "examples/traces/smollm2-skip25.jsonl"],
            &["24 -> 26", "oracle_threshold", "of 880"],
        ),
        (&["inspect", "scenario", EXAMPLE], &["recorded, queued", "Assumed: ", "at most 64 sequences"]),
    ] {
        let out = radialsim(arguments);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let shown = text(&out.stdout);
        for word in words {
            assert!(shown.contains(word), "{arguments:?}: no {word} in\n{shown}");
        }
        assert!(shown.lines().all(|line| line.chars().count() <= 120), "{arguments:?}:\n{shown}");
    }
}

/// Some editors put a byte order mark before what people write: scenarios, profiles, studies, methods.
#[test]
fn a_byte_order_mark_is_passed_over() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let scenario = small(folder.path(), "one", "(name: \"dense\", routes: Method(Dense))");
    let scenario = std::fs::read_to_string(scenario).unwrap();
    let profile = std::fs::read_to_string("hw-profiles/nvidia-h100-sxm.ron").unwrap();
    let study =
        "(title: \"one\", question: \"?\", scenario: \"small.ron\", objectives: [Least(\"tpot_s.p50\")])";
    let method = "EarlyExit(exits: Each([(5, 0.5), (30, 0.5)]), kv: copy_state)";
    let run = |mark: &str| {
        for (name, text) in
            [("small.ron", &*scenario), ("hw.ron", &*profile), ("study.ron", study), ("method.ron", method)]
        {
            std::fs::write(path(name), format!("{mark}{text}")).unwrap();
        }
        let out = |arguments: &[&str]| {
            let out = radialsim(arguments);
            assert_eq!(out.status.code(), Some(0), "{mark:?} {arguments:?}: {}", text(&out.stderr));
            text(&out.stdout)
        };
        let (trace, points) = (path("trace.jsonl"), path(if mark.is_empty() { "plain" } else { "marked" }));
        let synth = "--layers 30 --requests 2 --prompt Fixed(9) --output Fixed(2) --arrivals Closed --seed 1";
        let synth: Vec<&str> = synth.split(' ').collect();
        out(&[&["trace", "synth"], &*synth, &[&path("method.ron"), &trace]].concat());
        out(&["sweep", &path("study.ron"), "--out", &points, "--quiet"]);
        let hardware = format!("hardware=\"{}\"", path("hw.ron"));
        let run = out(&["simulate", &path("small.ron"), "--quiet", "--set", &hardware]);
        (run, std::fs::read(&trace).unwrap())
    };
    assert_eq!(run("\u{feff}"), run(""));
}
