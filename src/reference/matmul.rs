//! Matrix products. Weights are kept as checkpoints keep them: one row of `inner` values for each column of the result.

use super::{Number, expect};

/// `input`: `rows x inner`. `weights`: `columns x inner`. Result: `rows x columns`.
pub fn matmul<N: Number>(rows: usize, inner: usize, columns: usize, input: &[N], weights: &[N]) -> Vec<N> {
    expect(input, "input", &[rows, inner]);
    expect(weights, "weights", &[columns, inner]);
    let mut result = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = N::zero();
            for k in 0..inner {
                sum = sum + input[row * inner + k] * weights[column * inner + k];
            }
            result.push(sum);
        }
    }
    result
}

/// Rows in groups, each with weights of its own. `group_rows`: rows of each group, one group behind the other in
/// `input`: `rows x inner`. `weights`: `groups x columns x inner`. Result: `rows x columns`.
pub fn grouped_matmul<N: Number>(
    group_rows: &[usize],
    inner: usize,
    columns: usize,
    input: &[N],
    weights: &[N],
) -> Vec<N> {
    expect(weights, "weights", &[group_rows.len(), columns, inner]);
    let mut result = Vec::new();
    let mut first = 0;
    for (group, &rows) in group_rows.iter().enumerate() {
        let input = &input[first * inner..(first + rows) * inner];
        let weights = &weights[group * columns * inner..(group + 1) * columns * inner];
        result.extend(matmul(rows, inner, columns, input, weights));
        first += rows;
    }
    expect(input, "input", &[first, inner]);
    result
}

/// Weights of which two of each four neighbours along `inner` are kept.
#[derive(Clone, Debug)]
pub struct TwoFour<N> {
    /// `columns x inner / 2`.
    pub kept: Vec<N>,
    /// Where in its four each kept weight stands: 0 to 3, `columns x inner / 2`.
    pub places: Vec<u8>,
}

/// As [`matmul`], with weights that are 2:4 sparse. `inner` is a multiple of 4.
pub fn matmul_two_four<N: Number>(
    rows: usize,
    inner: usize,
    columns: usize,
    input: &[N],
    weights: &TwoFour<N>,
) -> Vec<N> {
    assert_eq!(inner % 4, 0, "weights in fours");
    expect(input, "input", &[rows, inner]);
    expect(&weights.kept, "kept weights", &[columns, inner / 2]);
    expect(&weights.places, "places of weights", &[columns, inner / 2]);
    let mut result = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = N::zero();
            for k in 0..inner / 2 {
                let weight = column * (inner / 2) + k;
                let place = k / 2 * 4 + usize::from(weights.places[weight]);
                sum = sum + input[row * inner + place] * weights.kept[weight];
            }
            result.push(sum);
        }
    }
    result
}
