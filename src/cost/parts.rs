//! What the time of a call is made of, at any clock.

use super::Bound;
use super::clock::memory_stretch;

/// What the time of a call is made of at the boost clock, in picoseconds.
pub(super) struct Parts {
    pub fixed: f64,
    pub compute: f64,
    pub dram: f64,
    pub l2: f64,
    pub sampling: f64,
    pub overlap: f64,
    /// Of its energy beyond static power, what bytes of device memory take.
    pub byte_share: f64,
}

impl Parts {
    /// Arithmetic and memory time at a clock.
    fn at(&self, clock: f64) -> (f64, f64) {
        (self.compute / clock, (self.dram * memory_stretch(clock)).max(self.l2 / clock))
    }

    /// All of it at a clock.
    pub fn time(&self, clock: f64) -> f64 {
        let (compute, memory) = self.at(clock);
        let together = compute.max(memory) + (1.0 - self.overlap) * compute.min(memory);
        (self.fixed + self.sampling) / clock + together
    }

    /// Whether the sampler is most of it.
    pub fn samples(&self, clock: f64) -> bool {
        let (compute, memory) = self.at(clock);
        self.sampling / clock > compute.max(memory).max(self.fixed / clock)
    }

    /// What most of it is.
    pub fn bound(&self, clock: f64) -> Bound {
        let (compute, memory) = self.at(clock);
        if self.samples(clock) {
            Bound::Compute
        } else if self.fixed / clock > compute.max(memory) {
            Bound::Fixed
        } else if compute >= memory {
            Bound::Compute
        } else if self.dram * memory_stretch(clock) >= self.l2 / clock {
            Bound::Dram
        } else {
            Bound::L2
        }
    }
}
