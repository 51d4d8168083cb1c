//! The smaller types that the methods are made of.

use crate::trace::{Router, RouterDevice, RouterKind, RouterWhen};
use serde::{Deserialize, Serialize};

/// What a static method keeps of the pool.
///
/// A depth is in blocks, 0 to the pool size, and is rounded to the nearest half (quarters go up). Where that leaves half
/// a block, the first of the removed layers keeps its feed-forward branch and loses only its attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Keep {
    /// All layers but these.
    AllBut(Vec<u32>),
    /// The first layers, down to this depth.
    DropLast {
        /// Blocks that stay.
        depth: f64,
    },
    /// The first and the last layers; with an odd number of whole blocks one more of the first.
    DropMiddle {
        /// Blocks that stay.
        depth: f64,
    },
}

/// Which layers of Mixture-of-Depths are routed; the others take every token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Routed {
    /// Layers 1, 3, 5, ... as in the paper's best models.
    EveryOther,
    /// Every layer.
    All,
    /// These layers.
    Layers(Vec<u32>),
}

/// Whether a skip takes a whole block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Branches {
    /// Attention and feed-forward are skipped together.
    Jointly,
    /// Each branch is skipped on its own, with the same probability.
    Separately,
}

/// Which tokens of [`super::Method::CorrelatedSkips`] share a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// Tokens of all requests that are the same number of tokens into their phase. In a closed batch these run together
    /// in decode, whatever the prompt lengths, so this is what narrows the union of a batch.
    Step,
    /// Tokens of all requests at the same position.
    Position,
    /// All tokens of the trace.
    All,
    /// A token and the one before it in its request: with probability `correlation` (no root) it takes the same route.
    /// Tokens k apart have correlation `correlation^k`; requests stay independent.
    Predecessor,
}

/// What repeated layers leave in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loops {
    /// K/V of each time.
    Own,
    /// K/V of the first time only (recursive sharing).
    Shared,
}

/// Which layer can follow which in a radial walk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Transitions {
    /// Any layer, each as likely, the same one included.
    Uniform,
    /// A layer at most `back` before or `ahead` after, each as likely, the same one included; cut at the ends of the pool.
    Banded {
        /// Layers back.
        back: u32,
        /// Layers ahead.
        ahead: u32,
    },
    /// Row l holds the weights of the layers that follow layer l, for instance counts of a trace. Rows need not add up to 1.
    /// A row of zeros ends the walk.
    Matrix(Vec<Vec<f64>>),
}

/// Where a radial walk starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Start {
    /// At this layer.
    Layer(u32),
    /// At any layer, each as likely.
    Uniform,
    /// By weight, one for each layer; they need not add up to 1.
    Weights(Vec<f64>),
}

/// What a router costs: goes into the header of the trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MethodRouter {
    /// Width of its MLP, at least 1. Absent: there is no MLP to compute.
    pub hidden: Option<u32>,
    /// Where it decides; a host router costs a read-back at each decision. Absent: `gpu`.
    pub device: RouterDevice,
}

impl Default for MethodRouter {
    fn default() -> Self {
        MethodRouter { hidden: None, device: RouterDevice::Gpu }
    }
}

impl MethodRouter {
    /// The header's router: `mlp` where it has one, else `otherwise`.
    pub(super) fn router(&self, otherwise: RouterKind, when: Option<RouterWhen>) -> Router {
        let kind = if self.hidden.is_some() { RouterKind::Mlp } else { otherwise };
        Router { kind, when, hidden: self.hidden, device: self.device, extra: serde_json::Map::new() }
    }
}
