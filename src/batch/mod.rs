//! What runs together: the tokens of one pass, their routes compiled for speed, and what each can attend to.
//!
//! A [`Span`] is one sequence's part of a pass: many tokens of a prompt, or one token of a generation. `sched` makes
//! batches, `lower` turns them into kernels, and neither knows the other.

mod context;
mod decisions;
mod expert_ids;
mod lanes;
mod loads;
mod path;
mod paths;

pub use crate::model::Visibility;
pub use context::Context;
pub use decisions::Decisions;
pub use expert_ids::ExpertIds;
pub use lanes::{AtLayer, LaneSums};
pub use loads::{ExchangeChoice, ExpertCounts, ExpertLoads, ExpertUse, LayerLoads};
pub use path::{Entries, Hop, Left, Path, Skip};
pub use paths::Paths;

use crate::trace::Taken;
use serde::{Deserialize, Serialize};

/// Consecutive tokens of one sequence in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Slot of the sequence: index of its [`Context`].
    pub sequence: u32,
    /// First of its tokens in [`Batch::paths`].
    pub first: u32,
    /// Tokens.
    pub tokens: u32,
    /// Whether it is one token of a generation (with a decode attention kernel).
    pub decode: bool,
    /// Tokens whose logits are needed in this pass.
    pub logits: u32,
    /// Part of the route that runs in this pass. All policies but `queued` run the whole route.
    pub part: Part,
}

/// Sequences that generate in lockstep, counted rather than listed: each takes a token on one path, and sees an entry of every earlier token at
/// each layer that the path attends to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockstep {
    /// The path: a number of [`Paths`].
    pub path: u32,
    /// Sequences, each with one token, whose logits are needed.
    pub count: u32,
    /// Tokens that have passed, over all of them.
    pub positions: u64,
    /// Entries that the longest of them see, their own counted, descending; as many as are wanted.
    pub longest: Vec<u32>,
    /// Tokens that have passed of each, and the branches that its token takes, where these are fewer than those of the path.
    pub each: Vec<(u32, Taken)>,
}

/// Which hops of its route a token takes in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whether the embedding runs first.
    pub enters: bool,
    /// First hop.
    pub from: u32,
    /// Hop after the last; [`Part::END`] for all that are left.
    pub to: u32,
}

impl Part {
    /// All hops are taken, and what the token leaves behind its last hop too.
    pub const END: u32 = u32::MAX;
    /// The whole route.
    pub const WHOLE: Part = Part { enters: true, from: 0, to: Part::END };
}

/// The tokens of one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// One for each sequence in the pass.
    pub spans: Vec<Span>,
    /// Path of each token, span after span: an index of [`Paths`].
    pub paths: Vec<u32>,
    /// Sequences that are not among the spans.
    pub lockstep: Vec<Lockstep>,
    /// Branches that each token of the spans takes, where these are fewer than those of its path. A pass has them for all of its tokens or for
    /// none.
    pub taken: Vec<Taken>,
    /// Tokens whose states are on the device, where they are more than the tokens of the pass: those that wait in queues.
    pub waiting: u32,
    /// KV bytes that go to the host or come back before anything of the pass runs.
    pub swapped_bytes: u64,
}

impl Batch {
    /// Tokens in all.
    pub fn tokens(&self) -> u32 {
        self.paths.len() as u32 + self.in_lockstep()
    }

    /// Sequences that generate in lockstep.
    pub fn in_lockstep(&self) -> u32 {
        self.lockstep.iter().map(|group| group.count).sum()
    }

    /// Whether its tokens take some branches of their paths only.
    pub fn takes_some(&self) -> bool {
        !self.taken.is_empty() || self.lockstep.iter().any(|group| !group.each.is_empty())
    }

    /// Sequences in all.
    pub fn sequences(&self) -> u32 {
        self.spans.len() as u32 + self.in_lockstep()
    }

    /// Sequences that generate a token.
    pub fn generating(&self) -> u32 {
        self.spans.iter().filter(|span| span.decode).count() as u32 + self.in_lockstep()
    }

    /// Whether anybody reaches the head.
    pub fn ends(&self) -> bool {
        !self.lockstep.is_empty() || self.spans.iter().any(|span| span.part.to == Part::END)
    }

    /// Whether nobody is in the pass.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.lockstep.is_empty()
    }

    /// Tokens that reach the head and whose logits are needed.
    pub fn logits(&self) -> u32 {
        let leaving = self.spans.iter().filter(|span| span.part.to == Part::END);
        leaving.map(|span| span.logits).sum::<u32>() + self.in_lockstep()
    }

    /// Paths of the tokens of a span.
    pub fn paths_of(&self, span: &Span) -> &[u32] {
        &self.paths[span.first as usize..(span.first + span.tokens) as usize]
    }

    /// Adds a span with these paths.
    pub fn push(
        &mut self,
        sequence: u32,
        paths: impl IntoIterator<Item = u32>,
        decode: bool,
        logits: u32,
        part: Part,
    ) {
        let first = self.paths.len() as u32;
        self.paths.extend(paths);
        let tokens = self.paths.len() as u32 - first;
        self.spans.push(Span { sequence, first, tokens, decode, logits, part });
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.paths.clear();
        self.lockstep.clear();
        self.taken.clear();
        self.waiting = 0;
        self.swapped_bytes = 0;
    }
}

/// Neighbours on one path, with how many they are.
pub fn in_runs(paths: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    let one = all_alike(paths);
    let (whole, parts) = if one { (Some(paths), &[][..]) } else { (None, paths) };
    let runs = whole.into_iter().chain(parts.chunk_by(|a, b| a == b));
    runs.map(|run| (run[0], run.len() as u32))
}

/// Whether there are tokens, and all of them are on one path: a comparison of memory, many tokens at a time.
#[inline]
pub fn all_alike(paths: &[u32]) -> bool {
    !paths.is_empty() && paths[1..] == paths[..paths.len() - 1]
}

/// How tokens with different next layers share the machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Policy {
    /// Every layer that any token needs is run for the whole batch; results are masked.
    DenseMasked,
    /// Layer by layer in pool order, only the tokens that take it. Needs monotone routes.
    Aligned,
    /// At each hop, one group for each next layer, each with its own kernels.
    Hop,
    /// As `hop`, all groups of a hop in one grouped kernel.
    Grouped,
    /// A queue for each layer, run when it holds `full` tokens or when its oldest has waited `wait_us`; no barrier
    /// between hops or between steps.
    Queued {
        /// Tokens at which a queue is run at once.
        full: u32,
        /// Longest wait in microseconds.
        wait_us: f64,
        /// Which queues wait to fill up.
        #[serde(default)]
        hold: Hold,
    },
}

/// Which queues wait to fill up while there is other work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// All.
    #[default]
    Always,
    /// Those for which it pays: that will be full, at the rate at which tokens have come to them so far, before the device
    /// could have read the weights of all layers from there to the head, which is what a run of its own costs beside a joint one. The
    /// others run at once. A test before each regrouping, as DREX has one (arXiv 2512.15705); the criterion is our own.
    IfProfitable,
}

impl Policy {
    /// Its name in scenarios and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Policy::DenseMasked => "dense_masked",
            Policy::Aligned => "aligned",
            Policy::Hop => "hop",
            Policy::Grouped => "grouped",
            Policy::Queued { .. } => "queued",
        }
    }
}
