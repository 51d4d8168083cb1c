//! Conversations: does a turn wait for the one before, for as long as is said, and share what was said before?

use crate::workload::requests::{file, reading};
use crate::workload::requests_scenario::scenario;
use radialsim::error::{Error, InputError};
use radialsim::scenario::{Built, Scenario};
use radialsim::sim::Silent;
use radialsim::units::SimTime;
use radialsim::workload::*;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Two sessions and a request alone, as LLMServingSim writes them: 2 s and 1 s of tools between calls.
const AGENTS: &str = "{\"input_toks\": 100, \"output_toks\": 5, \"arrival_time_ns\": 0}\n\
    {\"session_id\": \"s0\", \"arrival_time_ns\": 1000000, \"sub_requests\": [{\"input_toks\": 200, \"output_toks\": 8, \
    \"tool_duration_ns\": 2000000000}, {\"input_toks\": 320, \"output_toks\": 4, \"tool_duration_ns\": 1000000000}, \
    {\"input_toks\": 400, \"output_toks\": 3}]}\n\
    {\"session_id\": \"s0\", \"arrival_time_ns\": 2000000, \"sub_requests\": [{\"input_toks\": 50, \"output_toks\": 6}]}\n";

/// A conversation of three turns and another of two, 1 s apart each, in Bailian's form.
const BAILIAN: &str = "{\"chat_id\": 7, \"parent_chat_id\": -1, \"timestamp\": 0.0, \"input_length\": 40, \"output_length\": 9}\n\
    {\"chat_id\": 8, \"parent_chat_id\": 7, \"timestamp\": 1.0, \"input_length\": 60, \"output_length\": 9}\n\
    {\"chat_id\": 3, \"parent_chat_id\": -1, \"timestamp\": 1.5, \"input_length\": 20, \"output_length\": 9}\n\
    {\"chat_id\": 9, \"parent_chat_id\": 8, \"timestamp\": 2.0, \"input_length\": 90, \"output_length\": 9}\n\
    {\"chat_id\": 4, \"parent_chat_id\": 3, \"timestamp\": 2.5, \"input_length\": 30, \"output_length\": 9}\n\
    {\"chat_id\": 5, \"parent_chat_id\": 99, \"timestamp\": 3.0, \"input_length\": 30, \"output_length\": 9}\n";

/// When each request came and was over, by its id, when the file runs.
fn served(name: &str, text: &str, keys: &str) -> (Built, HashMap<u64, (SimTime, SimTime)>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    let path = scenario(folder.path(), &format!("file: (path: {name:?}{keys})"), "Method(Dense)");
    let (mut built, _) = Scenario::load(&path, &[]).unwrap().build().unwrap();
    let built = built.remove(0);
    let ledger = built.run(&mut Silent).unwrap();
    let times = ledger.requests.iter().map(|times| (times.id, (times.arrival, times.last))).collect();
    (built, times)
}

fn links(load: &RequestSet) -> Vec<(u64, u64)> {
    load.turns.iter().map(|(id, link)| (*id, link.after)).collect()
}

fn refused(spec: &FileSpec) -> InputError {
    match spec.load(Path::new(""), 1) {
        Err(Error::Input(error)) => *error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_of_agents_wait_for_the_one_before() {
    let (built, times) = served("a.jsonl", AGENTS, "");
    assert_eq!(built.setup.sessions.as_ref().unwrap().turns.len(), 2);
    let s = SimTime::from_s;
    assert_eq!([times[&0].0, times[&1].0, times[&4].0], [s(0.0), s(0.001), s(0.002)]);
    assert_eq!(times[&2].0, times[&1].1 + s(2.0));
    assert_eq!(times[&3].0, times[&2].1 + s(1.0));
    let (_, times) = served("a.jsonl", AGENTS, ", sessions: (think_s: Fixed(0.25))");
    assert_eq!((times[&2].0, times[&3].0), (times[&1].1 + s(0.25), times[&2].1 + s(0.25)));
    // Other arrivals are those of first calls.
    let (_, times) = served("a.jsonl", AGENTS, ", arrivals: Every(gap_s: 5.0)");
    assert_eq!([times[&0].0, times[&1].0, times[&4].0], [s(0.0), s(5.0), s(10.0)]);
    assert_eq!(times[&2].0, times[&1].1 + s(2.0));
}

#[test]
fn turns_come_at_their_times_unless_they_wait() {
    let s = SimTime::from_s;
    let (built, times) = served("b.jsonl", BAILIAN, "");
    assert!(built.setup.sessions.is_none());
    assert_eq!([0, 1, 2, 3, 4, 5].map(|id| times[&id].0), [0.0, 1.0, 1.5, 2.0, 2.5, 3.0].map(s));
    let (_, times) = served("b.jsonl", BAILIAN, ", sessions: (think_s: Recorded)");
    for (turn, before, own) in [(1, 0, 1.0), (3, 1, 2.0), (4, 2, 2.5)] {
        assert_eq!(times[&turn].0, times[&before].1.max(s(own)));
    }
    // Squeezed a million times, turns would come before the answers.
    let (_, times) = served("b.jsonl", BAILIAN, ", sessions: (think_s: Recorded), time_scale: 1e-6");
    for (turn, before) in [(1, 0), (3, 1), (4, 2)] {
        assert_eq!(times[&turn].0, times[&before].1, "as soon as the turn before has ended");
    }
    assert_eq!(times[&5].0, s(3e-6), "a turn whose predecessor is not there begins a conversation");
    let (_, times) = served("b.jsonl", BAILIAN, ", sessions: (think_s: Exponential(0.5))");
    let pauses = [(1, 0), (3, 1), (4, 2)].map(|(turn, before)| times[&turn].0 - times[&before].1);
    assert!(pauses.iter().all(|pause| *pause > SimTime::ZERO) && pauses[0] != pauses[1]);
}

#[test]
fn a_window_forgets_turns_before_it() {
    let (_folder, path) = file("b.jsonl", BAILIAN.as_bytes());
    let all = read(&path, &reading(None)).unwrap();
    assert_eq!(links(&all), [(1, 0), (3, 1), (4, 2)]);
    let sessions = Some(SessionSpec::default());
    let late = FileSpec { start_s: 0.5, sessions, ..FileSpec::new(&path) }.load(Path::new(""), 1).unwrap();
    assert_eq!(links(&late), [(3, 1), (4, 2)], "the first turn is gone");
    let few =
        FileSpec { most_requests: Some(2), sessions, ..FileSpec::new(&path) }.load(Path::new(""), 1).unwrap();
    assert_eq!(links(&few), [(1, 0)]);
    let said = FileSpec::new(&path).load(Path::new(""), 1).unwrap();
    assert!(said.remarks.iter().any(|remark| (remark.key, &*remark.value) == ("sessions", "3")));
}

#[test]
fn measured_pauses_are_kept() {
    let record = |turn: u32, start: u64, end: u64| {
        format!(
            "{{\"metadata\": {{\"x_correlation_id\": \"u\", \"turn_index\": {turn}, \"request_start_ns\": {start}000000000, \
             \"request_end_ns\": {end}000000000}}, \"metrics\": {{\"input_sequence_length\": {{\"value\": 9}}, \
             \"output_sequence_length\": {{\"value\": 3}}}}, \"error\": null}}\n"
        )
    };
    let text = record(1, 1_759_813_207, 1_759_813_209) + &record(0, 1_759_813_200, 1_759_813_204);
    let (_folder, path) = file("p.jsonl", text.as_bytes());
    let load = read(&path, &reading(None)).unwrap();
    let link = FollowUp { after: 1, think: Some(SimTime::from_s(3.0)), follows: false };
    assert_eq!(load.turns, BTreeMap::from([(0, link)]));
    let (_, times) = served("p.jsonl", &text, ", sessions: (think_s: Recorded)");
    assert_eq!(times[&0].0, times[&1].1 + SimTime::from_s(3.0));
}

/// Mooncake's form with sessions: later turns have a pause in place of an arrival.
#[test]
fn delays_stand_for_arrivals() {
    let text = "{\"session_id\": \"a\", \"timestamp\": 5000, \"input_length\": 30, \"output_length\": 4}\n\
        {\"session_id\": \"b\", \"timestamp\": 4000, \"input_length\": 20, \"output_length\": 4}\n\
        {\"session_id\": \"a\", \"delay\": 250.5, \"input_length\": 40, \"output_length\": 4}\n\
        {\"session_id\": \"a\", \"delay\": 0, \"input_length\": 50, \"output_length\": 4}\n";
    let (built, times) = served("m.jsonl", text, "");
    assert_eq!(built.setup.sessions.as_ref().unwrap().turns.len(), 2);
    assert_eq!((times[&0].0, times[&1].0), (SimTime::from_s(1.0), SimTime::ZERO));
    assert_eq!(times[&2].0, times[&0].1 + SimTime::from_s(0.2505));
    assert_eq!(times[&3].0, times[&2].1);
    for (from, to, line, key) in [
        ("250.5", "-1", Some(3), "delay"),
        ("250.5", "\"x\"", Some(3), "delay"),
        ("\"delay\": 250.5, ", "", Some(3), "timestamp"),
        ("\"a\", \"timestamp\": 5000", "\"a\", \"delay\": 0", None, "arrivals"),
    ] {
        let (_folder, path) = file("m.jsonl", text.replace(from, to).as_bytes());
        let Err(Error::Input(error)) = read(&path, &reading(Some(RequestFormat::Mooncake))) else {
            panic!("{from}")
        };
        assert_eq!((error.line, error.key.as_deref()), (line, Some(key)), "{error}");
    }
}

/// A turn begins with the prompt and the answer of the turn before, in whole blocks.
#[test]
fn turns_share_what_was_said_before() {
    let csv = "session_id,arrival_time,input_length,output_length\na,0,40,9\nb,0,16,1\na,1,60,9\na,2,100,9\na,3,20,4\n";
    let (_folder, path) = file("s.csv", csv.as_bytes());
    let spec = FileSpec { block_tokens: Some(8), ..FileSpec::new(&path) };
    let load = spec.load(Path::new(""), 1).unwrap();
    let prefix: HashMap<u64, &[u64]> = load.requests.iter().map(|r| (r.id, &*r.prefix)).collect();
    let shared = |a: u64, b: u64| prefix[&a].iter().zip(prefix[&b]).take_while(|(a, b)| a == b).count();
    assert_eq!([0, 1, 2, 3, 4].map(|id| prefix[&id].len()), [5, 0, 7, 12, 2], "whole blocks of prompts");
    // 40 + 9 tokens are six whole blocks; the first turn has five of them in its own prompt.
    assert_eq!((shared(0, 2), shared(2, 3), shared(3, 4)), (5, 7, 0));
    assert_eq!(load.prefix_block, Some(8));
    assert!(load.remarks.iter().any(|remark| remark.key == "sessions" && remark.why.contains("shorter")));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.csv"), csv).unwrap();
    let keys = "file: (path: \"s.csv\", block_tokens: 8, sessions: (think_s: Recorded))";
    let path = scenario(folder.path(), keys, "Method(Dense)");
    let cached = |set: &[String]| {
        let (built, _) = Scenario::load(&path, set).unwrap().build().unwrap();
        built[0].run(&mut Silent).unwrap().cached_tokens
    };
    assert_eq!(cached(&[]), 0);
    // The second turn finds five blocks of prompt, the third seven of the second's prompt.
    let caching = ["serving.prefix_caching={\"block_tokens\":8}".to_owned()];
    assert_eq!(cached(&caching), 8 * (5 + 7));
    // Whole blocks behind those of the prompt before, as far as the output reaches: 40 to 48 of 49 tokens, 56 to 64 of 69.
    let said = |set: &[String]| {
        let (_, notes) = Scenario::load(&path, set).unwrap().build().unwrap();
        let ours = notes
            .into_iter()
            .filter(|note| note.key == "serving.prefix_caching" && note.why.contains("outputs"));
        ours.map(|note| note.value).collect::<Vec<_>>()
    };
    assert_eq!(said(&caching), ["up to 16 prompt tokens of 2 requests"]);
    assert_eq!(said(&[]), [""; 0]);
}

/// Recorded hashes say what is equal: what may be an earlier output, that no earlier prompt has and that the prompt has room for.
#[test]
fn outputs_in_later_prompts_are_counted() {
    let again = |rows: &[(u32, u32, &[u64])]| {
        let line = |(at, (prompt, output, hashes)): (usize, &(u32, u32, &[u64]))| {
            format!(
                "{{\"timestamp\": {}, \"input_length\": {prompt}, \"output_length\": {output}, \"hash_ids\": {hashes:?}}}\n",
                at * 1000
            )
        };
        let text: String = rows.iter().enumerate().map(line).collect();
        let (_folder, path) = file("m.jsonl", text.as_bytes());
        let load = read(&path, &reading(Some(RequestFormat::Mooncake))).unwrap();
        assert_eq!(load.prefix_block, Some(512));
        let OutputsAgain { requests, tokens } = OutputsAgain::count(&load.requests, 512);
        (requests, tokens)
    };
    let first = (1030, 1100, &[1, 2, 3][..]);
    // 1030 + 1100 tokens are four whole blocks, of which two were prompt.
    let next = (2200, 5, &[1, 2, 4, 5, 6][..]);
    assert_eq!(again(&[first, next]), (1, 1024));
    // A third prompt finds them in the second, and one that branches off finds less new.
    assert_eq!(again(&[first, next, next]), (1, 1024));
    assert_eq!(again(&[first, next, (2200, 5, &[1, 2, 4, 7, 8])]), (2, 1536));
    // No room for the output, another beginning, an output that fills no block, and the order of arrival.
    assert_eq!(again(&[first, (2100, 5, &[1, 2, 4, 5, 6])]), (0, 0));
    assert_eq!(again(&[first, (2200, 5, &[9, 10, 11, 12, 13])]), (0, 0));
    assert_eq!(again(&[(1030, 300, &[1, 2, 3]), next]), (0, 0));
    assert_eq!(again(&[next, first]), (0, 0));
}

#[test]
fn what_cannot_be_is_refused() {
    let sessions = Some(SessionSpec::default());
    let (_folder, path) = file("l.csv", b"input_len,output_len\n3,4\n1,2\n");
    let spec = FileSpec { sessions, ..FileSpec::new(&path) };
    assert_eq!(refused(&spec).key.as_deref(), Some("sessions"));
    let (_folder, path) = file("a.jsonl", AGENTS.as_bytes());
    let clients = Some(Arrivals::Clients { count: 2, think_s: Think::Fixed(1.0) });
    let both = FileSpec { arrivals: clients, ..FileSpec::new(&path) };
    assert_eq!(refused(&both).key.as_deref(), Some("arrivals"));
    for think_s in [Pause::Fixed(-1.0), Pause::Fixed(f64::NAN), Pause::Exponential(f64::INFINITY)] {
        let wrong = FileSpec { sessions: Some(SessionSpec { think_s }), ..FileSpec::new(&path) };
        assert_eq!(refused(&wrong).key.as_deref(), Some("sessions.think_s"));
    }
    assert_eq!(
        refused(&FileSpec { block_tokens: Some(0), ..FileSpec::new(&path) }).key.as_deref(),
        Some("block_tokens")
    );
    let circle = BAILIAN
        .replace("\"parent_chat_id\": -1, \"timestamp\": 0.0", "\"parent_chat_id\": 9, \"timestamp\": 0.0");
    for (text, line, key) in [
        (circle, None, "sessions"),
        (AGENTS.replace("2000000000}", "-2}"), Some(2), "sub_requests[0].tool_duration_ns"),
        (AGENTS.replace("320", "\"x\""), Some(2), "sub_requests[1].input_toks"),
        (AGENTS.replace("[{\"input_toks\": 50, \"output_toks\": 6}]", "[]"), Some(3), "sub_requests"),
    ] {
        let (_folder, path) = file("x.jsonl", text.as_bytes());
        let Err(Error::Input(error)) = read(&path, &reading(None)) else { panic!("{text}") };
        assert_eq!((error.line, error.key.as_deref()), (line, Some(key)), "{error}");
    }
}
