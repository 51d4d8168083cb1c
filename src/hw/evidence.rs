//! What a correction rests on, and how wrong it is.

use super::MOST_PERCENT;
use serde::{Deserialize, Serialize};

/// What a correction rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// SHA-256 of the table's bytes.
    pub sha256: String,
    /// Rows fitted.
    pub fitted_rows: u64,
    /// Rows kept aside, by whole families.
    pub held_rows: u64,
    /// How families were kept aside.
    pub split: String,
    /// Mean absolute percentage error on the rows kept aside.
    pub held_error: f64,
    /// Mean signed percentage error there.
    pub held_bias: f64,
    /// Its 90th percentile without sign.
    pub held_p90: f64,
    /// Half width in percent of the nominal 90 % interval of a family kept aside ([`crate::calib::interval`]); absent in profiles of
    /// older fits, where `held_p90` stands in for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_interval: Option<f64>,
    /// Share of the variance of log time that the profile explains there; near or below 0: it explains nothing.
    pub explained: f64,
}

impl Evidence {
    /// Of a fit whose errors are still to be stated.
    pub fn new(sha256: &str, fitted_rows: usize, held_rows: usize, split: String) -> Evidence {
        Evidence {
            sha256: sha256.to_owned(),
            fitted_rows: fitted_rows as u64,
            held_rows: held_rows as u64,
            split,
            held_error: 0.0,
            held_bias: 0.0,
            held_p90: 0.0,
            held_interval: None,
            explained: 0.0,
        }
    }

    /// Half width in percent of the nominal 90 % interval of one call of a family that the fit did not see.
    pub fn interval(&self) -> f64 {
        self.held_interval.unwrap_or(self.held_p90)
    }

    /// Of what is lent, where a mean error of so many percent is expected: no narrower than it was.
    pub fn expect(&mut self, error: f64) {
        let wider = (error / self.held_error.max(1e-9)).max(1.0);
        self.held_p90 *= wider;
        self.held_interval = self.held_interval.map(|interval| interval * wider);
        self.held_error = self.held_error.max(error);
    }

    /// Whether its errors are some that a fit can have.
    pub(super) fn is_sound(&self) -> bool {
        let percent = |value: f64| (0.0..=MOST_PERCENT).contains(&value);
        [self.held_bias, self.explained].iter().all(|number| number.is_finite())
            && percent(self.held_error)
            && percent(self.held_p90)
            && percent(self.interval())
    }
}
