//! What routing does to a batch, as laws. Nothing in the simulator knows them: they come out of kernels and bytes.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Hold, Policy};
use radialsim::lower::RouterPlan;
use radialsim::sim::{Silent, run};
use radialsim::tier::{Eviction, HostLink, Prefetch, Tiers};
use radialsim::trace::synth::Method;
use radialsim::trace::{
    Header, Phase, Role, Route, RouteTable, Router, RouterDevice, RouterKind, RouterWhen, Trace,
};
use radialsim::units::SimTime;
use statrs::distribution::{Binomial, DiscreteCDF};

const LLAMA: &str = "llama-2-7b";
const H100: &str = "nvidia-h100-sxm";
const STEPS: [Policy; 4] = [Policy::DenseMasked, Policy::Aligned, Policy::Hop, Policy::Grouped];

/// Dense is a route that takes every layer: the same last digit, whatever the policy, whoever made the trace.
#[test]
fn dense_equals_the_route_of_all_layers() {
    let all = method("IndependentSkips(skip: 0, branches: Jointly, kv: project_only)");
    for policy in STEPS {
        let lab = Lab::new("smollm2-135m", H100, 4).policy(policy);
        let (dense, routed) = (lab.trace(&Method::Dense, 9, 33, 12, 1), lab.trace(&all, 9, 33, 12, 1));
        let (dense, routed) = (lab.summary(&lab.run(&dense)), lab.summary(&lab.run(&routed)));
        assert_eq!(dense, routed, "{policy:?}");
    }
    let lab = Lab::new("smollm2-135m", H100, 4);
    let one_missing = method("StaticDepth(keep: AllBut([29]))");
    let (dense, routed) = (lab.trace(&Method::Dense, 9, 33, 12, 1), lab.trace(&one_missing, 9, 33, 12, 1));
    assert_ne!(
        lab.summary(&lab.run(&dense)).digest,
        lab.summary(&lab.run(&routed)).digest,
        "the digest can tell"
    );
}

/// All step policies run the same graph when every token takes every layer.
#[test]
fn policies_agree_on_dense() {
    let run = |policy| {
        let lab = Lab::new("smollm2-135m", H100, 4).policy(policy);
        lab.summary(&lab.run(&lab.trace(&Method::Dense, 9, 33, 12, 1))).digest
    };
    for policy in STEPS {
        assert_eq!(run(policy), run(Policy::Aligned), "{policy:?}");
    }
}

/// Independent skips: of B tokens, a layer is left unread with probability s^B. In each of the 24 cells the layers left unread lie between tails of
/// one in a million of the binomial distribution (a false alarm once in 20,000 runs of new seeds); neighbouring cells of s are farther
/// apart than that at small B.
#[test]
fn union_of_independent_skips_is_one_minus_s_to_the_b() {
    const PASSES: u32 = 64;
    for skip in [0.25, 0.5, 0.75, 0.875] {
        for batch in [1u32, 2, 4, 8, 16, 32] {
            let lab = Lab::new(LLAMA, H100, batch);
            let text = format!("IndependentSkips(skip: {skip}, branches: Jointly, kv: none)");
            let ledger = lab.run(&lab.trace(&method(&text), batch, 1, PASSES, u64::from(batch)));
            assert_eq!(ledger.passes, u64::from(PASSES));
            let read = ledger.union_bytes as f64 / ledger.pool_bytes as f64;
            let layers = u64::from(32 * PASSES);
            let unread = ((1.0 - read) * layers as f64).round() as u64;
            let law = Binomial::new(f64::powi(skip, batch as i32), layers).expect("a probability");
            let more = if unread == 0 { 1.0 } else { law.sf(unread - 1) };
            assert!(
                law.cdf(unread).min(more) > 1e-6,
                "s {skip} B {batch}: {unread} of {layers} layers left unread"
            );
        }
    }
}

/// A quarter of the layers gone: static saves at every batch; independent skips save where a batch of one or two leaves
/// layers unread, and again where the batch is so large that arithmetic rules; correlated skips keep nearly all of it.
/// `cargo run --release --example batch_union` prints the whole table.
#[test]
fn static_saves_at_every_batch_and_dynamic_only_alone_or_correlated() {
    let saving = |batch: u32, text: &str| {
        let lab = Lab::new(LLAMA, H100, batch);
        1.0 - lab.pass_ms(&method(text), 9) / lab.pass_ms(&Method::Dense, 9)
    };
    let independent = "IndependentSkips(skip: 0.25, branches: Jointly, kv: none)";
    let correlated = "CorrelatedSkips(skip: 0.25, correlation: 1, share: Step, branches: Jointly, kv: none)";
    for batch in [1, 4, 16, 64, 256] {
        let fixed = saving(batch, "StaticDepth(keep: DropMiddle(depth: 24))");
        assert!(fixed > 0.15, "static at B {batch}: {fixed}");
        assert!(saving(batch, correlated) > 0.15, "correlated at B {batch}");
        let alone = saving(batch, independent);
        match batch {
            1 => assert!(alone > 0.12, "independent at B 1: {alone}"),
            4..=64 => assert!(alone < 0.0, "independent at B {batch}: {alone}"),
            _ => assert!(alone < fixed / 2.0, "independent at B {batch}: {alone}"),
        }
    }
}

/// FlexiDepth (arXiv 2503.23798): 8 of 32 layers skipped, K/V projected, kernels of their own: no speed-up in a batch.
#[test]
fn flexidepth_shows_no_speed_up_from_batch_8_on() {
    let text = "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only, router: (hidden: 256))";
    for batch in [8, 16, 32, 64, 128] {
        let lab = Lab::new(LLAMA, H100, batch);
        let (routed, dense) = (lab.pass_ms(&method(text), 9), lab.pass_ms(&Method::Dense, 9));
        assert!(routed > dense, "B {batch}: {routed} ms against {dense} ms");
    }
}

/// Mixture-of-Depths: which tokens take a layer is drawn, how many is not, so a prompt takes the same time whatever the
/// draw. Independent skips of the same mean do not.
#[test]
fn mixture_of_depths_has_constant_step_time() {
    let lab = Lab::new(LLAMA, H100, 4);
    let time = |text: &str, seed| lab.run(&lab.trace(&method(text), 4, 256, 1, seed)).makespan;
    let capacity = "MixtureOfDepths(capacity: 0.125, routed: EveryOther, window: 16)";
    let skips = "IndependentSkips(skip: 0.5, branches: Jointly, kv: none)";
    let times: Vec<_> = (0..4).map(|seed| time(capacity, seed)).collect();
    assert!(times.windows(2).all(|pair| pair[0] == pair[1]), "{times:?}");
    let times: Vec<_> = (0..4).map(|seed| time(skips, seed)).collect();
    assert!(times.windows(2).any(|pair| pair[0] != pair[1]), "{times:?}");
}

/// A cap above the hottest kernel changes nothing; one below slows down and holds.
#[test]
fn a_power_cap_above_the_draw_changes_nothing() {
    let mut lab = Lab::new(LLAMA, H100, 8);
    let trace = lab.trace(&Method::Dense, 8, 64, 8, 1);
    let free = lab.summary(&lab.run(&trace));
    lab.setup.limits.power_w = Some(free.power_w.hottest_pass * (1.0 + 1e-9));
    assert_eq!(lab.summary(&lab.run(&trace)), free);
    let cap = free.power_w.hottest_pass * 0.7;
    lab.setup.limits.power_w = Some(cap);
    let capped = lab.summary(&lab.run(&trace));
    assert!(capped.makespan_s > free.makespan_s && capped.power_w.hottest_pass <= cap * (1.0 + 1e-9));
}

/// Whatever the routes, the policy and the memory: a cap holds the mean of every pass, is used up but for a step of the clock, slows nothing
/// down that draws less, and a lower one is never faster. `Lab::run` holds passes as one event against their kernels.
#[test]
fn a_cap_bounds_each_pass_and_is_used_up() {
    let skips = "IndependentSkips(skip: 0.3, branches: Jointly, kv: project_only)";
    let tiers = Tiers {
        link: HostLink::Pcie4,
        resident: 20,
        policy: Eviction::Lru,
        pinned: Vec::new(),
        prefetch: Prefetch::Next(1),
    };
    for (policy, method_text, tiers) in [
        (Policy::Aligned, "Dense", None),
        (Policy::Hop, skips, None),
        (Policy::Queued { full: 2, wait_us: 100.0, hold: Hold::IfProfitable }, skips, None),
        (Policy::Aligned, skips, Some(tiers)),
    ] {
        let mut lab = Lab::new(LLAMA, H100, 4).policy(policy);
        lab.setup.explain = tiers.is_none();
        lab.setup.tiers = tiers;
        let trace = lab.trace(&method(method_text), 4, 64, 6, 1);
        let free = lab.run(&trace);
        let mut before = free.clone();
        for share in [0.9, 0.75, 0.6] {
            // From what the lowest clock may draw up: where layers are streamed, little is above it.
            let cap = 85.0 + (free.hottest_pass_w - 85.0) * share;
            lab.setup.limits.power_w = Some(cap);
            let capped = lab.run(&trace);
            assert!(capped.hottest_pass_w <= cap * (1.0 + 1e-9), "{policy:?} {share}");
            // A step is 15 of 1,980 MHz, and the draw goes at most with the cube of the clock.
            assert!(
                capped.hottest_pass_w >= cap * 0.97,
                "{policy:?} {share}: {} of {cap}",
                capped.hottest_pass_w
            );
            assert!(capped.pass_ps >= before.pass_ps, "{policy:?} {share}");
            assert_eq!((capped.done, capped.passes), (before.done, before.passes), "{policy:?} {share}");
            before = capped;
        }
    }
}

/// One sequence on an RTX 4090, bound by memory: a cap a third below the draw costs some speed and saves energy. Measured with llama.cpp on a
/// 27B model: 392 W and 51.96 tokens a second, 260 W and 48.26, so 7.1 % of speed for 28 % of the energy (noonghunna/club-3090,
/// docs/VALIDATION_POWER.md). The law that other boards lend says 14 % of the speed for the same share.
#[test]
fn a_power_cap_saves_energy_where_memory_is_slow() {
    let mut lab = Lab::new(LLAMA, "nvidia-rtx-4090", 1);
    let trace = lab.trace(&Method::Dense, 1, 1, 32, 1);
    let free = lab.summary(&lab.run(&trace));
    let mut before = free.makespan_s;
    for (share, least_saved) in [(0.9, 0.05), (0.8, 0.1), (2.0 / 3.0, 0.15)] {
        let cap = free.power_w.hottest_pass * share;
        lab.setup.limits.power_w = Some(cap);
        let capped = lab.summary(&lab.run(&trace));
        assert!(capped.power_w.mean <= cap * (1.0 + 1e-9));
        let slower = capped.makespan_s / free.makespan_s;
        assert!(capped.makespan_s >= before && slower < 1.16, "{share}: {slower}");
        let saved = 1.0 - capped.energy_j / free.energy_j;
        assert!((least_saved..0.35).contains(&saved), "{share}: {saved}");
        before = capped.makespan_s;
    }
}

/// The same router on the host pays a read-back and a decision each time.
#[test]
fn a_host_router_never_beats_the_same_router_on_the_device() {
    let skips = method("IndependentSkips(skip: 0.25, branches: Jointly, kv: none, router: (hidden: 64))");
    for policy in STEPS {
        for when in [RouterWhen::PerLayer, RouterWhen::PerHop, RouterWhen::Upfront, RouterWhen::PerSequence] {
            for capture in [vec![], vec![1, 2, 4, 8]] {
                let mut lab = Lab::new("smollm2-135m", H100, 8).policy(policy);
                lab.setup.dispatch.capture = capture;
                let mut trace = lab.trace(&skips, 8, 20, 6, 5);
                trace.header.router.when = Some(when);
                let device = lab.run(&trace).makespan;
                trace.header.router.device = RouterDevice::Host;
                let host = lab.run(&trace).makespan;
                assert!(host > device, "{policy:?} {when:?}: {host} against {device}");
            }
        }
    }
}

/// Masked kernels compute K and V of every row: nothing is left to project, and the mask costs what dense costs.
#[test]
fn a_masked_batch_projects_nothing_and_takes_the_time_of_its_union() {
    let lab = Lab::new("smollm2-135m", H100, 4).policy(Policy::DenseMasked);
    let time = |text: &str| lab.run(&lab.trace(&method(text), 4, 20, 6, 5)).makespan;
    let of = |kv: &str| time(&format!("IndependentSkips(skip: 0.5, branches: Jointly, kv: {kv})"));
    assert!(of("project_only") <= time("Dense"), "{} against {}", of("project_only"), time("Dense"));
}

/// What was removed once and for all takes no memory; what a router may still choose does.
#[test]
fn static_sparsity_frees_weights_and_routing_does_not() {
    use radialsim::kernel::Density;
    let mut lab = Lab::new(LLAMA, H100, 1);
    let mut weights = |text: &str, density| {
        lab.setup.dispatch.density = density;
        lab.run(&lab.trace(&method(text), 1, 4, 2, 1)).memory.weights
    };
    let all = weights("Dense", Density::Dense);
    let model = Lab::new(LLAMA, H100, 1).setup.model;
    let layers = model.layer_weight_bytes(model.kind(0)) * 32;
    let rest = all - layers;
    assert_eq!(weights("StaticDepth(keep: DropLast(depth: 24))", Density::Dense) - rest, layers * 24 / 32);
    assert_eq!(weights("IndependentSkips(skip: 0.25, branches: Jointly, kv: none)", Density::Dense), all);
    let half_width = weights("StaticWidth(keep: 0.5)", Density::Dense);
    assert!(half_width < all * 3 / 4 && half_width > all / 2);
    // Half of the 16-bit values and two bits of index for each that stays: 9/16.
    let sparse = (weights("Dense", Density::TwoFour) - rest) as f64 / layers as f64;
    assert!((sparse - 0.5625).abs() < 0.001, "{sparse}");
}

/// Without chunks, no run may be longer than a pass: said before anything runs, for verify runs as for prompts.
#[test]
fn runs_beyond_the_budget_are_refused_without_chunks() {
    let mut lab = Lab::new(LLAMA, H100, 1);
    lab.setup.serving.chunked_prefill = false;
    lab.setup.serving.max_batched_tokens = 4;
    for (text, prompt) in [("Dense", 5), ("DraftVerify(exit_layer: 8, drafts: 6, acceptance: 0.5)", 3)] {
        let trace = lab.trace(&method(text), 1, prompt, 20, 1);
        let error = run(&lab.setup, &trace, &mut Silent).unwrap_err().to_string();
        assert!(error.contains("runs within max_batched_tokens = 4"), "{error}");
    }
}

/// A captured graph runs the size it was captured for: six sequences in a graph for 128 pay for 128.
#[test]
fn padding_six_to_128_costs_more_than_padding_to_eight() {
    let mut lab = Lab::new(LLAMA, H100, 6);
    let trace = lab.trace(&Method::Dense, 6, 64, 16, 1);
    let mut time = |capture: &[u32]| {
        lab.setup.dispatch.capture = capture.to_vec();
        lab.run(&trace).makespan
    };
    let (exact, eight, large) = (time(&[6]), time(&[8]), time(&[128]));
    assert!(exact <= eight && eight < large, "{exact} {eight} {large}");
}

/// On an ideal device, one decode step takes its bytes over the bandwidth, to the picosecond: at 1000 GB/s a byte is one.
#[test]
fn an_ideal_decode_step_is_bytes_over_bandwidth() {
    let lab = Lab::new(LLAMA, "ideal", 1);
    let trace = lab.trace(&Method::Dense, 1, 1, 2, 1);
    let ledger = lab.run(&trace);
    assert_eq!(u128::from(ledger.makespan.ps()), ledger.done.bytes);
    // The second pass reads every weight but the unused embedding rows, and one more KV entry a layer than it writes.
    let weights = lab.setup.model.weight_bytes(32);
    assert!(ledger.done.bytes > 2 * u128::from(weights) * 95 / 100, "{} of {weights}", ledger.done.bytes);
}

/// A trace of requests whose tokens each take one of these routes.
fn routed(
    header: Header,
    routes: &[Route],
    requests: &[(u32, u32)],
    pick: impl Fn(u32, u32) -> usize,
) -> Trace {
    let mut table = RouteTable::default();
    let ids: Vec<u32> = routes.iter().map(|route| table.intern(route.clone())).collect();
    let requests = requests.iter().enumerate().map(|(id, &(prompt, output))| {
        let of = |from: u32, to: u32| (from..to).map(|position| ids[pick(id as u32, position)]).collect();
        let run = |start, end, phase| radialsim::trace::Run {
            start,
            phase,
            role: Role::Plain,
            routes: of(start, end),
            accepted: Vec::new(),
        };
        let mut runs = vec![run(0, prompt, Phase::Prefill)];
        if output > 1 {
            runs.push(run(prompt, prompt + output - 1, Phase::Decode));
        }
        radialsim::trace::Request {
            id: id as u64,
            arrival: SimTime::from_us(50.0 * id as f64),
            prompt_tokens: prompt,
            output_tokens: output,
            priority: 0,
            prefix: Vec::new(),
            runs,
        }
    });
    Trace { header, requests: requests.collect(), routes: table }
}

fn subset() -> impl Strategy<Value = Route> {
    proptest::collection::vec(any::<bool>(), 30).prop_map(|taken| {
        Route::of_layers(taken.iter().enumerate().filter(|(_, taken)| **taken).map(|(layer, _)| layer as u32))
    })
}

fn header() -> Header {
    Header { router: Router::costless(RouterKind::OracleThreshold), ..Header::dense("smollm2-135m", 30) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Conservation (work planned = work done, bytes taken = given back, tokens in = out, busy <= makespan, critical path
    /// <= makespan) is asserted inside every run; here it meets random routes under every policy, and the explanation of
    /// the saving adds up to the last picosecond.
    #[test]
    fn random_routes_conserve_and_the_explanation_adds_up(
        routes in proptest::collection::vec(subset(), 1..6),
        requests in proptest::collection::vec((1u32..40, 1u32..10), 1..8),
        salt in 0u32..1000,
        kv in 0usize..5,
        eager in any::<bool>(),
    ) {
        use radialsim::trace::KvAction::*;
        let kv = [Write, ProjectOnly, CopyState, Share, None][kv];
        let count = routes.len();
        let trace = routed(Header { kv, ..header() }, &routes, &requests, |id, position| {
            (id.wrapping_mul(7919) ^ position.wrapping_mul(104_729) ^ salt) as usize % count
        });
        let queued = Policy::Queued { full: 3, wait_us: 400.0, hold: Hold::Always };
        for policy in STEPS.into_iter().chain([queued]) {
            let mut lab = Lab::new("smollm2-135m", H100, 4).policy(policy);
            lab.setup.explain = true;
            lab.setup.dispatch.capture = if eager { vec![] } else { vec![1, 2, 4] };
            let ledger = run(&lab.setup, &trace, &mut Silent).unwrap();
            let tokens: u64 = requests.iter().map(|&(prompt, output)| u64::from(prompt + output - 1)).sum();
            prop_assert_eq!(ledger.routed_tokens, tokens);
            let losses = ledger.losses.unwrap();
            let lost = losses.union + losses.fragmentation + losses.kv + losses.router + losses.moves + losses.launch
                + losses.waiting + losses.other;
            prop_assert_eq!(losses.dense - ledger.pass_ps as i128, losses.saving - lost, "{:?}", policy);
            lab.summary(&ledger);
        }
    }

    /// More is never faster: one more layer in a route, a longer prompt, a longer generation.
    #[test]
    fn time_never_falls_when_tokens_or_layers_grow(
        route in subset(), layer in 0u32..30, prompt in 1u32..60, output in 1u32..12, requests in 1usize..5,
    ) {
        let mut more: Vec<u32> = route.0.iter().map(|step| step.layer).chain([layer]).collect();
        more.sort_unstable();
        more.dedup();
        let lab = Lab::new("smollm2-135m", H100, 8);
        let time = |route: Route, prompt: u32, output: u32| {
            let trace = routed(header(), &[route], &vec![(prompt, output); requests], |_, _| 0);
            let mut trace = trace;
            trace.requests.iter_mut().for_each(|request| request.arrival = SimTime::ZERO);
            run(&lab.setup, &trace, &mut Silent).unwrap().makespan
        };
        let base = time(route.clone(), prompt, output);
        prop_assert!(time(Route::of_layers(more), prompt, output) >= base);
        prop_assert!(time(route.clone(), prompt + 1, output) >= base);
        prop_assert!(time(route, prompt, output + 1) > base);
    }

    /// More capacity is never slower on the same schedule: bandwidth, flops, cache; cheaper launches.
    #[test]
    fn time_never_grows_with_capacity(routes in proptest::collection::vec(subset(), 1..4), factor in 1.0f64..4.0) {
        let count = routes.len();
        let trace = routed(header(), &routes, &[(20, 6); 4], |id, position| (id + position) as usize % count);
        let mut trace = trace;
        trace.requests.iter_mut().for_each(|request| request.arrival = SimTime::ZERO);
        let base = Lab::new("smollm2-135m", H100, 4);
        let before = run(&base.setup, &trace, &mut Silent).unwrap().makespan;
        let grow: [fn(&mut radialsim::hw::Hardware, f64); 4] = [
            |hw, by| hw.memory.dram_gb_per_s.value *= by,
            |hw, by| hw.compute.matrix_f16_tflops.value *= by,
            |hw, by| hw.memory.l2_gb_per_s.value *= by,
            |hw, by| hw.launch.kernel_us.value /= by,
        ];
        for grow in grow {
            let mut lab = Lab::new("smollm2-135m", H100, 4);
            grow(&mut lab.setup.hardware, factor);
            prop_assert!(run(&lab.setup, &trace, &mut Silent).unwrap().makespan <= before);
        }
    }
}

/// Routers of kind `none`, `fixed` and `oracle_threshold` cost nothing; any other does.
#[test]
fn only_real_routers_cost() {
    let plan = |kind| RouterPlan::new(&Router::costless(kind), &header(), false);
    for kind in [RouterKind::None, RouterKind::Fixed, RouterKind::OracleThreshold] {
        assert_eq!(plan(kind), RouterPlan::FREE);
    }
    for kind in [RouterKind::Threshold, RouterKind::Mlp, RouterKind::ExpertChoice] {
        assert!(plan(kind).when.is_some());
    }
}
