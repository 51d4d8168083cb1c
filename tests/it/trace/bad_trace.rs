//! Broken traces: a clear error, never a panic, a hang, or memory that the file did not fill.

use crate::trace_support::{ENDINGS, real};
use proptest::prelude::*;
use radialsim::trace;
use std::path::Path;

const BASE: [&str; 6] = [
    r#"{"type":"header","format":"router-trace","version":1,"model":"m","layers":8,"order":"monotone","reuse":false,"granularity":"token","kv":"none","router":{"kind":"fixed"},"source":""}"#,
    r#"{"type":"route","id":0,"steps":"0 1 2f"}"#,
    r#"{"type":"route","id":40,"steps":"0 7a"}"#,
    r#"{"type":"request","id":3,"arrival_s":0.5,"prompt_tokens":4,"output_tokens":3}"#,
    r#"{"type":"tokens","request":3,"start":0,"phase":"prefill","routes":[0,0,40,0]}"#,
    r#"{"type":"tokens","request":3,"start":4,"phase":"decode","routes":[0,40]}"#,
];

fn message(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    std::fs::write(&path, bytes).unwrap();
    let error = trace::read(&path).expect_err("a broken file");
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(path.to_str().unwrap(), "t.jsonl")
}

/// The message for the base with one text replaced, which must be there.
fn replaced(from: &str, to: &str) -> String {
    let text = BASE.join("\n");
    assert!(text.contains(from), "{from} is not in the base");
    message(text.replacen(from, to, 1).as_bytes())
}

#[test]
fn the_base_of_these_tests_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    std::fs::write(&path, BASE.join("\n")).unwrap();
    assert_eq!(trace::read(&path).unwrap().requests[0].advanced(), 6);
}

#[test]
fn ten_mistakes_give_ten_messages() {
    let cases = [
        (
            r#""version":1"#,
            r#""version":2"#,
            "t.jsonl:1: version: found 2, expected 1, the only version that this program reads",
        ),
        (
            r#""layers":8"#,
            r#""layers":1e999"#,
            "t.jsonl:1: layers: found 1e999, expected a whole number from 1 to 65535",
        ),
        ("0 7a", "0 8a", "t.jsonl:3: steps: found 8a, expected layer ids below the pool size 8"),
        (
            "0 1 2f",
            "0 2 1f",
            "t.jsonl:2: steps: found 1f, expected ascending layers (order is monotone; the step before is 2)",
        ),
        ("0 1 2f", "0 1 1f", "t.jsonl:2: steps: found 1f, expected each layer at most once (reuse is false)"),
        (r#""id":40"#, r#""id":0"#, "t.jsonl:3: id: found 0, expected a route id that was not used before"),
        (
            "[0,40]",
            "[0,41]",
            "t.jsonl:6: routes[1]: found 41, expected the id of a route that was defined before",
        ),
        (
            r#""arrival_s":0.5"#,
            r#""arrival_s":-0.5"#,
            "t.jsonl:4: arrival_s: found -0.5, expected seconds, not negative and below 18446744 (213 days)",
        ),
        (
            r#""start":4"#,
            r#""start":5"#,
            "t.jsonl:6: start: found 5, expected 4, where the tokens so far end (a gap)",
        ),
        (
            r#""output_tokens":3"#,
            r#""output_tokens":9"#,
            "t.jsonl:4: output_tokens: found 6 tokens, expected routes for 12 or 13 tokens of request 3",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(replaced(from, to), expected);
    }
}

#[test]
fn each_further_mistake_names_its_line_and_key() {
    let cases = [
        (
            r#""format":"router-trace""#,
            r#""format":"x""#,
            "1: format: found \"x\", expected \"router-trace\"",
        ),
        (r#""kv":"none","#, "", "1: kv: found nothing, expected this key"),
        (
            r#""kind":"fixed""#,
            r#""kind":"dice""#,
            "1: router.kind: found \"dice\", expected one of none, fixed, threshold, oracle_threshold, mlp, expert_choice",
        ),
        (
            r#""kind":"fixed""#,
            r#""kind":"fixed","tau":1e999"#,
            "1: router.tau: found 1e999, expected a JSON value with finite numbers (number out of range at line 1 column 5)",
        ),
        (
            r#""source":"""#,
            r#""source":"","note":1"#,
            "1: note: found an unknown key, expected only the keys of a header: type, format, version, model, layers, order, reuse, granularity, kv, router, max_hops, source",
        ),
        (r#""id":0,"#, r#""id":0,"id":1,"#, "2: id: found it twice, expected each key once"),
        (
            r#""id":0,"#,
            r#""id":3.5,"#,
            "2: id: found 3.5, expected a whole number from 0 to 18446744073709551615",
        ),
        (
            r#""id":0,"#,
            r#""id":-1,"#,
            "2: id: found -1, expected a whole number from 0 to 18446744073709551615",
        ),
        (
            "0 1 2f",
            "0 1  2f",
            "2: steps: found an empty step, expected a layer id (a step is LAYER[a|f|x][@WIDTH][!KV][+r], as in 12a, 3f@0.25, 9!none or 4+r)",
        ),
        (
            "0 7a",
            "0 7!maybe",
            "3: steps: found maybe, expected a KV action: write, project_only, copy_state, share, none, deferred, unified",
        ),
        (
            r#""prompt_tokens":4"#,
            r#""prompt_tokens":4294967296"#,
            "4: prompt_tokens: found 4294967296, expected a whole number from 1 to 2147483647",
        ),
        (
            r#""prompt_tokens":4"#,
            r#""prompt_tokens":0"#,
            "4: prompt_tokens: found 0, expected a whole number from 1 to 2147483647",
        ),
        (
            r#""arrival_s":0.5"#,
            r#""arrival_s":NaN"#,
            "4: arrival_s: found NaN,\"prompt_tokens\":4,\"output_tokens\":3}, expected one JSON object a line (expected value at column 38)",
        ),
        (r#""prefill""#, r#""warm""#, "5: phase: found \"warm\", expected one of prefill, decode"),
        (
            "[0,0,40,0]",
            "[0,0,40,0,0]",
            "5: routes: found positions 0 to 4, expected prefill tokens below prompt_tokens = 4",
        ),
        ("[0,0,40,0]", "[0,0,40]", "6: start: found 4, expected 3, where the tokens so far end (a gap)"),
        (
            r#"0,"phase":"prefill""#,
            r#"0,"phase":"decode""#,
            "5: start: found positions 0 to 3, expected decode tokens from prompt_tokens = 4 on",
        ),
        ("[0,40]", "[]", "6: routes: found 0, expected 1 to 8388608 routes in one run"),
        (
            "[0,40]",
            "[0,40,0,0]",
            "6: routes: found token 8, expected at most 7 tokens (prompt_tokens + output_tokens of the request)",
        ),
        (
            "[0,40]}",
            r#"[0,40],"accepted":[true,true]}"#,
            "6: accepted: found it, expected this key only with the role verify",
        ),
        (
            "[0,40]}",
            r#"[0,40],"role":"verify","accepted":[false,true]}"#,
            "6: accepted: found true after false, expected leading trues, then falses",
        ),
        (
            "[0,40]}",
            r#"[0,40],"role":"verify","accepted":[true]}"#,
            "6: accepted: found 1 values, expected one for each of 2 routes",
        ),
        (
            "[0,40]}",
            r#"[0,40],"role":"verify","accepted":[true,1]}"#,
            "6: accepted[1]: found 1, expected a list of truth values",
        ),
        (
            "[0,40]}",
            r#"[40],"role":"recompute"}"#,
            "6: start: found positions 4 to 4, expected positions that were run before, below 4",
        ),
        (
            "[0,40]}",
            r#"[0,40],"experts":[[[1],[2],[]]]}"#,
            "6: experts: found 1 lists, expected one for each of 2 routes",
        ),
        (
            "[0,40]}",
            r#"[0,40],"experts":[[[1],[2],[]],[[1]]]}"#,
            "6: experts: found 1 lists for token 1, expected one for each of 2 steps of route 40",
        ),
        (
            "[0,40]}",
            r#"[0,40],"experts":[[1],[2]]}"#,
            "6: experts: found [[1],[2]], expected lists of lists of expert ids, a list for each token (invalid type: integer `1`, expected a sequence at line 1 column 3)",
        ),
        (
            r#""request":3"#,
            r#""request":4"#,
            "5: request: found 4, expected the id of a request that was defined before",
        ),
        (
            r#""type":"route","id":40"#,
            r#""type":"path","id":40"#,
            "3: type: found \"path\", expected \"route\", \"request\" or \"tokens\"",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(replaced(from, to), format!("t.jsonl:{expected}"));
    }
}

#[test]
fn files_that_are_no_trace_are_named_as_such() {
    let deep = format!(
        "{}\n{}{}",
        BASE[0].replace("\"fixed\"", &format!("\"fixed\",\"x\":{}{}", "[".repeat(200), "]".repeat(200))),
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let nested = format!("{}\n{}", BASE[0], "{\"type\":".repeat(100_000));
    let long = format!("{}\n{}", BASE[0], " ".repeat((16 << 20) + 10));
    let cases: [(&[u8], &str); 11] = [
        (b"", "t.jsonl:1: found an empty file, expected a header line"),
        (
            b"\n",
            "t.jsonl:1: found the end of the line, expected one JSON object a line (EOF while parsing a value at column 0)",
        ),
        (
            b"\0\0\0",
            "t.jsonl:1: found \\u{0}\\u{0}\\u{0}, expected one JSON object a line (expected value at column 1)",
        ),
        (
            b"{\"type\":\"\xff\"}",
            "t.jsonl:1: found ff 22 7d, expected UTF-8 text (byte 10 of the line is not)",
        ),
        (BASE[1].as_bytes(), "t.jsonl:1: type: found \"route\", expected \"header\" on the first line"),
        (
            b"[1]",
            "t.jsonl:1: found [1], expected one JSON object a line (invalid type: sequence, expected an object at column 0)",
        ),
        (
            b"{\"type\":\"header\"",
            "t.jsonl:1: type: found the end of the line, expected one JSON object a line (EOF while parsing an object at column 16)",
        ),
        (b"\xef\xbb\xbf{}", "t.jsonl:1: type: found nothing, expected this key"),
        (deep.as_bytes(), "t.jsonl:1: router.x: "),
        (nested.as_bytes(), "t.jsonl:2: "),
        (long.as_bytes(), "t.jsonl:2: "),
    ];
    for (bytes, expected) in cases {
        let message = message(bytes);
        assert!(message.len() < 400, "{message}");
        assert!(
            message == expected || expected.ends_with(": ") && message.starts_with(expected),
            "{message}\n{expected}"
        );
    }
    let twice = [BASE[0], BASE[0]].join("\n");
    assert_eq!(
        message(twice.as_bytes()),
        "t.jsonl:2: type: found \"header\", expected one header only, on the first line"
    );
}

#[test]
fn a_request_comes_once_and_numbers_take_no_memory() {
    let mut lines = BASE.to_vec();
    lines.push(BASE[3]);
    let once = "t.jsonl:7: id: found 3, expected a request id that was not used before";
    assert_eq!(message(lines.join("\n").as_bytes()), once);
    // Two billion tokens are announced, none is there.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let announced = BASE[3].replace(":4,", ":2147483000,").replace(":3}", ":600}");
    std::fs::write(&path, [BASE[0], &announced].join("\n")).unwrap();
    assert_eq!(trace::read(&path).unwrap().requests[0].prompt_tokens, 2_147_483_000);
    assert!(peak().is_none_or(|kib| kib < 1 << 20));
}

#[test]
fn a_small_file_of_one_endless_line_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for ending in ["jsonl.gz", "jsonl.zst"] {
        let path = folder.path().join(format!("bomb.{ending}"));
        let spaces = vec![b' '; 64 << 20];
        let bytes = match ending {
            "jsonl.gz" => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut gzip, &spaces).unwrap();
                gzip.finish().unwrap()
            }
            _ => zstd::encode_all(&spaces[..], 1).unwrap(),
        };
        assert!(bytes.len() < 1 << 20);
        std::fs::write(&path, bytes).unwrap();
        let error = trace::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("expected lines of at most 16777216 bytes"), "{error}");
    }
}

#[test]
fn a_missing_file_and_a_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("none.jsonl"), folder.path().to_owned()] {
        let Err(error) = trace::open(&path) else { panic!("opened {}", path.display()) };
        assert!(error.to_string().contains("cannot read"), "{error}");
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn without_the_feature_parquet_is_refused_in_words() {
    let Err(error) = trace::open("t.parquet") else { panic!("opened") };
    assert!(error.to_string().contains("feature parquet"), "{error}");
    let trace = trace::read(&real()[0]).unwrap();
    assert!(trace::write(std::env::temp_dir().join("t.parquet"), &trace).is_err());
}

/// What a reader gave before its end or error.
struct Outcome {
    requests: usize,
    tokens: usize,
    failed: bool,
}

fn outcome(path: &Path) -> Outcome {
    let mut outcome = Outcome { requests: 0, tokens: 0, failed: false };
    let Ok(reader) = trace::open(path) else { return Outcome { failed: true, ..outcome } };
    for request in reader {
        match request {
            Ok(request) => {
                outcome.requests += 1;
                outcome.tokens += request.runs.iter().map(|run| run.routes.len() as usize).sum::<usize>();
            }
            Err(error) => {
                assert!(!outcome.failed, "something follows an error");
                assert!(error.to_string().contains(path.to_str().unwrap()), "no file in: {error}");
                assert!(error.to_string().len() < 1000, "{error}");
                outcome.failed = true;
            }
        }
    }
    outcome
}

/// Set in a process that runs nothing but these tests, so that its memory is theirs.
const ALONE: &str = "RADIALSIM_ALONE";

/// The tests of this file once more, in a process of their own: other tests hold gigabytes.
#[test]
fn memory_is_bounded_whatever_is_read() {
    if std::env::var_os(ALONE).is_some() {
        return;
    }
    let tests = std::env::current_exe().expect("the tests");
    let output =
        std::process::Command::new(tests).arg("bad_trace::").env(ALONE, "1").output().expect("they start");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}

/// Peak resident memory of this process in KiB, where it runs these tests alone and the system tells it.
fn peak() -> Option<u64> {
    std::env::var_os(ALONE)?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// One change of a file's bytes. Places and sources are fractions of the file.
#[derive(Clone, Debug)]
enum Change {
    Flip(f64, u8),
    Cut(f64),
    DropLine(f64),
    RepeatLine(f64),
    SwapLines(f64, f64),
    Number(f64, &'static str),
}

fn changes() -> impl Strategy<Value = Change> {
    let numbers = prop::sample::select(vec![
        "-1",
        "3.5",
        "1e999",
        "NaN",
        "18446744073709551615",
        "18446744073709551616",
        "4294967295",
        "4000000000",
        "0",
        "\"\"",
        "null",
        "[[]]",
        "{}",
        "true",
        "\"\\u0000\"",
        "",
        "1e-400",
        "65535",
        "99999999999999999999999999",
    ]);
    prop_oneof![
        3 => (0.0..1.0, 1..=255_u8).prop_map(|(at, mask)| Change::Flip(at, mask)),
        1 => (0.0..1.0).prop_map(Change::Cut),
        1 => (0.0..1.0).prop_map(Change::DropLine),
        1 => (0.0..1.0).prop_map(Change::RepeatLine),
        1 => (0.0..1.0, 0.0..1.0).prop_map(|(one, other)| Change::SwapLines(one, other)),
        3 => (0.0..1.0, numbers).prop_map(|(at, number)| Change::Number(at, number)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let place =
        |fraction: &f64, length: usize| ((fraction * length as f64) as usize).min(length.saturating_sub(1));
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    let lines =
        |bytes: &[u8]| bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    match change {
        Change::Flip(at, mask) => bytes[place(at, length)] ^= mask,
        Change::Cut(at) => bytes.truncate(place(at, length)),
        Change::DropLine(at) => {
            let mut lines = lines(bytes);
            lines.remove(place(at, lines.len()));
            *bytes = lines.concat();
        }
        Change::RepeatLine(at) => {
            let mut lines = lines(bytes);
            let at = place(at, lines.len());
            lines.insert(at, lines[at].clone());
            *bytes = lines.concat();
        }
        Change::SwapLines(one, other) => {
            let mut lines = lines(bytes);
            let (one, other) = (place(one, lines.len()), place(other, lines.len()));
            lines.swap(one, other);
            *bytes = lines.concat();
        }
        Change::Number(at, number) => {
            let at = place(at, length);
            let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|start| at + start) else {
                return;
            };
            let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            bytes.splice(start..start + digits, number.bytes());
        }
    }
}

/// Any mutation of a file of `ending` gives requests that the bytes can hold, or one error.
fn mutated(ending: &str, real_index: usize, changes: &[Change]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("t.{ending}"));
    trace::write(&path, &trace::read(&real()[real_index]).unwrap()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    changes.iter().for_each(|change| apply(&mut bytes, change));
    std::fs::write(&path, &bytes).unwrap();
    let outcome = outcome(&path);
    // A token takes two bytes of text and a request sixty; deflate makes at most 1032 bytes of one, and zstd and
    // Parquet repeat a block at the cost of some bytes. The real traces shrink to no less than a hundredth.
    let plain = if ending == "jsonl" { bytes.len() } else { bytes.len() * 1032 };
    assert!(outcome.tokens <= plain / 2 && outcome.requests <= plain / 60, "more than {plain} bytes can say");
    assert!(peak().is_none_or(|kib| kib < 1 << 20), "more than 1 GiB of memory");
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn mutated_lines_never_panic(which in 0..3_usize, changes in prop::collection::vec(changes(), 1..4)) {
        mutated("jsonl", which, &changes);
    }

    #[test]
    fn mutated_gzip_never_panics(which in 0..3_usize, changes in prop::collection::vec(changes(), 1..4)) {
        mutated("jsonl.gz", which, &changes);
    }

    #[test]
    fn mutated_zstd_never_panics(which in 0..3_usize, changes in prop::collection::vec(changes(), 1..4)) {
        mutated("jsonl.zst", which, &changes);
    }
}

#[cfg(feature = "parquet")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn mutated_parquet_never_panics(which in 0..3_usize, changes in prop::collection::vec(changes(), 1..4)) {
        mutated("parquet", which, &changes);
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for ending in ENDINGS {
        for cut in [0.0, 0.001, 0.1, 0.3, 0.6, 0.9, 0.99, 0.999] {
            // A plain file may be cut after a whole request.
            let outcome = mutated(ending, 1, &[Change::Cut(cut)]);
            assert!(outcome.failed, "{ending} cut at {cut}");
        }
    }
}

#[test]
fn a_flipped_byte_in_compressed_data_is_an_error() {
    for ending in ["jsonl.gz", "jsonl.zst"] {
        for place in [0.0, 0.2, 0.5, 0.8, 0.97] {
            assert!(mutated(ending, 2, &[Change::Flip(place, 0x10)]).failed, "{ending} at {place}");
        }
    }
}
