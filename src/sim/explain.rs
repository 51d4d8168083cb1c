//! Where the saving went: every pass is lowered twice more, dense and with one group a layer, and only priced; a third time, dense
//! under the settings of the variant that savings are against, where they are others.
//!
//! For a pass of T tokens, `ideal` gives each token its share 1/T of a dense layer's attention (feed-forward) time for each
//! attention (feed-forward) branch that it visits. What the layers really take beyond that is the union (one group a layer,
//! but part-filled) and the fragmentation (several groups a layer).

use super::beyond::Within;
use super::closed::PassSums;
use super::governor::{At, Governor};
use super::{Setup, expert_plan};
use crate::batch::{Batch, Context, Decisions, ExpertUse, Part, Paths, Policy, Visibility, in_runs};
use crate::cost::{Device, Limits, Ranks};
use crate::error::Result;
use crate::hw::{Hardware, Launch};
use crate::kernel::Density;
use crate::lower::{Cause, Dispatch, Lowered, Lowering, RouterPlan};
use crate::metrics::Losses;
use crate::model::Model;
use crate::trace::{Header, Request, Role, Route, RouteTable, Trace};
use crate::units::SimTime;
use std::sync::Arc;

/// What a variant may have of its own that changes the price of a pass and is no matter of routes.
#[derive(Clone, Debug, PartialEq)]
pub struct Against {
    /// Batch sizes for which graphs are captured, ascending.
    pub capture: Vec<u32>,
    /// How dense the layers' weights are.
    pub density: Density,
    /// Clock and power caps.
    pub limits: Limits,
    /// Host times of its engine.
    pub launch: Launch,
    /// The part of the model that a device has, and the devices that compute it together.
    pub split: (Model, Option<Arc<Ranks>>),
    /// Which experts tokens take.
    pub experts: ExpertUse,
}

/// Dense passes as the variant that savings are against would run them.
struct Beside<'a> {
    dense: Lowering<'a>,
    prices: Governor,
    clock: At,
    /// Host time of a scheduler step.
    step: SimTime,
}

pub(super) struct Explain<'a> {
    model: &'a Model,
    beside: Option<Beside<'a>>,
    /// The dense route, as the only path.
    dense_path: Paths,
    dense: Lowering<'a>,
    merged: Lowering<'a>,
    full: Batch,
    dense_contexts: Vec<Context>,
    /// Whether the run's own passes are one group a layer, whose kernels take what those of `merged` would; and whether they are dense.
    is_merged: bool,
    is_dense: bool,
    /// Clocks of the passes that are held against the run's.
    dense_clock: At,
    merged_clock: At,
    losses: Losses,
}

/// A pass as the explanation looks at it.
pub(super) struct Seen<'a> {
    pub batch: &'a Batch,
    /// Host time of the scheduler step; none where the pass is part of one.
    pub step: Option<SimTime>,
    /// Of it, what is hidden behind the pass before.
    pub hidden: SimTime,
    pub contexts: &'a [Context],
    pub paths: &'a Paths,
}

/// Kernel time by what the explanation tells apart.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    attention: i128,
    feed_forward: i128,
    kv: i128,
    router: i128,
    moves: i128,
    rest: i128,
}

impl Parts {
    fn of(sums: &PassSums) -> Self {
        let mut parts = Parts::default();
        for (&(cause, _), &time) in Cause::ALL.iter().zip(&sums.by_cause) {
            parts.add(cause, time);
        }
        parts
    }

    fn add(&mut self, cause: Cause, time: SimTime) {
        let part = match cause {
            Cause::Attention => &mut self.attention,
            Cause::FeedForward => &mut self.feed_forward,
            Cause::Kv => &mut self.kv,
            Cause::Router => &mut self.router,
            Cause::Move => &mut self.moves,
            Cause::Embed | Cause::Adapter | Cause::Head | Cause::Launch => &mut self.rest,
        };
        *part += i128::from(time.ps());
    }

    fn layers(&self) -> i128 {
        self.attention + self.feed_forward
    }

    fn busy(&self) -> i128 {
        self.layers() + self.kv + self.router + self.moves + self.rest
    }
}

impl<'a> Explain<'a> {
    /// `device`: that of the run; `clock`: where the run's own prices begin their search for a clock under a cap.
    ///
    /// # Errors
    /// Limits of the variant that savings are against which the device cannot have.
    pub fn new(setup: &'a Setup, (trace, drawn): (&Trace, bool), device: &Device, clock: At) -> Result<Self> {
        let Setup { model, dispatch, .. } = setup;
        let header = Header::dense(&model.name, model.layers);
        let mut routes = RouteTable::default();
        routes.intern(Route::dense(model.layers));
        let aligned = Dispatch {
            policy: Policy::Aligned,
            router: RouterPlan::FREE,
            decisions: Decisions::Known,
            ..dispatch.clone()
        };
        let dense = Dispatch { visibility: Visibility::SameLayer, monotone: true, ..aligned.clone() };
        let filling = device.filling(model.heads, model.kv_heads);
        let seen =
            matches!(dispatch.decisions, Decisions::Known | Decisions::ReadBack | Decisions::Prefetch { .. });
        // Under a power cap, what a router draws changes the clock.
        let free = aligned == *dispatch;
        let is_merged = dispatch.policy == Policy::Aligned && seen && (free || device.cap_w().is_none());
        let plain = |request: &Request| request.runs.iter().all(|run| run.role == Role::Plain);
        let is_dense = dense == *dispatch
            && !drawn
            && trace.routes.iter().eq(routes.iter())
            && trace.requests.iter().all(plain);
        let beside = |against: &'a Against| -> Result<Beside<'a>> {
            let Against { capture, density, limits, launch, split: (_, ranks), experts } = against.clone();
            let hardware = Hardware { launch, ..setup.hardware.clone() };
            let model = &against.split.0;
            let device = Device::new(&hardware, limits)?.with_ranks(ranks);
            let (step, filling) = (device.launch().step, device.filling(model.heads, model.kv_heads));
            let plan = expert_plan(experts, model, &device);
            let prices = Governor::new(device);
            let clock = prices.highest();
            Ok(Beside {
                dense: Lowering::new(model, Dispatch { capture, density, ..dense.clone() })
                    .filled_by(filling)
                    .with_experts(plan),
                prices,
                clock,
                step,
            })
        };
        Ok(Explain {
            model,
            beside: setup.against.as_ref().map(beside).transpose()?,
            dense_path: Paths::new(&header, &routes, false),
            dense: Lowering::new(model, dense).filled_by(filling).with_experts(expert_plan(
                setup.experts.clone(),
                model,
                device,
            )),
            merged: Lowering::new(model, aligned).filled_by(filling).with_experts(expert_plan(
                setup.experts.clone(),
                model,
                device,
            )),
            is_merged,
            is_dense,
            full: Batch::default(),
            dense_contexts: Vec::new(),
            dense_clock: clock,
            merged_clock: clock,
            losses: Losses::default(),
        })
    }

    /// A pass with these sums. A pass of a queue takes part of a step: what it did counts now, what it is held against
    /// when its tokens reach the head.
    ///
    /// # Errors
    /// A pass that dense would be more than can be counted.
    pub fn pass(&mut self, view: &Seen, own: &(PassSums, Lowered), prices: &mut Governor) -> Within<()> {
        let (sums, _) = own;
        let routed = Parts::of(sums);
        let gap = ps(sums.length) - routed.busy();
        let routing_gap = ps(sums.deciding).min(gap - ps(view.step.unwrap_or_default()));

        let losses = &mut self.losses;
        losses.kv += routed.kv;
        losses.moves += routed.moves;
        losses.router += routed.router + routing_gap;
        *if view.step.is_some() { &mut losses.launch } else { &mut losses.waiting } += gap - routing_gap;
        losses.fragmentation += routed.layers();
        losses.other += routed.rest;

        self.full.clear();
        for span in view.batch.spans.iter().filter(|span| span.part.to == Part::END) {
            let paths = view.batch.paths_of(span).iter().copied();
            self.full.push(span.sequence, paths, span.decode, span.logits, Part::WHOLE);
        }
        self.full.lockstep.clone_from(&view.batch.lockstep);
        self.full.taken.clone_from(&view.batch.taken);
        if self.full.is_empty() { Ok(()) } else { self.subtract_dense(view, own, prices) }
    }

    /// Takes off what the same tokens cost dense, and in one group a layer.
    fn subtract_dense(
        &mut self,
        view: &Seen,
        own: &(PassSums, Lowered),
        prices: &mut Governor,
    ) -> Within<()> {
        let Explain { merged, dense, full, dense_contexts, dense_path, .. } = self;
        let step = view.step.unwrap_or_default();
        let (merged_sums, lowered) = match self.is_merged {
            true => *own,
            false => {
                let pass = (&*full, view.contexts, view.paths);
                priced(prices, &mut self.merged_clock, step, merged, pass)
            }
        };
        merged_sums.within()?;
        let merged = Parts::of(&merged_sums);

        let [attention_visits, ffn_visits] = lowered.branches.map(|visits| visits as f64);
        // Of narrow feed-forward parts, paths say how narrow.
        let fed = |path: u32, count: u32| view.paths.get(path).fed * f64::from(count);
        let ffn_visits = match full.takes_some() || !view.paths.has_narrow() {
            true => ffn_visits,
            false => {
                let listed: f64 = in_runs(&full.paths).map(|(path, count)| fed(path, count)).sum();
                full.lockstep.iter().fold(listed, |sum, group| sum + fed(group.path, group.count))
            }
        };
        full.paths.fill(0);
        full.taken.clear();
        for group in &mut full.lockstep {
            group.path = 0;
            group.each.clear();
        }
        // A dense run has no holes: every earlier token is seen, and nothing waits to be projected.
        dense_contexts.resize(view.contexts.len(), Context::default());
        for slot in full.spans.iter().map(|span| span.sequence as usize) {
            dense_contexts[slot] = Context::dense(view.contexts[slot].tokens(), self.model.layers);
        }
        let pass = (&*full, &dense_contexts[..], &*dense_path);
        let (dense_sums, _) = match self.is_dense && view.batch.swapped_bytes == 0 {
            true => *own,
            false => priced(prices, &mut self.dense_clock, step, dense, pass),
        };
        dense_sums.within()?;
        let mut length_beside = dense_sums.length;
        if let Some(Beside { dense, prices, clock, step }) = &mut self.beside {
            let step = view.step.map_or(SimTime::ZERO, |_| step.saturating_sub(view.hidden));
            let (sums, _) = priced(prices, clock, step, dense, pass);
            sums.within()?;
            length_beside = sums.length;
        }
        let dense = Parts::of(&dense_sums);

        let all = f64::from(self.full.tokens()) * f64::from(self.model.layers);
        let share = |time: i128, visits: f64| (time as f64 * visits / all) as i128;
        let ideal = share(dense.attention, attention_visits) + share(dense.feed_forward, ffn_visits);

        let losses = &mut self.losses;
        losses.dense += ps(dense_sums.length);
        losses.dense_beside += ps(length_beside);
        losses.saving += dense.layers() - ideal;
        losses.union += merged.layers() - ideal;
        losses.fragmentation -= merged.layers();
        losses.other -= dense.rest;
        losses.launch -= ps(dense_sums.length) - dense.busy();
        Ok(())
    }

    pub fn losses(&self) -> Losses {
        self.losses
    }
}

/// The sums of a pass that is only priced: its sequences, what they see, and their paths.
fn priced(
    prices: &mut Governor,
    clock: &mut At,
    step: SimTime,
    lowering: &mut Lowering,
    (batch, contexts, paths): (&Batch, &[Context], &Paths),
) -> (PassSums, Lowered) {
    prices.sum(clock, false, |form, booking| {
        form.begin_pass(step, booking);
        let lowered = lowering.lower(batch, contexts, paths, form);
        (form.end_pass(), lowered)
    })
}

fn ps(time: SimTime) -> i128 {
    i128::from(time.ps())
}
