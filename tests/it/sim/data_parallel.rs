//! Attention data-parallel: engines that share experts, and so run their passes together.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{ExpertLoads, ExpertUse};
use radialsim::cost::Ranks;
use radialsim::hw::{Fabric, Hardware, Library};
use radialsim::metrics::{Ledger, Summary};
use radialsim::model::Model;
use radialsim::scenario::{self, Scenario};
use radialsim::sim::fleet::{self, Fleet, RequestRouter};
use radialsim::sim::{Fidelity, Setup, Silent, run};
use radialsim::trace::Trace;
use std::path::Path;
use std::sync::Arc;

/// Qwen3-30B-A3B with four layers.
fn small() -> Model {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string("examples/models/qwen3-30b-a3b/config.json").expect("a shipped model");
    let text = text.replace("\"num_hidden_layers\": 48", "\"num_hidden_layers\": 4");
    std::fs::write(folder.path().join("config.json"), text).expect("written");
    let model = Model::from_config(folder.path().join("config.json")).expect("a model");
    Model { name: "mixture".into(), ..model }
}

/// The fabric of an H100, its exchanges so many times as fast.
fn fabric(faster: f64) -> Fabric {
    let mut fabric = Fabric::resolve("nvidia-hgx-h100").expect("a shipped fabric");
    let all = fabric.levels[0].collectives.as_mut().expect("measured");
    for exchange in &mut all.exchanges {
        exchange.gb_per_s *= faster;
        exchange.gb_per_s_each *= faster;
        exchange.start_us /= faster;
        exchange.us_per_expert /= faster;
        exchange.us_per_value /= faster;
        exchange.us_per_token /= faster;
    }
    fabric
}

/// A lab on `devices` that share experts, each with `batch` sequences of its own, or all with so many together.
fn lab(batch: u32, devices: u32, own: bool, loads: ExpertLoads, capture: &[u32], faster: f64) -> Lab {
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", batch);
    lab.setup.hardware = Hardware::shipped("nvidia-h100-sxm").expect("a shipped device");
    // One engine counts the sampler's energy once for all devices.
    lab.setup.hardware.without_sampler();
    lab.setup.experts = ExpertUse { loads, seed: 3, ..ExpertUse::default() };
    lab.setup.dispatch.capture = capture.to_vec();
    let fabric = fabric(faster);
    let ranks = Ranks::new(&fabric, devices, Library::Vllm).and_then(|ranks| ranks.exchanging(&fabric));
    let (model, ranks) = (small().spread_over(devices).expect("a divisor"), ranks.expect("one machine"));
    (lab.setup.model, lab.setup.ranks) = match own {
        true => (model.with_own_sequences(), Some(Arc::new(ranks.of_engines()))),
        false => (model, Some(Arc::new(ranks))),
    };
    lab
}

/// What each rank added up, the same by events and by passes.
fn each(setup: &Setup, trace: &Trace, count: u32, router: RequestRouter, rounds: bool) -> Vec<Ledger> {
    let fleet = Fleet { replicas: count, router, seed: 5, apart: None, rounds };
    let of = |fidelity| {
        let setup = Setup { fidelity, ..setup.clone() };
        let mut silent = vec![Silent; count as usize];
        let device = setup.device().expect("valid");
        fleet::run(&device, &setup, (trace, None), &fleet, &mut silent, false).expect("it fits")
    };
    let (kernels, passes) = (of(Fidelity::Kernel), of(Fidelity::Step));
    for (a, b) in kernels.iter().zip(&passes) {
        assert_eq!(
            (a.makespan, a.pass_ps, a.busy_ps, a.rounds),
            (b.makespan, b.pass_ps, b.busy_ps, b.rounds)
        );
        assert_eq!((&a.requests, a.by_cause, a.by_bound), (&b.requests, b.by_cause, b.by_bound));
    }
    kernels
}

fn summary(setup: &Setup, ledgers: Vec<Ledger>) -> Summary {
    Summary::new(&Ledger::of_replicas(ledgers), &setup.device().expect("valid"), &setup.model)
}

/// Engines with equal loads are one engine whose sequences are spread evenly over the devices: the same times, sums and energy.
#[test]
fn equal_ranks_are_one_engine_with_spread_sequences() {
    for (devices, own, capture) in [(2u32, 3u32, &[][..]), (8, 4, &[]), (8, 4, &[1, 2, 4, 8, 64])] {
        for loads in [ExpertLoads::Independent, ExpertLoads::Balanced, ExpertLoads::PowerLaw(1.2)] {
            let apart = lab(own, devices, true, loads, capture, 1.0);
            let trace = apart.trace(&method("Dense"), devices * own, 24, 6, 1);
            let ranks = each(&apart.setup, &trace, devices, RequestRouter::RoundRobin, true);
            let one = lab(devices * own, devices, false, loads, capture, 1.0);
            let whole = run(&one.setup, &trace, &mut Silent).expect("it fits");
            for rank in &ranks {
                assert_eq!(
                    rank.makespan, whole.makespan,
                    "{devices} devices, {loads:?}, captured {capture:?}"
                );
                assert_eq!(rank.rounds.expect("rounds").waited_ps, 0);
                assert_eq!(rank.passes, whole.passes);
            }
            let (parts, whole) = (summary(&apart.setup, ranks), summary(&one.setup, vec![whole]));
            assert_eq!((parts.ttft_s, parts.tpot_s), (whole.ttft_s, whole.tpot_s));
            assert_eq!((parts.devices, whole.devices), (devices, devices));
            assert!((parts.energy_j / whole.energy_j - 1.0).abs() < 1e-6);
        }
    }
}

/// With links that take no time, what a rank's pass takes is what one device takes for its own tokens with a part of the experts and all tokens' rows:
/// two ranks with equal loads are no slower than one device with half the tokens and all experts, and quicker by what half of the experts weighs.
#[test]
fn free_links_leave_the_weights_of_a_part() {
    let alone = {
        let mut lab = lab(4, 2, true, ExpertLoads::Independent, &[], 1.0);
        (lab.setup.model, lab.setup.ranks) = (small(), None);
        let trace = lab.trace(&method("Dense"), 4, 1, 12, 1);
        run(&lab.setup, &trace, &mut Silent).expect("it fits").makespan
    };
    let at = |devices: u32, faster: f64| {
        let lab = lab(4, devices, true, ExpertLoads::Independent, &[], faster);
        let trace = lab.trace(&method("Dense"), 4 * devices, 1, 12, 1);
        each(&lab.setup, &trace, devices, RequestRouter::RoundRobin, true)[0].makespan
    };
    let free: Vec<_> = [2, 4, 8].map(|devices| at(devices, 1e9)).into();
    assert!(free[0] < alone, "{free:?} {alone}");
    assert!(free.windows(2).all(|pair| pair[1] <= pair[0]), "fewer experts a device: {free:?}");
    for devices in [2, 8] {
        assert!(at(devices, 1.0) > at(devices, 2.0), "faster links");
        assert!(at(devices, 2.0) > at(devices, 1e9), "free links");
    }
}

/// A long prompt on one rank holds up the others: all have their first token when the slowest does. Replicas, the control, do not wait.
#[test]
fn all_wait_for_the_slowest() {
    let lab = lab(4, 2, true, ExpertLoads::Independent, &[], 1.0);
    let mut trace = lab.trace(&method("Dense"), 2, 2000, 4, 1);
    let short = lab.trace(&method("Dense"), 2, 3, 4, 1);
    trace.requests[1] = radialsim::trace::Request { id: 1, ..short.requests[1].clone() };
    let ranks = each(&lab.setup, &trace, 2, RequestRouter::RoundRobin, true);
    let (long, short) = (&ranks[0], &ranks[1]);
    assert_eq!(long.requests[0].first, short.requests[0].first);
    assert_eq!(long.requests[0].last, short.requests[0].last);
    assert_eq!(long.rounds.expect("rounds").waited_ps, 0);
    assert!(short.rounds.expect("rounds").waited_ps > 0);
    let free = each(&lab.setup, &trace, 2, RequestRouter::RoundRobin, false);
    assert!(free[1].requests[0].first < short.requests[0].first, "replicas do not wait");
}

/// Where one request is all there is, the other ranks run as many dummy passes as it takes, and the experts get a row of each.
#[test]
fn who_has_nothing_to_run_runs_dummy_passes() {
    let lab = lab(4, 8, true, ExpertLoads::Independent, &[], 1.0);
    let trace = lab.trace(&method("Dense"), 1, 30, 9, 1);
    let ranks = each(&lab.setup, &trace, 8, RequestRouter::RoundRobin, true);
    assert_eq!(ranks[0].passes, 9);
    let dummies: Vec<u64> = ranks.iter().map(|rank| rank.rounds.expect("rounds").dummy_passes).collect();
    assert_eq!(dummies, [0, 9, 9, 9, 9, 9, 9, 9]);
    assert!(ranks[1..].iter().all(|rank| rank.passes == 0 && rank.busy_ps == 0));
    // The control: without those rows the experts would have less to read.
    let mut alone = self::lab(4, 8, true, ExpertLoads::Independent, &[], 1.0);
    alone.setup.serving = lab.setup.serving;
    let trace_of_all = alone.trace(&method("Dense"), 8, 30, 9, 1);
    let full = each(&alone.setup, &trace_of_all, 8, RequestRouter::RoundRobin, true);
    assert!(full[0].makespan > ranks[0].makespan, "eight prompts ask for more experts than one");
}

/// Entries are each rank's own; weights of experts are spread.
#[test]
fn each_rank_has_whole_entries_and_a_part_of_the_experts() {
    let (whole, spread) = (small(), small().spread_over(8).expect("a divisor"));
    let own = spread.clone().with_own_sequences();
    assert_eq!(own.kv_entry_bytes(), whole.kv_entry_bytes());
    assert_eq!(8 * spread.kv_entry_bytes(), whole.kv_entry_bytes());
    assert_eq!(own.branch_weight_bytes(), spread.branch_weight_bytes());
    assert!(own.branch_weight_bytes() < whole.branch_weight_bytes() / 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Requests, tokens and time are conserved whatever comes when and goes where.
    #[test]
    fn tokens_and_rounds_are_conserved(
        devices in prop::sample::select(vec![2u32, 4, 8]),
        count in 1u32..20,
        gap_us in 0u32..3000,
        router in prop::sample::select(vec![RequestRouter::RoundRobin, RequestRouter::Vllm, RequestRouter::LeastKv, RequestRouter::Queue, RequestRouter::Random]),
        seed in 0u64..1000,
    ) {
        let lab = lab(3, devices, true, ExpertLoads::Independent, &[1, 2, 4, 8], 1.0);
        let lengths = radialsim::workload::Lengths {
            prompt: radialsim::workload::Length::Uniform { low: 1, high: 300 },
            output: radialsim::workload::Length::Uniform { low: 1, high: 9 },
        };
        let arrivals = radialsim::workload::Arrivals::Every { gap_s: f64::from(gap_us) * 1e-6 };
        let requests = radialsim::workload::requests(count, &lengths, &arrivals, seed).expect("valid");
        let asked: u64 = requests.iter().map(|request| u64::from(request.output_tokens)).sum();
        let trace = radialsim::trace::synth::generate(&method("Dense"), 4, requests, seed).expect("valid");
        let ranks = each(&lab.setup, &trace, devices, router, true);
        prop_assert_eq!(ranks.iter().map(|rank| rank.output_tokens).sum::<u64>(), asked);
        prop_assert_eq!(ranks.iter().map(|rank| rank.requests.len()).sum::<usize>(), count as usize);
        // Every round is a pass or a dummy pass of each rank.
        let rounds = |rank: &Ledger| rank.passes + rank.rounds.map_or(0, |rounds| rounds.dummy_passes);
        prop_assert!(ranks.iter().all(|rank| rounds(rank) == rounds(&ranks[0])));
        // Somebody is the slowest in each: passes and waits of a rank fill the rounds in which it was.
        let filled = |rank: &Ledger| rank.pass_ps + rank.rounds.map_or(0, |rounds| rounds.waited_ps);
        let most = ranks.iter().map(|rank| rank.makespan).max().expect("ranks");
        prop_assert!(ranks.iter().all(|rank| filled(rank) <= u128::from(most.ps())));
        let summary = summary(&lab.setup, ranks);
        prop_assert_eq!(summary.replicas.expect("several").each.len(), devices as usize);
    }
}

fn text(more: &str, routes: &str) -> String {
    format!(
        "(title: \"t\", model: \"examples/models/qwen3-30b-a3b\", hardware: \"nvidia-h100-sxm\", {more} seed: 1,
          workload: (requests: (count: 16, lengths: (prompt: Fixed(20), output: Fixed(5)), arrivals: Closed)),
          serving: (max_batched_tokens: 256, max_sequences: 4, chunked_prefill: true), dispatch: (policy: aligned),
          variants: [(name: \"v\", routes: Method({routes}))])"
    )
}

fn scenario(more: &str, routes: &str) -> Scenario {
    let mut scenario = Scenario::from_text(&text(more, routes), Path::new("t.ron"), &[]).expect("a scenario");
    scenario.folder = ".".into();
    scenario
}

/// `data: 1` is what was; more of them show up in the results.
#[test]
fn a_scenario_says_it_and_one_is_one() {
    let outcome = |more: &str| {
        let (outcome, _) = scenario::run(&scenario(more, "Dense"), 1, &(), |_, _| Silent).expect("it runs");
        outcome.variants[0].first().summary.clone()
    };
    assert_eq!(outcome("parallel: (data: 1),"), outcome(""));
    assert_eq!(outcome("parallel: (experts: 4, data: 1),"), outcome("parallel: (experts: 4),"));
    let four = outcome("parallel: (experts: 4, data: 4),");
    let each = four.replicas.expect("four engines").each;
    assert_eq!((each.len(), four.devices), (4, 4));
    assert!(each.iter().all(|rank| rank.requests == 4 && rank.dummy_passes.is_some()));
}

#[test]
fn what_does_not_go_with_it_is_refused_by_name() {
    for (more, routes, key) in [
        ("parallel: (data: 4),", "Dense", "parallel.data"),
        ("parallel: (data: 2, experts: 4),", "Dense", "parallel.data"),
        ("parallel: (data: 0),", "Dense", "parallel.data"),
        ("parallel: (data: 4, experts: 4, replicas: 2),", "Dense", "parallel.replicas"),
        ("parallel: (data: 4, experts: 4, tensor: 2),", "Dense", "parallel.experts"),
        ("parallel: (data: 4, experts: 4, pipeline: 2),", "Dense", "parallel.data"),
        ("parallel: (data: 4, experts: 4, apart: (prefill: 1, decode: 1)),", "Dense", "parallel.data"),
        (
            "parallel: (data: 4, experts: 4),",
            "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)",
            "variants.v.routes",
        ),
    ] {
        let refused = scenario(more, routes).build().expect_err(more);
        assert!(refused.to_string().contains(key), "{more}: {refused}");
        assert_eq!(refused.exit_code(), 2);
    }
}
