//! `radialsim trace`: what it counts, converts and makes.

use crate::cli::{folder, names_in, radialsim, text};
use serde_json::Value;
use std::path::Path;

fn counts(path: &str, folder: &Path) -> Value {
    let json = folder.join("stats.json");
    let out = radialsim(&["trace", "stats", path, "--json", json.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

#[test]
fn stats_of_the_shipped_traces() {
    let folder = folder();
    let stats = counts("examples/traces/smollm2-dense.jsonl", folder.path());
    let keys: Vec<&String> = stats.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["requests", "tokens", "routes", "mean_depth", "layer_visits"]);
    assert_eq!(
        (&stats["requests"], &stats["tokens"], &stats["routes"]),
        (&12.into(), &1302.into(), &1.into())
    );
    assert_eq!(stats["mean_depth"], 30.0);
    assert_eq!(stats["layer_visits"], Value::from(vec![1302; 30]));

    let stats = counts("examples/traces/smollm2-skip25.jsonl", folder.path());
    assert_eq!(
        (&stats["requests"], &stats["tokens"], &stats["routes"]),
        (&12.into(), &1246.into(), &880.into())
    );
    assert_eq!(stats["layer_visits"].as_array().unwrap().len(), 30);
}

/// A trace of two tokens with their experts, as recorders write it.
const WITH_EXPERTS: &str = r#"{"type":"header","format":"router-trace","version":1,"model":"m","layers":3,"order":"monotone","reuse":false,"granularity":"token","kv":"write","router":{"kind":"none"},"source":""}
{"type":"route","id":0,"steps":"0 1 2"}
{"type":"request","id":0,"arrival_s":0.0,"prompt_tokens":2,"output_tokens":1}
{"type":"tokens","request":0,"start":0,"phase":"prefill","routes":[0,0],"experts":[[[],[3,1],[0,2]],[[],[1,0],[2,3]]]}
"#;

/// What reads a trace counts the experts of its tokens, what writes it anew keeps them; Parquet, which has no column for them, is refused.
#[test]
fn experts_are_read_and_never_lost_without_a_word() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("t.jsonl"), WITH_EXPERTS).unwrap();
    assert_eq!(counts(&at("t.jsonl"), folder.path())["tokens"], 2);
    std::fs::remove_file(at("stats.json")).unwrap();
    let counted = radialsim::trace::expert_counts(at("t.jsonl")).unwrap();
    assert_eq!(counted.iter().flatten().sum::<u64>(), 8);
    for words in [
        &["trace", "convert", &at("t.jsonl"), &at("u.jsonl")][..],
        &["trace", "join", &at("t.jsonl"), "--offset-s", "1", "--out", &at("v.jsonl")],
    ] {
        let out = radialsim(words);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
    }
    for name in ["u.jsonl", "v.jsonl"] {
        let written = std::fs::read_to_string(at(name)).unwrap();
        assert!(written.contains(r#""experts":[[[],[3,1],[0,2]],[[],[1,0],[2,3]]]}"#), "{written}");
        assert_eq!(radialsim::trace::expert_counts(at(name)).unwrap(), counted);
    }
    assert_eq!(
        radialsim::trace::read(at("u.jsonl")).unwrap(),
        radialsim::trace::read(at("t.jsonl")).unwrap()
    );
    if cfg!(feature = "parquet") {
        let out = radialsim(&["trace", "convert", &at("t.jsonl"), &at("w.parquet")]);
        assert_eq!(out.status.code(), Some(2));
        let said = text(&out.stderr);
        assert!(said.contains("w.parquet: experts: found experts of tokens, expected JSON Lines"), "{said}");
    }
    assert_eq!(names_in(folder.path()), ["t.jsonl", "u.jsonl", "v.jsonl"]);
}

#[test]
fn converting_there_and_back_keeps_the_trace() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let first = "examples/traces/smollm2-skip25.jsonl";
    let mut from = first.to_owned();
    let endings: &[&str] = if cfg!(feature = "parquet") {
        &["a.parquet", "b.jsonl.zst", "c.jsonl"]
    } else {
        &["b.jsonl.zst", "c.jsonl"]
    };
    for ending in endings {
        let to = at(ending);
        let out = radialsim(&["trace", "convert", &from, &to]);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
        assert!(out.stdout.is_empty());
        assert_eq!(counts(&to, folder.path()), counts(first, folder.path()), "{ending}");
        from = to;
    }
    assert!(
        radialsim::trace::read(&from).unwrap() == radialsim::trace::read(first).unwrap(),
        "the last is the first"
    );
}

#[test]
fn a_trace_that_fails_leaves_nothing() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text_of = std::fs::read_to_string("examples/traces/smollm2-dense.jsonl").unwrap();
    std::fs::write(at("cut.jsonl"), &text_of[..text_of.len() / 2]).unwrap();
    let out = radialsim(&["trace", "convert", &at("cut.jsonl"), &at("out.jsonl")]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).starts_with(&format!("error: {}:", at("cut.jsonl"))), "{}", text(&out.stderr));
    assert_eq!(names_in(folder.path()), ["cut.jsonl"]);
    let out = radialsim(&["trace", "stats", &at("cut.jsonl"), "--json", &at("stats.json")]);
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(names_in(folder.path()), ["cut.jsonl"]);
}

#[test]
fn synth_makes_the_trace_that_its_arguments_say() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let load =
        ["--layers", "8", "--requests", "5", "--prompt", "Fixed(10)", "--output", "Fixed(4)", "--seed", "7"];
    let synth = |method: &[&str], arrivals: &str, out: &str| {
        radialsim(&[&["trace", "synth"], method, &load[..], &["--arrivals", arrivals, out]].concat())
    };
    let out =
        synth(&["--method", "StaticDepth(keep: DropLast(depth: 6))"], "Every(gap_s: 0.5)", &at("a.jsonl"));
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let stats = counts(&at("a.jsonl"), folder.path());
    assert_eq!(
        (&stats["requests"], &stats["tokens"], &stats["mean_depth"]),
        (&5.into(), &65.into(), &6.0.into())
    );

    std::fs::write(at("method.ron"), "StaticDepth(keep: DropLast(depth: 6))").unwrap();
    assert_eq!(synth(&[&at("method.ron")], "Every(gap_s: 0.5)", &at("b.jsonl")).status.code(), Some(0));
    let bytes = |name: &str| std::fs::read(at(name)).unwrap();
    assert_eq!(bytes("a.jsonl"), bytes("b.jsonl"), "the method may come from a file");

    for (method, arrivals, said) in [
        ("Dens", "Closed", "--method: found Dens, expected one of Dense"),
        ("Dense", "Closd", "--arrivals: found Closd, expected one of Closed, Every, Poisson"),
        (
            "Dense",
            "Every(gap_s: -1)",
            "arrivals.gap_s: found -1, expected a finite number of seconds, at least 0",
        ),
        ("StaticDepth(keep: DropLast(depth: 9))", "Closed", "keep.depth: found 9"),
    ] {
        let out = synth(&["--method", method], arrivals, &at("c.jsonl"));
        let shown = text(&out.stderr);
        assert_eq!((out.status.code(), shown.lines().count()), (Some(2), 1), "{shown}");
        assert!(shown.contains(said), "{shown}");
    }
    assert_eq!(names_in(folder.path()), ["a.jsonl", "b.jsonl", "method.ron", "stats.json"]);
}
