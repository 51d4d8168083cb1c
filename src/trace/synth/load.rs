//! Requests where no trace says who arrives: lengths and arrivals.

use super::count::demand;
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::trace::Request;
use crate::units::{PS_PER_S, SimTime};
use serde::{Deserialize, Serialize};

/// Longest prompt and longest output that may be asked for, in tokens: 2^28. P + G - 1 stays a `u32`.
pub const MOST_TOKENS: u32 = 1 << 28;

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
}

fn longest() -> u32 {
    131_072
}

/// When requests arrive, counted from the start of the trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Arrivals {
    /// All at the start: a closed batch.
    Closed,
    /// One after the other, the first at the start.
    Every {
        /// Gap in seconds.
        gap_s: f64,
    },
    /// A Poisson process: exponential gaps, the first one before the first request.
    Poisson {
        /// Mean rate in requests per second, above 0.
        rate_per_s: f64,
    },
}

/// `count` requests with ids from 0, in order of arrival, without routes and without shared prefixes.
///
/// Lengths come from the stream `lengths`, arrivals from `arrivals`: changing one leaves the other as it was.
///
/// # Errors
/// A parameter out of range, or arrivals that go beyond simulated time (213 days).
pub fn requests(count: u32, lengths: &Lengths, arrivals: &Arrivals, seed: u64) -> Result<Vec<Request>> {
    lengths.prompt.check("lengths.prompt")?;
    lengths.output.check("lengths.output")?;
    arrivals.check()?;
    let mut draw_length = Stream::new(seed, "lengths");
    let mut draw_gap = Stream::new(seed, "arrivals");
    let mut now_s = 0.0;
    let mut request = |id: u32| {
        now_s += match arrivals {
            Arrivals::Poisson { rate_per_s } => draw_gap.exponential(1.0 / rate_per_s),
            Arrivals::Every { gap_s } if id > 0 => *gap_s,
            Arrivals::Every { .. } | Arrivals::Closed => 0.0,
        };
        let what = "arrivals within the 213 days of simulated time";
        demand(now_s * PS_PER_S as f64 <= u64::MAX as f64, "arrivals", format!("{now_s} s"), what)?;
        Ok::<_, Error>(Request {
            id: u64::from(id),
            arrival: SimTime::from_s(now_s),
            prompt_tokens: lengths.prompt.draw(&mut draw_length),
            output_tokens: lengths.output.draw(&mut draw_length),
            priority: 0,
            prefix: Vec::new(),
            runs: Vec::new(),
        })
    };
    (0..count).map(&mut request).collect()
}

impl Length {
    fn draw(&self, stream: &mut Stream) -> u32 {
        match *self {
            Length::Fixed(tokens) => tokens,
            Length::Uniform { low, high } => low + stream.below(u64::from(high - low) + 1) as u32,
            Length::LogNormal { median, sigma, most } => {
                // `as` saturates, so an overflow to infinity becomes `most`.
                (stream.log_normal(median, sigma).round() as u32).clamp(1, most)
            }
        }
    }

    fn check(&self, key: &str) -> Result<()> {
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
        }
    }
}

impl Arrivals {
    fn check(&self) -> Result<()> {
        match *self {
            Arrivals::Closed => Ok(()),
            Arrivals::Every { gap_s } => {
                let what = "a finite number of seconds, at least 0";
                demand(gap_s.is_finite() && gap_s >= 0.0, "arrivals.gap_s", gap_s, what)
            }
            Arrivals::Poisson { rate_per_s } => {
                let what = "a finite rate above 0";
                let right = rate_per_s.is_finite() && rate_per_s > 0.0;
                demand(right, "arrivals.rate_per_s", rate_per_s, what)
            }
        }
    }
}
