//! Which variants draw the routes of a request when it begins, rather than all before the run.

use super::build::Built;
use super::{PlacementSpec, Scenario, Variant};
use crate::batch::Decisions;
use crate::cost::Device;
use crate::error::{InputError, Result};
use crate::metrics::Ledger;
use crate::sim::Observer;
use crate::sim::fleet::{self, Fleet};

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
    /// Runs it, with the routes that it has or as they are drawn, each engine on a device that was made of its profile and limits. One
    /// observer for each engine watches; `side_by_side`: on all threads of the pool, where they do not depend on each other.
    ///
    /// # Errors
    /// Those of [`crate::sim::run`].
    pub fn run_on<O: Observer + Send>(
        &self,
        device: &Device,
        observers: &mut [O],
        side_by_side: bool,
    ) -> Result<Ledger> {
        let routes = (&self.trace, self.later.as_ref());
        let mut ledgers = fleet::run(device, &self.setup, routes, &self.fleet, observers, side_by_side)?;
        let decode = ledgers.split_off(self.fleet.replicas as usize);
        Ok(Ledger::of_parts(ledgers, decode))
    }

    /// The same on a device of its own, where it has one engine.
    ///
    /// # Errors
    /// Those of [`crate::sim::run`], and several engines, which one observer cannot watch.
    pub fn run(&self, observer: &mut (impl Observer + Send)) -> Result<Ledger> {
        if self.fleet != Fleet::ALONE {
            let what = "one engine, which is watched alone";
            let error = InputError::expected(what).key(format!("variants.{}.parallel.replicas", self.name));
            return Err(error.found(self.fleet.engines()).into());
        }
        self.run_on(&self.setup.device()?, std::slice::from_mut(observer), false)
    }

    /// The same with all routes in its trace.
    ///
    /// # Errors
    /// Those of drawing.
    pub fn with_all_routes(self) -> Result<Built> {
        let Some(later) = &self.later else { return Ok(self) };
        Ok(Built { trace: later.drawn(&self.trace)?, later: None, ..self })
    }
}
