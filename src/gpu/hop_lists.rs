//! Hops in one recording, where the device decides: kernels find in the lists which layer each row is at, which entry of the cache it
//! leaves, and which it sees.

use super::device::Buffer;
use super::ledger::Token;
use super::ops::{Ops, Rows};
use super::ops_attention::Scored;
use super::ops_stream::Added;
use super::pass::Work;
use super::pass_io::Pass;
use super::pool::Norms;
use super::shaders as s;
use crate::batch::Visibility;
use crate::error::Result;
use crate::lower::Cause;
use crate::model::NormPlacement;
use crate::trace::RouterDevice;

/// A router on the device.
#[derive(Debug)]
pub(super) struct RouterOnDevice {
    /// Whether it divides states by their root mean square and looks at the layer before.
    pub(super) radial: bool,
    pub(super) hidden: u32,
    /// Layers and the exit.
    pub(super) options: u32,
    pub(super) hops: u32,
    pub(super) least_hops: u32,
    /// Whether branches are added with the probability of the decision.
    pub(super) weighted: bool,
    /// Whether the router sees the rows' words.
    pub(super) words: bool,
    pub(super) device: RouterDevice,
    pub(super) first: Buffer,
    /// The other weights, one after the other.
    pub(super) rest: Buffer,
    /// Option and probability of each row at each hop.
    pub(super) decisions: Buffer,
}

/// Where in the lists a device that decides finds and leaves things.
pub(super) struct HopLists {
    rows: u32,
    alive: u32,
    /// The first entry of each row: of its sequence at every layer, or where entries are listed its own at the first hop.
    bases: u32,
    /// How many entries a row sees: at each layer, or where they are listed in each list.
    counts: u32,
    /// Where each list of a row begins.
    seen_lists: u32,
    /// What attention sees, where entries are listed.
    listed: Option<Visibility>,
    layers: u32,
    entries: u32,
    seen: u32,
    /// Probability of each row's decision.
    weights: u32,
    /// Rows of angles.
    turns: u32,
    /// Entries that a row sees at most.
    longest: u32,
}

impl HopLists {
    /// Lists for rows of different sequences.
    pub fn new(work: &mut Work, pass: &Pass, placed: &RouterOnDevice) -> HopLists {
        let rows = pass.tokens.len() as u32;
        let exec = work.exec;
        let tokens: Vec<Token> = (0..)
            .zip(&pass.batch.spans)
            .zip(pass.starts)
            .map(|((row, span), &position)| Token { row, sequence: span.sequence, position })
            .collect();
        let listed = exec.ledger.is_some().then_some(pass.visibility);
        let mut bases = Vec::new();
        let (mut counts, mut seen_lists, mut longest) = (Vec::new(), Vec::new(), 0);
        let ops = &mut *work.ops;
        match &exec.ledger {
            None => {
                bases.extend(tokens.iter().map(|token| exec.cache.at(0, token.sequence, 0).1));
                for layer in 0..exec.model.layers as u16 {
                    let seen = |token: &Token| {
                        pass.contexts[token.sequence as usize].seen(layer, Visibility::SameLayer) as u32
                    };
                    counts.extend(tokens.iter().map(seen));
                }
                longest = counts.iter().max().map_or(0, |most| most + placed.hops);
            }
            Some(ledger) => {
                bases.extend(tokens.iter().map(|token| ledger.next(&exec.cache, token.sequence)));
                // Of each earlier token one entry that depends on the hop, or all that there are.
                let lists = if listed == Some(Visibility::OnePerToken) { placed.hops } else { 1 };
                let own = if lists == 1 { placed.hops } else { 1 };
                for hop in 0..lists {
                    for token in &tokens {
                        // Behind them the row's own, which the device writes; until then any.
                        let seen = ledger.seen(&exec.model, *token, 0, hop);
                        let room = std::iter::repeat_n(bases[token.row as usize], own as usize);
                        counts.push(seen.len() as u32);
                        longest = longest.max(seen.len() as u32 + own);
                        seen_lists.push(ops.list(seen.into_iter().chain(room)));
                    }
                }
            }
        }
        let turn = |token: &Token| exec.angles.row(exec.model.kind(0), token.sequence, token.position);
        let turns: Vec<u32> = tokens.iter().map(turn).collect();
        let zeros = |ops: &mut Ops, each: u32| ops.list(std::iter::repeat_n(0, (each * rows) as usize));
        HopLists {
            rows,
            alive: ops.list(std::iter::repeat_n(1, rows as usize)),
            bases: ops.list(bases),
            counts: ops.list(counts),
            seen_lists: ops.list(seen_lists),
            listed,
            layers: zeros(ops, 1),
            entries: zeros(ops, 1),
            seen: zeros(ops, 4),
            weights: zeros(ops, 1),
            turns: ops.list(turns),
            longest,
        }
    }
}

impl Work<'_, '_, '_> {
    /// The kernels of a hop over all rows, each at the layer that the device finds in the lists.
    pub(super) fn hop(&mut self, placed: &RouterOnDevice, lists: &HopLists, hop: u32) -> Result<()> {
        let (exec, model, pool) = (self.exec, &self.exec.model, &self.exec.pool);
        let (hidden, q, kv) = (model.hidden as u32, model.q_dim() as u32, model.kv_dim() as u32);
        let rows = lists.rows;
        // A row may be anywhere: as many groups as rows.
        let any = (rows, rows, rows);
        let buffers = &exec.buffers;
        let of = |buffer, stride| Rows { buffer, stride };
        let (stream, normed) = (exec.stream(), of(&buffers.normed, hidden));
        let parameters = s::PlaceRows {
            rows,
            layers: model.layers,
            slots: exec.cache.slots(),
            hop,
            bucket: if lists.listed == Some(Visibility::OnePerToken) { hop } else { 0 },
            decisions: hop * rows,
            alive: lists.alive,
            bases: lists.bases,
            counts: lists.counts,
            lists_at: lists.seen_lists,
            layers_at: lists.layers,
            entries_at: lists.entries,
            seen_at: lists.seen,
            weights_at: lists.weights,
        };
        self.ops.place(parameters, lists.listed.is_some(), &placed.decisions)?;
        self.ops.cause = Cause::Attention;
        let qkv = of(&buffers.qkv, q + 2 * kv);
        let before = model.placement != NormPlacement::AfterBranch;
        let layers = (lists.layers, rows, rows);
        let norm = |work: &mut Self, norms: Option<&Norms>, x, to| match norms {
            Some(norms) => work.ops.norm(work.normed(norms), layers, x, to),
            None => Ok(()),
        };
        norm(self, pool.attention_norms.as_ref(), stream, Some(normed))?;
        let into = if before { normed } else { stream };
        self.ops.matmul_listed(&pool.qkv, lists.layers, any, into, qkv)?;
        let heads = [model.heads as u32, model.kv_heads as u32];
        if let Some(norms) = &pool.head_norms {
            self.ops.head_norm(norms, layers, heads, qkv)?;
        }
        if model.rope.is_some() {
            let shape = [rows, heads[0] + heads[1], model.head_dim as u32];
            self.ops.rope(self.turned(), lists.turns, shape, qkv)?;
        }
        let cache = exec.cache.buffer(0);
        self.ops.kv_write(rows, 2 * kv, qkv, q, &[(cache.clone(), lists.entries)])?;
        let attended = of(&buffers.attended, q);
        let shape = self.shape(rows, true, 0, 0);
        let parts = [(cache, lists.seen, rows)];
        let scored = Scored { listed: lists.listed.is_some(), ..self.scored() };
        self.ops.attention(shape, scored, lists.longest, &parts, qkv, attended)?;
        let branch = of(&buffers.branch, hidden);
        self.ops.matmul_listed(&pool.output, lists.layers, any, attended, branch)?;
        norm(self, pool.attention_after.as_ref(), branch, None)?;
        let weights = placed.weighted.then_some(lists.weights);
        let added = Added { scale: model.scales.residual, mask: Some(lists.alive), weights };
        self.ops.residual_add([rows, hidden], added, branch, stream)?;
        self.ops.look(rows, hidden, stream)?;
        self.ops.cause = Cause::FeedForward;
        norm(self, pool.ffn_norms.as_ref(), stream, Some(normed))?;
        let parts = pool.dense.as_ref().expect("no layer has experts");
        let (wide, narrow) = (of(&buffers.wide, parts.up.rows), of(&buffers.narrow, parts.down.width));
        self.ops.matmul_listed(&parts.up, lists.layers, any, into, wide)?;
        let kind = self.activation_kind();
        self.ops.activation(kind, model.gated, rows, parts.down.width, wide, narrow)?;
        self.ops.matmul_listed(&parts.down, lists.layers, any, narrow, branch)?;
        norm(self, pool.ffn_after.as_ref(), branch, None)?;
        self.ops.residual_add([rows, hidden], added, branch, stream)?;
        self.ops.look(rows, hidden, stream)
    }
}
