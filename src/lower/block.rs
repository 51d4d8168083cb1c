//! A layer visit becomes kernels: the branches of a block for one group, or for several groups at once (`grouped`).

use super::emit::Emit;
use super::graph::{Call, Cause};
use super::groups::{Group, Scores};
use super::sink::{Part, Sink, Stretch};
use crate::kernel::{Attention, Density, GROUP_SLICE, Kernel};
use crate::model::QkNorm;

/// The adapter that FlexiDepth puts in place of a skipped block is its feed-forward part with a width 16 times smaller
/// (arXiv 2503.23798, section 3).
const ADAPTER_SHRINK: u64 = 16;

/// The rows of some groups that take one branch together.
#[derive(Clone, Copy, Debug, Default)]
struct Rows {
    rows: u32,
    groups: u32,
    slices: u32,
}

impl Rows {
    fn of(groups: &[Group], count: impl Fn(&Group) -> u32) -> Rows {
        groups.iter().map(count).filter(|&rows| rows > 0).fold(Rows::default(), |sum, rows| Rows {
            rows: sum.rows + rows,
            groups: sum.groups + 1,
            slices: sum.slices + rows.div_ceil(GROUP_SLICE),
        })
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
        self.layer_id = if let [group] = groups { group.layer } else { Call::NO_LAYER };
        let attention = Rows::of(groups, |group| group.attention);
        let feed_forward = Rows::of(groups, |group| group.feed_forward);
        let adapter = Rows::of(groups, |group| group.adapter);
        // Tokens that take both branches stay gathered between them.
        let together =
            groups.iter().all(|group| group.block == group.attention && group.block == group.feed_forward);

        let project = Rows::of(groups, |group| group.project + group.pending);
        if project.rows > 0 {
            self.stretch(self.key(Part::Project, project, together, 0), |emit| emit.project(project));
        }
        if attention.rows > 0 {
            let head = self.key(Part::AttentionHead, attention, together, 0);
            self.stretch(head, |emit| emit.attention_head(attention));
            self.scores(groups);
            let tail = self.key(Part::AttentionTail, attention, together, 0);
            self.stretch(tail, |emit| emit.attention_tail(attention, together));
        }
        if feed_forward.rows > 0 {
            let width = self.width(groups, feed_forward);
            let key = self.key(Part::FeedForward, feed_forward, together, width);
            self.stretch(key, |emit| emit.feed_forward(feed_forward, together, width));
        }
        if adapter.rows > 0 {
            let width = (self.model.ffn / ADAPTER_SHRINK).max(1) as u32;
            let key = self.key(Part::Adapter, adapter, together, width);
            self.stretch(key, |emit| {
                emit.gather(adapter);
                emit.mlp(adapter, width, Density::Dense, Cause::Adapter);
                emit.scatter(adapter);
            });
        }
        self.layer_id = Call::NO_LAYER;
    }

    fn key(&self, part: Part, rows: Rows, together: bool, width: u32) -> Stretch {
        let (eager, moved) = (self.eager(), self.moves(rows));
        let Rows { rows, groups, slices } = rows;
        Stretch { part, eager, moved, together, rows, groups, slices, width }
    }

    /// Up to the scores: what depends on the number of rows alone.
    fn attention_head(&mut self, rows: Rows) {
        let model = self.model;
        let (hidden, q_dim, kv_dim) = (model.hidden as u32, model.q_dim() as u32, model.kv_dim() as u32);
        let (head_dim, activations) = (model.head_dim as u32, model.activations);
        let heads = (model.heads + model.kv_heads) as u32;
        let padded = self.pad(rows.rows);
        self.gather(rows);
        self.norm(rows, hidden, Cause::Attention);
        self.weights(rows, hidden, q_dim + 2 * kv_dim, Cause::Attention);
        if model.qk_norm != QkNorm::None {
            let norm = Kernel::Norm {
                rows: padded * heads,
                width: head_dim,
                groups: 1,
                layer_norm: false,
                activations,
            };
            self.kernel(norm, Cause::Attention);
        }
        if model.rope.is_some() {
            self.kernel(Kernel::Rope { rows: padded, heads, head_dim, activations }, Cause::Attention);
        }
        let write = Kernel::KvWrite { rows: padded, width: 2 * kv_dim, activations, kv: model.kv };
        self.kernel(write, Cause::Attention);
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
            if sum.rows > 0 {
                let attention = Attention {
                    rows: if decode { self.pad(sum.rows) } else { sum.rows },
                    heads: model.heads as u16,
                    kv_heads: model.kv_heads as u16,
                    head_dim: model.head_dim as u16,
                    decode,
                    beside,
                    pairs: sum.pairs,
                    entries: sum.entries,
                    activations: model.activations,
                    kv: model.kv,
                };
                self.kernel(Kernel::Attention(attention), Cause::Attention);
            }
        }
    }

    fn attention_tail(&mut self, rows: Rows, together: bool) {
        let (hidden, q_dim) = (self.model.hidden as u32, self.model.q_dim() as u32);
        let (padded, activations) = (self.pad(rows.rows), self.model.activations);
        self.weights(rows, q_dim, hidden, Cause::Attention);
        self.kernel(Kernel::ResidualAdd { rows: padded, width: hidden, activations }, Cause::Attention);
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

    fn feed_forward(&mut self, rows: Rows, together: bool, width: u32) {
        if !together {
            self.gather(rows);
        }
        self.mlp(rows, width, self.dispatch.density, Cause::FeedForward);
        self.scatter(rows);
    }

    fn mlp(&mut self, rows: Rows, width: u32, density: Density, cause: Cause) {
        let (hidden, gated, activations) =
            (self.model.hidden as u32, self.model.gated, self.model.activations);
        let padded = self.pad(rows.rows);
        self.norm(rows, hidden, cause);
        self.product(rows, hidden, width * (1 + u32::from(gated)), density, cause);
        self.kernel(Kernel::Activation { rows: padded, width, gated, activations }, cause);
        self.product(rows, width, hidden, density, cause);
        self.kernel(Kernel::ResidualAdd { rows: padded, width: hidden, activations }, cause);
    }

    /// K/V of tokens that skip the attention branch, in kernels of their own.
    fn project(&mut self, rows: Rows) {
        let model = self.model;
        let (hidden, kv_dim, activations) = (model.hidden as u32, model.kv_dim() as u32, model.activations);
        let padded = self.pad(rows.rows);
        if self.moves(rows) {
            self.kernel(Kernel::Gather { rows: padded, width: hidden, activations }, Cause::Kv);
        }
        self.norm(rows, hidden, Cause::Kv);
        self.weights(rows, hidden, 2 * kv_dim, Cause::Kv);
        if model.rope.is_some() {
            let (heads, head_dim) = (model.kv_heads as u32, model.head_dim as u32);
            self.kernel(Kernel::Rope { rows: padded, heads, head_dim, activations }, Cause::Kv);
        }
        self.kernel(
            Kernel::KvWrite { rows: padded, width: 2 * kv_dim, activations, kv: model.kv },
            Cause::Kv,
        );
    }

    fn norm(&mut self, rows: Rows, width: u32, cause: Cause) {
        let layer_norm = self.model.norm.layer;
        let activations = self.model.activations;
        let norm =
            Kernel::Norm { rows: self.pad(rows.rows), width, groups: rows.groups, layer_norm, activations };
        self.kernel(norm, cause);
    }

    fn weights(&mut self, rows: Rows, inner: u32, columns: u32, cause: Cause) {
        self.product(rows, inner, columns, self.dispatch.density, cause);
    }

    fn product(&mut self, rows: Rows, inner: u32, columns: u32, density: Density, cause: Cause) {
        let (weights, activations) = (self.model.weights, self.model.activations);
        let Rows { groups, slices, .. } = rows;
        let rows = self.pad(rows.rows);
        let kernel = if groups == 1 {
            Kernel::MatMul { rows, inner, columns, weights, activations, density }
        } else {
            Kernel::GroupedMatMul { rows, groups, slices, inner, columns, weights, activations, density }
        };
        self.kernel(kernel, cause);
    }

    /// Whether these rows are fewer than there are on the device, or not side by side.
    fn moves(&self, rows: Rows) -> bool {
        rows.rows != self.on_device || rows.groups > 1
    }

    fn gather(&mut self, rows: Rows) {
        if self.moves(rows) {
            let (width, activations) = (self.model.hidden as u32, self.model.activations);
            self.kernel(Kernel::Gather { rows: self.pad(rows.rows), width, activations }, Cause::Move);
        }
    }

    fn scatter(&mut self, rows: Rows) {
        if self.moves(rows) {
            let (width, activations) = (self.model.hidden as u32, self.model.activations);
            self.kernel(Kernel::Scatter { rows: self.pad(rows.rows), width, activations }, Cause::Move);
        }
    }
}
