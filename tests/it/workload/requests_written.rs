//! Requests written as tools write them: are they read back, and does nothing that is done to a file make the reader panic?

use crate::workload::requests::{file, read_text};
use crate::workload::requests_tools::rows;
use proptest::prelude::*;
use radialsim::error::Error;
use radialsim::workload::*;

/// A request: ms of arrival, prompt, output.
fn some_requests() -> impl Strategy<Value = Vec<(u64, u32, u32)>> {
    prop::collection::vec((0..10_000_000_u64, 1..5000_u32, 1..900_u32), 2..12)
}

/// The requests as a tool writes them.
fn written(requests: &[(u64, u32, u32)], how: usize) -> (&'static str, String) {
    let line = |line: &dyn Fn(&(u64, u32, u32)) -> String| requests.iter().map(line).collect::<String>();
    let list =
        |one: &dyn Fn(&(u64, u32, u32)) -> String| requests.iter().map(one).collect::<Vec<_>>().join(", ");
    let s = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    // 2024-05-12 in milliseconds.
    let epoch = 1_715_472_000_000;
    match how {
        0 => (
            "a.csv",
            format!(
                "arrival_timestamp,prompt_size,token_size\n{}",
                line(&|(ms, p, o)| format!("{},{p},{o}\n", s(*ms)))
            ),
        ),
        1 => (
            "a.csv",
            format!("timestamp,isl,osl\n{}", line(&|(ms, p, o)| format!("{},{p},{o}\n", epoch + ms))),
        ),
        2 => (
            "a.json",
            format!(
                "[{}]",
                list(&|(ms, p, o)| {
                    format!(
                        "{{\"ts\": {}000000, \"x\": [NaN, \"\\\"NaN\"], \"input_len\": {p}, \"output_len\": {o}}}",
                        epoch + ms
                    )
                })
            ),
        ),
        3 => (
            "a.jsonl",
            line(&|(ms, p, o)| {
                let blocks: Vec<u32> = (0..p.div_ceil(16)).collect();
                format!(
                    "{{\"chat_id\": {ms}, \"parent_chat_id\": -1, \"timestamp\": {}, \"input_length\": {p}, \"output_length\": {o}, \
                \"hash_ids\": {blocks:?}}}\n",
                    s(*ms)
                )
            }),
        ),
        4 => (
            "a.json",
            format!(
                "{{\"benchmarks\": [{{\"requests\": {{\"successful\": [\n{}]}}}}]}}",
                list(&|(ms, p, o)| {
                    format!(
                        "{{\"prompt_tokens\": {p}, \"output_tokens\": {o}, \"start_time\": {}}}",
                        s(epoch + ms)
                    )
                })
            ),
        ),
        5 => (
            "a.json",
            format!(
                "{{\"resourceSpans\": [{{\"scopeSpans\": [{{\"spans\": [\n{}]}}]}}]}}",
                list(&|(ms, p, o)| {
                    format!(
                        "{{\"startTimeUnixNano\": \"{}000000\", \"attributes\": [{{\"key\": \"gen_ai.usage.input_tokens\", \"value\": \
                {{\"intValue\": \"{p}\"}}}}, {{\"key\": \"gen_ai.usage.output_tokens\", \"value\": {{\"intValue\": \"{o}\"}}}}]}}",
                        epoch + ms
                    )
                })
            ),
        ),
        6 => (
            "a.jsonl",
            line(&|(ms, p, o)| {
                format!(
                    "{{\"metadata\": {{\"request_start_ns\": {}000000}}, \"metrics\": {{\"input_sequence_length\": {{\"value\": {p}}}, \
                \"output_sequence_length\": {{\"value\": {o}}}}}, \"error\": null}}\n",
                    epoch + ms
                )
            }),
        ),
        _ => (
            "a.json",
            format!(
                "{{\"mean\": NaN, \"input_lens\": [{}], \"output_lens\": [{}], \"start_times\": [{}]}}",
                list(&|(_, p, _)| p.to_string()),
                list(&|(_, _, o)| o.to_string()),
                list(&|(ms, ..)| s(*ms))
            ),
        ),
    }
}

proptest! {
    /// Whatever a tool writes is read back to the last picosecond.
    #[test]
    fn what_is_written_is_read_back(requests in some_requests(), how in 0..8_usize) {
        let (name, text) = written(&requests, how);
        let load = read_text(name, &text, None).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let first = requests.iter().map(|(ms, ..)| *ms).min().unwrap_or(0);
        let mut expected: Vec<_> = requests.iter().map(|(ms, p, o)| ((ms - first) * 1_000_000_000, *p, *o)).collect();
        expected.sort_by_key(|row| row.0);
        prop_assert_eq!(rows(&load), expected);
    }

    /// Whatever is done to a file, there is a result or an error that names the file.
    #[test]
    fn no_change_makes_it_panic(
        requests in some_requests(),
        how in 0..8_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..5),
    ) {
        let (name, text) = written(&requests, how);
        let mut bytes = text.into_bytes();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"0123456789eE+-.,:\"[]{}\n\r \0"[usize::from(byte) % 26]),
                2 => { bytes.remove(at); if bytes.is_empty() { bytes.push(byte) } }
                _ => { let end = (at + usize::from(byte)).min(bytes.len()); let part = bytes[at..end].to_vec(); bytes.splice(at..at, part); }
            }
        }
        let (_folder, path) = file(name, &bytes);
        match read(&path, &Reading { characters_per_token: Some(4.0), ..Reading::default() }) {
            Ok(load) => prop_assert!(load.requests.is_sorted_by_key(|request| request.arrival)),
            Err(Error::Input(error)) => {
                prop_assert_eq!(error.file.as_deref(), Some(path.as_path()));
                prop_assert!(!error.expected.is_empty());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
