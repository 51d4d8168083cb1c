//! A plan becomes kernels: the same kernels, in the same order, that `lower::block` gives the simulator. Here: what is around the
//! branches.

use super::executor::Executor;
use super::ops::{LEFT_ALONE, Normed, Ops, Rows, Segment};
use super::ops_choice::{Logits, Sampled};
use super::ops_stream::Added;
use super::pass_io::Pass;
use super::plan::{Group, Plan};
use super::pool::Norms;
use crate::error::Result;
use crate::lower::{Call, Cause};
use crate::model::NormPlacement;

/// A pass being recorded.
pub(super) struct Work<'a, 'b, 'c> {
    pub exec: &'a Executor,
    pub pass: &'b Pass<'b>,
    pub ops: &'c mut Ops<'a>,
    /// Position of each row.
    pub positions: Vec<u32>,
}

/// Rows that take a branch.
pub(super) struct Taken<'a> {
    /// Where they are: the stream, or a block that they were gathered into.
    pub x: Rows<'a>,
    /// Which rows of the stream they are, where they moved.
    pub moved: Option<Vec<u32>>,
    /// Normed for the feed-forward branch already, where both branches read the same stream.
    pub normed: Option<Rows<'a>>,
}

impl<'a, 'b, 'c> Work<'a, 'b, 'c> {
    pub fn new(exec: &'a Executor, pass: &'b Pass<'b>, ops: &'c mut Ops<'a>) -> Self {
        let mut positions = Vec::new();
        for (span, &first) in pass.batch.spans.iter().zip(pass.starts) {
            positions.extend(first..first + span.tokens);
        }
        Work { exec, pass, ops, positions }
    }

    /// Records the pass; returns how many rows reach the head.
    pub fn record(mut self, plan: &Plan) -> Result<u32> {
        self.embed()?;
        self.go_on(&plan.back)?;
        for bundle in &plan.bundles {
            self.layer(bundle)?;
        }
        self.keep(&plan.keep)?;
        self.head()
    }

    pub fn hidden(&self) -> u32 {
        self.exec.model.hidden as u32
    }

    fn rows(&self) -> u32 {
        self.positions.len() as u32
    }

    pub fn embed(&mut self) -> Result<()> {
        (self.ops.cause, self.ops.layer) = (Cause::Embed, Call::NO_LAYER);
        let (exec, rows, hidden) = (self.exec, self.rows(), self.hidden());
        let tokens = self.ops.list(self.pass.tokens.iter().copied());
        let scale = exec.model.scales.embedding;
        match &exec.pool.project_in {
            None => self.ops.embed(&exec.pool.embedding, tokens, rows, scale, exec.stream())?,
            Some(matrix) => {
                let narrow = Rows { buffer: &exec.buffers.projected, stride: matrix.width };
                self.ops.embed(&exec.pool.embedding, tokens, rows, scale, narrow)?;
                self.ops.matmul_single(matrix, rows, narrow, exec.stream())?;
            }
        }
        if let Some(positions) = &exec.pool.positions {
            let offset = exec.model.position_offset as u32;
            let numbers = self.ops.list(self.positions.iter().map(|position| position + offset));
            let branch = Rows { buffer: &exec.buffers.branch, stride: hidden };
            self.ops.embed(positions, numbers, rows, 1.0, branch)?;
            self.ops.residual_add([rows, hidden], Added::all(1.0), branch, exec.stream())?;
        }
        self.ops.look(rows, hidden, exec.stream())
    }

    /// The kernels of a layer for one group, or of several layers for all groups of a hop.
    pub fn layer(&mut self, groups: &[Group]) -> Result<()> {
        self.ops.layer = if let [group] = groups { group.layer } else { Call::NO_LAYER };
        let experts = |group: &Group| self.exec.model.kind(group.layer.into()).experts;
        let mixed = groups.iter().any(experts) && !groups.iter().all(experts);
        let together = !mixed && groups.iter().all(Group::together);
        let attends = groups.iter().any(|group| !group.attention.is_empty());
        let feeds = |group: &&Group| !group.feed_forward.is_empty();
        let keep: Vec<[u32; 2]> = groups.iter().flat_map(|group| group.keep.iter().copied()).collect();
        self.keep(&keep)?;
        self.project(groups)?;
        let mut kept = None;
        let mut normed = Vec::new();
        if attends {
            // Both branches read the stream as it came, and attention is about to add to it.
            if self.exec.model.placement.parallel() && !together {
                for some in [false, true] {
                    let taking: Vec<&Group> =
                        groups.iter().filter(|group| experts(group) == some).filter(feeds).collect();
                    normed.push(self.norm_ahead(&taking)?);
                }
            }
            kept = self.attention(groups, together)?;
        }
        for some in [false, true] {
            let taking: Vec<&Group> =
                groups.iter().filter(|group| experts(group) == some).filter(feeds).collect();
            if !taking.is_empty() {
                let ahead = normed.get(usize::from(some)).copied().flatten();
                self.feed_forward(&taking, some, kept.take(), ahead)?;
            }
        }
        Ok(())
    }

    /// Whether so many rows of so many groups are not simply all rows, side by side.
    fn moves(&self, rows: usize, groups: usize) -> bool {
        rows as u32 != self.rows() || groups > 1
    }

    /// The rows that take part, gathered where they must be.
    pub fn gather(&mut self, groups: usize, indices: Vec<u32>) -> Result<Taken<'a>> {
        if !self.moves(indices.len(), groups) {
            return Ok(Taken { x: self.exec.stream(), moved: None, normed: None });
        }
        let block = Rows { buffer: &self.exec.buffers.block, stride: self.hidden() };
        self.ops.gather(&indices, self.hidden(), self.exec.stream(), block)?;
        Ok(Taken { x: block, moved: Some(indices), normed: None })
    }

    /// A norm of the stream before a branch, into the room for normed rows; without norms, the rows as they are.
    pub fn norm_before(
        &mut self,
        norms: Option<&'a Norms>,
        segments: &[Segment],
        x: Rows<'a>,
        to: Rows<'a>,
    ) -> Result<Rows<'a>> {
        let before =
            !matches!(self.exec.model.placement, NormPlacement::AfterSum | NormPlacement::AfterBranch);
        let Some(norms) = norms.filter(|_| before) else { return Ok(x) };
        let layers = self.ops.layers(segments);
        self.ops.norm(self.normed(norms), (layers, rows_of(segments), segments.len() as u32), x, Some(to))?;
        Ok(to)
    }

    /// A norm in place, of rows that a mask takes.
    pub fn norm_in_place(
        &mut self,
        norms: &'a Norms,
        segments: &[Segment],
        x: Rows<'a>,
        mask: Option<&[u32]>,
    ) -> Result<()> {
        let of = |segment: &Segment| std::iter::repeat_n(segment.layer, segment.rows as usize);
        let layers: Vec<u32> = segments.iter().flat_map(of).collect();
        let masked = |(row, layer): (usize, u32)| match mask {
            Some(mask) if mask[row] == 0 => LEFT_ALONE,
            _ => layer,
        };
        let layers = self.ops.list(layers.into_iter().enumerate().map(masked));
        self.ops.norm(self.normed(norms), (layers, rows_of(segments), segments.len() as u32), x, None)
    }

    pub fn normed<'w>(&self, weights: &'w Norms) -> Normed<'w> {
        let norm = self.exec.model.norm;
        Normed { weights, layer: norm.layer, epsilon: norm.epsilon(), width: self.hidden() }
    }

    /// Room for normed rows.
    pub fn normed_rows(&self) -> Rows<'a> {
        Rows { buffer: &self.exec.buffers.normed, stride: self.hidden() }
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
        let (exec, model) = (self.exec, &self.exec.model);
        let mut x = self.gather(1, indices)?.x;
        if let Some(norms) = &exec.pool.final_norm {
            let (layers, to) = (self.ops.list(std::iter::repeat_n(0, rows as usize)), self.normed_rows());
            self.ops.norm(self.normed(norms), (layers, rows, 1), x, Some(to))?;
            x = to;
        }
        if let Some(matrix) = &exec.pool.project_out {
            let to = Rows { buffer: &exec.buffers.projected, stride: matrix.rows };
            self.ops.matmul_single(matrix, rows, x, to)?;
            x = to;
        }
        let vocabulary = model.outputs as u32;
        let logits = Rows { buffer: &exec.buffers.logits, stride: vocabulary };
        self.ops.matmul_single(exec.pool.head(), rows, x, logits)?;
        assert_eq!(self.pass.targets.len(), rows as usize, "a wanted token for each row of logits");
        let targets = self.ops.list(self.pass.targets.iter().copied());
        let (top, found, chosen) = (exec.options.top, &exec.buffers.found, &exec.buffers.chosen);
        let shape = Logits { scale: model.scales.logits, cap: model.scales.logit_cap };
        self.ops.sample(Sampled { rows, vocabulary, top, targets, shape, logits, found, chosen })?;
        Ok(rows)
    }
}

/// Rows of each group, with its layer.
pub(super) fn segments(groups: &[&Group], rows: impl Fn(&Group) -> usize) -> Vec<Segment> {
    groups.iter().map(|group| Segment { layer: group.layer.into(), rows: rows(group) as u32 }).collect()
}

pub(super) fn rows_of(segments: &[Segment]) -> u32 {
    segments.iter().map(|segment| segment.rows).sum()
}
