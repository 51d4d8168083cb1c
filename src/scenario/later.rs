//! Which variants draw the routes of a request when it begins, rather than all before the run.

use super::build::Built;
use super::{Scenario, Variant};
use crate::batch::{Decisions, Policy};
use crate::error::Result;
use crate::lower::Lowering;

impl Scenario {
    /// Whether nothing that the variant asks for looks at all routes before the run.
    pub(super) fn may_wait(&self, variant: &Variant) -> bool {
        let decisions = variant.decisions.or(self.dispatch.decisions).unwrap_or(Decisions::Known);
        let seen = matches!(decisions, Decisions::Known | Decisions::ReadBack | Decisions::Prefetch { .. });
        let policy = variant.policy.unwrap_or(self.dispatch.policy);
        seen && policy == Policy::Aligned && variant.tiers.is_none() && self.tiers.is_none()
    }
}

impl Built {
    /// The same with all routes drawn, if its passes are not lowered from sets of branches.
    ///
    /// # Errors
    /// Those of drawing.
    pub(super) fn settled(self) -> Result<Built> {
        let waits = self.later.is_some();
        let sets = || Lowering::new(&self.setup.model, self.setup.dispatch.clone()).takes_sets();
        if waits && !sets() { self.with_all_routes() } else { Ok(self) }
    }

    /// The same with all routes in its trace.
    ///
    /// # Errors
    /// Those of drawing.
    pub fn with_all_routes(self) -> Result<Built> {
        let Some(later) = &self.later else { return Ok(self) };
        Ok(Built { trace: later.whole(&self.trace)?, later: None, ..self })
    }
}
