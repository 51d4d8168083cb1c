//! Networks: what configurations say, and sizes.

pub mod model_counts;
pub mod model_files;
pub mod models;
