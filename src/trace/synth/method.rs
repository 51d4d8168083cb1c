//! The methods: what a scenario file says about how tokens choose their layers.

use super::count::Count;
use super::{Branches, Keep, Loops, MethodRouter, Routed, Share, Start, Transitions};
use crate::trace::{KvAction, Order};
use serde::{Deserialize, Serialize};

/// A way in which tokens choose their layers, as written in a scenario file. The pool size is not part of it.
///
/// Depths are in whole blocks; a branch alone counts one half. Layer ids count from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Method {
    /// Every layer, in order.
    Dense,
    /// Layers removed once and for all: one route for all tokens. KV `write`, no router.
    StaticDepth {
        /// What stays.
        keep: Keep,
    },
    /// Feed-forward rows removed once and for all: every step carries `@keep`. KV `write`, no router.
    StaticWidth {
        /// Fraction of the feed-forward width that stays, in (0, 1].
        keep: f32,
    },
    /// A token leaves after some layers (CALM, arXiv 2207.07061): its route is a prefix of the pool.
    ///
    /// The router is a threshold, evaluated once at each possible exit that a token reaches; the mark `+r` stands on the
    /// last layer before the exit, so that tokens that leave there carry it too.
    EarlyExit {
        /// Number of layers run, 1 to the pool size, drawn for each token on its own.
        exits: Count,
        /// What a token leaves in the layers after its exit; not `unified`. With `deferred`, a `recompute` run fills the
        /// missing layers of all waiting tokens just before the first later token that goes deeper than one of them
        /// exited; this asks for `dense_prefill`.
        kv: KvAction,
        /// Whether prompt tokens take every layer. Absent: false.
        #[serde(default)]
        dense_prefill: bool,
        /// The confidence measure. Absent: no MLP, on the accelerator.
        #[serde(default)]
        router: MethodRouter,
    },
    /// Mixture-of-Depths (arXiv 2404.02258): a routed layer takes a fixed number of tokens. KV `none`; the router is
    /// `expert_choice` before each layer, and names the routed layers under the key `routed_layers`.
    ///
    /// The positions of a request are cut into windows of `window`. At a routed layer exactly
    /// `floor(capacity * end) - floor(capacity * start)` tokens of the window `start..end` take the layer, drawn without
    /// replacement and for each layer on its own. So after each whole window the count is `floor(capacity * positions)`,
    /// and each window has the same count where `capacity * window` is whole.
    MixtureOfDepths {
        /// Fraction of tokens that a routed layer takes, in [0, 1].
        capacity: f64,
        /// Which layers are routed.
        routed: Routed,
        /// Positions in a window, at least 1.
        window: u32,
    },
    /// Each token skips each layer with the same probability, whatever the other tokens and layers do.
    ///
    /// Of a batch of B tokens, the expected fraction of layers that some token visits is `1 - skip^B`.
    IndependentSkips {
        /// Probability of a skip.
        skip: f64,
        /// Whether both branches of a block are skipped together.
        branches: Branches,
        /// Layers that every token takes whole. Absent: none.
        #[serde(default)]
        keep: Vec<u32>,
        /// What a token leaves in layers that it skips; not `deferred`, not `unified`. FlexiDepth (arXiv 2503.23798): `project_only`.
        kv: KvAction,
        /// Whether prompt tokens take every layer. Absent: false.
        #[serde(default)]
        dense_prefill: bool,
        /// The router, which decides before each layer. Absent: an oracle that costs nothing.
        #[serde(default)]
        router: MethodRouter,
    },
    /// As [`Method::IndependentSkips`], but tokens that share a mask tend to skip the same layers.
    ///
    /// `correlation` is the correlation between the skips of two such tokens at one layer. A token takes the shared route
    /// with probability r = sqrt(correlation), else one of its own. Of B tokens that share, all skip a layer with
    /// probability `s (r + (1-r) s)^B + (1-s) ((1-r) s)^B`, where s is `skip`. See [`Share`] for `Predecessor`.
    CorrelatedSkips {
        /// Probability of a skip; the same as without correlation.
        skip: f64,
        /// 0: independent. 1: tokens that share are alike.
        correlation: f64,
        /// Which tokens share.
        share: Share,
        /// Whether both branches of a block are skipped together.
        branches: Branches,
        /// Layers that every token takes whole. Absent: none.
        #[serde(default)]
        keep: Vec<u32>,
        /// What a token leaves in layers that it skips; not `deferred`, not `unified`.
        kv: KvAction,
        /// Whether prompt tokens take every layer. Absent: false.
        #[serde(default)]
        dense_prefill: bool,
        /// The router, which decides before each layer. Absent: an oracle that costs nothing.
        #[serde(default)]
        router: MethodRouter,
    },
    /// A block of layers run several times (Mixture-of-Recursions, arXiv 2507.10524): `0 1 2 1 2 3`. Order `any`, reuse.
    ///
    /// The repeated block is the pool without its first `prefix` and last `suffix` layers, and has at least one layer.
    Recursion {
        /// Layers before the repeated block, run once.
        prefix: u32,
        /// Layers after the repeated block, run once.
        suffix: u32,
        /// Times that a token goes through the repeated block, 1 to 1000.
        times: Count,
        /// `Own`: each time writes K/V of its own. `Shared`: the second and later times carry `!share`.
        kv: Loops,
        /// Decides once a token, and only where `times` is drawn. Absent: an oracle that costs nothing.
        #[serde(default)]
        router: MethodRouter,
    },
    /// A walk through the pool in any order (Radial Networks, arXiv 2404.04900). The router decides before each hop.
    ///
    /// The number of hops is drawn first, then the walk. It ends early where no layer can follow.
    Radial {
        /// Which layer follows which.
        transitions: Transitions,
        /// The first layer.
        start: Start,
        /// Hops of a token, 0 to 65535.
        hops: Count,
        /// Longest route: a walk is cut here. Absent: no bound.
        #[serde(default)]
        max_hops: Option<u32>,
        /// Whether a token may visit a layer again. Absent: true.
        #[serde(default = "yes")]
        reuse: bool,
        /// What later tokens can attend to. Absent: `unified`; not `deferred`.
        #[serde(default = "unified")]
        kv: KvAction,
        /// The router. Absent: an oracle that costs nothing.
        #[serde(default)]
        router: MethodRouter,
    },
    /// Self-speculation (LayerSkip, arXiv 2404.16710). The prompt is dense; generation goes in rounds. KV `write`.
    ///
    /// A round that starts at position f is a `draft` run of d one-token passes through layers `0..exit_layer` at
    /// positions f to f+d-1, then a `verify` run of d+1 tokens at f to f+d: layers `exit_layer..` for the d tokens that
    /// were drafted from, and every layer for the last one, which so far ran nowhere. The token at f is certain, so the
    /// round moves on by 1 plus the accepted drafts, 1 to d+1 positions.
    ///
    /// Drafts are accepted one after the other with probability p until the first rejection. p is solved so that
    /// `p + p^2 + ... + p^d = d * acceptance`: the expected number of accepted drafts of a full round is d a, and of
    /// tokens d a + 1, as in the paper's ideal speed-up. With r positions to go, at most r - 1 drafts are made; the
    /// last rounds are shorter for it, and a last single position is one ordinary dense token.
    DraftVerify {
        /// Layers of the draft pass, 1 to the pool size less 1.
        exit_layer: u32,
        /// Drafts of a full round (d), 1 to 1024.
        drafts: u32,
        /// Mean fraction of drafts accepted (a), in [0, 1].
        acceptance: f64,
    },
}

fn yes() -> bool {
    true
}

fn unified() -> KvAction {
    KvAction::Unified
}

impl Method {
    /// The order of the layers in its routes, and whether a token may visit one again.
    pub fn order(&self) -> (Order, bool) {
        match self {
            Method::Recursion { .. } => (Order::Any, true),
            Method::Radial { reuse, .. } => (Order::Any, *reuse),
            _ => (Order::Monotone, false),
        }
    }

    /// The name of the variant, for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Method::Dense => "Dense",
            Method::StaticDepth { .. } => "StaticDepth",
            Method::StaticWidth { .. } => "StaticWidth",
            Method::EarlyExit { .. } => "EarlyExit",
            Method::MixtureOfDepths { .. } => "MixtureOfDepths",
            Method::IndependentSkips { .. } => "IndependentSkips",
            Method::CorrelatedSkips { .. } => "CorrelatedSkips",
            Method::Recursion { .. } => "Recursion",
            Method::Radial { .. } => "Radial",
            Method::DraftVerify { .. } => "DraftVerify",
        }
    }
}
