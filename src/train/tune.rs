//! Tunes the layers of a network that leaves branches out, so that what is left comes nearer to the whole model: additions of low rank, trained by the
//! divergence of its predictions from the model's. Who leaves out what stays as it is.

use super::checkpoint;
use super::decisions::{Routing, forward, through};
use super::distill::{Step, falling, optimiser};
use super::measure::divergences;
use super::network::{Additions, Network};
use crate::error::{Error, InputError, Result};
use crate::quality::Texts;
use crate::weights::{PeftFolder, SkipKv};
use burn::optim::GradientsParams;
use std::path::Path;

/// How layers are tuned.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneRecipe {
    /// Rank of the additions.
    pub rank: u32,
    /// Steps.
    pub steps: u32,
    /// Sequences of a step.
    pub rows: usize,
    /// Highest learning rate; it falls to nothing as half a cosine.
    pub rate: f64,
    /// Largest length of a gradient.
    pub clip: f32,
    /// What a token that leaves attention out leaves in the KV cache.
    pub kv: SkipKv,
    /// For all that is drawn.
    pub seed: u64,
}

/// Steps between checkpoints.
const KEPT_STEPS: u32 = 10;

/// Tunes a network under a routing. `routed` names it for the checkpoint: only the same training goes on. With `keep`, every tenth step is kept in that file.
///
/// # Errors
/// A checkpoint of another training, and whatever the system refuses.
pub fn tune(
    network: &Network,
    texts: &Texts,
    routing: &Routing,
    routed: &str,
    recipe: &TuneRecipe,
    keep: Option<&Path>,
    mut done: impl FnMut(&Step),
) -> Result<Additions> {
    let training = checkpoint::name(&format!("{} {routed}", network.model().name), texts, recipe);
    let mut additions = Additions::new(network, recipe.rank, recipe.seed);
    let mut optimiser = optimiser(recipe.clip);
    let mut first = 0;
    if let Some(path) = keep
        && let Some((step, [values, state])) = checkpoint::read::<u32, 2>(path, &training)?
    {
        if values.len() != additions.count() * size_of::<f32>() {
            return Err(checkpoint::broken(path, "additions of other shapes"));
        }
        additions = additions.filled(&checkpoint::floats(&values));
        optimiser = checkpoint::restored(optimiser, state, path)?;
        first = step;
    }
    let (constant, frame) = (network.constant(), network.frame(texts.length));
    for step in first..recipe.steps {
        let batch = texts.batch(step as usize, recipe.rows);
        let teacher = through(network, &frame, &batch, &Routing::Dense, recipe.kv).0;
        let teacher = network.logits(teacher).autodiff();
        let student = constant.added(&additions);
        let (logits, decisions) = forward(&student, &frame, &batch, routing, recipe.kv);
        let loss = divergences(teacher, logits).mean();
        let kl = f64::from(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &additions);
        additions = optimiser.step(recipe.rate * falling(step, recipe.steps), additions, gradients);
        if let Some(path) = keep
            && (step + 1).is_multiple_of(KEPT_STEPS)
        {
            let values = additions.factors().into_iter().map(|(_, values)| values);
            let state = checkpoint::state(&optimiser, path)?;
            checkpoint::write(path, &training, step + 1, &[&checkpoint::bytes(values), &state])?;
        }
        let depth = decisions.mean_depth();
        done(&Step { stage: 2, step, of: recipe.steps, loss: kl, kl, depth, price: 0.0 });
    }
    Ok(additions)
}

impl Additions {
    /// Writes them into a folder as the peft library keeps them.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn write(&self, network: &Network, rank: u32, folder: &Path) -> Result<()> {
        let factors = self.factors();
        let pair = |((layer, part, _), pair): (_, &[([usize; 2], Vec<f32>)])| {
            let [(_, down), (_, up)] = pair else { unreachable!("factors come in pairs") };
            (layer, part, down.clone(), up.clone())
        };
        let pairs = network.products().into_iter().zip(factors.chunks_exact(2)).map(pair).collect::<Vec<_>>();
        PeftFolder::write(folder, &network.model().name, rank, &network.products(), &pairs)
    }

    /// Reads them from such a folder.
    ///
    /// # Errors
    /// What is no such folder, and additions for other shapes.
    pub fn read(network: &Network, folder: &Path) -> Result<Additions> {
        let (opened, products) = (PeftFolder::open(folder)?, network.products());
        let factors = opened.factors()?;
        if factors.count() != 2 * products.len() {
            let what = format!("{} factors, two for each product of the model", 2 * products.len());
            return Err(Error::from(InputError::expected(what).found(factors.count()).file(folder)));
        }
        let mut parts = Vec::new();
        for (layer, part, [inputs, outputs]) in products {
            let (rank, down, up) = factors.pair(layer, part, [inputs, outputs])?;
            parts.push((down, [inputs, rank]));
            parts.push((up, [rank, outputs]));
        }
        Ok(Additions::of(parts, network.device()))
    }
}
