//! From measured rows to a fitted profile: which rows are kept aside, four constants for each kernel class, a correction
//! learned on what they leave, and the error on the rows that no fit has seen. No GPU in it.

mod adapter;
mod boost;
mod constants;
mod error;
mod experts;
pub mod fabric;
mod fit;
mod fitted;
mod folder;
mod grid;
mod host;
mod interval;
pub mod kineto;
pub mod layers;
mod least;
mod more_layers;
mod passes;
mod record;
mod rows;
mod shapes;
mod table;
mod uneven;
mod waves;

pub use adapter::{FittedKernel, fit_adapter};
pub use boost::{TreeSettings, grow};
pub(crate) use constants::{Rounds, golden};
pub use error::PercentErrors;
pub use experts::{ExpertFit, ExpertRow, ExpertTable, GateShape, experts_name, fit_experts, read_experts};
pub use fit::{Fit, OperatorFit, fit, lend_within, predict, transfer};
pub use fitted::Fitted;
pub use folder::{FolderFit, add_folder, fit_folder};
pub use grid::fit_layers;
pub use interval::{COVERAGE, covered, halves_covered, interval};
pub use least::{least_squares, nonnegative};
pub use more_layers::add_layers;
pub use passes::{PassKind, PassSum, passes, passes_left_out};
pub use record::{Drawn, Environment, Record, Records, quartiles};
pub use rows::{CallTable, MeasuredCall, MeasuredOperator, Operator, TableFormat, read, read_layers};
pub use shapes::{Probe, shapes};
pub use uneven::ratios;

/// Four digits, as fitted numbers are kept in a profile.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
