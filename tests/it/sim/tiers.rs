//! Layers that do not all fit: the layer cache against naive models, and what streaming does to a run.

use crate::lab::{Lab, method};
use crate::sim::serving::tight;
use proptest::prelude::*;
use radialsim::batch::{Hold, Policy};
use radialsim::metrics::Summary;
use radialsim::rng::Stream;
use radialsim::scenario::Scenario;
use radialsim::sched::{Preemption, Serving};
use radialsim::sim::{Fidelity, Silent, run};
use radialsim::tier::{Eviction, Fetches, HostLink, Prefetch, Residency, Tiers};
use radialsim::trace::{Route, RouteTable};
use std::path::Path;

const POOL: u32 = 12;

fn tiers(resident: u32, policy: Eviction, prefetch: Prefetch) -> Tiers {
    Tiers { link: HostLink::Pcie4, resident, policy, pinned: Vec::new(), prefetch }
}

/// One route, which visits these layers.
fn routes(layers: &[u16]) -> (RouteTable, Vec<u64>) {
    let mut table = RouteTable::default();
    table.intern(Route::of_layers(layers.iter().map(|&layer| layer.into())));
    (table, vec![1])
}

/// The cache after these visits.
fn visited(tiers: &Tiers, pool: u32, visits: &[u16]) -> Residency {
    tiers.check(pool).expect("valid tiers");
    let (table, uses) = routes(visits);
    let mut residency = Residency::new(tiers, pool, 1, &table, &uses);
    let mut fetch = Vec::new();
    for &layer in visits {
        residency.visit(&[layer], &mut fetch);
        residency.ahead(&[layer], &mut fetch);
        assert!(residency.holds(layer), "a layer that runs is there");
        let held = (0..pool).filter(|&layer| residency.holds(layer as u16)).count();
        assert_eq!(held as u32, tiers.resident, "as many layers as there are places");
    }
    assert_eq!(residency.done().layers(), fetch.len() as u64);
    residency
}

fn done(tiers: &Tiers, visits: &[u16]) -> Fetches {
    visited(tiers, POOL, visits).done()
}

/// Misses of a cache as a list, the next victim by `worst` of (uses, last use).
fn naive(visits: &[u16], slots: u32, worst: impl Fn(u64, usize) -> (u64, usize)) -> u64 {
    let (mut held, mut misses): (Vec<u16>, u64) = ((0..slots as u16).collect(), 0);
    for (now, &layer) in visits.iter().enumerate() {
        if held.contains(&layer) {
            continue;
        }
        misses += 1;
        let key = |held: &u16| {
            let mut before = visits[..now].iter().enumerate().filter(|(_, visit)| *visit == held);
            let uses = before.clone().count() as u64;
            (worst(uses, before.next_back().map_or(0, |(at, _)| at + 1)), *held)
        };
        held.sort_by_key(key);
        held[0] = layer;
    }
    misses
}

/// Misses if one always gives up what is needed last (Belady 1966).
fn belady(visits: &[u16], slots: u32) -> u64 {
    let (mut held, mut misses): (Vec<u16>, u64) = ((0..slots as u16).collect(), 0);
    for (now, &layer) in visits.iter().enumerate() {
        if !held.contains(&layer) {
            misses += 1;
            let next =
                |held: &u16| visits[now..].iter().position(|visit| visit == held).unwrap_or(usize::MAX);
            held.sort_by_key(next);
            *held.last_mut().expect("a place") = layer;
        }
    }
    misses
}

fn visits() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(0..POOL as u16, 1..80)
}

proptest! {
    #[test]
    fn lru_and_lfu_are_the_naive_ones(visits in visits(), slots in 1..POOL) {
        let demanded = |policy| done(&tiers(slots, policy, Prefetch::Off), &visits).demanded;
        prop_assert_eq!(demanded(Eviction::Lru), naive(&visits, slots, |_, last| (0, last)));
        prop_assert_eq!(demanded(Eviction::Lfu), naive(&visits, slots, |uses, last| (uses, last)));
    }

    #[test]
    fn no_policy_beats_belady_and_lru_never_loses_by_more_places(visits in visits(), slots in 1..POOL) {
        for policy in [Eviction::Lru, Eviction::Lfu, Eviction::Transitions] {
            let all = done(&tiers(slots, policy, Prefetch::Off), &visits);
            prop_assert!(all.demanded >= belady(&visits, slots), "{policy:?}");
            prop_assert_eq!(all.hits + all.demanded, all.visits);
        }
        let hits = |slots| done(&tiers(slots, Eviction::Lru, Prefetch::Off), &visits).hits;
        prop_assert!(hits(slots) <= hits(slots + 1), "LRU is a stack algorithm");
    }

    #[test]
    fn prefetching_keeps_its_books(
        visits in visits(), slots in 2..=POOL, ahead in 1..4_u16, predicted in any::<bool>(), which in 0..3_usize,
        pinned in 0..POOL as u16,
    ) {
        let policy = [Eviction::Lru, Eviction::Lfu, Eviction::Transitions][which];
        let prefetch = if predicted { Prefetch::Predicted(ahead) } else { Prefetch::Next(ahead) };
        let spec = Tiers { pinned: vec![pinned], ..tiers(slots, policy, prefetch) };
        let residency = visited(&spec, POOL, &visits);
        prop_assert!(residency.holds(pinned), "a pinned layer stays");
        let all = residency.done();
        prop_assert_eq!(all.hits + all.demanded, all.visits);
        prop_assert!(all.prefetch_used + all.prefetch_wasted <= all.prefetched);
        prop_assert!(all.prefetched - all.prefetch_used - all.prefetch_wasted <= u64::from(slots));
    }

    /// Whole runs in both fidelities (the lab compares them), with time never below what the link needs.
    #[test]
    fn a_run_never_beats_its_link(
        resident in 3..30_u32, which in 0..3_usize, ahead in 0..3_u16, policy in 0..5_usize, any_order in any::<bool>(),
        seed in 0..1000_u64, capture in any::<bool>(),
    ) {
        let policies = [
            Policy::Aligned, Policy::Hop, Policy::Grouped, Policy::DenseMasked, Policy::Queued { full: 2, wait_us: 100.0, hold: Hold::Always },
        ];
        let any_order = any_order && policies[policy] != Policy::Aligned;
        let routes = if any_order {
            "Radial(transitions: Banded(back: 3, ahead: 4), start: Uniform, hops: Each([(3, 0.3), (6, 0.4), (11, 0.3)]), reuse: true, kv: write)"
        } else {
            "CorrelatedSkips(skip: 0.4, correlation: 0.5, share: Step, branches: Jointly, kv: none)"
        };
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 3).policy(policies[policy]);
        let prefetch = [Prefetch::Off, Prefetch::Next(2), Prefetch::Predicted(2)][ahead as usize];
        let eviction = [Eviction::Lru, Eviction::Lfu, Eviction::Transitions][which];
        lab.setup.tiers = Some(Tiers { pinned: vec![1], ..tiers(resident, eviction, prefetch) });
        if capture {
            lab.setup.dispatch.capture = vec![1, 2, 4];
        }
        let trace = lab.trace(&method(routes), 3, 5, 3, seed);
        let summary = lab.summary(&lab.run(&trace));
        let all = summary.tiers.expect("layers were streamed");
        prop_assert_eq!(all.fetches.hits + all.fetches.demanded, all.fetches.visits);
        prop_assert!(all.link_busy_s <= summary.makespan_s);
        let bytes_over_rate = all.fetched_bytes / (16.0 * 2e9 * 128.0 / 130.0 * 256.0 / 280.0);
        prop_assert!(all.link_busy_s >= bytes_over_rate * (1.0 - 1e-9));
    }
}

/// A dense model on a device without launch times, so that nothing hides behind the host; 30 layers.
fn dense(tiers: Option<Tiers>, free_compute: bool) -> Summary {
    let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 2);
    let launch = &mut lab.setup.hardware.launch;
    for time in [&mut launch.kernel_us, &mut launch.graph_us, &mut launch.graph_gap_us, &mut launch.step_us] {
        time.value = 0.0;
    }
    if free_compute {
        let hardware = &mut lab.setup.hardware;
        hardware.memory.dram_gb_per_s.value *= 1e4;
        hardware.memory.l2_gb_per_s.value *= 1e4;
        hardware.compute.matrix_f16_tflops.value *= 1e4;
        hardware.compute.vector_f32_tflops.value *= 1e4;
        let kernels = &mut hardware.kernels;
        for class in [
            &mut kernels.matmul,
            &mut kernels.prefill_attention,
            &mut kernels.decode_attention,
            &mut kernels.elementwise,
            &mut kernels.gather,
        ] {
            class.fixed_us.value = 0.0;
        }
    }
    lab.setup.tiers = tiers;
    let trace = lab.trace(&method("Dense"), 2, 8, 8, 1);
    lab.summary(&lab.run(&trace))
}

#[test]
fn with_demand_fetches_alone_time_is_that_of_the_layers_and_that_of_the_link() {
    let resident = dense(None, false);
    let streamed = dense(Some(tiers(10, Eviction::Lru, Prefetch::Off)), false);
    let all = streamed.tiers.expect("layers were streamed");
    assert_eq!(
        all.fetches.hits, 10,
        "a cycle longer than the cache: only the first pass finds its first layers"
    );
    let apart = streamed.makespan_s - resident.makespan_s;
    assert!((apart / all.link_busy_s - 1.0).abs() < 1e-9, "{apart} {}", all.link_busy_s);
}

#[test]
fn where_compute_is_free_time_is_bytes_over_bandwidth() {
    for prefetch in [Prefetch::Off, Prefetch::Next(3)] {
        let mut spec = tiers(10, Eviction::Lru, prefetch);
        spec.link = HostLink::Rate { gb_per_s: 10.0, latency_us: 0.0 };
        let summary = dense(Some(spec), true);
        let all = summary.tiers.expect("layers were streamed");
        let least = all.fetched_bytes / 10e9;
        assert!(
            summary.makespan_s >= least && summary.makespan_s < least * 1.002,
            "{} {least}",
            summary.makespan_s
        );
    }
}

#[test]
fn prefetching_hides_the_link_behind_the_layers_and_never_hurts_a_dense_model() {
    let spec = |prefetch| {
        let link = HostLink::Rate { gb_per_s: 2000.0, latency_us: 0.0 };
        Some(Tiers { link, ..tiers(10, Eviction::Lru, prefetch) })
    };
    let (demand, ahead) = (dense(spec(Prefetch::Off), false), dense(spec(Prefetch::Next(2)), false));
    let (slow, fast) = (demand.makespan_s, ahead.makespan_s);
    let resident = dense(None, false).makespan_s;
    assert!(fast < slow && (fast - resident) < 0.2 * (slow - resident), "{resident} {fast} {slow}");
    let all = ahead.tiers.expect("layers were streamed").fetches;
    assert!(all.hits as f64 > 0.9 * all.visits as f64, "{all:?}");
    assert_eq!(all.prefetch_wasted, 0);
}

#[test]
fn a_pool_that_fits_streams_nothing() {
    let (resident, streamed) =
        (dense(None, false), dense(Some(tiers(30, Eviction::Lru, Prefetch::Off)), false));
    assert_eq!(resident.digest, streamed.digest);
    assert_eq!(streamed.tiers.expect("a layer cache").fetches.layers(), 0);
}

#[test]
fn in_a_cycle_transitions_keep_what_lru_throws_away() {
    let cycle: Vec<u16> = (0..50).flat_map(|_| 0..POOL as u16).collect();
    let hits = |policy| done(&tiers(8, policy, Prefetch::Off), &cycle).hits;
    assert_eq!(hits(Eviction::Lru), 8, "the first round's");
    // The best that 8 places of 12 can do is 7 of 11 after the first round.
    let (kept, best) = (hits(Eviction::Transitions), 600 - belady(&cycle, 8));
    assert!(kept as f64 >= 0.98 * best as f64, "{kept} of {best}");
    let ahead = done(&tiers(8, Eviction::Transitions, Prefetch::Predicted(1)), &cycle);
    assert!(ahead.hits >= kept, "{ahead:?}");
}

/// Under independent references LFU ends up with the most likely layers, so its hit rate is the sum of their shares.
#[test]
fn lfu_comes_to_hold_the_most_likely_layers() {
    let weights: Vec<f64> = (1..=POOL).map(|rank| 1.0 / f64::from(rank)).collect();
    let sum: f64 = weights.iter().sum();
    let mut stream = Stream::new(5, "references");
    let visits: Vec<u16> = (0..40_000).map(|_| stream.weighted(&weights).expect("a weight") as u16).collect();
    let all = done(&tiers(5, Eviction::Lfu, Prefetch::Off), &visits);
    let (rate, expected) = (all.hits as f64 / all.visits as f64, weights[..4].iter().sum::<f64>() / sum);
    // Four stay, and the fifth place goes to whoever came last: a hit only if it comes twice in a row.
    let rest: f64 = weights[4..].iter().sum::<f64>() / sum;
    let again: f64 = weights[4..].iter().map(|weight| (weight / sum).powi(2)).sum::<f64>() / rest;
    let (low, high) = (expected + again * 0.5, expected + weights[4] / sum);
    let error = 4.0 * (rate * (1.0 - rate) / visits.len() as f64).sqrt();
    assert!(rate > low - error && rate < high + error, "{low} {rate} {high} {error}");
}

#[test]
fn what_cannot_be_is_said_with_its_key() {
    let good = tiers(6, Eviction::Transitions, Prefetch::Next(2));
    assert!(good.check(POOL).is_ok());
    let cases = [
        (Tiers { resident: 0, ..good.clone() }, "tiers.resident"),
        (Tiers { resident: 13, ..good.clone() }, "tiers.resident"),
        (Tiers { pinned: vec![12], ..good.clone() }, "tiers.pinned"),
        (Tiers { pinned: vec![3, 3], ..good.clone() }, "tiers.pinned"),
        (Tiers { pinned: (0..6).collect(), ..good.clone() }, "tiers.pinned"),
        (Tiers { prefetch: Prefetch::Next(12), ..good.clone() }, "tiers.prefetch"),
        (
            Tiers { link: HostLink::Rate { gb_per_s: 0.0, latency_us: 1.0 }, ..good.clone() },
            "tiers.link.gb_per_s",
        ),
        (
            Tiers { link: HostLink::Rate { gb_per_s: 1.0, latency_us: f64::NAN }, ..good.clone() },
            "tiers.link.latency_us",
        ),
    ];
    for (spec, key) in cases {
        let error = spec.check(POOL).expect_err(key).to_string();
        assert!(error.contains(key), "{error}");
    }
    assert!(good.check(5000).expect_err("too many layers to follow").to_string().contains("4096"));
}

#[test]
fn places_that_do_not_fit_are_said_to_be_short_before_anything_runs() {
    let mut lab = Lab::new("llama-2-70b", "nvidia-h100-sxm", 1);
    lab.setup.fidelity = Fidelity::Step;
    let trace = lab.trace(&method("Dense"), 1, 4, 2, 1);
    lab.setup.tiers = Some(tiers(60, Eviction::Lru, Prefetch::Off));
    let error = run(&lab.setup, &trace, &mut Silent).expect_err("60 layers of 1.7 GB").to_string();
    assert!(error.contains("are short"), "{error}");
    lab.setup.tiers = Some(tiers(30, Eviction::Lru, Prefetch::Off));
    run(&lab.setup, &trace, &mut Silent).expect("30 layers fit");
}

/// The study that ships: a faster link helps every policy, and its hit rates do not depend on the link.
#[test]
fn the_shipped_pool_is_faster_on_a_faster_link() {
    let scenario = Scenario::load(Path::new("examples/pool-4x-streamed-h100.ron"), &[]).expect("shipped");
    let (built, _) = scenario.build().expect("it builds");
    let summaries: Vec<(String, Summary)> = built
        .iter()
        .map(|built| {
            let lab = Lab { setup: built.setup.clone() };
            let ledger = built.run(&mut Silent).expect("it fits");
            (built.name.clone(), lab.summary(&ledger))
        })
        .collect();
    let of = |name: &str| &summaries.iter().find(|(have, _)| have == name).expect(name).1;
    for kind in ["habit", "walk"] {
        let chain = ["PCIe 4", "PCIe 5", "C2C"].map(|link| of(&format!("{kind}, {link}, LRU")));
        assert!(chain.windows(2).all(|pair| pair[0].makespan_s > pair[1].makespan_s), "{kind}");
        assert!(chain[2].makespan_s > of(&format!("{kind}, all resident")).makespan_s, "{kind}");
        assert!(
            chain.iter().all(|all| all.tiers.map(|all| all.fetches) == chain[0].tiers.map(|all| all.fetches))
        );
    }
}

/// KV entries of preempted sequences go over the link that layers come over: it is busy for both.
#[test]
fn swapped_entries_and_layers_share_the_link() {
    let serving = Serving {
        preemption: Preemption::Swap { host_gb: 1.0 },
        watermark: 0.0,
        kv_block_tokens: 1,
        ..Serving::new(256, 8, true)
    };
    let mut lab = tight(serving, 40 * 32);
    let run = |lab: &Lab| lab.run(&lab.trace(&method("Dense"), 8, 8, 24, 1));
    let resident = run(&lab);
    assert!(resident.swapped_bytes > 0);
    let link = HostLink::Rate { gb_per_s: 20.0, latency_us: 0.0 };
    lab.setup.tiers = Some(Tiers { link, ..tiers(32, Eviction::Lru, Prefetch::Off) });
    let held = lab.setup.tiers.as_mut().expect("just set");
    held.resident = 31;
    // The place of the layer that is not there would be room for KV entries.
    let capacity = &mut lab.setup.hardware.memory.capacity_gb.value;
    *capacity -= lab.setup.model.layer_weight_bytes(lab.setup.model.kind(0)) as f64 / 1e9;
    let streamed = run(&lab);
    assert_eq!(streamed.swapped_bytes, resident.swapped_bytes);
    let bytes = streamed.tiers.bytes as f64 + streamed.swapped_bytes as f64;
    let busy = streamed.tiers.link_ps as f64 / 1e12;
    assert!((busy * 20e9 / bytes - 1.0).abs() < 1e-6, "{busy} s for {bytes} bytes");
    assert!(streamed.makespan.s() > busy && streamed.tiers.bytes > 0);
}
