//! Experts: who is chosen, and the sum of what they say.

use super::{Number, expect};

/// The `top` experts of each row with their shares, best first, out of `scores`: `rows x experts`. The share of a score is its sigmoid,
/// or its part of the softmax over all; `normalised`: shares of the chosen ones are divided by their sum. All are multiplied with `scale`.
pub fn choose_experts<N: Number>(
    experts: usize,
    top: usize,
    scores: &[N],
    (sigmoid, normalised, scale): (bool, bool, f64),
) -> Vec<Vec<(u32, N)>> {
    let row = |row: &[N]| {
        let one = N::constant(1.0);
        let shares: Vec<N> = if sigmoid {
            row.iter().map(|&x| one / (one + (N::zero() - x).exp())).collect()
        } else {
            let highest = row.iter().fold(N::constant(f64::NEG_INFINITY), |most, &x| most.max(x));
            let weights: Vec<N> = row.iter().map(|&x| (x - highest).exp()).collect();
            let total = weights.iter().fold(N::zero(), |total, &weight| total + weight);
            weights.into_iter().map(|weight| weight / total).collect()
        };
        let mut order: Vec<u32> = (0..experts as u32).collect();
        order.sort_by(|&a, &b| row[b as usize].value().total_cmp(&row[a as usize].value()));
        order.truncate(top);
        let total = order.iter().fold(N::zero(), |total, &expert| total + shares[expert as usize]);
        let total = if normalised { total } else { one };
        let share = |expert: u32| (expert, shares[expert as usize] / total * N::constant(scale));
        order.into_iter().map(share).collect()
    };
    scores.chunks_exact(experts).map(row).collect()
}

/// The sum of what `top` experts say of each row, by shares: `said` is `rows * top x width`, `shares` `rows * top`. Result: `rows x width`.
pub fn sum_experts<N: Number>(width: usize, said: &[N], shares: &[N], top: usize) -> Vec<N> {
    expect(said, "said", &[shares.len(), width]);
    let mut result = Vec::new();
    for (rows, shares) in said.chunks_exact(top * width).zip(shares.chunks_exact(top)) {
        for index in 0..width {
            let mut sum = N::zero();
            for (row, &share) in rows.chunks_exact(width).zip(shares) {
                sum = sum + share * row[index];
            }
            result.push(sum);
        }
    }
    result
}
