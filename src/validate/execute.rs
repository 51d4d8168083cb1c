//! The executed side: a case on the adapter, with a time for every kernel.

use super::{PassTimes, RunTimes};
use crate::batch::{Policy, Visibility};
use crate::error::Result;
use crate::gpu::{
    Executor, ExecutorOptions, Generated, GenerationSettings, GenerationWatch, Gpu, Pass, PassOutcome,
    Precision, Prompt, Routing,
};
use crate::lower::{Call, Node};
use crate::model::Model;
use crate::report::timeline::{self, Timeline};
use crate::rng::Stream;
use crate::trace::Trace;
use crate::units::SimTime;
use crate::weights::Checkpoint;

/// What runs.
#[derive(Clone, Debug)]
pub struct ExecutedCase {
    /// Where its routes come from, for tables.
    pub routes: String,
    /// Requests with the route of each token.
    pub trace: Trace,
    /// Who runs together.
    pub policy: Policy,
    /// Who decides in place of the trace, which then says how long requests are and nothing else.
    pub network: Option<Routing>,
}

impl ExecutedCase {
    /// The routes of a trace.
    pub fn replayed(routes: impl Into<String>, trace: Trace, policy: Policy) -> ExecutedCase {
        ExecutedCase { routes: routes.into(), trace, policy, network: None }
    }

    /// What attention sees in a unified cache.
    pub fn visibility(&self) -> Visibility {
        self.network.as_ref().and_then(Routing::visible).unwrap_or_default()
    }

    /// Requests in flight together.
    pub fn batch(&self) -> usize {
        self.trace.requests.len()
    }
}

/// Runs cases of one model on one adapter.
pub struct Bench<'a> {
    checkpoint: &'a Checkpoint,
    adapter: Option<&'a str>,
    precision: Precision,
    /// Memory is sized for a batch, so that an executor serves cases of one size.
    executor: Option<(Size, Executor)>,
}

/// Tokens of the largest pass, rows of the head, longest sequence.
type Size = (u32, u32, u32);

/// Seed of the tokens of prompts; which tokens they are changes no time.
const SEED: u64 = 1;

impl<'a> Bench<'a> {
    /// Of this model.
    pub fn new(checkpoint: &'a Checkpoint, adapter: Option<&'a str>, precision: Precision) -> Bench<'a> {
        Bench { checkpoint, adapter, precision, executor: None }
    }

    /// The model as it lies on the device, and the most tokens of a pass.
    pub fn described(&self) -> Option<(&Model, u32)> {
        self.executor.as_ref().map(|(_, executor)| (executor.model(), executor.pass_tokens()))
    }

    /// Runs a case, every request at once. Returns its times and the trace that it left.
    ///
    /// # Errors
    /// Routes that cannot be executed, and what the device refuses.
    pub fn run(&mut self, case: &ExecutedCase) -> Result<(RunTimes, Trace)> {
        let tokens: u32 = case.trace.requests.iter().map(|request| request.prompt_tokens).sum();
        let longest = case.trace.requests.iter().map(|request| request.prompt_tokens + request.output_tokens);
        let wanted = (tokens, case.batch() as u32, longest.max().unwrap_or(1));
        if self.executor.as_ref().is_none_or(|(known, _)| *known != wanted) {
            self.executor = None;
            let options = ExecutorOptions {
                precision: self.precision,
                pass_tokens: tokens,
                logit_rows: Some(wanted.1),
                positions: wanted.2,
                ..ExecutorOptions::default()
            };
            let executor = Executor::new(Gpu::open(self.adapter)?, self.checkpoint, options)?;
            self.executor = Some((wanted, executor));
            // Pipelines are made when they are first used.
            self.run(case)?;
        }
        let (_, executor) = self.executor.as_mut().expect("it was made above");
        let vocabulary = executor.model().outputs;
        let mut random = Stream::new(SEED, "prompts");
        let prompts: Vec<Prompt> = (case.trace.requests.iter())
            .map(|request| Prompt {
                ids: (0..request.prompt_tokens).map(|_| random.below(vocabulary) as u32).collect(),
                most: request.output_tokens,
            })
            .collect();
        let settings = GenerationSettings {
            routing: match &case.network {
                Some(network) => network.clone(),
                None => Routing::Replay(Box::new(case.trace.clone())),
            },
            policy: case.policy,
            visibility: case.visibility(),
            sampling: None,
            end_ids: Vec::new(),
            prompt_logits: false,
            timed: true,
        };
        let mut watcher = Watcher {
            passes: Vec::new(),
            now: SimTime::ZERO,
            timeline: Timeline::measured(timeline::MOST_KERNELS),
        };
        let Generated { trace, .. } = executor.generate(&prompts, &settings, &mut watcher)?;
        let memory_bytes = executor.held_bytes();
        let Watcher { passes, timeline, .. } = watcher;
        Ok((RunTimes { passes, memory_bytes, extrapolated: 0.0, timeline }, trace))
    }
}

struct Watcher {
    passes: Vec<PassTimes>,
    /// End of the last pass, passes put one behind the other.
    now: SimTime,
    timeline: Timeline,
}

impl GenerationWatch for Watcher {
    fn pass(&mut self, pass: &Pass, outcome: &PassOutcome, rows: &[(usize, u32, bool)]) -> Result<()> {
        let times = &outcome.timing.kernels_ns;
        let seconds = outcome.host_s;
        let mut of_pass = PassTimes {
            prompt: rows.iter().any(|row| row.2),
            tokens: rows.len() as u32,
            seconds,
            ..PassTimes::default()
        };
        let begin = self.now;
        self.now = begin + SimTime::from_s(seconds);
        let origin = times.first().map_or(0, |&(start, _)| start);
        let at = |ns: u64| begin + SimTime::from_ps(ns.saturating_sub(origin) * 1000);
        for done in &outcome.kernels {
            let some = times.get(done.first as usize..(done.first + done.count) as usize);
            let Some((&(first, _), &(_, last))) = some.and_then(|some| some.first().zip(some.last())) else {
                continue;
            };
            let sum = of_pass.kernels.entry(done.kernel.name()).or_default();
            sum.0 += 1;
            sum.1 += (last - first) as f64 * 1e-9;
            let node = Node::Kernel { kernel: done.kernel, captured: false };
            self.timeline.ran(Call { node, cause: done.cause, layer: done.layer }, at(first), at(last));
        }
        let sequences = pass.batch.spans.len() as u32;
        self.timeline.passed([begin, self.now], rows.len() as u32, sequences, 0);
        self.passes.push(of_pass);
        Ok(())
    }
}
