//! Choices: the router's and the sampler's.

use super::{Activation, Number, activation, expect, matmul, rms_norm};

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

/// Weights of a router that sees rows over their root mean square, as far as they concern one decision.
#[derive(Clone, Copy, Debug)]
pub struct ScoreWeights<'a, N> {
    /// `hidden x width`.
    pub first: &'a [N],
    /// `hidden`.
    pub vector: &'a [N],
    /// `options x hidden`.
    pub second: &'a [N],
    /// `options`.
    pub biases: &'a [N],
}

/// Scores of each option for each row: `second silu(first n + vector) + biases` with `n` the row over its root mean square.
/// `input`: `rows x width`. Result: `rows x options`.
pub fn router_scores<N: Number>(
    rows: usize,
    width: usize,
    input: &[N],
    weights: ScoreWeights<N>,
    epsilon: f64,
) -> Vec<N> {
    let ScoreWeights { first, vector, second, biases } = weights;
    let hidden = vector.len();
    let normed = rms_norm(rows, width, input, &vec![N::constant(1.0); width], epsilon);
    let plus = |values: Vec<N>, what: &[N]| -> Vec<N> {
        values.into_iter().zip(what.iter().cycle()).map(|(value, &more)| value + more).collect()
    };
    let inside = activation(Activation::Silu, &plus(matmul(rows, width, hidden, &normed, first), vector));
    plus(matmul(rows, hidden, biases.len(), &inside, second), biases)
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

/// KL divergence of each row of `own` from that of the teacher: the sum of p_t (log p_t - log p). Both are logits, `rows x vocabulary`; `sums` are the
/// logarithms of the sums of their exponentials, the teacher's first.
pub fn divergence<N: Number>(vocabulary: usize, teacher: &[N], own: &[N], sums: &[[N; 2]]) -> Vec<N> {
    let rows = sums.len();
    expect(teacher, "teacher", &[rows, vocabulary]);
    expect(own, "own", &[rows, vocabulary]);
    let row = |(row, &[teacher_sum, own_sum]): (usize, &[N; 2])| {
        let words = row * vocabulary..(row + 1) * vocabulary;
        teacher[words.clone()].iter().zip(&own[words]).fold(N::zero(), |sum, (&teacher, &own)| {
            let log = teacher - teacher_sum;
            sum + log.exp() * (log - (own - own_sum))
        })
    };
    sums.iter().enumerate().map(row).collect()
}
