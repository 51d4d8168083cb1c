//! The feed-forward branch of layers with experts where more is known of them than their number: whose rows they take, that an engine runs them
//! as one call, that several devices share them.

use super::block::Rows;
use super::emit::Emit;
use super::graph::{Cause, Node};
use super::groups::{Group, Scores};
use super::sink::{Sink, Stretch, StretchPart};
use crate::batch::{ExchangeChoice, ExpertUse, LayerLoads};
use crate::cost::ExchangeCall;
use crate::hw::{ExchangeMode, ExchangePart};
use crate::kernel::{ExpertLayer, ExpertLoad, Kernel, LOAD_UNIT};
use crate::model::{Activation, Experts, Model};
use crate::units::Dtype;

/// Multiprocessors that DeepEP's normal kernels take (`Buffer.num_sms`, 20).
const EXCHANGE_UNITS: u32 = 20;

/// What is known of the experts of a run.
#[derive(Clone, Debug)]
pub struct ExpertPlan {
    /// Rows of the layers' experts.
    pub loads: LayerLoads,
    /// Formats, of rows and matrices, in which whole layers are one call that was measured.
    pub fused: Vec<(Dtype, Dtype)>,
    /// How tokens come to the devices of their experts, where there are several.
    pub exchange: ExchangeChoice,
    /// Tokens of all devices in this round, where each is an engine of its own.
    pub round: Option<Round>,
}

/// What engines that share experts bring to a layer in a round of passes: each of their tokens takes every layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Tokens of all of them.
    pub tokens: u32,
    /// Most tokens of one.
    pub most: u32,
    /// Whether all of them only generate.
    pub generates: bool,
    /// Whether all run captured graphs: then each brings as many rows as the one with most, padded.
    pub captured: bool,
}

/// What the experts of a layer have to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Tokens of this device.
    pub own: u32,
    /// Of the device with most rows.
    pub load: ExpertLoad,
}

impl Group {
    /// What falls to each of so many devices that take equal shares of the tokens.
    pub(super) fn shared(&self, devices: u32) -> Group {
        if devices == 1 {
            return self.clone();
        }
        let part = |rows: u32| rows.div_ceil(devices);
        let scores = |all: Scores| Scores {
            rows: part(all.rows),
            pairs: all.pairs.div_ceil(devices.into()),
            entries: all.entries.div_ceil(devices.into()),
        };
        Group {
            attention: part(self.attention),
            feed_forward: part(self.feed_forward),
            block: part(self.block),
            adapter: part(self.adapter),
            project: part(self.project),
            pending: part(self.pending),
            prefill: scores(self.prefill),
            decode: scores(self.decode),
            ..self.clone()
        }
    }
}

impl<S: Sink> Emit<'_, S> {
    /// Whether layers with experts differ in who takes which.
    pub(super) fn experts_differ(&self) -> bool {
        self.experts.as_ref().is_some_and(|plan| plan.loads.differs_by_layer())
    }

    /// The rows of the experts of each of these groups, on the device with most; nothing where their number says all that is known.
    pub(super) fn loads(&mut self, groups: &[&Group], experts: &Experts) -> Option<Vec<Taken>> {
        let devices = self.model.spread;
        let inputs = self.model.product_inputs(self.formats.expert());
        let weights = self.formats.expert();
        let plan = self.experts.as_mut()?;
        debug_assert_eq!(experts.count as u32 % devices, 0);
        let known = plan.fused.contains(&(inputs, weights)) || plan.loads.differs_by_layer() || devices > 1;
        if !known && !plan.loads.is_balanced() {
            return None;
        }
        let round = plan.round;
        let taken = |group: &&Group| {
            let own = group.feed_forward;
            let all = round.map_or(own * devices, |round| round.tokens);
            Taken { own, load: plan.loads.load(group.layer, all) }
        };
        Some(groups.iter().map(taken).collect())
    }

    /// The branch with these rows of its experts. `normed`: its rows are normed already.
    pub(super) fn expert_branch(
        &mut self,
        key: Stretch,
        (rows, experts): (Rows, &Experts),
        loads: &[Taken],
        (together, normed): (bool, bool),
    ) {
        let calls = |emit: &mut Self| {
            if !together {
                emit.gather(rows);
            }
            if !normed {
                emit.norm_stream(rows, Cause::FeedForward);
            }
            emit.choose(rows, experts);
            loads.iter().for_each(|&taken| emit.taken(taken, experts));
            emit.shared_experts(rows, experts);
            emit.all_reduce(rows, Cause::FeedForward);
            emit.add(rows, Cause::FeedForward);
            emit.scatter(rows);
        };
        match loads {
            // The rows of one layer say what its experts have, unless layers differ.
            [Taken { own, .. }] if !self.experts_differ() && self.round().is_none() => {
                let key = Stretch { part: StretchPart::Experts, width: *own, taken: 0, ..key };
                self.stretch(key, calls);
            }
            _ => calls(self),
        }
    }

    /// What all devices bring, where each is an engine of its own.
    fn round(&self) -> Option<Round> {
        self.experts.as_ref().and_then(|plan| plan.round)
    }

    /// The experts of one layer that tokens of this device take, and those of the others.
    fn taken(&mut self, Taken { own: rows, load }: Taken, experts: &Experts) {
        let (model, cause, devices) = (self.model, Cause::FeedForward, self.model.spread);
        let (weights, activations, density) =
            (self.formats.expert(), model.activations, self.dispatch.density);
        let (padded, inputs) = (self.pad(rows), model.product_inputs(weights));
        let (brought, all) = match self.round() {
            None => (padded, padded * devices),
            Some(round) if round.captured => (self.pad(round.most), self.pad(round.most) * devices),
            Some(round) => (round.most, round.tokens),
        };
        self.exchange(brought, experts, ExchangePart::Dispatch);
        let layer = ExpertLayer {
            rows: all,
            width: model.hidden as u32,
            inner: experts.width as u32,
            count: experts.count as u32,
            own: experts.count as u32 / devices,
            top: experts.per_token as u32,
            gated: model.gated,
            plain: !model.gated || model.activation == Activation::Silu,
            load,
            weights,
            inputs,
            activations,
            density,
        };
        let fused = self.experts.as_ref().is_some_and(|plan| plan.fused.contains(&(inputs, weights)));
        if fused {
            // The host launches what is inside one by one.
            self.launches(layer.parts().len() as u32 + if inputs == activations { 0 } else { 2 });
            self.kernel(Kernel::ExpertLayer(layer), cause);
        } else {
            let [up, activation, down, sum] = layer.parts();
            let copies = load.copies.div_ceil(LOAD_UNIT.into()) as u32;
            self.kernel(Kernel::Gather { rows: copies, width: layer.width, activations }, cause);
            self.quantise(copies, layer.width, inputs, cause);
            self.kernel(up, cause);
            self.kernel(activation, cause);
            self.quantise(copies, layer.inner, inputs, cause);
            self.kernel(down, cause);
            // What comes back to a device is summed on the way.
            if devices == 1 {
                self.kernel(sum, cause);
            }
        }
        self.exchange(brought, experts, ExchangePart::Combine);
    }

    /// Tokens go to the devices of their experts, or what these say comes back.
    fn exchange(&mut self, tokens: u32, experts: &Experts, part: ExchangePart) {
        let devices = self.model.spread;
        if devices == 1 {
            return;
        }
        let choice = self.experts.as_ref().map_or(ExchangeChoice::Auto, |plan| plan.exchange);
        let call = ExchangeCall {
            devices,
            tokens,
            hidden: self.model.hidden as u32,
            experts: experts.count as u32,
            chosen: experts.per_token as u32,
            units: EXCHANGE_UNITS,
        };
        let mode = match choice {
            ExchangeChoice::LowLatency => ExchangeMode::LowLatency,
            ExchangeChoice::Auto if self.round().map_or(self.generates_only, |round| round.generates) => {
                ExchangeMode::LowLatency
            }
            ExchangeChoice::Auto | ExchangeChoice::Normal => ExchangeMode::Normal,
        };
        self.message(|captured| Node::Exchange { mode, part, call, captured }, Cause::FeedForward);
    }
}

impl ExpertPlan {
    /// Of a model with experts; none for others.
    pub fn new(model: &Model, of: ExpertUse, fused: impl Fn(Dtype, Dtype) -> bool) -> Option<ExpertPlan> {
        let experts = model.experts?;
        let exchange = of.exchange;
        let loads = LayerLoads::new(of, experts.count as u32, experts.per_token as u32, model.spread);
        let formats = model.layer_kinds().filter(|kind| kind.experts).map(|kind| {
            let weights = model.ffn_format(kind);
            (model.product_inputs(weights), weights)
        });
        let mut fused: Vec<(Dtype, Dtype)> =
            formats.filter(|&(inputs, weights)| fused(inputs, weights)).collect();
        fused.sort();
        fused.dedup();
        Some(ExpertPlan { loads, fused, exchange, round: None })
    }
}
