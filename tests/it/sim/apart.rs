//! Prefill and decode apart: each side does what it would do alone, entries go over links one after the other, and nothing is lost on the way.

use crate::lab::{Lab, method};
use crate::sim::parallel::flat;
use crate::sim::serving::{METHODS, spaced, tight_for};
use proptest::prelude::*;
use radialsim::cost::Ranks;
use radialsim::hw::Library;
use radialsim::metrics::{Ledger, RequestTimes, Summary};
use radialsim::report::json;
use radialsim::scenario::{self, Scenario};
use radialsim::sched::{Preemption, Serving};
use radialsim::sim::fleet::{self, Apart, Fleet, RequestRouter};
use radialsim::sim::{Fidelity, Setup, Silent, run};
use radialsim::trace::Trace;
use radialsim::units::SimTime;
use radialsim::workload::{Arrivals, Clients, Length, Lengths};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// So many engines of each kind, over a link on which every message takes so many microseconds.
fn fleet([prefill, decode]: [u32; 2], us: f64, router: RequestRouter) -> Fleet {
    let link = Arc::new(Ranks::pair(&flat(us), 2, Library::Nccl).expect("two devices"));
    Fleet { replicas: prefill, router, seed: 5, apart: Some(Apart { decode, link }), rounds: false }
}

fn each(setup: &Setup, trace: &Trace, fleet: &Fleet) -> Vec<Ledger> {
    let mut silent = vec![Silent; fleet.engines() as usize];
    let device = setup.device().expect("valid");
    fleet::run(&device, setup, (trace, None), fleet, &mut silent, false).expect("it fits")
}

fn together(mut ledgers: Vec<Ledger>, fleet: &Fleet) -> Ledger {
    let decode = ledgers.split_off(fleet.replicas as usize);
    Ledger::of_parts(ledgers, decode)
}

fn summary(setup: &Setup, ledger: &Ledger) -> Summary {
    Summary::new(ledger, &setup.device().expect("valid"), &setup.model)
}

fn by_id(ledger: &Ledger) -> BTreeMap<u64, RequestTimes> {
    ledger.requests.iter().map(|request| (request.id, *request)).collect()
}

fn lab(which: usize, batch: u32) -> Lab {
    let mut lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", batch);
    lab.setup.fidelity = Fidelity::Step;
    if which == 5 {
        lab.setup.dispatch.policy = radialsim::batch::Policy::Hop;
        lab.setup.dispatch.monotone = false;
    }
    lab
}

fn load(lab: &Lab, which: usize, count: u32, gap_us: f64, seed: u64) -> Trace {
    let lengths = Lengths {
        prompt: Length::Uniform { low: 1, high: 60 },
        output: Length::Uniform { low: 1, high: 12 },
    };
    let requests = radialsim::workload::requests(count, &lengths, &Arrivals::Closed, seed).expect("valid");
    let layers = lab.setup.model.layers;
    let trace = radialsim::trace::synth::generate(&method(METHODS[which]), layers, requests, seed);
    spaced(trace.expect("valid"), gap_us)
}

/// The prompts alone: each request ends with its first token.
fn prompts(mut trace: Trace) -> Trace {
    for request in &mut trace.requests {
        request.runs.retain(|run| run.phase == radialsim::trace::Phase::Prefill);
        request.output_tokens = 1;
    }
    trace
}

/// Entries that the prompts of requests with more than one token leave, where a token leaves one at each step of its route.
fn entries(trace: &Trace) -> u64 {
    let more = trace.requests.iter().filter(|request| request.output_tokens > 1);
    let prompts = more.flat_map(|request| request.runs.iter().take(1)).flat_map(|run| run.routes.iter());
    prompts.map(|route| trace.routes.get(route).0.len() as u64).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Requests, tokens and energy are those of all engines; the bytes that go are those that come, and those that the prompts left.
    #[test]
    fn nothing_is_lost_on_the_way(
        which in 0..METHODS.len(), count in 1..16_u32, prefill in 1..4_u32, decode in 1..4_u32, gap in 0..3_u32, us in 0..2_u32,
        seed in any::<u64>(), router in prop::sample::select(vec![RequestRouter::RoundRobin, RequestRouter::Random, RequestRouter::LeastKv, RequestRouter::Vllm]),
    ) {
        let lab = lab(which, 3);
        let trace = load(&lab, which, count, f64::from(gap) * 3_000.0, seed);
        let fleet = fleet([prefill, decode], f64::from(us) * 4_000.0, router);
        let engines = each(&lab.setup, &trace, &fleet);
        let all = together(engines.clone(), &fleet);
        let own = summary(&lab.setup, &all);
        let output: u64 = trace.requests.iter().map(|request| u64::from(request.output_tokens)).sum();
        let prompt: u64 = trace.requests.iter().map(|request| u64::from(request.prompt_tokens)).sum();
        prop_assert_eq!((own.requests, own.output_tokens, own.prompt_tokens), (count.into(), output, prompt));
        prop_assert_eq!(by_id(&all).len() as u32, count, "each request once");
        let sent: u128 = engines.iter().map(|one| one.handover.sent_bytes).sum();
        let received: u128 = engines.iter().map(|one| one.handover.received_bytes).sum();
        prop_assert_eq!(sent, received);
        // A block holds one entry here; drafts, and early exits that copy or defer, leave others than their steps.
        if [0, 4, 5].contains(&which) {
            prop_assert_eq!(received, u128::from(entries(&trace) * lab.setup.model.kv_entry_bytes()));
        }
        let device = lab.setup.device().expect("valid");
        let joules = |one: &Ledger| {
            let idle = u128::from(all.makespan.ps()) - one.busy_ps;
            device.energy_pj(one.busy_ps, idle, one.dynamic_pj) / 1e12
        };
        let sum: f64 = engines.iter().map(joules).sum();
        prop_assert!((own.energy_j / sum - 1.0).abs() < 1e-9);
        prop_assert_eq!(own.devices, prefill + decode);
        for one in &engines[..prefill as usize] {
            prop_assert!(one.requests.iter().all(|request| request.output_tokens == 1));
            prop_assert_eq!(one.decode.tokens, 0);
        }
        for one in &engines[prefill as usize..] {
            prop_assert_eq!((one.prompt_tokens, one.prefill.tokens), (0, 0));
        }
        let again = each(&lab.setup, &trace, &fleet);
        prop_assert_eq!(format!("{again:?}"), format!("{engines:?}"));
    }

    /// The side of the prompts is a run of the prompts alone, to the last time.
    #[test]
    fn first_tokens_are_those_of_prompts_alone(
        which in 0..METHODS.len(), count in 1..16_u32, gap in 0..3_u32, seed in any::<u64>(),
    ) {
        let lab = lab(which, 3);
        let trace = load(&lab, which, count, f64::from(gap) * 3_000.0, seed);
        let fleet = fleet([1, 2], 300.0, RequestRouter::RoundRobin);
        let all = together(each(&lab.setup, &trace, &fleet), &fleet);
        let alone = by_id(&run(&lab.setup, &prompts(trace.clone()), &mut Silent).expect("it fits"));
        for (id, request) in by_id(&all) {
            let (own, prompt) = ((request.arrival, request.scheduled, request.first), alone[&id]);
            prop_assert_eq!(own, (prompt.arrival, prompt.scheduled, prompt.first));
        }
    }

    /// Requests one at a time: free links change nothing but the device; a link adds what a message takes to the first gap, and nothing else.
    #[test]
    fn one_at_a_time_a_link_adds_a_message(
        which in 0..METHODS.len(), count in 1..6_u32, us in 0..400_u32, seed in any::<u64>(),
    ) {
        let lab = lab(which, 3);
        let trace = load(&lab, which, count, 1e7, seed);
        let fleet = fleet([1, 1], f64::from(us), RequestRouter::RoundRobin);
        let all = by_id(&together(each(&lab.setup, &trace, &fleet), &fleet));
        let whole = by_id(&run(&lab.setup, &trace, &mut Silent).expect("it fits"));
        for (id, request) in &all {
            let before = whole[id];
            prop_assert_eq!(request.first, before.first);
            let moves = if request.output_tokens > 1 { SimTime::from_us(us.into()) } else { SimTime::ZERO };
            prop_assert_eq!(request.last, before.last + moves);
        }
    }

    /// Little memory on both sides: entries that wait for their way keep prompts waiting, sequences are preempted, and every request ends.
    #[test]
    fn tight_memory_delays_and_never_loses(
        which in 0..METHODS.len(), count in 1..12_u32, prompt in 1..24_u32, output in 1..12_u32, room in 40..90_u64, batch in 1..6_u32,
        us in 0..3_u32, swap in any::<bool>(), decode in 1..3_u32,
    ) {
        let mut lab = tight_for(METHODS[which], Serving::new(40, batch, true), room * 32 * 2);
        lab.setup.fidelity = Fidelity::Step;
        if which == 5 {
            lab.setup.dispatch.policy = radialsim::batch::Policy::Hop;
            lab.setup.dispatch.monotone = false;
        }
        if swap {
            lab.setup.serving.preemption = Preemption::Swap { host_gb: 0.2 };
        }
        let trace = lab.trace(&method(METHODS[which]), count, prompt, output, 3);
        let fleet = fleet([2, decode], f64::from(us) * 20_000.0, RequestRouter::LeastOutstanding);
        let own = summary(&lab.setup, &together(each(&lab.setup, &trace, &fleet), &fleet));
        prop_assert_eq!((own.requests, own.output_tokens), (count.into(), u64::from(count * output)));
    }
}

/// All at once and alike: over free links the tokens behind the first come as on one engine that passes all prompts together first.
#[test]
fn over_free_links_tokens_come_as_from_an_engine_that_only_generates() {
    for which in [0, 2, 4, 5] {
        let lab = lab(which, 8);
        let trace = lab.trace(&method(METHODS[which]), 8, 40, 20, 3);
        let fleet = fleet([1, 1], 0.0, RequestRouter::RoundRobin);
        let all = together(each(&lab.setup, &trace, &fleet), &fleet);
        let one = run(&lab.setup, &trace, &mut Silent).expect("it fits");
        assert_eq!(summary(&lab.setup, &all).tpot_s, summary(&lab.setup, &one).tpot_s, "{which}");
        assert_eq!(all.gaps, one.gaps, "{which}");
        assert_eq!(all.handover.waited_ps, 0);
    }
}

/// Passes as single events come to what kernels as events come to: replicas, and prefill and decode apart.
#[test]
fn passes_as_events_are_kernels_as_events() {
    let alone = Fleet { replicas: 3, router: RequestRouter::LeastKv, seed: 5, apart: None, rounds: false };
    for (fleet, which) in [
        (alone, 0),
        (fleet([2, 1], 250.0, RequestRouter::Vllm), 0),
        (fleet([1, 2], 40.0, RequestRouter::Random), 3),
    ] {
        let mut lab = lab(which, 3);
        lab.setup.explain = true;
        let trace = load(&lab, which, 14, 2_000.0, 6);
        let of = |fidelity| {
            let setup = Setup { fidelity, ..lab.setup.clone() };
            let all = together(each(&setup, &trace, &fleet), &fleet);
            (summary(&setup, &all), all.losses)
        };
        assert_eq!(of(Fidelity::Kernel), of(Fidelity::Step), "{:?}", fleet.router);
    }
}

/// Prompts that pass together leave through one port one after the other: the i-th waits for i messages.
#[test]
fn ports_take_one_message_after_another() {
    let (count, us) = (6, 700.0);
    let lab = lab(0, 8);
    let trace = lab.trace(&method("Dense"), count, 40, 4, 3);
    for (decode, wait) in [(1, (count - 1) as f64 / 2.0), (2, (count - 1) as f64 / 2.0)] {
        let fleet = fleet([1, decode], us, RequestRouter::RoundRobin);
        let all = together(each(&lab.setup, &trace, &fleet), &fleet);
        let moved = summary(&lab.setup, &all).replicas.and_then(|all| all.kv_transfer).expect("apart");
        assert!((moved.mean_s * 1e6 - us).abs() < 1e-6);
        assert!((moved.mean_wait_s * 1e6 - wait * us).abs() < 1e-3, "{decode}: {moved:?}");
        assert_eq!(moved.requests, u64::from(count));
    }
    // From two engines to one, through its one port in: the same. From two to two, in turn: the first takes two from one, then one from the other, at
    // 0, 1 and 2; the second one from the first engine at 2, and two from the other at 3 and 4.
    for (decode, wait) in [(1, 2.5), (2, 2.0)] {
        let fleet = fleet([2, decode], us, RequestRouter::RoundRobin);
        let all = together(each(&lab.setup, &trace, &fleet), &fleet);
        let moved = summary(&lab.setup, &all).replicas.and_then(|all| all.kv_transfer).expect("apart");
        assert!((moved.mean_wait_s * 1e6 - wait * us).abs() < 1e-3, "{decode}: {moved:?}");
    }
}

/// What routes leave out need not go.
#[test]
fn holes_shrink_what_goes() {
    let of = |which| {
        let lab = lab(which, 8);
        let trace = lab.trace(&method(METHODS[which]), 8, 64, 8, 3);
        let fleet = fleet([1, 1], 0.0, RequestRouter::RoundRobin);
        together(each(&lab.setup, &trace, &fleet), &fleet).handover.received_bytes as f64
    };
    let (dense, half) = (of(0), of(4));
    assert!((half / dense - 0.5).abs() < 0.02, "{}", half / dense);
}

/// Clients who wait for answers wait for the engine that generates.
#[test]
fn clients_wait_for_the_last_token() {
    let mut lab = lab(0, 3);
    let trace = load(&lab, 0, 30, 0.0, 4);
    lab.setup.clients = Some(Clients { count: 4, think: vec![SimTime::from_us(50.0); 30] });
    let fleet = fleet([2, 1], 300.0, RequestRouter::LeastOutstanding);
    let all = together(each(&lab.setup, &trace, &fleet), &fleet);
    assert_eq!(all.requests.len(), 30);
    for request in &all.requests {
        let there = all
            .requests
            .iter()
            .filter(|other| other.arrival <= request.arrival && other.last > request.arrival);
        assert!(there.count() <= 4);
    }
}

fn text(parallel: &str, serving: &str, routes: &str, more: &str) -> String {
    format!(
        r#"(title: "t", model: "llama-3.1-8b", hardware: "nvidia-h100-sxm", seed: 1, parallel: ({parallel}), {more}
        workload: (requests: (count: 40, lengths: (prompt: Uniform(low: 8, high: 400), output: Uniform(low: 1, high: 30)),
            arrivals: Poisson(rate_per_s: 80))),
        serving: (max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true, {serving}),
        dispatch: (policy: aligned), variants: [(name: "one", routes: Method({routes}))])"#
    )
}

fn scenario(text: &str) -> radialsim::error::Result<Scenario> {
    Scenario::from_text(text, Path::new("t.ron"), &[])
}

/// The same bytes for any number of threads; and routes that are drawn as requests begin are those of the trace.
#[test]
fn threads_and_late_draws_change_nothing() {
    for routes in [
        "Dense",
        "IndependentSkips(skip: 0.3, branches: Jointly, kv: none)",
        "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only)",
        "CorrelatedSkips(skip: 0.3, correlation: 0.5, share: Predecessor, branches: Jointly, kv: none)",
        "MixtureOfDepths(capacity: 0.5, routed: EveryOther, window: 4)",
    ] {
        let text =
            text("tensor: 2, apart: (prefill: 2, decode: 1), router: least_kv", "", routes, "seeds: 2,");
        let scenario = scenario(&text).expect("valid");
        let of = |threads| {
            let (outcome, _) = scenario::run(&scenario, threads, &(), |_, _| Silent).expect("it runs");
            json::render(&[outcome])
        };
        let one = of(1);
        assert!(one.contains("\"kv_transfer\"") && one.contains("\"part\": \"decode\""), "{routes}");
        assert_eq!(of(4), one, "{routes}");
        let (mut built, _) = scenario.build().expect("valid");
        let built = built.remove(0);
        let device = built.setup.device().expect("valid");
        let late = built.run_on(&device, &mut [Silent; 3], false).expect("it runs");
        let drawn = built.with_all_routes().expect("it draws");
        let before = drawn.run_on(&device, &mut [Silent; 3], false).expect("it runs");
        assert_eq!(summary(&drawn.setup, &late), summary(&drawn.setup, &before), "{routes}");
    }
}

/// What does not go with prefill and decode apart is refused, with its key.
#[test]
fn what_does_not_go_apart_is_refused() {
    let cases = [
        (
            "apart: (prefill: 0, decode: 1)",
            "",
            "",
            "parallel.apart.prefill: found 0, expected 1 to 4096 engines",
        ),
        ("apart: (prefill: 1, decode: 0)", "", "", "parallel.apart.decode"),
        (
            "apart: (prefill: 1, decode: 1), replicas: 2",
            "",
            "",
            "parallel.replicas: found 2, expected no replicas beside",
        ),
        ("apart: (prefill: 1, decode: 1), router: queue", "", "", "parallel.router: found queue"),
        (
            "apart: (prefill: 1, decode: 1)",
            "admission: whole",
            "",
            "serving.admission: found whole, expected as_it_comes or whole_prompt",
        ),
        ("apart: (prefill: 6, decode: 6)", "", "", "at most 8 devices, which nvidia-hgx-h100 joins"),
        (
            "apart: (prefill: 1, decode: 1)",
            "prefix_caching: (block_tokens: 16)",
            "",
            "serving.prefix_caching: found 16 tokens, expected none, where prefill and decode are apart",
        ),
        (
            "apart: (prefill: 1, decode: 1)",
            "",
            "tiers: (link: pcie4, resident: 16, policy: lru),",
            "tiers: found layers that come over a link",
        ),
    ];
    for (parallel, serving, more, say) in cases {
        let text = text(parallel, serving, "Dense", more);
        let error = scenario(&text).and_then(|scenario| scenario.build()).expect_err(say).to_string();
        assert!(error.contains(say), "{parallel}: {error}");
    }
    let queued = text("apart: (prefill: 1, decode: 1)", "", "Dense", "")
        .replace("policy: aligned", "policy: queued(full: 4, wait_us: 10)");
    let error = scenario(&queued).and_then(|scenario| scenario.build()).expect_err("queues").to_string();
    assert!(error.contains("a policy without queues"), "{error}");
}
