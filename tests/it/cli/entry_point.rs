//! The library's entry point gives what the program gives, and says what is wrong as a library does.

use radialsim::scenario::{Scenario, run};
use radialsim::sim::Silent;
use radialsim::{Error, InputError, RouteSource, Simulation};
use std::path::{Path, PathBuf};

const SKIPS: &str = "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)";

fn method(text: &str) -> RouteSource {
    RouteSource::Method(text.into())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: radialsim::Result<T>) -> InputError {
    match result.expect_err("refused") {
        Error::Input(mistake) => *mistake,
        other => panic!("no input error: {other}"),
    }
}

#[test]
fn a_scenario_file_gives_the_json_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/batch-union.ron");
    let settings = [("serving.max_sequences", "4"), ("workload.requests.count", "4")];
    let results = Simulation::from_file(&path, &settings).expect("a scenario").run().expect("it runs");
    let words = settings.map(|(key, value)| format!("{key}={value}"));
    let scenario = Scenario::load(&path, &words).expect("the same scenario");
    let (outcome, _) = run(&scenario, 1, &(), |_, _| Silent).expect("it runs");
    assert_eq!(results.json(), radialsim::report::json::render(&[outcome]));

    let object: serde_json::Value = serde_json::from_str(&results.json()).expect("JSON");
    let rows = object["variants"].as_array().expect("a list");
    assert_eq!(results.rows().len(), rows.len());
    for (row, object) in results.rows().iter().zip(rows) {
        assert_eq!(row.name(), object["name"]);
        assert_eq!(row.number("ttft_s.p99"), object["ttft_s"]["p99"].as_f64());
        assert_eq!(row.text("policy"), object["policy"].as_str());
        assert_eq!(row.number("policy"), None);
        assert_eq!(row.number("no.such.key"), None);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&row.json()).expect("JSON"), *object);
    }
    assert_eq!(results.row("static"), Some(&results.rows()[1]));
    assert_eq!(results.row("nobody"), None);
}

#[test]
fn the_builder_gives_what_its_scenario_gives() {
    let builder = || {
        Simulation::builder("llama-2-7b", "nvidia-h100-sxm", method(SKIPS))
            .batch(4)
            .requests(6)
            .prompt(16)
            .output(4)
            .rate(50.0)
            .policies(["aligned", "hop"])
    };
    let text = builder().scenario().expect("a text");
    let built = builder().build().expect("built").run().expect("it runs");
    let read = Simulation::from_ron(&text, "").expect("a scenario").threads(1).run().expect("it runs");
    assert_eq!(built.json(), read.json());
    let policies: Vec<_> = built.rows()[1..].iter().map(|row| row.text("policy")).collect();
    assert_eq!(policies, [Some("aligned"), Some("hop")]);
    assert!(!built.verdict().is_empty() && built.screen().contains(built.rows()[1].name()));

    let slower = builder().set("hardware.memory.dram_gb_per_s", 300).build().expect("built").run();
    let tpot =
        |results: &radialsim::Results| results.rows()[0].number("tpot_s.mean").expect("there are gaps");
    assert!(tpot(&slower.expect("it runs")) > 2.0 * tpot(&built));
    let seeded = builder().build().expect("built").seed(2).seeds(2).expect("two").run().expect("it runs");
    assert_eq!(seeded.rows()[0].number("confidence.seeds"), Some(2.0));
}

/// Keys are those that the caller wrote; files are files.
#[test]
fn mistakes_have_places() {
    let builder = |method: RouteSource| Simulation::builder("llama-2-7b", "nvidia-h100-sxm", method);
    let mistake = refused(builder(method("Sideways(skip: 1)")).build());
    assert_eq!((mistake.file, mistake.key.as_deref()), (None, Some("method")));
    let mistake = refused(builder(method(SKIPS)).set("serving.max_seqs", 3).build());
    assert_eq!((mistake.file, mistake.key.as_deref()), (None, Some("serving.max_seqs")));
    let mistake = refused(builder(method(SKIPS)).batch(0).build());
    assert_eq!(
        (mistake.file, mistake.line, mistake.key.as_deref()),
        (None, None, Some("serving.max_sequences"))
    );
    let text = "(\n    title: \"t\",\n    modle: \"x\",\n)";
    let mistake = refused(Simulation::from_ron(text, ""));
    assert_eq!((mistake.file, mistake.line, mistake.key.as_deref()), (None, Some(3), Some("modle")));
    let unknown = Simulation::builder("llama-9-9b", "nvidia-h100-sxm", method(SKIPS)).build();
    let mistake = refused(unknown.expect("names are looked up by run").run());
    assert_eq!(mistake.key.as_deref(), Some("model"));
    assert_eq!(
        refused(builder(method(SKIPS)).build().expect("built").seeds(0)).key.as_deref(),
        Some("seeds")
    );

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.ron");
    std::fs::write(&path, text).expect("written");
    let mistake = refused(Simulation::from_file(&path, &[]));
    assert_eq!((mistake.file, mistake.line), (Some(path), Some(3)));

    let trace = folder.path().join("bad.jsonl");
    std::fs::write(&trace, "{}\n").expect("written");
    let mistake = refused(builder(RouteSource::Trace(trace.clone())).build());
    assert_eq!((mistake.file, mistake.line), (Some(trace), Some(1)));
    let absent = builder(RouteSource::Trace(PathBuf::from("no/such.jsonl"))).build();
    assert!(matches!(absent, Err(Error::Io { .. })));
}
