//! Requests in scenarios and on the command line: do they reach the variants, with what was done to them at the foot?

use crate::cli::{folder, radialsim, text};
use crate::workload::requests::reading;
use radialsim::error::Error;
use radialsim::scenario::Scenario;
use radialsim::units::SimTime;
use radialsim::workload::*;
use std::path::{Path, PathBuf};

/// A scenario with this workload, beside a request file of three rows, 10 ms apart.
pub fn scenario(folder: &Path, workload: &str, routes: &str) -> PathBuf {
    let rows = "arrival_time_ms,input_tokens,output_tokens\n5,30,4\n15,20,3\n25,40,5\n";
    std::fs::write(folder.join("rows.csv"), rows).unwrap();
    let trace = std::fs::canonicalize("examples/traces/smollm2-skip25.jsonl").unwrap();
    let text = format!(
        r#"(
    title: "requests",
    model: "smollm2-135m",
    hardware: "nvidia-h100-sxm",
    workload: ({}),
    serving: (max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true),
    dispatch: (policy: aligned),
    seed: 3,
    variants: [(name: "one", routes: {routes})],
)
"#,
        workload.replace("TRACE", &format!("trace: {trace:?}"))
    );
    let path = folder.join("scenario.ron");
    std::fs::write(&path, text).unwrap();
    path
}

type Notes = Vec<(String, String)>;

fn built(workload: &str, routes: &str, set: &[&str]) -> (radialsim::scenario::Built, Notes) {
    let folder = folder();
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    let scenario = Scenario::load(&scenario(folder.path(), workload, routes), &set).unwrap();
    let (mut built, notes) = scenario.build().unwrap();
    let ours = notes.into_iter().filter(|note| note.key.starts_with("workload"));
    (built.remove(0), ours.map(|note| (note.key, note.value)).collect())
}

#[test]
fn a_file_is_a_workload() {
    let (dense, notes) = built(r#"file: (path: "rows.csv")"#, "Method(Dense)", &[]);
    let rows: Vec<_> =
        dense.trace.requests.iter().map(|r| (r.arrival.us(), r.prompt_tokens, r.output_tokens)).collect();
    assert_eq!(rows, [(0.0, 30, 4), (10_000.0, 20, 3), (20_000.0, 40, 5)]);
    assert!(dense.trace.requests.iter().all(|request| request.advanced() > 0), "routes for all");
    assert!(notes.is_empty() && dense.setup.clients.is_none());

    let cut = r#"file: (path: "rows.csv", format: lengths, most_prompt_tokens: 25), TRACE"#;
    let (drawn, notes) = built(cut, "Recorded", &["workload.file.time_scale=0.5"]);
    assert_eq!(drawn.trace.requests.iter().map(|r| r.prompt_tokens).collect::<Vec<_>>(), [25, 20, 25]);
    assert_eq!(drawn.trace.requests[2].arrival.us(), 10_000.0);
    assert!(drawn.trace.requests.iter().all(|request| request.advanced() > 0));
    let keys: Vec<&str> = notes.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        ["workload.file.time_scale", "workload.file.most_prompt_tokens", "workload.file"],
        "what was set, cut and drawn"
    );
}

#[test]
fn clients_and_priorities_reach_the_variants() {
    let drawn = "requests: (count: 9, lengths: (prompt: Fixed(8), output: Geometric(mean: 4)),
        arrivals: Clients(count: 3, think_s: Exponential(0.5)), priorities: [(priority: 4, share: 1)])";
    for (workload, routes) in [(drawn.to_owned(), "Method(Dense)"), (format!("{drawn}, TRACE"), "Recorded")] {
        let (one, _) = built(&workload, routes, &[]);
        let clients = one.setup.clients.expect("clients");
        let alone = Arrivals::Clients { count: 3, think_s: Think::Exponential(0.5) }.clients(9, 3).unwrap();
        assert_eq!(Some(clients), alone);
        assert!(one.trace.requests.iter().all(|r| (r.arrival, r.priority) == (SimTime::ZERO, 4)));
        assert_eq!(one.trace.requests.iter().map(|r| r.id).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    }
}

#[test]
fn two_sources_or_a_wrong_file_are_refused() {
    let requests = "requests: (count: 1, lengths: (prompt: Fixed(8), output: Fixed(1)), arrivals: Closed)";
    for (workload, key, expected) in [
        (format!(r#"{requests}, file: (path: "rows.csv")"#), Some("workload"), "requests or a file"),
        (String::new(), Some("workload"), "a trace, requests or a file"),
        (r#"file: (path: "rows.csv", format: azure)"#.into(), Some("TIMESTAMP"), "one column of this name"),
        (r#"file: (path: "rows.csv", start_s: 7)"#.into(), Some("start_s"), "a window with a request"),
    ] {
        let folder = folder();
        let scenario = Scenario::load(&scenario(folder.path(), &workload, "Method(Dense)"), &[]).unwrap();
        let Err(Error::Input(error)) = scenario.build() else { panic!("{workload}") };
        assert_eq!(error.key.as_deref(), key, "{error}");
        assert!(error.expected.contains(expected), "{error}");
    }
    let folder = folder();
    let wrong = scenario(folder.path(), r#"file: (path: "rows.csv", format: azur)"#, "Method(Dense)");
    let Err(Error::Input(error)) = Scenario::load(&wrong, &[]) else { panic!("an unknown format") };
    assert_eq!((error.line, error.found.as_deref()), (Some(5), Some("azur")));
    for (_, name) in RequestFormat::ALL {
        assert!(error.expected.contains(name), "{error}");
    }
}

/// A hash stands for 512 tokens in Mooncake's files; other blocks would find what is not there.
#[test]
fn prefix_blocks_must_be_those_of_the_file() {
    let folder = folder();
    let line = r#"{"timestamp": 0, "input_length": 700, "output_length": 2, "hash_ids": [1, 2]}"#;
    std::fs::write(folder.path().join("rows.jsonl"), format!("{line}\n{line}\n")).unwrap();
    let scenario = scenario(folder.path(), r#"file: (path: "rows.jsonl")"#, "Method(Dense)");
    let with = |tokens: u32| {
        let set = format!("serving.prefix_caching={{\"block_tokens\":{tokens}}}");
        Scenario::load(&scenario, &[set]).unwrap().build()
    };
    let Err(Error::Input(error)) = with(256) else { panic!("blocks of 256") };
    assert_eq!(error.key.as_deref(), Some("serving.prefix_caching.block_tokens"));
    let (built, _) = with(512).unwrap();
    let ledger = built[0].run(&mut radialsim::sim::Silent).unwrap();
    assert_eq!(ledger.cached_tokens, 512, "the second begins behind the first block");
}

#[test]
fn the_program_looks_at_request_files() {
    let folder = folder();
    scenario(folder.path(), "", "Method(Dense)");
    let path = folder.path().join("rows.csv");
    let out = radialsim(&["inspect", "requests", path.to_str().unwrap()]);
    let said = text(&out.stdout);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
    for part in [
        "requests       3\n",
        "over 20.000 ms, 100.0 a second",
        "mean 30.00",
        "90 prompt and 12 output tokens",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let out = radialsim(&["inspect", "requests", path.to_str().unwrap(), "--format", "mooncake"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("rows.csv:1: "), "{}", text(&out.stderr));
    let out = radialsim(&["inspect", "requests", path.to_str().unwrap(), "--format", "excel"]);
    assert!(text(&out.stderr).contains("azure, mooncake, bailian, lengths, vllm, aiperf"));

    let made = folder.path().join("t.jsonl");
    let out = radialsim(&[
        "trace",
        "synth",
        "--method",
        "Dense",
        "--layers",
        "2",
        "--requests",
        "3",
        "--prompt",
        "Fixed(3)",
        "--output",
        "Fixed(1)",
        "--arrivals",
        "Clients(count: 1, think_s: Fixed(1))",
        "--seed",
        "1",
        made.to_str().unwrap(),
    ]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("--arrivals") && !made.exists());
}

/// Each name that the page lists is read, in the unit that it says.
#[test]
fn the_names_of_the_page_are_those_of_the_reader() {
    let page = std::fs::read_to_string("docs/REQUESTS.md").unwrap();
    let names = |what: &str| -> Vec<String> {
        let row = page.lines().find(|line| line.starts_with(&format!("| {what} |"))).expect("a row");
        row.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let folder = folder();
    let path = folder.path().join("names.csv");
    let read_in = |time_unit, arrival: &str, late: &str, prompt: &str, output: &str| {
        std::fs::write(&path, format!("{arrival},{prompt},{output}\n0,2,3\n{late},4,5\n")).unwrap();
        let load = read(&path, &Reading { time_unit, ..reading(Some(RequestFormat::Lengths)) }).unwrap();
        let last = &load.requests[1];
        assert_eq!(
            (last.arrival.us(), last.prompt_tokens, last.output_tokens),
            (2e6, 4, 5),
            "{arrival} {prompt}"
        );
    };
    let read_with = |arrival: &str, late: &str, prompt: &str, output: &str| {
        read_in(None, arrival, late, prompt, output);
    };
    let (seconds, others) = (names("arrival, in seconds"), names("arrival, in other units"));
    assert!(seconds.len() + others.len() >= 12);
    for name in &seconds {
        read_with(name, "2", "input_toks", "output_toks");
    }
    for name in &others {
        let digits = ["ms", "us", "ns"].iter().position(|unit| name.ends_with(unit)).expect("a unit");
        read_with(name, &format!("2{}", "000".repeat(digits + 1)), "input_toks", "output_toks");
    }
    for name in names("arrival, in a unit to be told") {
        read_in(Some(TimeUnit::S), &name, "2", "input_toks", "output_toks");
    }
    for name in names("prompt tokens") {
        read_with("arrived_at", "2.0", &name, "output_toks");
    }
    for name in names("output tokens") {
        read_with("arrived_at", "2e0", "input_toks", &name);
    }
}
