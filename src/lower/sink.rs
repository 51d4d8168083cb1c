//! Where the calls of a pass go: into a graph that is run event by event, or into a sum of prices.

use super::graph::{Call, Graph};

/// A stretch of calls that is the same whenever its key is: the kernels between two attention calls, say. Its launches are
/// part of it; nothing in it reads a context, waits for a read-back or depends on the layer's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// What the stretch does.
    pub part: StretchPart,
    /// Whether the host launches each kernel, rather than a captured graph.
    pub eager: bool,
    /// Whether the rows are gathered before and scattered behind.
    pub moved: bool,
    /// Whether the rows stay gathered from the attention branch to the feed-forward branch.
    pub together: bool,
    /// Whether a layer rotates queries and keys.
    pub rotate: bool,
    /// Kind of the layers, as the model counts kinds; 255 where they differ.
    pub kind: u8,
    /// Rows that take part, padded.
    pub rows: u32,
    /// Groups that they come in, and slices of these groups.
    pub groups: u32,
    /// Slices of at most [`crate::kernel::GROUP_SLICE`] rows into which the groups fall; 0 for a single group.
    pub slices: u32,
    /// Width of a feed-forward part, or how many experts take part; 0 for others.
    pub width: u32,
    /// Slices of the rows of experts; 0 for others.
    pub taken: u32,
}

impl Stretch {
    /// All of it in three words, as a pass looks up some stretches at every layer. The lowest four bits are the flags.
    #[inline]
    pub fn words(&self) -> (u64, u64, u64) {
        let flags = [self.eager, self.moved, self.together, self.rotate]
            .iter()
            .fold(0, |bits, &flag| bits << 1 | u64::from(flag));
        let kind = u64::from(self.kind);
        (
            u64::from(self.rows) << 32 | kind << 16 | (self.part as u64) << 8 | flags,
            u64::from(self.groups) << 32 | u64::from(self.slices),
            u64::from(self.taken) << 32 | u64::from(self.width),
        )
    }
}

/// The stretches of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StretchPart {
    /// Embedding, before all layers.
    Embed,
    /// Head and sampling, behind all layers.
    Head,
    /// K and V of tokens that skip the attention branch.
    Project,
    /// Norm for a feed-forward branch before attention adds to the stream, where both read the same.
    NormAhead,
    /// Attention branch up to the scores.
    AttentionHead,
    /// Attention branch behind the scores.
    AttentionTail,
    /// Feed-forward branch.
    FeedForward,
    /// Feed-forward branch of layers with experts.
    Experts,
    /// Adapter in place of a block.
    Adapter,
}

/// Takes the calls of a pass in order.
pub trait Sink {
    /// Takes a call that waits for `predecessors`, numbers of earlier calls. Returns its number.
    fn push(&mut self, call: Call, predecessors: &[u32]) -> u32;

    /// A stretch begins. True: it is known and has been taken as a whole; its calls do not come.
    #[inline]
    fn begin(&mut self, _stretch: Stretch) -> bool {
        false
    }
    /// The calls of the stretch have come.
    #[inline]
    fn end(&mut self) {}

    /// What comes now, up to [`Sink::end_repeat`], is run so many times in a row; it ends in the state in which it begins. False: each time is to come by
    /// itself.
    #[inline]
    fn repeat(&mut self, _times: u64) -> bool {
        false
    }
    /// What is repeated has come.
    #[inline]
    fn end_repeat(&mut self) {}

    /// Branches begin that do not wait for each other.
    #[inline]
    fn fork(&mut self) {}
    /// A branch is complete.
    #[inline]
    fn branch(&mut self) {}
    /// What follows waits for all branches.
    #[inline]
    fn join(&mut self) {}
}

impl Sink for Graph {
    #[inline]
    fn push(&mut self, call: Call, predecessors: &[u32]) -> u32 {
        Graph::push(self, call, predecessors)
    }
}
