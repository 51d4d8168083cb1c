//! Served runs: the settings that engines print, what preempted sequences find again, and simulations held against measurements.

use crate::cli::{folder, radialsim, small, text};
use crate::lab::method;
use crate::sim::serving::{METHODS, spaced, tight, tight_for};
use proptest::prelude::*;
use radialsim::hw::Hardware;
use radialsim::metrics::{ErrorBar, Ledger};
use radialsim::report::{Gate, Queue, Served};
use radialsim::scenario::Scenario;
use radialsim::sched::{Admission, PrefixCaching, Serving};
use radialsim::sim::{self, Setup, Silent};
use radialsim::trace::Trace;
use radialsim::units::SimTime;
use radialsim::workload::{ServedRequest, Tick, measured, ticks};
use std::fmt::Write as _;
use std::path::Path;

const CACHING: Option<PrefixCaching> = Some(PrefixCaching { block_tokens: 16 });

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the routes: with prefixes kept, a sequence that was preempted computes no more anew than without, everything ends, and
    /// the blocks add up (asserted in every run).
    #[test]
    fn what_was_preempted_finds_its_blocks_again(
        which in 0..METHODS.len(), room in 24..60_u64, batch in 2..8_u32, count in 2..9_u32, prompt in 1..20_u32,
        output in 4..20_u32, block in 0..4_u32, gap_us in 0.0..2000.0_f64, seed in any::<u64>(), whole in any::<bool>(),
    ) {
        let admission = if whole { Admission::WholePrompt } else { Admission::AsItComes };
        let serving = Serving { kv_block_tokens: 1 << block, watermark: 0.0, admission, ..Serving::new(64, batch, true) };
        let room = u64::from((prompt + output + 4).next_multiple_of(1 << block)).max(room);
        let run = |prefix_caching| {
            let mut lab = tight_for(METHODS[which], Serving { prefix_caching, ..serving }, room * 32);
            lab.setup.dispatch.policy = radialsim::batch::Policy::Hop;
            lab.run(&spaced(lab.trace(&method(METHODS[which]), count, prompt, output, seed), gap_us))
        };
        let (kept, lost) = (run(CACHING), run(None));
        prop_assert_eq!(kept.output_tokens, lost.output_tokens);
        if lost.preemptions == 0 {
            prop_assert_eq!((kept.preemptions, kept.makespan), (0, lost.makespan));
        }
        prop_assert!(kept.kv.peak_blocks <= kept.kv.blocks);
    }
}

/// Rounds of drafts of two sequences that do not fit side by side: each once lost its round to the other's drafts, for ever.
#[test]
fn rounds_of_drafts_do_not_preempt_each_other_for_ever() {
    let serving = Serving {
        kv_block_tokens: 1,
        watermark: 0.0,
        admission: Admission::WholePrompt,
        prefix_caching: CACHING,
        ..Serving::new(64, 6, true)
    };
    let drafts = "DraftVerify(exit_layer: 6, drafts: 3, acceptance: 0.6)";
    for (gap_us, seed) in [(513.728_764_297_493_4, 5_962_589_731_754_664_539), (100.0, 1), (1000.0, 2)] {
        for prefix_caching in [CACHING, None] {
            let mut lab = tight_for(drafts, Serving { prefix_caching, ..serving }, 38 * 32);
            lab.setup.dispatch.policy = radialsim::batch::Policy::Hop;
            let ledger = lab.run(&spaced(lab.trace(&method(drafts), 5, 18, 7, seed), gap_us));
            assert_eq!(ledger.requests.len(), 5);
            assert!(ledger.preemptions < 100, "{}", ledger.preemptions);
        }
    }
}

/// Sequences of 40 entries that come one after another, with room for 160: those who come back compute less anew.
#[test]
fn blocks_found_again_save_computing() {
    let serving = Serving { kv_block_tokens: 4, watermark: 0.0, ..Serving::new(64, 8, true) };
    let run = |prefix_caching| {
        let lab = tight(Serving { prefix_caching, ..serving }, 160 * 32);
        lab.run(&spaced(lab.trace(&method("Dense"), 16, 8, 32, 1), 25_000.0))
    };
    let (kept, lost) = (run(CACHING), run(None));
    assert!(lost.preemptions > 0);
    assert_eq!(kept.output_tokens, lost.output_tokens);
    let (few, many) = (kept.recomputed_tokens, lost.recomputed_tokens);
    assert!(5 * few < 4 * many, "{few} of {many}");
    assert!(kept.makespan < lost.makespan);
}

/// Blocks over all layers, as engines count them, are as good as memory for as many.
#[test]
fn blocks_that_are_said_are_blocks_that_fit() {
    let serving = Serving { kv_block_tokens: 16, watermark: 0.0, ..Serving::new(64, 8, true) };
    let run = |serving, entries| {
        let lab = tight(serving, entries);
        lab.run(&lab.trace(&method("Dense"), 8, 8, 32, 1))
    };
    let by_memory = run(serving, 160 * 32);
    let said = run(Serving { kv_blocks: Some(10), ..serving }, 4096 * 32);
    assert_eq!(by_memory.kv.blocks, 10 * 32);
    assert_eq!((said.kv.blocks, said.makespan), (by_memory.kv.blocks, by_memory.makespan));
    let lab = tight(Serving { kv_blocks: Some(11), ..serving }, 160 * 32);
    let trace = lab.trace(&method("Dense"), 1, 8, 8, 1);
    let error = sim::run(&lab.setup, &trace, &mut Silent).expect_err("one block more than fits");
    assert!(error.to_string().contains("serving.kv_blocks: found 11, expected at most 10 blocks"), "{error}");
}

/// A prompt of 40 beside one that holds 30 of 64 entries: it begins at once where its first chunk fits, and waits where all of it must.
#[test]
fn a_whole_prompt_waits_for_all_its_blocks() {
    let begun = |admission| {
        let serving = Serving { admission, kv_block_tokens: 1, watermark: 0.0, ..Serving::new(32, 8, true) };
        let lab = tight(serving, 64 * 32);
        let mut trace = lab.trace(&method("Dense"), 2, 40, 4, 1);
        trace.requests[1].arrival = SimTime::from_us(10.0);
        let ledger = lab.run(&trace);
        let at = |id| *ledger.requests.iter().find(|request| request.id == id).expect("both end");
        at(1).scheduled < at(0).last
    };
    assert!(begun(Admission::AsItComes));
    assert!(!begun(Admission::WholePrompt));
}

/// Where the host forms passes ahead, its step is hidden behind passes that last longer, and only what lasts longer than they shows.
#[test]
fn a_step_that_runs_ahead_costs_what_sticks_out() {
    let run = |async_scheduling, step_us: f64| {
        let mut lab = tight(Serving { async_scheduling, ..Serving::new(64, 8, true) }, 4096 * 32);
        lab.setup.hardware.launch.step_us.value = step_us;
        lab.run(&lab.trace(&method("Dense"), 4, 8, 32, 1)).makespan
    };
    assert_eq!(run(true, 0.0), run(false, 0.0));
    let none = run(true, 0.0);
    // The first pass has none before it to hide behind.
    assert_eq!(run(true, 100.0) - none, SimTime::from_us(100.0));
    assert!(run(false, 100.0) - none > SimTime::from_us(3000.0));
    assert!(run(true, 1e6) - none > SimTime::from_us(30.0 * 0.9e6));
}

fn simulated(scenario: &Path, settings: &[String]) -> (Setup, Trace) {
    let scenario = Scenario::load(scenario, settings).expect("a scenario");
    let (mut built, _) = scenario.build().expect("it builds");
    let first = built.remove(0);
    (first.setup, first.trace)
}

/// The times of a simulation as if they had been measured.
fn as_measured(ledger: &Ledger) -> Vec<ServedRequest> {
    let mut requests = ledger.requests.clone();
    requests.sort_by_key(|request| request.id);
    let of = |request: &radialsim::metrics::RequestTimes| ServedRequest {
        input_toks: request.prompt_tokens,
        output_toks: request.output_tokens,
        arrival_time: request.arrival.s(),
        queued_ts: request.arrival.s(),
        scheduled_ts: request.scheduled.s(),
        first_token_ts: request.first.s(),
        last_token_ts: request.last.s(),
    };
    requests.iter().map(of).collect()
}

fn gates(texts: &[&str]) -> Vec<Gate> {
    texts.iter().map(|text| text.parse().expect("a gate")).collect()
}

/// A simulation held against itself is right; with one constant off by a fifth it is not.
#[test]
fn a_run_is_right_about_itself_and_wrong_with_one_constant_off() {
    let folder = folder();
    let scenario = small(folder.path(), "one", "(name: \"dense\", routes: Method(Dense))");
    let run = |settings: &[String]| {
        let (setup, trace) = simulated(&scenario, settings);
        sim::run(&setup, &trace, &mut Silent).expect("it fits")
    };
    let truth = run(&[]);
    let requests = as_measured(&truth);
    let gates = gates(&["tpot.mean=0.001", "e2e.p99=0.001", "ttft.mean=0.001", "queue.p50=1000"]);
    let same = Served::new(&requests, (&truth, ErrorBar::default()), None).expect("the same requests");
    assert!(same.missed(&gates[..3]).is_empty(), "{:?}", same.missed(&gates));
    let step = setup_step(&scenario);
    let off = run(&[format!("hardware.launch.step_us={}", step * 1.2)]);
    let other = Served::new(&requests, (&off, ErrorBar::default()), None).expect("the same requests");
    assert_eq!(other.missed(&gates[..3]).len(), 3);
    let mut fewer = requests.clone();
    fewer.pop();
    assert!(Served::new(&fewer, (&truth, ErrorBar::default()), None).is_err());
    fewer.push(ServedRequest { input_toks: 999, ..requests[0] });
    assert!(Served::new(&fewer, (&truth, ErrorBar::default()), None).is_err());
}

fn setup_step(scenario: &Path) -> f64 {
    simulated(scenario, &[]).0.hardware.launch.step_us.value
}

#[test]
fn measured_runs_that_are_none_are_refused_with_line_and_key() {
    let folder = folder();
    let path = folder.path().join("requests.jsonl");
    let line = |queued: f64, first: f64| {
        format!(
            "{{\"input_toks\": 5, \"output_toks\": 2, \"arrival_time\": 1787267980.5, \"queued_ts\": {queued}, \
             \"scheduled_ts\": 7.5, \"first_token_ts\": {first}, \"last_token_ts\": 9.0, \"more\": 1}}\n"
        )
    };
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write(&(line(7.0, 8.0) + &line(7.25, 8.0)));
    let requests = measured(&path).expect("two requests");
    assert_eq!(requests[0].arrival_time, 7.0, "the soonest was queued at once");
    assert_eq!(requests[1].arrival_time, 7.0);
    for (text, say) in [
        (String::new(), "at least one request"),
        (
            line(7.0, 8.0) + "{}\n",
            "expected a request with its times in seconds and its tokens (missing field `input_toks`",
        ),
        (line(7.0, 3.0), ":1: expected queued_ts"),
        (line(7.0, 8.0).replace("\"input_toks\": 5", "\"input_toks\": 0"), "at least one token"),
        (line(7.0, 8.0).replace("1787267980.5", "7.25"), "arrive before they are queued"),
        ("nonsense\n".into(), ":1: found onsense, expected a request"),
        (line(7.0, 8.0) + &line(7.0, 8.0).replace("7.5", "NaN"), ":2: scheduled_ts: found "),
        (line(7.0, 8.0).replace("9.0", "-Infinity"), "invalid type: string \"-Infinity\", expected f64"),
    ] {
        write(&text);
        let error = measured(&path).expect_err(&text).to_string();
        assert!(error.contains(say) && error.contains("requests.jsonl"), "{text:?}: {error}");
    }
    // Behind a byte order mark, and with what Python writes for numbers that nobody needs here.
    write(&format!("\u{feff}{}", line(7.0, 8.0).replace("\"more\": 1", "\"more\": [NaN, -Infinity]")));
    assert_eq!(measured(&path).expect("a request"), requests[..1]);
    std::fs::write(&path, b"\xff\n").expect("written");
    assert!(measured(&path).expect_err("no text").to_string().contains("found other bytes, expected UTF-8"));
    write("t,running,waiting,more\n1.0,2,3,4\n2.0,x,3,4\n");
    assert!(ticks(&path).expect_err("no number").to_string().contains("requests.jsonl:3:"));
    write("t,running,waiting\n1.0,-2,3\n");
    assert!(ticks(&path).is_err());
    write("t,running,waiting\n1.0,2,3\n2.0,NaN,3\n");
    assert!(ticks(&path).expect_err("no number").to_string().contains("requests.jsonl:3:"));
    for mark in ["", "\u{feff}"] {
        write(&format!("{mark}t,running,waiting,more\n1.0,2,3,NaN\n"));
        assert_eq!(ticks(&path).expect("a series"), [Tick { t: 1.0, running: 2.0, waiting: 3.0 }]);
    }
    for text in ["tpot=2", "tpot.mean", "tpot.p95=1", "speed.mean=2", "tpot.mean=-1", "tpot.mean=x"] {
        assert!(text.parse::<Gate>().is_err(), "{text}");
    }
}

/// The program: tables on standard output, exit code 1 where a gate is missed, 2 where an input is wrong.
#[test]
fn a_missed_gate_is_exit_code_one() {
    let folder = folder();
    let scenario = small(folder.path(), "one", "(name: \"dense\", routes: Method(Dense))");
    let (setup, trace) = simulated(&scenario, &[]);
    let mut lines = String::new();
    for request in as_measured(&sim::run(&setup, &trace, &mut Silent).expect("it fits")) {
        writeln!(
            lines,
            "{{\"input_toks\": {}, \"output_toks\": {}, \"arrival_time\": {}, \"queued_ts\": {}, \"scheduled_ts\": {}, \
             \"first_token_ts\": {}, \"last_token_ts\": {}}}",
            request.input_toks, request.output_toks, request.arrival_time, request.queued_ts, request.scheduled_ts,
            request.first_token_ts, request.last_token_ts
        )
        .expect("a string");
    }
    let (requests, series) = (folder.path().join("requests.jsonl"), folder.path().join("series.csv"));
    std::fs::write(&requests, lines).expect("written");
    std::fs::write(&series, "t,running,waiting\n0.01,1,0\n0.02,2,0\n").expect("written");
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let run = |more: &[&str]| {
        let (scenario, requests, series) = (path(&scenario), path(&requests), path(&series));
        let mut arguments =
            vec!["validate", "serving", &scenario, "--measured", &requests, "--series", &series];
        arguments.extend(more);
        radialsim(&arguments)
    };
    let right = run(&["--gate", "tpot.mean=0.01,ttft.p99=0.01", "--quiet"]);
    assert_eq!((right.status.code(), text(&right.stderr)), (Some(0), String::new()));
    assert!(text(&right.stdout).contains("tpot_s") && text(&right.stdout).contains("mean_running"));
    let wrong = run(&["--set", "hardware.launch.step_us=1200", "--gate", "tpot.mean=1"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong.stderr));
    assert!(text(&wrong.stderr).contains("tpot.mean is off by"));
    assert_eq!(run(&["--gate", "tpot=1"]).status.code(), Some(2));
}

/// The measured run of vLLM on an RTX 4090. With the shipped profile two of its six targets are missed, by name: uneven contexts make its passes longer, and
/// passes of few sequences, which wait for none, are simulated too long already (`docs/VALIDATION_SERVING.md`, "The run"). Without what is known of uneven
/// contexts all targets hold, and a constant off by a fifth breaks them.
#[test]
fn the_measured_run_of_vllm_is_met_and_a_fifth_off_is_not() {
    let folder = "serving/rtx4090_llama31_8b_vllm";
    let Some(path) = crate::data(&format!("{folder}/requests.jsonl")) else { return };
    let Some(series) = crate::data(&format!("{folder}/timeseries.csv")) else { return };
    let (requests, seconds) = (measured(&path).expect("requests"), ticks(&series).expect("a series"));
    let path = std::fs::canonicalize(path).expect("it is there");
    let workload = format!("workload={}", serde_json::json!({ "file": { "path": path } }));
    let gates = gates(&["tpot.mean=2", "ttft.mean=5", "e2e.mean=3", "tpot.p99=5", "ttft.p99=8", "e2e.p99=5"]);
    let (setup, trace) = simulated(Path::new("examples/vllm-rtx4090.ron"), &[workload]);
    let shipped = Hardware::shipped("nvidia-rtx-4090").expect("a profile");
    // No engine is named: the profile's own launches, with the gap that it leaves to bare CUDA.
    assert!(setup.hardware == Hardware { launch: shipped.own_launch(), ..shipped });
    let run = |setup: &Setup| {
        let mut queue = Queue::default();
        let ledger = sim::run(setup, &trace, &mut queue).expect("it fits");
        Served::new(&requests, (&ledger, ErrorBar::default()), Some((&seconds, &queue)))
            .expect("the same requests")
    };
    let missed = run(&setup).missed(&gates);
    let named = ["tpot.mean", "e2e.mean"].iter().all(|name| missed.iter().any(|miss| miss.starts_with(name)));
    assert!(missed.len() == 2 && named, "{missed:?}");
    let wider = self::gates(&["tpot.mean=4", "e2e.mean=5"]);
    assert_eq!(run(&setup).missed(&wider), Vec::<String>::new());
    let mut setup = setup;
    setup.hardware.corrections.as_mut().expect("a fitted profile").uneven = None;
    let served = run(&setup);
    assert_eq!(served.missed(&gates), Vec::<String>::new(), "\n{}", served.render());
    for factor in [0.8, 1.2] {
        let (mut slower, mut weaker) = (setup.clone(), setup.clone());
        slower.hardware.memory.dram_gb_per_s.value *= factor;
        weaker.hardware.compute.matrix_f16_tflops.value *= factor;
        for off in [slower, weaker] {
            assert!(!run(&off).missed(&gates).is_empty(), "{factor}\n{}", run(&off).render());
        }
    }
    let fewer = Serving { kv_blocks: Some(2070), ..setup.serving };
    assert!(!run(&Setup { serving: fewer, ..setup }).missed(&gates).is_empty());
}

/// A loop that was simulated before is simulated again to the same times; a gate on other times fails, and what no row can be is named.
#[test]
fn a_table_of_closed_loops_is_simulated_row_by_row() {
    let folder = crate::cli::folder();
    let path = folder.path().join("loops.csv");
    let place = path.to_str().expect("a path");
    let head = "model_path,system,backend,gemm_quant_mode,tp_size,isl,osl,batch_size,silicon_ttft_ms,silicon_tpot_ms\n";
    let run = |rows: &str, more: &[&str]| {
        std::fs::write(&path, format!("{head}{rows}")).expect("written");
        let arguments = [&["validate", "e2e", place, "--rounds", "2", "--quiet"], more].concat();
        let out = crate::cli::radialsim(&arguments);
        (out.status.code(), crate::cli::text(&out.stdout), crate::cli::text(&out.stderr))
    };
    let row = |ttft: &str, tpot: &str| {
        format!(
            "meta-llama/Llama-3.1-8B,h100_sxm,vllm,bf16,1,64,8,4,{ttft},{tpot}\nx/Llama-3.1-8B,z9,vllm,bf16,1,64,8,4,1,1\n"
        )
    };
    let (code, table, _) = run(&row("1000", "1000"), &[]);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("left out: 1 rows on z9"), "{table}");
    let line = table.lines().find(|line| line.contains("vllm, bf16")).expect("a row");
    let cells: Vec<&str> = line.split_whitespace().collect();
    let (tpot, ttft) = (cells[cells.len() - 5], cells[cells.len() - 2]);
    let (code, table, _) = run(&row(ttft, tpot), &["--gate", "0.2"]);
    assert_eq!(code, Some(0), "{table}");
    let (code, _, error) = run(&row(ttft, "1000"), &["--gate", "5"]);
    assert_eq!((code, error.contains("gate not met: TPOT off by")), (Some(1), true), "{error}");
    // A slower device takes longer.
    let (_, slow, _) = run(&row(ttft, tpot), &["--set", "hardware.memory.dram_gb_per_s=1000"]);
    assert!(
        slow.lines().find(|line| line.contains("vllm, bf16")).is_some_and(|line| line.contains('+')),
        "{slow}"
    );
    // Two devices are faster than one, and their rows have a line of their own.
    let two = row(ttft, tpot).replace("bf16,1,64", "bf16,2,64");
    let (code, both, _) = run(&format!("{}{}", row(ttft, tpot), two), &[]);
    assert_eq!(code, Some(0), "{both}");
    assert!(both.contains("vllm, 2 x nvidia-h100-sxm"), "{both}");
    assert!(
        both.lines().filter(|line| line.contains("vllm, bf16")).any(|line| line.contains(" -")),
        "{both}"
    );
    for (rows, say) in [
        ("a,h100_sxm,vllm,w9,1,64,8,4,1,1\n", "known"),
        ("Llama-3.1-8B,h100_sxm,vllm,w9,1,64,8,4,1,1\n", "gemm_quant_mode"),
    ] {
        let (code, _, error) = run(rows, &[]);
        assert_eq!((code, error.contains(say)), (Some(2), true), "{error}");
    }
}
