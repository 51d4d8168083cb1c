//! How a skip router is trained, and what a step goes by.

use crate::weights::SkipKv;
use burn::tensor::Tensor;

/// What the first stage fits scores to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// What leaving out each branch alone does.
    Effects,
    /// What it does in the company of the others that a search leaves out with it, as many as are wanted.
    Search {
        /// Sets of each token that the search keeps from round to round, at least one.
        width: u32,
    },
}

/// Where the second stage takes its derivatives from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gradient {
    /// A gate has the derivative of a sigmoid.
    StraightThrough,
    /// The router's own draws: REINFORCE with a baseline.
    Policy {
        /// Draws of each sequence, at least 2: the others' mean is each one's baseline.
        draws: u32,
        /// By what the cost of each later token counts less than that of the one before, for the decisions of a token; 1: no bias.
        discount: f64,
    },
}

/// How a router is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Mean depth that is wanted, in layers.
    pub depth: f64,
    /// Width of the router's hidden layer.
    pub hidden: u32,
    /// Branches that may be left out, for each branch that is.
    pub candidates: f64,
    /// What the first stage fits scores to.
    pub labels: Labels,
    /// Sequences whose effects are measured for the first stage.
    pub labelled: usize,
    /// Steps of the first stage, on 512 tokens each.
    pub first_steps: u32,
    /// Where the second stage takes its derivatives from.
    pub gradient: Gradient,
    /// Steps of the second stage.
    pub steps: u32,
    /// Sequences of a step.
    pub rows: usize,
    /// Highest learning rate of the second stage; it falls to nothing as half a cosine.
    pub rate: f64,
    /// Spread of the noise.
    pub noise: f64,
    /// First price of a block, nats.
    pub price: f64,
    /// What a token pays for the square of the blocks that it leaves out, nats.
    pub crowding: f64,
    /// Largest length of a gradient.
    pub clip: f32,
    /// What a token that leaves attention out leaves in the KV cache.
    pub kv: SkipKv,
    /// Whether labels are given to other tokens, as a control: nothing can be learned of a token then.
    pub shuffled_labels: bool,
    /// For all that is drawn.
    pub seed: u64,
}

impl Recipe {
    /// The recipe that was found good on SmolLM2-135M.
    pub fn new(depth: f64, seed: u64) -> Recipe {
        Recipe {
            depth,
            hidden: 64,
            candidates: 3.0,
            labels: Labels::Effects,
            labelled: 14,
            first_steps: 400,
            gradient: Gradient::StraightThrough,
            steps: 36,
            rows: 4,
            rate: 3e-3,
            noise: 0.5,
            price: 0.12,
            crowding: 0.01,
            clip: 0.5,
            kv: SkipKv::ProjectOnly,
            shuffled_labels: false,
            seed,
        }
    }
}

/// What a step of the second stage goes by.
pub(super) struct Estimate {
    /// Its derivative is the step's.
    pub loss: Tensor<1>,
    /// What is minimised, nats, but for what the wanted depth costs at the price.
    pub value: f64,
    /// Mean divergence, nats.
    pub kl: f64,
    /// Mean number of blocks that a token leaves out.
    pub left: f64,
}
