//! What measured expert layers say of a device.

use super::Evidence;
use super::forest::Forest;
use super::shared::Shared;
use crate::units::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Times of whole expert layers in one format (`docs/COST_DEVICES.md`, "Expert layers").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertTimes {
    /// What was fitted; its errors are on families left out in turn.
    pub evidence: Evidence,
    /// Format of matrices and of the rows that products take.
    pub format: Dtype,
    /// Least and largest of each number of a shape among the fitted rows; beyond, a price is extrapolated.
    pub range: BTreeMap<String, (f64, f64)>,
    /// Constants of the formula.
    pub constants: ExpertConstants,
    /// The logarithm of measured over computed time.
    pub forest: Shared<Forest>,
}

/// Constants of the formula that times of expert layers begin with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertConstants {
    /// Microseconds of every call.
    pub start_us: f64,
    /// Nanoseconds of each row of an expert.
    pub row_ns: f64,
    /// Reached share of the bandwidth of device memory, of weights.
    pub weights: f64,
    /// The same of rows and results of this device's experts; above 1 where the last cache keeps them.
    pub rows: f64,
    /// What passes over the rows of all experts of the layer take, those of other devices included, over their bytes at the bandwidth.
    pub all: f64,
    /// Reached share of the flops of products in blocks of each of [`crate::kernel::EXPERT_BLOCKS`] rows.
    pub flops: [f64; 4],
    /// Share of the shorter of products and weights that does not hide behind the longer.
    pub exposed: f64,
}

impl ExpertConstants {
    /// The constants in the order of the fields.
    pub fn numbers(&mut self) -> [&mut f64; 10] {
        let ExpertConstants { start_us, row_ns, weights, rows, all, flops, exposed } = self;
        let [a, b, c, d] = flops;
        [start_us, row_ns, weights, rows, all, a, b, c, d, exposed]
    }
}

impl ExpertTimes {
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !self.evidence.is_sound() {
            return Err(("evidence", "finite errors"));
        }
        if !self.range.values().all(|&(least, most)| least.is_finite() && least <= most && most.is_finite()) {
            return Err(("range", "finite bounds, the lower first"));
        }
        let mut constants = self.constants;
        let sound = |number: &&mut f64| number.is_finite() && **number > 0.0 && **number < 1e6;
        if !constants.numbers().iter().all(sound) || constants.weights > 1.0 || constants.exposed > 1.0 {
            return Err(("constants", "numbers above 0, weights and exposed at most 1"));
        }
        self.forest.check().map_err(|expected| ("forest", expected))
    }
}
