//! Runs a pass whose routes are known.

use super::executor::{Executor, Recorded};
use super::ledger::Ledger;
use super::pass::Work;
use super::pass_io::{Chosen, Pass, PassOutcome};
use super::plan::{Plan, View};
use crate::error::Result;

impl Executor {
    /// Runs a pass to its end.
    ///
    /// # Errors
    /// Routes that cannot be executed, more tokens than a pass holds, ids outside of the vocabulary, and what the device
    /// refuses; logits that are not finite, with the layer where such numbers began.
    pub fn run(&mut self, pass: &Pass) -> Result<PassOutcome> {
        self.check(pass)?;
        let (outcome, ledger) = self.run_once(pass)?;
        if outcome.chosen.iter().any(Chosen::odd) {
            return Err(self.not_finite(pass, &outcome.chosen, |exec| exec.run_once(pass).map(drop)));
        }
        self.ledger = ledger;
        Ok(outcome)
    }

    /// Returns the ledger as it is behind the pass, too.
    fn run_once(&mut self, pass: &Pass) -> Result<(PassOutcome, Option<Ledger>)> {
        let begin = std::time::Instant::now();
        let mut ledger = self.ledger.clone();
        let view = View {
            batch: pass.batch,
            paths: pass.paths,
            contexts: pass.contexts,
            starts: pass.starts,
            policy: pass.policy,
            monotone: pass.monotone,
            model: &self.model,
            cache: &self.cache,
        };
        let plan = Plan::new(&view, ledger.as_mut())?;
        let (places, rows) =
            (ledger.as_ref().map_or(0, Ledger::places), plan.beside(self.options.pass_tokens));
        self.states.make_room(&self.gpu, &self.model, places, rows)?;
        let mut rows = 0;
        let recorded = self.recorded(|exec, ops| {
            rows = Work::new(exec, pass, ops).record(&plan)?;
            Ok(())
        })?;
        let timing = self.submit(&recorded, pass.timed && !self.looking)?;
        let Recorded { recording, kernels, .. } = recorded;
        let chosen = self.chosen(rows)?;
        let count =
            if pass.oracle.is_some() { pass.tokens.len() * 2 * self.model.layers as usize } else { 0 };
        let records = self.gpu.read(&self.buffers.records, count)?;
        let dispatches = recording.dispatches.len() as u32;
        let host_s = begin.elapsed().as_secs_f64();
        Ok((PassOutcome { chosen, records, kernels, timing, dispatches, host_s }, ledger))
    }
}
