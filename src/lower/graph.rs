//! The graph that a pass becomes: kernels on the device, launches and decisions on the host, read-backs between them.

use crate::cost::ExchangeCall;
use crate::hw::{ExchangeMode, ExchangePart, Operation};
use crate::kernel::{Class, Kernel};

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are what each variant's text names")]
pub enum Node {
    /// A kernel on the compute queue. `captured`: part of a captured graph, so that the host does not launch it.
    Kernel { kernel: Kernel, captured: bool },
    /// The devices that compute the model together exchange a message of so many bytes, on the compute queue.
    Collective { operation: Operation, bytes: u64, captured: bool },
    /// Tokens go to the devices of their experts, or come back, on the compute queue.
    Exchange { mode: ExchangeMode, part: ExchangePart, call: ExchangeCall, captured: bool },
    /// Zero time on the compute queue: all groups of a hop are done.
    Join,
    /// The host launches one kernel.
    Launch,
    /// The host launches a captured graph.
    LaunchGraph,
    /// A result is copied to the host, which waits for it.
    Readback { bytes: u32 },
    /// The host decides where tokens go next.
    Decide,
    /// The host goes on, as it has read what the device decided. Takes no time.
    Learn,
    /// Conditional nodes of a captured graph, on the compute queue.
    Conditions { count: u32 },
    /// A layer's weights come over the link to other memory.
    Fetch { bytes: u64 },
    /// KV entries go over the same link to the host, or come back.
    Swap { bytes: u64 },
    /// Zero time on the compute queue: what came over the link is there.
    Await,
}

impl Node {
    /// The class of what has a price.
    #[inline]
    pub fn class(&self) -> Option<Class> {
        match self {
            Node::Kernel { kernel, .. } => Some(kernel.class()),
            Node::Collective { .. } | Node::Exchange { .. } => Some(Class::Collective),
            _ => None,
        }
    }
}

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Embedding of the tokens.
    Embed,
    /// Attention branch of a visited layer.
    Attention,
    /// Feed-forward branch of a visited layer.
    FeedForward,
    /// An adapter in place of a skipped block.
    Adapter,
    /// KV entries of skipped layers.
    Kv,
    /// Routing decisions.
    Router,
    /// Rows gathered and scattered at group borders.
    Move,
    /// Final norm, head, sampling.
    Head,
    /// Host work: launches; and what comes over the link.
    Launch,
}

impl Cause {
    /// All causes with their names in reports.
    pub const ALL: [(Cause, &'static str); 9] = [
        (Cause::Embed, "embed"),
        (Cause::Attention, "attention"),
        (Cause::FeedForward, "feed_forward"),
        (Cause::Adapter, "adapter"),
        (Cause::Kv, "kv"),
        (Cause::Router, "router"),
        (Cause::Move, "gather_scatter"),
        (Cause::Head, "head"),
        (Cause::Launch, "launch"),
    ];
}

/// A node with its cause and its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What runs.
    pub node: Node,
    /// What for.
    pub cause: Cause,
    /// Layer of the pool; [`Call::NO_LAYER`] outside of layers, and for kernels that serve several.
    pub layer: u16,
}

impl Call {
    /// Not of one layer.
    pub const NO_LAYER: u16 = u16::MAX;
}

/// Calls in an order in which each follows what it waits for.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    calls: Vec<Call>,
    /// End of each call's predecessors in `predecessors`.
    ends: Vec<u32>,
    predecessors: Vec<u32>,
}

impl Graph {
    /// Adds a call that waits for `predecessors`; returns its index.
    #[inline]
    pub fn push(&mut self, call: Call, predecessors: &[u32]) -> u32 {
        let index = self.calls.len() as u32;
        self.calls.push(call);
        self.predecessors.extend_from_slice(predecessors);
        self.ends.push(self.predecessors.len() as u32);
        index
    }

    /// The calls in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// What call `index` waits for.
    #[inline]
    pub fn predecessors(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.predecessors[start as usize..self.ends[index] as usize]
    }

    /// Kernels among the calls.
    pub fn kernels(&self) -> impl Iterator<Item = (&Call, &Kernel)> {
        self.calls.iter().filter_map(|call| match &call.node {
            Node::Kernel { kernel, .. } => Some((call, kernel)),
            _ => None,
        })
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.ends.clear();
        self.predecessors.clear();
    }
}
