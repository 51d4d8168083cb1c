//! What a run found, for people and for programs: tables, JSON, a timeline, a time series. Returns texts and writes files; never prints.

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

pub use file::Staged;
pub use fits::{fits, layers, scores};
pub use sheet::{Sheet, WIDTH};
