//! Experts that are known token by token: before a pass, the rows of each expert are counted.

use super::Server;
use crate::batch::Batch;

impl Server<'_> {
    /// What the tokens of `batch` ask of the experts of each layer, where a trace says it.
    pub(super) fn know_experts(&mut self, batch: &Batch) {
        let Some((ids, devices)) = self.lowering.expert_ids() else { return };
        let contexts = self.scheduler.contexts();
        let tokens = batch.spans.iter().map(|span| {
            let request = self.scheduler.sequence(span.sequence).request().id;
            (request, contexts[span.sequence as usize].tokens(), span.tokens)
        });
        let loads = ids.loads(tokens, devices);
        self.lowering.set_loads(loads);
    }
}
