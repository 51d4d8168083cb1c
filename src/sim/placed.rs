//! A model whose layers are on several devices: pipeline stages, or a pool that is placed.

use super::Setup;
use crate::batch::{Decisions, Policy};
use crate::cost::Links;
use crate::error::{InputError, Result};
use crate::lower::Layout;
use crate::model::Visibility;
use crate::sched::Preemption;
use crate::trace::{KvAction, Trace};

/// Which device has which layers, what joins the devices, and how many passes are under way at once.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What the placement is called in reports.
    pub name: String,
    /// The device of each layer.
    pub layout: Layout,
    /// What joins them.
    pub links: Links,
    /// Most passes in flight. A sequence is in one of them at most.
    pub in_flight: u32,
    /// Most sequences of a pass; none: as many as budget and blocks allow, as in vLLM.
    pub micro_batch: Option<u32>,
}

impl Placed {
    /// Most sequences of a pass.
    pub(super) fn most_in_pass(&self) -> usize {
        self.micro_batch.map_or(usize::MAX, |most| most as usize)
    }

    /// # Errors
    /// What no run over several devices models, by name.
    pub(super) fn check(&self, setup: &Setup, trace: &Trace) -> Result<()> {
        let refuse = |key: &str, found: &str, expected: &str| -> Result<()> {
            Err(InputError::expected(format!("{expected}, as layers are on several devices"))
                .key(key)
                .found(found)
                .into())
        };
        let (dispatch, header) = (&setup.dispatch, &trace.header);
        if setup.tiers.is_some() {
            return refuse("tiers", "some", "none");
        }
        if let Policy::Queued { .. } = dispatch.policy {
            return refuse("dispatch.policy", "queued", "aligned, hop, grouped or dense_masked");
        }
        if let Preemption::Swap { .. } = setup.serving.preemption {
            return refuse("serving.preemption", "swap", "recompute");
        }
        if self.layout.devices() == 1 {
            return Ok(());
        }
        let does = |action: KvAction| {
            let mut steps = trace.routes.iter().flat_map(|route| &route.0);
            header.kv == action || steps.any(|step| step.kv == Some(action))
        };
        if dispatch.visibility != Visibility::SameLayer || does(KvAction::Unified) {
            let expected = "KV entries that queries of their own layer see: queries would go to entries on other devices";
            return refuse("kv", "a unified cache", expected);
        }
        if does(KvAction::Share) {
            return refuse(
                "kv",
                "share",
                "entries of its own for each layer: those of another layer may lie on another device",
            );
        }
        if setup.model.latent.is_some_and(|latent| latent.indexer.is_some()) {
            return refuse(
                "model",
                &setup.model.name,
                "a model without a small attention that chooses entries",
            );
        }
        let in_order = match dispatch.policy {
            Policy::Aligned => true,
            Policy::DenseMasked => dispatch.in_pool_order(),
            Policy::Hop | Policy::Grouped | Policy::Queued { .. } => false,
        };
        if in_order {
            return Ok(());
        }
        if dispatch.policy == Policy::DenseMasked {
            return refuse(
                "dispatch.policy",
                "dense_masked",
                "another policy for routes that do not keep to the pool's order",
            );
        }
        if let Decisions::Padded | Decisions::Conditional | Decisions::Capacity { .. } = dispatch.decisions {
            let found = dispatch.decisions.name();
            return refuse("dispatch.decisions", found, "aligned, or decisions that add no rows to hops");
        }
        if dispatch.monotone && header.reuse {
            return refuse(
                "dispatch.policy",
                dispatch.policy.name(),
                "aligned for routes that repeat layers in the pool's order",
            );
        }
        Ok(())
    }
}
