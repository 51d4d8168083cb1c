//! What the time of a call is made of, at any clock.

use super::Bound;

/// What the time of a call is made of at the boost clock, in picoseconds.
pub(super) struct Parts {
    pub fixed: f64,
    pub compute: f64,
    /// Of `compute`, what no choice of kernel saves: few rows go through narrow tiles or none, whatever tiles the price is made of.
    pub arithmetic: f64,
    pub dram: f64,
    pub l2: f64,
    pub sampling: f64,
    pub overlap: f64,
    /// Of its energy beyond static power, what bytes of device memory take.
    pub byte_share: f64,
}

impl Parts {
    /// Time that the parts take at a clock; `stretch` is that of device memory there.
    pub fn time(&self, clock: f64, stretch: f64) -> f64 {
        let (compute, memory) = (self.arithmetic / clock, (self.dram * stretch).max(self.l2 / clock));
        let together = compute.max(memory) + (1.0 - self.overlap) * compute.min(memory);
        (self.fixed + self.sampling) / clock + together
    }

    /// Whether the sampler is most of it.
    pub fn samples(&self) -> bool {
        self.sampling > self.compute.max(self.dram).max(self.l2).max(self.fixed)
    }

    /// What most of it is at a clock.
    pub fn bound(&self, clock: f64, stretch: f64) -> Bound {
        let (compute, memory) = (self.compute / clock, (self.dram * stretch).max(self.l2 / clock));
        if self.sampling / clock > compute.max(memory).max(self.fixed / clock) {
            Bound::Compute
        } else if self.fixed / clock > compute.max(memory) {
            Bound::Fixed
        } else if compute >= memory {
            Bound::Compute
        } else if self.dram * stretch >= self.l2 / clock {
            Bound::Dram
        } else {
            Bound::L2
        }
    }
}
