//! Constants of at least 0 that fit best.

/// Constants of a fit at most: all sets of them are tried.
const MOST: usize = 8;
/// Times that rows are weighted anew.
const ROUNDS: usize = 20;
/// Relative errors below this are not told apart.
const SMALL: f64 = 2e-3;

/// Coefficients of at least 0 for which the sums of `rows` times them come nearest to `targets` (above 0) in mean relative error
/// without sign: least squares (Lawson and Hanson 1974, chapter 23, by trying every set of constants), rows weighted anew by their
/// last error (Huber 1981, section 7.8). One thread, sums in the order of the rows.
pub fn nonnegative(rows: &[Vec<f64>], targets: &[f64]) -> Vec<f64> {
    let terms = rows.first().map_or(0, Vec::len);
    assert!(terms <= MOST, "few constants");
    let mut weights = vec![1.0; rows.len()];
    let mut best = vec![0.0; terms];
    for _ in 0..ROUNDS {
        best = squares(rows, targets, &weights, terms);
        for ((weight, row), target) in weights.iter_mut().zip(rows).zip(targets) {
            *weight = 1.0 / (dot(row, &best) / target - 1.0).abs().max(SMALL);
        }
    }
    best
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Weighted squares of relative errors, constants of at least 0.
fn squares(rows: &[Vec<f64>], targets: &[f64], weights: &[f64], terms: usize) -> Vec<f64> {
    // Sums of products of relative terms, and of these with 1.
    let mut normal = vec![vec![0.0; terms + 1]; terms];
    for ((row, target), weight) in rows.iter().zip(targets).zip(weights) {
        for i in 0..terms {
            let a = weight * row[i] / target;
            for j in 0..terms {
                normal[i][j] += a * row[j] / target;
            }
            normal[i][terms] += a;
        }
    }
    let mut best = (f64::INFINITY, vec![0.0; terms]);
    for set in 1u32..1 << terms {
        let chosen: Vec<usize> = (0..terms).filter(|term| set >> term & 1 == 1).collect();
        let Some(values) = solve(&normal, &chosen, terms) else { continue };
        if values.iter().any(|value| !(*value >= 0.0 && value.is_finite())) {
            continue;
        }
        let mut all = vec![0.0; terms];
        chosen.iter().zip(&values).for_each(|(&term, &value)| all[term] = value);
        // Of the sum of squares, what depends on the constants.
        let quadratic: f64 = (0..terms).map(|i| all[i] * dot(&normal[i][..terms], &all)).sum();
        let linear: f64 = (0..terms).map(|i| all[i] * normal[i][terms]).sum();
        let error = quadratic - 2.0 * linear;
        if error < best.0 {
            best = (error, all);
        }
    }
    best.1
}

/// Gaussian elimination with the largest pivot, over the chosen constants.
fn solve(normal: &[Vec<f64>], chosen: &[usize], terms: usize) -> Option<Vec<f64>> {
    let n = chosen.len();
    // Scaled, so that small terms count like large ones.
    let scale: Vec<f64> = chosen.iter().map(|&i| normal[i][i].sqrt()).collect();
    if scale.iter().any(|scale| !(*scale > 0.0)) {
        return None;
    }
    let mut a: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let row = (0..n).map(|j| normal[chosen[i]][chosen[j]] / scale[i] / scale[j]);
            row.chain([normal[chosen[i]][terms] / scale[i]]).collect()
        })
        .collect();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))?;
        a.swap(column, pivot);
        if a[column][column].abs() < 1e-12 {
            return None;
        }
        for row in column + 1..n {
            let factor = a[row][column] / a[column][column];
            for k in column..=n {
                let from = a[column][k];
                a[row][k] -= factor * from;
            }
        }
    }
    let mut x = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[row][k] * x[k]).sum();
        x[row] = (a[row][n] - known) / a[row][row];
    }
    Some(x.iter().zip(&scale).map(|(x, scale)| x / scale).collect())
}

#[cfg(test)]
mod tests {
    use super::nonnegative;

    #[test]
    fn constants_come_back_and_stay_above_zero() {
        let rows: Vec<Vec<f64>> = (1..40).map(|i| vec![1.0, f64::from(i), f64::from(i * i % 17)]).collect();
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
}
