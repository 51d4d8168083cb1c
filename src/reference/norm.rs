//! Norms over the width of each row.

use super::{Number, expect};

/// `x / sqrt(mean(x^2) + epsilon) * weight`. `input`: `rows x width`. `weight`: `width`. Result: `rows x width`.
pub fn rms_norm<N: Number>(rows: usize, width: usize, input: &[N], weight: &[N], epsilon: f64) -> Vec<N> {
    expect(input, "input", &[rows, width]);
    expect(weight, "weight", &[width]);
    let mut result = Vec::with_capacity(input.len());
    for row in input.chunks_exact(width) {
        let mut squares = N::zero();
        for &x in row {
            squares = squares + x * x;
        }
        let mean = squares / N::constant(width as f64);
        let scale = N::constant(1.0) / (mean + N::constant(epsilon)).sqrt();
        for (&x, &weight) in row.iter().zip(weight) {
            result.push(x * scale * weight);
        }
    }
    result
}

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias`. Shapes as in [`rms_norm`]; `bias`: `width`.
pub fn layer_norm<N: Number>(
    rows: usize,
    width: usize,
    input: &[N],
    weight: &[N],
    bias: &[N],
    epsilon: f64,
) -> Vec<N> {
    expect(input, "input", &[rows, width]);
    expect(weight, "weight", &[width]);
    expect(bias, "bias", &[width]);
    let count = N::constant(width as f64);
    let mut result = Vec::with_capacity(input.len());
    for row in input.chunks_exact(width) {
        let mut sum = N::zero();
        for &x in row {
            sum = sum + x;
        }
        let mean = sum / count;
        let centred: Vec<N> = row.iter().map(|&x| x - mean).collect();
        let mut squares = N::zero();
        for &x in &centred {
            squares = squares + x * x;
        }
        let scale = N::constant(1.0) / (squares / count + N::constant(epsilon)).sqrt();
        for (index, &x) in centred.iter().enumerate() {
            result.push(x * scale * weight[index] + bias[index]);
        }
    }
    result
}
