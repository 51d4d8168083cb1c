//! Price of one kernel call on one device, with its source. Pure: reads no clock, file or random stream.
//!
//! The formulas stand in `docs/COST_MODEL.md` with their symbols and sources. In short, for a call with compute time
//! `tc` and memory time `tm`, `t = fixed + max(tc, tm) + (1 - overlap) * min(tc, tm)`; a power cap may stretch it.

mod cache;
mod corrected;
mod device;
mod features;
mod measured;
mod tiles;
mod waves;

pub(crate) use corrected::{by_rows_name, formats, length, numbers};

pub use cache::{FoldHasher, PriceCache};
pub use device::{Device, Limits};

use crate::kernel::{Class, Kernel};
use crate::units::{SimTime, SourceKind};

/// What one kernel call costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Device time from start to end.
    pub time: SimTime,
    /// Operations.
    pub flops: u64,
    /// Bytes to and from device memory.
    pub dram_bytes: u64,
    /// Energy beyond the static power, picojoules.
    pub dynamic_pj: u64,
    /// What the time is made of, mostly.
    pub bound: Bound,
    /// The weakest source among the constants that set the time.
    pub source: SourceKind,
}

/// What limits a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bound {
    /// Arithmetic, tile padding and part-filled waves included.
    Compute,
    /// Device memory.
    Dram,
    /// The last shared cache.
    L2,
    /// The fixed time of starting and draining.
    Fixed,
    /// The power cap.
    Power,
}

impl Bound {
    /// All bounds with their names in reports.
    pub const ALL: [(Bound, &'static str); 5] = [
        (Bound::Compute, "compute"),
        (Bound::Dram, "dram"),
        (Bound::L2, "l2"),
        (Bound::Fixed, "fixed"),
        (Bound::Power, "power cap"),
    ];
}

impl Device {
    /// The price of `kernel`: monotone in its rows, widths and entries by the formulas; in its rows and context where
    /// measurements correct them.
    pub fn price(&self, kernel: &Kernel) -> Price {
        let price = self.physical(kernel);
        // Constants of calls that were measured may promise more of others than the memory can do.
        let least = || SimTime::at_rate(price.dram_bytes, self.dram_bytes_per_s);
        let measured = || self.measured.time(self, kernel).map(|(time, source)| (time.max(least()), source));
        let (unbound, source) = self
            .corrected
            .time(self, kernel, price.time)
            .or_else(measured)
            .unwrap_or((price.time, price.source));
        let bound = price.bound;
        let dynamic_pj = price.dynamic_pj.min(self.most_pj(unbound));
        let time = unbound.max(self.shortest_time(dynamic_pj));
        let (bound, source) =
            if time > unbound { (Bound::Power, self.power_source) } else { (bound, source) };
        Price { time, bound, source, dynamic_pj, ..price }
    }

    /// The price by the formulas and the constants of the class alone, without a power cap.
    pub(crate) fn physical(&self, kernel: &Kernel) -> Price {
        let work = kernel.work();
        let class = self.class(kernel.class());
        // Activations that fit the cache stay there between kernels; what exceeds it goes through device memory.
        let spilled = work.activation_bytes.saturating_sub(self.l2_bytes);
        let dram_bytes = work.weight_bytes + work.kv_bytes + spilled;

        let compute = self.compute_time(kernel, work.flops, class.flops);
        let dram = SimTime::at_rate(dram_bytes, self.dram_bytes_per_s * class.bytes);
        let l2_bytes = work.weight_bytes + work.kv_bytes + work.activation_bytes;
        let l2 = SimTime::at_rate(l2_bytes, self.l2_bytes_per_s * class.bytes);

        let memory = dram.max(l2);
        let (longer, shorter) = (compute.max(memory), compute.min(memory));
        let exposed = SimTime::from_ps((shorter.ps() as f64 * (1.0 - class.overlap)) as u64);
        let (sampling, sampling_pj) = self.sampling(kernel);
        let time = class.fixed + longer + exposed + sampling;

        let dynamic_pj = self.dynamic_pj(kernel, work.flops, dram_bytes) + sampling_pj;
        let (bound, source) = if sampling > class.fixed.max(longer) {
            (Bound::Compute, self.sampler_source)
        } else if class.fixed > longer {
            (Bound::Fixed, class.fixed_source)
        } else if compute >= memory {
            (Bound::Compute, self.compute_source.join(class.flops_source))
        } else if dram >= l2 {
            (Bound::Dram, self.dram_source.join(class.bytes_source))
        } else {
            (Bound::L2, self.l2_source.join(class.bytes_source))
        };
        Price { time, flops: work.flops, dram_bytes, dynamic_pj, bound, source }
    }

    fn compute_time(&self, kernel: &Kernel, flops: u64, efficiency: f64) -> SimTime {
        match *kernel {
            Kernel::MatMul { rows, inner, columns, weights, activations, density } => {
                let speed =
                    self.matrix_flops_per_s(activations, weights) * efficiency * self.density_speed(density);
                self.tiled(1, rows, inner, columns, speed)
            }
            Kernel::GroupedMatMul {
                groups, slices, inner, columns, weights, activations, density, ..
            } => {
                let speed =
                    self.matrix_flops_per_s(activations, weights) * efficiency * self.density_speed(density);
                self.tiled(groups, slices * crate::kernel::GROUP_SLICE, inner, columns, speed)
            }
            Kernel::Attention(shape) => {
                SimTime::at_rate(flops, self.matrix_flops_per_s(shape.activations, shape.kv) * efficiency)
            }
            Kernel::Router { weights, activations, .. } => {
                SimTime::at_rate(flops, self.matrix_flops_per_s(activations, weights) * efficiency)
            }
            Kernel::Embed { .. }
            | Kernel::Norm { .. }
            | Kernel::Rope { .. }
            | Kernel::KvWrite { .. }
            | Kernel::Activation { .. }
            | Kernel::ResidualAdd { .. }
            | Kernel::Gather { .. }
            | Kernel::Scatter { .. }
            | Kernel::Sample { .. } => SimTime::at_rate(flops, self.vector_flops_per_s * efficiency),
        }
    }

    /// What the sampler of the serving engine adds to one pass over the logits: time, and energy in picojoules.
    fn sampling(&self, kernel: &Kernel) -> (SimTime, u64) {
        let Kernel::Sample { rows, vocabulary, .. } = *kernel else { return (SimTime::ZERO, 0) };
        let logits = f64::from(rows) * f64::from(vocabulary);
        let (ps, pj) = self.sampler;
        (SimTime::from_ps((ps * logits) as u64), (pj * logits) as u64)
    }

    /// Mean absolute error in percent that prices of a class had on rows kept aside; nothing where nobody measured it.
    pub fn fitted_error(&self, class: Class) -> Option<f64> {
        self.corrected.error(class).or_else(|| self.measured.error(class))
    }

    fn class(&self, class: Class) -> &device::ClassConstants {
        &self.classes[class as usize]
    }
}
