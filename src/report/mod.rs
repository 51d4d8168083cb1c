//! What a run found, for people and for programs: tables, JSON, a timeline, a time series. Returns texts and writes files; never prints.

mod adapter;
#[cfg(feature = "gpu")]
pub mod execution;
mod file;
mod fits;
pub mod inspect;
pub mod json;
#[cfg(feature = "gpu")]
pub mod residuals;
pub mod series;
mod serving;
mod sheet;
pub mod table;
mod tiers;
pub mod timeline;

pub use adapter::adapter_fits;
pub use file::Staged;
pub use fits::{fits, scores};
pub use sheet::{Sheet, WIDTH};
