//! The feed-forward branch of a pass, and what becomes of a branch's result.

use super::ops::{Rows, Segment};
use super::ops_choice::Choice;
use super::ops_stream::Added;
use super::pass::{Taken, Work, rows_of, segments};
use super::pass_io::Ratio;
use super::plan::{Group, Mask};
use super::pool::{ExpertStacks, Norms};
use super::shaders as s;
use crate::error::Result;
use crate::kernel::GROUP_SLICE;
use crate::lower::Cause;
use crate::model::{Activation, Experts, Gating, NormPlacement};

impl<'a> Work<'a, '_, '_> {
    /// Norms rows for a feed-forward branch that runs later, where attention is about to change the stream.
    pub(super) fn norm_ahead(&mut self, taking: &[&Group]) -> Result<Option<Rows<'a>>> {
        if taking.is_empty() {
            return Ok(None);
        }
        let segments = segments(taking, |group| group.feed_forward.len());
        self.ops.cause = Cause::Move;
        let x = self.gather(taking.len(), indices(taking))?.x;
        self.ops.cause = Cause::FeedForward;
        let to = Rows { buffer: &self.exec.buffers.ahead, stride: self.hidden() };
        self.norm_before(self.ffn_norms(), &segments, x, to).map(Some)
    }

    /// Norms before the feed-forward branch: those before attention where one serves both.
    fn ffn_norms(&self) -> Option<&'a Norms> {
        let pool = &self.exec.pool;
        match self.exec.model.placement {
            NormPlacement::Parallel => pool.attention_norms.as_ref(),
            _ => pool.ffn_norms.as_ref(),
        }
    }

    /// `experts`: whether all these groups' layers have experts; else none has. `kept`: rows that stay gathered from attention; `ahead`:
    /// rows normed before attention.
    pub(super) fn feed_forward(
        &mut self,
        taking: &[&Group],
        experts: bool,
        kept: Option<Taken<'a>>,
        ahead: Option<Rows<'a>>,
    ) -> Result<()> {
        let (exec, hidden) = (self.exec, self.hidden());
        let segments = segments(taking, |group| group.feed_forward.len());
        self.ops.cause = Cause::Move;
        let taken = match kept {
            Some(kept) => kept,
            None => self.gather(taking.len(), indices(taking))?,
        };
        let x = taken.x;
        self.ops.cause = Cause::FeedForward;
        let normed = match ahead.or(taken.normed) {
            Some(normed) => normed,
            None => {
                let to = self.normed_rows();
                self.norm_before(self.ffn_norms(), &segments, x, to)?
            }
        };
        let branch = Rows { buffer: &exec.buffers.branch, stride: hidden };
        match (&exec.pool.experts, exec.model.experts) {
            (Some(stacks), Some(shape)) if experts => {
                self.experts(stacks, &shape, &segments, normed, branch)?;
            }
            _ => self.dense(&segments, normed, branch)?,
        }
        let mask = taking[0].masks.as_ref().map(|masks| masks.of(1));
        let weights = taking.iter().flat_map(|group| group.weights.iter().copied()).collect();
        let norms = [exec.pool.ffn_after.as_ref(), exec.pool.ffn_norms.as_ref()];
        self.add(&segments, branch, x, (mask, weights), norms, 1)?;
        if let Some(indices) = taken.moved {
            self.ops.cause = Cause::Move;
            self.ops.scatter(&indices, hidden, x, exec.stream())?;
        }
        Ok(())
    }

    /// Rows of each layer, with its place among those with experts, or without.
    fn placed(&self, segments: &[Segment]) -> Vec<Segment> {
        let places = &self.exec.pool.places;
        let place = |segment: &Segment| Segment { layer: places[segment.layer as usize], ..*segment };
        segments.iter().map(place).collect()
    }

    fn dense(&mut self, segments: &[Segment], normed: Rows<'a>, branch: Rows<'a>) -> Result<()> {
        let (exec, rows) = (self.exec, rows_of(segments));
        let parts = exec.pool.dense.as_ref().expect("a layer without experts has a part of its own");
        let placed = self.placed(segments);
        let (width, ffn) = (parts.up.rows, parts.down.width);
        let wide = Rows { buffer: &exec.buffers.wide, stride: width };
        self.ops.matmul(&parts.up, 0..width, &placed, normed, wide)?;
        let narrow = Rows { buffer: &exec.buffers.narrow, stride: ffn };
        self.ops.activation(self.activation_kind(), exec.model.gated, rows, ffn, wide, narrow)?;
        self.ops.matmul(&parts.down, 0..parts.down.rows, &placed, narrow, branch)
    }

    /// Each row goes to the experts that its scores choose, once for each; their results are summed by shares.
    fn experts(
        &mut self,
        stacks: &ExpertStacks,
        shape: &Experts,
        segments: &[Segment],
        normed: Rows<'a>,
        branch: Rows<'a>,
    ) -> Result<()> {
        let (exec, rows, top) = (self.exec, rows_of(segments), shape.per_token as u32);
        let placed = self.placed(segments);
        let buffers = &exec.buffers;
        let layers = self.ops.layers(&placed);
        let choice = Choice {
            top,
            sigmoid: shape.gating == Gating::Sigmoid,
            normalised: shape.normalised,
            scale: shape.scale,
        };
        let scores = Rows { buffer: &buffers.scores, stride: stacks.router.rows };
        let groups = (layers, rows, segments.len() as u32);
        let chosen =
            self.ops.choose_experts(&stacks.router, choice, groups, normed, scores, &buffers.shares)?;
        let hidden = self.hidden();
        let spread = Rows { buffer: &buffers.spread, stride: hidden };
        let sources: Vec<u32> = (0..rows).flat_map(|row| std::iter::repeat_n(row, top as usize)).collect();
        self.ops.gather(&sources, hidden, normed, spread)?;
        let parts = &stacks.parts;
        let call = spread_over(shape, segments.iter().map(|segment| segment.rows));
        let wide = Rows { buffer: &buffers.wide, stride: parts.up.rows };
        self.ops.matmul_listed(&parts.up, chosen, call, spread, wide)?;
        let narrow = Rows { buffer: &buffers.narrow, stride: parts.down.width };
        let kind = self.activation_kind();
        self.ops.activation(kind, exec.model.gated, call.0, parts.down.width, wide, narrow)?;
        self.ops.matmul_listed(&parts.down, chosen, call, narrow, spread)?;
        self.ops.sum_experts([rows, hidden, top], spread, &buffers.shares, branch)
    }

    /// The branch's result joins the stream: for all rows, for those that a mask takes, or as an oracle decides; times the weight of each
    /// row, where there are weights. `norms`: those behind
    /// the branch, and those behind the sum; which there are is the model's to say.
    pub(super) fn add(
        &mut self,
        segments: &[Segment],
        branch: Rows<'a>,
        x: Rows<'a>,
        (mask, weights): (Option<Mask>, Vec<f32>),
        norms: [Option<&'a Norms>; 2],
        half: u32,
    ) -> Result<()> {
        let (exec, width, rows) = (self.exec, self.hidden(), rows_of(segments));
        let [behind, sum] = norms;
        if let Some(norms) = behind {
            self.norm_in_place(norms, segments, branch, None)?;
        }
        // A mask that takes every row is none.
        let mask = mask.filter(|mask| !matches!(mask, Mask::Known(rows) if !rows.contains(&0)));
        let scale = exec.model.scales.residual;
        if let Some(oracle) = self.pass.oracle {
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
                scale: scale as f32,
            };
            let buffers = &exec.buffers;
            let (starts, records) = (&buffers.starts, &buffers.records);
            self.ops.residual_oracle(parameters, branch.buffer, x.buffer, starts, records)?;
        } else {
            let at = mask.map(|mask| match mask {
                Mask::Known(rows) => self.ops.list(rows.iter().copied()),
                Mask::Decided(at) => at,
            });
            let weighted = !weights.is_empty();
            let weights = weighted.then(|| self.ops.list(weights.iter().map(|weight| weight.to_bits())));
            let added = Added { scale, mask: at, weights };
            self.ops.residual_add([rows, width], added, branch, x)?;
        }
        if let Some(norms) = sum.filter(|_| exec.model.placement == NormPlacement::AfterSum) {
            let known = mask.map(|mask| match mask {
                Mask::Known(rows) => rows,
                Mask::Decided(_) => unreachable!("norms behind sums are refused where the device decides"),
            });
            self.norm_in_place(norms, segments, x, known)?;
        }
        self.ops.look(rows, width, x)
    }

    pub(super) fn activation_kind(&self) -> u32 {
        match self.exec.model.activation {
            Activation::Silu => 0,
            Activation::Gelu => 1,
            Activation::Relu => 2,
            Activation::GeluErf => 3,
            Activation::QuickGelu => 4,
            Activation::Relu2 => 5,
            Activation::Other => unreachable!("refused when a model is put on a device"),
        }
    }
}

fn indices(taking: &[&Group]) -> Vec<u32> {
    taking.iter().flat_map(|group| group.feed_forward.iter().copied()).collect()
}

/// Rows of the products of experts, experts that take part, and slices of their rows, as far as one can say before they are chosen: each
/// layer's rows take so many experts on average, evenly.
fn spread_over(shape: &Experts, rows: impl Iterator<Item = u32>) -> (u32, u32, u32) {
    let of_layer = |rows: u32| {
        let (all, taken) = (rows * shape.per_token as u32, shape.taken(rows) as u32);
        (all, taken, taken.max(all.div_ceil(GROUP_SLICE)))
    };
    rows.map(of_layer).fold((0, 0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2))
}
