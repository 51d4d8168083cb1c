//! Rotary position embedding.

use super::{Number, expect};

/// Cosine and sine of each position and pair. A table that all layers and heads share.
#[derive(Clone, Debug)]
pub struct Angles<N> {
    /// `rows x pairs`.
    pub cos: Vec<N>,
    /// `rows x pairs`.
    pub sin: Vec<N>,
}

impl<N: Number> Angles<N> {
    /// The table for rows at these positions; pair `i` turns by `position / theta^(2 i / head_dim)`.
    pub fn new(positions: &[u32], head_dim: usize, theta: f64) -> Self {
        let angle = |position: u32, pair: usize| {
            f64::from(position) / libm::pow(theta, 2.0 * pair as f64 / head_dim as f64)
        };
        let table = |of: fn(f64) -> f64| {
            let row = |position| (0..head_dim / 2).map(move |pair| N::constant(of(angle(position, pair))));
            positions.iter().flat_map(|&position| row(position)).collect()
        };
        Angles { cos: table(libm::cos), sin: table(libm::sin) }
    }
}

/// Turns the first values of each head in pairs, as many as there are angles: value `i` with `i + pairs`, or, `interleaved`, 2i with 2i + 1.
/// `input`: `rows x heads x head_dim`. Result: the same shape.
pub fn rope<N: Number>(
    rows: usize,
    heads: usize,
    head_dim: usize,
    input: &[N],
    angles: &Angles<N>,
    interleaved: bool,
) -> Vec<N> {
    let half = angles.cos.len() / rows.max(1);
    assert!(2 * half <= head_dim, "values turn in pairs");
    expect(input, "input", &[rows, heads, head_dim]);
    expect(&angles.cos, "cosines", &[rows, half]);
    expect(&angles.sin, "sines", &[rows, half]);
    let mut result = input.to_vec();
    for row in 0..rows {
        for head in 0..heads {
            let first = (row * heads + head) * head_dim;
            for pair in 0..half {
                let (a, b) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
                let (x, y) = (input[first + a], input[first + b]);
                let (cos, sin) = (angles.cos[row * half + pair], angles.sin[row * half + pair]);
                result[first + a] = x * cos - y * sin;
                result[first + b] = y * cos + x * sin;
            }
        }
    }
    result
}
