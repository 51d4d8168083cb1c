//! Which branches a token leaves out together: a search by measured divergence.
//!
//! Effects of several branches do not add up, so that the effect of each alone misleads a router that leaves out several. The search adds one
//! branch a round to what a token leaves out. In each round every candidate is tried on top of what the token leaves out already, and the
//! sets with the least KL divergence from the whole model at that token are kept: one (greedy), or several (a beam).
//!
//! **What is approximated.** All tokens search side by side: a trial leaves the candidate out for all tokens of the batch at once, and each token
//! looks at its own divergence. So what a token reads includes that the tokens before it left out the same branch, whereas after the round each of
//! them leaves out its own choice, and their entries in the KV cache are others than those of the trial. For a sequence of one token nothing is
//! approximated. Therefore the sets of a sequence are held in the end, all together, against those of the same size by the effect of each branch alone, and
//! the better ones of the two are kept: sequences do not see each other, so that this is exact. [`SearchResult::kl`] is measured on them, all together.

use super::effects::Effects;
use super::measure::divergences_of;
use super::network::{Frame, Gates, Network};
use crate::quality::Texts;
use crate::weights::SkipKv;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};

/// What a search found.
#[derive(Clone, Debug)]
pub struct SearchResult {
    /// For each token the branches that it leaves out together, as layer and branch (0 attention, 1 feed-forward), in that order.
    pub left_out: Vec<Vec<(usize, usize)>>,
    /// KL divergence from the teacher at each token, nats, where each leaves out what was found for it.
    pub kl: Vec<f32>,
    /// What each candidate does in the company of the others that the token leaves out: the divergence with it left out less that with it taken, nats,
    /// and the streams that enter the layers on that way. Branches that are no candidates were not tried; their values are zero.
    pub effects: Effects,
}

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Branches that each token leaves out, at most as many as there are candidates.
    pub rounds: usize,
    /// Sets of each token that are kept from round to round, at least one.
    pub width: usize,
}

/// For each candidate, whether it is left out.
type Set = Vec<bool>;

/// Searches for each token of these texts. `done` hears of each batch. Takes somewhat more than `width * rounds + 2` times as long as the effects of the candidates alone.
pub fn search(
    network: &Network,
    texts: &Texts,
    candidates: &[[bool; 2]],
    reach: Reach,
    kv: SkipKv,
    mut done: impl FnMut(usize),
) -> SearchResult {
    let frame = network.frame(texts.length);
    let layers = network.model().layers as usize;
    let mut numbers = vec![[None; 2]; layers];
    let mut places = Vec::new();
    for (layer, may) in candidates.iter().enumerate() {
        for branch in (0..2).filter(|&branch| may[branch]) {
            numbers[layer][branch] = Some(places.len());
            places.push((layer, branch));
        }
    }
    let mut found = SearchResult {
        left_out: Vec::new(),
        kl: Vec::new(),
        effects: Effects { kl: vec![Default::default(); layers], states: Vec::new() },
    };
    let mut states: Vec<Vec<Tensor<2>>> = vec![Vec::new(); layers];
    for (index, batch) in texts.batches().enumerate() {
        let mut stream = network.embed(&batch);
        for layer in 0..network.model().layers {
            stream = network.layer(layer, &frame, stream, None, kv);
        }
        let teacher = log_softmax(network.logits(stream), 2);
        let (places, numbers) = (&places, &numbers);
        let ways = Ways { network, frame: &frame, kv, batch: &batch, teacher, places, numbers };
        let sets = ways.better(ways.found(reach));
        ways.judge(&sets, &mut found, &mut states);
        done(index);
    }
    found.effects.states = states.into_iter().map(|parts| Tensor::cat(parts, 0)).collect();
    found
}

/// A batch, and what may be left out on its way.
struct Ways<'a> {
    network: &'a Network,
    frame: &'a Frame,
    kv: SkipKv,
    batch: &'a [&'a [u32]],
    /// Logarithms of the whole model's probabilities, B x T x V.
    teacher: Tensor<3>,
    /// Layer and branch of each candidate.
    places: &'a [(usize, usize)],
    /// `[layer][branch]`: number of the candidate.
    numbers: &'a [[Option<usize>; 2]],
}

impl Ways<'_> {
    /// The set of each token that was found best, and the one of those candidates that harm least each alone.
    fn found(&self, reach: Reach) -> [Vec<Set>; 2] {
        let count = self.batch.len() * self.batch[0].len();
        let mut ranked = vec![vec![false; self.places.len()]; count];
        let mut beams: Vec<Vec<Set>> = vec![vec![vec![false; self.places.len()]]; count];
        let rounds = reach.rounds.min(self.places.len());
        for round in 0..rounds {
            let mut tried: Vec<Vec<(f32, Set)>> = vec![Vec::new(); count];
            let widest = beams.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..widest {
                // A token with fewer sets runs its last one again, and is not asked.
                let sets: Vec<&Set> = beams.iter().map(|sets| &sets[at.min(sets.len() - 1)]).collect();
                let (entering, _) = self.whole(&sets);
                for (candidate, &(layer, _)) in self.places.iter().enumerate() {
                    let kl = self.tried(layer, entering[layer].clone(), &sets, (candidate, true));
                    for (token, set) in sets.iter().enumerate() {
                        if at < beams[token].len() && !set[candidate] {
                            let mut more = (*set).clone();
                            more[candidate] = true;
                            tried[token].push((kl[token], more));
                        }
                    }
                }
            }
            for ((sets, ranked), mut tried) in beams.iter_mut().zip(&mut ranked).zip(tried) {
                tried.sort_by(|a, b| a.0.total_cmp(&b.0));
                if round == 0 {
                    let least = tried[..rounds].iter().flat_map(|(_, one)| one.iter().position(|&out| out));
                    least.for_each(|candidate| ranked[candidate] = true);
                }
                sets.clear();
                for (_, set) in tried {
                    if sets.len() < reach.width.max(1) && !sets.contains(&set) {
                        sets.push(set);
                    }
                }
            }
        }
        [beams.into_iter().map(|mut sets| sets.swap_remove(0)).collect(), ranked]
    }

    /// Of each sequence the sets that cost less together.
    fn better(&self, [mut found, ranked]: [Vec<Set>; 2]) -> Vec<Set> {
        let tokens = self.batch[0].len();
        let cost = |sets: &[Set]| -> Vec<f64> {
            let kl = self.divergences(self.whole(&sets.iter().collect::<Vec<_>>()).1);
            kl.chunks_exact(tokens).map(|row| row.iter().map(|&kl| f64::from(kl)).sum()).collect()
        };
        let costs = cost(&found).into_iter().zip(cost(&ranked));
        for (row, (of_found, of_ranked)) in costs.enumerate() {
            if of_ranked < of_found {
                let row = row * tokens..(row + 1) * tokens;
                found[row.clone()].clone_from_slice(&ranked[row]);
            }
        }
        found
    }

    /// What these sets cost together, and what each candidate does in their company.
    fn judge(&self, sets: &[Set], found: &mut SearchResult, states: &mut [Vec<Tensor<2>>]) {
        let sets: Vec<&Set> = sets.iter().collect();
        let (entering, last) = self.whole(&sets);
        found.kl.extend(self.divergences(last));
        for (states, stream) in states.iter_mut().zip(&entering) {
            let [rows, tokens, width] = stream.dims();
            states.push(stream.clone().reshape([rows * tokens, width]));
        }
        for (numbers, effects) in self.numbers.iter().zip(&mut found.effects.kl) {
            for (number, effect) in numbers.iter().zip(effects) {
                let Some(candidate) = *number else {
                    effect.resize(effect.len() + sets.len(), 0.0);
                    continue;
                };
                let layer = self.places[candidate].0;
                let with = |out| self.tried(layer, entering[layer].clone(), &sets, (candidate, out));
                effect.extend(with(true).iter().zip(with(false)).map(|(out, taken)| out - taken));
            }
        }
        let of = |set: &&Set| (0..set.len()).filter(|&at| set[at]).map(|at| self.places[at]).collect();
        found.left_out.extend(sets.iter().map(of));
    }

    /// The stream that enters each layer, and the one behind the last, where each token leaves out its set.
    fn whole(&self, sets: &[&Set]) -> (Vec<Tensor<3>>, Tensor<3>) {
        let mut entering = Vec::new();
        let mut stream = self.network.embed(self.batch);
        for layer in 0..self.numbers.len() {
            entering.push(stream.clone());
            stream = self.one(layer, stream, sets, None);
        }
        (entering, stream)
    }

    /// The divergence at each token where each leaves out its set, but all tokens leave out one candidate, or all take it; `stream` enters its layer.
    fn tried(
        &self,
        layer: usize,
        stream: Tensor<3>,
        sets: &[&Set],
        (candidate, out): (usize, bool),
    ) -> Vec<f32> {
        let first = self.one(layer, stream, sets, Some((self.places[candidate].1, out)));
        let last =
            (layer + 1..self.numbers.len()).fold(first, |stream, layer| self.one(layer, stream, sets, None));
        self.divergences(last)
    }

    fn divergences(&self, last: Tensor<3>) -> Vec<f32> {
        let kl = divergences_of(self.teacher.clone(), self.network.logits(last));
        kl.into_data().iter::<f32>().collect()
    }

    /// One layer; `all` says for one branch whether all tokens leave it out.
    fn one(&self, layer: usize, stream: Tensor<3>, sets: &[&Set], all: Option<(usize, bool)>) -> Tensor<3> {
        let taken = |branch: usize| -> Vec<f32> {
            let out = |set: &&Set| match (all, self.numbers[layer][branch]) {
                (Some((same, out)), _) if same == branch => out,
                (_, Some(number)) => set[number],
                _ => false,
            };
            sets.iter().map(|set| if out(set) { 0.0 } else { 1.0 }).collect()
        };
        let taken = [taken(0), taken(1)];
        let [rows, tokens, _] = stream.dims();
        let gate = |branch: usize| {
            let data = TensorData::new(taken[branch].clone(), [rows, tokens, 1]);
            Tensor::<3>::from_data(data, self.network.device())
        };
        let some = taken.iter().flatten().any(|&taken| taken == 0.0);
        let gates = some.then(|| Gates { attention: gate(0), feed_forward: gate(1) });
        self.network.layer(layer as u32, self.frame, stream, gates.as_ref(), self.kv)
    }
}
