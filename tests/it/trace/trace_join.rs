//! Traces of several runs as one: are requests, routes and arrivals those of the runs, and is what does not belong together refused?

use crate::cli::{folder, names_in, radialsim, text};
use crate::trace_support::ENDINGS;
use radialsim::trace::{Request, RouteIds, Trace, read, write};
use radialsim::units::SimTime;
use std::path::Path;

const FIRST: &str = "examples/traces/smollm2-skip10.jsonl";
const SECOND: &str = "examples/traces/smollm2-skip25.jsonl";

fn join(arguments: &[&str]) -> (Option<i32>, String) {
    let out = radialsim(&[&["trace", "join"], arguments].concat());
    assert!(out.stdout.is_empty());
    (out.status.code(), text(&out.stderr))
}

/// A trace of the same header as the first, so that they can be joined.
fn alike(folder: &Path) -> (Trace, String, Trace) {
    let (first, mut second) = (read(FIRST).unwrap(), read(SECOND).unwrap());
    let source = second.header.source.clone();
    second.header = first.header.clone();
    second.header.source = source;
    let path = folder.join("second.jsonl");
    write(&path, &second).unwrap();
    (first, path.to_str().unwrap().to_owned(), second)
}

/// The steps of the routes of all runs, and all else of a request but its id and arrival.
fn plain(request: &Request, trace: &Trace) -> (Vec<Vec<String>>, Request) {
    let steps = |ids: &RouteIds| ids.iter().map(|id| trace.routes.get(id).to_string()).collect();
    let routes = request.runs.iter().map(|run| steps(&run.routes)).collect();
    let mut rest = request.clone();
    (rest.id, rest.arrival) = (0, SimTime::ZERO);
    rest.runs.iter_mut().for_each(|run| run.routes = RouteIds::same(0, run.routes.len()));
    (routes, rest)
}

#[test]
fn requests_and_routes_are_those_of_the_runs() {
    let folder = folder();
    let (first, second_path, second) = alike(folder.path());
    for ending in ENDINGS {
        let out = folder.path().join(format!("out.{ending}"));
        let said = join(&[FIRST, &second_path, "--out", out.to_str().unwrap(), "--offset-s", "1.5"]);
        assert_eq!(said, (Some(0), String::new()));
        let joined = read(&out).unwrap();
        assert_eq!(joined.requests.len(), first.requests.len() + second.requests.len());
        assert!(
            joined.header.source.contains(&first.header.source)
                && joined.header.source.contains(&second.header.source)
        );
        let mut ids: Vec<u64> = joined.requests.iter().map(|request| request.id).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..joined.requests.len() as u64));
        let mut expected: Vec<_> = first
            .requests
            .iter()
            .map(|request| (request.arrival, plain(request, &first)))
            .chain(second.requests.iter().map(|r| (r.arrival + SimTime::from_s(1.5), plain(r, &second))))
            .collect();
        let mut found: Vec<_> = joined.requests.iter().map(|r| (r.arrival, plain(r, &joined))).collect();
        // Equal arrivals have no order of their own.
        let key = |row: &(SimTime, (Vec<Vec<String>>, Request))| (row.0, format!("{:?}", row.1));
        expected.sort_by_key(key);
        found.sort_by_key(key);
        assert!(found == expected, "{ending}");
        let distinct: std::collections::HashSet<String> =
            joined.routes.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), joined.routes.len(), "equal routes are defined once");
    }
}

#[test]
fn one_trace_joined_with_itself_is_twice_as_long() {
    let folder = folder();
    let out = folder.path().join("out.jsonl");
    let at = |path: &Path| path.to_str().unwrap().to_owned();
    assert_eq!(join(&[FIRST, FIRST, FIRST, "--out", &at(&out), "--offset-s", "0"]).0, Some(0));
    let (one, three) = (read(FIRST).unwrap(), read(&out).unwrap());
    assert_eq!((three.requests.len(), three.routes.len()), (3 * one.requests.len(), one.routes.len()));
    assert_eq!(three.header, one.header);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let lines = std::fs::read_to_string(FIRST).unwrap();
    let out = at("out.jsonl");
    for (from, to, key) in [
        ("\"layers\":30", "\"layers\":31", "layers"),
        ("\"model\":\"", "\"model\":\"other ", "model"),
        ("\"kv\":\"", "\"kv\":\"none\",\"x\":\"", "x"),
        ("\"reuse\":false", "\"reuse\":true", "reuse"),
    ] {
        assert!(lines.contains(from), "{from}");
        std::fs::write(at("b.jsonl"), lines.replacen(from, to, 1)).unwrap();
        let (code, said) = join(&[FIRST, &at("b.jsonl"), "--out", &out, "--offset-s", "0"]);
        assert_eq!(code, Some(2));
        assert!(said.contains("b.jsonl:1: ") && said.contains(&format!("{key}: found ")), "{said}");
    }
    std::fs::write(at("b.jsonl"), &lines[..lines.len() / 2]).unwrap();
    assert_eq!(join(&[FIRST, &at("b.jsonl"), "--out", &out, "--offset-s", "0"]).0, Some(2));
    for offset in ["-1", "NaN", "inf", "1e9"] {
        let (code, said) = join(&[FIRST, FIRST, "--out", &out, &format!("--offset-s={offset}")]);
        assert_eq!(code, Some(2));
        assert!(said.contains("--offset-s"), "{said}");
    }
    let (code, said) = join(&[FIRST, FIRST, FIRST, "--out", &out, "--offset-s", "10000000"]);
    assert!(code == Some(2) && said.contains("arrival_s"), "{said}");
    assert_eq!(join(&[FIRST, FIRST, "--out", &out]).0, Some(2), "the offset is to be stated");
    assert_eq!(names_in(folder.path()), ["b.jsonl"]);
}

/// Equal hashes of two runs may be the same blocks or not; only the user knows.
#[test]
fn prefix_hashes_are_asked_for() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let lines = std::fs::read_to_string(FIRST).unwrap();
    let from = "\"type\":\"request\",";
    std::fs::write(at("a.jsonl"), lines.replacen(from, &format!("{from}\"prefix\":[7,8],"), 2)).unwrap();
    let run = |more: &[&str]| {
        join(&[&[&at("a.jsonl"), &at("a.jsonl"), "--out", &at("o.jsonl"), "--offset-s", "1"], more].concat())
    };
    let (code, said) = run(&[]);
    assert!(code == Some(2) && said.contains("prefix: ") && said.contains("--prefixes"), "{said}");
    let distinct = || -> std::collections::HashSet<u64> {
        read(at("o.jsonl")).unwrap().requests.iter().flat_map(|request| request.prefix.clone()).collect()
    };
    assert_eq!(run(&["--prefixes", "same"]).0, Some(0));
    assert_eq!(distinct(), [7, 8].into());
    assert_eq!(run(&["--prefixes", "apart"]).0, Some(0));
    assert_eq!(distinct().len(), 4);
}
