//! Trains routers: which branches of a frozen model a token can leave out, at the least loss.
//!
//! Derivatives, products and the optimiser are burn's; the same code runs on the processor and on a GPU. What a trained router computes is
//! in [`SkipRouter`], what is minimised in [`distill`].

mod checkpoint;
mod decisions;
mod distill;
mod effects;
mod measure;
mod network;
mod pruning;
mod sample;
mod skip;

pub use decisions::{Decisions, Routing};
pub use distill::{Distilled, Recipe, Step, distill};
pub use effects::Effects;
pub use measure::{Choice, measure};
pub use network::{Frame, Gates, Network};
pub use pruning::{Pruned, Unit, prune};
pub use sample::sample;
pub use skip::SkipRouter;

pub use burn::tensor::Device;
