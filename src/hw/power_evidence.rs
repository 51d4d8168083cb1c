//! What the power constants and the step time of a profile rest on: serving runs whose latency and power were measured.

use super::MOST_PERCENT;
use crate::error::InputError;
use serde::{Deserialize, Serialize};

/// Measured serving runs, and how wrong the profile is on models that its fit has not seen. One software stack on one kind of
/// device: the constants are effective ones, which the same runs could not tell from others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerEvidence {
    /// The software stack and the table, in words.
    pub stack: String,
    /// SHA-256 of the table's bytes.
    pub sha256: String,
    /// Rows fitted: runs.
    pub rows: u64,
    /// Models among them.
    pub models: u64,
    /// Mean absolute percentage error of the time between tokens, each model left out in turn.
    pub itl_error: f64,
    /// Mean signed percentage error of it.
    pub itl_bias: f64,
    /// Mean absolute percentage error of joules per token, each model left out in turn.
    pub joules_error: f64,
    /// Mean signed percentage error of them.
    pub joules_bias: f64,
    /// Mean absolute percentage error of watts, each model left out in turn.
    pub watts_error: f64,
    /// Mean signed percentage error of them.
    pub watts_bias: f64,
}

/// Measured power caps and clock locks, and how wrong the clocks of a profile are on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockEvidence {
    /// The devices whose rows were fitted, in words.
    pub devices: String,
    /// SHA-256 of the table's bytes.
    pub sha256: String,
    /// Rows fitted.
    pub rows: u64,
    /// Mean absolute percentage error of the speed under a cap or a lock: where the devices are others, each left out in turn; where they
    /// are this one, each workload left out in turn.
    pub speed_error: f64,
    /// That of joules a unit of work.
    pub energy_error: f64,
}

impl ClockEvidence {
    /// Refuses what no fit writes.
    pub(super) fn check(&self) -> Result<(), InputError> {
        if [self.speed_error, self.energy_error].iter().all(|error| (0.0..=MOST_PERCENT).contains(error)) {
            return Ok(());
        }
        Err(InputError::expected("finite errors, none below 0").key("power.clocks.evidence"))
    }
}

impl PowerEvidence {
    /// Refuses what no fit writes.
    pub(super) fn check(&self) -> Result<(), InputError> {
        let errors = [self.itl_error, self.joules_error, self.watts_error];
        let biases = [self.itl_bias, self.joules_bias, self.watts_bias];
        let sound = errors.iter().all(|error| (0.0..=MOST_PERCENT).contains(error))
            && biases.iter().all(|bias| bias.is_finite());
        if sound {
            Ok(())
        } else {
            Err(InputError::expected("finite errors, none below 0").key("power.metered"))
        }
    }
}
