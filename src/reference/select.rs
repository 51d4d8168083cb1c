//! Choices: the router's and the sampler's.

use super::{Activation, Number, activation, expect, matmul};

/// Weights of a router.
#[derive(Clone, Copy, Debug)]
pub enum RouterWeights<'a, N> {
    /// One product: `options x width`.
    Linear(&'a [N]),
    /// Two products with a SiLU between them.
    Mlp {
        /// Width of the hidden layer.
        hidden: usize,
        /// `hidden x width`.
        first: &'a [N],
        /// `options x hidden`.
        second: &'a [N],
    },
}

/// The option that each row takes. `input`: `rows x width`.
pub fn router<N: Number>(
    rows: usize,
    width: usize,
    options: usize,
    input: &[N],
    weights: RouterWeights<N>,
) -> Vec<u32> {
    let logits = match weights {
        RouterWeights::Linear(matrix) => matmul(rows, width, options, input, matrix),
        RouterWeights::Mlp { hidden, first, second } => {
            let inside = activation(Activation::Silu, &matmul(rows, width, hidden, input, first));
            matmul(rows, hidden, options, &inside, second)
        }
    };
    sample(rows, options, &logits)
}

/// Greedy sampling: the index of the largest logit, the first among equals. `logits`: `rows x vocabulary`.
pub fn sample<N: Number>(rows: usize, vocabulary: usize, logits: &[N]) -> Vec<u32> {
    expect(logits, "logits", &[rows, vocabulary]);
    let largest = |row: &[N]| {
        let (mut best, mut at) = (N::constant(f64::NEG_INFINITY), 0);
        for (index, &logit) in row.iter().enumerate() {
            if logit.exceeds(best) {
                (best, at) = (logit, index as u32);
            }
        }
        at
    };
    logits.chunks_exact(vocabulary).map(largest).collect()
}
