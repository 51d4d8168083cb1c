//! Request files that are wrong: is there one clear error that says where, and never a panic?

use crate::workload::requests::{file, read_text, reading};
use proptest::prelude::*;
use radialsim::error::Error;
use radialsim::workload::{RequestFormat, read};

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n";
const MOONCAKE: &str = "{\"timestamp\": 0, \"input_length\": 700, \"output_length\": 52, \"hash_ids\": [46, 47]}\n\
    {\"timestamp\": 3052, \"input_length\": 7, \"output_length\": 5, \"hash_ids\": [46]}\n";
const LENGTHS: &str = "arrival_time_ns,input_toks,output_toks\n46926808,2358,531\n347938951,1034,769\n";
const VLLM: &str = "{\"date\": \"x\", \"input_lens\": [3, 4], \"output_lens\": [5, 6], \"start_times\": [1.5, 2.5],\n \"errors\": [\"\", \"\"]}\n";

/// A wrong file: its format, what is replaced by what, and line, key and a part of the message of the error.
type Wrong = (RequestFormat, &'static str, &'static str, Option<u64>, Option<&'static str>, &'static str);

#[test]
fn mistakes_name_line_key_and_remedy() {
    use RequestFormat::{Azure, Lengths, Mooncake, Vllm};
    let cases: &[Wrong] = &[
        (Azure, "396", "-396", Some(3), Some("ContextTokens"), "a whole number from 0"),
        (Azure, "396", "NaN", Some(3), Some("ContextTokens"), "found NaN"),
        (Azure, "396", "1e3", Some(3), Some("ContextTokens"), "a whole number"),
        (Azure, "396", "396.0", Some(3), Some("ContextTokens"), "a whole number"),
        (Azure, "396", "99999999999999999999", Some(3), Some("ContextTokens"), "a whole number"),
        (Azure, "396", "268435457", Some(3), Some("ContextTokens"), "from 0 to 268435456"),
        (Azure, "396", "3\09", Some(3), Some("ContextTokens"), "found 3\\u{0}9"),
        (Azure, "396", "", Some(3), Some("ContextTokens"), "found nothing"),
        (Azure, "396", "0", Some(3), Some("ContextTokens"), "skip_empty"),
        (Azure, "396,", "", Some(3), None, "3 cells"),
        (Azure, "396,", "1,2,", Some(3), None, "found 4 cells"),
        (Azure, "11-16 18:15:50", "02-29 18:15:50", Some(3), Some("TIMESTAMP"), "a date and time"),
        (Azure, "2023-11-16 18:15:46.6805900", "1e300", Some(2), Some("TIMESTAMP"), "a date and time"),
        (Azure, "2023-11-16 18:15:46", "1023-11-16 18:15:46", None, Some("arrivals"), "within 213 days"),
        (Azure, "GeneratedTokens", "Generated", Some(1), Some("GeneratedTokens"), "one column of this name"),
        (Azure, "GeneratedTokens", "ContextTokens", Some(1), Some("ContextTokens"), "found two"),
        (Mooncake, "3052", "-1e300", Some(2), Some("timestamp"), "a number of milliseconds"),
        (Mooncake, "3052", "NaN", Some(2), Some("timestamp"), "found \"NaN\""),
        (Mooncake, "3052", "\"3052\"", Some(2), Some("timestamp"), "a number of milliseconds"),
        (Mooncake, "3052", "1e18", None, Some("arrivals"), "within 213 days"),
        (Mooncake, "\"timestamp\": 3052, ", "", Some(2), Some("timestamp"), "found nothing"),
        (
            Mooncake,
            "\"timestamp\": 3052, ",
            "\"input_length\": 7, ",
            Some(2),
            Some("input_length"),
            "each key once",
        ),
        (Mooncake, "[46, 47]", "[46]", None, Some("hash_ids"), "block_tokens"),
        (Mooncake, "[46]", "[46, 48]", Some(2), Some("hash_ids"), "blocks of 350 to 699 tokens"),
        (Mooncake, "[46, 47]", "[46, -47]", Some(1), Some("hash_ids[1]"), "whole numbers"),
        (Mooncake, "[46, 47]", "7", Some(1), Some("hash_ids"), "a list"),
        (Mooncake, "5, ", "5.5, ", Some(2), Some("output_length"), "a whole number"),
        (Mooncake, "{\"timestamp\": 3052", "[{\"timestamp\": 3052", Some(2), None, "one JSON object"),
        (Lengths, "347938951", "3479 38951", Some(3), Some("arrival_time_ns"), "a number of nanoseconds"),
        (Lengths, "347938951", "1e300", Some(3), Some("arrival_time_ns"), "a number of nanoseconds"),
        (Lengths, "347938951", "inf", Some(3), Some("arrival_time_ns"), "found inf"),
        (Lengths, "347938951", "99999999999999999999", None, Some("arrivals"), "within 213 days"),
        (Lengths, "input_toks", "input", Some(1), None, "a prompt length under one of the names"),
        (Lengths, "arrival_time_ns", "prompt_tokens", Some(1), None, "one name for the prompt"),
        (Lengths, "1034", "\"1034", Some(3), None, "cells"),
        (Vllm, "[3, 4]", "[3, \"4\"]", None, Some("input_lens[1]"), "a whole number"),
        (Vllm, "[3, 4]", "[3, -4]", None, Some("input_lens[1]"), "found -4"),
        (Vllm, "[3, 4]", "[3]", None, Some("output_lens"), "1 values"),
        (Vllm, "[3, 4]", "3", Some(1), None, "a list in input_lens"),
        (Vllm, "[5, 6]", "[5, 0]", None, Some("output_lens[1]"), "skip_empty"),
        (Vllm, "[1.5, 2.5]", "[1.5]", None, Some("start_times"), "2 values"),
        (Vllm, "[1.5, 2.5]", "[1.5, 1e300]", None, Some("start_times[1]"), "a number of seconds"),
        (Vllm, "[1.5, 2.5]", "[1.5, NaN]", None, Some("start_times[1]"), "found NaN"),
        (Vllm, "\"output_lens\"", "\"outputs\"", None, Some("output_lens"), "--save-detailed"),
        (Vllm, "\"output_lens\"", "\"input_lens\"", Some(1), Some("input_lens"), "each key once"),
        (Vllm, "]}\n", "]}\n{\"input_lens\": []}\n", Some(3), None, "the result of one benchmark"),
        (Vllm, "]}\n", "]", Some(2), None, "one JSON object"),
    ];
    for &(format, from, to, line, key, message) in cases {
        let whole = text(format);
        assert!(whole.contains(from), "{from}");
        let wrong = whole.replacen(from, to, 1);
        let (_folder, path) = file("wrong", wrong.as_bytes());
        let Err(Error::Input(error)) = read(&path, &reading(Some(format))) else {
            panic!("{format:?}: {wrong}")
        };
        let said = error.to_string();
        assert_eq!((error.line, error.key.as_deref()), (line, key), "{said}");
        assert!(said.contains(message), "{message}: {said}");
        assert_eq!(error.file.as_deref(), Some(path.as_path()));
    }
}

fn text(format: RequestFormat) -> &'static str {
    match format {
        RequestFormat::Azure => AZURE,
        RequestFormat::Mooncake => MOONCAKE,
        RequestFormat::Vllm => VLLM,
        _ => LENGTHS,
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    for (format, name, line) in [
        (RequestFormat::Azure, "396", 3),
        (RequestFormat::Lengths, "1034", 3),
        (RequestFormat::Mooncake, "3052", 2),
    ] {
        let mut bytes = text(format).as_bytes().to_vec();
        let at = text(format).find(name).unwrap();
        bytes[at] = 0xff;
        let (_folder, path) = file("wrong", &bytes);
        let Err(Error::Input(error)) = read(&path, &reading(None)) else { panic!("{format:?}") };
        assert_eq!(error.line, Some(line));
        assert!(error.expected.contains("UTF-8"), "{error}");
    }
}

#[test]
fn unknown_files_get_the_list_of_formats() {
    for text in ["", "\n\n", "a,b,c\n1,2,3\n", "{\"x\": 1}\n", "[1, 2]", "hello"] {
        let Err(Error::Input(error)) = read_text("x", text, None) else { panic!("{text}") };
        for (_, name) in RequestFormat::ALL {
            assert!(error.expected.contains(name), "{name}: {error}");
        }
    }
    for format in [
        RequestFormat::Azure,
        RequestFormat::Mooncake,
        RequestFormat::Lengths,
        RequestFormat::Vllm,
        RequestFormat::Trace,
    ] {
        assert!(matches!(read_text("x", "", Some(format)), Err(Error::Input(_))), "{format:?}");
    }
    let absent = read(std::path::Path::new("no such file"), &reading(None));
    assert!(matches!(absent, Err(Error::Io { .. })));
}

/// A line or row beyond the limit ends the reading; one below it does not.
#[test]
fn giant_lines_are_refused() {
    let giant = " ".repeat(17 << 20);
    let row = format!("{LENGTHS}5,{giant}6,7\n");
    let quote = format!("{LENGTHS}5,\"{},7\n", "9\n".repeat(9 << 20));
    let line = format!("{MOONCAKE}{giant}\n");
    for (text, line) in [(&row, 4), (&quote, 4), (&line, 3)] {
        let Err(Error::Input(error)) = read_text("x", text, None) else { panic!("line {line}") };
        assert!(error.expected.contains("at most 16777216 bytes"), "{error}");
        assert!(error.line >= Some(line), "{error}");
    }
    let fits = format!("{LENGTHS}5,{}6,7\n", " ".repeat(1 << 20));
    assert_eq!(read_text("x", &fits, None).unwrap().requests.len(), 3);
    // A result has its texts on one long line, and they are not held.
    let texts =
        VLLM.replace("\"errors\": [\"\",", &format!("\"generated_texts\": [\"{giant}\",")).replace('\n', "");
    assert_eq!(read_text("x", &texts, None).unwrap().requests.len(), 2);
}

proptest! {
    /// Whatever is done to a file, there is a result or an error that names the file.
    #[test]
    fn no_change_makes_it_panic(
        which in 0..4_usize,
        named in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6),
    ) {
        let format = [RequestFormat::Azure, RequestFormat::Mooncake, RequestFormat::Lengths, RequestFormat::Vllm][which];
        let mut bytes = text(format).as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"0123456789eE+-.,:\"[]{}\n\r \0"[usize::from(byte) % 26]),
                2 => { bytes.remove(at); if bytes.is_empty() { bytes.push(byte) } }
                _ => { let end = (at + usize::from(byte)).min(bytes.len()); let part = bytes[at..end].to_vec(); bytes.splice(at..at, part); }
            }
        }
        let (_folder, path) = file("wrong", &bytes);
        match read(&path, &reading(named.then_some(format))) {
            Ok(load) => {
                prop_assert!(!load.requests.is_empty());
                prop_assert!(load.requests.is_sorted_by_key(|request| request.arrival));
                prop_assert_eq!(load.requests[0].arrival.ps(), 0);
            }
            Err(Error::Input(error)) => {
                prop_assert_eq!(error.file.as_deref(), Some(path.as_path()));
                prop_assert!(!error.expected.is_empty());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
