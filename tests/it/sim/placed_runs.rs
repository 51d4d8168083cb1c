//! Layers placed on several devices while tokens hop among them.

use crate::lab::{Lab, method};
use crate::sim::pipeline::{both, flat, placed, summary};
use proptest::prelude::*;
use radialsim::batch::{Policy, Visibility};
use radialsim::sim::{Placed, Setup, Silent, run};
use radialsim::trace::{Hops, Order, Placement, Trace};
use std::path::Path;
use std::sync::Arc;

const WALK: &str =
    "Radial(transitions: Banded(back: 2, ahead: 6), start: Layer(0), hops: Fixed(12), kv: write)";
const SKIPS: &str = "IndependentSkips(skip: 0.5, branches: Jointly, kv: none)";
const KEEPS: &str = "IndependentSkips(skip: 0.5, branches: Jointly, kv: project_only)";

/// The lab and a trace of these routes, as the scenario would dispatch it.
fn on(model: &str, policy: Policy, text: &str, count: u32, seed: u64) -> (Lab, Trace) {
    let mut lab = Lab::new(model, "nvidia-h100-sxm", 8).policy(policy);
    let trace = lab.trace(&method(text), count, 6, 5, seed);
    lab.setup.dispatch.monotone = trace.header.order == Order::Monotone;
    (lab, trace)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    /// One device changes nothing, hop by hop.
    #[test]
    fn one_device_changes_nothing(
        policy in prop::sample::select(vec![Policy::Hop, Policy::Grouped]), text in prop::sample::select(vec![WALK, SKIPS, KEEPS]),
        count in 1..7u32, captured in any::<bool>(), seed in any::<u64>(),
    ) {
        let (mut lab, trace) = on("llama-3.1-8b", policy, text, count, seed);
        lab.setup.dispatch.capture = if captured { vec![1, 2, 4, 8] } else { Vec::new() };
        let (_, alone) = both(&lab, &trace);
        let one = Placement::contiguous(32, 1).expect("one device");
        let (_, mut placed) = both(&placed(&lab, &one, &flat(7.0), None), &trace);
        placed.placement = None;
        placed.power_w.hottest_pass = alone.power_w.hottest_pass;
        prop_assert_eq!(placed, alone);
    }

    /// Wherever layers lie, the same passes do the same arithmetic, each group once: what is spread is neither lost nor doubled.
    #[test]
    fn devices_do_the_work_of_one(
        text in prop::sample::select(vec![WALK, SKIPS, KEEPS]), devices in 2..6u32, round in any::<bool>(),
        policy in prop::sample::select(vec![Policy::Hop, Policy::Grouped, Policy::Aligned, Policy::DenseMasked]),
        count in 1..7u32, seed in any::<u64>(),
    ) {
        let ordered = matches!(policy, Policy::Aligned | Policy::DenseMasked);
        let (lab, trace) = on("llama-3.1-8b", policy, if ordered && text == WALK { "Dense" } else { text }, count, seed);
        let alone = both(&lab, &trace).0;
        let placement = if round { Placement::round_robin(32, devices) } else { Placement::contiguous(32, devices) };
        let mut lab = placed(&lab, &placement.expect("enough layers"), &flat(2.0), None);
        // One pass at a time, so that passes are the same.
        let one = Placed { in_flight: 1, ..Placed::clone(lab.setup.placed.as_deref().expect("placed")) };
        lab.setup.placed = Some(Arc::new(one));
        let spread = both(&lab, &trace).0;
        // A grouped product is cut by devices, and its tiles with it.
        if policy == Policy::Grouped {
            prop_assert!(spread.done.flops >= alone.done.flops);
        } else {
            prop_assert_eq!(spread.done.flops, alone.done.flops);
        }
        prop_assert_eq!((spread.passes, spread.layer_visits), (alone.passes, alone.layer_visits));
        prop_assert_eq!((spread.half_depths, spread.union_bytes), (alone.half_depths, alone.union_bytes));
        prop_assert_eq!(spread.kv.peak_blocks, alone.kv.peak_blocks);
    }

    /// Crossings and loads are those that a trace has under the same placement.
    #[test]
    fn crossings_are_those_of_the_trace(
        text in prop::sample::select(vec![WALK, SKIPS]), devices in 2..6u32, round in any::<bool>(), count in 1..7u32, seed in any::<u64>(),
    ) {
        let policy = if text == WALK { Policy::Hop } else { Policy::Aligned };
        let (lab, trace) = on("llama-3.1-8b", policy, text, count, seed);
        let placement = if round { Placement::round_robin(32, devices) } else { Placement::contiguous(32, devices) };
        let placement = placement.expect("enough layers");
        let (ledger, summary) = both(&placed(&lab, &placement, &flat(2.0), None), &trace);
        let fares = Hops::of(&trace, 0..trace.requests.len()).fares(&placement);
        let told = summary.placement.expect("placed");
        prop_assert!((told.crossings_per_token - fares.crossings).abs() < 1e-9, "{} {}", told.crossings_per_token, fares.crossings);
        for (device, load) in told.devices.iter().zip(&fares.load) {
            prop_assert!((device.load - load).abs() < 1e-9);
        }
        let used = ledger.placed.expect("placed");
        prop_assert!(used.states >= used.crossings);
        prop_assert_eq!(used.sent.iter().sum::<u64>(), used.states * 2 * lab.setup.model.hidden);
        prop_assert_eq!(used.devices.iter().map(|device| device.busy_ps).sum::<u128>(), ledger.busy_ps);
    }

    /// Layers that keep something of a token that skips them get its state, beside its way.
    #[test]
    fn skipped_layers_get_the_states_that_they_keep(
        devices in 2..5u32, policy in prop::sample::select(vec![Policy::Hop, Policy::Grouped, Policy::Aligned]), seed in any::<u64>(),
    ) {
        let sent = |text: &str| {
            let (lab, trace) = on("llama-3.1-8b", policy, text, 3, seed);
            let placement = Placement::round_robin(32, devices).expect("enough layers");
            let (ledger, _) = both(&placed(&lab, &placement, &flat(2.0), None), &trace);
            let used = ledger.placed.expect("placed");
            (used.states, used.crossings)
        };
        let ((without, _), (with, crossings)) = (sent(SKIPS), sent(KEEPS));
        prop_assert!(with > without, "{with} {without}");
        prop_assert!(with >= crossings);
    }
}

/// Devices work at the same time on tokens at different layers: two devices take less than one for the same walk, where links are free, and slow
/// links take that back.
#[test]
fn devices_work_at_the_same_time() {
    let (mut lab, trace) = on("llama-3.1-8b", Policy::Hop, WALK, 8, 3);
    lab.setup.dispatch.capture = vec![1, 2, 4, 8];
    let (_, alone) = both(&lab, &trace);
    let two = Placement::round_robin(32, 2).expect("enough layers");
    let (_, free) = both(&placed(&lab, &two, &flat(0.0), None), &trace);
    let (_, slow) = both(&placed(&lab, &two, &flat(5000.0), None), &trace);
    assert!(free.makespan_s < 0.85 * alone.makespan_s, "{} {}", free.makespan_s, alone.makespan_s);
    assert!(slow.makespan_s > alone.makespan_s);
    let devices = free.placement.expect("placed").devices;
    assert!(devices.iter().map(|device| device.busy).sum::<f64>() > 1.0, "more than one works at a time");
}

/// A walk among hidden clusters of layers: a cut learned on half of it crosses less on the rest than either order, and is faster over slow links.
#[test]
fn a_cut_crosses_least() {
    let text = r#"(title: "t", model: "llama-3.1-8b", hardware: "nvidia-h100-sxm", seed: 4, fidelity: step,
        workload: (trace: "TRACE"),
        serving: (max_batched_tokens: 2048, max_sequences: 16, chunked_prefill: true), dispatch: (policy: hop, capture: [1, 2, 4, 8, 16]),
        variants: [
            (name: "contiguous", routes: Recorded, parallel: (placement: contiguous, devices: 4, micro_batch: 4)),
            (name: "round robin", routes: Recorded, parallel: (placement: round_robin, devices: 4, micro_batch: 4)),
            (name: "cut", routes: Recorded, parallel: (placement: cut(), devices: 4, micro_batch: 4)),
        ])"#;
    let trace = crate::sim::placement::trace(32, &crate::sim::placement::hidden((32, 4), 24));
    let file = std::env::temp_dir().join(format!("radialsim-clusters-{}.jsonl", std::process::id()));
    radialsim::trace::write(&file, &trace).expect("written");
    let text = text.replace("TRACE", &file.to_string_lossy());
    let scenario = radialsim::scenario::Scenario::from_text(&text, Path::new("t.ron"), &[]).expect("valid");
    let (outcome, _) = radialsim::scenario::run(&scenario, 1, &(), |_, _| Silent).expect("it runs");
    std::fs::remove_file(&file).expect("was written");
    let [contiguous, round, cut] = &outcome.variants[..] else { panic!("three variants") };
    let crossings = |variant: &radialsim::scenario::VariantOutcome| {
        variant.first().summary.placement.as_ref().expect("placed").crossings_per_token
    };
    assert!(crossings(cut) < 0.5 * crossings(contiguous).min(crossings(round)));
    let note =
        outcome.assumed.iter().find(|note| note.key.contains("cut")).expect("what it was learned from");
    assert!(note.why.contains("first 12 of 24 requests"), "{}", note.why);
}

/// What queries on other devices would need is refused by name; so is a device whose layers hold more than it has.
#[test]
fn what_would_cross_unseen_is_refused() {
    let of = |change: &dyn Fn(&mut Setup), text: &str| {
        let (lab, trace) = on("llama-3.1-8b", Policy::Hop, text, 4, 1);
        let two = Placement::contiguous(32, 2).expect("enough layers");
        let mut lab = placed(&lab, &two, &flat(1.0), None);
        change(&mut lab.setup);
        run(&lab.setup, &trace, &mut Silent)
            .map(|ledger| summary(&lab, &ledger))
            .map_err(|error| error.to_string())
    };
    let unified =
        "Radial(transitions: Banded(back: 2, ahead: 6), start: Layer(0), hops: Fixed(12), kv: unified)";
    let error = of(&|_| {}, unified).expect_err("unified");
    assert!(error.contains("a unified cache") && error.contains("queries"), "{error}");
    let error =
        of(&|setup| setup.dispatch.visibility = Visibility::AllEntries, WALK).expect_err("all entries");
    assert!(error.contains("a unified cache"), "{error}");
    let share = "IndependentSkips(skip: 0.5, branches: Jointly, kv: share)";
    assert!(of(&|_| {}, share).expect_err("share").contains("share"));
    let swap = radialsim::sched::Preemption::Swap { host_gb: 1.0 };
    assert!(
        of(&|setup| setup.serving.preemption = swap, WALK).expect_err("swap").contains("serving.preemption")
    );
    assert!(of(&|_| {}, WALK).is_ok());
}

/// Where tokens keep to the layers of one device, the others' KV blocks are of no use to it: a run that would need them stops, by name.
#[test]
fn a_device_has_its_own_blocks_alone() {
    let (mut lab, trace) =
        on("llama-3.1-8b", Policy::Aligned, "EarlyExit(exits: Each([(16, 1.0)]), kv: none)", 8, 1);
    // Eight sequences of 10 tokens at 16 layers leave 1,280 entries there; the first device has blocks for 1,200, both for 2,400.
    lab.setup.serving.gpu_memory_utilization = Some(1.0);
    let two = Placement::contiguous(32, 2).expect("enough layers");
    let ledger = run(&placed(&lab, &two, &flat(1.0), None).setup, &trace, &mut Silent).expect("it fits");
    let device = &ledger.placed.expect("placed").devices[0];
    let over = (device.kv_room - 1200) * ledger.kv.block_bytes;
    lab.setup.hardware.memory.capacity_gb.value -= over as f64 / 1e9;
    let lab = placed(&lab, &two, &flat(1.0), None);
    let error = run(&lab.setup, &trace, &mut Silent).expect_err("too few").to_string();
    assert!(error.contains("parallel.placement") && error.contains("device 0"), "{error}");
}
