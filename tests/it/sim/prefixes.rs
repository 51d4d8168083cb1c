//! Shared prefixes: what is found, what it saves, and that nothing is lost when memory is short.

use crate::lab::method;
use crate::sim::serving::{METHODS, spaced, tight, tight_for};
use proptest::prelude::*;
use radialsim::metrics::Ledger;
use radialsim::sched::{Preemption, PrefixCaching, Serving};
use radialsim::trace::Trace;
use std::collections::BTreeSet;

/// Tokens of a prompt block.
const BLOCK: u32 = 4;

/// Prompts out of a tree: from each block on, two ways. A hash stands for the block and all before it.
fn prefix(ways: u32, blocks: u32) -> Vec<u64> {
    (1..=blocks).map(|depth| u64::from(depth) << 32 | u64::from(ways & ((1 << depth) - 1))).collect()
}

fn with_prefixes(mut trace: Trace, ways: &[u32]) -> Trace {
    for (request, &ways) in trace.requests.iter_mut().zip(ways.iter().cycle()) {
        request.prefix = prefix(ways, request.prompt_tokens.div_ceil(BLOCK));
    }
    trace
}

fn caching(serving: Serving) -> Serving {
    Serving { prefix_caching: Some(PrefixCaching { block_tokens: BLOCK }), ..serving }
}

/// Prompt tokens found by requests that come one after the other, with room for everything.
fn naive(trace: &Trace) -> u64 {
    let mut kept = BTreeSet::<u64>::new();
    let mut found = 0;
    for request in &trace.requests {
        let usable = ((request.prompt_tokens - 1) / BLOCK) as usize;
        let known = request.prefix.iter().take(usable).take_while(|hash| kept.contains(*hash)).count();
        found += known as u64 * u64::from(BLOCK);
        kept.extend(request.prefix.iter().take((request.prompt_tokens / BLOCK) as usize));
    }
    found
}

fn prompts(ledger: &Ledger) -> u64 {
    ledger.requests.iter().map(|request| u64::from(request.prompt_tokens)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn with_room_everything_that_came_before_is_found(
        which in 0..METHODS.len() - 1, ways in prop::collection::vec(0..64_u32, 1..8), count in 1..12_u32,
        prompt in 1..30_u32, budget in 4..40_u32,
    ) {
        let mut lab = tight(caching(Serving::new(budget, 2, true)), 100_000);
        lab.setup.serving.kv_block_tokens = 2;
        let trace = with_prefixes(spaced(lab.trace(&method(METHODS[which]), count, prompt, 3, 1), 1e6), &ways);
        let ledger = lab.run(&trace);
        prop_assert_eq!(ledger.cached_tokens, naive(&trace));
        prop_assert_eq!(ledger.prompt_tokens + ledger.cached_tokens, prompts(&ledger));
        prop_assert_eq!(ledger.recomputed_tokens, 0);
    }

    /// Memory for little more than one request: blocks give way, sequences are preempted, and every request ends.
    #[test]
    fn tight_memory_evicts_and_never_loses(
        which in 0..METHODS.len(), ways in prop::collection::vec(0..16_u32, 1..8), room in 40..90_u64, batch in 1..6_u32,
        count in 1..14_u32, prompt in 1..24_u32, output in 1..12_u32, budget in 8..40_u32, block in 0..3_u32, gap in 0..3_u32,
        swap in any::<bool>(),
    ) {
        let mut lab = tight_for(METHODS[which], caching(Serving::new(budget.max(batch), batch, true)), room * 32 * 2);
        lab.setup.serving.kv_block_tokens = 1 << block;
        if swap {
            lab.setup.serving.preemption = Preemption::Swap { host_gb: 0.2 };
        }
        let trace = lab.trace(&method(METHODS[which]), count, prompt, output, 3);
        let trace = with_prefixes(spaced(trace, f64::from(gap) * 20_000.0), &ways);
        let ledger = lab.run(&trace);
        prop_assert_eq!(ledger.requests.len() as u32, count);
        prop_assert_eq!(ledger.output_tokens, u64::from(count * output));
        prop_assert_eq!(ledger.prompt_tokens + ledger.cached_tokens, prompts(&ledger));
        prop_assert!(ledger.kv.peak_blocks <= ledger.kv.blocks);
    }
}

#[test]
fn a_prompt_that_is_known_answers_sooner() {
    let mut lab = tight(caching(Serving::new(2048, 4, true)), 4_000_000);
    lab.setup.serving.prefix_caching = Some(PrefixCaching { block_tokens: 512 });
    let mut trace = spaced(lab.trace(&method("Dense"), 3, 4096, 8, 1), 3e6);
    for request in &mut trace.requests {
        request.prefix = (0..8).collect();
    }
    trace.requests[2].prefix = (100..108).collect();
    let ledger = lab.run(&trace);
    let ttft: Vec<f64> = ledger.requests.iter().map(|one| (one.first - one.arrival).s()).collect();
    let cached: Vec<u32> = ledger.requests.iter().map(|one| one.cached_tokens).collect();
    assert_eq!(cached, [0, 7 * 512, 0], "all but the block of the last token");
    assert!(ttft[1] < 0.3 * ttft[0] && (ttft[2] / ttft[0] - 1.0).abs() < 1e-9, "{ttft:?}");
    lab.setup.serving.prefix_caching = None;
    assert_eq!(lab.run(&trace).cached_tokens, 0, "only where it is asked for");
}
