//! Ways through a pool, hop by hop: who says which layer a token visits, and what was decided.

use super::network::{Frame, Network, Newest, SeenTokens};
use super::radial::{RadialRouter, stage};
use super::skip::SkipRouter;
use crate::rng::Stream;
use crate::weights::takes;
use burn::tensor::activation::{log_softmax, sigmoid, softmax, softplus};
use burn::tensor::{Int, Tensor, TensorData};
use std::ops::Range;

/// How many hops there are, and what else holds for all tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Most layers that a token visits.
    pub hops: u32,
    /// Layers that it visits at least.
    pub least_hops: u32,
    /// Whether branches are multiplied by the probability of the layer that was chosen.
    pub weighted: bool,
}

/// Who says where a token goes.
#[derive(Clone, Debug)]
pub enum Walk<'a> {
    /// The layers of the pool in order, from the first again behind the last.
    InOrder,
    /// The layers that a table names for each word: V x H, word by word.
    Words(&'a [u32]),
    /// The option that a router scores highest.
    Routed(&'a RadialRouter),
    /// The option that is highest with some noise added, to find out what others are worth; the derivative of its probability stands
    /// in for that of the choice.
    Explored {
        /// The router.
        router: &'a RadialRouter,
        /// Spread of the noise, in scores: 1 draws each option with its probability, 0 takes the highest.
        noise: f64,
        /// Seed of the noise.
        seed: u64,
    },
    /// All layers in order; before each second one, a router scores the tokens, and some leave it out (Mixture-of-Depths, Raposo et al., arXiv
    /// 2404.02258).
    Depths {
        /// Whose first score counts.
        router: &'a SkipRouter,
        /// The share of each sequence's tokens that takes the layer, the best first, as in training; absent: those whose score is not below zero,
        /// which needs no later token.
        capacity: Option<f64>,
    },
}

/// Which layer each token visited at each hop: `[hop][row * tokens + token]`; `None` once it has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked(pub Vec<Vec<Option<u32>>>);

impl Walked {
    /// Mean number of layers that a token visited, over some of the tokens.
    pub fn mean_depth(&self, tokens: Range<usize>) -> f64 {
        let count = tokens.len() as f64;
        let visits = self.0.iter().map(|hop| hop[tokens.clone()].iter().flatten().count() as f64);
        visits.sum::<f64>() / count
    }

    /// Visits of each layer of a pool.
    pub fn loads(&self, layers: u32) -> Vec<u64> {
        let mut loads = vec![0; layers as usize];
        self.0.iter().flatten().flatten().for_each(|&layer| loads[layer as usize] += 1);
        loads
    }
}

/// What a walk leaves.
pub(super) struct Trodden {
    /// Logits, B x T x V.
    pub logits: Tensor<3>,
    /// Where each token went.
    pub walked: Walked,
    /// What is known of a router's choices, in an exploring walk.
    pub chosen: Option<Chosen>,
    /// Mean cross-entropy, nats, of whether a token was among those that took a layer, by its score: what makes the score's sign say it.
    pub membership: Option<Tensor<1>>,
}

/// Sums over a router's choices that can be differentiated.
pub(super) struct Chosen {
    /// Over options: mean probability times share of the choices, times the number of options; 1 where all are used alike (Switch Transformer,
    /// Fedus et al., arXiv 2101.03961, equation 4).
    pub balance: Tensor<1>,
    /// Mean number of hops that a token makes.
    pub depth: Tensor<1>,
    /// Mean entropy of a choice, nats.
    pub entropy: f64,
}

/// Runs tokens through a network along a walk.
pub(super) fn tread(
    network: &Network,
    frame: &Frame,
    batch: &[&[u32]],
    walk: &Walk,
    rules: &Rules,
) -> Trodden {
    let mut going = Going::new(network, batch, *rules);
    let mut newest = Newest::default();
    for hop in 0..rules.hops {
        let Next { at, weights, seen } = going.next(walk, hop);
        for (before, layer) in going.before.iter_mut().zip(&at) {
            *before = layer.unwrap_or(*before);
        }
        going.stream = network.hop(frame, going.stream, &at, weights, seen, &mut newest);
        going.walked.0.push(at);
    }
    let Going { stream, walked, sums, memberships, layers, .. } = going;
    let count = memberships.len() as f64;
    let membership = memberships.into_iter().reduce(|sum, one| sum + one).map(|sum| sum / count);
    Trodden { logits: network.logits(stream), walked, chosen: sums.chosen(layers), membership }
}

/// Tokens between two hops.
struct Going {
    rules: Rules,
    layers: u32,
    /// Sequences, and tokens of each.
    size: [usize; 2],
    words: Vec<u32>,
    /// B x T x D.
    stream: Tensor<3>,
    /// The layer that each token comes from; the number of layers where it comes from the embedding.
    before: Vec<u32>,
    walked: Walked,
    sums: Sums,
    memberships: Vec<Tensor<1>>,
}

/// A hop: the layer of each token, what its branches are multiplied by, N x 1, and what it sees.
struct Next {
    at: Vec<Option<u32>>,
    weights: Option<Tensor<2>>,
    seen: SeenTokens,
}

impl Going {
    fn new(network: &Network, batch: &[&[u32]], rules: Rules) -> Going {
        let (rows, tokens, layers) = (batch.len(), batch[0].len(), network.model().layers);
        let count = rows * tokens;
        Going {
            rules,
            layers,
            size: [rows, tokens],
            words: batch.iter().flat_map(|row| row.iter().copied()).collect(),
            stream: network.embed(batch),
            before: vec![layers; count],
            walked: Walked::default(),
            sums: Sums::new(count),
            memberships: Vec::new(),
        }
    }

    fn count(&self) -> usize {
        self.size[0] * self.size[1]
    }

    fn next(&mut self, walk: &Walk, hop: u32) -> Next {
        let plain = |at| Next { at, weights: None, seen: SeenTokens::Newest };
        match walk {
            Walk::InOrder => plain(vec![Some(hop % self.layers); self.count()]),
            Walk::Words(table) => {
                let of = |&word: &u32| Some(table[(word * self.rules.hops + hop) as usize]);
                plain(self.words.iter().map(of).collect())
            }
            Walk::Depths { .. } if hop.is_multiple_of(2) => plain(vec![Some(hop); self.count()]),
            Walk::Depths { router, capacity } => self.some_of(router, *capacity, hop),
            Walk::Routed(router) => self.routed(router, None, hop),
            Walk::Explored { router, noise, seed } => {
                let drawn = (*noise, Stream::new(*seed, &format!("hop {hop}")));
                self.routed(router, Some(drawn), hop)
            }
        }
    }

    /// A share of the tokens takes the layer of the hop.
    fn some_of(&mut self, router: &SkipRouter, capacity: Option<f64>, hop: u32) -> Next {
        let [rows, tokens] = self.size;
        let scores = router.scores(hop, self.stream.clone()).slice([0..rows, 0..tokens, 0..1]);
        let scores = scores.reshape([self.count(), 1]);
        let taken = among(&scores, tokens, capacity);
        let weights = capacity.map(|_| {
            self.memberships.push(membership(scores.clone(), &taken));
            straight_through(sigmoid(scores))
        });
        let at = taken.iter().map(|&taken| taken.then_some(hop)).collect();
        Next { at, weights, seen: SeenTokens::Present }
    }

    /// Each token takes the option that a router scores highest, with noise where some is drawn.
    fn routed(&mut self, router: &RadialRouter, noise: Option<(f64, Stream)>, hop: u32) -> Next {
        let alive: Vec<bool> = match self.walked.0.last() {
            Some(last) => last.iter().map(Option::is_some).collect(),
            None => vec![true; self.count()],
        };
        let rows = self.stream.clone().reshape([self.count(), self.stream.dims()[2]]);
        let scores = allowed(router.scores(rows, &self.before, &self.words), hop >= self.rules.least_hops);
        let explored = noise.is_some();
        let choices = choose(&scores, noise);
        let weights = (explored || self.rules.weighted).then(|| {
            let share = softmax(scores.clone(), 1);
            let picked = picked(&share, &choices);
            if explored {
                self.sums.add(&scores, share, &choices, &alive, self.layers);
            }
            if self.rules.weighted { picked } else { straight_through(picked) }
        });
        let taken = |(&choice, &alive): (&u32, &bool)| (alive && choice < self.layers).then_some(choice);
        let at = choices.iter().zip(&alive).map(taken).collect();
        Next { at, weights, seen: SeenTokens::Newest }
    }
}

/// Which tokens take a layer: the best of each sequence by their scores, N x 1, or those whose score is not below zero.
fn among(scores: &Tensor<2>, tokens: usize, capacity: Option<f64>) -> Vec<bool> {
    let values: Vec<f32> = scores.clone().detach().into_data().iter::<f32>().collect();
    let Some(capacity) = capacity else { return values.iter().map(|&score| takes(true, score)).collect() };
    let most = ((capacity * tokens as f64).round() as usize).clamp(1, tokens);
    let best = |row: &[f32]| {
        let mut order: Vec<usize> = (0..tokens).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let mut taken = vec![false; tokens];
        order[..most].iter().for_each(|&token| taken[token] = true);
        taken
    };
    values.chunks_exact(tokens).flat_map(best).collect()
}

/// Mean cross-entropy of being among those that take a layer, by scores N x 1 as log-odds.
fn membership(scores: Tensor<2>, taken: &[bool]) -> Tensor<1> {
    let among: Vec<f32> = taken.iter().map(|&taken| f32::from(u8::from(taken))).collect();
    let among = Tensor::<2>::from_data(TensorData::new(among, [taken.len(), 1]), &scores.device());
    (softplus(scores.clone(), 1.0) - scores * among).mean()
}

/// A layer for each word and hop, drawn once for all: V x H; with `staged`, among the layers of the hop's stage.
pub fn hashed(seed: u64, words: u32, layers: u32, hops: u32, staged: bool) -> Vec<u32> {
    let drawn = |word: u32, hop: u32| {
        let mut random = Stream::new(seed, &format!("hash {word} {hop}"));
        let among = if staged { stage(hop, hops, layers) } else { 0..layers };
        among.start + random.below(u64::from(among.end - among.start)) as u32
    };
    (0..words)
        .flat_map(|word| (0..hops).map(move |hop| (word, hop)))
        .map(|(word, hop)| drawn(word, hop))
        .collect()
}

/// One, with the derivative of x (straight-through estimator, Bengio et al., arXiv 1308.3432).
fn straight_through(x: Tensor<2>) -> Tensor<2> {
    x.clone() + (x.detach().neg() + 1.0)
}

/// Scores among which the exit is, or is not.
fn allowed(scores: Tensor<2>, exit: bool) -> Tensor<2> {
    if exit {
        return scores;
    }
    let [count, options] = scores.dims();
    scores.slice([0..count, 0..options - 1])
}

/// The highest option of each row, with Gumbel noise added (Maddison et al., arXiv 1611.00712) or without.
fn choose(scores: &Tensor<2>, drawn: Option<(f64, Stream)>) -> Vec<u32> {
    let options = scores.dims()[1];
    let mut values: Vec<f32> = scores.clone().detach().into_data().iter::<f32>().collect();
    if let Some((noise, mut random)) = drawn.filter(|(noise, _)| *noise > 0.0) {
        for value in &mut values {
            let u = random.uniform().clamp(1e-12, 1.0 - 1e-12);
            *value -= (noise * libm::log(-libm::log(u))) as f32;
        }
    }
    let highest = |row: &[f32]| {
        (1..row.len()).fold(0, |best, option| if row[option] > row[best] { option } else { best }) as u32
    };
    values.chunks_exact(options).map(highest).collect()
}

/// The value of each row at its choice: N x 1.
fn picked(x: &Tensor<2>, choices: &[u32]) -> Tensor<2> {
    let ids: Vec<i64> = choices.iter().map(|&choice| i64::from(choice)).collect();
    let device = x.device().without_autodiff();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [choices.len(), 1]), &device);
    x.clone().gather(1, ids)
}

/// Sums over the hops of an exploring walk.
struct Sums {
    tokens: usize,
    /// Probability of each layer, summed over choices: 1 x P.
    shares: Option<Tensor<2>>,
    /// Probability that a token stays, summed over choices among which the exit was.
    stays: Option<Tensor<1>>,
    /// Hops that nobody could leave, and choices so far.
    sure: f64,
    counts: Vec<u64>,
    choices: u64,
    entropy: f64,
}

impl Sums {
    fn new(tokens: usize) -> Sums {
        Sums { tokens, shares: None, stays: None, sure: 0.0, counts: Vec::new(), choices: 0, entropy: 0.0 }
    }

    fn add(&mut self, scores: &Tensor<2>, share: Tensor<2>, choices: &[u32], alive: &[bool], layers: u32) {
        let [count, options] = share.dims();
        self.counts.resize(layers as usize, 0);
        for (&choice, _) in choices.iter().zip(alive).filter(|(_, alive)| **alive) {
            self.choices += 1;
            if choice < layers {
                self.counts[choice as usize] += 1;
            }
        }
        let living: Vec<f32> = alive.iter().map(|&alive| f32::from(u8::from(alive))).collect();
        let living = Tensor::<2>::from_data(TensorData::new(living, [count, 1]), &share.device());
        let entropy = (share.clone() * log_softmax(scores.clone(), 1)).sum_dim(1) * living.clone();
        self.entropy -= f64::from(entropy.sum().into_scalar::<f32>());
        let share = share * living.clone();
        if options > layers as usize {
            let exit = share.clone().slice([0..count, layers as usize..options]);
            let stays = (living - exit).sum();
            self.stays = Some(self.stays.take().map_or(stays.clone(), |sum| sum + stays));
        } else {
            self.sure += alive.iter().filter(|alive| **alive).count() as f64;
        }
        let sum = share.slice([0..count, 0..layers as usize]).sum_dim(0);
        self.shares = Some(self.shares.take().map_or(sum.clone(), |all| all + sum));
    }

    fn chosen(self, layers: u32) -> Option<Chosen> {
        let shares = self.shares?;
        let visits = self.counts.iter().sum::<u64>().max(1) as f32;
        let used: Vec<f32> = self.counts.iter().map(|&count| count as f32 / visits).collect();
        let used = Tensor::<2>::from_data(TensorData::new(used, [1, layers as usize]), &shares.device());
        let total = f64::from(shares.clone().sum().into_scalar::<f32>()).max(1e-9);
        let balance = (shares.clone() * used).sum() * (f64::from(layers) / total);
        let tokens = self.tokens as f64;
        let depth = match self.stays {
            Some(stays) => (stays + self.sure) / tokens,
            None => Tensor::<1>::from_data([(self.sure / tokens) as f32], &shares.device()),
        };
        Some(Chosen { balance, depth, entropy: self.entropy / self.choices.max(1) as f64 })
    }
}
