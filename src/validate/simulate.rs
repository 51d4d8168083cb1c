//! The simulated side: the same case, priced with a profile.

use super::{ExecutedCase, PassTimes, RunTimes};
use crate::cost::{Limits, Price};
use crate::engine::Ended;
use crate::error::Result;
use crate::hw::Hardware;
use crate::lower::{Call, Dispatch, Node, RouterPlan};
use crate::model::Model;
use crate::report::timeline::{self, Timeline};
use crate::sched::Serving;
use crate::sim::{self, Fidelity, Observer, PassInfo, Setup};
use crate::trace::{Phase, Trace};
use crate::units::SourceKind;

/// Simulates the trace that a case left, its requests all there from the start, in passes of at most `pass_tokens` tokens.
///
/// # Errors
/// What a simulation refuses.
pub fn simulate(
    model: &Model,
    hardware: &Hardware,
    trace: &Trace,
    case: &ExecutedCase,
    pass_tokens: u32,
) -> Result<RunTimes> {
    let header = &trace.header;
    let of_trace = Dispatch::of_trace(case.policy, trace);
    let dispatch = Dispatch {
        visibility: case.visibility(),
        nested_width: false,
        // Where routes are replayed, nobody decides.
        router: match case.network {
            Some(_) => RouterPlan::new(&header.router, header, false),
            None => RouterPlan::FREE,
        },
        monotone: of_trace.monotone && !header.reuse,
        ..of_trace
    };
    let serving = Serving {
        // An entry is a block: the executor keeps rows, not blocks.
        kv_block_tokens: 1,
        watermark: 0.0,
        ..Serving::new(pass_tokens.max(1), (trace.requests.len() as u32).min(pass_tokens.max(1)), true)
    };
    let setup = Setup {
        ranks: None,
        placed: None,
        model: model.clone(),
        hardware: hardware.clone(),
        limits: Limits::default(),
        experts: crate::batch::ExpertUse::default(),
        clients: None,
        sessions: None,
        serving,
        dispatch,
        tiers: None,
        fidelity: Fidelity::Kernel,
        explain: false,
        against: None,
    };
    let watcher = Watcher { open: PassTimes::default(), passes: Vec::new(), trace };
    let mut both = (watcher, Timeline::new(&setup, timeline::MOST_KERNELS));
    let ledger = sim::run(&setup, trace, &mut both)?;
    let (Watcher { passes, .. }, timeline) = both;
    let extrapolated = ledger.source_share(SourceKind::Extrapolated);
    // The executor holds room for the most entries and the largest pass from the start.
    let memory = &ledger.memory;
    let memory_bytes = memory.weights + memory.kv_peak + memory.activations_peak;
    Ok(RunTimes { passes, memory_bytes, extrapolated, timeline })
}

struct Watcher<'a> {
    open: PassTimes,
    passes: Vec<PassTimes>,
    trace: &'a Trace,
}

impl Observer for Watcher<'_> {
    fn call(&mut self, call: &Call, _: Option<&Price>, ended: &Ended) {
        if let Node::Kernel { kernel, .. } = call.node {
            let sum = self.open.kernels.entry(kernel.name()).or_default();
            sum.0 += 1;
            sum.1 += (ended.end - ended.start).s();
        }
    }

    fn pass(&mut self, info: &PassInfo) {
        let mut done = std::mem::take(&mut self.open);
        done.seconds = (info.end - info.begin).s();
        done.tokens = info.batch.tokens();
        // Prompts are over when the first decode tokens run; until then a pass has tokens of prompts.
        let prompts: u64 = self
            .trace
            .requests
            .iter()
            .flat_map(|request| &request.runs)
            .filter(|run| run.phase == Phase::Prefill)
            .map(|run| run.routes.iter().count() as u64)
            .sum();
        let before: u64 =
            self.passes.iter().filter(|pass| pass.prompt).map(|pass| u64::from(pass.tokens)).sum();
        done.prompt = before < prompts;
        self.passes.push(done);
    }
}
