//! What to compare: a model, a device, a workload, a serving policy, and the variants. Scenarios are RON files; any key
//! can be set anew from the command line by its path.

mod build;
mod choice;
mod context;
mod data;
mod doubts;
mod experts;
mod fleet;
mod footprint;
mod formats;
mod inputs;
mod later;
mod launches;
mod load;
mod matters;
mod network;
mod note;
mod parallel;
mod placing;
mod published;
mod quick;
mod run;
mod set;
mod shared;
mod split;
mod words;

pub use build::Built;
pub use choice::LayerChoice;
pub use experts::ExpertsSpec;
pub use footprint::Footprint;
pub use formats::{Formats, Products};
pub use inputs::{Inputs, KINDS, ReadInput, digest};
pub use launches::OWN;
pub use matters::{Moved, STEP, matters};
pub use note::{About, Note};
pub use published::{Predicted, PublishedRow, published};
pub use quick::{Quick, RouteSource};
pub use run::{GROWS, LEVEL, Outcome, Progress, SeedRun, VariantOutcome, run, run_with};
pub use split::{ApartSpec, ParallelSpec, PlacementSpec};
pub use words::token_count;

use crate::batch::{Decisions, Policy, Visibility};
use crate::metrics::{Slo, WarmUp};
use crate::sched::Serving;
use crate::sim::Fidelity;
use crate::tier::Tiers;
use crate::trace::synth::Method;
use crate::trace::{RouterDevice, RouterKind, RouterWhen};
use crate::workload::{FileSpec, RequestsSpec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Output tokens of a variant up to which every kernel is an event unless a scenario says otherwise: about a second's work.
pub const SHORT_RUN_TOKENS: u64 = 20_000;

/// A comparison: one table, a row for each variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Title of the table.
    pub title: String,
    /// A built-in model, or a Hugging Face `config.json` (file or folder).
    pub model: String,
    /// Number formats; absent, as a whole or one of them: the model's own.
    #[serde(default)]
    pub formats: Option<Formats>,
    /// A shipped device, or a profile file.
    pub hardware: String,
    /// Whose host times count, by the name of an engine; absent, or `profile`: those of the device's profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Who arrives, on which routes.
    pub workload: Workload,
    /// How batches form.
    pub serving: Serving,
    /// How passes become kernels, unless a variant says otherwise.
    pub dispatch: DispatchSpec,
    /// How layers come to the device, where not all of them stay there; absent: all stay.
    #[serde(default)]
    pub tiers: Option<Tiers>,
    /// Caps on power and clock, of each device.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// How the model is split over devices; absent: one device has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<ParallelSpec>,
    /// Which experts tokens take, where the model has some; absent: all are equally likely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertsSpec>,
    /// What is an event; absent: every kernel in short runs, every pass in runs of more than [`SHORT_RUN_TOKENS`].
    #[serde(default)]
    pub fidelity: Option<Fidelity>,
    /// Bounds on the times of a request, for the goodput.
    #[serde(default)]
    pub slo: Slo,
    /// How the warm-up is told, whose requests are left out of the times of requests; absent: all requests count.
    #[serde(default)]
    pub warm_up: Option<WarmUp>,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// How many seeds each variant runs with, from `seed` on.
    #[serde(default = "one")]
    pub seeds: u32,
    /// What is compared; savings are against the first.
    pub variants: Vec<Variant>,
    /// Folder that relative paths start from: that of the scenario file.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Keys set anew under `hardware.` and `shape.`, with their values.
    #[serde(skip)]
    pub overrides: Vec<(String, serde_json::Value)>,
    /// Who set them.
    #[serde(skip)]
    pub set_by: SetBy,
}

/// Who sets keys of a scenario anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetBy {
    /// `--set KEY=VALUE`.
    #[default]
    CommandLine,
    /// An axis of a study, or its `set`.
    Study,
}

impl SetBy {
    /// What stands before the key in errors.
    fn label(self) -> &'static str {
        match self {
            SetBy::CommandLine => "--set ",
            SetBy::Study => "",
        }
    }

    /// Why a constant is what it is.
    fn why(self) -> &'static str {
        match self {
            SetBy::CommandLine => "set on the command line",
            SetBy::Study => "set by the study",
        }
    }
}

fn one() -> u32 {
    1
}

/// Who arrives, on which routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// A recorded trace; absent where all variants are synthetic. Its pool may differ from the model's: it is then laid
    /// over the model by relative depth.
    #[serde(default)]
    pub trace: Option<PathBuf>,
    /// Requests that replace those of the trace; recorded routes are then drawn for them.
    #[serde(default)]
    pub requests: Option<RequestsSpec>,
    /// Requests of a file, which do the same. Not together with `requests`.
    #[serde(default)]
    pub file: Option<FileSpec>,
}

/// How passes become kernels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchSpec {
    /// Who runs together.
    pub policy: Policy,
    /// Batch sizes for which graphs are captured; empty or absent: none.
    #[serde(default)]
    pub capture: Vec<u32>,
    /// What attention sees in a unified cache; absent: what the trace's router says under `visible`, else what the model's folder says, else the
    /// entries of its layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// How the host comes to know what to launch, where a router decides; absent: it reads back what the device decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Decisions>,
}

/// Caps on power and clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    /// Watts.
    #[serde(default)]
    pub power_w: Option<f64>,
    /// Megahertz.
    #[serde(default)]
    pub clock_mhz: Option<f64>,
    /// Whether the board's own limit is a power cap, too.
    #[serde(default)]
    pub board: bool,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name of the row.
    pub name: String,
    /// Where its routes come from.
    pub routes: Routes,
    /// Replaces the scenario's.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// Replaces the scenario's.
    #[serde(default)]
    pub capture: Option<Vec<u32>>,
    /// Replaces the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Decisions>,
    /// Replaces the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Replaces the trace's router: what routing would cost with this one.
    #[serde(default)]
    pub router: Option<RouterSpec>,
    /// Weights that are sparse within their matrices; absent: dense.
    #[serde(default)]
    pub sparsity: Option<Sparsity>,
    /// Replaces the scenario's.
    #[serde(default)]
    pub tiers: Option<Tiers>,
    /// Replaces the scenario's.
    #[serde(default)]
    pub limits: Option<LimitsSpec>,
    /// Replaces the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<ParallelSpec>,
    /// Replaces the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertsSpec>,
}

/// Where routes come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Routes {
    /// The trace's.
    Recorded,
    /// Static depth with the trace's mean depth, the last layers removed.
    DropLastAsRecorded,
    /// Static depth with the trace's mean depth, middle layers removed.
    DropMiddleAsRecorded,
    /// A generator's.
    Method(Method),
}

/// A router in place of the trace's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSpec {
    /// How it decides.
    pub kind: RouterKind,
    /// When it decides.
    pub when: RouterWhen,
    /// Width of its MLP; 0 for a single product.
    pub hidden: u32,
    /// Where it decides.
    pub device: RouterDevice,
}

/// Sparsity within weight matrices. Routes do not show it; kernels do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sparsity {
    /// Two of four weights; the device's speed-up.
    TwoFour,
    /// A share of the weights is zero; kernels turn `efficiency` of that share into time and bytes (0: dense kernels).
    Unstructured {
        /// Share of zeros, in [0, 1).
        zeros: f64,
        /// Share of the ideal saving that is real, in [0, 1].
        efficiency: f64,
    },
}
