//! What a run found, for people and for programs: tables, JSON, a timeline, a time series. Returns texts and writes files; never prints.

mod adapter;
pub mod answer;
pub mod brief;
mod caps;
mod cells;
pub mod contributions;
pub mod detail;
mod ends;
pub mod engines;
mod errors;
#[cfg(feature = "gpu")]
pub mod execution;
pub mod fabric;
mod file;
mod fits;
pub mod html;
pub mod inspect;
pub mod json;
mod launches;
mod layers;
pub mod list;
mod passes;
mod placed;
mod power_fits;
mod profiled;
pub mod quantity;
mod replicas;
#[cfg(feature = "gpu")]
pub mod residuals;
mod saved;
pub mod series;
mod served_run;
mod server_table;
mod sheet;
pub mod table;
mod tiers;
pub mod timeline;
mod uneven;

pub use adapter::adapter_fits;
pub use caps::{Answered, CapErrors, cap_errors, cap_points, caps};
pub use ends::{End, ends};
pub use fabric::fabric_fits;
pub use file::Staged;
pub use fits::{expert_fits, fits, layer_fits, layers, scores};
pub use launches::launches;
pub use passes::passes;
pub use placed::{PlacementFares, placed, placed_json};
pub use power_fits::{metered, skipped};
pub use profiled::profiled;
pub use served_run::{Gate, Queue, Served};
pub use sheet::{Sheet, WIDTH};
pub use uneven::uneven;
