//! A small distribution of whole numbers, and the range checks that all parameters share.

pub(super) use crate::error::demand;

use crate::error::Result;
use crate::rng::Stream;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// How many of something a token takes: layers, hops, or times around a loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Count {
    /// The same for every token.
    Fixed(u32),
    /// Drawn for each token: pairs of a number and its probability. Probabilities add up to 1 (within 1e-6).
    Each(Vec<(u32, f64)>),
}

impl Count {
    /// One number.
    pub(super) fn draw(&self, stream: &mut Stream) -> u32 {
        match self {
            Count::Fixed(n) => *n,
            Count::Each(pairs) => {
                let mut left = stream.uniform();
                let drawn = pairs.iter().find(|&&(_, p)| {
                    left -= p;
                    left < 0.0
                });
                // Rounding may leave a sum just below 1: the draw then falls to the last number that can occur.
                let last = || pairs.iter().rfind(|&&(_, p)| p > 0.0);
                drawn.or_else(last).expect("checked: the probabilities add up to 1").0
            }
        }
    }

    /// The expected number.
    pub fn mean(&self) -> f64 {
        match self {
            Count::Fixed(n) => f64::from(*n),
            Count::Each(pairs) => {
                let total: f64 = pairs.iter().map(|&(_, p)| p).sum();
                pairs.iter().map(|&(n, p)| f64::from(n) * p).sum::<f64>() / total
            }
        }
    }

    /// The numbers that can occur, ascending, each once.
    pub(super) fn values(&self) -> Vec<u32> {
        let mut values: Vec<u32> = match self {
            Count::Fixed(n) => vec![*n],
            Count::Each(pairs) => pairs.iter().filter(|&&(_, p)| p > 0.0).map(|&(n, _)| n).collect(),
        };
        values.sort_unstable();
        values.dedup();
        values
    }

    pub(super) fn check(&self, key: &str, range: RangeInclusive<u32>) -> Result<()> {
        let within = |key: String, n: u32| {
            let what = format!("a number from {} to {}", range.start(), range.end());
            demand(range.contains(&n), &key, n, &what)
        };
        let pairs = match self {
            Count::Fixed(n) => return within(key.to_owned(), *n),
            Count::Each(pairs) => pairs,
        };
        demand(!pairs.is_empty(), key, "[]", "at least one pair of a number and its probability")?;
        for (index, &(n, p)) in pairs.iter().enumerate() {
            within(format!("{key}[{index}].0"), n)?;
            probability(&format!("{key}[{index}].1"), p)?;
        }
        let total: f64 = pairs.iter().map(|&(_, p)| p).sum();
        demand((total - 1.0).abs() <= 1e-6, key, total, "probabilities that add up to 1")
    }
}

/// `p` lies in `[0, 1]`; NaN does not.
pub(super) fn probability(key: &str, p: f64) -> Result<()> {
    demand((0.0..=1.0).contains(&p), key, p, "a probability from 0 to 1")
}

/// Weights that a draw can use: finite, none negative, and a finite sum.
pub(super) fn weights(key: &str, weights: &[f64]) -> Result<()> {
    for (index, &w) in weights.iter().enumerate() {
        let what = "a finite weight of at least 0";
        demand(w.is_finite() && w >= 0.0, &format!("{key}[{index}]"), w, what)?;
    }
    let total: f64 = weights.iter().sum();
    demand(total.is_finite(), key, total, "weights with a finite sum")
}

/// Each id names a layer of the pool, and only once.
pub(super) fn layer_ids(key: &str, ids: &[u32], layers: u32) -> Result<()> {
    let mut seen = vec![false; layers as usize];
    for (index, &id) in ids.iter().enumerate() {
        let key = format!("{key}[{index}]");
        demand(id < layers, &key, id, &format!("a layer id below the pool size {layers}"))?;
        let again = std::mem::replace(&mut seen[id as usize], true);
        demand(!again, &key, id, "each layer at most once")?;
    }
    Ok(())
}
