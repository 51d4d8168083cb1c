//! Constants within bounds that fit best.

/// Times that rows are weighted anew.
const ROUNDS: usize = 20;
/// Relative errors below this are not told apart.
const SMALL: f64 = 2e-3;

/// The x within its bounds that minimises the sum of (row x - target)^2. Lower bounds are finite; a column of zeros stays at its own.
///
/// Where the minimum lies, some numbers are at a bound and the others solve their normal equations: every choice is tried, so N is
/// small. One thread, sums in the order of the rows.
pub fn least_squares<const N: usize>(
    rows: impl Iterator<Item = ([f64; N], f64)>,
    bounds: [(f64, f64); N],
) -> [f64; N] {
    let (mut gram, mut right) = ([[0.0; N]; N], [0.0; N]);
    for (row, target) in rows {
        for i in 0..N {
            right[i] += row[i] * target;
            for j in 0..N {
                gram[i][j] += row[i] * row[j];
            }
        }
    }
    let mut best = (f64::INFINITY, bounds.map(|(least, _)| least));
    for choice in 0..3usize.pow(N as u32) {
        // In base three: free, at the lower bound, at the upper.
        let place = |i: usize| choice / 3usize.pow(i as u32) % 3;
        let fixed: [Option<f64>; N] = std::array::from_fn(|i| match place(i) {
            0 if gram[i][i] > 0.0 => None,
            2 => Some(bounds[i].1),
            _ => Some(bounds[i].0),
        });
        if fixed.iter().flatten().any(|value| value.is_infinite()) {
            continue;
        }
        let Some(x) = solve(&gram, &right, fixed) else { continue };
        if !x.iter().zip(bounds).all(|(x, (least, most))| (least..=most).contains(x)) {
            continue;
        }
        // Of the sum of squares, what depends on x.
        let error: f64 =
            (0..N).map(|i| x[i] * ((0..N).map(|j| gram[i][j] * x[j]).sum::<f64>() - 2.0 * right[i])).sum();
        if error < best.0 {
            best = (error, x);
        }
    }
    best.1
}

/// The x that solves the normal equations of those that are not fixed: Gaussian elimination with the largest pivot, in numbers scaled
/// to ones on the diagonal.
fn solve<const N: usize>(
    gram: &[[f64; N]; N],
    right: &[f64; N],
    fixed: [Option<f64>; N],
) -> Option<[f64; N]> {
    let free: Vec<usize> = (0..N).filter(|&i| fixed[i].is_none()).collect();
    let scale: Vec<f64> = free.iter().map(|&i| gram[i][i].sqrt()).collect();
    let mut a: Vec<Vec<f64>> = (free.iter().zip(&scale))
        .map(|(&i, of)| {
            let known: f64 = (0..N).filter_map(|j| fixed[j].map(|value| gram[i][j] * value)).sum();
            let row = free.iter().zip(&scale).map(|(&j, other)| gram[i][j] / of / other);
            row.chain([(right[i] - known) / of]).collect()
        })
        .collect();
    let n = free.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))?;
        a.swap(column, pivot);
        if a[column][column].abs() < 1e-12 {
            return None;
        }
        let (above, below) = a.split_at_mut(column + 1);
        let from = &above[column];
        for row in below {
            let factor = row[column] / from[column];
            row.iter_mut().zip(from).for_each(|(value, from)| *value -= factor * from);
        }
    }
    let mut x = fixed.map(|value| value.unwrap_or(0.0));
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[row][k] * x[free[k]] * scale[k]).sum();
        x[free[row]] = (a[row][n] - known) / a[row][row] / scale[row];
    }
    Some(x)
}

/// Coefficients of at least 0 for which the sums of `rows` times them come nearest to `targets` (above 0) in mean relative error
/// without sign: least squares, rows weighted anew by their last error (Huber 1981, section 7.8).
pub fn nonnegative<const N: usize>(rows: &[[f64; N]], targets: &[f64]) -> [f64; N] {
    let mut weights = vec![1.0f64; rows.len()];
    let mut best = [0.0; N];
    for _ in 0..ROUNDS {
        let relative = rows.iter().zip(targets).zip(&weights).map(|((row, target), weight)| {
            let root = weight.sqrt();
            (row.map(|term| term * root / target), root)
        });
        best = least_squares(relative, [(0.0, f64::INFINITY); N]);
        for ((weight, row), target) in weights.iter_mut().zip(rows).zip(targets) {
            let said: f64 = row.iter().zip(&best).map(|(term, x)| term * x).sum();
            *weight = 1.0 / (said / target - 1.0).abs().max(SMALL);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{least_squares, nonnegative};
    use proptest::prelude::*;

    #[test]
    fn constants_come_back_and_stay_above_zero() {
        let rows: Vec<[f64; 3]> = (1..40).map(|i| [1.0, f64::from(i), f64::from(i * i % 17)]).collect();
        let of =
            |c: [f64; 3]| rows.iter().map(|r| r[0] * c[0] + r[1] * c[1] + r[2] * c[2]).collect::<Vec<f64>>();
        for wanted in [[3.0, 0.5, 2.0], [0.0, 1.5, 0.25], [4.0, 0.0, 0.0]] {
            let found = nonnegative(&rows, &of(wanted));
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {wanted:?}");
        }
        // A constant below 0 is none: the others do what they can.
        let found = nonnegative(&rows, &of([20.0, -0.1, 1.0]));
        assert!(found.iter().all(|&c| c >= 0.0), "{found:?}");
        // A few rows that are far off do not pull.
        let mut odd = of([3.0, 0.5, 2.0]);
        odd[5] *= 3.0;
        odd[11] *= 0.2;
        let found = nonnegative(&rows, &odd);
        assert!((found[1] - 0.5).abs() < 0.05 && (found[2] - 2.0).abs() < 0.05, "{found:?}");
    }

    proptest! {
        /// No step within the bounds makes the sum of squares smaller.
        #[test]
        fn nothing_near_is_better(
            rows in prop::collection::vec((prop::array::uniform3(-2.0..2.0_f64), -3.0..3.0_f64), 3..12),
            bounds in prop::array::uniform3((-1.0..0.5_f64, 0.0..2.0_f64).prop_map(|(low, width)| (low, low + width))),
            step in prop::array::uniform3(-0.1..0.1_f64),
        ) {
            let sum = |x: [f64; 3]| -> f64 {
                rows.iter().map(|(row, target)| (row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>() - target).powi(2)).sum()
            };
            let best = least_squares(rows.iter().copied(), bounds);
            let near: [f64; 3] = std::array::from_fn(|i| (best[i] + step[i]).clamp(bounds[i].0, bounds[i].1));
            prop_assert!(best.iter().zip(bounds).all(|(x, (least, most))| (least..=most).contains(x)));
            prop_assert!(sum(best) <= sum(near) + 1e-9, "{best:?} {near:?}");
        }
    }
}
