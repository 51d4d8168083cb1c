//! What is written is what is read, in every encoding.

use crate::trace_support::{ENDINGS, real, traces};
use proptest::prelude::*;
use radialsim::trace::{self, *};
use radialsim::units::SimTime;
use std::path::Path;

fn round_trip(trace: &Trace, folder: &Path) {
    for ending in ENDINGS {
        let path = folder.join(format!("trace.{ending}"));
        trace::write(&path, trace).unwrap();
        let read = trace::read(&path).unwrap();
        assert_eq!(read.header, trace.header, "{ending}");
        assert!(read.routes == trace.routes, "{ending}: routes differ");
        assert_eq!(read.requests, trace.requests, "{ending}");
        let bytes = std::fs::read(&path).unwrap();
        trace::write(&path, &read).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes, "{ending}: the same trace gives other bytes");
    }
    let names = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(names, ENDINGS.len(), "temporary files are left");
}

proptest! {
    #[test]
    fn any_trace_survives_every_encoding(trace in traces()) {
        round_trip(&trace, tempfile::tempdir().unwrap().path());
    }
}

#[test]
fn real_traces_survive_every_encoding_and_plain_ones_line_for_line() {
    let folder = tempfile::tempdir().unwrap();
    for path in real() {
        let trace = trace::read(&path).unwrap();
        round_trip(&trace, folder.path());
        let again = std::fs::read_to_string(folder.path().join("trace.jsonl")).unwrap();
        let mut lines: Vec<_> = again.lines().collect();
        let original = std::fs::read_to_string(&path).unwrap();
        let mut wanted: Vec<_> = original.lines().collect();
        // The recorder and the writer may put a route at different places before its first use.
        lines.sort_unstable();
        wanted.sort_unstable();
        assert!(lines == wanted, "{}", path.display());
    }
}

/// The counts are taken from the text, without the reader.
#[test]
fn real_traces_have_the_counts_that_grep_gives() {
    for path in real() {
        let text = std::fs::read_to_string(&path).unwrap();
        let count =
            |kind: &str| text.lines().filter(|line| line.contains(&format!("\"type\":\"{kind}\""))).count();
        let routed: usize = text
            .lines()
            .filter_map(|line| line.split_once("\"routes\":["))
            .map(|(_, list)| 1 + list.matches(',').count())
            .sum();
        let mut reader = trace::open(&path).unwrap();
        let stats = Stats::read(&mut reader).unwrap();
        assert_eq!((stats.requests, stats.routes), (count("request") as u64, count("route") as u64));
        assert_eq!(stats.tokens, routed as u64);
        let (prefill, decode) = stats.phases();
        assert_eq!(prefill + decode, stats.tokens);
        assert_eq!(stats.uses().iter().sum::<u64>(), stats.tokens);
        let visits: u64 =
            reader.routes().iter().zip(stats.uses()).map(|(route, uses)| route.0.len() as u64 * uses).sum();
        assert_eq!(stats.layer_visits.iter().sum::<u64>(), visits);
        if path.ends_with("smollm2-dense.jsonl") {
            assert_eq!(stats.mean_depth, 30.0);
            assert_eq!(stats.skipped(), 0.0);
            assert!(stats.layer_visits.iter().all(|&visits| visits == stats.tokens));
        } else {
            assert!(stats.mean_depth < 30.0 && stats.mean_depth > 20.0, "{}", stats.mean_depth);
            assert!(stats.skipped() > 0.0);
        }
    }
}

const HEADER: &str = r#"{"type":"header","format":"router-trace","version":1,"model":"m","layers":8,"order":"monotone","reuse":false,"granularity":"token","kv":"none","router":{"kind":"fixed"},"source":""}"#;

fn read_text(lines: &[&str]) -> Result<Vec<Request>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    trace::open(&path)
        .unwrap()
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string().replace(path.to_str().unwrap(), "t.jsonl"))
}

#[test]
fn stats_serialize_with_five_keys_and_count_branches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let lines = [
        HEADER,
        r#"{"type":"route","id":900,"steps":"0 1a 2f 3x 4@0.5"}"#,
        r#"{"type":"route","id":7,"steps":""}"#,
        r#"{"type":"route","id":8,"steps":""}"#,
        r#"{"type":"request","id":1,"arrival_s":2.5,"prompt_tokens":3,"output_tokens":1}"#,
        r#"{"type":"request","id":0,"arrival_s":0.5,"prompt_tokens":1,"output_tokens":4}"#,
        r#"{"type":"tokens","request":1,"start":0,"phase":"prefill","routes":[900,7,900]}"#,
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let stats = Stats::read(&mut trace::open(&path).unwrap()).unwrap();
    assert_eq!(
        serde_json::to_string(&stats).unwrap(),
        r#"{"requests":2,"tokens":3,"routes":3,"mean_depth":2.0,"layer_visits":[2,2,2,2,2,0,0,0]}"#
    );
    assert_eq!((stats.mean_prompt_tokens(), stats.mean_output_tokens()), (2.0, 2.5));
    assert_eq!(stats.arrivals(), Some((SimTime::from_s(0.5), SimTime::from_s(2.5))));
    assert_eq!((stats.phases(), stats.kv()), ((3, 0), KvAction::None));
    // Two tokens name five of eight layers, one none: (3 + 3 + 8) / 24.
    assert!((stats.skipped() - 14.0 / 24.0).abs() < 1e-12);
    assert_eq!(
        serde_json::to_string(&Stats::of(&trace::read(&path).unwrap())).unwrap(),
        serde_json::to_string(&stats).unwrap()
    );
}

const ROUTE: &str = r#"{"type":"route","id":5,"steps":"0 1"}"#;

#[test]
fn the_last_token_may_come_late_or_never() {
    let request = |id: u64| {
        format!(r#"{{"type":"request","id":{id},"arrival_s":0,"prompt_tokens":2,"output_tokens":2}}"#)
    };
    let tokens = |id: u64, start: u32, phase: &str, routes: &str| {
        format!(r#"{{"type":"tokens","request":{id},"start":{start},"phase":"{phase}","routes":[{routes}]}}"#)
    };
    // Request 0 gets its last route after others are complete, 1 never, 2 with the line before, 3 has no routes.
    let lines = [
        request(3),
        request(0),
        request(1),
        request(2),
        tokens(0, 0, "prefill", "5,5"),
        tokens(1, 0, "prefill", "5,5"),
        tokens(2, 0, "prefill", "5,5"),
        tokens(0, 2, "decode", "5"),
        tokens(1, 2, "decode", "5"),
        tokens(2, 2, "decode", "5,5"),
        tokens(0, 3, "decode", "5"),
    ];
    let mut all = vec![HEADER, ROUTE];
    all.extend(lines.iter().map(String::as_str));
    let read = read_text(&all).unwrap();
    let seen: Vec<_> = read.iter().map(|request| (request.id, request.advanced())).collect();
    assert_eq!(seen, [(0, 4), (1, 3), (2, 4), (3, 0)]);
}

#[test]
fn complete_requests_come_out_before_the_file_ends() {
    let mut lines = vec![HEADER.to_owned(), ROUTE.to_owned()];
    for id in 0..1025 {
        lines.push(format!(
            r#"{{"type":"request","id":{id},"arrival_s":0,"prompt_tokens":1,"output_tokens":1}}"#
        ));
        lines.push(format!(r#"{{"type":"tokens","request":{id},"start":0,"phase":"prefill","routes":[5]}}"#));
    }
    lines.push(r#"{"type":"tokens","request":0,"start":1,"phase":"decode","routes":[5]}"#.into());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    assert_eq!(
        read_text(&lines).unwrap_err(),
        "t.jsonl:2053: request: found 0, expected a request that is not complete"
    );
    assert_eq!(read_text(&lines[..lines.len() - 1]).unwrap().len(), 1025);
}

#[test]
fn speculation_moves_on_by_what_was_accepted() {
    let lines = [
        HEADER,
        ROUTE,
        r#"{"type":"request","id":0,"arrival_s":0,"prompt_tokens":1,"output_tokens":5}"#,
        r#"{"type":"tokens","request":0,"start":0,"phase":"prefill","routes":[5]}"#,
        r#"{"type":"tokens","request":0,"start":1,"phase":"decode","routes":[5,5,5],"role":"draft"}"#,
        r#"{"type":"tokens","request":0,"start":1,"phase":"decode","routes":[5,5,5],"role":"verify","accepted":[true,true,false]}"#,
        r#"{"type":"tokens","request":0,"start":0,"phase":"decode","routes":[5,5],"role":"recompute"}"#,
        r#"{"type":"tokens","request":0,"start":3,"phase":"decode","routes":[5,5],"role":"verify"}"#,
    ];
    let read = read_text(&lines).unwrap();
    assert_eq!((read[0].advanced(), read[0].runs.len()), (5, 5));
}

/// What the recorder of `python/` wrote of real engines (`scripts/prove-recorder`): requests, tokens with a route, and routes.
#[test]
fn recordings_of_other_engines_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tests/fixtures");
    let counts = [
        // Drafts of the first 24 of 30 layers, what their own cache reads again, and all that was verified.
        ("early-exit.jsonl.gz", (3, 1281, 2)),
        ("by-token.jsonl.gz", (3, 159, 111)),
        ("experts.jsonl.gz", (3, 60, 1)),
        ("vllm.jsonl.gz", (200, 17297, 1)),
    ];
    for (name, expected) in counts {
        let stats = Stats::read(&mut trace::open(folder.join(name)).unwrap()).unwrap();
        assert_eq!((stats.requests, stats.tokens, stats.routes), expected, "{name}");
    }
}

#[test]
fn crlf_many_gzip_members_and_no_last_newline_are_fine() {
    let folder = tempfile::tempdir().unwrap();
    let original = trace::read(&real()[1]).unwrap();
    let text = std::fs::read_to_string(&real()[1]).unwrap();
    let path = folder.path().join("t.jsonl");
    std::fs::write(&path, text.trim_end().replace('\n', "\r\n")).unwrap();
    assert!(trace::read(&path).unwrap() == original);
    let mut members = Vec::new();
    for part in text.as_bytes().chunks(10_000) {
        let mut gzip = flate2::write::GzEncoder::new(&mut members, flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, part).unwrap();
        gzip.finish().unwrap();
    }
    let path = folder.path().join("t.jsonl.gz");
    std::fs::write(&path, members).unwrap();
    assert!(trace::read(&path).unwrap() == original);
}

#[test]
fn what_could_not_be_read_is_not_written_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = trace::read(&real()[0]).unwrap();
    type Edit = fn(&mut Trace);
    let edits: [(Edit, &str); 5] = [
        (
            |trace| trace.requests[1].id = trace.requests[0].id,
            "id: found 0, expected a request id that was not used before",
        ),
        (
            |trace| {
                trace.requests[0].runs.pop();
            },
            "output_tokens: found 37 tokens, expected routes for 44 or 45 tokens of request 0",
        ),
        (
            |trace| trace.requests[0].runs[1].start += 1,
            "start: found 38, expected 37, where the tokens so far end (a gap)",
        ),
        (
            |trace| {
                let routes = &mut trace.requests[0].runs[0].routes;
                let mut ids: Vec<u32> = routes.iter().collect();
                ids[3] = 9;
                *routes = ids.into();
            },
            "routes: found 9, expected an index of the route table",
        ),
        (|trace| trace.header.layers = 3, "route 0: found 3, expected layer ids below the pool size 3"),
    ];
    for ending in ENDINGS {
        let path = folder.path().join(format!("t.{ending}"));
        for (edit, message) in &edits {
            let mut trace = good.clone();
            edit(&mut trace);
            let error = trace::write(&path, &trace).unwrap_err().to_string();
            assert_eq!(error, format!("{}: {message}", path.display()));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
