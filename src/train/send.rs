//! Trains a radial router for a frozen model: its layers are the pool, and the router sets out from their order, which gives the model itself.
//!
//! Minimised is
//!
//! ```text
//! KL(model, routed) + price (hops - wanted hops)
//! ```
//!
//! with the router's choices explored as in [`scratch`](super::scratch()) and a price that follows the depth. At the end one number is added to the
//! scores of the exit, so that the mean depth on some of the training texts is the one that is wanted.

use super::checkpoint;
use super::decisions::{TrainedRouting, through};
use super::distill::{TrainStep, falling, optimiser};
use super::measure::divergences;
use super::network::Network;
use super::radial::{Begin, RadialRouter};
use super::scratch::along;
use super::walk::{Rules, Walk, tread};
use crate::error::Result;
use crate::quality::{SequenceSums, Texts};
use crate::weights::SkipKv;
use burn::optim::{GradientsParams, ModuleOptimizer};
use std::path::Path;

/// How a radial router is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct SendRecipe {
    /// Mean depth that is wanted, in layers.
    pub depth: f64,
    /// Hops.
    pub rules: Rules,
    /// Width of the router's hidden layer.
    pub hidden: u32,
    /// Steps.
    pub steps: u32,
    /// Sequences of a step.
    pub rows: usize,
    /// Highest learning rate; it falls to nothing as half a cosine.
    pub rate: f64,
    /// Spread of the noise on scores.
    pub noise: f64,
    /// Largest length of a gradient.
    pub clip: f32,
    /// For all that is drawn.
    pub seed: u64,
}

/// First price of a hop, nats, and by which share it changes a step for each hop that the depth is off.
const PRICE: (f64, f64) = (0.05, 0.1);

/// Steps between checkpoints.
const KEPT_STEPS: u32 = 10;

/// Trains a router on these texts. With `keep`, every tenth step is kept in that file, and a training that was stopped goes on from there, to the same
/// bytes; the file stays.
///
/// # Errors
/// A checkpoint of another training, and whatever the system refuses.
pub fn send(
    network: &Network,
    texts: &Texts,
    recipe: &SendRecipe,
    keep: Option<&Path>,
    mut done: impl FnMut(&TrainStep),
) -> Result<RadialRouter> {
    let training = checkpoint::name(&network.model().name, texts, recipe);
    let mut now = Standing::begin(network, recipe);
    if let Some(path) = keep {
        now = now.gone_on(path, &training)?;
    }
    let (constant, frame) = (network.constant(), network.frame(texts.length));
    for step in now.step..recipe.steps {
        let (router, price) = (&now.router, now.price);
        let batch = texts.batch(step as usize, recipe.rows);
        let teacher = through(network, &frame, &batch, &TrainedRouting::Dense, SkipKv::ProjectOnly).0;
        let teacher = network.logits(teacher).autodiff();
        let seed = recipe.seed.wrapping_mul(1 << 32).wrapping_add(step.into());
        let walk = Walk::Explored { router, noise: recipe.noise, seed };
        let trodden = tread(&constant, &frame, &batch, &walk, &recipe.rules);
        let kl = divergences(teacher, trodden.logits).mean();
        let chosen = trodden.chosen.expect("choices are explored");
        let depth = trodden.walked.mean_depth(0..batch.len() * texts.length);
        let kl_value = f64::from(kl.clone().into_scalar::<f32>());
        let loss = kl + chosen.depth * price;
        let value = f64::from(loss.clone().into_scalar::<f32>()) - price * recipe.depth;
        let gradients = GradientsParams::from_grads(loss.backward(), router);
        now.router = now.optimiser.step(recipe.rate * falling(step, recipe.steps), now.router, gradients);
        now.price = (price * libm::exp(PRICE.1 * (depth - recipe.depth))).clamp(1e-3, 10.0);
        now.step = step + 1;
        if let Some(path) = keep
            && now.step.is_multiple_of(KEPT_STEPS)
        {
            now.write(path, &training)?;
        }
        done(&TrainStep { stage: 2, step, of: recipe.steps, loss: value, kl: kl_value, depth, price });
    }
    Ok(at_depth(network, &now.router, &texts.some(8), recipe))
}

/// Where a training stands.
struct Standing {
    router: RadialRouter,
    optimiser: ModuleOptimizer,
    /// The next step.
    step: u32,
    price: f64,
}

impl Standing {
    fn begin(network: &Network, recipe: &SendRecipe) -> Standing {
        let model = network.model();
        let router = RadialRouter::new(
            model.layers,
            model.hidden,
            recipe.hidden,
            Begin::Identity,
            recipe.seed,
            network.device(),
        );
        Standing { router, optimiser: optimiser(recipe.clip), step: 0, price: PRICE.0 }
    }

    fn write(&self, path: &Path, training: &str) -> Result<()> {
        let weights = checkpoint::bytes([self.router.values()].into_iter());
        let state = checkpoint::state(&self.optimiser, path)?;
        checkpoint::write(path, training, (self.step, self.price.to_bits()), &[&weights, &state])
    }

    /// Where the training of this file stands; as it is, if there is none.
    fn gone_on(self, path: &Path, training: &str) -> Result<Standing> {
        let Some(((step, price), [weights, state])) = checkpoint::read::<(u32, u64), 2>(path, training)?
        else {
            return Ok(self);
        };
        if weights.len() != self.router.count() * size_of::<f32>() {
            return Err(checkpoint::broken(path, "a router of other sizes"));
        }
        let router = self.router.filled(&checkpoint::floats(&weights));
        let optimiser = checkpoint::restored(self.optimiser, state, path)?;
        Ok(Standing { router, optimiser, step, price: f64::from_bits(price) })
    }
}

fn at_depth(network: &Network, router: &RadialRouter, texts: &Texts, recipe: &SendRecipe) -> RadialRouter {
    let depth = |by: f64| {
        let shifted = router.leaving(by).fixed();
        SequenceSums::mean_depth(&along(network, texts, &Walk::Routed(&shifted), &recipe.rules).0)
    };
    let (mut low, mut high) = (-16.0, 16.0);
    for _ in 0..10 {
        let middle = 0.5 * (low + high);
        if depth(middle) > recipe.depth {
            low = middle;
        } else {
            high = middle;
        }
    }
    router.leaving(0.5 * (low + high))
}
