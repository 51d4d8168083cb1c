//! Rotary position embedding: by which angle each pair of values turns, and how scalings for long texts change it.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How queries and keys are rotated by position (Su et al., arXiv 2104.09864).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// Base of the angles: pair `i` turns by `position / theta^(2 i / width)`.
    pub theta: f64,
    /// Values of a head that turn, from its first on; the others stay.
    pub width: u64,
    /// Whether values 2i and 2i + 1 turn together (GGUF's llama, llama2.c), rather than i and i + width / 2 (Hugging Face).
    pub interleaved: bool,
    /// What changes the angles for long texts.
    pub scaling: Scaling,
}

/// What changes the angles for long texts. Formulas: `modeling_rope_utils.py` of Hugging Face transformers 5.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// Nothing.
    #[default]
    None,
    /// All angles divided by a factor (Chen et al., arXiv 2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// A base that grows with the sequence, once it is longer than it was trained for ("NTK-aware", dynamic).
    Dynamic {
        /// The factor.
        factor: f64,
        /// Longest sequence that leaves the base as it is.
        original: u64,
    },
    /// Slow pairs divided by a factor, fast ones left, those between mixed (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Pairs that turn less often than this in `original` tokens are slow.
        low: f64,
        /// Pairs that turn more often are fast.
        high: f64,
        /// Longest sequence of the training before.
        original: u64,
    },
    /// The same by a ramp over the pairs, and longer queries and keys (Peng et al., YaRN, arXiv 2309.00071).
    Yarn {
        /// The factor.
        factor: f64,
        /// Turns in `original` tokens from which on a pair is left.
        beta_fast: f64,
        /// Turns below which it is divided.
        beta_slow: f64,
        /// Longest sequence of the training before.
        original: u64,
        /// What cosines and sines are multiplied with.
        amplitude: f64,
        /// Whether the ends of the ramp are whole pairs.
        truncate: bool,
    },
    /// A divisor for each pair: one list up to a length, another beyond it (Ding et al., LongRoPE, arXiv 2402.13753).
    Long {
        /// Divisors of sequences up to `original`.
        short: Vec<f64>,
        /// Divisors of longer ones.
        long: Vec<f64>,
        /// Longest sequence that takes the short list.
        original: u64,
        /// What cosines and sines are multiplied with.
        amplitude: f64,
    },
    /// A divisor for each pair, whatever the length (GGUF's `rope_freqs`).
    Divisors(
        /// One a pair.
        Vec<f64>,
    ),
}

impl Rope {
    /// Without scaling, in halves.
    pub fn plain(theta: f64, width: u64) -> Rope {
        Rope { theta, width, interleaved: false, scaling: Scaling::None }
    }

    /// What cosines and sines are multiplied with.
    pub fn amplitude(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { amplitude, .. } | Scaling::Long { amplitude, .. } => amplitude,
            _ => 1.0,
        }
    }

    /// Longest sequence that takes the same angles as a sequence of `length` tokens does; `None`: any.
    ///
    /// Dynamic scaling has other angles for each length beyond the original one; two lists have two borders.
    pub fn angles_hold_to(&self, length: u64) -> Option<u64> {
        match self.scaling {
            Scaling::Dynamic { original, .. } => Some(length.max(original)),
            Scaling::Long { original, .. } if length <= original => Some(original),
            _ => None,
        }
    }

    /// The angle by which each pair turns from one position to the next, in a sequence of `length` tokens: `width / 2`
    /// values.
    pub fn frequencies(&self, length: u64) -> Vec<f64> {
        let width = self.width as f64;
        let plain = |theta: f64, pair: u64| libm::pow(theta, -2.0 * pair as f64 / width);
        let pairs = 0..self.width / 2;
        match &self.scaling {
            Scaling::None => pairs.map(|pair| plain(self.theta, pair)).collect(),
            Scaling::Linear { factor } => pairs.map(|pair| plain(self.theta, pair) / factor).collect(),
            Scaling::Dynamic { factor, original } => {
                let length = length.max(*original) as f64 / *original as f64;
                let grown = factor * length - (factor - 1.0);
                let theta = self.theta * libm::pow(grown, width / (width - 2.0));
                pairs.map(|pair| plain(theta, pair)).collect()
            }
            Scaling::Llama3 { factor, low, high, original } => pairs
                .map(|pair| {
                    let frequency = plain(self.theta, pair);
                    // Turns in the original length: 0 at `low`, 1 at `high`.
                    let turns = *original as f64 * frequency / (2.0 * PI);
                    let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - fast) * frequency / factor + fast * frequency
                })
                .collect(),
            Scaling::Yarn { factor, beta_fast, beta_slow, original, truncate, .. } => {
                // The pair that turns so often in the original length.
                let pair_of = |turns: f64| {
                    width * libm::log(*original as f64 / (turns * 2.0 * PI)) / (2.0 * libm::log(self.theta))
                };
                let (mut first, mut last) = (pair_of(*beta_fast), pair_of(*beta_slow));
                if *truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                (first, last) = (first.max(0.0), last.min(width - 1.0));
                if first == last {
                    // As the reference does, so that nothing is divided by zero.
                    last += 0.001;
                }
                pairs
                    .map(|pair| {
                        let slow = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
                        let frequency = plain(self.theta, pair);
                        slow * frequency / factor + (1.0 - slow) * frequency
                    })
                    .collect()
            }
            Scaling::Long { short, long, original, .. } => {
                let divisors = if length > *original { long } else { short };
                pairs.zip(divisors).map(|(pair, divisor)| plain(self.theta, pair) / divisor).collect()
            }
            Scaling::Divisors(divisors) => {
                pairs.zip(divisors).map(|(pair, divisor)| plain(self.theta, pair) / divisor).collect()
            }
        }
    }
}
