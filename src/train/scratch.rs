//! Trains a network from nothing: the weights of a pool of layers, together with the router that sends tokens through it.
//!
//! Minimised is the mean negative log-likelihood of the next token, plus `balance` times the balance of the router's choices
//! ([`Chosen`](super::walk)), plus a price for each hop where a depth is wanted. Noise on the router's scores explores other choices; the
//! derivative of the chosen option's probability stands in for that of the choice (straight-through estimator, Bengio et al., arXiv 1308.3432).

use super::checkpoint;
use super::measure::likelihoods;
use super::network::Network;
use super::parameters::Parameters;
use super::radial::{Begin, RadialRouter};
use super::skip::SkipRouter;
use super::walk::{Chosen, Rules, Trodden, Walk, Walked, hashed, tread};
use crate::error::Result;
use crate::model::{Input, Model};
use crate::quality::{SequenceSums, Texts};
use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Gradients, Tensor};
use std::path::Path;

/// Who sends tokens through the pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScratchWay {
    /// Nobody: all tokens take all layers in order.
    InOrder,
    /// A draw for each word and hop.
    Hashed {
        /// Whether hop h has a part of the pool for itself.
        staged: bool,
    },
    /// A router that is trained too.
    Routed(Begin),
    /// A router as it was drawn, which is not trained: what a trained one is worth beside it.
    Fixed(Begin),
    /// All layers in order, each second one by this share of the tokens only (Mixture-of-Depths). As it runs, a token's own score says whether it
    /// takes the layer.
    Depths(f64),
}

/// How a network is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct ScratchRecipe {
    /// Who sends tokens.
    pub way: ScratchWay,
    /// Hops.
    pub rules: Rules,
    /// Width of the router's hidden layer.
    pub hidden: u32,
    /// Steps.
    pub steps: u32,
    /// Sequences of a step.
    pub rows: usize,
    /// Highest learning rate: it rises to that over a twentieth of the steps and falls to a tenth of it as half a cosine.
    pub rate: f64,
    /// By what the router's learning rate is multiplied: ways that change faster than layers learn are of no use to them.
    pub router_rate: f64,
    /// Weight decay (AdamW), of all but the router.
    pub decay: f64,
    /// Largest length of a weight's gradient.
    pub clip: f32,
    /// Spread of the noise on the router's scores at the first step; it falls evenly to nothing.
    pub noise: f64,
    /// Price of unequal use of the layers.
    pub balance: f64,
    /// Mean depth that is wanted; absent: no price.
    pub depth: Option<f64>,
    /// Evaluations in a row that are no better than the best before which training ends; 0: it never ends early.
    pub patience: u32,
    /// Steps from evaluation to evaluation.
    pub every: u32,
    /// For all that is drawn.
    pub seed: u64,
}

/// What happened at a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScratchStep {
    /// From 0.
    pub step: u32,
    /// Mean negative log-likelihood of the step's tokens, nats.
    pub nll: f64,
    /// What is minimised.
    pub loss: f64,
    /// Mean number of layers that a token visits.
    pub depth: f64,
    /// Mean entropy of the router's choices, nats.
    pub entropy: Option<f64>,
    /// Visits of each layer.
    pub loads: Vec<u64>,
    /// Learning rate.
    pub rate: f64,
    /// Mean negative log-likelihood of the texts that are held out, where they were evaluated.
    pub held_out: Option<f64>,
}

/// A trained network.
#[derive(Debug)]
pub struct Trained {
    /// Its weights.
    pub parameters: Parameters,
    /// Its router.
    pub router: Option<RadialRouter>,
    /// The router of a Mixture-of-Depths.
    pub depths: Option<SkipRouter>,
    /// The layers of each word, V x H, of a hashed way.
    pub table: Vec<u32>,
}

impl Trained {
    /// The way of a network without a router.
    fn unrouted(&self) -> Walk<'_> {
        if self.table.is_empty() { Walk::InOrder } else { Walk::Words(&self.table) }
    }

    /// The router of a way that is not trained, without a memory of how its decisions came about.
    fn fixed(&self, way: ScratchWay) -> Option<RadialRouter> {
        self.router.as_ref().filter(|_| matches!(way, ScratchWay::Fixed(_))).map(RadialRouter::fixed)
    }

    /// The way at a step of the training.
    fn explored<'a>(
        &'a self,
        recipe: &ScratchRecipe,
        step: u32,
        fixed: Option<&'a RadialRouter>,
    ) -> Walk<'a> {
        match (recipe.way, fixed) {
            (_, Some(fixed)) => Walk::Routed(fixed),
            (ScratchWay::Routed(_), _) => Walk::Explored {
                router: self.router.as_ref().expect("it was begun with one"),
                noise: recipe.noise * (1.0 - f64::from(step) / f64::from(recipe.steps)),
                seed: recipe.seed.wrapping_mul(1 << 32).wrapping_add(step.into()),
            },
            (ScratchWay::Depths(capacity), _) => Walk::Depths {
                router: self.depths.as_ref().expect("it was begun with one"),
                capacity: Some(capacity),
            },
            _ => self.unrouted(),
        }
    }
}

/// By which the price of a hop changes a step, nats, for each hop that the depth is off.
const PRICE_RATE: f64 = 0.003;

/// Weight of the loss by which the sign of a score comes to say whether a token takes a layer (the paper names none).
const MEMBERSHIP: f64 = 0.1;

/// Steps between checkpoints.
const KEPT_STEPS: u32 = 50;

struct Standing {
    trained: Trained,
    /// Of the weights, and of the router.
    optimisers: [ModuleOptimizer; 2],
    step: u32,
    price: f64,
    /// Least loss on the texts held out, and evaluations since.
    best: (f64, u32),
}

/// Trains a network of the shapes of `model`. With `keep`, every 50th step is kept in that file, and a training that was stopped goes on from there to the same bytes.
///
/// # Errors
/// Shapes that cannot be trained, a checkpoint of another training, and whatever the system refuses.
pub fn scratch(
    model: &Model,
    texts: &Texts,
    held_out: &Texts,
    recipe: &ScratchRecipe,
    device: &Device,
    keep: Option<&Path>,
    mut done: impl FnMut(&ScratchStep),
) -> Result<Trained> {
    let training = checkpoint::name(&format!("{model:?}"), texts, recipe);
    let mut now = begin(model, recipe, device);
    if let Some(path) = keep {
        now.go_on(path, &training)?;
    }
    let frame = now.trained.parameters.network(model, true)?.frame(texts.length);
    for step in now.step..recipe.steps {
        if recipe.patience > 0 && now.best.1 >= recipe.patience {
            break;
        }
        let batch = texts.batch(step as usize, recipe.rows);
        let network = now.trained.parameters.network(model, false)?;
        let fixed = now.trained.fixed(recipe.way);
        let walk = now.trained.explored(recipe, step, fixed.as_ref());
        let Trodden { logits, walked, chosen, membership } =
            tread(&network, &frame, &batch, &walk, &recipe.rules);
        let nll = likelihoods(&batch, logits).mean();
        let loss = minimised(nll.clone(), chosen.as_ref(), membership, recipe, now.price);
        let [nll, total] = [nll, loss.clone()].map(|value| f64::from(value.into_scalar::<f32>()));
        let rate = recipe.rate * rate(step, recipe.steps);
        now = now.stepped(loss.backward(), rate, recipe);
        let depth = walked.mean_depth(0..batch.len() * texts.length);
        if let Some(wanted) = recipe.depth {
            now.price = (now.price + PRICE_RATE * (depth - wanted)).clamp(-1.0, 1.0);
        }
        now.step = step + 1;
        let held_out = now.held_out(model, held_out, recipe)?;
        if let Some(path) = keep
            && now.step.is_multiple_of(KEPT_STEPS)
        {
            now.write(path, &training, model)?;
        }
        done(&ScratchStep {
            step,
            nll,
            loss: total,
            depth,
            entropy: chosen.map(|chosen| chosen.entropy),
            loads: walked.loads(model.layers),
            rate,
            held_out,
        });
    }
    Ok(now.trained)
}

/// What a step minimises: the likelihood, prices of the router's choices, and what makes scores of a Mixture-of-Depths say who takes a layer.
fn minimised(
    nll: Tensor<1>,
    chosen: Option<&Chosen>,
    membership: Option<Tensor<1>>,
    recipe: &ScratchRecipe,
    price: f64,
) -> Tensor<1> {
    let mut loss = nll;
    if let Some(chosen) = chosen {
        loss = loss + chosen.balance.clone() * recipe.balance;
        if recipe.depth.is_some() {
            loss = loss + chosen.depth.clone() * price;
        }
    }
    match membership {
        Some(membership) => loss + membership * MEMBERSHIP,
        None => loss,
    }
}

/// Runs a network over texts as it will run: what each sequence cost, and where its tokens went.
///
/// # Errors
/// Shapes that cannot be trained.
pub fn evaluate(
    model: &Model,
    trained: &Trained,
    texts: &Texts,
    recipe: &ScratchRecipe,
) -> Result<(Vec<SequenceSums>, Vec<Walked>)> {
    let network = trained.parameters.network(model, true)?;
    let router = trained.router.as_ref().map(RadialRouter::fixed);
    let depths = trained.depths.as_ref().map(SkipRouter::fixed);
    let walk = match (&router, &depths) {
        (Some(router), _) => Walk::Routed(router),
        (_, Some(router)) => Walk::Depths { router, capacity: None },
        _ => trained.unrouted(),
    };
    Ok(along(&network, texts, &walk, &recipe.rules))
}

/// The same of any walk. There is no teacher, so that the divergence is NaN.
pub fn along(
    network: &Network,
    texts: &Texts,
    walk: &Walk,
    rules: &Rules,
) -> (Vec<SequenceSums>, Vec<Walked>) {
    let frame = network.frame(texts.length);
    let (mut all, mut walks) = (Vec::new(), Vec::new());
    for batch in texts.batches() {
        let trodden = tread(network, &frame, &batch, walk, rules);
        let nll: Vec<f32> =
            likelihoods(&batch, trodden.logits).sum_dim(1).into_data().iter::<f32>().collect();
        all.extend(nll.iter().enumerate().map(|(row, &nll)| SequenceSums {
            nll: f64::from(nll),
            kl: f64::NAN,
            depth: trodden.walked.mean_depth(row * texts.length..(row + 1) * texts.length),
            count: (texts.length - 1) as f64,
        }));
        walks.push(trodden.walked);
    }
    (all, walks)
}

/// The share of the highest learning rate at a step.
fn rate(step: u32, of: u32) -> f64 {
    let warm = f64::from(of / 20 + 1);
    let done = f64::from(step) / f64::from(of);
    (f64::from(step + 1) / warm).min(1.0) * (0.55 + 0.45 * libm::cos(std::f64::consts::PI * done))
}

/// Words of a language model.
fn words_of(model: &Model) -> u32 {
    match model.input {
        Input::Tokens { vocabulary, .. } => vocabulary as u32,
        _ => 0,
    }
}

fn begin(model: &Model, recipe: &ScratchRecipe, device: &Device) -> Standing {
    let router = match recipe.way {
        ScratchWay::Routed(begin) | ScratchWay::Fixed(begin) => {
            Some(RadialRouter::new(model.layers, model.hidden, recipe.hidden, begin, recipe.seed, device))
        }
        _ => None,
    };
    let depths = matches!(recipe.way, ScratchWay::Depths(_))
        .then(|| SkipRouter::new(model.layers, model.hidden, recipe.hidden, recipe.seed, device));
    let parameters = Parameters::new(model, recipe.rules.hops, recipe.seed, device);
    let table = match recipe.way {
        ScratchWay::Hashed { staged } => {
            hashed(recipe.seed, words_of(model), model.layers, recipe.rules.hops, staged)
        }
        _ => Vec::new(),
    };
    let optimiser = |decay: f64| {
        AdamWConfig::new()
            .with_weight_decay(decay as f32)
            .with_beta_2(0.98)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(recipe.clip)))
            .init()
    };
    Standing {
        trained: Trained { parameters, router, depths, table },
        optimisers: [optimiser(recipe.decay), optimiser(0.0)],
        step: 0,
        price: 0.0,
        best: (f64::INFINITY, 0),
    }
}

impl Standing {
    /// Evaluates every so many steps and at the last, and remembers the best.
    fn held_out(&mut self, model: &Model, texts: &Texts, recipe: &ScratchRecipe) -> Result<Option<f64>> {
        if !self.step.is_multiple_of(recipe.every) && self.step != recipe.steps {
            return Ok(None);
        }
        let measured = evaluate(model, &self.trained, texts, recipe)?.0;
        let (nll, count) = measured.iter().fold((0.0, 0.0), |(n, c), row| (n + row.nll, c + row.count));
        let nll = nll / count;
        self.best = if nll < self.best.0 { (nll, 0) } else { (self.best.0, self.best.1 + 1) };
        Ok(Some(nll))
    }

    fn stepped(mut self, mut gradients: Gradients, rate: f64, recipe: &ScratchRecipe) -> Standing {
        let Trained { parameters, router, depths, table } = self.trained;
        let own = GradientsParams::from_module(&mut gradients, &parameters);
        let parameters = self.optimisers[0].step(rate, parameters, own);
        let router = match (router, recipe.way) {
            (Some(router), ScratchWay::Routed(_)) => {
                let own = GradientsParams::from_module(&mut gradients, &router);
                Some(self.optimisers[1].step(rate * recipe.router_rate, router, own))
            }
            (router, _) => router,
        };
        let depths = depths.map(|router| {
            let own = GradientsParams::from_module(&mut gradients, &router);
            self.optimisers[1].step(rate, router, own)
        });
        self.trained = Trained { parameters, router, depths, table };
        self
    }

    fn write(&self, path: &Path, training: &str, model: &Model) -> Result<()> {
        let [own, routers] = &self.optimisers;
        let (own, routers) = (checkpoint::state(own, path)?, checkpoint::state(routers, path)?);
        let state = (self.step, self.price.to_bits(), self.best.0.to_bits(), self.best.1);
        let weights =
            checkpoint::bytes(self.trained.parameters.values(model).into_iter().map(|(_, _, values)| values));
        let router = self.trained.router.iter().map(RadialRouter::values);
        let depths = self.trained.depths.iter().flat_map(SkipRouter::values);
        let router = checkpoint::bytes(router.chain(depths));
        checkpoint::write(path, training, state, &[&weights, &router, &own, &routers])
    }

    fn go_on(&mut self, path: &Path, training: &str) -> Result<()> {
        let Some((state, [weights, router, own, routers])) =
            checkpoint::read::<(u32, u64, u64, u32), 4>(path, training)?
        else {
            return Ok(());
        };
        let size = |count: usize| count * size_of::<f32>();
        let Trained { router: radial, depths, .. } = &self.trained;
        let count = radial.as_ref().map_or(0, RadialRouter::count)
            + depths.as_ref().map_or(0, |depths| depths.values().iter().map(Vec::len).sum());
        if weights.len() != size(self.trained.parameters.count()) || router.len() != size(count) {
            return Err(checkpoint::broken(path, "weights of other shapes"));
        }
        self.trained.parameters = self.trained.parameters.filled(&checkpoint::floats(&weights));
        self.trained.router =
            self.trained.router.take().map(|begun| begun.filled(&checkpoint::floats(&router)));
        for (optimiser, state) in self.optimisers.iter_mut().zip([own, routers]) {
            let empty = std::mem::replace(optimiser, AdamWConfig::new().init());
            *optimiser = checkpoint::restored(empty, state, path)?;
        }
        let (step, price, best, since) = state;
        (self.step, self.price, self.best) = (step, f64::from_bits(price), (f64::from_bits(best), since));
        Ok(())
    }
}
