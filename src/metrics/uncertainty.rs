//! How sure a simulated figure is, and a difference of two: the interval over seeds joined with the error that the profile's kernels
//! had on measured rows. The formulas stand in `docs/ERRORS.md`, "Intervals".

use super::error_bar::{ENOUGH, ErrorBar, Verdict};
use super::interval::Interval;
use serde::Serialize;

/// Which error of a run a figure has, by its key in `simulate --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A sum of passes.
    Time,
    /// The makespan, in which waits for arrivals are exact, and what is divided by it.
    Makespan,
    /// A time with another mix of kernels than the run's.
    AnyMix,
    /// Energy or power.
    Energy,
    /// A count or a size, which no price moves but by another schedule.
    Exact,
}

impl ErrorKind {
    /// Of the figure with this key, such as `tpot_s.p99`. None for what has no error of its own: shares, bounds, losses.
    pub fn of(metric: &str) -> Option<ErrorKind> {
        let first = metric.split('.').next().unwrap_or_default();
        Some(match first {
            "pass_time_s" | "tpot_s" => ErrorKind::Time,
            "makespan_s" | "output_tokens_per_s" | "requests_per_s" | "usd_per_million_output_tokens" => {
                ErrorKind::Makespan
            }
            "ttft_s" | "itl_s" | "e2e_s" | "queue_s" | "normalized_latency_s" => ErrorKind::AnyMix,
            "energy_j" | "energy_per_output_token_j" | "energy_per_request_j" | "power_w" => {
                ErrorKind::Energy
            }
            "memory_bytes" | "requests" | "prompt_tokens" | "output_tokens" | "work" => ErrorKind::Exact,
            _ => return None,
        })
    }

    /// Half width in percent of its 90 % interval in a run; none where it is not known, or stands for less than half of the run.
    pub fn percent(self, bar: &ErrorBar) -> Option<f64> {
        let errors = bar.interval90.map(|interval| interval.any_source).unwrap_or_default();
        let percent = match self {
            ErrorKind::Time => errors.time_percent,
            ErrorKind::Makespan => errors.makespan_percent,
            ErrorKind::AnyMix => errors.any_mix_percent,
            ErrorKind::Energy => errors.energy_percent,
            ErrorKind::Exact => return Some(0.0),
        };
        percent.filter(|_| bar.covered_share >= ENOUGH)
    }

    /// By how many percent the ratio of two such figures may be wrong, if kernels of a class (and the power model) err by the same
    /// share in both runs.
    fn apart(self, bar: &ErrorBar, other: &ErrorBar) -> Option<f64> {
        let (own, others) = (self.percent(bar)?, self.percent(other)?);
        Some(match self {
            ErrorKind::Exact => 0.0,
            ErrorKind::Energy => (own - others).abs(),
            ErrorKind::Time | ErrorKind::AnyMix => bar.apart(other, [1.0; 2]),
            ErrorKind::Makespan => bar.apart(other, [bar, other].map(ErrorBar::pass_share)),
        })
    }
}

/// A figure with the half widths of what is known about its error, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean over the seeds.
    pub value: f64,
    /// Half the confidence interval over the seeds; none for a single one.
    pub seeds: Option<f64>,
    /// What the fitted errors of the kernels come to; none where they are not known.
    pub model: Option<f64>,
}

impl Estimate {
    /// From one value for each seed, with the error of the run.
    pub fn new(values: &[f64], kind: Option<ErrorKind>, bar: &ErrorBar, level: f64) -> Estimate {
        let value = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let percent = kind.and_then(|kind| kind.percent(bar));
        Estimate {
            value,
            seeds: Interval::of(values, level).map(|interval| interval.half_width),
            model: percent.map(|percent| value.abs() * percent / 100.0),
        }
    }

    /// Whether the error of the kernels is known, so that the interval has all of it. Where it is not, no interval says nothing.
    pub fn is_known(&self) -> bool {
        self.model.is_some()
    }

    /// Both errors, added: seeds and prices have nothing to do with each other, but an error of a price moves all seeds alike, so
    /// nothing cancels. What is not known adds nothing: see [`Estimate::seeds`] and [`Estimate::model`].
    pub fn half_width(&self) -> f64 {
        self.seeds.unwrap_or(0.0) + self.model.unwrap_or(0.0)
    }

    /// Lower end of the interval; never below zero for a figure that is not.
    pub fn low(&self) -> f64 {
        let low = self.value - self.half_width();
        if self.value >= 0.0 { low.max(0.0) } else { low }
    }

    /// Upper end of the interval.
    pub fn high(&self) -> f64 {
        self.value + self.half_width()
    }

    /// The interval as reports write it.
    pub fn ends(&self) -> Ends {
        Ends { low: self.low(), high: self.high(), seeds: self.seeds, model: self.model }
    }
}

/// The ends of an interval, and the half widths that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ends {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// [`Estimate::seeds`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<f64>,
    /// [`Estimate::model`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<f64>,
}

/// By how much a run is better than another on the same device, and how sure that is; in percent of the other's figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// Better by so much; below zero where it is worse.
    pub percent: f64,
    /// Half the confidence interval of the paired differences over the seeds; none for a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds_percent: Option<f64>,
    /// Error where kernels of a class are wrong by the same share in both runs; none where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_percent: Option<f64>,
    /// Error where those of one run are too fast and those of the other too slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opposed_percent: Option<f64>,
    /// Whether the gain is more than the error over seeds and of the kernels together.
    pub verdict: Verdict,
}

impl Gain {
    /// From one pair of values for each seed. `less_is_better` says which way the figure should go. None without values, or where the
    /// other's figure is zero.
    pub fn of(
        (values, bar): (&[f64], &ErrorBar),
        (others, other_bar): (&[f64], &ErrorBar),
        kind: Option<ErrorKind>,
        less_is_better: bool,
        level: f64,
    ) -> Option<Gain> {
        let sign = if less_is_better { -1.0 } else { 1.0 };
        let pairs = values.iter().zip(others).map(|(value, other)| 100.0 * sign * (value / other - 1.0));
        let gains: Vec<f64> = pairs.collect();
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        let ratio = sum(values) / sum(others);
        let percent = 100.0 * sign * (ratio - 1.0);
        if gains.is_empty() || !percent.is_finite() || gains.iter().any(|gain| !gain.is_finite()) {
            return None;
        }
        let seeds_percent = Interval::of(&gains, level).map(|interval| interval.half_width);
        let shared_percent = kind.and_then(|kind| Some(ratio * kind.apart(bar, other_bar)?));
        let opposed_percent =
            kind.and_then(|kind| Some(ratio * (kind.percent(bar)? + kind.percent(other_bar)?)));
        let seeds = seeds_percent.unwrap_or(0.0);
        let with_seeds = |error: Option<f64>| error.unwrap_or(0.0) + seeds;
        let verdict = Verdict::of(
            percent,
            with_seeds(shared_percent),
            with_seeds(opposed_percent),
            opposed_percent.is_some(),
        );
        Some(Gain { percent, seeds_percent, shared_percent, opposed_percent, verdict })
    }
}
