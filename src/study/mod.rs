//! What-if studies: many scenarios, one answer. A study names a scenario, the axes along which its keys move, what must hold
//! and what is wanted; [`sweep`] runs every point, an [`Assembly`] holds what came out.
//!
//! A point is one setting of all axes with one variant of the scenario: one row. Everything that is asked goes through a
//! [`Journal`], a memory on disk from settings to rows: what was computed once is never computed again, whoever asks and however often the
//! program was killed meanwhile.

mod answer;
mod assembly;
mod axis;
mod case;
pub mod csv;
mod frontier;
mod grid;
mod guard;
mod journal;
mod load;
mod objective;
mod page;
#[cfg(feature = "parquet")]
pub mod parquet;
mod row;
mod search;
mod shard;
mod sweep;
mod worth;
mod write;

pub use answer::Finding;
pub use assembly::{Assembly, RowSource, StudyPoint};
pub use axis::{Axis, AxisValue, Leaf};
pub use case::{Case, Ran};
pub use frontier::{Beyond, Frontier, FrontierSpot, PeerComparison, PeerFinding, Setting};
pub use grid::Grid;
pub use journal::Journal;
pub use objective::{Constraint, Decision, DevicePrice, Objective, front};
pub use page::{Report, report};
pub use row::Row;
pub use search::Search;
pub use shard::Shard;
pub use sweep::{Asker, SweepCounts, SweepWatch, merge, sweep};
pub use worth::{Measure, QualityFamily, Worth};
pub use write::write;

use crate::scenario::Scenario;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a study file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Title of the report.
    pub title: String,
    /// What one wants to know, in a sentence.
    pub question: String,
    /// The scenario file, from the folder of the study.
    pub scenario: PathBuf,
    /// Keys of the scenario that are set for all points.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// How many seeds each point runs with; absent: the scenario's `seeds`.
    #[serde(default)]
    pub seeds: Option<u32>,
    /// What moves; points are all combinations, the last axis fastest.
    #[serde(default)]
    pub axes: Vec<Axis>,
    /// What must hold for a point to be of use.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// What is wanted.
    pub objectives: Vec<Objective>,
    /// What devices cost.
    #[serde(default)]
    pub prices: Vec<DevicePrice>,
    /// Questions that need more points than the axes have.
    #[serde(default)]
    pub searches: Vec<Search>,
    /// Pictures of the report; absent: what the axes suggest.
    #[serde(default)]
    pub plots: Vec<Plot>,
    /// What the network of each variant is worth, as it was measured: for [`Frontier`]. Rows do not depend on it.
    #[serde(default)]
    pub quality: Vec<Worth>,
    /// Networks between which others are placed by their quality: for [`Frontier`].
    #[serde(default)]
    pub families: Vec<QualityFamily>,
    /// Names of axes with the values at which the report looks closer; axes that are not named: their first value.
    #[serde(default)]
    pub detail: BTreeMap<String, Value>,
}

/// A picture of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Plot {
    /// A line for each variant: a metric against an axis; a panel for each setting of the other axes.
    Lines {
        /// Name of the axis.
        x: String,
        /// Key of the metric.
        y: String,
        /// Whether the metric's axis is logarithmic.
        #[serde(default)]
        log_y: bool,
    },
    /// What each variant gains over the first one in a metric, in percent, against an axis.
    Gain {
        /// Name of the axis.
        x: String,
        /// The metric, with the way it should go.
        of: Objective,
    },
    /// Every point by two metrics, with the front of those that no other beats in both.
    Pareto {
        /// The metric across.
        x: Objective,
        /// The metric upwards.
        y: Objective,
        /// What points are coloured by: `variant` or the name of an axis. Absent: `variant`.
        #[serde(default = "variant")]
        by: String,
    },
}

fn variant() -> String {
    "variant".into()
}

/// A study, read and checked.
#[derive(Clone, Debug)]
pub struct Study {
    /// What the file says.
    pub spec: Spec,
    /// The scenario with the keys that are set for all points.
    pub base: Scenario,
    /// The points.
    pub grid: Grid,
    /// The file, as it was named.
    pub path: PathBuf,
    /// Hash of what rows depend on beside the settings of a point: the text of the scenario, `set`, `seeds`, `prices`, the metrics that the
    /// study asks about, and the program's version. Rows of another one are refused; axes, searches of the same metrics, pictures and
    /// titles may change, and what is known is used again.
    pub digest: String,
}

impl Study {
    /// Name of its file.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The program that computes, as every row names it.
pub const VERSION: &str = concat!("radialsim ", env!("CARGO_PKG_VERSION"));
