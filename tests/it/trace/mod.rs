//! Router traces: formats, generators, laying over.

pub mod bad_trace;
pub mod route_ids;
pub mod stretch;
pub mod synth;
pub mod trace_format;
pub mod trace_join;
#[cfg(feature = "parquet")]
pub mod trace_parquet;
