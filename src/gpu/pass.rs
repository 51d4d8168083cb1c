//! A plan becomes kernels: the same kernels, in the same order, that `lower::block` gives the simulator.

use super::executor::{Executor, Pass, Ratio};
use super::ops::{ACTIVATIONS, Ops, Rows, Segment};
use super::plan::{Group, Plan, Visit};
use super::shaders as s;
use crate::error::Result;
use crate::kernel::Attention;
use crate::lower::{Call, Cause};
use crate::model::Activation;

/// A pass being recorded.
pub(super) struct Work<'a, 'b, 'c> {
    pub exec: &'a Executor,
    pass: &'b Pass<'b>,
    pub ops: &'c mut Ops<'a>,
    /// Position of each row.
    positions: Vec<u32>,
}

impl<'a, 'b, 'c> Work<'a, 'b, 'c> {
    pub fn new(exec: &'a Executor, pass: &'b Pass<'b>, ops: &'c mut Ops<'a>) -> Self {
        let mut positions = Vec::new();
        for span in &pass.batch.spans {
            let first = pass.contexts[span.sequence as usize].tokens();
            positions.extend(first..first + span.tokens);
        }
        Work { exec, pass, ops, positions }
    }

    /// Records the pass; returns how many rows reach the head.
    pub fn record(mut self, plan: &Plan) -> Result<u32> {
        self.embed()?;
        for bundle in &plan.bundles {
            self.layer(bundle)?;
        }
        self.head()
    }

    fn hidden(&self) -> u32 {
        self.exec.model.hidden as u32
    }

    fn rows(&self) -> u32 {
        self.positions.len() as u32
    }

    pub fn embed(&mut self) -> Result<()> {
        (self.ops.cause, self.ops.layer) = (Cause::Embed, Call::NO_LAYER);
        let (exec, rows) = (self.exec, self.rows());
        let tokens = self.ops.list(self.pass.tokens.iter().copied());
        self.ops.embed(&exec.pool.embedding, tokens, rows, exec.stream())?;
        if let Some(positions) = &exec.pool.positions {
            let offset = exec.model.position_offset as u32;
            let numbers = self.ops.list(self.positions.iter().map(|position| position + offset));
            let branch = Rows { buffer: &exec.buffers.branch, stride: self.hidden() };
            self.ops.embed(positions, numbers, rows, branch)?;
            self.ops.residual_add(rows, self.hidden(), branch, exec.stream(), None)?;
        }
        Ok(())
    }

    /// The kernels of a layer for one group, or of several layers for all groups of a hop.
    pub fn layer(&mut self, groups: &[Group]) -> Result<()> {
        self.ops.layer = if let [group] = groups { group.layer } else { Call::NO_LAYER };
        let together = groups.iter().all(Group::together);
        self.project(groups)?;
        let mut gathered = None;
        if groups.iter().any(|group| !group.attention.is_empty()) {
            gathered = self.attention(groups, together)?;
        }
        if groups.iter().any(|group| !group.feed_forward.is_empty()) {
            self.feed_forward(groups, together, gathered)?;
        }
        Ok(())
    }

    /// Whether so many rows of so many groups are not simply all rows, side by side.
    fn moves(&self, rows: usize, groups: usize) -> bool {
        rows as u32 != self.rows() || groups > 1
    }

    /// The rows that take part, gathered where they must be: where they are, and which they are where they moved.
    fn gather(&mut self, groups: usize, indices: Vec<u32>) -> Result<(Rows<'a>, Option<Vec<u32>>)> {
        if !self.moves(indices.len(), groups) {
            return Ok((self.exec.stream(), None));
        }
        let block = Rows { buffer: &self.exec.buffers.block, stride: self.hidden() };
        self.ops.gather(&indices, self.hidden(), self.exec.stream(), block)?;
        Ok((block, Some(indices)))
    }

    /// K and V of tokens that skip the attention branch.
    fn project(&mut self, groups: &[Group]) -> Result<()> {
        let taking: Vec<&Group> = groups.iter().filter(|group| !group.project.is_empty()).collect();
        if taking.is_empty() {
            return Ok(());
        }
        self.ops.cause = Cause::Kv;
        let visits: Vec<(u16, Visit)> =
            taking.iter().flat_map(|group| group.project.iter().map(|visit| (group.layer, *visit))).collect();
        let segments = segments(&taking, |group| group.project.len());
        let indices = visits.iter().map(|(_, visit)| visit.row).collect();
        let (x, _) = self.gather(taking.len(), indices)?;
        let (q_dim, kv_dim) = (self.exec.model.q_dim() as u32, self.exec.model.kv_dim() as u32);
        let normed = self.norm(true, &segments, x)?;
        let kv = Rows { buffer: &self.exec.buffers.qkv, stride: 2 * kv_dim };
        self.ops.matmul(&self.exec.pool.qkv, q_dim..q_dim + 2 * kv_dim, &segments, normed, kv)?;
        self.rope(&visits, self.exec.model.kv_heads as u32, kv)?;
        self.kv_write(&visits, kv, 0)
    }

    /// Returns the rows that stay gathered for the feed-forward branch.
    fn attention(&mut self, groups: &[Group], together: bool) -> Result<Option<Vec<u32>>> {
        self.ops.cause = Cause::Attention;
        let (exec, model) = (self.exec, &self.exec.model);
        let taking: Vec<&Group> = groups.iter().filter(|group| !group.attention.is_empty()).collect();
        let visits: Vec<(u16, Visit)> = taking
            .iter()
            .flat_map(|group| group.attention.iter().map(|visit| (group.layer, *visit)))
            .collect();
        let segments = segments(&taking, |group| group.attention.len());
        self.ops.cause = Cause::Move;
        let (x, moved) = self.gather(taking.len(), visits.iter().map(|(_, visit)| visit.row).collect())?;
        self.ops.cause = Cause::Attention;
        let (hidden, q_dim, kv_dim) = (self.hidden(), model.q_dim() as u32, model.kv_dim() as u32);
        let normed = self.norm(true, &segments, x)?;
        let qkv = Rows { buffer: &exec.buffers.qkv, stride: q_dim + 2 * kv_dim };
        self.ops.matmul(&exec.pool.qkv, 0..q_dim + 2 * kv_dim, &segments, normed, qkv)?;
        self.rope(&visits, (model.heads + model.kv_heads) as u32, qkv)?;
        self.kv_write(&visits, qkv, q_dim)?;
        let attended = Rows { buffer: &exec.buffers.attended, stride: q_dim };
        self.scores(&visits, false, qkv, attended)?;
        self.scores(&visits, true, qkv, attended)?;
        let branch = Rows { buffer: &exec.buffers.branch, stride: hidden };
        self.ops.matmul(&exec.pool.output, 0..hidden, &segments, attended, branch)?;
        let mask = groups[0].masks.as_ref().map(|[attention, _]| attention.as_slice());
        self.add(visits.len() as u32, branch, x, mask, 0)?;
        match moved {
            Some(indices) if !together => {
                self.ops.cause = Cause::Move;
                self.ops.scatter(&indices, hidden, x, exec.stream())?;
                Ok(None)
            }
            moved => Ok(moved),
        }
    }

    fn feed_forward(&mut self, groups: &[Group], together: bool, gathered: Option<Vec<u32>>) -> Result<()> {
        let (exec, model) = (self.exec, &self.exec.model);
        let taking: Vec<&Group> = groups.iter().filter(|group| !group.feed_forward.is_empty()).collect();
        let segments = segments(&taking, |group| group.feed_forward.len());
        let indices: Vec<u32> = taking.iter().flat_map(|group| group.feed_forward.iter().copied()).collect();
        let rows = indices.len() as u32;
        self.ops.cause = Cause::Move;
        let (x, moved) = match gathered {
            Some(indices) if together => {
                (Rows { buffer: &exec.buffers.block, stride: self.hidden() }, Some(indices))
            }
            _ => self.gather(taking.len(), indices)?,
        };
        self.ops.cause = Cause::FeedForward;
        let (hidden, ffn) = (self.hidden(), model.ffn as u32);
        let normed = self.norm(false, &segments, x)?;
        let width = exec.pool.up.rows;
        let wide = Rows { buffer: &exec.buffers.wide, stride: width };
        self.ops.matmul(&exec.pool.up, 0..width, &segments, normed, wide)?;
        let narrow = Rows { buffer: &exec.buffers.narrow, stride: ffn };
        let kind = self.activation_kind();
        self.ops.activation(kind, model.gated, rows, ffn, wide, narrow)?;
        let branch = Rows { buffer: &exec.buffers.branch, stride: hidden };
        self.ops.matmul(&exec.pool.down, 0..hidden, &segments, narrow, branch)?;
        let mask = groups[0].masks.as_ref().map(|[_, feed_forward]| feed_forward.as_slice());
        self.add(rows, branch, x, mask, 1)?;
        if let Some(indices) = moved {
            self.ops.cause = Cause::Move;
            self.ops.scatter(&indices, hidden, x, exec.stream())?;
        }
        Ok(())
    }

    /// The branch's result joins the stream: for all rows, for those that a mask takes, or as an oracle decides.
    fn add(
        &mut self,
        rows: u32,
        branch: Rows<'a>,
        x: Rows<'a>,
        mask: Option<&[u32]>,
        half: u32,
    ) -> Result<()> {
        let (exec, width) = (self.exec, self.hidden());
        let Some(oracle) = self.pass.oracle else {
            // A mask that takes every row is none.
            let mask = mask.filter(|mask| mask.contains(&0));
            return self.ops.residual_add(rows, width, branch, x, mask);
        };
        let layer = u32::from(self.ops.layer);
        let threshold = if half == 0 { oracle.attention } else { oracle.feed_forward };
        let parameters = s::ResidualOracle {
            rows,
            width4: width / 4,
            stream_stride4: width / 4,
            branch_stride4: width / 4,
            record: 2 * layer + half,
            records: 2 * exec.model.layers,
            over_input: u32::from(oracle.ratio == Ratio::OverInput),
            threshold: if oracle.always.contains(&layer) { f32::MIN } else { threshold as f32 },
            begins: 1 - half,
        };
        let buffers = &exec.buffers;
        self.ops.residual_oracle(parameters, branch.buffer, x.buffer, &buffers.starts, &buffers.records)
    }

    pub fn activation_kind(&self) -> u32 {
        match self.exec.model.activation {
            Activation::Silu => 0,
            Activation::Gelu => 1,
            Activation::Relu => 2,
            other => unreachable!("{other:?} is refused when a model is put on a device"),
        }
    }

    /// An attention call of the model.
    pub fn shape(&self, rows: u32, decode: bool, pairs: u64, entries: u64) -> Attention {
        let model = &self.exec.model;
        Attention {
            rows,
            heads: model.heads as u16,
            kv_heads: model.kv_heads as u16,
            head_dim: model.head_dim as u16,
            decode,
            beside: 0,
            pairs,
            entries,
            activations: ACTIVATIONS,
            kv: ACTIVATIONS,
        }
    }

    /// A norm of rows whose layers stand in the lists.
    pub fn norm_listed(
        &mut self,
        weights: &super::device::Buffer,
        layers: u32,
        rows: u32,
        x: Rows,
        to: Rows,
    ) -> Result<()> {
        let layer_norm = self.exec.model.norm.layer;
        self.ops.norm_listed(layer_norm, weights, self.exec.model.norm.epsilon(), (layers, rows, rows), x, to)
    }

    fn norm(&mut self, attention: bool, segments: &[Segment], x: Rows<'a>) -> Result<Rows<'a>> {
        let pool = &self.exec.pool;
        let weights = if attention { &pool.attention_norms } else { &pool.ffn_norms };
        self.norm_with(weights, segments, x)
    }

    fn norm_with(
        &mut self,
        weights: &super::device::Buffer,
        segments: &[Segment],
        x: Rows<'a>,
    ) -> Result<Rows<'a>> {
        let layer_norm = self.exec.model.norm.layer;
        let to = Rows { buffer: &self.exec.buffers.normed, stride: self.hidden() };
        self.ops.norm(layer_norm, weights, self.exec.model.norm.epsilon(), segments, self.hidden(), x, to)?;
        Ok(to)
    }

    fn rope(&mut self, visits: &[(u16, Visit)], heads: u32, values: Rows) -> Result<()> {
        let Some(rope) = &self.exec.model.rope else { return Ok(()) };
        let positions: Vec<u32> =
            visits.iter().map(|(_, visit)| self.positions[visit.row as usize]).collect();
        let rows = positions.len() as u32;
        let at = self.ops.list(positions);
        let shape = [rows, heads, self.exec.model.head_dim as u32];
        self.ops.rope(&self.exec.buffers.angles, rope.interleaved, at, shape, values)
    }

    fn kv_write(&mut self, visits: &[(u16, Visit)], from: Rows, column: u32) -> Result<()> {
        let cache = &self.exec.cache;
        let mut shards: Vec<usize> = visits.iter().map(|(layer, _)| cache.shard(*layer)).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut parts = Vec::new();
        for shard in shards {
            // Rows of other buffers, and those that leave nothing, are passed over.
            let entry = |(layer, visit): &(u16, Visit)| {
                let (at, row) = cache.at(*layer, visit.sequence, visit.entry);
                if at == shard && visit.leaves { row } else { u32::MAX }
            };
            let entries: Vec<u32> = visits.iter().map(entry).collect();
            parts.push((cache.buffer(shard), self.ops.list(entries)));
        }
        let width = 2 * self.exec.model.kv_dim() as u32;
        self.ops.kv_write(visits.len() as u32, width, from, column, &parts)
    }

    fn scores(&mut self, visits: &[(u16, Visit)], decode: bool, queries: Rows, to: Rows) -> Result<()> {
        let rows: Vec<(u32, u16, Visit)> = (0..)
            .zip(visits)
            .filter(|(_, (_, visit))| visit.decode == decode)
            .map(|(row, (layer, visit))| (row, *layer, *visit))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let cache = &self.exec.cache;
        let mut parts = Vec::new();
        let mut entries = 0;
        for of_shard in rows.chunk_by(|a, b| cache.shard(a.1) == cache.shard(b.1)) {
            let (mut numbers, mut count) = (Vec::new(), 0);
            // Rows of one sequence at one layer share its entries.
            for shared in of_shard.chunk_by(|a, b| (a.1, a.2.sequence) == (b.1, b.2.sequence)) {
                let (_, layer, visit) = shared[0];
                let first = cache.at(layer, visit.sequence, 0).1;
                let seen = |(_, _, visit): &(u32, u16, Visit)| visit.entry + 1;
                if decode {
                    entries += shared.iter().map(|row| u64::from(seen(row))).sum::<u64>();
                    numbers.extend(shared.iter().flat_map(|row| [row.0, first, seen(row), 0]));
                    count += shared.len() as u32;
                } else {
                    entries += u64::from(shared.iter().map(seen).max().unwrap_or(0));
                    for eight in shared.chunks(8) {
                        let full = |index: usize| &eight[index.min(eight.len() - 1)];
                        numbers.extend((0..8).map(|index| full(index).0));
                        numbers.push(first);
                        numbers.extend((0..8).map(|index| seen(full(index))));
                        count += 1;
                    }
                }
            }
            let shard = cache.shard(of_shard[0].1);
            parts.push((cache.buffer(shard), self.ops.list(numbers), count));
        }
        let pairs = rows.iter().map(|(_, _, visit)| u64::from(visit.entry) + 1).sum();
        let beside = if decode { (visits.len() - rows.len()) as u32 } else { 0 };
        let shape = Attention { beside, ..self.shape(rows.len() as u32, decode, pairs, entries) };
        self.ops.attention(shape, &parts, queries, to)
    }

    pub fn head(&mut self) -> Result<u32> {
        (self.ops.cause, self.ops.layer) = (Cause::Head, Call::NO_LAYER);
        let mut indices = Vec::new();
        for span in &self.pass.batch.spans {
            let end = span.first + span.tokens;
            indices.extend(end - span.logits..end);
        }
        let rows = indices.len() as u32;
        if rows == 0 {
            return Ok(0);
        }
        let (exec, hidden) = (self.exec, self.hidden());
        let (x, _) = self.gather(1, indices)?;
        let normed = self.norm_with(&exec.pool.final_norm, &[Segment { layer: 0, rows }], x)?;
        let vocabulary = exec.model.outputs as u32;
        let logits = Rows { buffer: &exec.buffers.logits, stride: vocabulary };
        debug_assert_eq!(normed.stride, hidden);
        self.ops.matmul_single(exec.pool.head(), rows, normed, logits)?;
        assert_eq!(self.pass.targets.len(), rows as usize, "a wanted token for each row of logits");
        let targets = self.ops.list(self.pass.targets.iter().copied());
        let parameters =
            s::Sample { rows, vocabulary, stride: vocabulary, top: exec.options.top, targets, first: 0 };
        self.ops.sample(parameters, &exec.buffers.logits, &exec.buffers.chosen)?;
        Ok(rows)
    }
}

/// Rows of each group, with its layer.
fn segments(groups: &[&Group], rows: impl Fn(&Group) -> usize) -> Vec<Segment> {
    groups.iter().map(|group| Segment { layer: group.layer.into(), rows: rows(group) as u32 }).collect()
}
