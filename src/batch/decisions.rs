//! How decisions that a router takes on the device become launches: the host must know which kernels to start, and for how many rows.

use serde::{Deserialize, Serialize};

/// How the host comes to know how many tokens take a layer, or does without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decisions {
    /// It knows beforehand: routes that are fixed, or that an oracle tells.
    #[default]
    Known,
    /// Every decision is read back before what follows it is launched.
    ReadBack,
    /// The same, but decisions about a layer are taken `ahead` layers before it, so that they come while those run (DejaVu, arXiv
    /// 2310.17157).
    Prefetch {
        /// Layers between decision and use.
        ahead: u32,
    },
    /// One graph holds every layer that any route takes; each runs for all rows of the pass, and results are masked.
    Padded,
    /// One graph with an IF node around each body that may be skipped (CUDA 12.4). A body runs for all rows of the pass.
    Conditional,
    /// One graph with a SWITCH node over the captured sizes around each body (CUDA 12.8).
    Switch,
    /// A layer takes a fixed share of the tokens, the router the best of them (Mixture-of-Depths, arXiv 2404.02258): the rows are known
    /// beforehand.
    Capacity {
        /// Share of the tokens of a pass, in (0, 1].
        share: f64,
    },
}

impl Decisions {
    /// Its name in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            Decisions::Known => "known",
            Decisions::ReadBack => "read_back",
            Decisions::Prefetch { .. } => "prefetch",
            Decisions::Padded => "padded",
            Decisions::Conditional => "conditional",
            Decisions::Switch => "switch",
            Decisions::Capacity { .. } => "capacity",
        }
    }

    /// Whether a captured pass is one graph with all layers in it, whatever the routes.
    pub fn one_graph(self) -> bool {
        matches!(
            self,
            Decisions::Padded | Decisions::Conditional | Decisions::Switch | Decisions::Capacity { .. }
        )
    }

    /// Whether the graph has conditional nodes.
    pub fn has_nodes(self) -> bool {
        matches!(self, Decisions::Conditional | Decisions::Switch)
    }

    /// Whether what was decided on the device is read back in a pass that is captured, or not.
    pub fn reads_back(self, captured: bool) -> bool {
        match self {
            Decisions::Known | Decisions::Capacity { .. } => false,
            Decisions::ReadBack | Decisions::Prefetch { .. } => true,
            // Only what is captured can hold all layers; other passes are launched kernel by kernel.
            Decisions::Padded | Decisions::Conditional | Decisions::Switch => !captured,
        }
    }

    /// Layers between a decision and its use.
    pub fn ahead(self) -> u32 {
        if let Decisions::Prefetch { ahead } = self { ahead } else { 0 }
    }
}
