//! Measured tables: what fits learn of them, and how far simulations lie from them.

pub mod adapter;
pub mod caps;
pub mod fabric_fit;
pub mod fit;
pub mod kineto;
pub mod layers;
pub mod meter;
pub mod more_layers;
pub mod operators;
pub mod served;
