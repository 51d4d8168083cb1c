//! How many engines a variant has, and how requests come to them.

use super::{Note, ParallelSpec, Scenario, Variant};
use crate::error::{InputError, Result};
use crate::sim::fleet::{Fleet, Router};

/// Engines of a variant, at most.
const MOST_REPLICAS: u32 = 4096;

impl Scenario {
    /// What of `parallel` counts for a variant, and its key.
    pub(super) fn parallel_of<'a>(&'a self, variant: &'a Variant) -> Option<(&'a ParallelSpec, String)> {
        match (&variant.parallel, &self.parallel) {
            (Some(own), _) => Some((own, format!("variants.{}.parallel", variant.name))),
            (None, Some(of_all)) => Some((of_all, "parallel".to_owned())),
            (None, None) => None,
        }
    }

    /// The engines of a variant.
    ///
    /// # Errors
    /// A number out of range, a router that needs what the scenario does not have.
    pub(super) fn fleet(&self, variant: &Variant, notes: &mut Vec<Note>) -> Result<Fleet> {
        let Some((spec, of)) = self.parallel_of(variant) else { return Ok(Fleet::ALONE) };
        let (replicas, router) = (spec.replicas, spec.router);
        if !(1..=MOST_REPLICAS).contains(&replicas) {
            let error = InputError::expected(format!("1 to {MOST_REPLICAS} engines"));
            return Err(error.key(format!("{of}.replicas")).found(replicas).into());
        }
        if replicas == 1 {
            return Ok(Fleet::ALONE);
        }
        if router == Router::Prefix && self.serving.prefix_caching.is_none() {
            let expected = "serving.prefix_caching, as this router asks who keeps the prefix of a prompt; or another router";
            return Err(InputError::expected(expected)
                .key(format!("{of}.router"))
                .found(router.name())
                .into());
        }
        let why = "requests reach the chosen engine at once, and choosing takes no time";
        notes.push(Note::new(format!("{of}: time of the router"), "0", why));
        if router.looks() {
            let why = "the router knows the engines as they are at that instant; real ones hear of them late";
            notes.push(Note::new(format!("{of}.router"), router.name(), why));
        }
        Ok(Fleet { replicas, router, seed: self.seed })
    }
}
