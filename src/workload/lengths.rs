//! How long drawn requests are.

use crate::error::{Result, demand};
use crate::rng::Stream;
use crate::trace::synth::MOST_TOKENS;
use serde::{Deserialize, Serialize};

/// Lengths of requests, in tokens. Prompt and output are drawn on their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lengths {
    /// Tokens of the prompt.
    pub prompt: Length,
    /// Tokens generated.
    pub output: Length,
}

/// One length, in tokens: 1 to [`MOST_TOKENS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Length {
    /// Always this.
    Fixed(u32),
    /// A whole number from `low` to `high`, both included, each as likely.
    Uniform {
        /// Shortest.
        low: u32,
        /// Longest.
        high: u32,
    },
    /// Log-normal, rounded to the nearest whole token and held to 1 to `most`.
    LogNormal {
        /// Median, at least 1, before rounding.
        median: f64,
        /// Standard deviation of the natural logarithm, 0 to 10.
        sigma: f64,
        /// Longest; draws above it become it. Absent: 131072.
        #[serde(default = "longest")]
        most: u32,
    },
    /// Geometric from 1 on: an exponential length rounded up to whole tokens, P(n) = (1 - 1/mean)^(n-1) / mean.
    Geometric {
        /// Mean, at least 1, before draws are held to `most`.
        mean: f64,
        /// Longest; draws above it become it. Absent: 131072.
        #[serde(default = "longest")]
        most: u32,
    },
}

fn longest() -> u32 {
    131_072
}

impl Length {
    pub(super) fn draw(&self, stream: &mut Stream) -> u32 {
        match *self {
            Length::Fixed(tokens) => tokens,
            Length::Uniform { low, high } => low + stream.below(u64::from(high - low) + 1) as u32,
            Length::LogNormal { median, sigma, most } => {
                // `as` saturates, so an overflow to infinity becomes `most`.
                (stream.log_normal(median, sigma).round() as u32).clamp(1, most)
            }
            Length::Geometric { mean, most } => {
                // P(ceil(X) > n) = exp(-n / m) must be (1 - 1/mean)^n. For mean 1, m is 0 and so is every draw.
                let tokens = stream.exponential(-1.0 / libm::log1p(-1.0 / mean));
                (tokens.ceil() as u32).clamp(1, most)
            }
        }
    }

    pub(super) fn check(&self, key: &str) -> Result<()> {
        let tokens = |name: &str, n: u32| {
            let what = format!("1 to {MOST_TOKENS} tokens");
            demand((1..=MOST_TOKENS).contains(&n), &format!("{key}{name}"), n, &what)
        };
        match *self {
            Length::Fixed(n) => tokens("", n),
            Length::Uniform { low, high } => {
                tokens(".low", low)?;
                tokens(".high", high)?;
                let found = format!("{low} to {high}");
                demand(low <= high, key, found, "low at most high")
            }
            Length::LogNormal { median, sigma, most } => {
                tokens(".most", most)?;
                let what = format!("1 to {most} tokens");
                let within = (1.0..=f64::from(most)).contains(&median);
                demand(within, &format!("{key}.median"), median, &what)?;
                demand((0.0..=10.0).contains(&sigma), &format!("{key}.sigma"), sigma, "a number from 0 to 10")
            }
            Length::Geometric { mean, most } => {
                tokens(".most", most)?;
                let within = (1.0..=f64::from(most)).contains(&mean);
                demand(within, &format!("{key}.mean"), mean, &format!("1 to {most} tokens"))
            }
        }
    }
}
