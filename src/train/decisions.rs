//! Who decides what a token leaves out, and what was decided.

use super::network::{Frame, Gates, Network};
use super::skip::SkipRouter;
use crate::rng::Stream;
use crate::weights::{SkipKv, takes};
use burn::tensor::{Tensor, TensorData};
use std::ops::Range;

/// Who decides.
#[derive(Clone, Debug)]
pub enum TrainedRouting<'a> {
    /// Every token takes every branch.
    Dense,
    /// Every token leaves out the same branches.
    Static(&'a [[bool; 2]]),
    /// A router, before each layer, among these branches.
    Router(&'a SkipRouter, &'a [[bool; 2]]),
    /// What was decided before.
    Given(&'a BranchDecisions),
}

/// Which branches each token takes: 1 or 0, for each layer and branch B x T.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchDecisions {
    rows: usize,
    tokens: usize,
    /// `[layer][branch][row * tokens + token]`.
    taken: Vec<[Vec<f32>; 2]>,
}

impl BranchDecisions {
    /// These decisions: `takes` of layer, branch (0 attention, 1 feed-forward), row and token.
    pub fn of(
        [layers, rows, tokens]: [usize; 3],
        takes: impl Fn(usize, usize, usize, usize) -> bool,
    ) -> BranchDecisions {
        let takes = &takes;
        let branch = |layer, branch| {
            let of = |at| f32::from(u8::from(takes(layer, branch, at / tokens, at % tokens)));
            (0..rows * tokens).map(of).collect()
        };
        let taken = (0..layers).map(|layer| [branch(layer, 0), branch(layer, 1)]).collect();
        BranchDecisions { rows, tokens, taken }
    }

    /// Mean number of layers that a token runs, a branch counting one half.
    pub fn mean_depth(&self) -> f64 {
        self.depth(0..self.rows * self.tokens)
    }

    /// The same over the tokens of one sequence.
    pub(super) fn depth_of(&self, row: usize) -> f64 {
        self.depth(row * self.tokens..(row + 1) * self.tokens)
    }

    fn depth(&self, tokens: Range<usize>) -> f64 {
        let all = self.taken.iter().flatten().flat_map(|branch| &branch[tokens.clone()]);
        all.map(|&taken| f64::from(taken)).sum::<f64>() / 2.0 / tokens.len() as f64
    }

    /// Whether a token takes a branch.
    pub fn takes(&self, layer: usize, branch: usize, row: usize, token: usize) -> bool {
        self.taken[layer][branch][row * self.tokens + token] > 0.5
    }

    /// The gates of a layer.
    pub fn gates(&self, layer: usize, network: &Network) -> Gates {
        let gate = |branch: usize| {
            let data = TensorData::new(self.taken[layer][branch].clone(), [self.rows, self.tokens, 1]);
            Tensor::<3>::from_data(data, network.device())
        };
        Gates { attention: gate(0), feed_forward: gate(1) }
    }

    /// The same decisions given to other tokens: for each branch as many tokens leave it out, but others.
    #[must_use]
    pub fn shuffled(&self, seed: u64) -> BranchDecisions {
        let random = &mut Stream::new(seed, "shuffled decisions");
        let mut other = self.clone();
        for branch in other.taken.iter_mut().flatten() {
            random.shuffle(branch);
        }
        other
    }
}

/// Logits of sequences under a routing, B x T x V, and what was decided.
pub(super) fn forward(
    network: &Network,
    frame: &Frame,
    tokens: &[&[u32]],
    routing: &TrainedRouting,
    kv: SkipKv,
) -> (Tensor<3>, BranchDecisions) {
    let (stream, decisions) = through(network, frame, tokens, routing, kv);
    (network.logits(stream), decisions)
}

/// The stream behind the last layer.
pub(super) fn through(
    network: &Network,
    frame: &Frame,
    tokens: &[&[u32]],
    routing: &TrainedRouting,
    kv: SkipKv,
) -> (Tensor<3>, BranchDecisions) {
    let (rows, length, layers) = (tokens.len(), tokens[0].len(), network.model().layers);
    let mut decisions = BranchDecisions { rows, tokens: length, taken: Vec::new() };
    let mut stream = network.embed(tokens);
    for layer in 0..layers {
        let taken = decide(routing, layer, &stream, (rows, length));
        let all = taken.iter().flatten().all(|&taken| taken > 0.5);
        let out = [0, 1].map(|branch: usize| taken[branch].iter().all(|&taken| taken < 0.5));
        decisions.taken.push(taken);
        stream = if all {
            network.layer(layer, frame, stream, None, kv)
        } else {
            let gates = decisions.gates(layer as usize, network);
            network.layer_without(layer, frame, stream, out, &gates, kv)
        };
    }
    (stream, decisions)
}

fn decide(
    routing: &TrainedRouting,
    layer: u32,
    stream: &Tensor<3>,
    (rows, tokens): (usize, usize),
) -> [Vec<f32>; 2] {
    let at = layer as usize;
    let count = rows * tokens;
    match routing {
        TrainedRouting::Dense => [vec![1.0; count], vec![1.0; count]],
        TrainedRouting::Static(left_out) => left_out[at].map(|out| vec![if out { 0.0 } else { 1.0 }; count]),
        TrainedRouting::Given(decisions) => decisions.taken[at].clone(),
        TrainedRouting::Router(_, candidates) if candidates[at] == [false; 2] => {
            [vec![1.0; count], vec![1.0; count]]
        }
        TrainedRouting::Router(router, candidates) => {
            // A decision has no derivative.
            let stream = if stream.is_autodiff() { stream.clone().inner() } else { stream.clone() };
            let scores: Vec<f32> = router.scores(layer, stream).into_data().iter::<f32>().collect();
            [0, 1].map(|branch| {
                let scores = scores.iter().skip(branch).step_by(2);
                let taken = |&score: &f32| takes(candidates[at][branch], score);
                scores.map(|score| if taken(score) { 1.0 } else { 0.0 }).collect()
            })
        }
    }
}
