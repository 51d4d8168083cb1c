//! How wrong predictions are.

use super::interval;
use crate::error::InputError;
use crate::hw::Evidence;
use statrs::statistics::{Data, OrderStatistics, Statistics};

/// Errors of predictions in percent of what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PercentErrors {
    /// Rows compared.
    pub rows: usize,
    /// Mean without sign.
    pub mean: f64,
    /// Mean with sign: above 0, predictions are too long.
    pub bias: f64,
    /// Median without sign.
    pub p50: f64,
    /// 90th percentile without sign.
    pub p90: f64,
    /// 99th percentile without sign.
    pub p99: f64,
    /// Largest without sign.
    pub worst: f64,
    /// Half width of the nominal 90 % interval of a family that was not seen ([`super::interval`]), in percent.
    pub interval: f64,
    /// Share of the variance of the logarithm of what was measured that the predictions explain; near or below 0: nothing.
    pub explained: f64,
}

/// Predictions that explain less of how values differ were fitted to noise; real tables reach 99 %.
const LEAST_EXPLAINED: f64 = 0.5;

impl PercentErrors {
    /// Of pairs (predicted, measured), all above 0, each a family of its own; `None` without pairs.
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<PercentErrors> {
        PercentErrors::of_families(pairs.into_iter().enumerate().map(|(row, (said, was))| (row, said, was)))
    }

    /// Of rows (family, predicted, measured), times above 0; `None` without rows.
    pub fn of_families<F: Ord>(rows: impl IntoIterator<Item = (F, f64, f64)>) -> Option<PercentErrors> {
        let rows: Vec<(F, f64, f64)> = rows.into_iter().collect();
        let pairs: Vec<(f64, f64)> = rows.iter().map(|&(_, said, was)| (said, was)).collect();
        let signed: Vec<f64> = pairs.iter().map(|(said, was)| 100.0 * (said / was - 1.0)).collect();
        if signed.is_empty() {
            return None;
        }
        let before = spread(pairs.iter().map(|(_, was)| libm::log(*was)));
        let after = spread(pairs.iter().map(|(said, was)| libm::log(was / said)));
        let sizes: Vec<f64> = signed.iter().map(|error| error.abs()).collect();
        let (mean, worst) = ((&sizes).mean(), (&sizes).max());
        let mut ordered = Data::new(sizes);
        Some(PercentErrors {
            rows: signed.len(),
            mean,
            bias: (&signed).mean(),
            p50: ordered.percentile(50),
            p90: ordered.percentile(90),
            p99: ordered.percentile(99),
            worst,
            interval: interval(rows)?,
            explained: 1.0 - after / before.max(1e-30),
        })
    }

    /// # Errors
    /// Predictions of `key` that explain nothing: `expected` says what would have been expected of what was measured.
    pub fn check_explained(&self, key: &str, expected: &str) -> Result<(), InputError> {
        // Written so that NaN fails.
        if self.explained >= LEAST_EXPLAINED {
            return Ok(());
        }
        let found =
            format!("{:.0} % of the variance of its logarithm explained", 100.0 * self.explained.max(0.0));
        Err(InputError::expected(expected).key(key).found(found))
    }

    /// States them, on rows kept aside, in a profile.
    pub(super) fn state(&self, evidence: &mut Evidence) {
        let round = |value: f64| (value * 1e3).round() / 1e3;
        evidence.held_rows = self.rows as u64;
        evidence.held_error = round(self.mean);
        evidence.held_bias = round(self.bias);
        evidence.held_p90 = round(self.p90);
        evidence.held_interval = Some(round(self.interval));
        evidence.explained = round(self.explained);
    }
}

/// Sum of squared distances from the mean.
fn spread(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter().map(|value| (value - mean) * (value - mean)).sum()
}
