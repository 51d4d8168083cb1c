//! Trains routers, of frozen models and together with layers of their own, and tunes layers for routes.
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
mod tune;
mod walk;

pub use decisions::{Decisions, Routing};
pub use distill::{Distilled, Recipe, Step, distill};
pub use effects::Effects;
pub use folder::{Folder, Shape, train_words, write_router};
pub use measure::{Choice, measure};
pub use network::{Additions, Frame, Gates, Network, Newest, Seen};
pub use parameters::Parameters;
pub use pruning::{Pruned, Unit, left_out, prune};
pub use radial::{Begin, RadialRouter};
pub use sample::sample;
pub use scratch::{ScratchRecipe, ScratchStep, Trained, Way, along, evaluate, scratch};
pub use send::{SendRecipe, send};
pub use skip::SkipRouter;
pub use tune::{TuneRecipe, tune};
pub use walk::{Rules, Walk, Walked, hashed};

pub use burn::tensor::Device;
#[cfg(feature = "train-gpu")]
pub use burn::tensor::DeviceKind;
