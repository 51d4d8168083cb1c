//! Sequences that generate in lockstep, counted in groups, against every sequence listed in every pass.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Hold, Policy};
use radialsim::cost::Device;
use radialsim::hw::Hardware;
use radialsim::metrics::{Gap, Ledger};
use radialsim::sched::{Admission, First, Preemption, PrefixCaching};
use radialsim::sim::{Fidelity, Silent, run, run_later, run_listed};
use radialsim::trace::synth::{Later, generate};
use radialsim::trace::{Request, Stats, Trace};
use radialsim::workload::{Arrivals, Length, Lengths, requests};

const METHODS: [&str; 7] = [
    "Dense",
    "StaticDepth(keep: DropMiddle(depth: 20))",
    "EarlyExit(exits: Each([(8, 0.3), (30, 0.7)]), kv: project_only, dense_prefill: true)",
    "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only)",
    "Recursion(prefix: 2, suffix: 2, times: Fixed(2), kv: Own)",
    "CorrelatedSkips(skip: 0.25, correlation: 1.0, share: All, branches: Jointly, kv: none)",
    "DraftVerify(exit_layer: 6, drafts: 3, acceptance: 0.6)",
];

/// Gaps of passes in the order of time; within a pass, groups come before those who are listed.
fn gaps(ledger: &Ledger) -> Vec<(u64, u64, u32)> {
    let mut gaps: Vec<_> =
        ledger.gaps.iter().map(|gap: &Gap| (gap.end.ps(), gap.length.ps(), gap.count)).collect();
    gaps.sort_unstable();
    gaps.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .map(|alike| (alike[0].0, alike[0].1, alike.iter().map(|gap| gap.2).sum()))
        .collect()
}

fn same(groups: &Ledger, listed: &Ledger) {
    let key = |ledger: &Ledger| {
        let mut requests = ledger.requests.clone();
        // What did not go evenly into the tokens is with whoever ends last.
        if let Some(last) = requests.last_mut() {
            last.energy_pj = 0;
        }
        requests.sort_by_key(|request| request.id);
        requests
    };
    assert_eq!(key(groups), key(listed));
    assert_eq!(gaps(groups), gaps(listed));
    assert_eq!((groups.makespan, groups.passes), (listed.makespan, listed.passes));
    assert_eq!((groups.busy_ps, groups.dynamic_pj), (listed.busy_ps, listed.dynamic_pj));
    assert_eq!((groups.kv, groups.memory), (listed.kv, listed.memory));
    assert_eq!((groups.prefill, groups.decode), (listed.prefill, listed.decode));
    assert_eq!((groups.waiting_ps, groups.running_ps), (listed.waiting_ps, listed.running_ps));
    assert_eq!((groups.routed_tokens, groups.half_depths), (listed.routed_tokens, listed.half_depths));
    assert_eq!((groups.layer_visits, groups.union_bytes), (listed.layer_visits, listed.union_bytes));
    assert_eq!((groups.preemptions, groups.swapped_bytes), (listed.preemptions, listed.swapped_bytes));
    assert_eq!(groups.losses, listed.losses);
}

/// A server and who comes to it, drawn at random.
#[derive(Clone, Debug)]
struct Case {
    policy: usize,
    batch: (u32, u32),
    load: (u32, f64),
    lengths: (u32, u32),
    blocks: (u32, u32),
    flags: [bool; 7],
    admission: usize,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let numbers = (0..4_usize, (1..9_u32, 6..60_u32), (1..12_u32, 1.0..400.0), (1..50_u32, 1..40_u32));
    let more = ((0..5_u32, 0..40_u32), any::<[bool; 7]>(), 0..3_usize, any::<u64>());
    (numbers, more).prop_map(|((policy, batch, load, lengths), (blocks, flags, admission, seed))| Case {
        policy,
        batch,
        load,
        lengths,
        blocks,
        flags,
        admission,
        seed,
    })
}

impl Case {
    fn lab(&self, any_order: bool) -> Lab {
        let [captured, explain, uneven, prefill_first, chunked, shared, swaps] = self.flags;
        let device = if uneven { "nvidia-rtx-4090" } else { "nvidia-h100-sxm" };
        let mut policy = [Policy::DenseMasked, Policy::Aligned, Policy::Hop, Policy::Grouped][self.policy];
        if any_order && policy == Policy::Aligned {
            policy = Policy::Hop;
        }
        let ((batch, budget), (prompt, output)) = (self.batch, self.lengths);
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", batch).policy(policy);
        lab.setup.hardware = Hardware::shipped(device).expect("a shipped device");
        lab.setup.fidelity = Fidelity::Step;
        lab.setup.explain = explain;
        lab.setup.dispatch.capture = if captured { vec![1, 2, 4, 8] } else { Vec::new() };
        lab.setup.dispatch.monotone = !any_order;
        let serving = &mut lab.setup.serving;
        serving.max_batched_tokens = if chunked { budget } else { budget.max(60) };
        serving.chunked_prefill = chunked;
        serving.first = if prefill_first { First::Prefill } else { First::Decode };
        let (shift, room) = self.blocks;
        serving.kv_block_tokens = 1 << shift;
        // From a request alone to several of them.
        serving.kv_blocks = Some((3 * (prompt + output)).div_ceil(1 << shift) + room + 2);
        serving.admission = [Admission::AsItComes, Admission::Whole, Admission::WholePrompt][self.admission];
        serving.preemption = if swaps { Preemption::Swap { host_gb: 0.001 } } else { Preemption::Recompute };
        serving.prefix_caching = shared.then_some(PrefixCaching { block_tokens: 16 });
        lab
    }

    fn requests(&self) -> Vec<Request> {
        let [.., shared, _] = self.flags;
        let range = |most: u32| Length::Uniform { low: 1, high: most };
        let lengths = Lengths { prompt: range(self.lengths.0), output: range(self.lengths.1) };
        let arrivals = Arrivals::Poisson { rate_per_s: self.load.1 };
        let mut drawn = requests(self.load.0, &lengths, &arrivals, self.seed).expect("valid lengths");
        for request in drawn.iter_mut().filter(|_| shared) {
            request.prefix = (0..u64::from(request.prompt_tokens.div_ceil(16))).collect();
        }
        drawn
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn who_is_counted_runs_as_if_listed(which in 0..METHODS.len(), case in cases()) {
        let lab = case.lab(METHODS[which].starts_with("Recursion"));
        let trace = generate(&method(METHODS[which]), lab.setup.model.layers, case.requests(), case.seed).expect("a valid method");
        let Ok(listed) = run_listed(&lab.setup, &trace) else { return Ok(()) };
        let groups = run(&lab.setup, &trace, &mut Silent).expect("the same fits");
        same(&groups, &listed);
    }

    /// Routes that are drawn when their request begins, and the same routes of a trace, taken as sets of branches where these say all, against
    /// compiled paths one by one.
    #[test]
    fn routes_drawn_late_run_as_if_drawn_before(which in 0..LATE.len(), case in cases()) {
        let sets = LATE[which].contains("project_only");
        let mut lab = case.lab(LATE[which].starts_with("Radial"));
        if sets {
            lab = lab.policy(Policy::Aligned);
        } else if case.seed.is_multiple_of(4) {
            lab = lab.policy(Policy::Queued { full: 4, wait_us: 50.0, hold: Hold::Always });
        }
        if case.policy == 0 {
            lab.setup.fidelity = Fidelity::Kernel;
        }
        let (routes, layers) = (method(LATE[which]), lab.setup.model.layers);
        let Some((trace, later)) = Later::new(&routes, layers, &case.requests(), case.seed).expect("a valid method") else {
            return Ok(());
        };
        let whole = generate(&routes, layers, case.requests(), case.seed).expect("a valid method");
        let mean_depth = Stats::of(&whole).mean_depth;
        prop_assert!((later.mean_depth(&trace.requests) - mean_depth).abs() < 1e-9, "{mean_depth}");
        prop_assert_eq!(&later.drawn(&trace).expect("a valid method"), &whole);
        let Ok(before) = run_listed(&lab.setup, &whole) else { return Ok(()) };
        prop_assert_eq!(later.draws_sets(), sets);
        let recorded = run(&lab.setup, &whole, &mut Silent).expect("the same fits");
        same(&recorded, &before);
        prop_assert_eq!(recorded.by_cause, before.by_cause);
        let device = Device::new(&lab.setup.hardware, lab.setup.limits).expect("valid limits");
        let late = run_later(device, &lab.setup, (&trace, &later), &mut Silent).expect("the same fits");
        same(&late, &before);
        prop_assert_eq!(late.by_cause, before.by_cause);
    }
}

const LATE: [&str; 11] = [
    "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only)",
    "IndependentSkips(skip: 0.9, branches: Jointly, kv: project_only, keep: [0, 29], router: (hidden: 64))",
    "CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: project_only)",
    "CorrelatedSkips(skip: 0.25, correlation: 0.7, share: Position, branches: Separately, kv: project_only)",
    "CorrelatedSkips(skip: 0.5, correlation: 0.6, share: Predecessor, branches: Jointly, kv: project_only, dense_prefill: true)",
    "CorrelatedSkips(skip: 0.1, correlation: 0.3, share: All, branches: Jointly, kv: project_only, router: (hidden: 64, device: host))",
    "IndependentSkips(skip: 0.3, branches: Separately, kv: none)",
    "CorrelatedSkips(skip: 0.4, correlation: 0.5, share: Step, branches: Jointly, kv: copy_state)",
    "MixtureOfDepths(capacity: 0.3, routed: EveryOther, window: 7)",
    "Radial(transitions: Banded(back: 3, ahead: 6), start: Uniform, hops: Each([(5, 0.4), (20, 0.6)]), reuse: true, kv: write)",
    "Radial(transitions: Uniform, start: Layer(0), hops: Fixed(12), reuse: false, kv: none)",
];

/// Of a trace of many routes, paths are compiled while somebody takes them.
#[test]
fn paths_of_a_large_trace_come_and_go() {
    let kinds = [
        "IndependentSkips(skip: 0.3, branches: Separately, kv: none)",
        "IndependentSkips(skip: 0.3, branches: Separately, kv: copy_state)",
        "Radial(transitions: Uniform, start: Uniform, hops: Fixed(9), reuse: true, kv: write)",
    ];
    for kind in kinds {
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 8);
        if kind.starts_with("Radial") {
            (lab.setup.dispatch.policy, lab.setup.dispatch.monotone) = (Policy::Hop, false);
        }
        let trace = lab.trace(&method(kind), 60, 50, 40, 1);
        assert!(trace.routes.len() > 5000, "{} routes", trace.routes.len());
        let listed = run_listed(&lab.setup, &trace).expect("a load that fits");
        same(&run(&lab.setup, &trace, &mut Silent).expect("a load that fits"), &listed);
    }
}

/// Without a limit on the work the law above would hold of a program that never counts: dense passes, and nothing but the lengths differ.
#[test]
fn dense_generation_is_counted() {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 8);
    let trace: Trace = lab.trace(&method("Dense"), 8, 16, 32, 1);
    struct Most(u32);
    impl radialsim::sim::Observer for Most {
        fn pass(&mut self, info: &radialsim::sim::PassInfo) {
            self.0 = self.0.max(info.batch.in_lockstep());
        }
    }
    let mut most = Most(0);
    run(&lab.setup, &trace, &mut most).expect("a load that fits");
    assert_eq!(most.0, 8, "all of them");
}
