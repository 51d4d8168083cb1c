//! Trains a skip router for a frozen model, in two stages.
//!
//! 1. Each score is fitted to the logarithm of what leaving out its branch alone does to the token's prediction ([`Effects`]), less that of the
//!    effect at which as many branches are left out as are wanted. Or, by [`Labels::Search`], to what the branch does in the company of others that the
//!    token leaves out ([`search`](super::search())).
//! 2. End to end through the frozen model: a gate is 1 where `score + noise >= 0`, its derivative that of the sigmoid (straight-through estimator,
//!    Bengio et al., arXiv 1308.3432; logistic noise as in the binary concrete distribution, Maddison et al., arXiv 1611.00712). Minimised is
//!
//! ```text
//! KL(teacher, routed) + price (blocks - wanted blocks) + crowding mean((blocks left out by a token)^2)
//! ```
//!
//! with blocks as the sums of the gates, a branch counting one half. The price follows the depth: it rises while tokens run more
//! blocks than are wanted, and falls while they run fewer. By [`Gradient::Policy`] the derivative is estimated from draws
//! ([`policy_gradient`](super::policy_gradient)) in place of going through the gates.
//!
//! At the end one number is added to all scores, so that the mean depth on some of the training texts is the one that is wanted.

use super::checkpoint;
use super::decisions::{TrainedRouting, through};
use super::effects::Effects;
use super::measure::divergences;
use super::network::{Frame, Gates, Network};
use super::policy;
use super::recipe::{Estimate, Gradient, Labels, Recipe};
use super::search::{Reach, search};
use super::skip::SkipRouter;
use crate::error::{InputError, Result};
use crate::quality::Texts;
use crate::report::Staged;
use crate::rng::Stream;
use crate::weights::{SkipDescription, SkipKv, SkipRouter as Weights};
use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Int, Tensor, TensorData};
use std::path::Path;

/// One step, for progress bars and curves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainStep {
    /// Stage, 1 or 2.
    pub stage: u32,
    /// From 0.
    pub step: u32,
    /// Of so many.
    pub of: u32,
    /// What is minimised: squared error of scores in stage 1, nats in stage 2.
    pub loss: f64,
    /// Divergence from the teacher, nats; zero in stage 1.
    pub kl: f64,
    /// Mean depth; zero in stage 1.
    pub depth: f64,
    /// Price of a block, nats.
    pub price: f64,
}

/// A trained router.
#[derive(Clone, Debug)]
pub struct Distilled {
    /// The router.
    pub router: SkipRouter,
    /// Which branches it may leave out.
    pub candidates: Vec<[bool; 2]>,
}

impl Distilled {
    /// Writes it as a safetensors file; `model` names what it was trained for.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, model: &str, kv: SkipKv, path: &Path) -> Result<()> {
        let bytes = self.router.weights(described(model, kv, &self.candidates)).bytes();
        Staged::create(path)?.finish(|out| out.write_all(&bytes))
    }

    /// Reads one, and what it was trained to leave in the KV cache.
    ///
    /// # Errors
    /// A file that is none, and a router for a model of other shapes.
    pub fn read(path: &Path, network: &Network) -> Result<(Distilled, SkipKv)> {
        let weights = Weights::read(path)?.ok_or_else(|| {
            InputError::expected("a description of a router").key("__metadata__.radial").file(path)
        })?;
        weights.check(network.model().layers, network.model().hidden).map_err(|error| error.in_file(path))?;
        let router = SkipRouter::with(&weights, network.device());
        Ok((Distilled { router, candidates: weights.described.candidates }, weights.described.kv))
    }
}

/// Scores of labels are held to this many nats around zero.
const MOST_SCORE: f32 = 4.0;

/// By which the price changes a step, for each block that the depth is off.
const PRICE_RATE: f64 = 0.1;

/// Steps of the second stage between checkpoints.
const KEPT_STEPS: u32 = 10;

/// Trains a router on these texts. `effects` measures what single branches do, on some of them. With `keep`, every tenth step of the second stage is
/// kept in that file, and a training that was stopped goes on from there, to the same bytes; the file stays.
///
/// # Errors
/// Draws of which nothing can be learned, a checkpoint of another training, and whatever the system refuses.
pub fn distill(
    network: &Network,
    texts: &Texts,
    recipe: &Recipe,
    effects: impl FnOnce() -> Effects,
    keep: Option<&Path>,
    mut done: impl FnMut(&TrainStep),
) -> Result<Distilled> {
    policy::check(recipe)?;
    let model = network.model();
    let training = checkpoint::name(&model.name, texts, recipe);
    let kept = match keep {
        Some(path) => Standing::read(&training, path, recipe, network)?,
        None => None,
    };
    let start = kept.unwrap_or_else(|| {
        let effects = effects();
        let wanted = 2.0 * (f64::from(model.layers) - recipe.depth);
        let candidates = effects.cheapest((wanted * recipe.candidates).ceil() as usize);
        let effects = match recipe.labels {
            Labels::Effects => effects,
            Labels::Search { width } => {
                let reach = Reach { rounds: wanted.ceil() as usize, width: width as usize };
                let labelled = texts.some(recipe.labelled);
                search(network, &labelled, &candidates, reach, recipe.kv, |_| ()).effects
            }
        };
        let router =
            SkipRouter::new(model.layers, model.hidden, recipe.hidden, recipe.seed, network.device());
        let router = first_stage(router, &effects, &candidates, wanted, recipe, &mut done);
        Standing { router, candidates, optimiser: optimiser(recipe.clip), step: 0, price: recipe.price }
    });
    let keep = |now: &Standing| match keep {
        Some(path) => now.write(&training, path, &model.name, recipe.kv),
        None => Ok(()),
    };
    let Standing { router, candidates, .. } = second_stage(network, start, texts, recipe, keep, &mut done)?;
    let router = at_depth(network, &router, &texts.some(8), &candidates, recipe);
    Ok(Distilled { router, candidates })
}

/// Where the second stage stands.
struct Standing {
    router: SkipRouter,
    candidates: Vec<[bool; 2]>,
    optimiser: ModuleOptimizer,
    /// The next step.
    step: u32,
    price: f64,
}

impl Standing {
    fn write(&self, training: &str, path: &Path, model: &str, kv: SkipKv) -> Result<()> {
        let router = self.router.weights(described(model, kv, &self.candidates)).bytes();
        let optimiser = checkpoint::state(&self.optimiser, path)?;
        checkpoint::write(path, training, (self.step, self.price.to_bits()), &[&router, &optimiser])
    }

    fn read(training: &str, path: &Path, recipe: &Recipe, network: &Network) -> Result<Option<Standing>> {
        let Some(((step, price), [router, state])) = checkpoint::read::<(u32, u64), 2>(path, training)?
        else {
            return Ok(None);
        };
        let weights = Weights::parse(&router, path)?.ok_or_else(|| checkpoint::broken(path, "no router"))?;
        let optimiser = checkpoint::restored(optimiser(recipe.clip), state, path)?;
        let router = SkipRouter::with(&weights, network.device());
        let candidates = weights.described.candidates;
        Ok(Some(Standing { router, candidates, optimiser, step, price: f64::from_bits(price) }))
    }
}

fn described(model: &str, kv: SkipKv, candidates: &[[bool; 2]]) -> SkipDescription {
    SkipDescription { kind: "skip".into(), model: model.into(), kv, candidates: candidates.to_vec() }
}

/// AdamW without decay, gradients cut at a length of `clip`.
pub(super) fn optimiser(clip: f32) -> ModuleOptimizer {
    AdamWConfig::new()
        .with_weight_decay(0.0)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(clip)))
        .init()
}

/// Half a cosine from 1 to 0.
pub(super) fn falling(step: u32, of: u32) -> f64 {
    0.5 * (1.0 + libm::cos(std::f64::consts::PI * f64::from(step) / f64::from(of)))
}

fn first_stage(
    mut router: SkipRouter,
    effects: &Effects,
    candidates: &[[bool; 2]],
    wanted: f64,
    recipe: &Recipe,
    done: &mut impl FnMut(&TrainStep),
) -> SkipRouter {
    let chosen: Vec<(usize, usize)> = (0..candidates.len())
        .flat_map(|layer| [(layer, 0), (layer, 1)])
        .filter(|&(l, b)| candidates[l][b])
        .collect();
    let mut all: Vec<f32> =
        chosen.iter().flat_map(|&(layer, branch)| effects.kl[layer][branch].iter().copied()).collect();
    all.sort_unstable_by(f32::total_cmp);
    let out = (wanted / chosen.len() as f64 * all.len() as f64) as usize;
    let border = libm::logf(all[out.min(all.len() - 1)].max(1e-6));
    let score = |kl: f32| (libm::logf(kl.max(1e-6)) - border).clamp(-MOST_SCORE, MOST_SCORE);
    let random = &mut Stream::new(recipe.seed, "first stage");
    let tokens = effects.kl[0][0].len();
    let other: Vec<usize> = (0..tokens).map(|_| random.below(tokens as u64) as usize).collect();
    let device = router.device();
    let mut optimiser = optimiser(recipe.clip);
    let layers: Vec<usize> = (0..candidates.len()).filter(|&layer| candidates[layer] != [false; 2]).collect();
    for step in 0..recipe.first_steps {
        let picked: Vec<i64> = (0..512.min(tokens)).map(|_| random.below(tokens as u64) as i64).collect();
        let count = picked.len();
        let mut loss: Option<Tensor<1>> = None;
        for &layer in &layers {
            let ids = Tensor::<1, Int>::from_data(
                TensorData::new(picked.clone(), [count]),
                &device.clone().inner(),
            );
            let states = effects.states[layer].clone().select(0, ids).unsqueeze::<3>().autodiff();
            let label = |&at: &i64| {
                let at = if recipe.shuffled_labels { other[at as usize] } else { at as usize };
                [0, 1].map(|branch| score(effects.kl[layer][branch][at]))
            };
            let labels: Vec<f32> = picked.iter().flat_map(label).collect();
            let weights: Vec<f32> =
                candidates[layer].iter().map(|&may| if may { 1.0 } else { 0.0 }).collect();
            let tensor =
                |values, shape: [usize; 3]| Tensor::<3>::from_data(TensorData::new(values, shape), &device);
            let off = (router.scores(layer as u32, states) - tensor(labels, [1, count, 2]))
                * tensor(weights, [1, 1, 2]);
            let sum = (off.clone() * off).sum() / (chosen.len() * count) as f64;
            loss = Some(loss.map_or(sum.clone(), |loss| loss + sum));
        }
        let loss = loss.expect("some layers may be left out");
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &router);
        router = optimiser.step(3e-3 * falling(step, recipe.first_steps), router, gradients);
        done(&TrainStep {
            stage: 1,
            step,
            of: recipe.first_steps,
            loss: value,
            kl: 0.0,
            depth: 0.0,
            price: 0.0,
        });
    }
    router
}

fn second_stage(
    network: &Network,
    mut now: Standing,
    texts: &Texts,
    recipe: &Recipe,
    keep: impl Fn(&Standing) -> Result<()>,
    done: &mut impl FnMut(&TrainStep),
) -> Result<Standing> {
    let layers = f64::from(network.model().layers);
    let constant = network.constant();
    let frame = network.frame(texts.length);
    for step in now.step..recipe.steps {
        // Each step draws from a stream of its own, so that it draws the same after a stop.
        let random = &mut Stream::new(recipe.seed, &format!("gates {step}"));
        let batch = texts.batch(step as usize, recipe.rows);
        let teacher = through(network, &frame, &batch, &TrainedRouting::Dense, recipe.kv).0;
        let teacher = network.logits(teacher);
        let (router, candidates, price) = (&now.router, &now.candidates, now.price);
        let Estimate { loss, value, kl, left } = match recipe.gradient {
            Gradient::StraightThrough => {
                let soft = soft(&constant, router, &frame, &batch, candidates, recipe, random);
                straight_through(teacher.autodiff(), soft, recipe, price)
            }
            Gradient::Policy { .. } => {
                policy::estimate(network, router, &frame, &batch, teacher, candidates, recipe, price, random)
            }
        };
        let (depth, value) = (layers - left, value + price * (layers - recipe.depth));
        let gradients = GradientsParams::from_grads(loss.backward(), &now.router);
        now.router = now.optimiser.step(recipe.rate * falling(step, recipe.steps), now.router, gradients);
        now.price = (price * libm::exp(PRICE_RATE * (depth - recipe.depth))).clamp(1e-3, 10.0);
        now.step = step + 1;
        if now.step.is_multiple_of(KEPT_STEPS) {
            keep(&now)?;
        }
        done(&TrainStep { stage: 2, step, of: recipe.steps, loss: value, kl, depth, price });
    }
    Ok(now)
}

fn straight_through(
    teacher: Tensor<3>,
    (logits, left_out): (Tensor<3>, Tensor<2>),
    recipe: &Recipe,
    price: f64,
) -> Estimate {
    let kl = divergences(teacher, logits).mean();
    let crowding = (left_out.clone() * left_out.clone()).mean() * recipe.crowding;
    let blocks = left_out.mean();
    let left = f64::from(blocks.clone().into_scalar::<f32>());
    let kl_value = f64::from(kl.clone().into_scalar::<f32>());
    let loss = kl + crowding - blocks * price;
    let value = f64::from(loss.clone().into_scalar::<f32>());
    Estimate { loss, value, kl: kl_value, left }
}

/// Logits with gates that are differentiable, and the blocks that each token leaves out, B x T.
fn soft(
    network: &Network,
    router: &SkipRouter,
    frame: &Frame,
    batch: &[&[u32]],
    candidates: &[[bool; 2]],
    recipe: &Recipe,
    random: &mut Stream,
) -> (Tensor<3>, Tensor<2>) {
    let (rows, tokens) = (batch.len(), batch[0].len());
    let mut stream = network.embed(batch);
    let mut left_out: Tensor<2> = Tensor::zeros([rows, tokens], network.device());
    for layer in 0..network.model().layers {
        let may = candidates[layer as usize];
        if may == [false; 2] {
            stream = network.layer(layer, frame, stream, None, recipe.kv);
            continue;
        }
        let scores = router.scores(layer, stream.clone());
        let logistic = |_| {
            let u = random.uniform().clamp(1e-9, 1.0 - 1e-9);
            (recipe.noise * libm::log(u / (1.0 - u))) as f32
        };
        let noise: Vec<f32> = (0..rows * tokens * 2).map(logistic).collect();
        let noise = Tensor::<3>::from_data(TensorData::new(noise, [rows, tokens, 2]), network.device());
        let soft = sigmoid(scores + noise);
        let hard = soft.clone().detach().greater_equal_elem(0.5).float();
        let hard = if hard.is_autodiff() { hard } else { hard.autodiff() };
        let gates = soft.clone() + (hard - soft.detach());
        let gate = |branch: usize| {
            let all = gates.clone().slice([0..rows, 0..tokens, branch..branch + 1]);
            if may[branch] { all } else { Tensor::ones([rows, tokens, 1], network.device()) }
        };
        let gates = Gates { attention: gate(0), feed_forward: gate(1) };
        let taken = (gates.attention.clone() + gates.feed_forward.clone()).squeeze_dim::<2>(2);
        left_out = left_out + (taken.neg() + 2.0) * 0.5;
        stream = network.layer(layer, frame, stream, Some(&gates), recipe.kv);
    }
    (network.logits(stream), left_out)
}

/// The router with all scores shifted so that the mean depth on these texts is the one wanted: decisions change the states that later ones see, so it is
/// searched.
fn at_depth(
    network: &Network,
    router: &SkipRouter,
    texts: &Texts,
    candidates: &[[bool; 2]],
    recipe: &Recipe,
) -> SkipRouter {
    let frame = network.frame(texts.length);
    let batches: Vec<Vec<&[u32]>> = texts.batches().collect();
    let depth = |shift: f64| {
        let shifted = router.shifted(shift).fixed();
        let of = |batch: &Vec<&[u32]>| {
            through(network, &frame, batch, &TrainedRouting::Router(&shifted, candidates), recipe.kv)
                .1
                .mean_depth()
                * batch.len() as f64
        };
        batches.iter().map(of).sum::<f64>() / texts.sequences.len() as f64
    };
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..10 {
        let middle = 0.5 * (low + high);
        if depth(middle) < recipe.depth {
            low = middle;
        } else {
            high = middle;
        }
    }
    router.shifted(0.5 * (low + high))
}
