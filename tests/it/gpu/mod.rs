//! The executor: shaders, kernels, routed passes, on an adapter.

pub mod actions;
pub mod families;
pub mod golden;
pub mod gpu_failures;
pub mod hops;
pub mod perplexity;
pub mod radial;
pub mod routed;
pub mod shaders;
pub mod shapes;
pub mod skips;
pub mod twin_attention;
pub mod twin_choices;
pub mod twin_products;
pub mod twin_rows;
pub mod validated;
