//! What tests share, and no test.

pub mod cost_support;
#[cfg(feature = "gpu")]
pub mod family_list;
#[cfg(feature = "gpu")]
pub mod family_models;
#[cfg(feature = "gpu")]
pub mod gguf_support;
pub mod lab;
#[cfg(feature = "gpu")]
pub mod small_models;
pub mod sweep_support;
pub mod trace_support;
#[cfg(feature = "gpu")]
pub mod twin_support;
