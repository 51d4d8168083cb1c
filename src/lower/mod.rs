//! One batch with its routes -> a graph of kernel calls.
//!
//! [`Lowering::lower`] sorts the tokens into groups (`groups`), turns each group into the kernels of its layer
//! (`block`), strings them together with launches, routers and read-backs (`emit`), and gives them to a [`Sink`].

mod alike;
mod block;
mod emit;
mod experts;
mod graph;
mod groups;
mod latent;
mod legs;
mod longest;
mod masked;
mod places;
mod router;
mod sets;
mod sink;
mod view;

pub use experts::{ExpertPlan, Round};
pub use graph::{Call, Cause, Graph, Node};
pub use legs::{Layout, Leg, Legs};
pub use places::{Place, Places};
pub use router::{RouterPlan, When};
pub use sink::{Sink, Stretch, StretchPart};

use crate::batch::{Batch, Context, Decisions, ExpertIds, Part, Paths, Policy, Span, Visibility};
use crate::hw::Operation;
use crate::kernel::{Density, ExpertLoad, Filling, Kernel};
use crate::model::{Input, Kind, Model};
use crate::tier::Residency;
use crate::trace::{Order, RouterKind, Trace};
use emit::Emit;
use groups::{Align, Group, Groups};
use std::ops::Range;
use std::sync::Arc;
use view::View;

/// How passes become kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// Who runs together.
    pub policy: Policy,
    /// Batch sizes for which graphs are captured, ascending; empty: every kernel is launched on its own. A pass of
    /// generated tokens is padded to the next size; passes with prompts, and larger ones, are not captured.
    pub capture: Vec<u32>,
    /// What attention sees in a unified cache.
    pub visibility: Visibility,
    /// Whether a width below 1 means the same neurons for every token (structured pruning).
    pub nested_width: bool,
    /// How dense the layers' weights are.
    pub density: Density,
    /// What routing costs.
    pub router: RouterPlan,
    /// Whether the routes ascend through the pool.
    pub monotone: bool,
    /// How the host comes to know what to launch, where a router decides.
    pub decisions: Decisions,
}

impl Dispatch {
    /// For the routes of a trace: its header says who decides, whether routes ascend, and whether a width below 1 is everybody's. No graphs are captured,
    /// weights are dense, and decisions are known.
    pub fn of_trace(policy: Policy, trace: &Trace) -> Self {
        let header = &trace.header;
        Dispatch {
            policy,
            capture: Vec::new(),
            visibility: Visibility::default(),
            nested_width: header.router.kind == RouterKind::Fixed,
            density: Density::Dense,
            router: RouterPlan::of_trace(&header.router, trace),
            monotone: header.order == Order::Monotone,
            decisions: Decisions::Known,
        }
    }

    /// Whether tokens of a prompt may keep to the order of the pool: what a token sees of its predecessors lies at the layer that it
    /// visits. Otherwise they go hop by hop.
    pub fn in_pool_order(&self) -> bool {
        self.monotone && self.visibility == Visibility::SameLayer
    }

    /// The next captured size.
    fn padded(&self, rows: u32) -> u32 {
        self.capture.iter().copied().find(|&size| size >= rows).unwrap_or(rows)
    }

    /// Whether a pass of so many tokens, all of generations, is captured.
    fn captures(&self, tokens: u32) -> bool {
        self.capture.last().is_some_and(|&largest| tokens <= largest)
    }
}

/// A layer that more tokens take than it has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overfull {
    /// Layer of the pool.
    pub layer: u16,
    /// Tokens that take it.
    pub rows: u32,
    /// Tokens that it has room for.
    pub room: u32,
    /// Tokens of the pass.
    pub tokens: u32,
}

/// What a pass amounts to, besides its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lowered {
    /// Visits of layers by tokens: (token, step) pairs.
    pub layer_visits: u64,
    /// Visits of attention branches and of feed-forward branches.
    pub branches: [u64; 2],
    /// Bytes of the layers' weights that the pass needs, each layer counted once.
    pub union_bytes: u64,
    /// Bytes of activations and logits alive at once.
    pub activation_bytes: u64,
    /// A layer that more tokens take than its fixed share.
    pub overfull: Option<Overfull>,
}

/// Turns batches of one model into graphs; keeps its memory from pass to pass.
#[derive(Debug)]
pub struct Lowering<'a> {
    model: &'a Model,
    dispatch: Dispatch,
    places: Places,
    groups: Groups,
    residency: Option<Residency>,
    filling: Option<Filling>,
    experts: Option<ExpertPlan>,
    union: Vec<(bool, f64, u32)>,
    /// Tokens that each layer attends to at most; empty where every layer attends to all.
    windows: Vec<u32>,
    /// Bytes of each layer's attention and feed-forward weights; of the latter none where they depend on who takes experts.
    bytes: Vec<(u64, Option<u64>)>,
    /// Their sum, where it does not depend on who takes experts.
    all_bytes: Option<u64>,
}

impl<'a> Lowering<'a> {
    /// For this model and dispatch.
    pub fn new(model: &'a Model, dispatch: Dispatch) -> Self {
        // What chooses entries bounds what attention reads, not what is kept.
        let chosen = model.latent.and_then(|latent| latent.indexer).map(|indexer| indexer.most_entries);
        let chosen = chosen.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        let windowed = chosen.is_some() || model.kinds.iter().any(|kind| kind.window.is_some());
        let window = |kind: &Kind| kind.window.or(chosen).unwrap_or(u32::MAX);
        let windows = if windowed { model.layer_kinds().map(window).collect() } else { Vec::new() };
        let ffn = |kind: &Kind| (!kind.experts).then(|| model.ffn_weight_bytes(kind));
        let bytes: Vec<_> =
            model.layer_kinds().map(|kind| (model.attention_weight_bytes(kind), ffn(kind))).collect();
        let all_bytes = bytes.iter().map(|&(attention, ffn)| Some(attention + ffn?)).sum();
        let (groups, union) = (Groups::default(), Vec::new());
        let places = Places::known();
        let (residency, filling, experts) = (None, None, None);
        Lowering {
            model,
            dispatch,
            places,
            groups,
            residency,
            filling,
            experts,
            union,
            windows,
            bytes,
            all_bytes,
        }
    }

    /// For a device on which calls of uneven contexts wait for the longest of them.
    pub fn filled_by(self, filling: Option<Filling>) -> Self {
        Lowering { filling, ..self }
    }

    /// With what is known of the experts of a run.
    pub fn with_experts(self, experts: Option<ExpertPlan>) -> Self {
        assert!(experts.is_some() || self.model.spread == 1, "experts on several devices");
        Lowering { experts, ..self }
    }

    /// What engines that share experts bring in the next pass.
    pub(crate) fn set_round(&mut self, round: Round) {
        if let Some(plan) = &mut self.experts {
            plan.round = Some(round);
        }
    }

    /// What is known of the experts of each token, and the devices that share the experts.
    pub(crate) fn expert_ids(&self) -> Option<(Arc<ExpertIds>, u32)> {
        self.experts.as_ref()?.loads.ids()
    }

    /// What the tokens of the next pass ask of experts, by layer.
    pub(crate) fn set_loads(&mut self, loads: Vec<ExpertLoad>) {
        if let Some(plan) = &mut self.experts {
            plan.loads.set_counted(loads);
        }
    }

    /// Whether a pass of this batch is captured.
    pub(crate) fn is_captured(&self, batch: &Batch) -> bool {
        self.captured(batch)
    }

    /// With routes that use the layers so; without this, all tokens are taken to be on one known route.
    pub fn with_places(self, places: Places) -> Self {
        Lowering { places, ..self }
    }

    /// With layers that come when they are needed.
    pub fn streaming(self, residency: Option<Residency>) -> Self {
        Lowering { residency, ..self }
    }

    /// Whether tokens may take some branches of their paths only.
    pub fn takes_sets(&self) -> bool {
        self.counts_lockstep()
            && self.dispatch.policy == Policy::Aligned
            && self.dispatch.in_pool_order()
            && !self.dispatch.decisions.has_nodes()
    }

    /// Whether groups get rows that their tokens do not ask for.
    fn fills(&self) -> bool {
        use Decisions::{Capacity, Conditional, Padded};
        matches!(self.dispatch.decisions, Padded | Conditional | Capacity { .. })
            || self.dispatch.policy == Policy::DenseMasked
    }

    /// Whether passes may count sequences that generate in lockstep: what these do at a layer is known from sums, unless rows of others are computed
    /// for them or they see but a part of what is there.
    pub fn counts_lockstep(&self) -> bool {
        let policy = matches!(self.dispatch.policy, Policy::Aligned | Policy::Hop | Policy::Grouped);
        policy
            && !self.fills()
            && self.dispatch.visibility == Visibility::SameLayer
            && self.windows.is_empty()
    }

    /// Which layers are on the device, where not all are.
    pub fn residency(&self) -> Option<&Residency> {
        self.residency.as_ref()
    }

    /// Other layers are on the device: those before a pass that was only tried.
    pub(crate) fn set_residency(&mut self, residency: Option<Residency>) {
        self.residency = residency;
    }

    /// Gives `sink` the calls of `batch`. `contexts` are those before the pass.
    pub fn lower<S: Sink>(
        &mut self,
        batch: &Batch,
        contexts: &[Context],
        paths: &Paths,
        sink: &mut S,
    ) -> Lowered {
        self.sorted(batch, contexts, paths, |lowering, view, align, captured| {
            lowering.emit(view, align, captured, sink);
        })
        .0
    }

    /// Sorts the tokens of `batch` into groups, and gives them to `then`, with how they are lined up and whether the pass is captured.
    fn sorted<R>(
        &mut self,
        batch: &Batch,
        contexts: &[Context],
        paths: &Paths,
        then: impl FnOnce(&mut Self, &View, Align, bool) -> R,
    ) -> (Lowered, R) {
        let layers = self.model.layers;
        let windows = std::mem::take(&mut self.windows);
        let (visibility, longest) =
            (self.dispatch.visibility, self.filling.as_ref().map_or(0, Filling::longest));
        let kinds = &self.model.pattern;
        let joins = !self.fills();
        let view =
            View { batch, paths, contexts, layers, visibility, windows: &windows, kinds, joins, longest };
        let monotone = self.dispatch.in_pool_order();
        let align = match self.dispatch.policy {
            Policy::Aligned => Align::Pool,
            Policy::DenseMasked if monotone => Align::Pool,
            Policy::Queued { .. } if batch.spans.iter().all(|span| span.part != Part::WHOLE) => Align::Layer,
            Policy::DenseMasked | Policy::Hop | Policy::Grouped | Policy::Queued { .. } => {
                Align::Hop { monotone }
            }
        };
        self.groups.build(&view, align);
        let visits = |group: &Group| u64::from(group.visiting()) * u64::from(group.alike);
        let visits: u64 = self.groups.groups.iter().map(visits).sum();
        let count = |of: fn(&Group) -> u32| {
            self.groups.groups.iter().map(|group| u64::from(of(group)) * u64::from(group.alike)).sum()
        };
        let branches = [count(|group| group.attention), count(|group| group.feed_forward)];
        let tokens = batch.tokens();
        let captured = self.captured(batch);
        let mut overfull = None;
        match self.dispatch.decisions {
            Decisions::Padded if captured => {
                self.groups.complete(&self.places, None);
                self.groups.mask(&view, align);
            }
            Decisions::Conditional if captured => self.groups.mask(&view, align),
            Decisions::Capacity { share } => {
                let size = if captured { self.dispatch.padded(tokens) } else { tokens };
                let room = ((share * f64::from(size)).ceil() as u32).clamp(1, size);
                overfull = self.groups.complete(&self.places, Some((room, tokens)));
            }
            _ if self.dispatch.policy == Policy::DenseMasked => self.groups.mask(&view, align),
            _ => {}
        }
        if align == Align::Pool {
            self.groups.join_alike(kinds);
        }
        let result = then(self, &view, align, captured);
        self.windows = windows;
        let logits = u64::from(batch.logits());
        let lowered = Lowered {
            layer_visits: visits,
            branches,
            union_bytes: self.union_bytes(),
            activation_bytes: activation_bytes(self.model, batch.tokens().into(), logits),
            overfull,
        };
        (lowered, result)
    }

    /// Whether the pass is captured: all of its tokens are generated, and no more than the largest size.
    fn captured(&self, batch: &Batch) -> bool {
        batch.spans.iter().all(|span| span.decode) && self.dispatch.captures(batch.tokens())
    }

    /// Bytes of the layers' weights that the pass needs, each layer counted once.
    fn union_bytes(&mut self) -> u64 {
        if let ([group], Some(all)) = (&self.groups.groups[..], self.all_bytes)
            && u32::from(group.alike) == self.model.layers
            && group.attention > 0
            && group.width(self.dispatch.nested_width) == 1.0
        {
            return all;
        }
        // Experts of this device are read by the tokens of all engines that share them.
        let round = self.experts.as_ref().and_then(|plan| plan.round);
        self.union.clear();
        self.union.resize(self.model.layers as usize, (false, 0.0, 0));
        for group in &self.groups.groups {
            let share = group.width(self.dispatch.nested_width);
            let first = usize::from(group.layer);
            for (attention, width, rows) in &mut self.union[first..first + usize::from(group.alike)] {
                *attention |= group.attention > 0;
                *width = width.max(share);
                *rows += group.feed_forward;
            }
        }
        let mut sum = 0;
        for (layer, (&(attention, width, rows), &(attention_bytes, ffn_bytes))) in
            (0..).zip(self.union.iter().zip(&self.bytes))
        {
            let rows = round.map_or(rows, |round| if rows > 0 { round.tokens } else { 0 });
            let ffn = ffn_bytes.unwrap_or_else(|| self.model.ffn_read_bytes(self.model.kind(layer), rows));
            sum += u64::from(attention) * attention_bytes + (width * ffn as f64) as u64;
        }
        sum
    }

    fn emit<S: Sink>(&mut self, view: &View, align: Align, captured: bool, sink: &mut S) {
        let batch = view.batch;
        let groups = &self.groups.groups;
        let tokens = batch.tokens();
        let whole = batch.waiting == 0 && groups.iter().all(|group| group.takes_all(tokens));
        // A subset of the layers that may be another one next time is no graph that was captured once.
        let one_graph = self.dispatch.decisions.one_graph() || (self.places.fixed && whole);
        let on_device = (tokens, tokens + batch.waiting);
        let mut emit =
            Emit::new(self.model, (&self.dispatch, &self.places), sink, on_device, captured, one_graph);
        emit.residency = self.residency.as_mut();
        emit.experts = self.experts.as_mut();
        emit.generates_only = batch.spans.iter().all(|span| span.decode);
        emit.filling = self.filling.as_ref().map(|filling| (filling, &self.groups.longest));

        if batch.swapped_bytes > 0 {
            emit.swap(batch.swapped_bytes);
        }
        enter(&mut emit, batch, view.contexts);
        match align {
            Align::Pool => pool_order(&mut emit, groups, 0..self.model.layers),
            Align::Hop { .. } | Align::Layer => waves(&mut emit, groups),
        }
        leave(&mut emit, batch.logits());
    }
}

/// Embedding of those who enter, and decisions about their routes.
fn enter<S: Sink>(emit: &mut Emit<S>, batch: &Batch, contexts: &[Context]) {
    let entering: u32 = batch.spans.iter().filter(|span| span.part.enters).map(|span| span.tokens).sum();
    let entering = emit.share(entering + batch.in_lockstep());
    if entering > 0 {
        emit.segment();
        embed(emit, emit.model, entering);
        let first = |span: &&Span| span.part.enters && contexts[span.sequence as usize].tokens() == 0;
        emit.enter(entering, batch.spans.iter().filter(first).count() as u32);
    }
}

/// Head of those whose logits are needed.
fn leave<S: Sink>(emit: &mut Emit<S>, logits: u32) {
    let logits = emit.share(logits);
    if logits > 0 && emit.model.outputs > 0 {
        emit.segment();
        head(emit, emit.model, logits);
    }
}

/// The groups of some neighbouring layers: each is a wave of its own; routers and conditional nodes of layers that nobody takes run too.
fn pool_order<S: Sink>(emit: &mut Emit<S>, groups: &[Group], layers: Range<u32>) {
    let ahead = emit.dispatch.decisions.ahead();
    let (mut decided, mut passed, layers) = (layers.start, layers.start, layers.end);
    let mut up_to = |emit: &mut Emit<S>, layer: u32| {
        while passed <= layer && passed < layers {
            while decided < layers && decided <= passed.saturating_add(ahead) {
                emit.route_layer(decided as u16);
                decided += 1;
            }
            emit.learn(passed as u16);
            emit.conditions(passed as u16);
            passed += 1;
        }
    };
    for (index, group) in groups.iter().enumerate() {
        let last = index + 1 == groups.len();
        let mut one = |emit: &mut Emit<S>, layer: u16, last: bool| {
            up_to(emit, layer.into());
            let group = [group.at(layer)];
            emit.route_marked(&group);
            emit.fetch_layers(&group, last);
            emit.segment();
            emit.layer(&group);
        };
        one(emit, group.layer, last && group.alike == 1);
        // Behind the first, every layer begins in the state in which it ends.
        if group.alike > 1 && emit.nothing_between(group) && emit.repeat(group.alike - 1) {
            emit.segment();
            emit.layer(std::slice::from_ref(group));
            emit.end_repeat();
        } else {
            for layer in 1..group.alike {
                one(emit, group.layer + layer, last && layer + 1 == group.alike);
            }
        }
    }
    up_to(emit, layers);
}

/// Groups of a wave are independent; the next wave waits for all of them. Where layers are streamed, one group follows the
/// other, so that the layer of one may give way to that of the next; grouped calls take as many layers as fit.
fn waves<S: Sink>(emit: &mut Emit<S>, groups: &[Group]) {
    for wave in groups.chunk_by(|a, b| a.wave == b.wave) {
        emit.route_hop(wave);
        emit.route_marked(wave);
        let grouped = matches!(emit.dispatch.policy, Policy::Grouped);
        let bundles = if grouped { wave.len().min(emit.layers_at_once()) } else { 1 };
        emit.fork();
        for bundle in wave.chunks(bundles) {
            let last = std::ptr::eq(bundle.as_ptr_range().end, groups.as_ptr_range().end);
            emit.fetch_layers(bundle, last);
            emit.segment();
            emit.layer(bundle);
            emit.branch_done();
        }
        emit.join();
    }
}

fn embed<S: Sink>(emit: &mut Emit<S>, model: &Model, rows: u32) {
    let key = emit.key_outside_layers(StretchPart::Embed, rows);
    emit.stretch(key, |emit| embed_rows(emit, model, rows));
}

fn head<S: Sink>(emit: &mut Emit<S>, model: &Model, rows: u32) {
    let key = emit.key_outside_layers(StretchPart::Head, rows);
    emit.stretch(key, |emit| score_rows(emit, model, rows));
}

fn embed_rows<S: Sink>(emit: &mut Emit<S>, model: &Model, rows: u32) {
    let (hidden, activations, table) = (model.hidden as u32, model.activations, model.embedding_weights);
    let padded = emit.pad(rows);
    match model.input {
        Input::Tokens { width, .. } => {
            emit.kernel(
                Kernel::Embed { rows: padded, width: width as u32, table, activations },
                Cause::Embed,
            );
            if width != model.hidden {
                emit.matmul(rows, width as u32, hidden, table, Cause::Embed);
            }
        }
        Input::Patches { values, .. } => emit.matmul(rows, values as u32, hidden, table, Cause::Embed),
    }
    // A device has some rows of the table, and zeros for the others.
    if let Input::Tokens { .. } = model.input {
        emit.collective(Operation::AllReduce, rows, model.hidden, Cause::Embed);
    }
    if model.positions > 0 {
        emit.kernel(Kernel::Embed { rows: padded, width: hidden, table, activations }, Cause::Embed);
        emit.kernel(Kernel::ResidualAdd { rows: padded, width: hidden, activations }, Cause::Embed);
    }
}

fn score_rows<S: Sink>(emit: &mut Emit<S>, model: &Model, rows: u32) {
    let (hidden, activations) = (model.hidden as u32, model.activations);
    let padded = emit.pad(rows);
    if rows != emit.tokens {
        emit.kernel(Kernel::Gather { rows: padded, width: hidden, activations }, Cause::Head);
    }
    if model.final_norm {
        let layer_norm = model.norm.layer;
        emit.kernel(
            Kernel::Norm { rows: padded, width: hidden, groups: 1, layer_norm, activations },
            Cause::Head,
        );
    }
    let width = match model.input {
        Input::Tokens { width, .. } => width as u32,
        Input::Patches { .. } => hidden,
    };
    if width != hidden {
        emit.matmul(rows, hidden, width, model.embedding_weights, Cause::Head);
    }
    emit.matmul(rows, width, model.own_outputs() as u32, model.embedding_weights, Cause::Head);
    emit.collective(Operation::AllGather, rows, model.outputs, Cause::Head);
    if matches!(model.input, Input::Tokens { .. }) {
        emit.kernel(
            Kernel::Sample { rows: padded, vocabulary: model.outputs as u32, activations },
            Cause::Head,
        );
    }
}

/// Bytes alive at once in a pass of `tokens` of which `logits` reach the head: the residual stream, its gathered copy, what goes
/// into a branch or comes out of it, the widest intermediate of a layer with what becomes of it, and the logits. Kernels write
/// beside what they read, as those of the executor do.
pub fn activation_bytes(model: &Model, tokens: u64, logits: u64) -> u64 {
    let [tokens, logits] = [tokens, logits].map(|rows| rows.div_ceil(model.sequence_spread().into()));
    let (taken, expert) =
        model.experts.map_or((0, 0), |experts| (experts.per_token, experts.per_token * experts.width));
    let ffn = model.ffn.max(expert);
    let widest = (model.q_dim() + 2 * model.kv_dim()).max(ffn * (1 + u64::from(model.gated)));
    let narrow = model.q_dim().max(ffn);
    // Copies of a row for its experts; what goes into a branch while attention runs, where both read the same.
    let more = taken * model.hidden + if model.placement.parallel() { 2 * model.hidden } else { 0 };
    model.activations.bytes(tokens * (3 * model.hidden + widest + narrow + more) + logits * model.outputs)
}
