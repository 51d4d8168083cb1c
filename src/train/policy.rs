//! The gradient of a skip router by its own draws (REINFORCE: Williams, Machine Learning 8, 1992), in place of a derivative through the gates.
//!
//! A gate is drawn: a token takes a branch with the probability `sigmoid(score / noise)`, which is what the straight-through way draws too. Minimised
//! is the expectation of
//!
//! ```text
//! mean over tokens of  KL + crowding blocks_left_out^2 - price blocks_left_out
//! ```
//!
//! A token's decisions answer for what it and the tokens behind it cost, `G = cost + discount G of the next token`, as no earlier token sees them; a
//! discount of one is the whole of it, less is a bias that scatters less. From that is taken the mean `G` of the same token over the other draws of the
//! same sequence (leave-one-out baseline: Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", 2019), which does not depend on
//! the draw's own decisions, so that the expectation stays as it is.

use super::measure::divergences_of;
use super::network::{Frame, Gates, Network};
use super::recipe::{Estimate, Gradient, Recipe};
use super::skip::SkipRouter;
use crate::error::{InputError, Result};
use crate::rng::Stream;
use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Tensor, TensorData};

/// What one draw leaves.
struct Draw {
    /// Of each layer that is decided: the stream that enters it, B x T x D, and which branches each token took.
    decided: Vec<(Tensor<3>, Vec<bool>)>,
    /// Divergence at each token, nats.
    kl: Vec<f64>,
    /// Blocks that each token left out.
    left: Vec<f64>,
}

/// Draws, and a sum whose derivative by the router's weights is the estimate; `teacher` holds logits of the whole model.
#[expect(clippy::too_many_arguments, reason = "one step of a training, whose parts have names there")]
pub(super) fn estimate(
    network: &Network,
    router: &SkipRouter,
    frame: &Frame,
    batch: &[&[u32]],
    teacher: Tensor<3>,
    candidates: &[[bool; 2]],
    recipe: &Recipe,
    price: f64,
    random: &mut Stream,
) -> Estimate {
    let Gradient::Policy { draws, discount } = recipe.gradient else {
        unreachable!("the gradient of a policy was asked for")
    };
    let (fixed, teacher) = (router.fixed(), log_softmax(teacher, 2));
    let drawn: Vec<Draw> = (0..draws)
        .map(|_| draw(network, &fixed, frame, batch, &teacher, candidates, recipe, random))
        .collect();
    let (rows, tokens) = (batch.len(), batch[0].len());
    let count = (rows * tokens) as f64;
    let cost = |draw: &Draw, token: usize| {
        let left = draw.left[token];
        draw.kl[token] + recipe.crowding * left * left - price * left
    };
    let behind = |draw: &Draw| {
        let mut sums: Vec<f64> = (0..rows * tokens).map(|token| cost(draw, token)).collect();
        for row in sums.chunks_exact_mut(tokens) {
            for token in (0..tokens - 1).rev() {
                row[token] += discount * row[token + 1];
            }
        }
        sums
    };
    let sums: Vec<Vec<f64>> = drawn.iter().map(behind).collect();
    let total: Vec<f64> = (0..rows * tokens).map(|token| sums.iter().map(|sum| sum[token]).sum()).collect();
    let others = f64::from(draws - 1);
    // Cost less baseline, over the number of tokens and draws.
    let above = |own: &Vec<f64>| {
        let each = |(own, total): (&f64, &f64)| (own - (total - own) / others) / (count * f64::from(draws));
        own.iter().zip(&total).map(each).collect::<Vec<f64>>()
    };
    let above: Vec<f64> = sums.iter().flat_map(above).collect();
    let all = rows * draws as usize;
    let mut loss: Option<Tensor<1>> = None;
    let layers = (0..).zip(candidates).filter(|(_, may)| **may != [false; 2]);
    for (at, (layer, may)) in layers.enumerate() {
        let streams = drawn.iter().map(|draw| draw.decided[at].0.clone()).collect();
        let scores = router.scores(layer, Tensor::cat(streams, 0).autodiff());
        // Of what was drawn the probability is sigmoid(sign score / noise).
        let taken = drawn.iter().flat_map(|draw| &draw.decided[at].1);
        let signs = taken.map(|&taken| if taken { 1.0 } else { -1.0 } / recipe.noise as f32).collect();
        let weight = |at: usize| if may[at % 2] { above[at / 2] as f32 } else { 0.0 };
        let weights: Vec<f32> = (0..2 * above.len()).map(weight).collect();
        let tensor = |values: Vec<f32>| {
            Tensor::<3>::from_data(TensorData::new(values, [all, tokens, 2]), &scores.device())
        };
        let sum = (log_sigmoid(scores.clone() * tensor(signs)) * tensor(weights)).sum();
        loss = Some(loss.map_or(sum.clone(), |loss| loss + sum));
    }
    let mean = |of: &dyn Fn(&Draw) -> f64| drawn.iter().map(of).sum::<f64>() / (f64::from(draws) * count);
    Estimate {
        loss: loss.expect("some branches may be left out"),
        value: mean(&|draw| (0..rows * tokens).map(|token| cost(draw, token)).sum()),
        kl: mean(&|draw| draw.kl.iter().sum()),
        left: mean(&|draw| draw.left.iter().sum()),
    }
}

#[expect(clippy::too_many_arguments, reason = "one of the draws above")]
fn draw(
    network: &Network,
    router: &SkipRouter,
    frame: &Frame,
    batch: &[&[u32]],
    teacher: &Tensor<3>,
    candidates: &[[bool; 2]],
    recipe: &Recipe,
    random: &mut Stream,
) -> Draw {
    let (rows, tokens) = (batch.len(), batch[0].len());
    let (mut decided, mut left) = (Vec::new(), vec![0.0; rows * tokens]);
    let mut stream = network.embed(batch);
    for (layer, may) in (0..).zip(candidates) {
        if *may == [false; 2] {
            stream = network.layer(layer, frame, stream, None, recipe.kv);
            continue;
        }
        let scores = router.scores(layer, stream.clone()).into_data();
        let take = |(at, score): (usize, f32)| {
            let share = 1.0 / (1.0 + libm::exp(-f64::from(score) / recipe.noise));
            let drawn = random.uniform() < share;
            drawn || !may[at % 2]
        };
        let taken: Vec<bool> = scores.iter::<f32>().enumerate().map(take).collect();
        for (left, taken) in left.iter_mut().zip(taken.chunks_exact(2)) {
            *left += 0.5 * taken.iter().filter(|taken| !**taken).count() as f64;
        }
        let gate = |branch: usize| {
            let values: Vec<f32> =
                taken.iter().skip(branch).step_by(2).map(|&taken| f32::from(u8::from(taken))).collect();
            Tensor::<3>::from_data(TensorData::new(values, [rows, tokens, 1]), network.device())
        };
        let gates = Gates { attention: gate(0), feed_forward: gate(1) };
        let behind = network.layer(layer, frame, stream.clone(), Some(&gates), recipe.kv);
        decided.push((stream, taken));
        stream = behind;
    }
    let kl = divergences_of(teacher.clone(), network.logits(stream)).into_data();
    Draw { decided, kl: kl.iter::<f32>().map(f64::from).collect(), left }
}

/// Refuses draws of which nothing can be learned.
///
/// # Errors
/// No noise, so that nothing is drawn; fewer than two draws, of which one has no baseline; a discount outside 0 to 1.
pub(super) fn check(recipe: &Recipe) -> Result<()> {
    let Gradient::Policy { draws, discount } = recipe.gradient else { return Ok(()) };
    let wrong =
        |what: &str, key: &str, found: f64| Err(InputError::expected(what).key(key).found(found).into());
    if recipe.noise <= 0.0 {
        return wrong("noise above 0, by which gates are drawn", "noise", recipe.noise);
    }
    if draws < 2 {
        return wrong("at least 2 draws, each the other's baseline", "--draws", draws.into());
    }
    if !(0.0..=1.0).contains(&discount) {
        return wrong("a discount of 0 to 1", "--discount", discount);
    }
    Ok(())
}

/// One estimate of the gradient of a router, on these sequences: its parts one behind the other, in the order of the file's. For whoever asks by how much
/// estimates scatter.
///
/// # Errors
/// A recipe without draws, or with draws of which nothing can be learned.
pub fn policy_gradient(
    network: &Network,
    batch: &[&[u32]],
    router: &SkipRouter,
    candidates: &[[bool; 2]],
    recipe: &Recipe,
    seed: u64,
) -> Result<Vec<f32>> {
    check(recipe)?;
    if recipe.gradient == Gradient::StraightThrough {
        return Err(InputError::expected("a policy's gradient").key("gradient").found("another").into());
    }
    let frame = network.frame(batch[0].len());
    let mut stream = network.embed(batch);
    for layer in 0..network.model().layers {
        stream = network.layer(layer, &frame, stream, None, recipe.kv);
    }
    let teacher = network.logits(stream);
    let random = &mut Stream::new(seed, "policy");
    let estimate =
        estimate(network, router, &frame, batch, teacher, candidates, recipe, recipe.price, random);
    Ok(router.gradient(&estimate.loss.backward()))
}
