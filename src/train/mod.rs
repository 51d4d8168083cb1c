//! Trains routers: which branches of a frozen model a token can leave out, at the least loss.
//!
//! Derivatives, products and the optimiser are burn's; the same code runs on the processor and on a GPU. What a trained router computes is
//! in [`SkipRouter`], what is minimised in [`distill`].

mod checkpoint;
mod decisions;
mod distill;
mod effects;
mod folder;
mod measure;
mod network;
mod parameters;
mod pruning;
mod radial;
mod sample;
mod scratch;
mod send;
mod skip;
mod walk;

pub use decisions::{Decisions, Routing};
pub use distill::{Distilled, Recipe, Step, distill};
pub use effects::Effects;
pub use folder::{Folder, Shape, train_words, write_router};
pub use measure::{Choice, measure};
pub use network::{Frame, Gates, Network, Newest, Seen};
pub use parameters::Parameters;
pub use pruning::{Pruned, Unit, prune};
pub use radial::{Begin, RadialRouter};
pub use sample::sample;
pub use scratch::{ScratchRecipe, ScratchStep, Trained, Way, along, evaluate, scratch};
pub use send::{SendRecipe, send};
pub use skip::SkipRouter;
pub use walk::{Rules, Walk, Walked};

pub use burn::tensor::Device;
