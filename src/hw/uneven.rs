//! What measured calls of generated tokens with uneven contexts say of a device.

use super::Evidence;
use serde::{Deserialize, Serialize};

/// How many blocks that read one context each keep the memory busy ([`crate::kernel::Filling`]), for each unit of the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uneven {
    /// What was fitted and what kept aside.
    pub evidence: Evidence,
    /// Blocks in calls of generated tokens alone, a block for each sequence and head of the cache.
    pub alone: f64,
    /// Blocks in calls with rows of prompts, a block for each sequence and head of the queries.
    pub beside: f64,
}

impl Uneven {
    /// Blocks of a unit at most. Assumed: more than any device holds at a time.
    const MOST: f64 = 64.0;

    /// Whether its numbers are some that a fit can have.
    pub(super) fn is_sound(&self) -> bool {
        let sound = |blocks: f64| blocks > 0.0 && blocks <= Uneven::MOST;
        self.evidence.is_sound() && sound(self.alone) && sound(self.beside)
    }
}
