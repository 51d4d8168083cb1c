//! Price of one kernel call on one device, with its source. Pure: reads no clock, file or random stream.
//!
//! The formulas stand in `docs/COST_MODEL.md` with their symbols and sources. In short, for a call with compute time
//! `tc` and memory time `tm`, `t = fixed + max(tc, tm) + (1 - overlap) * min(tc, tm)`; a lower clock stretches it.
mod adapter;
mod cache;
mod clock;
mod collective;
mod corrected;
mod device;
mod experts;
mod features;
mod links;
mod parts;
mod price_error;
mod ranks;
mod slots;
mod tiles;
mod waves;

pub(crate) use collective::exchange_us;
pub(crate) use corrected::{Recent, by_rows_name, formats, length, numbers, of_shape_name, with_rows};
pub(crate) use experts::expert_numbers;

pub use cache::{FoldHasher, PriceCache};
pub use collective::{CollectivePrice, ExchangeCall, Exchanges, Group};
pub use device::{Device, Limits};
pub use links::Links;
pub use price_error::{BETWEEN_SOURCES, EXTRAPOLATED, PriceError, percent};
pub use ranks::Ranks;
pub use slots::Slots;

use clock::{ClockRange, Clocked, Unclocked};
use parts::Parts;

use crate::kernel::{Attention, Class, Kernel, LatentAttention};
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
    /// Energy beyond the static power, picojoules; below zero where a lower clock saves more of that power than the call adds.
    pub dynamic_pj: i64,
    /// What the time is made of, mostly.
    pub bound: Bound,
    /// The weakest source among the constants that set the time.
    pub source: SourceKind,
    /// How wrong the time may be; none where nobody measured what made it.
    pub error: Option<PriceError>,
}

/// What measured calls say of a kernel.
#[derive(Clone, Copy, Debug)]
struct Learned {
    time: SimTime,
    source: SourceKind,
    error: Option<PriceError>,
}

impl Learned {
    /// By a correction with this `error`, learned on a device that lies `altered` from this one, where it has `lent` percent at the distance of
    /// the loans that were measured; `source` says whether the kernel lies among those that were measured.
    fn by(time: SimTime, source: SourceKind, error: PriceError, lent: f64, altered: f64) -> Learned {
        let error = if altered > 0.0 { error.lent(lent, altered) } else { error };
        let error = if source == SourceKind::Extrapolated { error.times(EXTRAPOLATED) } else { error };
        let source = if altered > 0.0 { SourceKind::Extrapolated } else { source };
        Learned { time, source, error: Some(error) }
    }
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
    /// A power cap, which set a lower clock.
    Power,
    /// Messages between devices.
    Link,
}

impl Bound {
    /// All bounds with their names in reports.
    pub const ALL: [(Bound, &'static str); 6] = [
        (Bound::Compute, "compute"),
        (Bound::Dram, "dram"),
        (Bound::L2, "l2"),
        (Bound::Fixed, "fixed"),
        (Bound::Power, "power cap"),
        (Bound::Link, "link"),
    ];
}

impl Device {
    /// The price of `kernel`: monotone in its rows, widths and entries by the formulas; in its rows and context where
    /// measurements correct them.
    pub fn price(&self, kernel: &Kernel) -> Price {
        self.price_beside(kernel, &mut Recent::default())
    }

    /// The same, with what was looked up for the calls before.
    pub(crate) fn price_beside(&self, kernel: &Kernel, recent: &mut Recent) -> Price {
        let (price, parts) = self.parts(kernel);
        // A call that waits takes as long as a larger one, and does no more.
        let larger = match *kernel {
            Kernel::Attention(shape) if shape.waits > 0 => Some(Kernel::Attention(shape.even())),
            _ => None,
        };
        let by_formulas = larger.as_ref().map_or(price, |larger| self.physical(larger));
        let timed = larger.as_ref().unwrap_or(kernel);
        // Constants of calls that were measured may promise more of others than the memory can do.
        let least = || SimTime::at_rate(price.dram_bytes, self.dram_bytes_per_s);
        let measured = || {
            let learned = self.measured.time(self, timed)?;
            Some(Learned { time: learned.time.max(least()), ..learned })
        };
        let Price { time, source, error, .. } = by_formulas;
        let formulas = Learned { time, source, error };
        let Learned { time, source, error } = match timed {
            Kernel::ExpertLayer(shape) => self.expert_layer(shape),
            _ => self.corrected.time(self, timed, time, recent).or_else(measured),
        }
        .unwrap_or(formulas);
        let error = match self.uneven_error().filter(|_| larger.is_some()) {
            Some(uneven) => error.map(|error| error.and(uneven)),
            None => error,
        };
        let dynamic_pj = price.dynamic_pj.min(self.most_pj(time));
        let price = Price { time, source, error, dynamic_pj, ..price };
        let price = self.clocks.map_or(price, |clocks| self.clocked(&clocks, price, &parts));
        // What 64 bits do not count ends the run, as a time beyond all others.
        let counted = price.flops < u64::MAX && price.dram_bytes < u64::MAX;
        Price { time: if counted { price.time } else { SimTime::MAX }, ..price }
    }

    /// The price as the fitted table would have it: no shorter than what the host took for a call, where that was measured without
    /// captured graphs. What a call costs the device is [`Device::price`].
    pub fn price_in_table(&self, kernel: &Kernel) -> Price {
        let price = self.price(kernel);
        match self.corrected.host_time(kernel) {
            Some(host) if host > price.time => Price { time: host, source: SourceKind::Fitted, ..price },
            _ => price,
        }
    }

    /// Measured times so many times as long as the host's show what the device takes: more than a host's times scatter.
    pub(crate) const SHOWN: f64 = 1.2;

    /// Whether a measured time shows what the device takes, rather than the host: all do in tables measured with captured graphs.
    pub fn shows(&self, kernel: &Kernel, seconds: f64) -> bool {
        self.corrected.host_time(kernel).is_none_or(|host| seconds > Device::SHOWN * host.s())
    }

    /// The same call at the clock that the limits allow.
    fn clocked(&self, clocks: &ClockRange, price: Price, parts: &Parts) -> Price {
        let full = parts.time(1.0, 1.0);
        let stretch = |clock: f64| match full > 0.0 {
            true => parts.time(clock, clocks.memory_stretch(clock)) / full,
            false => 1.0 / clock,
        };
        let unclocked = Unclocked {
            time: price.time.ps() as f64,
            dynamic_pj: price.dynamic_pj as f64,
            byte_share: parts.byte_share,
        };
        let clocked = clocks.choose(unclocked, stretch);
        let (bound, source) = match clocked.clock {
            clock if clock < clocks.highest() => (Bound::Power, self.power_source.join(clocks.source)),
            clock if clock < 1.0 => {
                (parts.bound(clock, clocks.memory_stretch(clock)), price.source.join(clocks.source))
            }
            _ => (price.bound, price.source),
        };
        let Clocked { time, dynamic_pj, .. } = clocked;
        Price { time: SimTime::from_ps(time), dynamic_pj, bound, source, ..price }
    }

    /// The price by the formulas and the constants of the class alone, at the boost clock.
    pub(crate) fn physical(&self, kernel: &Kernel) -> Price {
        self.parts(kernel).0
    }

    /// The same, with what the time is made of.
    fn parts(&self, kernel: &Kernel) -> (Price, Parts) {
        let work = kernel.work();
        let class = self.class(kernel.class());
        // Activations that fit the cache stay there between kernels; what exceeds it goes through device memory.
        let spilled = work.activation_bytes.saturating_sub(self.l2_bytes);
        let kept = work.weight_bytes.saturating_add(work.kv_bytes);
        let dram_bytes = kept.saturating_add(spilled);

        let compute = self.compute_time(kernel, work.flops, class.flops);
        let dram = SimTime::at_rate(dram_bytes, self.dram_bytes_per_s * class.bytes);
        let l2_bytes = kept.saturating_add(work.activation_bytes);
        let l2 = SimTime::at_rate(l2_bytes, self.l2_bytes_per_s * class.bytes);

        let memory = dram.max(l2);
        let (longer, shorter) = (compute.max(memory), compute.min(memory));
        let exposed = SimTime::from_ps((shorter.ps() as f64 * (1.0 - class.overlap)) as u64);
        let (sampling, sampling_pj) = self.sampling(kernel);
        let time = class.fixed + longer + exposed + sampling;

        let (byte_pj, core_pj) = self.dynamic_pj(kernel, work.flops, dram_bytes);
        let dynamic_pj = ((byte_pj + core_pj + 0.5) as i64).saturating_add(sampling_pj);
        let parts = Parts {
            fixed: class.fixed.ps() as f64,
            compute: compute.ps() as f64,
            arithmetic: self
                .arithmetic_time(kernel, class.flops)
                .map_or(compute, |least| least.min(compute))
                .ps() as f64,
            dram: dram.ps() as f64,
            l2: l2.ps() as f64,
            sampling: sampling.ps() as f64,
            overlap: class.overlap,
            byte_share: if dynamic_pj > 0 { byte_pj / dynamic_pj as f64 } else { 0.0 },
        };
        let bound = parts.bound(1.0, 1.0);
        let source = match bound {
            Bound::Fixed => class.fixed_source,
            Bound::Dram => self.dram_source.join(class.bytes_source),
            Bound::L2 => self.l2_source.join(class.bytes_source),
            _ if parts.samples() => self.sampler_source,
            _ => self.compute_source.join(class.flops_source),
        };
        let error = self.sampler_error.filter(|_| parts.samples());
        (Price { time, flops: work.flops, dram_bytes, dynamic_pj, bound, source, error }, parts)
    }

    fn compute_time(&self, kernel: &Kernel, flops: u64, efficiency: f64) -> SimTime {
        match *kernel {
            Kernel::MatMul { rows, inner, columns, weights, inputs, density, .. } => {
                let speed = self.tile_speed(inputs, weights, density, efficiency);
                self.tiled(1, rows, inner, columns, speed)
            }
            Kernel::GroupedMatMul { groups, slices, inner, columns, weights, inputs, density, .. } => {
                let speed = self.tile_speed(inputs, weights, density, efficiency);
                self.tiled(groups, slices * crate::kernel::GROUP_SLICE, inner, columns, speed)
            }
            Kernel::Attention(Attention { activations, kv, .. })
            | Kernel::LatentAttention(LatentAttention { activations, kv, .. }) => {
                SimTime::at_rate(flops, self.matrix_flops_per_s(activations, kv) * efficiency)
            }
            // Bounds its products from below: what it takes is measured wherever it comes up.
            Kernel::ExpertLayer(shape) => {
                let speed = self.product_flops_per_s(shape.inputs, shape.weights, shape.density, efficiency);
                SimTime::at_rate(flops, speed)
            }
            Kernel::Router { weights, activations, .. } => {
                SimTime::at_rate(flops, self.matrix_flops_per_s(activations, weights) * efficiency)
            }
            Kernel::Embed { .. }
            | Kernel::Norm { .. }
            | Kernel::Rope { .. }
            | Kernel::KvWrite { .. }
            | Kernel::Quantise { .. }
            | Kernel::Activation { .. }
            | Kernel::ResidualAdd { .. }
            | Kernel::Gather { .. }
            | Kernel::Scatter { .. }
            | Kernel::ExpertSum { .. }
            | Kernel::Sample { .. } => SimTime::at_rate(flops, self.vector_flops_per_s * efficiency),
        }
    }

    /// Time of the arithmetic of a product by its rows alone, in sixteens (the smallest row tile of tensor cores, m16n8k16 of the PTX ISA): few
    /// rows go through kernels for few rows, so that no more of their time than this goes with the clock.
    fn arithmetic_time(&self, kernel: &Kernel, efficiency: f64) -> Option<SimTime> {
        let (rows, inner, columns, weights, inputs, density) = match *kernel {
            Kernel::MatMul { rows, inner, columns, weights, inputs, density, .. } => {
                (rows.div_ceil(crate::kernel::GROUP_SLICE), inner, columns, weights, inputs, density)
            }
            Kernel::GroupedMatMul { slices, inner, columns, weights, inputs, density, .. } => {
                (slices, inner, columns, weights, inputs, density)
            }
            _ => return None,
        };
        let rows = u64::from(rows) * u64::from(crate::kernel::GROUP_SLICE);
        let flops = (2 * rows * u64::from(inner)).saturating_mul(columns.into());
        let speed = self.product_flops_per_s(inputs, weights, density, efficiency);
        Some(SimTime::at_rate(flops, speed))
    }

    /// What the sampler of the serving engine adds to one pass over the logits: time, and energy in picojoules.
    fn sampling(&self, kernel: &Kernel) -> (SimTime, i64) {
        let Kernel::Sample { rows, vocabulary, .. } = *kernel else { return (SimTime::ZERO, 0) };
        let logits = f64::from(rows) * f64::from(vocabulary);
        let (ps, pj) = self.sampler;
        (SimTime::from_ps((ps * logits) as u64), (pj * logits) as i64)
    }

    fn class(&self, class: Class) -> &device::ClassConstants {
        &self.classes[class as usize]
    }
}
