//! Trains routers, of frozen models and together with layers of their own, and tunes layers for routes.
//!
//! Derivatives, products and the optimiser are burn's; the same code runs on the processor and on a GPU. What a trained router computes is
//! in [`SkipRouter`], what is minimised in [`distill`].

mod checkpoint;
mod decisions;
mod distill;
mod divergence;
mod effects;
mod folder;
mod measure;
mod network;
mod parameters;
mod policy;
mod pruning;
mod radial;
mod recipe;
mod sample;
mod scratch;
mod search;
mod send;
mod skip;
mod tune;
mod tuned;
mod walk;

pub use decisions::{BranchDecisions, TrainedRouting};
pub use distill::{Distilled, TrainStep, distill};
pub use effects::Effects;
pub use folder::{Folder, NetworkShape, train_words, write_router};
pub use measure::{DivergenceOf, measure};
pub use network::{Additions, Frame, Gates, LayerWeights, Network, Newest, SeenTokens};
pub use parameters::Parameters;
pub use policy::policy_gradient;
pub use pruning::{Pruned, Unit, left_out, prune};
pub use radial::{Begin, RadialRouter};
pub use recipe::{Gradient, Labels, Recipe};
pub use sample::sample;
pub use scratch::{ScratchRecipe, ScratchStep, ScratchWay, Trained, along, evaluate, scratch};
pub use search::{Reach, SearchResult, search};
pub use send::{SendRecipe, send};
pub use skip::SkipRouter;
pub use tune::{TuneRecipe, tune};
pub use tuned::{Tuned, plain_llama};
pub use walk::{Rules, Walk, Walked, hashed};

pub use burn::tensor::Device;
#[cfg(feature = "train-gpu")]
pub use burn::tensor::DeviceKind;
