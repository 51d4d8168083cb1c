//! The program as a user meets it: exit codes, messages, files, and the same bytes every time.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const EXAMPLE: &str = "examples/smollm2-skip25-h100.ron";

/// The program with these arguments; the second line of the shortest of scenarios has a router to be assumed.
pub fn radialsim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_radialsim")).args(arguments).output().expect("the program starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

/// Fails with exactly this line on standard error, and says nothing on standard output.
fn refuses(arguments: &[&str], line: &str) {
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
        "--set serving.nothing: found nothing, expected max_batched_tokens, max_sequences, chunked_prefill",
    );
    refuses(
        &["simulate", EXAMPLE, "--set", "hardware.memory.nope=1"],
        "--set hardware.memory.nope: found nope, expected capacity_gb, usable_fraction, dram_gb_per_s, l2_mb, l2_gb_per_s",
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
        &["simulate", EXAMPLE, "--set", "limits.power_w=5"],
        "limits.power_w: found 5, expected a finite cap above the static power of 215 W",
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

/// Kinds of the keys that others read, as JSON pointers.
const NUMBERS: &[&str] = &[
    "/requests",
    "/prompt_tokens",
    "/output_tokens",
    "/makespan_s",
    "/output_tokens_per_s",
    "/energy_j",
    "/energy_per_output_token_j",
    "/power_w/mean",
    "/power_w/peak",
    "/memory_bytes/weights",
    "/memory_bytes/kv_peak",
    "/memory_bytes/activations_peak",
    "/memory_bytes/total_peak",
    "/memory_bytes/capacity",
    "/work/flops",
    "/work/bytes",
    "/work/kernel_launches",
    "/work/layer_visits",
    "/work/mean_depth",
    "/work/layer_weights_read",
    "/busy/host",
    "/busy/compute",
    "/busy/copy",
    "/bounds/critical_path_s",
    "/bounds/work_over_peak_s",
    "/pass_time_s",
    "/ttft_s/mean",
    "/ttft_s/p50",
    "/ttft_s/p90",
    "/ttft_s/p99",
    "/tpot_s/mean",
    "/tpot_s/p50",
    "/tpot_s/p90",
    "/tpot_s/p99",
    "/e2e_s/mean",
    "/e2e_s/p50",
    "/e2e_s/p90",
    "/e2e_s/p99",
    "/losses_s/dense",
    "/losses_s/saving",
    "/losses_s/union",
    "/losses_s/fragmentation",
    "/losses_s/kv",
    "/losses_s/router",
    "/losses_s/gather_scatter",
    "/losses_s/launch",
    "/losses_s/waiting",
    "/losses_s/other",
    "/losses_s/left",
    "/time_by_cause_s/embed",
    "/time_by_cause_s/attention",
    "/time_by_cause_s/feed_forward",
    "/time_by_cause_s/adapter",
    "/time_by_cause_s/kv",
    "/time_by_cause_s/router",
    "/time_by_cause_s/gather_scatter",
    "/time_by_cause_s/head",
    "/time_by_cause_s/launch",
    "/time_by_bound_s/compute",
    "/time_by_bound_s/dram",
    "/time_by_bound_s/l2",
    "/time_by_bound_s/fixed",
    "/time_by_bound_s/power_cap",
    "/time_by_source_s/measured",
    "/time_by_source_s/fitted",
    "/time_by_source_s/datasheet",
    "/time_by_source_s/assumed",
];
const WORDS: &[&str] = &["/name", "/hardware", "/model", "/scenario", "/policy", "/digest"];

#[test]
fn the_json_has_every_key_that_others_read() {
    let folder = folder();
    let json = folder.path().join("out.json");
    let out = radialsim(&["simulate", EXAMPLE, "--json", json.to_str().unwrap(), "--quiet"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let root: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(root["schema"], 1);
    let keys: Vec<&String> = root.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["schema", "variants", "assumed"]);
    let variants = root["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 7);
    for variant in variants {
        let at = |path: &str| variant.pointer(path).unwrap_or_else(|| panic!("{path} is missing"));
        for path in NUMBERS {
            assert!(at(path).as_f64().is_some_and(f64::is_finite), "{path}: {}", at(path));
        }
        for path in WORDS {
            assert!(at(path).is_string(), "{path}: {}", at(path));
        }
        let sum = |path: &str| at(path).as_object().unwrap().values().filter_map(Value::as_f64).sum::<f64>();
        let busy = at("/busy/compute").as_f64().unwrap() * at("/makespan_s").as_f64().unwrap();
        for path in ["/time_by_cause_s", "/time_by_bound_s", "/time_by_source_s"] {
            assert!((sum(path) - busy).abs() <= 1e-9 * busy, "{path} adds up to the kernel time");
        }
        let loss = |key: &str| at(&format!("/losses_s/{key}")).as_f64().unwrap();
        let left = loss("dense") - at("/pass_time_s").as_f64().unwrap();
        assert!(
            (left - loss("left")).abs() < 1e-9,
            "what is left is the real saving: {left} {}",
            loss("left")
        );
    }
    let assumed = root["assumed"].as_array().unwrap();
    assert!(!assumed.is_empty());
    for note in assumed {
        let keys: Vec<&String> = note.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["key", "value", "why"]);
        assert!(note.as_object().unwrap().values().all(Value::is_string));
    }
}

#[test]
fn the_same_bytes_for_any_number_of_threads_and_every_time() {
    let folder = folder();
    let run = |name: &str, threads: &str| {
        let [json, timeline] = ["json", "trace"].map(|ending| folder.path().join(format!("{name}.{ending}")));
        let files = ["--json", json.to_str().unwrap(), "--timeline", timeline.to_str().unwrap()];
        let arguments = ["simulate", EXAMPLE, "--threads", threads, "--timeline-events", "7000"];
        let out = radialsim(&[&arguments[..], &files].concat());
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        (text(&out.stdout), std::fs::read(json).unwrap(), std::fs::read(timeline).unwrap())
    };
    let first = run("a", "1");
    assert!(first == run("b", "1"), "two runs differ");
    assert!(first == run("c", "2"), "one thread and two differ");
    assert!(first.0.lines().all(|line| line.chars().count() <= 120), "the report fits a terminal");
}

#[test]
fn a_seed_changes_what_is_drawn_and_a_setting_what_is_run() {
    let folder = folder();
    let path = small(folder.path(), "t", &format!("(name: \"a\", routes: {SKIPS})"));
    let path = path.to_str().unwrap();
    let shown = |more: &[&str]| text(&radialsim(&[&["simulate", path], more].concat()).stdout);
    let plain = shown(&[]);
    assert_eq!(plain, shown(&["--seed", "3"]));
    assert_ne!(plain, shown(&["--seed", "4"]));
    assert_eq!(shown(&["--seed", "4"]), shown(&["--set", "seed=4"]));
    let set = shown(&["--set", "hardware.memory.dram_gb_per_s=2000"]);
    assert!(set.contains("memory.dram_gb_per_s") && !plain.contains("memory.dram_gb_per_s"), "{set}");
}

#[test]
fn several_scenarios_get_a_table_each_and_one_json() {
    let folder = folder();
    let path = small(folder.path(), "the small one", &format!("(name: \"a\", routes: {SKIPS})"));
    let json = folder.path().join("both.json");
    let out = radialsim(&["simulate", path.to_str().unwrap(), EXAMPLE, "--json", json.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    assert!(
        shown.contains("the small one\n")
            && shown.contains("SmolLM2-135M, recorded routes (skip25), H100 SXM\n")
    );
    let root: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let scenarios: Vec<&str> =
        root["variants"].as_array().unwrap().iter().filter_map(|v| v["scenario"].as_str()).collect();
    assert_eq!((scenarios.len(), scenarios[0]), (8, "the small one"));
    let notes = root["assumed"].as_array().unwrap();
    let distinct: std::collections::HashSet<String> = notes.iter().map(Value::to_string).collect();
    assert_eq!(notes.len(), distinct.len(), "each assumption once");
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
