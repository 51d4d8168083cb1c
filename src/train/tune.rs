//! Tunes the layers of a network that leaves branches out, so that what is left comes nearer to the whole model: additions of low rank, or all weights of
//! the layers, trained by the divergence of its predictions from the model's. Who leaves out what stays as it is.

use super::checkpoint;
use super::decisions::{TrainedRouting, through};
use super::distill::{TrainStep, falling, optimiser};
use super::divergence::mean_divergence;
use super::network::{Additions, Frame, LayerWeights, Network};
use super::tuned::Tuned;
use crate::error::Result;
use crate::quality::Texts;
use crate::weights::SkipKv;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use std::collections::HashMap;
use std::path::Path;

/// How layers are tuned.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneRecipe {
    /// Rank of the additions; absent: there are none, and all weights of the layers are trained.
    pub rank: Option<u32>,
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

/// What is trained in a network that is a constant otherwise.
trait Trainee: Module {
    /// The network with it.
    fn student(&self, constant: &Network) -> Network;
    /// Its values, part by part.
    fn values(&self) -> impl Iterator<Item = Vec<f32>>;
    /// The same with other values.
    fn filled(&self, values: &[f32]) -> Self;
    /// Values in all.
    fn count(&self) -> usize;
}

impl Trainee for Additions {
    fn student(&self, constant: &Network) -> Network {
        constant.added(self)
    }

    fn values(&self) -> impl Iterator<Item = Vec<f32>> {
        self.factors().into_iter().map(|(_, values)| values)
    }

    fn filled(&self, values: &[f32]) -> Self {
        Additions::filled(self, values)
    }

    fn count(&self) -> usize {
        Additions::count(self)
    }
}

impl Trainee for LayerWeights {
    fn student(&self, constant: &Network) -> Network {
        constant.with_layers(self)
    }

    fn values(&self) -> impl Iterator<Item = Vec<f32>> {
        LayerWeights::values(self)
    }

    fn filled(&self, values: &[f32]) -> Self {
        LayerWeights::filled(self, values)
    }

    fn count(&self) -> usize {
        LayerWeights::count(self)
    }
}

/// Tunes a network under a routing. `routed` names it for the checkpoint: only the same training goes on. With `keep`, every tenth step is kept in that file.
///
/// # Errors
/// A checkpoint of another training, and whatever the system refuses.
pub fn tune(
    network: &Network,
    texts: &Texts,
    routing: &TrainedRouting,
    routed: &str,
    recipe: &TuneRecipe,
    keep: Option<&Path>,
    done: impl FnMut(&TrainStep),
) -> Result<Tuned> {
    let training = checkpoint::name(&format!("{} {routed}", network.model().name), texts, recipe);
    let keep = keep.map(|path| (path, training.as_str()));
    match recipe.rank {
        Some(rank) => {
            let additions = Additions::new(network, rank, recipe.seed);
            Ok(Tuned::Added(train(network, texts, routing, recipe, additions, keep, done)?))
        }
        None => {
            let weights = LayerWeights::of(network);
            Ok(Tuned::Whole(train(network, texts, routing, recipe, weights, keep, done)?))
        }
    }
}

fn train<T: Trainee>(
    network: &Network,
    texts: &Texts,
    routing: &TrainedRouting,
    recipe: &TuneRecipe,
    mut trained: T,
    keep: Option<(&Path, &str)>,
    mut done: impl FnMut(&TrainStep),
) -> Result<T> {
    let mut optimiser = optimiser(recipe.clip);
    let mut first = 0;
    if let Some((path, training)) = keep
        && let Some((step, [values, state])) = checkpoint::read::<u32, 2>(path, training)?
    {
        if values.len() != trained.count() * size_of::<f32>() {
            return Err(checkpoint::broken(path, "weights of other shapes"));
        }
        trained = trained.filled(&checkpoint::floats(&values));
        optimiser = checkpoint::restored(optimiser, state, path)?;
        first = step;
    }
    let (constant, frame) = (network.constant(), network.frame(texts.length));
    let mut teachers = Teachers::new(texts, recipe);
    for step in first..recipe.steps {
        let batch = texts.batch(step as usize, recipe.rows);
        let teacher = teachers.of(network, &frame, step);
        let student = trained.student(&constant);
        let (stream, decisions) = through(&student, &frame, &batch, routing, recipe.kv);
        let (kl, loss) = mean_divergence(network, teacher, constant.last_normed(stream));
        let gradients = GradientsParams::from_grads(loss.backward(), &trained);
        trained = optimiser.step(recipe.rate * falling(step, recipe.steps), trained, gradients);
        if let Some((path, training)) = keep
            && (step + 1).is_multiple_of(KEPT_STEPS)
        {
            let state = checkpoint::state(&optimiser, path)?;
            checkpoint::write(path, training, step + 1, &[&checkpoint::bytes(trained.values()), &state])?;
        }
        let depth = decisions.mean_depth();
        done(&TrainStep { stage: 2, step, of: recipe.steps, loss: kl, kl, depth, price: 0.0 });
    }
    Ok(trained)
}

/// Most batches whose streams are kept, some megabytes each.
const MOST_KEPT: usize = 128;

/// The whole model's streams behind the last layer; those of a batch that comes again are kept.
struct Teachers<'a> {
    texts: &'a Texts,
    recipe: &'a TuneRecipe,
    /// Steps after which the same batch comes again.
    period: usize,
    known: HashMap<usize, Tensor<3>>,
}

impl<'a> Teachers<'a> {
    fn new(texts: &'a Texts, recipe: &'a TuneRecipe) -> Teachers<'a> {
        let count = texts.sequences.len();
        let period = (1..=count).find(|steps| (steps * recipe.rows).is_multiple_of(count)).unwrap_or(count);
        Teachers { texts, recipe, period, known: HashMap::new() }
    }

    fn of(&mut self, network: &Network, frame: &Frame, step: u32) -> Tensor<3> {
        let (step, place) = (step as usize, step as usize % self.period);
        if let Some(known) = self.known.get(&place) {
            return known.clone();
        }
        let batch = self.texts.batch(step, self.recipe.rows);
        let stream = through(network, frame, &batch, &TrainedRouting::Dense, self.recipe.kv).0;
        if step + self.period < self.recipe.steps as usize && self.known.len() < MOST_KEPT {
            self.known.insert(place, stream.clone());
        }
        stream
    }
}
