//! Serving under memory limits: blocks, preemption, admission, order. Conservation of blocks, tokens and bytes, and Little's
//! law, are asserted inside every run; `Lab::run` adds that both fidelities agree.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Hold, Policy};
use radialsim::metrics::Ledger;
use radialsim::model::Model;
use radialsim::sched::{Admission, First, Preemption, Queueing, Serving};
use radialsim::sim::{Silent, run};
use radialsim::trace::Trace;
use radialsim::units::SimTime;

/// Llama-2-7B on a device whose memory leaves room for about `entries` KV entries (tokens x layers).
pub fn tight(serving: Serving, entries: u64) -> Lab {
    let rows = u64::from(serving.max_batched_tokens.max(serving.max_sequences));
    tight_beside(serving, entries, aside(serving, rows, serving.max_sequences.into()))
}

/// The same for routes of this method: where drafts are checked, each row of a pass may reach the head.
pub fn tight_for(method: &str, serving: Serving, entries: u64) -> Lab {
    let rows = u64::from(serving.max_batched_tokens.max(serving.max_sequences));
    match method.starts_with("DraftVerify") {
        true => tight_beside(serving, entries, aside(serving, rows, rows)),
        false => tight(serving, entries),
    }
}

fn tight_beside(serving: Serving, entries: u64, aside: u64) -> Lab {
    let mut lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", serving.max_sequences);
    lab.setup.serving = serving;
    let model = &lab.setup.model;
    let bytes = model.weight_bytes(model.layers) + aside + entries * model.kv_entry_bytes();
    let memory = &mut lab.setup.hardware.memory;
    memory.usable_fraction.value = 1.0;
    memory.runtime_gb = None;
    memory.capacity_gb.value = (bytes + 4096) as f64 / 1e9;
    lab
}

/// What Llama-2-7B sets aside on an H100 for a pass of so many rows and outputs: the layers' peak, or that of the sampler, whose logits
/// are 16 bits, and three times 32, and 32 for each of the 132 units that is busy.
fn aside(serving: Serving, rows: u64, outputs: u64) -> u64 {
    let model = Model::builtin("llama-2-7b").expect("built in");
    let sequences = u64::from(serving.max_sequences);
    let logits = sequences * (2 + 3 * 4) + sequences.min(132) * 4;
    let sampler = 32_000 * logits + 4096 * 2 * (rows + 2 * sequences);
    sampler.max(radialsim::lower::activation_bytes(&model, rows, outputs))
}

/// Blocks of 16 tokens that vLLM printed, and what is said of the same model, device and settings.
#[test]
fn blocks_are_as_many_as_engines_print() {
    // Device, model, tokens a pass, sequences, memory utilization, blocks, error allowed in percent.
    for (hardware, model, tokens, sequences, share, printed, percent) in [
        // vLLM 0.19: LLMServingSim 2.0, bench/examples/RTX4090/Llama-3.1-8B/vllm/meta.json.
        ("nvidia-rtx-4090", "llama-3.1-8b", 2048, 256, 0.9, 2588.0, 2.0),
        // vLLM 0.15: BLIS, testdata/trained_physics_iter29.json and its successors.
        ("nvidia-h100-sxm", "llama-2-7b", 2048, 128, 0.9, 7463.0, 1.5),
        ("nvidia-h100-sxm", "mistral-nemo-12b", 2048, 128, 0.9, 19_251.0, 1.5),
        ("nvidia-h100-sxm", "qwen2.5-7b", 2048, 128, 0.9, 65_368.0, 1.5),
        // vLLM 0.19: llm-d planner, accuracy report: 476,016 and 1,096,000 tokens.
        ("nvidia-h100-sxm", "llama-3.1-8b", 8192, 1024, 0.95, 29_751.0, 1.5),
        ("nvidia-h100-sxm", "qwen2.5-7b", 8192, 1024, 0.95, 68_500.0, 1.5),
    ] {
        let mut lab = Lab::new(model, hardware, sequences);
        lab.setup.serving = Serving {
            kv_block_tokens: 16,
            gpu_memory_utilization: Some(share),
            ..Serving::new(tokens, sequences, true)
        };
        let ledger = lab.run(&lab.trace(&method("Dense"), 1, 8, 2, 1));
        let blocks = (ledger.kv.blocks / u64::from(lab.setup.model.layers)) as f64;
        let error = 100.0 * (blocks / printed - 1.0);
        assert!(error.abs() <= percent, "{hardware}, {model}: {blocks} blocks, {error:+.2} %");
    }
}

/// What vLLM 0.19 measures as its peak above the weights on an H100 with 8,192 tokens a pass and 1,024 sequences (llm-d planner, accuracy
/// report; GiB).
#[test]
fn the_largest_pass_takes_what_engines_measure() {
    for (model, measured) in [
        ("qwen2.5-7b", 2.21),
        ("qwen3-8b", 2.21),
        ("llama-3.1-8b", 1.89),
        ("llama-3.1-70b", 1.97),
        ("phi-4", 1.52),
    ] {
        let mut lab = Lab::new(model, "nvidia-h100-sxm", 1024);
        lab.setup.serving = Serving::new(8192, 1024, true);
        let memory = &mut lab.setup.hardware.memory;
        memory.runtime_gb = None;
        memory.capacity_gb.value = 1000.0;
        let ledger = lab.run(&lab.trace(&method("Dense"), 1, 8, 2, 1));
        let said = ledger.memory.set_aside as f64 / (1u64 << 30) as f64;
        assert!((said / measured - 1.0).abs() < 0.03, "{model}: {said:.3} of {measured} GiB");
    }
}

/// Logits are there for one row of each sequence, for as many as its longest verify run where there are such, and never for the whole
/// budget of tokens; with many sequences and long runs the budget bounds them.
#[test]
fn logits_take_room_for_the_rows_that_reach_the_head() {
    let aside = |routes: &str, sequences: u32| {
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", sequences);
        lab.setup.serving = Serving::new(4096, sequences, true);
        lab.setup.hardware.memory.runtime_gb = None;
        let ledger = lab.run(&lab.trace(&method(routes), 2, 8, 30, 1));
        (ledger.memory.set_aside, ledger.memory.activations_peak)
    };
    // SmolLM2: 576 wide, 9 heads of 64 on 3 of keys, 1536 of feed-forward, gated; 49,152 words of two bytes.
    let largest = |logits: u64| 2 * (4096 * (3 * 576 + 2 * 1536 + 1536) + logits * 49_152);
    for (sequences, drafts, rows) in [(1, 3, 4), (64, 3, 4 * 64), (64, 7, 8 * 64), (1024, 7, 4096)] {
        let routes = format!("DraftVerify(exit_layer: 8, drafts: {drafts}, acceptance: 0.7)");
        let (drafted, used) = aside(&routes, sequences);
        let sampler = |sequences: u64| {
            2 * sequences * 49_152
                + 49_152 * (12 * sequences + 4 * sequences.min(132))
                + 2 * (4096 + 2 * sequences) * 576
        };
        assert_eq!(
            drafted,
            largest(rows).max(sampler(sequences.into())),
            "{sequences} sequences, {drafts} drafts"
        );
        assert!(used <= drafted, "what a pass needs was set aside");
        let (plain, _) = aside("Dense", sequences);
        assert_eq!(plain, largest(sequences.into()).max(sampler(sequences.into())), "{sequences} sequences");
    }
}

/// More memory to fill, more blocks; a share that no server has is refused.
#[test]
fn a_larger_share_of_the_memory_holds_more() {
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-rtx-4090", 8);
    let trace = lab.trace(&method("Dense"), 1, 8, 2, 1);
    let blocks = |lab: &mut Lab, share| {
        lab.setup.serving.gpu_memory_utilization = share;
        lab.run(&trace).kv.blocks
    };
    let usable = lab.setup.hardware.memory.usable_fraction.value;
    assert_eq!(blocks(&mut lab, None), blocks(&mut lab, Some(usable)));
    assert!(blocks(&mut lab, Some(0.85)) < blocks(&mut lab, Some(0.9)));
    for share in [0.0, -0.5, 1.1, f64::NAN] {
        let serving = Serving { gpu_memory_utilization: Some(share), ..lab.setup.serving };
        let error = serving.check().expect_err("no share").to_string();
        assert!(error.contains("serving.gpu_memory_utilization: found"), "{error}");
    }
}

/// The requests come one a millisecond.
pub fn spaced(mut trace: Trace, gap_us: f64) -> Trace {
    for (index, request) in trace.requests.iter_mut().enumerate() {
        request.arrival = SimTime::from_us(gap_us * index as f64);
    }
    trace
}

fn ids_by(ledger: &Ledger, key: impl Fn(&radialsim::metrics::RequestTimes) -> SimTime) -> Vec<u64> {
    let mut order: Vec<_> = ledger.requests.iter().map(|request| (key(request), request.id)).collect();
    order.sort();
    order.into_iter().map(|(_, id)| id).collect()
}

pub const METHODS: [&str; 7] = [
    "Dense",
    "EarlyExit(exits: Each([(8, 0.5), (32, 0.5)]), kv: copy_state)",
    "EarlyExit(exits: Each([(8, 0.3), (32, 0.7)]), kv: deferred, dense_prefill: true)",
    "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only)",
    "IndependentSkips(skip: 0.5, branches: Jointly, kv: none)",
    "Radial(transitions: Uniform, start: Uniform, hops: Fixed(12))",
    "DraftVerify(exit_layer: 6, drafts: 3, acceptance: 0.6)",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever the routes, the order and the memory: every request ends, within the blocks that there are.
    #[test]
    fn tight_memory_delays_and_never_loses(
        which in 0..METHODS.len(), room in 20..60_u64, batch in 1..8_u32, count in 1..10_u32, prompt in 1..24_u32,
        output in 1..20_u32, budget in 8..64_u32, chunked in any::<bool>(), block in 0..5_u32, queued in any::<bool>(),
        first in prop_oneof![Just(First::Decode), Just(First::Prefill)],
        queue in prop_oneof![Just(Queueing::Fcfs), Just(Queueing::ShortestPrompt), Just(Queueing::Priority)],
        admission in prop_oneof![3 => Just(Admission::AsItComes), 1 => Just(Admission::Whole)],
        preemption in prop_oneof![
            Just(Preemption::Recompute), Just(Preemption::Swap { host_gb: 1.0 }), Just(Preemption::Swap { host_gb: 0.01 }),
        ],
        watermark in prop_oneof![Just(0.0), Just(0.1)], gap_us in 0.0..3000.0_f64, seed in any::<u64>(),
    ) {
        let text = METHODS[which];
        let kv_block_tokens = 1 << block;
        let serving = Serving {
            kv_block_tokens, watermark, first, queue, admission, preemption, ..Serving::new(budget.max(24), batch, chunked)
        };
        // Room for the longest request, rounded up to blocks, and a little more.
        let longest = u64::from((prompt + output + 4).next_multiple_of(kv_block_tokens)).max(room);
        let mut lab = tight_for(text, serving, longest * 32);
        lab.setup.dispatch.policy = match queued {
            true => Policy::Queued { full: 3, wait_us: 500.0, hold: Hold::Always },
            false => Policy::Hop,
        };
        let mut trace = spaced(lab.trace(&method(text), count, prompt, output, seed), gap_us);
        for request in &mut trace.requests {
            request.priority = (request.id % 3) as u32;
        }
        let ledger = lab.run(&trace);
        prop_assert_eq!(ledger.output_tokens, u64::from(count * output));
        prop_assert!(ledger.kv.peak_blocks <= ledger.kv.blocks);
        let lost: u64 = ledger.requests.iter().map(|request| u64::from(request.preemptions)).sum();
        prop_assert_eq!(lost, ledger.preemptions);
        if admission == Admission::Whole {
            prop_assert_eq!(ledger.preemptions, 0);
        }
        if ledger.preemptions == 0 {
            prop_assert_eq!((ledger.recomputed_tokens, ledger.swapped_bytes), (0, 0));
        }
        if preemption == Preemption::Recompute {
            prop_assert_eq!(ledger.swapped_bytes, 0);
        } else if preemption == (Preemption::Swap { host_gb: 1.0 }) && !queued {
            prop_assert_eq!(ledger.recomputed_tokens, 0, "everything went to the host");
        }
        prop_assert_eq!(ledger.swapped_bytes % (2 * ledger.kv.block_bytes), 0, "whole blocks, there and back");
    }
}

/// Eight sequences that grow to 40 entries a layer, with room for 160: someone has to go, and costs time.
#[test]
fn too_little_memory_preempts_and_costs_time() {
    let serving = Serving { kv_block_tokens: 4, watermark: 0.0, ..Serving::new(64, 8, true) };
    let dense = method("Dense");
    let with_room = |tokens: u64| {
        let lab = tight(serving, tokens * 32);
        lab.run(&lab.trace(&dense, 8, 8, 32, 1))
    };
    let (roomy, short) = (with_room(400), with_room(160));
    assert_eq!(roomy.preemptions, 0);
    assert!(short.preemptions > 0 && short.recomputed_tokens > 0);
    assert!(short.makespan > roomy.makespan, "{} against {}", short.makespan, roomy.makespan);
    assert_eq!(short.prompt_tokens, roomy.prompt_tokens, "what passes again is not counted as prompt");
    assert!(short.kv.peak_blocks > 35 * 32, "the room is used");
}

/// A method that leaves nothing at skipped layers needs fewer blocks; one that projects K and V needs as many as dense.
#[test]
fn routes_that_leave_holes_free_memory_and_let_more_run() {
    let serving = Serving { watermark: 0.0, ..Serving::new(64, 64, true) };
    let at = |text: &str| {
        let lab = tight(serving, 512 * 32);
        let ledger = lab.run(&lab.trace(&method(text), 48, 16, 64, 3));
        let running = ledger.running_ps as f64 / ledger.makespan.ps() as f64;
        (running, ledger.preemptions)
    };
    let (dense, _) = at("Dense");
    let (projected, _) = at("IndependentSkips(skip: 0.5, branches: Jointly, kv: project_only)");
    let (holes, _) = at("IndependentSkips(skip: 0.5, branches: Jointly, kv: none)");
    assert!((projected / dense - 1.0).abs() < 0.05, "projected {projected}, dense {dense}");
    assert!(holes > 1.3 * dense, "holes {holes}, dense {dense}");
}

#[test]
fn order_of_service_is_as_asked() {
    let alone = Serving::new(64, 1, true);
    let order = |queue| {
        let lab = tight(Serving { queue, ..alone }, 4096 * 32);
        let mut trace = lab.trace(&method("Dense"), 4, 9, 3, 1);
        for (request, (priority, prompt)) in trace.requests.iter_mut().zip([(0, 0), (2, 9), (1, 5), (2, 7)]) {
            request.priority = priority;
            // A shorter prompt: cut from the front of the first run.
            if prompt > 0 {
                request.prompt_tokens = prompt;
                request.runs[0].routes = radialsim::trace::RouteIds::same(0, prompt);
                request.runs[1].start = prompt;
            }
        }
        ids_by(&lab.run(&spaced(trace, 1.0)), |request| request.first)
    };
    assert_eq!(order(Queueing::Fcfs), [0, 1, 2, 3]);
    assert_eq!(order(Queueing::Priority), [0, 2, 1, 3]);
    assert_eq!(order(Queueing::ShortestPrompt), [0, 2, 3, 1]);
}

/// Prefill first: a newcomer's prompt stops the others. Decode first with chunks: they go on, and the newcomer waits longer.
#[test]
fn prefill_first_helps_the_first_token_and_decode_first_the_others() {
    let with = |first, chunked| {
        let lab = tight(Serving { first, ..Serving::new(64, 8, chunked) }, 1 << 20);
        let ledger = lab.run(&spaced(lab.trace(&method("Dense"), 6, 60, 30, 1), 20_000.0));
        let mean = |of: &dyn Fn(&radialsim::metrics::RequestTimes) -> SimTime| {
            ledger.requests.iter().map(|request| of(request).s()).sum::<f64>() / 6.0
        };
        (mean(&|request| request.first - request.arrival), mean(&|request| request.last - request.first))
    };
    let (prefill, decode) = (with(First::Prefill, false), with(First::Decode, true));
    assert!(prefill.0 <= decode.0, "first tokens: {} against {}", prefill.0, decode.0);
    assert!(decode.1 <= prefill.1, "the others: {} against {}", decode.1, prefill.1);
}

/// What cannot fit is said before anything runs, with the number that is short.
#[test]
fn a_request_that_can_never_fit_is_refused_with_what_is_short() {
    let lab = tight(Serving { kv_block_tokens: 16, ..Serving::new(64, 8, true) }, 100 * 32);
    let trace = lab.trace(&method("Dense"), 1, 100, 30, 1);
    let error = run(&lab.setup, &trace, &mut Silent).expect_err("129 tokens do not fit 96").to_string();
    // 129 entries take 9 blocks a layer, 32 layers; 100 entries a layer leave room for 200.
    assert!(error.contains("request 0") && error.contains("at most 200 KV blocks"), "{error}");
    assert!(error.contains("found 288") && error.contains("88 are short"), "{error}");
}

/// Closed loop: the first requests come at once, each later one a think time after some answer; so many are never exceeded.
#[test]
fn clients_send_when_they_have_their_answers() {
    use radialsim::workload::{Arrivals, Clients, Think};
    let mut lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", 8);
    let trace = lab.trace(&method("Dense"), 20, 8, 6, 1);
    let think_s = Think::Exponential(0.02);
    let clients: Clients =
        Arrivals::Clients { count: 3, think_s }.clients(20, 5).unwrap().expect("a closed loop");
    lab.setup.clients = Some(clients.clone());
    let ledger = lab.run(&trace);
    let mut arrivals: Vec<_> = ledger.requests.iter().map(|request| (request.id, request.arrival)).collect();
    arrivals.sort();
    assert!(arrivals[..3].iter().all(|(_, arrival)| *arrival == SimTime::ZERO));
    let mut answers: Vec<_> = ledger.requests.iter().map(|request| request.last).collect();
    answers.sort();
    // Request 3 + k is sent upon answer k.
    for (&(id, arrival), &answer) in arrivals[3..].iter().zip(&answers) {
        assert_eq!(arrival, answer + clients.think[id as usize], "request {id}");
    }
    assert!(ledger.requests.iter().all(|one| {
        let among = |other: &&radialsim::metrics::RequestTimes| {
            other.arrival <= one.arrival && one.arrival < other.last
        };
        ledger.requests.iter().filter(among).count() <= 3
    }));
}

/// What is swapped need not be computed again; it takes the link its time, and without room on the host all is as before.
#[test]
fn blocks_go_to_the_host_and_come_back() {
    let run = |preemption, host_gb_per_s: f64| {
        let serving = Serving { preemption, watermark: 0.0, ..Serving::new(256, 8, true) };
        let mut lab = tight(Serving { kv_block_tokens: 1, ..serving }, 40 * 32);
        lab.setup.hardware.links.host_gb_per_s.value = host_gb_per_s;
        let trace = lab.trace(&method("Dense"), 8, 8, 24, 1);
        lab.run(&trace)
    };
    let (recompute, swap) = (Preemption::Recompute, Preemption::Swap { host_gb: 1.0 });
    let thrown = run(recompute, 64.0);
    let swapped = run(swap, 64.0);
    assert!(thrown.recomputed_tokens > 0 && swapped.preemptions > 0);
    assert_eq!((swapped.recomputed_tokens, thrown.swapped_bytes), (0, 0));
    let slow = run(swap, 0.01);
    assert_eq!(
        slow.swapped_bytes, swapped.swapped_bytes,
        "all came at once, so the order does not depend on time"
    );
    let least = slow.swapped_bytes as f64 / 0.01e9;
    assert!(slow.makespan.s() > least, "{} {least}", slow.makespan.s());
    let apart = (slow.makespan - swapped.makespan).s();
    let expected = slow.swapped_bytes as f64 * (1.0 / 0.01e9 - 1.0 / 64e9);
    assert!((apart / expected - 1.0).abs() < 1e-3, "nothing hides the copies: {apart} {expected}");
    let nowhere = run(Preemption::Swap { host_gb: 0.0 }, 64.0);
    assert_eq!(nowhere.makespan, thrown.makespan);
    assert_eq!(nowhere.recomputed_tokens, thrown.recomputed_tokens);
}
