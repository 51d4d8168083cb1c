//! Which variants draw the routes of a request when it begins, rather than all before the run.

use super::build::Built;
use super::{PlacementSpec, Scenario, Variant};
use crate::batch::Decisions;
use crate::cost::Device;
use crate::error::Result;
use crate::metrics::Ledger;
use crate::sim::{self, Observer};

impl Scenario {
    /// Whether nothing that the variant asks for looks at all routes before the run.
    pub(super) fn may_wait(&self, variant: &Variant) -> bool {
        let decisions = variant.decisions.or(self.dispatch.decisions).unwrap_or(Decisions::Known);
        let seen = matches!(decisions, Decisions::Known | Decisions::ReadBack | Decisions::Prefetch { .. });
        // A cut is learned from routes.
        let cut = matches!(self.split_of(variant).spec.placement, Some(PlacementSpec::Cut { .. }));
        seen && !cut && variant.tiers.is_none() && self.tiers.is_none()
    }
}

impl Built {
    /// Runs it, with the routes that it has or as they are drawn, on a device that was made of its profile and limits.
    ///
    /// # Errors
    /// Those of [`sim::run`].
    pub fn run_on(&self, device: Device, observer: &mut impl Observer) -> Result<Ledger> {
        match &self.later {
            Some(later) => sim::run_later(device, &self.setup, (&self.trace, later), observer),
            None => sim::run_on(device, &self.setup, &self.trace, observer),
        }
    }

    /// The same on a device of its own.
    ///
    /// # Errors
    /// Those of [`sim::run`].
    pub fn run(&self, observer: &mut impl Observer) -> Result<Ledger> {
        self.run_on(self.setup.device()?, observer)
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
