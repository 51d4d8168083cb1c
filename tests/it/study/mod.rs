//! Studies: axes, sweeps, searches, frontiers.

pub mod axes;
pub mod clusters;
pub mod frontier;
pub mod quality;
pub mod searches;
pub mod sweep;
pub mod sweep_bad;
