//! Measured runs of a serving engine -> the time of a scheduler step and the power constants of a profile, with errors on
//! models left out. What is fitted are effective constants of one software stack on one device, not physics.
//!
//! A row is simulated as it ran: so many clients, each sending its next request when the last one is answered, lengths around
//! the row's mean, continuous batching with chunked prompts. Batches do not depend on the constants that are fitted, so one
//! simulation of a row gives the sums in which its latency and energy are linear ([`RunSums`]).

pub mod caps;
mod columns;
mod constants;
mod fit;
mod measured_ends;
mod run_model;
mod run_sums;
mod run_table;

pub use constants::{ComparedRun, PredictedRun, RunSums, StackConstants};
pub use fit::{Wrong, fit, left_out, wrong};
pub use measured_ends::{MeasuredEnd, MeasuredEnds, read_ends};
pub use run_model::{RunModel, shape_of};
pub use run_sums::{assumed, parts, points};
pub use run_table::{MeasuredRun, RunTable, read};
