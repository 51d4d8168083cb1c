//! Rotary position embedding, half-split as Hugging Face models use it: value `i` of a head pairs with `i + head_dim / 2`.

use super::{Number, expect};

/// Cosine and sine of each position and pair. A table that all layers and heads share.
#[derive(Clone, Debug)]
pub struct Angles<N> {
    /// `rows x head_dim / 2`.
    pub cos: Vec<N>,
    /// `rows x head_dim / 2`.
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

/// Turns each pair. `input`: `rows x heads x head_dim`. Result: the same shape.
pub fn rope<N: Number>(
    rows: usize,
    heads: usize,
    head_dim: usize,
    input: &[N],
    angles: &Angles<N>,
) -> Vec<N> {
    assert_eq!(head_dim % 2, 0, "values turn in pairs");
    let half = head_dim / 2;
    expect(input, "input", &[rows, heads, head_dim]);
    expect(&angles.cos, "cosines", &[rows, half]);
    expect(&angles.sin, "sines", &[rows, half]);
    let mut result = input.to_vec();
    for row in 0..rows {
        for head in 0..heads {
            let first = (row * heads + head) * head_dim;
            for pair in 0..half {
                let (a, b) = (input[first + pair], input[first + half + pair]);
                let (cos, sin) = (angles.cos[row * half + pair], angles.sin[row * half + pair]);
                result[first + pair] = a * cos - b * sin;
                result[first + half + pair] = b * cos + a * sin;
            }
        }
    }
    result
}
