//! `simulate` without a file, the lists, completions and manual pages.

use crate::cli::{folder, radialsim, text};
use radialsim::batch::Policy;
use radialsim::report::list::{METHODS, POLICIES};
use radialsim::scenario::Scenario;
use radialsim::trace::synth::{Method, generate};
use radialsim::units::SimTime;
use serde_json::Value;

const TRACE: &str = "examples/traces/smollm2-skip25.jsonl";

#[track_caller]
fn runs(words: &[&str]) -> String {
    let out = radialsim(words);
    assert_eq!(out.status.code(), Some(0), "{words:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

#[track_caller]
fn refused(words: &[&str], part: &str) {
    let out = radialsim(words);
    assert_eq!(out.status.code(), Some(2), "{words:?}");
    assert!(text(&out.stderr).contains(part), "{words:?}: {}", text(&out.stderr));
}

/// What the options make is a scenario: written, it runs to the same numbers, from another folder too.
#[test]
fn a_comparison_without_a_file_is_a_scenario() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (saved, one, two) = (at("saved.ron"), at("one.json"), at("two.json"));
    for more in [
        &["--batch", "3", "--policy", "aligned,hop"][..],
        &[
            "--prompt",
            "40",
            "--output",
            "6",
            "--rate",
            "500.5",
            "--requests",
            "9",
            "--set",
            "serving.watermark=0",
        ],
        &["--no-static", "--output", "6", "--seed", "4"],
    ] {
        let words = ["simulate", "--trace", TRACE, "--model", "smollm2-135m", "--hardware", "nvidia-l4"];
        runs(&[&words, more, &["--save-scenario", &saved, "--json", &one]].concat());
        // The options that do not make the scenario come again.
        let again: Vec<&str> = match more.iter().position(|word| ["--set", "--seed"].contains(word)) {
            Some(place) => more[place..place + 2].to_vec(),
            None => Vec::new(),
        };
        runs(&[&["simulate", &saved, "--json", &two], again.as_slice()].concat());
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&one), read(&two), "{more:?}");
        let root: Value = serde_json::from_str(&read(&one)).unwrap();
        let names: Vec<&str> =
            root["variants"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names[0], "dense");
        assert_eq!(names.contains(&"static, middle dropped"), !more.contains(&"--no-static"), "{names:?}");
        assert_eq!(names.contains(&"recorded, hop"), more.contains(&"aligned,hop"), "{names:?}");
        if more.contains(&"--requests") {
            assert_eq!(root["variants"][0]["requests"], 9);
            assert_eq!(root["variants"][0]["prompt_tokens"], 360);
        }
        Scenario::load(saved.as_ref(), &[]).unwrap();
    }
}

/// A formula in place of a trace; routes in any order get policies that take them.
#[test]
fn a_formula_stands_in_for_a_trace() {
    let words = [
        "simulate",
        "--model",
        "smollm2-135m",
        "--hardware",
        "nvidia-l4",
        "--requests",
        "2",
        "--output",
        "3",
    ];
    let said = runs(&[&words[..], &["--method", METHODS[5].2]].concat());
    assert!(said.contains("routed, aligned") && said.contains("IndependentSkips on smollm2-135m"), "{said}");
    let said = runs(
        &[&words[..], &["--method", "Radial(transitions: Uniform, start: Uniform, hops: Fixed(9))"]].concat(),
    );
    assert!(said.contains("routed, grouped") && !said.contains("aligned"), "{said}");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let base = ["simulate", "--model", "smollm2-135m", "--hardware", "nvidia-l4"];
    let with = |more: &[&'static str]| [&base[..], more].concat();
    refused(&base, "--trace");
    refused(&["simulate", "--hardware", "nvidia-l4", "--trace", TRACE], "--model");
    refused(&["simulate", crate::cli::EXAMPLE, "--hardware", "nvidia-l4"], "cannot be used with");
    refused(&with(&["--trace", TRACE, "--method", "Dense"]), "cannot be used with");
    refused(&with(&["--trace", TRACE, "--batch", "0"]), "--batch");
    refused(&with(&["--trace", TRACE, "--policy", "best"]), "dense_masked");
    refused(&with(&["--trace", "nope.jsonl"]), "nope.jsonl");
    refused(&with(&["--method", "IndependentSkips(skip: 0.5)"]), "branches");
    refused(&with(&["--trace", TRACE, "--rate=-1"]), "rate_per_s");
    refused(
        &["simulate", "--trace", TRACE, "--model", "smollm2-135", "--hardware", "nvidia-l4"],
        "smollm2-135m",
    );
}

/// Each name that a list has is one that scenarios take, and none is left out.
#[test]
fn lists_hold_what_scenarios_take() {
    let unknown = |said: String, names: &[&str]| {
        for name in names {
            assert!(said.contains(&format!("`{name}`")), "{name}: {said}");
        }
        assert_eq!(said.matches('`').count(), 2 * (names.len() + 1), "{said}");
    };
    let said = |error: serde_json::Error| error.to_string();
    unknown(said(serde_json::from_str::<Policy>("\"x\"").unwrap_err()), &POLICIES.map(|(name, _)| name));
    unknown(said(serde_json::from_str::<Method>("\"x\"").unwrap_err()), &METHODS.map(|(name, ..)| name));
    let request = radialsim::trace::Request {
        id: 0,
        arrival: SimTime::ZERO,
        prompt_tokens: 9,
        output_tokens: 9,
        priority: 0,
        prefix: Vec::new(),
        runs: Vec::new(),
    };
    for (name, _, example) in METHODS {
        let method: Method =
            radialsim::ron_text::parse(example, "a method").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(method.name(), name);
        generate(&method, 32, vec![request.clone()], 1).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
    for (list, word) in [
        ("models", "llama-3.1-8b"),
        ("hardware", "nvidia-h100-sxm"),
        ("fabrics", "nvidia-hgx-h100"),
        ("engines", "vllm-v1"),
        ("policies", "dense_masked"),
        ("methods", "IndependentSkips"),
        ("metrics", "tpot_s"),
    ] {
        let shown = runs(&["list", list]);
        assert!(shown.contains(word) && shown.lines().all(|line| line.chars().count() <= 120), "{shown}");
    }
}

#[test]
fn shells_complete_and_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        let script = runs(&["completions", shell]);
        assert!(script.contains("radialsim") && script.contains("save-scenario"), "{shell}");
    }
    let folder = folder();
    let man = folder.path().join("man");
    assert_eq!(runs(&["man", man.to_str().unwrap()]), "");
    let page = std::fs::read_to_string(man.join("radialsim-simulate.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("save\\-scenario"), "{page}");
}

/// A sweep says what it found and where the report lies, unless it is to be quiet.
#[test]
fn a_sweep_prints_its_answer() {
    let folder = folder();
    let study = crate::sweep_support::changed(folder.path(), crate::sweep_support::FEW, &[]);
    let out = folder.path().join("out");
    let words = ["sweep", study.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let said = runs(&words);
    let report = out.join("report.html");
    assert_eq!(said.lines().last(), report.to_str(), "{said}");
    let page = std::fs::read_to_string(report).unwrap();
    let first: String = said.lines().next().unwrap().chars().take(30).collect();
    assert!(page.contains(&first) && first.len() > 20, "{said}");
    assert_eq!(runs(&[&words[..], &["--quiet"]].concat()), "");
}
