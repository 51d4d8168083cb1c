//! What a run saves against another, taken apart: the parts are the saving, to the picosecond, however both batch.

use crate::cli::{EXAMPLE, folder, radialsim, text};
use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Decisions, Hold, Policy};
use radialsim::cost::Limits;
use radialsim::hw::ServingEngine;
use radialsim::kernel::Density;
use radialsim::lower::RouterPlan;
use radialsim::metrics::{Ledger, PARTS, TimeSaved};
use radialsim::sched::{Admission, First, Preemption, Queueing, Serving};
use radialsim::sim::{Against, Setup, Silent, run};
use radialsim::trace::Trace;
use radialsim::trace::synth::{Method, generate};
use radialsim::workload::{Arrivals, Length, Lengths, Think, requests};
use serde_json::Value;

const DECISIONS: [Decisions; 6] = [
    Decisions::Known,
    Decisions::ReadBack,
    Decisions::Prefetch { ahead: 3 },
    Decisions::Padded,
    Decisions::Conditional,
    Decisions::Switch,
];

const METHODS: [&str; 6] = [
    "IndependentSkips(skip: 0.3, branches: Jointly, kv: project_only)",
    "IndependentSkips(skip: 0.3, branches: Separately, kv: none, router: (hidden: 64))",
    "CorrelatedSkips(skip: 0.3, correlation: 0.8, share: Step, branches: Jointly, kv: copy_state)",
    "EarlyExit(exits: Each([(8, 0.6), (30, 0.4)]), kv: share)",
    "StaticDepth(keep: DropMiddle(depth: 20))",
    "DraftVerify(exit_layer: 8, drafts: 3, acceptance: 0.7)",
];

/// Open and closed loops: everybody at once, a Poisson process, bursts, clients.
fn arrivals(kind: usize) -> Arrivals {
    match kind {
        0 => Arrivals::Closed,
        1 => Arrivals::Poisson { rate_per_s: 2000.0 },
        2 => Arrivals::Bursts { size: 3, gap_s: 2e-3, within_s: 1e-3 },
        _ => Arrivals::Clients { count: 3, think_s: Think::Exponential(1e-3) },
    }
}

fn explained(setup: &Setup, trace: &Trace, policy: Policy) -> Ledger {
    let marked = trace.routes.iter().any(|route| route.0.iter().any(|step| step.routed));
    let mut setup = setup.clone();
    setup.explain = true;
    setup.dispatch.policy = policy;
    setup.dispatch.router = RouterPlan::new(&trace.header.router, &trace.header, marked);
    run(&setup, trace, &mut Silent).expect("a scenario that fits")
}

fn against(setup: &Setup) -> Against {
    Against {
        experts: radialsim::batch::ExpertUse::default(),
        capture: setup.dispatch.capture.clone(),
        density: setup.dispatch.density,
        limits: setup.limits,
        launch: setup.hardware.launch.clone(),
        split: (setup.model.clone(), setup.ranks.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For all policies, whatever the server, the arrivals and the settings of either run; and whether the first runs dense or not.
    #[test]
    fn the_parts_are_the_saving(
        (routes, beside) in (0..METHODS.len(), 0..METHODS.len()),
        kind in 0usize..4,
        (sequences, budget, chunked) in (1u32..7, 64u32..256, any::<bool>()),
        (admission, first, queue) in (0usize..3, any::<bool>(), 0usize..3),
        (tight, swaps, overlaps) in (any::<bool>(), any::<bool>(), any::<bool>()),
        (captured, sparse, cap) in (any::<bool>(), any::<bool>(), prop_oneof![Just(None), Just(Some(150.0))]),
        (engine, decisions) in (0usize..3, 0..DECISIONS.len()),
        seed in 0u64..1000,
    ) {
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", sequences);
        lab.setup.serving = Serving {
            kv_block_tokens: 4,
            // Just room for the longest request: sequences that run together preempt each other.
            kv_blocks: tight.then_some(20),
            admission: [Admission::AsItComes, Admission::WholePrompt, Admission::Whole][admission],
            first: if first { First::Decode } else { First::Prefill },
            queue: [Queueing::Fcfs, Queueing::Priority, Queueing::ShortestPrompt][queue],
            preemption: if swaps { Preemption::Swap { host_gb: 1.0 } } else { Preemption::Recompute },
            async_scheduling: overlaps,
            watermark: 0.0,
            ..Serving::new(budget, sequences, chunked)
        };
        let of = |text: &str| -> (Trace, Option<radialsim::workload::Clients>) {
            let lengths = Lengths { prompt: Length::Uniform { low: 3, high: 40 }, output: Length::Uniform { low: 1, high: 12 } };
            let arrivals = arrivals(kind);
            let requests = requests(8, &lengths, &arrivals, seed).expect("valid lengths");
            let clients = arrivals.clients(requests.len(), seed).expect("valid clients");
            let method = if text.is_empty() { Method::Dense } else { method(text) };
            (generate(&method, 30, requests, seed).expect("a valid method"), clients)
        };
        let queued = Policy::Queued { full: 3, wait_us: 400.0, hold: Hold::Always };
        for first in ["", METHODS[beside]] {
            let (before, clients) = of(first);
            lab.setup.clients = clients;
            let first = explained(&lab.setup, &before, Policy::Aligned);
            let mut own = lab.setup.clone();
            own.dispatch.capture = if captured { vec![1, 2, 4, 8] } else { vec![] };
            own.dispatch.density = if sparse { Density::TwoFour } else { Density::Dense };
            if let Some(name) = ["", "cuda-cpp", "vllm-v1"].get(engine).filter(|name| !name.is_empty()) {
                own.hardware.launch = ServingEngine::named(name).expect("an engine").launch(&own.hardware.launch);
            }
            own.limits = Limits { power_w: cap, clock_mhz: None, ..Limits::default() };
            own.against = (against(&own) != against(&lab.setup)).then(|| against(&lab.setup));
            let (trace, _) = of(METHODS[routes]);
            for policy in [Policy::DenseMasked, Policy::Aligned, Policy::Hop, Policy::Grouped, queued] {
                // A graph with a place for each layer is one of the order of the pool.
                let ordered = matches!(policy, Policy::DenseMasked | Policy::Aligned);
                own.dispatch.decisions = if ordered { DECISIONS[decisions] } else { Decisions::ReadBack };
                let ledger = explained(&own, &trace, policy);
                let saved = TimeSaved::of(&first, &ledger).expect("both are explained");
                prop_assert_eq!(saved.saved(), first.pass_ps as i128 - ledger.pass_ps as i128, "{:?}", policy);
                let makespan = i128::from(first.makespan.ps()) - i128::from(ledger.makespan.ps());
                prop_assert_eq!(saved.saved() + saved.arrivals, makespan, "{:?}", policy);
            }
        }
    }
}

fn part(saved: &TimeSaved, name: &str) -> i128 {
    saved.parts[PARTS.iter().position(|part| *part == name).expect("a part")]
}

/// With the settings of the first, and as many tokens in every pass, batching and settings are nothing, and what is left beside the
/// same passes is what is saved. With other settings alone, they are all of it.
#[test]
fn parts_that_do_not_apply_are_nothing() {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 4);
    let dense = lab.trace(&Method::Dense, 8, 33, 12, 1);
    let first = explained(&lab.setup, &dense, Policy::Aligned);
    let alone = TimeSaved::of(&first, &first).unwrap();
    assert_eq!((alone.parts, alone.arrivals), ([0; PARTS.len()], 0));

    let routed = explained(&lab.setup, &lab.trace(&method(METHODS[0]), 8, 33, 12, 1), Policy::Hop);
    let saved = TimeSaved::of(&first, &routed).unwrap();
    assert_eq!(
        (part(&saved, "batching"), part(&saved, "settings")),
        (0, 0),
        "all requests begin and end together"
    );
    assert_eq!(saved.saved(), routed.losses.unwrap().left());
    assert!(part(&saved, "ideal") > 0 && part(&saved, "union") < 0);

    let mut sparse = lab.setup.clone();
    sparse.dispatch.density = Density::TwoFour;
    sparse.against = Some(against(&lab.setup));
    let sparse = explained(&sparse, &dense, Policy::Aligned);
    let saved = TimeSaved::of(&first, &sparse).unwrap();
    assert!(saved.saved() > 0);
    assert_eq!(part(&saved, "settings"), saved.saved());
}

/// Requests that come while others run: a routed run that is slower has more of them in a pass, and batching tells.
#[test]
fn batching_is_told_where_arrivals_meet_other_passes() {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 8);
    let lengths = Lengths { prompt: Length::Fixed(30), output: Length::Fixed(20) };
    let requests = requests(16, &lengths, &Arrivals::Every { gap_s: 4e-3 }, 1).unwrap();
    let of = |method: &Method| generate(method, 30, requests.clone(), 1).unwrap();
    let first = explained(&lab.setup, &of(&Method::Dense), Policy::Aligned);
    let routed = of(&method(METHODS[0]));
    let hops = explained(&lab.setup, &routed, Policy::Hop);
    let saved = TimeSaved::of(&first, &hops).unwrap();
    assert!(saved.saved() < 0 && hops.passes < first.passes, "{} {}", hops.passes, first.passes);
    assert!(part(&saved, "batching") > 0, "fewer, fuller passes: {saved:?}");
    assert_ne!(saved.saved(), hops.losses.unwrap().left());
}

/// The JSON has the parts; they add up to the saving and to the difference of the pass times. The table shows the same.
#[test]
fn the_json_and_the_table_add_up() {
    let folder = folder();
    let json = folder.path().join("out.json");
    let out =
        radialsim(&["simulate", EXAMPLE, "--full", "--json", json.to_str().unwrap(), "--set", "seeds=2"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let root: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let variants = root["variants"].as_array().unwrap();
    assert!(variants[0].get("saved_s").is_none(), "the first saves nothing against itself");
    let first = variants[0]["pass_time_s"].as_f64().unwrap();
    let printed = text(&out.stdout);
    let from = printed.find("Where the pass time saved comes from").expect("a table of what is saved");
    assert!(from < printed.find("How wrong this may be").unwrap(), "it comes first");
    for variant in &variants[1..] {
        let saved = |key: &str| variant["saved_s"][key].as_f64().unwrap_or_else(|| panic!("{key}"));
        let sum: f64 = PARTS.iter().map(|part| saved(part)).sum();
        assert!((sum - saved("saved")).abs() < 1e-9);
        assert!((saved("first") - first).abs() < 1e-9);
        assert!((first - variant["pass_time_s"].as_f64().unwrap() - saved("saved")).abs() < 1e-9);
        let makespan = variants[0]["makespan_s"].as_f64().unwrap() - variant["makespan_s"].as_f64().unwrap();
        assert!((saved("makespan") - makespan).abs() < 1e-9);
        let name = variant["name"].as_str().unwrap();
        let row = printed[from..].lines().find(|line| line.starts_with(name)).expect("a row");
        let cells: Vec<i64> = row[name.len()..]
            .split_whitespace()
            .map(|cell| (cell.parse::<f64>().expect("a number") * 10.0).round() as i64)
            .collect();
        let (shown, parts) = cells.split_last().unwrap();
        assert_eq!(parts.iter().sum::<i64>(), *shown, "{row}");
        assert_eq!(*shown, (saved("saved") / first * 1000.0).round() as i64, "{row}");
    }
}
