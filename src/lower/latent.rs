//! The kernels of latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values are made from one narrow vector a
//! token, which is what the cache holds.
//!
//! As engines run it: prompts make keys and values of all heads from the vectors that they see; generated tokens take the
//! matrices that make them into the query and behind the result, and attend to the vectors themselves (vLLM, `mla/common.py`).

use super::block::Rows;
use super::emit::Emit;
use super::graph::Cause;
use super::groups::Scores;
use super::sink::Sink;
use crate::kernel::{Density, GROUP_SLICE, Kernel, LatentAttention};
use crate::model::Latent;

impl<S: Sink> Emit<'_, S> {
    /// From the normed stream to queries, and to the vectors in the cache.
    pub(super) fn latent_head(&mut self, rows: Rows, latent: Latent) {
        let (hidden, heads) = (self.model.hidden as u32, self.model.heads as u32);
        let entry = latent.entry() as u32;
        let queries = heads * (latent.nope_dim + latent.rope_dim) as u32;
        match latent.q_rank as u32 {
            0 => self.weights(rows, hidden, queries + entry, Cause::Attention),
            rank => {
                self.weights(rows, hidden, rank + entry, Cause::Attention);
                self.latent_norm(rows, rank, Cause::Attention);
                self.weights(rows, rank, queries, Cause::Attention);
            }
        }
        self.latent_norm(rows, latent.kv_rank as u32, Cause::Attention);
        self.latent_place(rows, heads + 1, latent, Cause::Attention);
    }

    /// The vectors alone, of tokens that skip the attention branch.
    pub(super) fn latent_project(&mut self, rows: Rows, latent: Latent) {
        self.weights(rows, self.model.hidden as u32, latent.entry() as u32, Cause::Kv);
        self.latent_norm(rows, latent.kv_rank as u32, Cause::Kv);
        self.latent_place(rows, 1, latent, Cause::Kv);
    }

    fn latent_norm(&mut self, rows: Rows, width: u32, cause: Cause) {
        let (groups, activations) = (rows.groups, self.model.activations);
        let rows = self.pad(rows.rows);
        self.kernel(Kernel::Norm { rows, width, groups, layer_norm: false, activations }, cause);
    }

    /// Rotation of the parts that have positions, and the write into the cache.
    fn latent_place(&mut self, rows: Rows, heads: u32, latent: Latent, cause: Cause) {
        let (rows, activations, kv) = (self.pad(rows.rows), self.model.activations, self.model.kv);
        if self.model.rope.is_some() {
            let head_dim = latent.rope_dim as u32;
            self.kernel(Kernel::Rope { rows, heads, head_dim, activations }, cause);
        }
        self.kernel(Kernel::KvWrite { rows, width: latent.entry() as u32, activations, kv }, cause);
    }

    /// Attention proper, of prompts or of generated tokens.
    pub(super) fn latent_scores(&mut self, sum: Scores, decode: bool, latent: Latent) {
        let model = self.model;
        let (heads, activations) = (model.heads as u32, model.activations);
        let [nope, rope, value, rank] =
            [latent.nope_dim, latent.rope_dim, latent.value_dim, latent.kv_rank].map(|width| width as u32);
        let shape = LatentAttention {
            rows: if decode { self.pad(sum.rows) } else { sum.rows },
            heads: heads as u16,
            kv_heads: if decode { 1 } else { heads as u16 },
            key_dim: (rope + if decode { rank } else { nope }) as u16,
            value_dim: if decode { rank } else { value } as u16,
            values_in_keys: decode,
            decode,
            pairs: sum.pairs,
            entries: sum.entries,
            activations,
            kv: if decode { model.kv } else { activations },
        };
        if decode {
            self.by_head(shape.rows, nope, rank);
            self.kernel(Kernel::LatentAttention(shape), Cause::Attention);
            self.by_head(shape.rows, rank, value);
        } else {
            let entries = u32::try_from(sum.entries).unwrap_or(u32::MAX);
            let rows = Rows { rows: entries, groups: 1, slices: entries.div_ceil(GROUP_SLICE) };
            let (columns, weights) = (heads * (nope + value), self.formats.attention);
            self.product(rows, [rank, columns], weights, Density::Dense, Cause::Attention);
            self.kernel(Kernel::LatentAttention(shape), Cause::Attention);
        }
    }

    /// A product of each head's part of the rows with that head's matrix.
    fn by_head(&mut self, rows: u32, inner: u32, columns: u32) {
        let (heads, weights, activations) =
            (self.model.heads as u32, self.formats.attention, self.model.activations);
        let slices = heads * rows.div_ceil(GROUP_SLICE);
        let groups = [rows * heads, heads, slices];
        let kernel = Kernel::grouped_product(groups, [inner, columns], weights, activations, Density::Dense);
        self.kernel(kernel, Cause::Attention);
    }
}
