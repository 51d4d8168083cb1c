//! What goes into a pass, and what comes out of it.

use super::ops::ExecutedKernel;
use super::recording::Timing;
use crate::batch::{Batch, Context, Paths, Policy, Visibility};
use bytemuck::{Pod, Zeroable};

/// A branch is left out where its ratio is below a threshold. Only what was computed can be measured, so this saves nothing;
/// it says what a router could save.
#[derive(Clone, Debug, PartialEq)]
pub struct Oracle {
    /// Threshold of the attention branch.
    pub attention: f64,
    /// Threshold of the feed-forward branch.
    pub feed_forward: f64,
    /// What the branch's length is measured against.
    pub ratio: Ratio,
    /// Layers that are never skipped.
    pub always: Vec<u32>,
}

/// A branch's length over another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// Over the stream with the branch added.
    OverOutput,
    /// Over the stream before it.
    OverInput,
}

/// A pass to run.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Who runs, and on which routes.
    pub batch: &'a Batch,
    /// Token of each row.
    pub tokens: &'a [u32],
    /// For rows that reach the head: the token whose logit is wanted, 0 where none is.
    pub targets: &'a [u32],
    /// The compiled routes.
    pub paths: &'a Paths,
    /// Whether routes ascend through the pool.
    pub monotone: bool,
    /// What each sequence holds before the pass.
    pub contexts: &'a [Context],
    /// Position of the first token of each span.
    pub starts: &'a [u32],
    /// What attention sees in a unified cache.
    pub visibility: Visibility,
    /// Who runs together.
    pub policy: Policy,
    /// Decides on the device what of the routes counts.
    pub oracle: Option<&'a Oracle>,
    /// Whether every kernel is timed.
    pub timed: bool,
}

/// What the head said of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Logarithm of the sum of exponentials of the logits.
    pub log_sum: f32,
    /// Logit of the wanted token.
    pub target: f32,
    /// Logits that are infinite or not numbers.
    pub infinite: u32,
    /// Likeliest tokens with their logits.
    pub top: Vec<(u32, f32)>,
}

/// What a branch did to a row. Squared lengths; see `residual_oracle.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct BranchRecord {
    /// Of the branch.
    pub branch: f32,
    /// Of the stream before it.
    pub input: f32,
    /// Of the stream with the branch added.
    pub output: f32,
    /// Of what the block has added so far.
    pub added: f32,
    /// Product of the block's input and the stream so far.
    pub along: f32,
    /// Of the block's input.
    pub start: f32,
    /// 1 where the branch was added, else 0.
    pub taken: f32,
    /// The ratio that decided.
    pub ratio: f32,
}

/// What came of a pass.
#[derive(Clone, Debug)]
pub struct PassOutcome {
    /// For each row that reached the head.
    pub chosen: Vec<Chosen>,
    /// For each row, attention and feed-forward branch of each layer; empty without an oracle.
    pub records: Vec<BranchRecord>,
    /// The kernels in order.
    pub kernels: Vec<ExecutedKernel>,
    /// When they ran; without `timed`, the host's clock alone.
    pub timing: Timing,
    /// Device commands of the pass.
    pub dispatches: u32,
    /// Host's clock from the begin of the pass to its result, in seconds.
    pub host_s: f64,
}

/// Recordings of a pass, added up.
#[derive(Default)]
pub(super) struct PassSum {
    pub kernels: Vec<ExecutedKernel>,
    pub timing: Timing,
    pub dispatches: u32,
}

impl PassSum {
    pub fn add(&mut self, (kernels, timing, dispatches): (Vec<ExecutedKernel>, Timing, u32)) {
        let first = self.dispatches;
        self.kernels
            .extend(kernels.into_iter().map(|done| ExecutedKernel { first: done.first + first, ..done }));
        self.timing.host_s += timing.host_s;
        self.timing.kernels_ns.extend(timing.kernels_ns);
        self.dispatches += dispatches;
    }

    pub fn outcome(self, chosen: Vec<Chosen>) -> PassOutcome {
        let PassSum { kernels, timing, dispatches } = self;
        PassOutcome { chosen, records: Vec::new(), kernels, host_s: timing.host_s, timing, dispatches }
    }
}
