//! What a token's route through the layers of a model costs on a piece of hardware: time, memory, power.
//!
//! `docs/ARCHITECTURE.md` is the map of this crate.

// `cli` is written as its users would be, who know this crate by its name.
extern crate self as radialsim;

pub mod batch;
pub mod calib;
mod cli;
pub mod cost;
pub mod engine;
pub mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod hw;
pub mod json_text;
pub mod kernel;
pub mod lower;
pub mod meter;
pub mod metrics;
pub mod model;
pub mod page;
pub mod plot;
pub mod quality;
pub mod reference;
pub mod report;
pub mod rng;
pub mod ron_text;
pub mod scenario;
pub mod sched;
pub mod sim;
pub mod study;
pub mod tier;
pub mod trace;
#[cfg(feature = "train")]
pub mod train;
pub mod units;
#[cfg(feature = "gpu")]
pub mod validate;
#[cfg(feature = "gpu")]
pub mod weights;
pub mod workload;

pub use cli::program;
