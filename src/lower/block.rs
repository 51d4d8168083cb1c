//! A layer visit becomes kernels: the branches of a block for one group, or for several groups at once (`grouped`).

use super::emit::Emit;
use super::graph::{Call, Cause};
use super::groups::{Group, Scores};
use super::sink::{Sink, Stretch, StretchPart};
use crate::hw::Operation;
use crate::kernel::{Attention, Density, GROUP_SLICE, Kernel};
use crate::model::{Experts, Model, NormPlacement, QkNorm};
use crate::units::Dtype;

/// The adapter that FlexiDepth puts in place of a skipped block is its feed-forward part with a width 16 times smaller
/// (arXiv 2503.23798, section 3).
const ADAPTER_SHRINK: u64 = 16;

/// The rows of some groups that take one branch together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rows {
    pub rows: u32,
    pub groups: u32,
    pub slices: u32,
}

impl Rows {
    fn of<'a>(groups: impl Iterator<Item = &'a Group>, count: impl Fn(&Group) -> u32) -> Rows {
        groups.map(count).filter(|&rows| rows > 0).fold(Rows::default(), |sum, rows| Rows {
            rows: sum.rows + rows,
            groups: sum.groups + 1,
            slices: sum.slices + rows.div_ceil(GROUP_SLICE),
        })
    }
}

/// What the layers of some groups have, as far as kernels depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layers {
    /// The kind of all of them, as the model counts kinds; [`Layers::MIXED`] where they differ.
    kind: u8,
    /// Whether any rotates queries and keys.
    rotate: bool,
    /// Whether any has experts, and whether any has none.
    experts: [bool; 2],
}

impl Layers {
    const MIXED: u8 = u8::MAX;

    fn of<'a>(model: &Model, groups: impl Iterator<Item = &'a Group>) -> Layers {
        let mut all: Option<Layers> = None;
        for group in groups {
            let kind = model.pattern.get(group.layer as usize).copied().unwrap_or(0);
            let of = &model.kinds[usize::from(kind)];
            let rotate = model.rope_of(of).is_some();
            let one = Layers { kind, rotate, experts: [!of.experts, of.experts] };
            all = Some(all.map_or(one, |all| Layers {
                kind: if all.kind == one.kind { all.kind } else { Layers::MIXED },
                rotate: all.rotate || one.rotate,
                experts: [all.experts[0] || one.experts[0], all.experts[1] || one.experts[1]],
            }));
        }
        all.unwrap_or_default()
    }

    fn mixed_experts(self) -> bool {
        self.experts == [true, true]
    }
}

/// Formats of the matrices of some layers. Where layers of different kinds share a call, all have the model's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formats {
    pub attention: Dtype,
    ffn: Dtype,
    shared: Dtype,
}

impl Formats {
    /// Of the matrices of experts that tokens choose among.
    pub fn expert(self) -> Dtype {
        self.ffn
    }

    fn of(model: &Model, layers: Layers) -> Formats {
        match model.kinds.get(usize::from(layers.kind)) {
            Some(kind) => Formats {
                attention: model.attention_format(kind),
                ffn: model.ffn_format(kind),
                shared: model.shared_format(kind),
            },
            None => Formats::whole(model),
        }
    }

    /// The model's own, whatever the layer.
    pub fn whole(model: &Model) -> Formats {
        Formats { attention: model.weights, ffn: model.weights, shared: model.weights }
    }
}

impl Group {
    /// Tokens that visit the layer, whatever they run there.
    pub(super) fn visiting(&self) -> u32 {
        self.attention + self.feed_forward - self.block + self.adapter
    }

    /// Whether the group is the whole batch of `tokens`, and nothing else happens at the layer.
    pub(super) fn takes_all(&self, tokens: u32) -> bool {
        self.block == tokens && self.project + self.pending == 0
    }
}

impl<S: Sink> Emit<'_, S> {
    /// The kernels of a layer for these groups: one group, or all groups of a hop at once.
    pub(super) fn layer(&mut self, groups: &[Group]) {
        let spread = self.model.sequence_spread();
        if spread > 1 {
            let own: Vec<Group> = groups.iter().map(|group| group.shared(spread)).collect();
            return self.own_layer(&own);
        }
        self.own_layer(groups);
    }

    /// The same of what falls to one device.
    fn own_layer(&mut self, groups: &[Group]) {
        self.layer_id = if let [group] = groups { group.layer } else { Call::NO_LAYER };
        let layers = Layers::of(self.model, groups.iter());
        self.formats = Formats::of(self.model, layers);
        let attention = Rows::of(groups.iter(), |group| group.attention);
        let adapter = Rows::of(groups.iter(), |group| group.adapter);
        // Tokens that take both branches stay gathered between them.
        let together = !layers.mixed_experts()
            && groups.iter().all(|group| group.block == group.attention && group.block == group.feed_forward);

        let project = Rows::of(groups.iter(), |group| group.project + group.pending);
        if project.rows > 0 {
            // States of earlier tokens are nowhere side by side.
            let moved = self.moves(project) || groups.iter().any(|group| group.pending > 0);
            let key = Stretch { moved, ..self.key(StretchPart::Project, project, together, 0, layers) };
            self.stretch(key, |emit| emit.project(project, moved, layers));
        }
        // Both branches read the stream as it came: what is not gathered for both is normed before attention adds to it.
        let parallel = self.model.placement.parallel();
        let ahead = parallel && !together && attention.rows > 0;
        if ahead {
            for experts in [false, true] {
                let rows = self.feeding(groups, experts);
                if rows.rows > 0 {
                    let key = self.key(StretchPart::NormAhead, rows, together, 0, layers);
                    self.stretch(key, |emit| {
                        emit.gather(rows);
                        emit.norm_stream(rows, Cause::FeedForward);
                    });
                }
            }
        }
        if attention.rows > 0 {
            let head = self.key(StretchPart::AttentionHead, attention, together, 0, layers);
            self.stretch(head, |emit| emit.attention_head(attention, together, layers));
            self.scores(groups);
            let tail = self.key(StretchPart::AttentionTail, attention, together, 0, layers);
            self.stretch(tail, |emit| emit.attention_tail(attention, together));
        }
        let normed = parallel && attention.rows > 0;
        for experts in [false, true] {
            let rows = self.feeding(groups, experts);
            if rows.rows > 0 {
                self.feed_forward(groups, experts, rows, together, normed, layers);
            }
        }
        if adapter.rows > 0 {
            let width = (self.model.ffn / ADAPTER_SHRINK).max(1) as u32;
            let key = self.key(StretchPart::Adapter, adapter, together, width, layers);
            self.stretch(key, |emit| {
                emit.gather(adapter);
                emit.norm_stream(adapter, Cause::Adapter);
                emit.mlp(adapter, width, emit.model.weights, Density::Dense, Cause::Adapter);
                emit.all_reduce(adapter, Cause::Adapter);
                emit.add(adapter, Cause::Adapter);
                emit.scatter(adapter);
            });
        }
        self.layer_id = Call::NO_LAYER;
    }

    fn key(&self, part: StretchPart, rows: Rows, together: bool, width: u32, layers: Layers) -> Stretch {
        let (eager, moved) = (self.eager(), self.moves(rows));
        let Rows { rows, groups, slices } = rows;
        // Kernels are of padded rows, and only grouped products know of slices.
        let (rows, slices) = (self.pad(rows), if groups == 1 { 0 } else { slices });
        let Layers { kind, rotate, .. } = layers;
        Stretch { part, eager, moved, together, rotate, kind, rows, groups, slices, width, taken: 0 }
    }

    /// Rows that take the feed-forward branch of layers with experts, or without.
    fn feeding(&self, groups: &[Group], experts: bool) -> Rows {
        let model = self.model;
        let of = |group: &&Group| model.kind(group.layer.into()).experts == experts;
        Rows::of(groups.iter().filter(of), |group| group.feed_forward)
    }

    /// Up to the scores: what depends on the number of rows alone.
    fn attention_head(&mut self, rows: Rows, together: bool, layers: Layers) {
        let model = self.model;
        let (hidden, q_dim, kv_dim) = (model.hidden as u32, model.q_dim() as u32, model.kv_dim() as u32);
        let activations = model.activations;
        let padded = self.pad(rows.rows);
        self.gather(rows);
        self.norm_stream(rows, Cause::Attention);
        if together && model.placement == NormPlacement::ParallelEach {
            self.norm_stream(rows, Cause::Attention);
        }
        if let Some(latent) = model.latent {
            return self.latent_head(rows, latent);
        }
        self.weights(rows, hidden, q_dim + 2 * kv_dim, Cause::Attention);
        self.place_heads(rows, [model.heads as u32, model.kv_heads as u32], layers, Cause::Attention);
        let write = Kernel::KvWrite { rows: padded, width: 2 * kv_dim, activations, kv: model.kv };
        self.kernel(write, Cause::Attention);
    }

    /// Norms and rotations of heads of queries and keys.
    fn place_heads(&mut self, rows: Rows, [queries, keys]: [u32; 2], layers: Layers, cause: Cause) {
        let (model, padded) = (self.model, self.pad(rows.rows));
        let (head_dim, activations, heads) = (model.head_dim as u32, model.activations, queries + keys);
        let layer_norm = model.norm.layer;
        let norm =
            |rows: u32, width: u32, groups| Kernel::Norm { rows, width, groups, layer_norm, activations };
        match model.qk_norm {
            QkNorm::None => {}
            QkNorm::Head | QkNorm::EachHead => {
                self.kernel(norm(padded * heads, head_dim, rows.groups), cause);
            }
            QkNorm::Whole => {
                for heads in [queries, keys].into_iter().filter(|&heads| heads > 0) {
                    self.kernel(norm(padded, heads * head_dim, rows.groups), cause);
                }
            }
        }
        if layers.rotate {
            self.kernel(Kernel::Rope { rows: padded, heads, head_dim, activations }, cause);
        }
    }

    /// Attention proper: what depends on the contexts.
    fn scores(&mut self, groups: &[Group]) {
        let model = self.model;
        let prompts: u32 = groups.iter().map(|group| group.prefill.rows).sum();
        for decode in [false, true] {
            let beside = if decode { prompts } else { 0 };
            let sum = groups.iter().map(|group| if decode { group.decode } else { group.prefill }).fold(
                Scores::default(),
                |sum, scores| Scores {
                    rows: sum.rows + scores.rows,
                    pairs: sum.pairs + scores.pairs,
                    entries: sum.entries + scores.entries,
                },
            );
            if let Some(latent) = model.latent.filter(|_| sum.rows > 0) {
                self.latent_scores(sum, decode, latent);
            } else if sum.rows > 0 {
                let rows = if decode { self.pad(sum.rows) } else { sum.rows };
                let waits = if decode { self.waits(groups, sum, rows, beside > 0) } else { 0 };
                let attention = Attention {
                    rows,
                    heads: model.heads as u16,
                    kv_heads: model.kv_heads as u16,
                    head_dim: model.head_dim as u16,
                    decode,
                    beside,
                    waits,
                    pairs: sum.pairs,
                    entries: sum.entries,
                    activations: model.activations,
                    kv: model.kv,
                };
                self.kernel(Kernel::Attention(attention), Cause::Attention);
            }
        }
    }

    /// What one call over the generated tokens of these groups waits for.
    fn waits(&self, groups: &[Group], sum: Scores, padded: u32, beside: bool) -> u64 {
        let Some((filling, longest)) = self.filling else { return 0 };
        let waits = |longest: &[u32]| filling.waits(longest, (sum.rows, padded), sum.pairs, beside);
        if let [group] = groups {
            return waits(longest.of(group.longest));
        }
        let mut all: Vec<u32> = groups.iter().flat_map(|group| longest.of(group.longest)).copied().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(filling.longest());
        waits(&all)
    }

    /// Devices that have parts of a branch add up what they computed of it.
    pub(super) fn all_reduce(&mut self, rows: Rows, cause: Cause) {
        self.collective(Operation::AllReduce, rows.rows, self.model.hidden, cause);
    }

    /// Whether one sum over the devices serves both branches of a layer: they read the same stream, and the same tokens take both.
    fn sums_once(&self, together: bool) -> bool {
        self.model.placement.parallel() && together
    }

    fn attention_tail(&mut self, rows: Rows, together: bool) {
        let (hidden, attended) = (self.model.hidden as u32, self.model.attended_dim() as u32);
        self.weights(rows, attended, hidden, Cause::Attention);
        if !self.sums_once(together) {
            self.all_reduce(rows, Cause::Attention);
        }
        self.add(rows, Cause::Attention);
        if !together {
            self.scatter(rows);
        }
    }

    /// Width of the feed-forward parts of these groups: their mean.
    fn width(&self, groups: &[Group], rows: Rows) -> u32 {
        let taking = groups.iter().filter(|group| group.feed_forward > 0);
        let width: f64 =
            taking.map(|group| group.width(self.dispatch.nested_width)).sum::<f64>() / f64::from(rows.groups);
        ((width * self.model.ffn as f64).round() as u32).max(1)
    }

    /// The feed-forward branch of layers with experts, or without. `normed`: its rows are normed already.
    fn feed_forward(
        &mut self,
        groups: &[Group],
        experts: bool,
        rows: Rows,
        together: bool,
        normed: bool,
        layers: Layers,
    ) {
        if let Some(of) = self.model.experts.filter(|_| experts) {
            let own = |group: &&Group| group.feed_forward > 0 && self.model.kind(group.layer.into()).experts;
            let own: Vec<&Group> = groups.iter().filter(own).collect();
            if let Some(loads) = self.loads(&own, &of) {
                let key = self.key(StretchPart::Experts, rows, together, 0, layers);
                return self.expert_branch(key, (rows, &of), &loads, (together, normed));
            }
        }
        let density = self.dispatch.density;
        let spread = self.model.experts.filter(|_| experts).map(|experts| {
            let own = groups.iter().filter(|group| self.model.kind(group.layer.into()).experts);
            (experts, spread(&experts, own.map(|group| group.feed_forward)))
        });
        let width = match &spread {
            // Rows of several layers take other experts in sum than those of one.
            Some((_, taken)) => taken.groups,
            None => self.width(groups, rows),
        };
        let part = if experts { StretchPart::Experts } else { StretchPart::FeedForward };
        let slices = spread.as_ref().map_or(0, |(_, taken)| taken.slices);
        let key = Stretch { taken: slices, ..self.key(part, rows, together, width, layers) };
        self.stretch(key, |emit| {
            if !together {
                emit.gather(rows);
            }
            if !normed {
                emit.norm_stream(rows, Cause::FeedForward);
            }
            match &spread {
                Some((experts, taken)) => emit.experts(rows, experts, *taken),
                None => emit.mlp(rows, width, emit.formats.ffn, density, Cause::FeedForward),
            }
            emit.all_reduce(rows, Cause::FeedForward);
            emit.add(rows, Cause::FeedForward);
            emit.scatter(rows);
        });
    }

    /// Two or three products and what is between them.
    fn mlp(&mut self, rows: Rows, width: u32, weights: Dtype, density: Density, cause: Cause) {
        let (hidden, gated, activations) =
            (self.model.hidden as u32, self.model.gated, self.model.activations);
        let padded = self.pad(rows.rows);
        self.product(rows, [hidden, width * (1 + u32::from(gated))], weights, density, cause);
        self.kernel(Kernel::Activation { rows: padded, width, gated, activations }, cause);
        self.product(rows, [width, hidden], weights, density, cause);
    }

    /// A choice for each row, its copies, the products of the chosen experts, and their sum.
    fn experts(&mut self, rows: Rows, experts: &Experts, taken: Rows) {
        let model = self.model;
        let (hidden, width, gated) = (model.hidden as u32, experts.width as u32, model.gated);
        let (weights, activations, density) = (self.formats.ffn, model.activations, self.dispatch.density);
        let (padded, top, cause) = (self.pad(rows.rows), experts.per_token as u32, Cause::FeedForward);
        self.choose(rows, experts);
        let copies = padded * top;
        self.kernel(Kernel::Gather { rows: copies, width: hidden, activations }, cause);
        let inputs = model.product_inputs(weights);
        let product = |inner, columns| {
            let Rows { groups, slices, .. } = taken;
            Kernel::GroupedMatMul {
                rows: copies,
                groups,
                slices,
                inner,
                columns,
                weights,
                inputs,
                activations,
                density,
            }
        };
        self.quantise(copies, hidden, inputs, cause);
        self.kernel(product(hidden, width * (1 + u32::from(gated))), cause);
        self.kernel(Kernel::Activation { rows: copies, width, gated, activations }, cause);
        self.quantise(copies, width, inputs, cause);
        self.kernel(product(width, hidden), cause);
        self.kernel(Kernel::ExpertSum { rows: padded, width: hidden, top, activations }, cause);
        self.shared_experts(rows, experts);
    }

    /// Scores of the experts for each row.
    pub(super) fn choose(&mut self, rows: Rows, experts: &Experts) {
        let (model, weights) = (self.model, self.formats.ffn);
        let (width, activations, options) = (model.hidden as u32, model.activations, experts.count as u32);
        let rows = self.pad(rows.rows);
        let router = Kernel::Router { rows, width, hidden: 0, options, weights, activations };
        self.kernel(router, Cause::FeedForward);
    }

    /// The experts that every token takes.
    pub(super) fn shared_experts(&mut self, rows: Rows, experts: &Experts) {
        if experts.shared_width > 0 {
            let (density, cause) = (self.dispatch.density, Cause::FeedForward);
            let (width, activations) = (self.model.hidden as u32, self.model.activations);
            self.mlp(rows, experts.shared_width as u32, self.formats.shared, density, cause);
            let rows = self.pad(rows.rows);
            self.kernel(Kernel::ResidualAdd { rows, width, activations }, cause);
        }
    }

    /// K/V of tokens that skip the attention branch, in kernels of their own.
    fn project(&mut self, rows: Rows, moved: bool, layers: Layers) {
        let model = self.model;
        let (hidden, kv_dim, activations) = (model.hidden as u32, model.kv_dim() as u32, model.activations);
        let padded = self.pad(rows.rows);
        if moved {
            self.kernel(Kernel::Gather { rows: padded, width: hidden, activations }, Cause::Kv);
        }
        self.norm_stream(rows, Cause::Kv);
        if let Some(latent) = model.latent {
            return self.latent_project(rows, latent);
        }
        self.weights(rows, hidden, 2 * kv_dim, Cause::Kv);
        self.place_heads(rows, [0, model.kv_heads as u32], layers, Cause::Kv);
        self.kernel(
            Kernel::KvWrite { rows: padded, width: 2 * kv_dim, activations, kv: model.kv },
            Cause::Kv,
        );
    }

    /// The norm before a branch, where the model has one.
    pub(super) fn norm_stream(&mut self, rows: Rows, cause: Cause) {
        if !matches!(self.model.placement, NormPlacement::AfterSum | NormPlacement::AfterBranch) {
            self.norm(rows, cause);
        }
    }

    /// A branch joins the stream, with the norms that stand behind the branch or behind the sum.
    pub(super) fn add(&mut self, rows: Rows, cause: Cause) {
        let (width, activations) = (self.model.hidden as u32, self.model.activations);
        let placement = self.model.placement;
        if matches!(placement, NormPlacement::AfterBranch | NormPlacement::Around) && cause != Cause::Adapter
        {
            self.norm(rows, cause);
        }
        self.kernel(Kernel::ResidualAdd { rows: self.pad(rows.rows), width, activations }, cause);
        if placement == NormPlacement::AfterSum {
            self.norm(rows, cause);
        }
    }

    /// A norm of rows as wide as the stream.
    fn norm(&mut self, rows: Rows, cause: Cause) {
        let (layer_norm, width) = (self.model.norm.layer, self.model.hidden as u32);
        let activations = self.model.activations;
        let norm =
            Kernel::Norm { rows: self.pad(rows.rows), width, groups: rows.groups, layer_norm, activations };
        self.kernel(norm, cause);
    }

    pub(super) fn weights(&mut self, rows: Rows, inner: u32, columns: u32, cause: Cause) {
        self.product(rows, [inner, columns], self.formats.attention, self.dispatch.density, cause);
    }

    /// Rows of a product brought into the format in which it takes them, where that is not the activations'.
    pub(super) fn quantise(&mut self, rows: u32, width: u32, to: Dtype, cause: Cause) {
        let activations = self.model.activations;
        if to != activations {
            self.kernel(Kernel::Quantise { rows, width, activations, to }, cause);
        }
    }

    pub(super) fn product(
        &mut self,
        rows: Rows,
        [inner, columns]: [u32; 2],
        weights: Dtype,
        density: Density,
        cause: Cause,
    ) {
        let (activations, inputs) = (self.model.activations, self.model.product_inputs(weights));
        let Rows { groups, slices, .. } = rows;
        let rows = self.pad(rows.rows);
        self.quantise(rows, inner, inputs, cause);
        let kernel = if groups == 1 {
            Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density }
        } else {
            Kernel::GroupedMatMul {
                rows,
                groups,
                slices,
                inner,
                columns,
                weights,
                inputs,
                activations,
                density,
            }
        };
        self.kernel(kernel, cause);
    }

    /// Whether these rows are fewer than there are on the device, or not side by side.
    fn moves(&self, rows: Rows) -> bool {
        rows.rows != self.on_device || rows.groups > 1
    }

    pub(super) fn gather(&mut self, rows: Rows) {
        if self.moves(rows) {
            let (width, activations) = (self.model.hidden as u32, self.model.activations);
            self.kernel(Kernel::Gather { rows: self.pad(rows.rows), width, activations }, Cause::Move);
        }
    }

    pub(super) fn scatter(&mut self, rows: Rows) {
        if self.moves(rows) {
            let (width, activations) = (self.model.hidden as u32, self.model.activations);
            self.kernel(Kernel::Scatter { rows: self.pad(rows.rows), width, activations }, Cause::Move);
        }
    }
}

/// Copies of rows, experts that take part, and slices of their rows: each layer's rows take so many experts on average, evenly.
fn spread(experts: &Experts, rows: impl Iterator<Item = u32>) -> Rows {
    let of_layer = |rows: u32| {
        let (all, taken) = (rows * experts.per_token as u32, experts.taken(rows) as u32);
        Rows { rows: all, groups: taken, slices: taken.max(all.div_ceil(GROUP_SLICE)) }
    };
    rows.map(of_layer).fold(Rows::default(), |sum, part| Rows {
        rows: sum.rows + part.rows,
        groups: sum.groups + part.groups,
        slices: sum.slices + part.slices,
    })
}
