//! A pass as one event against every kernel as an event: `Lab::run` compares the two in each of its runs; here the runs are
//! drawn at random.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Hold, Policy};
use radialsim::hw::Submit;

const METHODS: [&str; 9] = [
    "Dense",
    "StaticDepth(keep: DropMiddle(depth: 20))",
    "EarlyExit(exits: Each([(8, 0.5), (32, 0.5)]), kv: copy_state, router: (hidden: 64, device: host))",
    "EarlyExit(exits: Each([(8, 0.3), (32, 0.7)]), kv: deferred, dense_prefill: true)",
    "MixtureOfDepths(capacity: 0.25, routed: EveryOther, window: 4)",
    "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only, router: (hidden: 64))",
    "CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: none)",
    "Radial(transitions: Uniform, start: Uniform, hops: Fixed(12), router: (hidden: 32, device: host))",
    "DraftVerify(exit_layer: 6, drafts: 3, acceptance: 0.6)",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_pass_in_one_event_equals_its_kernels_one_by_one(
        which in 0..METHODS.len(), policy in 0..5_usize, batch in 1..7_u32, count in 1..9_u32, prompt in 1..60_u32,
        output in 1..8_u32, budget in 8..80_u32, captured in any::<bool>(), explain in any::<bool>(), recorded in any::<bool>(), seed in any::<u64>(),
    ) {
        let text = METHODS[which];
        let mut policy = [
            Policy::DenseMasked, Policy::Aligned, Policy::Hop, Policy::Grouped, Policy::Queued { full: 3, wait_us: 800.0, hold: Hold::IfProfitable },
        ][policy];
        if text.starts_with("Radial") && policy == Policy::Aligned {
            policy = Policy::Hop;
        }
        let mut lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", batch).policy(policy);
        lab.setup.serving.max_batched_tokens = budget;
        lab.setup.dispatch.capture = if captured { vec![1, 2, 4, 8] } else { Vec::new() };
        lab.setup.explain = explain;
        lab.setup.hardware.launch.submit = if recorded { Submit::Recorded } else { Submit::Eager };
        let ledger = lab.run(&lab.trace(&method(text), count, prompt, output, seed));
        prop_assert_eq!(ledger.output_tokens, u64::from(count * output));
    }
}

/// The host decides before each hop and launches one graph for the rest; both groups of the hop are in this graph, so neither
/// starts before the decision (`Lab::run` compares with the sums, in which nothing can).
#[test]
fn every_group_of_a_hop_waits_for_the_decision_before_it() {
    let mut lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", 2).policy(Policy::DenseMasked);
    lab.setup.dispatch.capture = vec![1, 2];
    let ledger = lab.run(&lab.trace(&method(METHODS[7]), 2, 1, 2, 0));
    assert_eq!(ledger.output_tokens, 4);
}

/// Kernels that are recorded first and submitted together run as if they were launched for nothing, behind all of their recording.
#[test]
fn recorded_launches_come_before_the_pass() {
    for which in [0, 5] {
        let mut lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", 3);
        let trace = lab.trace(&method(METHODS[which]), 3, 5, 4, 1);
        let kernel = lab.setup.hardware.launch.kernel_us.value;
        lab.setup.hardware.launch.submit = Submit::Recorded;
        let recorded = lab.run(&trace);
        lab.setup.hardware.launch.submit = Submit::Eager;
        let eager = lab.run(&trace);
        lab.setup.hardware.launch.kernel_us.value = 0.0;
        let free = lab.run(&trace);
        let launches = (kernel * 1e6) as u128 * u128::from(recorded.done.kernels);
        assert_eq!(recorded.pass_ps, free.pass_ps + launches);
        assert!(recorded.pass_ps > eager.pass_ps, "the host runs ahead where it may");
    }
}
