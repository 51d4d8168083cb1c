//! A hardware profile turned into the plain numbers that prices are made of, under the clock and power caps of a run.

use super::adapter::AdapterPrices;
use super::clock::ClockRange;
use super::corrected::Corrected;
use super::experts::ExpertTimes;
use super::price_error::{EXTRAPOLATED, PriceError};
use super::ranks::Ranks;
use crate::error::{InputError, Result};
use crate::hw::{Efficiency, Hardware, Sourced, Submit, Uneven};
use crate::kernel::{Density, Filling, Kernel};
use crate::units::{Dtype, PS_PER_S, SimTime, SourceKind};
use std::sync::Arc;

/// Blocks of a unit from which on a call of generated tokens leaves contexts whole: FlashAttention 2 cuts them where it has fewer blocks than 0.8 of
/// two a multiprocessor (`csrc/flash_attn/flash_api.cpp`, `num_splits_heuristic` and `set_params_splitkv`).
const WHOLE: f64 = 1.6;

/// Limits that an operator sets on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Power cap in watts, held by lower clocks; absent: the board's own limit does not slow kernels down.
    pub power_w: Option<f64>,
    /// The highest clock in MHz; absent: the boost clock.
    pub clock_mhz: Option<f64>,
    /// Whether the board's own limit is a power cap, too. Otherwise what would draw more keeps its time and draws the limit: right where the times
    /// that prices were fitted to were measured on a board that held its limit, too short where they were measured in bursts.
    pub board: bool,
}

impl Limits {
    /// The cap on a device, the board's own limit included where it counts.
    pub fn cap_w(&self, hw: &Hardware) -> Option<f64> {
        let board = self.board.then_some(hw.power.limit_w.value);
        self.power_w.into_iter().chain(board).reduce(f64::min)
    }
}

/// One device, ready to price kernels.
#[derive(Clone, Debug)]
pub struct Device {
    pub(super) units: u64,
    /// The highest clock, and how far it lies above the one at which the peaks hold.
    pub(super) cycle_hz: f64,
    pub(super) top_clock: f64,
    pub(super) multicast: f64,
    pub(super) tiles: Vec<(u64, u64)>,
    pub(super) vector_flops_per_s: f64,
    matrix: [f64; 5],
    two_four_speedup: f64,
    pub(super) dram_bytes_per_s: f64,
    pub(super) l2_bytes: u64,
    pub(super) l2_bytes_per_s: f64,
    pub(super) l2_peak: f64,
    pub(super) l2_parts: f64,
    pub(super) classes: [ClassConstants; 5],
    static_w: f64,
    idle_w: f64,
    /// What no kernel draws more than, where the board's limit is no cap.
    most_w: f64,
    /// The clocks to choose among, under limits.
    pub(super) clocks: Option<ClockRange>,
    pj_per_byte: f64,
    pj_per_flop: f64,
    pj_per_widened: f64,
    metered_error: Option<f64>,
    /// Picoseconds and picojoules that the sampler takes for a logit.
    pub(super) sampler: (f64, f64),
    pub(super) sampler_source: SourceKind,
    /// How wrong that may be.
    pub(super) sampler_error: Option<PriceError>,
    /// What the driver reports, the share that a server fills where it says nothing else, and what its process holds beside tensors.
    memory_bytes: f64,
    usable_fraction: f64,
    runtime_bytes: u64,
    launch: LaunchTimes,
    host_bytes_per_s: f64,
    host_latency: SimTime,
    /// Bytes a second and latency of the link that layers come over.
    link: (f64, SimTime),
    pub(super) compute_source: SourceKind,
    pub(super) dram_source: SourceKind,
    pub(super) l2_source: SourceKind,
    pub(super) power_source: SourceKind,
    /// What measurements add to the formulas.
    pub(super) corrected: Corrected,
    /// What was measured of whole expert layers.
    pub(super) experts: ExpertTimes,
    /// How many blocks that read a context each fill the memory, alone and beside rows of prompts, and how wrong that is.
    uneven: Option<(f64, f64, PriceError)>,
    /// Kernels that were measured one by one.
    pub(super) measured: AdapterPrices,
    /// How far the device lies from the one on which both were learned.
    pub(super) altered: f64,
    /// The devices that it computes a model with.
    pub(super) ranks: Option<Arc<Ranks>>,
}

/// Constants of one kernel class.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassConstants {
    pub flops: f64,
    pub bytes: f64,
    pub fixed: SimTime,
    pub overlap: f64,
    pub flops_source: SourceKind,
    pub bytes_source: SourceKind,
    pub fixed_source: SourceKind,
}

/// What it costs to start things.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaunchTimes {
    /// Host time for one kernel launch.
    pub kernel: SimTime,
    /// Host time for launching a captured graph.
    pub graph: SimTime,
    /// Device time between two kernels of a captured graph.
    pub graph_gap: SimTime,
    /// Device time between two kernels that were launched one by one, beyond that between two of a graph.
    pub eager_gap: SimTime,
    /// Device time of a conditional node of a captured graph.
    pub conditional: SimTime,
    /// From a result on the device to the host having read it.
    pub readback: SimTime,
    /// One routing decision on the host.
    pub host_decision: SimTime,
    /// Host time of a scheduler step.
    pub step: SimTime,
    /// Whether all launches of a pass come before its first kernel.
    pub recorded: bool,
}

impl LaunchTimes {
    /// Device time behind each kernel that no kernel has alone.
    pub fn gap(&self, captured: bool) -> SimTime {
        if captured { self.graph_gap } else { self.eager_gap }
    }
}

fn kind(number: &Sourced) -> SourceKind {
    number.source.kind()
}

fn us(number: &Sourced) -> SimTime {
    SimTime::from_us(number.value)
}

/// Who says what the sampler takes, and how wrong that may be: what was fitted on a device with other numbers is lent.
fn sampler_said(hw: &Hardware) -> (SourceKind, Option<PriceError>) {
    let Some(sampler) = &hw.sampler else { return (SourceKind::Measured, None) };
    let source = kind(&sampler.ps_per_logit);
    let held = sampler.error.filter(|_| source != SourceKind::Assumed);
    let error = held.map(|held| {
        let error = PriceError::new(held.mean, held.interval);
        if hw.altered > 0.0 { error.lent(EXTRAPOLATED * held.mean, hw.altered) } else { error }
    });
    (if hw.altered > 0.0 { source.join(SourceKind::Extrapolated) } else { source }, error)
}

/// Blocks of a unit that fill the memory, alone and beside rows of prompts, and how wrong that is.
fn uneven(of: &Uneven) -> (f64, f64, PriceError) {
    (of.alone, of.beside, PriceError::new(of.evidence.held_error, of.evidence.interval()))
}

impl ClassConstants {
    fn new(efficiency: &Efficiency) -> Self {
        ClassConstants {
            flops: efficiency.flops.value,
            bytes: efficiency.bytes.value,
            fixed: us(&efficiency.fixed_us),
            overlap: efficiency.overlap.value,
            flops_source: kind(&efficiency.flops).join(kind(&efficiency.overlap)),
            bytes_source: kind(&efficiency.bytes).join(kind(&efficiency.overlap)),
            fixed_source: kind(&efficiency.fixed_us),
        }
    }
}

impl Device {
    /// The device of a checked profile, under these limits.
    ///
    /// # Errors
    /// A power cap below what the device draws at its lowest clock, a clock outside its clocks.
    pub fn new(hw: &Hardware, limits: Limits) -> Result<Self> {
        let (boost, static_w) = (hw.compute.boost_clock_mhz.value, hw.power.static_w.value);
        let cap_w = limits.cap_w(hw);
        let clocks = ClockRange::new(hw, limits.clock_mhz.map(|clock| clock / boost), cap_w);
        let (lowest, lowest_w) = clocks.lowest();
        if let Some(cap) = cap_w.filter(|&cap| !(cap.is_finite() && cap > lowest_w)) {
            let what =
                format!("a finite cap above {lowest_w:.1} W, which the device draws at its lowest clock");
            let key = limits.power_w.map_or("hardware.power.limit_w", |_| "limits.power_w");
            return Err(InputError::expected(what).key(key).found(cap).into());
        }
        if let Some(clock) = limits.clock_mhz.filter(|&clock| !(clock / boost >= lowest && clock <= boost)) {
            let what = format!("a clock from {:.0} MHz to the boost clock of {boost} MHz", lowest * boost);
            return Err(InputError::expected(what).key("limits.clock_mhz").found(clock).into());
        }
        let limited = cap_w.is_some() || limits.clock_mhz.is_some();
        let top_clock = hw.compute.top_clock_mhz.as_ref().map_or(1.0, |top| top.value / boost);
        let or_one = |number: &Option<Sourced>| number.as_ref().map_or(1.0, |number| number.value);
        let f16 = hw.compute.matrix_f16_tflops.value;
        // A format without arithmetic of its own is widened to 16 bits.
        let or_f16 = |number: &Option<Sourced>| number.as_ref().map_or(f16, |number| number.value);
        let matrix = [
            hw.compute.matrix_f32_tflops.value,
            f16,
            or_f16(&hw.compute.matrix_fp8_tflops),
            or_f16(&hw.compute.matrix_int8_tops),
            or_f16(&hw.compute.matrix_fp4_tflops),
        ];
        let kernels = &hw.kernels;
        let classes = [
            &kernels.matmul,
            &kernels.prefill_attention,
            &kernels.decode_attention,
            &kernels.elementwise,
            &kernels.gather,
        ];
        let (sampler_source, sampler_error) = sampler_said(hw);
        Ok(Device {
            units: hw.compute.units.value as u64,
            cycle_hz: boost * top_clock * 1e6,
            top_clock,
            multicast: or_one(&hw.compute.multicast),
            tiles: hw.compute.tiles.iter().map(|&(rows, columns)| (rows.into(), columns.into())).collect(),
            vector_flops_per_s: hw.compute.vector_f32_tflops.value * 1e12,
            matrix: matrix.map(|tflops| tflops * 1e12),
            two_four_speedup: hw.compute.two_four_speedup.value,
            dram_bytes_per_s: hw.memory.dram_gb_per_s.value * 1e9,
            l2_bytes: (hw.memory.l2_mb.value * 1e6) as u64,
            l2_bytes_per_s: hw.memory.l2_gb_per_s.value * 1e9,
            l2_peak: hw.memory.l2_peak_gb_per_s.as_ref().unwrap_or(&hw.memory.l2_gb_per_s).value * 1e9,
            l2_parts: or_one(&hw.memory.l2_parts),
            classes: classes.map(ClassConstants::new),
            static_w,
            idle_w: hw.power.idle_w.value,
            most_w: if limits.board { f64::INFINITY } else { hw.power.limit_w.value },
            clocks: limited.then_some(clocks),
            pj_per_byte: hw.power.pj_per_byte.value,
            pj_per_flop: hw.power.pj_per_flop.value,
            pj_per_widened: hw.power.pj_per_widened.as_ref().map_or(0.0, |number| number.value),
            sampler: hw
                .sampler
                .as_ref()
                .map_or((0.0, 0.0), |sampler| (sampler.ps_per_logit.value, sampler.pj_per_logit.value)),
            sampler_source,
            sampler_error,
            metered_error: hw.power.metered.as_ref().map(|metered| metered.watts_error),
            memory_bytes: hw.memory.capacity_gb.value * 1e9,
            usable_fraction: hw.memory.usable_fraction.value,
            runtime_bytes: hw.memory.runtime_gb.as_ref().map_or(0, |gb| (gb.value * 1e9) as u64),
            launch: LaunchTimes {
                kernel: us(&hw.launch.kernel_us),
                graph: us(&hw.launch.graph_us),
                graph_gap: us(&hw.launch.graph_gap_us),
                eager_gap: hw.launch.eager_gap_us.as_ref().map_or(SimTime::ZERO, us),
                conditional: hw.launch.conditional_us.as_ref().map_or(SimTime::ZERO, us),
                readback: us(&hw.launch.readback_us),
                host_decision: us(&hw.launch.host_decision_us),
                step: us(&hw.launch.step_us),
                recorded: hw.launch.submit == Submit::Recorded,
            },
            host_bytes_per_s: hw.links.host_gb_per_s.value * 1e9,
            host_latency: us(&hw.links.host_latency_us),
            link: (hw.links.host_gb_per_s.value * 1e9, us(&hw.links.host_latency_us)),
            compute_source: kind(&hw.compute.matrix_f16_tflops).join(kind(&hw.compute.units)),
            dram_source: kind(&hw.memory.dram_gb_per_s),
            l2_source: kind(&hw.memory.l2_gb_per_s),
            power_source: kind(&hw.power.pj_per_byte).join(kind(&hw.power.pj_per_flop)),
            corrected: Corrected::new(hw),
            experts: ExpertTimes::new(hw),
            uneven: hw.corrections.as_ref().and_then(|all| all.uneven.as_ref()).map(uneven),
            measured: AdapterPrices::new(hw),
            altered: hw.altered,
            ranks: None,
        })
    }

    /// The same as one of several that compute a model together: times are those of each, energy and power those of all.
    pub fn with_ranks(self, ranks: Option<Arc<Ranks>>) -> Self {
        let Some(ranks) = ranks else { return self };
        assert!(self.ranks.is_none(), "a device belongs to one group");
        let count = f64::from(ranks.together());
        Device {
            static_w: count * self.static_w,
            idle_w: count * self.idle_w,
            most_w: count * self.most_w,
            pj_per_byte: count * self.pj_per_byte,
            pj_per_flop: count * self.pj_per_flop,
            pj_per_widened: count * self.pj_per_widened,
            clocks: self.clocks.map(|clocks| clocks.of_devices(count)),
            ranks: Some(ranks),
            ..self
        }
    }

    /// Devices whose energy and power these are.
    pub fn count(&self) -> u32 {
        self.ranks.as_ref().map_or(1, |ranks| ranks.together())
    }

    /// Picojoules of so many bytes to and from device memory.
    pub(super) fn dynamic_pj_of_bytes(&self, bytes: u64) -> f64 {
        bytes as f64 * self.pj_per_byte
    }

    /// Energy of so many bytes read from device memory or written to it, picojoules.
    pub fn moved_pj(&self, bytes: u64) -> i128 {
        self.dynamic_pj_of_bytes(bytes) as i128
    }

    /// Memory that a serving process can use: this share of what the driver reports, or the profile's.
    pub fn capacity_bytes(&self, utilization: Option<f64>) -> u64 {
        (self.memory_bytes * utilization.unwrap_or(self.usable_fraction)) as u64
    }

    /// Of it, what the process holds beside weights, activations and KV entries.
    pub fn runtime_bytes(&self) -> u64 {
        self.runtime_bytes
    }

    /// How many sequences of a model with so many heads, of queries and of the cache, keep the memory busy; none where nobody measured calls
    /// of uneven contexts.
    pub fn filling(&self, heads: u64, kv_heads: u64) -> Option<Filling> {
        let (alone, beside, _) = self.uneven.filter(|_| heads > 0 && kv_heads > 0)?;
        Some(self.filling_by((alone, beside), heads, kv_heads))
    }

    /// The same, if so many blocks a unit fill the memory, alone and beside rows of prompts.
    pub fn filling_by(&self, (alone, beside): (f64, f64), heads: u64, kv_heads: u64) -> Filling {
        let (units, heads, kv_heads) = (self.units as f64, heads as f64, kv_heads as f64);
        let whole_from = WHOLE * units / kv_heads;
        Filling { alone: alone * units / kv_heads, whole_from, beside: beside * units / heads }
    }

    /// How wrong it is what calls of uneven contexts wait.
    pub(super) fn uneven_error(&self) -> Option<PriceError> {
        self.uneven.map(|(.., error)| error)
    }

    /// What a tile of a kernel occupies: streaming multiprocessors, compute units, cores.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// The power cap.
    pub(crate) fn cap_w(&self) -> Option<f64> {
        self.clocks.and_then(|clocks| clocks.cap_w())
    }

    /// Under a power cap, the clocks that a pass can run at, rising, as shares of the boost clock; else none.
    pub(crate) fn clocks_under_cap(&self) -> Vec<f64> {
        self.clocks.filter(|clocks| clocks.cap_w().is_some()).map_or(Vec::new(), |clocks| clocks.steps())
    }

    /// The same device with every call at this clock, whatever it draws.
    pub(crate) fn at_clock(&self, clock: f64) -> Self {
        Device { clocks: self.clocks.map(|clocks| clocks.at_clock(clock)), ..self.clone() }
    }

    /// What it costs to start things.
    pub fn launch(&self) -> LaunchTimes {
        self.launch
    }

    /// Watts while a kernel runs, before what it does; and while nothing runs.
    pub fn static_and_idle_w(&self) -> (f64, f64) {
        (self.static_w, self.idle_w)
    }

    /// Mean absolute error in percent of the mean power of whole runs on models kept aside; nothing where the power of this device
    /// was not fitted to measured runs.
    pub fn metered_error(&self) -> Option<f64> {
        self.metered_error
    }

    /// Errors in percent of the speed and of the energy a unit of work that another clock than the boost clock gives, where limits can set
    /// one: those that its law has on measured caps and locks of devices (or, in a profile fitted to its own, of workloads) left out. None
    /// without limits.
    pub fn clock_errors(&self) -> Option<(f64, f64)> {
        self.clocks.map(|clocks| clocks.errors)
    }

    /// Whether every kernel runs below the boost clock.
    pub fn is_locked(&self) -> bool {
        self.clocks.is_some_and(|clocks| clocks.highest() < 1.0)
    }

    /// By how many percent the speed under the cap moves where the device really draws `percent` more or less than its profile says, on average
    /// over both: that of a product of many rows for the share of the time that `prompts` take, of one row for the rest. 0 without a cap.
    pub fn cap_error(&self, percent: f64, prompts: f64) -> f64 {
        let Some((clocks, cap)) = self.clocks.and_then(|clocks| Some((clocks, clocks.cap_w()?))) else {
            return 0.0;
        };
        let (_, least) = clocks.lowest();
        let time = |rows: u32, factor: f64| {
            let kernel = Kernel::product(rows, [4096, 14336], Dtype::Bf16, Dtype::Bf16, Density::Dense);
            let clocks = Some(clocks.under((cap * factor).max(least)));
            Device { clocks, ..self.clone() }.price(&kernel).time.ps() as f64
        };
        let moved = |rows: u32| {
            let here = time(rows, 1.0);
            let apart = |factor: f64| (time(rows, factor) / here - 1.0).abs();
            50.0 * (apart(1.0 - percent / 100.0) + apart(1.0 + percent / 100.0))
        };
        prompts * moved(4096) + (1.0 - prompts) * moved(1)
    }

    /// Energy in picojoules (W x ps = pJ): static power while a kernel runs, idle power otherwise, and `dynamic_pj` that the
    /// kernels add.
    pub fn energy_pj(&self, busy_ps: u128, idle_ps: u128, dynamic_pj: i128) -> f64 {
        self.static_w * busy_ps as f64 + self.idle_w * idle_ps as f64 + dynamic_pj as f64
    }

    /// The same of `all_ps` of device time with `busy_ps` of kernels, some of which may lie before it: passes in flight are paid for at their
    /// ends.
    pub fn energy_within_pj(&self, busy_ps: u128, all_ps: u128, dynamic_pj: i128) -> f64 {
        let idle_ps = all_ps as f64 - busy_ps as f64;
        self.static_w * busy_ps as f64 + self.idle_w * idle_ps + dynamic_pj as f64
    }

    /// Mean watts of a pass of this length, in which kernels run for `busy`.
    pub(crate) fn mean_w(&self, length: SimTime, busy: SimTime, dynamic_pj: i64) -> f64 {
        let idle = length.ps().saturating_sub(busy.ps());
        self.energy_pj(busy.ps().into(), idle.into(), dynamic_pj.into()) / length.ps().max(1) as f64
    }

    /// Time of reading `bytes` of device memory at its peak.
    pub fn read(&self, bytes: u64) -> SimTime {
        SimTime::at_rate(bytes, self.dram_bytes_per_s)
    }

    /// Time of a copy of `bytes` to or from the host.
    pub fn host_copy(&self, bytes: u64) -> SimTime {
        self.host_latency + SimTime::at_rate(bytes, self.host_bytes_per_s)
    }

    /// Layers come over a link of these bytes a second and this latency; without this, over that to the host.
    pub fn with_link(self, link: (f64, SimTime)) -> Self {
        Device { link, ..self }
    }

    /// Time on the link of so many bytes, and the picojoules of writing them to device memory.
    pub fn fetch(&self, bytes: u64) -> (SimTime, u64) {
        let (bytes_per_s, latency) = self.link;
        (latency + SimTime::at_rate(bytes, bytes_per_s), (bytes as f64 * self.pj_per_byte) as u64)
    }

    /// Lower bound on the time of this much work: datasheet peaks at the highest clock allowed, no overheads.
    pub fn roofline(&self, flops: u128, bytes: u128, activations: Dtype) -> SimTime {
        let flops_per_s = self.matrix[peak(activations)] * self.clocks.map_or(1.0, |clocks| clocks.highest());
        let seconds = (flops as f64 / flops_per_s).max(bytes as f64 / self.dram_bytes_per_s);
        SimTime::from_ps((seconds * PS_PER_S as f64) as u64)
    }

    /// Least time of a product: its flops at the peak of its formats, or its bytes at that of device memory.
    pub(crate) fn at_peaks(&self, kernel: &Kernel) -> SimTime {
        let work = kernel.work();
        let Kernel::MatMul { inputs, weights, .. } = *kernel else { return SimTime::ZERO };
        let bytes = work.weight_bytes + work.activation_bytes;
        let arithmetic = SimTime::at_rate(work.flops, self.matrix_flops_per_s(inputs, weights));
        arithmetic.max(self.read(bytes))
    }

    /// Peak of products whose operands are kept in these formats: the wider one is computed in.
    pub(super) fn matrix_flops_per_s(&self, inputs: Dtype, weights: Dtype) -> f64 {
        self.matrix[peak(inputs.plain().min(weights.plain()))]
    }

    /// How fast such a product goes at a reached share of the peaks.
    pub(super) fn product_flops_per_s(
        &self,
        inputs: Dtype,
        weights: Dtype,
        density: Density,
        efficiency: f64,
    ) -> f64 {
        self.matrix_flops_per_s(inputs, weights) * efficiency * self.density_speed(density)
    }

    fn density_speed(&self, density: Density) -> f64 {
        match density {
            Density::Dense => 1.0,
            Density::TwoFour => self.two_four_speedup,
            Density::Effective(thousandths) => 1000.0 / f64::from(thousandths.max(1)),
        }
    }

    /// Energy beyond the static power: of bytes; and of the core, for flops and for weights that are widened on their way. A flop costs in
    /// proportion to the width of what is multiplied, 16 bits being the profile's constant: a modelling assumption, as is one constant for
    /// matrix and vector units.
    pub(super) fn dynamic_pj(&self, kernel: &Kernel, flops: u64, bytes: u64) -> (f64, f64) {
        let (width, widened) = match *kernel {
            Kernel::MatMul { inputs, weights, inner, columns, .. } => {
                (width(inputs, weights), widened(inputs, weights, 1, inner, columns))
            }
            Kernel::GroupedMatMul { inputs, weights, groups, inner, columns, .. } => {
                (width(inputs, weights), widened(inputs, weights, groups, inner, columns))
            }
            Kernel::ExpertLayer(shape) => {
                let [up, _, down, _] = shape.parts();
                let of = |part: &Kernel| match *part {
                    Kernel::GroupedMatMul { inputs, weights, groups, inner, columns, .. } => {
                        widened(inputs, weights, groups, inner, columns)
                    }
                    _ => 0.0,
                };
                (width(shape.inputs, shape.weights), of(&up) + of(&down))
            }
            _ => (1.0, 0.0),
        };
        (
            bytes as f64 * self.pj_per_byte,
            flops as f64 * self.pj_per_flop * width + widened * self.pj_per_widened,
        )
    }

    /// Most dynamic energy that a kernel of this time can take: the board holds its limit by lowering its clocks, and times that were
    /// measured have that in them already, unless [`Limits::board`] says that they have not. W x ps = pJ.
    pub(super) fn most_pj(&self, time: SimTime) -> i64 {
        ((self.most_w - self.static_w) * time.ps() as f64) as i64
    }
}

/// Width of what is multiplied, over 16 bits: the wider operand's.
fn width(activations: Dtype, weights: Dtype) -> f64 {
    match activations.plain().min(weights.plain()) {
        Dtype::F32 => 2.0,
        Dtype::F16 | Dtype::Bf16 => 1.0,
        Dtype::Fp8 | Dtype::Int8 => 0.5,
        _ => 0.25,
    }
}

/// Weights that are widened before they are multiplied: those of fewer than 8 bits beside activations of more.
fn widened(activations: Dtype, weights: Dtype, groups: u32, inner: u32, columns: u32) -> f64 {
    let narrow = |dtype: Dtype| matches!(dtype.plain(), Dtype::Int4 | Dtype::Fp4);
    match narrow(weights) && !narrow(activations) {
        true => f64::from(groups) * f64::from(inner) * f64::from(columns),
        false => 0.0,
    }
}

/// Index into the peaks by format.
fn peak(dtype: Dtype) -> usize {
    match dtype.plain() {
        Dtype::F32 => 0,
        Dtype::F16 | Dtype::Bf16 => 1,
        Dtype::Fp8 => 2,
        Dtype::Fp4 => 4,
        _ => 3,
    }
}
