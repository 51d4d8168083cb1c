//! What a token's route through the layers of a model costs on a piece of hardware: time, memory, power.
//!
//! [`Simulation`] is the way in. It compares the same requests on dense, static and routed layers of one model, as `radialsim simulate` does:
//!
//! ```
//! use radialsim::{RouteSource, Simulation};
//!
//! # fn main() -> radialsim::Result<()> {
//! let routes = RouteSource::Method("CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: none)".into());
//! let results = Simulation::builder("llama-2-7b", "nvidia-a100-sxm-80gb", routes)
//!     .batch(4)
//!     .requests(8)
//!     .prompt(32)
//!     .output(8)
//!     .build()?
//!     .run()?;
//! for row in results.rows() {
//!     println!("{}: {:.3} s", row.name(), row.number("makespan_s").expect("a finished run"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here prints or ends the process. What is wrong with an input is an [`Error`] with file, line, key, value found and value expected.
//!
//! The rooms behind it are public for the program, its tests and its bindings, may change with every version, and are not shown here:
//! `docs/ARCHITECTURE.md` in the repository is their map, `RUSTDOCFLAGS="--cfg rooms" cargo doc` their reference.

// `cli` is written as its users would be, who know this crate by its name.
extern crate self as radialsim;

#[cfg_attr(not(rooms), doc(hidden))]
pub mod batch;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod calib;
mod cli;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod cost;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod engine;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod error;
#[cfg(feature = "gpu")]
#[cfg_attr(not(rooms), doc(hidden))]
pub mod gpu;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod hw;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod json_text;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod kernel;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod lower;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod meter;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod metrics;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod model;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod page;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod plot;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod quality;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod reference;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod report;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod rng;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod ron_text;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod scenario;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod sched;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod sim;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod simulation;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod study;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod tier;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod trace;
#[cfg(feature = "train")]
#[cfg_attr(not(rooms), doc(hidden))]
pub mod train;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod units;
#[cfg(feature = "gpu")]
#[cfg_attr(not(rooms), doc(hidden))]
pub mod validate;
#[cfg(feature = "gpu")]
#[cfg_attr(not(rooms), doc(hidden))]
pub mod weights;
#[cfg_attr(not(rooms), doc(hidden))]
pub mod workload;

#[doc(hidden)]
pub use cli::program;
pub use error::{Error, InputError, Result};
pub use scenario::RouteSource;
pub use simulation::{ResultRow, Results, Simulation, SimulationBuilder};
