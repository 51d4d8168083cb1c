//! Requests of files: are the real ones read to the last request and picosecond, and do the options do what they say?

use crate::data;
use radialsim::error::{Error, InputError};
use radialsim::trace::Request;
use radialsim::units::SimTime;
use radialsim::workload::*;
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A folder that goes away, and a file in it.
pub fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("a file");
    (folder, path)
}

/// As a file says, in this format.
pub fn reading(format: Option<RequestFormat>) -> Reading {
    Reading { format, ..Reading::default() }
}

/// What reading this text as a file gives.
pub fn read_text(
    name: &str,
    text: &str,
    format: Option<RequestFormat>,
) -> radialsim::error::Result<RequestSet> {
    let (_folder, path) = file(name, text.as_bytes());
    read(&path, &reading(format))
}

/// Arrival in picoseconds, prompt and output of each request.
fn rows(load: &RequestSet) -> Vec<(u64, u32, u32)> {
    load.requests.iter().map(|r| (r.arrival.ps(), r.prompt_tokens, r.output_tokens)).collect()
}

fn ids(load: &RequestSet) -> Vec<u64> {
    load.requests.iter().map(|request| request.id).collect()
}

fn input_error(read: radialsim::error::Result<RequestSet>) -> InputError {
    match read {
        Err(Error::Input(error)) => *error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn azure_is_read_to_the_last_100_ns() {
    let Some(path) = data("requests/azure2023_conv.csv") else { return };
    let load = read(&path, &reading(None)).unwrap();
    // All times are of one day; so the clock's digits, without its marks, give units of 100 ns.
    let text = std::fs::read_to_string(&path).unwrap();
    let plain = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |at: std::ops::Range<usize>| cells[0][at].parse::<u64>().unwrap();
        assert_eq!((&cells[0][..10], cells[0].len()), ("2023-11-16", 27));
        let s = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
        (s * 10_000_000 + number(20..27), cells[1].parse().unwrap(), cells[2].parse().unwrap())
    });
    let plain: Vec<(u64, u32, u32)> = plain.collect();
    assert_eq!(plain.len(), 19_366);
    assert!(plain.is_sorted_by_key(|row| row.0));
    let expected: Vec<_> = plain.iter().map(|&(at, p, g)| ((at - plain[0].0) * 100_000, p, g)).collect();
    assert!(rows(&load) == expected, "rows differ");
    assert_eq!(ids(&load), (0..19_366).collect::<Vec<_>>());
    assert!(load.remarks.is_empty() && load.clients.is_none() && load.prefix_block.is_none());
    assert_eq!(load, read(&path, &reading(Some(RequestFormat::Azure))).unwrap());
    assert_eq!(
        load.requests,
        read(&path, &Reading { skip_empty: true, ..Reading::default() }).unwrap().requests,
        "none is empty"
    );
}

#[test]
fn mooncake_keeps_its_hashes() {
    let Some(path) = data("requests/mooncake_conversation.jsonl") else { return };
    let load = read(&path, &reading(None)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let (mut blocks, mut again, mut seen, mut count) = (0_u64, 0_u64, HashSet::new(), 0);
    let mut first_ms = None;
    for (line, request) in text.lines().zip(&load.requests) {
        // By its marks, without a parser of JSON.
        let after = |key: &str| line.split(&format!("\"{key}\": ")).nth(1).unwrap();
        let number = |key: &str| after(key).split([',', '}']).next().unwrap().parse::<u64>().unwrap();
        let ms = number("timestamp");
        let hashes = after("hash_ids").trim_matches(['[', ']', '}']).split(", ");
        let hashes: Vec<u64> = hashes.map(|hash| hash.parse().unwrap()).collect();
        let ps = (ms - *first_ms.get_or_insert(ms)) * 1_000_000_000;
        assert_eq!(request.arrival.ps(), ps);
        assert_eq!(u64::from(request.prompt_tokens), number("input_length"));
        assert_eq!(u64::from(request.output_tokens), number("output_length"));
        assert_eq!(request.prefix, hashes);
        assert_eq!(hashes.len() as u64, number("input_length").div_ceil(512));
        again += hashes.iter().filter(|hash| seen.contains(*hash)).count() as u64;
        blocks += hashes.len() as u64;
        seen.extend(hashes);
        count += 1;
    }
    assert_eq!((count, load.requests.len()), (12_031, 12_031));
    let facts = RequestSummary::of(&load);
    assert_eq!(load.prefix_block, Some(512));
    assert_eq!(facts.blocks, Some((blocks, again)));
    assert!(again > 0 && again < blocks);
}

#[test]
fn lengths_and_a_real_vllm_run_agree() {
    let (Some(lengths), Some(run)) = (
        data("serving/sharegpt_llama31_8b_lengths.csv"),
        data("serving/rtx4090_llama31_8b_vllm/requests.jsonl"),
    ) else {
        return;
    };
    let (lengths, run) = (read(&lengths, &reading(None)).unwrap(), read(&run, &reading(None)).unwrap());
    assert_eq!(lengths.requests.len(), 300);
    let size = |r: &Request| (r.id, r.prompt_tokens, r.output_tokens);
    assert!(lengths.requests.iter().map(size).eq(run.requests.iter().map(size)));
    // The first two rows: 46926808 and 347938951 ns.
    assert_eq!(lengths.requests[1].arrival.ps(), (347_938_951 - 46_926_808) * 1000);
    // The run sent them a little late, by its wall clock: 1787267980.0827403 and 1787267980.3478317 s.
    assert_eq!(run.requests[1].arrival.ps(), (3_478_317 - 827_403) * 100_000);
    for (planned, sent) in lengths.requests.iter().zip(&run.requests) {
        assert!((planned.arrival.s() - sent.arrival.s()).abs() < 0.5, "{}", planned.id);
    }
}

#[test]
fn a_router_trace_is_a_request_file() {
    let Some(path) = data("traces/smollm2-skip25.jsonl") else { return };
    let trace = radialsim::trace::read(&path).unwrap();
    let load = read(&path, &reading(None)).unwrap();
    assert_eq!(load.requests.len(), trace.requests.len());
    for (request, recorded) in load.requests.iter().zip(&trace.requests) {
        assert!(request.runs.is_empty());
        assert_eq!(
            (request.arrival, request.prompt_tokens, request.output_tokens),
            (
                recorded.arrival.saturating_sub(trace.requests[0].arrival),
                recorded.prompt_tokens,
                recorded.output_tokens
            )
        );
    }
}

/// The same two requests, 1.5 s apart, the later one first in the file.
#[test]
fn every_format_says_the_same() {
    let vllm = r#"{"date": "20250101-000000", "backend": "vllm", "request_rate": 2.0, "completed": 2,
        "input_lens": [30, 10], "output_lens": [4, 2], "start_times": [27537.75, 27536.25],
        "ttfts": [0.1, 0.2], "itls": [[0.01, 0.02], []], "generated_texts": ["{\"input_lens\": [1]}", "b"]}"#;
    let one_line = vllm.replace('\n', " ");
    let trace = concat!(
        r#"{"type":"header","format":"router-trace","version":1,"model":"m","layers":2,"order":"monotone","reuse":false,"#,
        r#""granularity":"token","kv":"write","router":{"kind":"none"},"source":"hand"}"#,
        "\n",
        r#"{"type":"request","id":7,"arrival_s":9.5,"prompt_tokens":30,"output_tokens":4}"#,
        "\n",
        r#"{"type":"request","id":3,"arrival_s":8,"prompt_tokens":10,"output_tokens":2}"#,
        "\n"
    );
    let head = "arrived_at,num_prefill_tokens,num_decode_tokens";
    for (name, text, format) in [
        (
            "a.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-03-01 00:00:00.5,30,4\n2024-02-29 23:59:59,10,2\n",
            RequestFormat::Azure,
        ),
        (
            "a.csv",
            "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\r\n\"2024-01-01T00:00:00.5\", 30,4\r\n\r\n2023-12-31 23:59:59,10,2",
            RequestFormat::Azure,
        ),
        (
            "m.jsonl",
            "{\"timestamp\": 2500, \"input_length\": 30, \"output_length\": 4, \"hash_ids\": [5]}\n\n{\"hash_ids\": [6], \
             \"timestamp\": 1000, \"input_length\": 10, \"output_length\": 2}\r\n",
            RequestFormat::Mooncake,
        ),
        (
            "l.csv",
            "arrival_time_ns,input_toks,output_toks\n1600000000,30,4\n100000000,10,2\n",
            RequestFormat::Lengths,
        ),
        ("l.csv", &format!("{head}\n-1,30,4\n-2.5,10,2\n"), RequestFormat::Lengths),
        (
            "l.csv",
            "Timestamp,Model,Request tokens,Response tokens,Total tokens\n6.5,GPT-4,30,4,34\n5,ChatGPT,10,2,12\n",
            RequestFormat::Lengths,
        ),
        (
            "l.jsonl",
            "{\"prompt_tokens\": 30, \"completion_tokens\": 4, \"arrival_time_ms\": 1.6e3}\n{\"prompt_tokens\": 10, \
             \"completion_tokens\": 2, \"arrival_time_ms\": 100.0}\n",
            RequestFormat::Lengths,
        ),
        ("v.json", vllm, RequestFormat::Vllm),
        ("v.json", &one_line, RequestFormat::Vllm),
        ("t.jsonl", trace, RequestFormat::Trace),
    ] {
        for format in [None, Some(format)] {
            let load = read_text(name, text, format).unwrap_or_else(|error| panic!("{text}\n{error}"));
            assert_eq!(rows(&load), [(0, 10, 2), (1_500_000_000_000, 30, 4)], "{text}");
            assert_eq!(ids(&load), [1, 0], "{text}");
            assert!(load.remarks.is_empty(), "{text}");
        }
    }
    // A result of many lines, and rows of a vLLM run under the name of their program.
    let rows_of_a_run =
        "{\"request_id\": \"b-0\", \"input_toks\": 9, \"output_toks\": 1, \"arrival_time\": 1.0}";
    assert_eq!(rows(&read_text("r.jsonl", rows_of_a_run, Some(RequestFormat::Vllm)).unwrap()), [(0, 9, 1)]);
}

#[test]
fn compressed_files_are_read_too() {
    let text = "input_tokens,output_tokens,priority\n5,6,2\n7,8,0\n";
    let plain = read_text("a.csv", text, None).unwrap();
    assert_eq!(plain.requests.iter().map(|r| r.priority).collect::<Vec<_>>(), [2, 0]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv.gz");
    let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), Default::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap();
    assert_eq!(read(&path, &reading(None)).unwrap(), plain);
    let damaged = std::fs::read(&path).unwrap();
    std::fs::write(&path, &damaged[..damaged.len() - 9]).unwrap();
    let error = input_error(read(&path, &reading(None)));
    assert!(error.expected.contains("undamaged gzip"), "{error}");
    let path = folder.path().join("a.csv.zst");
    std::fs::write(&path, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    assert_eq!(read(&path, &reading(None)).unwrap(), plain);
}

#[test]
fn what_a_file_does_not_say_is_remarked() {
    let load = read_text("l.csv", "input_len,output_len\n3,4\n1,2\n", None).unwrap();
    assert_eq!(rows(&load), [(0, 3, 4), (0, 1, 2)]);
    assert_eq!((load.remarks.len(), load.remarks[0].key), (1, "arrivals"));
    let result = r#"{"request_rate": "inf", "input_lens": [3], "output_lens": [4]}"#;
    let load = read_text("v.json", result, None).unwrap();
    assert_eq!((load.remarks.len(), load.remarks[0].key), (1, "arrivals"));
    assert!(load.remarks[0].why.contains("inf"));

    let empty = "input_len,output_len\n0,4\n5,6\n1,0\n0,0\n7,8\n";
    let error = input_error(read_text("l.csv", empty, None));
    assert_eq!(
        (error.line, error.key.as_deref(), error.found.as_deref()),
        (Some(2), Some("input_len"), Some("0"))
    );
    let (_folder, path) = file("l.csv", empty.as_bytes());
    let load = read(&path, &Reading { skip_empty: true, ..Reading::default() }).unwrap();
    assert_eq!((rows(&load), ids(&load)), (vec![(0, 5, 6), (0, 7, 8)], vec![0, 1]));
    assert!(load.remarks.iter().any(|remark| (remark.key, remark.value.as_str()) == ("skip_empty", "3")));
    let (_folder, path) = file("l.csv", b"input_len,output_len\n0,4\n");
    assert!(
        input_error(read(&path, &Reading { skip_empty: true, ..Reading::default() }))
            .found
            .unwrap()
            .contains("without tokens")
    );
}

/// Requests at 0, 1, ... 9 s with prompts of 1000, 1100, ... tokens in Mooncake's form.
fn ten() -> (tempfile::TempDir, FileSpec) {
    let line = |i: u64| {
        let hashes: Vec<u64> = (0..(1000 + 100 * i).div_ceil(512)).collect();
        format!(
            "{{\"timestamp\":{},\"input_length\":{},\"output_length\":{},\"hash_ids\":{hashes:?}}}\n",
            1000 * i,
            1000 + 100 * i,
            i + 1
        )
    };
    let (folder, path) = file("m.jsonl", (0..10).map(line).collect::<String>().as_bytes());
    (folder, FileSpec::new(path))
}

fn load(spec: &FileSpec) -> RequestSet {
    spec.load(Path::new(""), 1).unwrap()
}

#[test]
fn options_take_a_window_a_scale_and_bounds() {
    let (_folder, spec) = ten();
    let all = load(&spec);
    assert_eq!(all, read(&spec.path, &reading(None)).unwrap());
    let seconds = |load: &RequestSet| load.requests.iter().map(|r| r.arrival.s()).collect::<Vec<_>>();

    let window = FileSpec { start_s: 2.5, duration_s: Some(3.5), ..spec.clone() };
    assert_eq!((ids(&load(&window)), seconds(&load(&window))), (vec![3, 4, 5], vec![0.5, 1.5, 2.5]));
    let scaled = FileSpec { time_scale: 0.5, most_requests: Some(2), ..window.clone() };
    assert_eq!((ids(&load(&scaled)), seconds(&load(&scaled))), (vec![3, 4], vec![0.25, 0.75]));
    assert_eq!(load(&scaled).remarks[0].key, "time_scale");

    let cut = FileSpec { most_prompt_tokens: Some(1024), most_output_tokens: Some(8), ..spec.clone() };
    let cut = load(&cut);
    for (request, before) in cut.requests.iter().zip(&all.requests) {
        assert_eq!(request.prompt_tokens, before.prompt_tokens.min(1024));
        assert_eq!(request.output_tokens, before.output_tokens.min(8));
        assert_eq!(request.prefix, before.prefix[..2]);
    }
    let remarks: Vec<_> =
        cut.remarks.iter().map(|remark| (remark.key, &*remark.value, &*remark.why)).collect();
    assert_eq!(
        remarks,
        [
            ("most_prompt_tokens", "1024", "9 of 10 prompts are longer and were cut"),
            ("most_output_tokens", "8", "2 of 10 outputs are longer and were cut")
        ]
    );

    for (wrong, key) in [
        (FileSpec { time_scale: 0.0, ..spec.clone() }, "time_scale"),
        (FileSpec { time_scale: f64::NAN, ..spec.clone() }, "time_scale"),
        (FileSpec { time_scale: 1e300, ..spec.clone() }, "time_scale"),
        (FileSpec { start_s: -1.0, ..spec.clone() }, "start_s"),
        (FileSpec { start_s: 1e300, ..spec.clone() }, "start_s"),
        (FileSpec { duration_s: Some(0.0), ..spec.clone() }, "duration_s"),
        (FileSpec { start_s: 9.5, ..spec.clone() }, "start_s"),
        (FileSpec { most_requests: Some(0), ..spec.clone() }, "most_requests"),
        (FileSpec { most_prompt_tokens: Some(0), ..spec.clone() }, "most_prompt_tokens"),
        (FileSpec { most_output_tokens: Some(0), ..spec.clone() }, "most_output_tokens"),
    ] {
        let error = input_error(wrong.load(Path::new(""), 1));
        assert_eq!(error.key.as_deref(), Some(key), "{error}");
    }
}

#[test]
fn arrivals_of_a_file_can_be_replaced() {
    let (_folder, spec) = ten();
    let poisson = Arrivals::Poisson { rate_per_s: 3.0 };
    let drawn = load(&FileSpec { arrivals: Some(poisson.clone()), ..spec.clone() });
    let fixed = Lengths { prompt: Length::Fixed(1), output: Length::Fixed(1) };
    let alone = requests(10, &fixed, &poisson, 1).unwrap();
    assert!(drawn.requests.iter().map(|r| r.arrival).eq(alone.iter().map(|r| r.arrival)));
    assert_eq!(ids(&drawn), (0..10).collect::<Vec<_>>());
    assert_eq!(drawn.remarks[0].key, "arrivals");

    let loop_of = Arrivals::Clients { count: 4, think_s: Think::Fixed(0.5) };
    let spec = FileSpec { arrivals: Some(loop_of), most_requests: Some(6), ..spec };
    let closed = load(&spec);
    assert!(closed.requests.iter().all(|r| r.arrival == SimTime::ZERO));
    assert_eq!(closed.clients, Some(Clients { count: 4, think: vec![SimTime::from_s(0.5); 6] }));
    for spec in [
        FileSpec { time_scale: 2.0, ..spec.clone() },
        FileSpec { start_s: 1.0, ..spec.clone() },
        FileSpec { duration_s: Some(1.0), ..spec },
    ] {
        assert_eq!(input_error(spec.load(Path::new(""), 1)).key.as_deref(), Some("arrivals"));
    }
}

#[test]
fn facts_agree_with_plain_sums() {
    let text = "arrival_time_s,input_tokens,output_tokens\n0,5,1\n1,1,1\n4,3,9\n";
    let facts = RequestSummary::of(&read_text("l.csv", text, None).unwrap());
    assert_eq!((facts.requests, facts.span.s(), facts.rate_per_s), (3, 4.0, Some(0.5)));
    // Gaps 1 and 3: mean 2, standard deviation 1.
    assert_eq!(facts.gap_cv, Some(0.5));
    assert_eq!(facts.prompt, LengthSummary { total: 9, least: 1, p50: 3, p99: 5, most: 5 });
    assert_eq!(facts.output, LengthSummary { total: 11, least: 1, p50: 1, p99: 9, most: 9 });
    assert_eq!((facts.prompt.mean(3), facts.blocks), (3.0, None));
}
