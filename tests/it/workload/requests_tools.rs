//! Request files as other tools write them: is the format told, the unit of time known or asked for, and nothing passed over in silence?

use crate::workload::requests::{file, read_text, reading};
use radialsim::error::{Error, InputError};
use radialsim::workload::*;

/// Arrival in picoseconds, prompt and output of each request.
pub fn rows(load: &RequestSet) -> Vec<(u64, u32, u32)> {
    load.requests.iter().map(|r| (r.arrival.ps(), r.prompt_tokens, r.output_tokens)).collect()
}

fn refused(name: &str, text: &str, reading: &Reading) -> InputError {
    let (_folder, path) = file(name, text.as_bytes());
    match read(&path, reading) {
        Err(Error::Input(error)) => *error,
        other => panic!("{text}: {other:?}"),
    }
}

fn remark<'a>(load: &'a RequestSet, key: &str) -> Option<(&'a str, &'a str)> {
    let remark = load.remarks.iter().find(|remark| remark.key == key)?;
    Some((&remark.value, &remark.why))
}

const AIPERF: &str = concat!(
    r#"{"metadata":{"session_num":0,"x_correlation_id":"u1","conversation_id":"c","turn_index":0,"request_start_ns":1759813207500000000,"#,
    r#""request_ack_ns":null,"request_end_ns":1759813208000000000,"benchmark_phase":"profiling","was_cancelled":false},"metrics":{"#,
    r#""input_sequence_length":{"value":10,"unit":"tokens"},"time_to_first_token":{"value":NaN,"unit":"ms"},"#,
    r#""output_sequence_length":{"value":2,"unit":"tokens"}},"error":null}"#,
    "\n",
    r#"{"metadata":{"session_num":0,"x_correlation_id":"u1","conversation_id":"c","turn_index":1,"request_start_ns":1759813209000000000,"#,
    r#""request_end_ns":1759813210000000000,"benchmark_phase":"profiling"},"metrics":{"input_sequence_length":{"value":30,"unit":"tokens"},"#,
    r#""output_sequence_length":{"value":4,"unit":"tokens"}},"error":null}"#,
    "\n",
    r#"{"metadata":{"request_start_ns":1759813209000000000,"benchmark_phase":"profiling"},"metrics":{"error_isl":{"value":550}},"#,
    r#""error":{"code":499,"type":"RequestCancellationError"}}"#,
    "\n",
);

const GUIDELLM: &str = r#"{
  "metadata": {"version": 1},
  "benchmarks": [
    {"type_": "generative_benchmark", "metrics": {"tokens_per_second": Infinity},
     "requests": {
       "successful": [
         {"prompt_tokens": 10, "output_tokens": 2, "request_start_time": 1759813207.5, "info": {"conversation_id": null}},
         {"prompt_tokens": 30, "output_tokens": 4, "info": {"timings": {"request_start": 1759813209.0}}}
       ],
       "incomplete": [], "errored": [{"prompt_tokens": null}]}}
  ]
}"#;

const OTEL: &str = r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{"name":"x"},"spans":[
 {"spanId":"a0","parentSpanId":"","name":"invoke_agent","startTimeUnixNano":"1759813207000000000","attributes":[
   {"key":"gen_ai.usage.input_tokens","value":{"intValue":"40"}},{"key":"gen_ai.usage.output_tokens","value":{"intValue":"6"}}]},
 {"spanId":"a1","parentSpanId":"a0","name":"chat","startTimeUnixNano":"1759813207500000000","attributes":[
   {"key":"gen_ai.usage.input_tokens","value":{"intValue":"10"}},{"key":"gen_ai.usage.output_tokens","value":{"intValue":2}}]},
 {"spanId":"a2","parentSpanId":"a0","name":"chat","startTimeUnixNano":"1759813209000000000","attributes":[
   {"key":"gen_ai.usage.prompt_tokens","value":{"intValue":"30"}},{"key":"llm.usage.completion_tokens","value":{"intValue":"4"}}]},
 {"spanId":"a3","parentSpanId":"a0","name":"tool","startTimeUnixNano":"1759813209500000000","attributes":[]}
]}]}]}
"#;

/// The same two requests, 1.5 s apart, from each tool; and what is said about the file.
#[test]
fn tools_say_the_same() {
    let iso = "[{\"timestamp\": \"2024-05-10T00:00:00Z\", \"input_tokens\": 10, \"output_tokens\": 2},\n\
        {\"timestamp\": \"2024-05-10T02:00:01.5+02:00\", \"input_tokens\": 30, \"output_tokens\": 4}]";
    let bailian = "{\"chat_id\": 0, \"parent_chat_id\": -1, \"timestamp\": 61.25, \"input_length\": 10, \"output_length\": 2, \"type\": \
        \"text\", \"turn\": 1, \"hash_ids\": [0]}\n{\"chat_id\": 1, \"parent_chat_id\": -1, \"timestamp\": 62.75, \"input_length\": 30, \
        \"output_length\": 4, \"type\": \"text\", \"turn\": 1, \"hash_ids\": [0, 1]}\n";
    let sglang = "{\"backend\": \"sglang\", \"request_rate\": Infinity, \"total_input_tokens\": 40, \"input_lens\": [10, 30], \
        \"output_lens\": [2, 4], \"start_times\": [1.0, 2.5], \"itls\": [[NaN], []], \"mean_ttft_ms\": -Infinity}\n";
    let failed = sglang
        .replace("[10, 30]", "[10, 30, 7]")
        .replace("[2, 4]", "[2, 4, 0]")
        .replace("[1.0, 2.5]", "[1.0, 2.5, 3.0], \"errors\": [\"\", \"\", \"timeout\"]");
    let splitwise = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n\
        0,2,0,0.5,1,10,2\n1,2,0,2.0,1,30,4\n";
    let mooncake = "{\"timestamp\": 0, \"input_length\": 10, \"output_length\": 2}\n\
        {\"timestamp\": 1500, \"input_length\": 30, \"output_length\": 4}\n";
    for (name, text, format, times, remarks) in [
        ("a.json", iso, RequestFormat::Lengths, "`timestamp`, dates", &[] as &[&str]),
        ("b.jsonl", bailian, RequestFormat::Bailian, "`timestamp` in s, by its name", &[]),
        ("s.jsonl", sglang, RequestFormat::Vllm, "`start_times` in s, by its name", &[]),
        ("s.jsonl", &failed, RequestFormat::Vllm, "`start_times` in s, by its name", &["failed"]),
        ("s.csv", splitwise, RequestFormat::Lengths, "`arrival_timestamp` in s, by its name", &[]),
        ("m.jsonl", mooncake, RequestFormat::Mooncake, "`timestamp` in ms, by the format", &["time_unit"]),
        (
            "p.jsonl",
            AIPERF,
            RequestFormat::Aiperf,
            "`metadata.request_start_ns` in ns, by its name",
            &["failed"],
        ),
        (
            "g.json",
            GUIDELLM,
            RequestFormat::Guidellm,
            "`request_start_time` in s, by its name",
            &["requests"],
        ),
        ("o.json", OTEL, RequestFormat::Otel, "`startTimeUnixNano` in ns, by its name", &["spans", "spans"]),
        (
            "o.json",
            &format!("[{OTEL}]"),
            RequestFormat::Otel,
            "`startTimeUnixNano` in ns, by its name",
            &["spans", "spans"],
        ),
        (
            "l.tsv",
            "input_toks\toutput_toks\tarrival_time_ns\n10\t2\t46926808\n30\t4\t1546926808\n",
            RequestFormat::Lengths,
            "`arrival_time_ns` in ns, by its name",
            &[],
        ),
        (
            "l.csv",
            "arrived_at;isl;osl\n1;10;2\n2.5;30;4\n",
            RequestFormat::Lengths,
            "`arrived_at` in s, by its name",
            &[],
        ),
        (
            "m.csv",
            "arrived_at,isl,osl,hash_ids\n1,10,2,\"[1, 2]\"\n2.5,30,4,\"[1]\"\n",
            RequestFormat::Lengths,
            "`arrived_at` in s, by its name",
            &["prefixes"],
        ),
        (
            "o.jsonl",
            &OTEL.replace('\n', ""),
            RequestFormat::Otel,
            "`startTimeUnixNano` in ns, by its name",
            &["spans", "spans"],
        ),
    ] {
        for text in [text.to_owned(), format!("\u{feff}{text}")] {
            for stated in [None, Some(format)] {
                let load = read_text(name, &text, stated).unwrap_or_else(|error| panic!("{text}\n{error}"));
                assert_eq!(rows(&load), [(0, 10, 2), (1_500_000_000_000, 30, 4)], "{text}");
                assert_eq!((load.told.format, &*load.told.times), (Some(format), times), "{text}");
                let keys: Vec<&str> = load.remarks.iter().map(|remark| remark.key).collect();
                assert_eq!(keys, remarks, "{text}");
            }
        }
    }
}

#[test]
fn units_are_told_by_size_or_asked_for() {
    let csv =
        |name: &str, a: &str, b: &str| format!("{name},input_length,output_length\n{a},10,2\n{b},30,4\n");
    // Dates since 1970 in any unit, where the name says none: 1715472000.123 s is 2024-05-12.
    for (a, b, unit) in [
        ("1715472000.123", "1715472001.623", "s"),
        ("1715472000123", "1715472001623", "ms"),
        ("1715472000123000", "1715472001623000.0", "us"),
        ("1715472000123000000", "1715472001623000000", "ns"),
        ("1.715472000123e12", "1.715472001623e12", "ms"),
    ] {
        for name in ["timestamp", "time", "created_at", "ts"] {
            let load = read_text("t.csv", &csv(name, a, b), None).unwrap();
            assert_eq!(rows(&load), [(0, 10, 2), (1_500_000_000_000, 30, 4)], "{name} {a}");
            let (value, why) = remark(&load, "time_unit").expect("a remark");
            assert_eq!(value, unit);
            assert!(why.contains("by the size") && why.contains(name), "{why}");
        }
    }
    // Numbers that could be anything are asked for, and read when the unit is said.
    for (name, a, b) in [
        ("timestamp", "0", "1500"),
        ("timestamp", "0.0", "1.5"),
        ("arrival", "1", "2.5"),
        ("time", "1715472000", "3"),
    ] {
        let error = refused("t.csv", &csv(name, a, b), &Reading::default());
        assert_eq!((error.line, error.key.as_deref()), (Some(2), Some(name)));
        assert!(error.expected.contains("time_unit (s, ms, us or ns)"), "{error}");
        for ((unit, _), size) in TimeUnit::ALL.into_iter().zip([1e12, 1e9, 1e6, 1e3]) {
            let (_folder, path) = file("t.csv", csv(name, a, b).as_bytes());
            let said = Reading { time_unit: Some(unit), ..Reading::default() };
            let Ok(load) = read(&path, &said) else { continue };
            let apart = (b.parse::<f64>().unwrap() - a.parse::<f64>().unwrap()).abs();
            assert_eq!(load.requests[1].arrival.ps(), (apart * size).round() as u64, "{name} {a} {unit:?}");
        }
    }
    // A name that the size of the numbers contradicts.
    for name in ["arrival_time", "arrived_at", "timestamp_s", "Timestamp"] {
        let error = refused("t.csv", &csv(name, "1715472000123", "1715472001623"), &Reading::default());
        assert_eq!(
            (error.line, error.key.as_deref(), error.found.as_deref()),
            (Some(2), Some(name), Some("1715472000123"))
        );
        assert!(error.expected.contains("milliseconds since 1970 by its size"), "{error}");
    }
    let load = read_text("t.csv", &csv("arrival_time_ms", "1715472000", "1715473500"), None).unwrap();
    assert_eq!(load.requests[1].arrival.ps(), 1_500_000_000_000);
    assert!(remark(&load, "time_unit").expect("a remark").1.contains("in seconds"), "dates by their size");
    // Nothing is asked for where it does not matter.
    let load = read_text("t.csv", &csv("timestamp", "7", "7"), None).unwrap();
    assert_eq!(rows(&load), [(0, 10, 2), (0, 30, 4)]);
    // Dates and numbers in one column.
    let error = refused("t.csv", &csv("timestamp", "2024-05-10 00:00:00", "5"), &Reading::default());
    assert_eq!((error.line, error.key.as_deref()), (Some(3), Some("timestamp")));
    assert!(error.expected.contains("a date and time"), "{error}");
}

/// Mooncake's keys alone are milliseconds only where the numbers look like it.
#[test]
fn mooncake_without_hashes_is_read_only_where_it_is_sure() {
    let lines = |a: &str, b: &str| {
        format!(
            "{{\"timestamp\": {a}, \"input_length\": 10, \"output_length\": 2}}\n{{\"timestamp\": {b}, \"input_length\": 30, \
             \"output_length\": 4}}\n"
        )
    };
    for (a, b) in [("0", "1.5"), ("0", "1"), ("0.5", "1500"), ("3", "12")] {
        for format in [None, Some(RequestFormat::Mooncake)] {
            let error = refused("m.jsonl", &lines(a, b), &reading(format));
            assert_eq!((error.line, error.key.as_deref()), (Some(1), Some("timestamp")), "{a} {b}");
        }
        let said = Reading { time_unit: Some(TimeUnit::S), ..Reading::default() };
        let (_folder, path) = file("m.jsonl", lines(a, b).as_bytes());
        assert!(read(&path, &said).unwrap().remarks.is_empty());
    }
    let load = read_text("m.jsonl", &lines("1715472000123", "1715472001623"), None).unwrap();
    assert_eq!(rows(&load)[1].0, 1_500_000_000_000);
    let bailian = lines("0", "1500").replace("\"timestamp\"", "\"chat_id\": 1, \"timestamp\"");
    let error = refused("m.jsonl", &bailian, &reading(Some(RequestFormat::Mooncake)));
    assert!(error.expected.contains("bailian"), "{error}");
}

/// A time that may not be the arrival is never passed over.
#[test]
fn a_time_that_is_not_known_is_refused() {
    for name in ["finish_time", "when_received_at", "end_timestamp", "Date Of Call"] {
        let text = format!("{name},isl,osl\n1,2,3\n5,4,5\n");
        let error = refused("t.csv", &text, &Reading::default());
        assert_eq!((error.line, error.key.as_deref()), (Some(1), Some(name)));
        assert!(error.expected.contains("time_column"), "{error}");
        let (_folder, path) = file("t.csv", text.as_bytes());
        let column =
            |unit| Reading { time_column: Some(name.into()), time_unit: Some(unit), ..Reading::default() };
        assert_eq!(read(&path, &column(TimeUnit::Ms)).unwrap().requests[1].arrival.ps(), 4_000_000_000);
        let arrivals = Some(Arrivals::Every { gap_s: 2.0 });
        let replaced =
            FileSpec { arrivals, ..FileSpec::new(&path) }.load(std::path::Path::new(""), 1).unwrap();
        assert_eq!(replaced.requests[1].arrival.s(), 2.0);
    }
    let json = "{\"finished\": {\"time\": 5}, \"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 4}}\n";
    assert_eq!(refused("t.jsonl", json, &Reading::default()).key.as_deref(), Some("finished.time"));
    let spans = "isl,osl,latency,queue_time,time_to_first_token,ttft_ms\n1,2,3,4,5,6\n";
    assert_eq!(remark(&read_text("t.csv", spans, None).unwrap(), "arrivals").unwrap().0, "all at the start");
    let late = "{\"isl\": 1, \"osl\": 2}\n{\"isl\": 1, \"osl\": 2, \"timestamp\": 5}\n";
    let error = refused("t.jsonl", late, &Reading::default());
    assert_eq!((error.line, error.key.as_deref()), (Some(2), Some("timestamp")));
    let hashed = "{\"input_length\": 9, \"output_length\": 2, \"hash_ids\": [1]}\n".repeat(2);
    assert_eq!(
        remark(&read_text("m.jsonl", &hashed, None).unwrap(), "arrivals").unwrap().0,
        "all at the start"
    );
    let late = hashed.clone() + &hashed.replace("{", "{\"timestamp\": 7, ");
    assert_eq!(refused("m.jsonl", &late, &Reading::default()).key.as_deref(), Some("arrivals"));
    let two = "timestamp,time,isl,osl\n1,2,3,4\n";
    assert!(refused("t.csv", two, &Reading::default()).expected.contains("time_column"));
}

#[test]
fn blocks_of_other_sizes_are_told_or_asked_for() {
    let line = |ms: u32, tokens: u32, block: u32| {
        let hashes: Vec<u32> = (0..tokens.div_ceil(block)).collect();
        format!(
            "{{\"timestamp\": {ms}, \"input_length\": {tokens}, \"output_length\": 2, \"hash_ids\": {hashes:?}}}\n"
        )
    };
    for block in [16, 64, 256, 1024] {
        let text = line(0, 20 * block, block) + &line(1500, 3 * block + 1, block);
        let load = read_text("m.jsonl", &text, None).unwrap();
        assert_eq!(load.prefix_block, Some(block));
        assert_eq!(remark(&load, "block_tokens").expect("a remark").0, block.to_string());
        let (_folder, path) = file("m.jsonl", text.as_bytes());
        let said = |tokens| Reading { block_tokens: Some(tokens), ..Reading::default() };
        assert_eq!(read(&path, &said(block)).unwrap().prefix_block, Some(block));
        let error = refused("m.jsonl", &text, &said(100));
        assert_eq!((error.line, error.key.as_deref()), (Some(1), Some("hash_ids")));
    }
    let error = refused("m.jsonl", &(line(0, 320, 16) + &line(1500, 320, 32)), &Reading::default());
    assert_eq!((error.line, error.key.as_deref()), (Some(2), Some("hash_ids")));
    assert_eq!(refused("m.jsonl", &line(0, 700, 1000), &Reading::default()).key.as_deref(), Some("hash_ids"));
    let mixed = line(0, 1024, 512)
        + "{\"timestamp\": 1500, \"input_length\": 9, \"output_length\": 1, \"hash_ids\": []}\n";
    assert_eq!(read_text("m.jsonl", &mixed, None).unwrap().prefix_block, Some(512), "no hashes in one line");
}

#[test]
fn texts_need_a_number_of_characters_for_a_token() {
    let text = r#"[{"id":"x","conversations":[{"from":"human","value":"Hello there, who are you?"},{"from":"gpt","value":"I am a model."},
        {"from":"human","value":"Fïne."},{"from":"gpt","value":"Indeed."}]},
        {"id":"y","conversations":[{"from":"gpt","value":"cut off"},{"from":"human","value":"Q"},{"from":"gpt","value":"An answer"}]}]"#;
    let chat = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"12345678"}]},{"role":"assistant","content":"1234"}]}"#;
    let error = refused("s.json", text, &Reading::default());
    assert_eq!(error.key.as_deref(), Some("characters_per_token"));
    let four = Reading { characters_per_token: Some(4.0), ..Reading::default() };
    let (_folder, path) = file("s.json", text.as_bytes());
    let load = read(&path, &four).unwrap();
    // 25 characters before an answer of 13; 43 before one of 7; 8 before one of 9, the first of which answers nothing.
    assert_eq!(rows(&load), [(0, 7, 4), (0, 11, 2), (0, 2, 3)]);
    assert_eq!(
        load.turns.keys().collect::<Vec<_>>(),
        [&1],
        "the second answer of the first conversation follows"
    );
    assert_eq!(remark(&load, "characters_per_token").unwrap().0, "4");
    let (_folder, path) = file("s.jsonl", chat.as_bytes());
    assert_eq!(rows(&read(&path, &four).unwrap()), [(0, 2, 1)]);
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error =
            refused("s.json", text, &Reading { characters_per_token: Some(wrong), ..Reading::default() });
        assert_eq!(error.key.as_deref(), Some("characters_per_token"));
    }
    let error = refused("s.json", &text.replace("\"value\":\"Q\"", "\"text\":\"Q\""), &four);
    assert_eq!((error.line, error.key.as_deref()), (Some(3), Some("conversations[1].value")));
}

/// A tokenizer of words counts the same texts; it and characters exclude each other.
#[test]
fn a_tokenizer_counts_the_tokens_of_texts() {
    let text = "{\"conversations\":[{\"from\":\"human\",\"value\":\"a b, c\"},{\"from\":\"gpt\",\"value\":\"b\"},\
        {\"from\":\"human\",\"value\":\"c c\"},{\"from\":\"gpt\",\"value\":\"a b\"}]}\n";
    let (folder, path) = file("s.jsonl", text.as_bytes());
    let count = TokenCount::new("words", |text| Ok(text.split(' ').count() as u64));
    let by_words = Reading { tokenizer: Some(count.clone()), ..Reading::default() };
    let load = read(&path, &by_words).unwrap();
    assert_eq!(rows(&load), [(0, 3, 1), (0, 6, 2)]);
    assert_eq!(remark(&load, "tokenizer").unwrap().0, "words");
    let both = Reading { characters_per_token: Some(4.0), ..by_words.clone() };
    assert_eq!(refused("s.jsonl", text, &both).key.as_deref(), Some("characters_per_token"));
    assert_eq!(refused("x", "isl,osl\n1,2\n", &by_words).key.as_deref(), Some("tokenizer"));

    let tokenizer = r#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"?": 0, "a": 1, "b": 2, "c": 3, ",": 4}, "unk_token": "?"}}"#;
    std::fs::create_dir(folder.path().join("words")).unwrap();
    std::fs::write(folder.path().join("words/tokenizer.json"), tokenizer).unwrap();
    for name in ["words", "words/tokenizer.json"] {
        let keys = format!("file: (path: \"s.jsonl\", tokenizer: {name:?})");
        let path = crate::workload::requests_scenario::scenario(folder.path(), &keys, "Method(Dense)");
        let scenario = radialsim::scenario::Scenario::load(&path, &[]).unwrap();
        let inputs = radialsim::scenario::Inputs::default();
        let built = scenario.build_with(&inputs);
        if cfg!(not(feature = "gpu")) {
            assert!(built.map(drop).unwrap_err().to_string().contains("feature gpu"));
            continue;
        }
        let (built, notes) = built.unwrap();
        let lengths: Vec<_> = built[0]
            .trace
            .requests
            .iter()
            .map(|request| (request.prompt_tokens, request.output_tokens))
            .collect();
        assert_eq!(lengths, [(4, 1), (7, 2)]);
        let said = notes.iter().find(|note| note.key == "workload.file.tokenizer").expect("a remark");
        assert_eq!(said.value, name);
        let used: Vec<_> = scenario.used(&inputs).into_iter().map(|input| input.name).collect();
        assert!(used.contains(&"words/tokenizer.json".to_owned()), "{used:?}");
    }
}

/// LLMServingSim's token ids are hashed where a size of blocks is said.
#[test]
fn token_ids_become_hashes() {
    let line = |ids: &[u32]| {
        let count = ids.len();
        format!(
            "{{\"input_toks\": {count}, \"output_toks\": 2, \"arrival_time_ns\": 0, \"input_tok_ids\": {ids:?}}}\n"
        )
    };
    let text = line(&[1, 2, 3, 4, 5]) + &line(&[1, 2, 3, 4, 6]) + &line(&[1, 2, 7, 4]) + &line(&[3, 4]);
    let load = read_text("l.jsonl", &text, None).unwrap();
    assert_eq!(remark(&load, "prefixes").unwrap().0, "input_tok_ids");
    let (_folder, path) = file("l.jsonl", text.as_bytes());
    let load = read(&path, &Reading { block_tokens: Some(2), ..Reading::default() }).unwrap();
    let prefix = |index: usize| &load.requests[index].prefix;
    assert_eq!((load.prefix_block, load.remarks.len()), (Some(2), 0));
    assert_eq!([0, 1, 2, 3].map(|index| prefix(index).len()), [3, 3, 2, 1]);
    assert_eq!(prefix(0)[..2], prefix(1)[..2]);
    assert!(prefix(0)[2] != prefix(1)[2] && prefix(0)[0] == prefix(2)[0] && prefix(0)[1] != prefix(2)[1]);
    assert!(!prefix(0).contains(&prefix(3)[0]), "a hash stands for all before its block too");
    let short = text.replacen("[1, 2, 3, 4, 5]", "[1, 2, 3, 4]", 1);
    let error = refused("l.jsonl", &short, &Reading { block_tokens: Some(2), ..Reading::default() });
    assert_eq!((error.line, error.key.as_deref()), (Some(1), Some("input_tok_ids")));
}

/// What is asked for and would do nothing is refused.
#[test]
fn options_without_effect_are_refused() {
    let plain = "arrival_time,isl,osl\n1,2,3\n5,4,5\n";
    let dates = "timestamp,isl,osl\n2024-05-10 00:00:00,2,3\n";
    let mooncake = "{\"timestamp\": 0, \"input_length\": 10, \"output_length\": 2, \"hash_ids\": [1]}\n";
    let base = Reading::default;
    for (text, reading, key) in [
        (plain, Reading { characters_per_token: Some(4.0), ..base() }, "characters_per_token"),
        (plain, Reading { block_tokens: Some(16), ..base() }, "block_tokens"),
        (plain, Reading { block_tokens: Some(0), ..base() }, "block_tokens"),
        (dates, Reading { time_unit: Some(TimeUnit::S), ..base() }, "time_unit"),
        ("isl,osl\n1,2\n", Reading { time_unit: Some(TimeUnit::S), ..base() }, "time_unit"),
        (mooncake, Reading { time_column: Some("timestamp".into()), ..base() }, "time_column"),
    ] {
        assert_eq!(refused("x", text, &reading).key.as_deref(), Some(key));
    }
}

/// Keys within objects, and words of names written together.
#[test]
fn names_are_found_within_objects() {
    let spans = "{\n  \"name\": \"chat\",\n  \"start_time\": \"2024-05-10T00:00:00.000000Z\",\n  \"attributes\": {\n    \
        \"gen_ai.usage.input_tokens\": 10,\n    \"gen_ai.usage.output_tokens\": 2\n  }\n}\n{\n  \"name\": \"chat\",\n  \
        \"start_time\": \"2024-05-10T00:00:01.500000Z\",\n  \"attributes\": {\n    \"gen_ai.usage.input_tokens\": 30,\n    \
        \"gen_ai.usage.output_tokens\": 4\n  }\n}\n";
    let usage = "{\"created\": 1715472000.0, \"usage\": {\"prompt_tokens\": 10, \"completion_tokens\": 2}}\n\
        {\"created\": 1715472001.5, \"usage\": {\"prompt_tokens\": 30, \"completion_tokens\": 4}}\n";
    let camel = "[{\"startTime\": 7.0, \"promptTokens\": 10, \"completionTokens\": 2},\n\
        {\"startTime\": 8.5, \"promptTokens\": 30, \"completionTokens\": 4}]";
    for text in [spans, usage, camel] {
        let load = read_text("x.json", text, None).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(rows(&load), [(0, 10, 2), (1_500_000_000_000, 30, 4)], "{text}");
    }
}

#[test]
fn summaries_name_the_file_that_has_requests() {
    for (text, hint) in [
        (r#"{"request_throughput": {"avg": 1}, "input_config": {}}"#, "profile_export.jsonl"),
        (r#"{"service_kind": "openai", "experiments": [{"requests": []}]}"#, "profile_export.jsonl"),
        (r#"{"backend": "sglang", "total_input_tokens": 40, "request_rate": Infinity}"#, "--output-details"),
    ] {
        let error = refused("s.json", text, &Reading::default());
        assert!(error.expected.contains(hint), "{error}");
    }
    let two = "{\"input_lens\": [1], \"output_lens\": [1]}\n{\"input_lens\": [1], \"output_lens\": [1]}\n";
    assert!(refused("s.jsonl", two, &Reading::default()).expected.contains("keep the line of one"));
    let runs =
        GUIDELLM.replace("\"benchmarks\": [", "\"benchmarks\": [{\"requests\": {\"successful\": []}}, ");
    assert_eq!(remark(&read_text("g.json", &runs, None).unwrap(), "benchmarks").unwrap().0, "2");
}

#[test]
fn mistakes_in_nested_files_name_line_and_key() {
    for (text, from, to, line, key) in [
        (AIPERF, "{\"value\":30,", "{\"value\":-30,", 2, "metrics.input_sequence_length.value"),
        (
            AIPERF,
            "\"output_sequence_length\":{\"value\":4",
            "\"osl\":{\"value\":4",
            2,
            "metrics.output_sequence_length.value",
        ),
        (
            AIPERF,
            "\"request_start_ns\":1759813209000000000,\"request_end",
            "\"request_end",
            2,
            "metadata.request_start_ns",
        ),
        (GUIDELLM, "\"prompt_tokens\": 30", "\"prompt_tokens\": null", 8, "prompt_tokens"),
        (GUIDELLM, "1759813209.0", "\"soon\"", 8, "info.timings.request_start"),
        (OTEL, "\"1759813209000000000\"", "\"x\"", 6, "startTimeUnixNano"),
        (OTEL, "{\"intValue\":\"30\"}", "{\"intValue\":\"3.5\"}", 6, "gen_ai.usage.prompt_tokens"),
        (OTEL, "\"attributes\":[]", "\"attributes\":7", 8, "attributes"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = refused("x.json", &text.replacen(from, to, 1), &Reading::default());
        assert_eq!((error.line, error.key.as_deref()), (Some(line), Some(key)), "{error}");
    }
    for cut in [GUIDELLM, OTEL] {
        let error = refused("x.json", &cut[..cut.len() / 2], &Reading::default());
        assert!(error.line.is_some() && error.expected.contains("JSON"), "{error}");
    }
    let deep = format!("{{\"resourceSpans\": {}", "[".repeat(100_000));
    refused("x.json", &deep, &Reading::default());
    let giant = format!(
        "{{\"benchmarks\": [{{\"requests\": {{\"successful\": [{{\"x\": \"{}\"}}]}}}}]}}",
        " ".repeat(17 << 20)
    );
    let error = refused("x.json", &giant, &Reading::default());
    assert!(error.expected.contains("at most 16777216 bytes"), "{error}");
    let skipped = giant.replace("\"successful\"", "\"errored\": [], \"other\"");
    assert!(
        refused("x.json", &skipped, &Reading::default()).found.unwrap().contains("none"),
        "what is not needed may be large"
    );
}
