//! What the prices of a run say of a measured cap or lock.

use super::rows::{CapRow, CapSeries, Control};
use crate::cost::{Device, Limits};
use crate::error::Result;
use crate::hw::{Clocks, Hardware, Source, Sourced};
use crate::kernel::Kernel;

/// What makes a device follow its clock; clocks and powers as shares, so that another device can borrow them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Swing {
    /// Idle power over the board's limit.
    pub idle: f64,
    /// Static power over the board's limit; at least `idle`.
    pub statics: f64,
    /// The highest clock at the lowest voltage, over the boost clock.
    pub flat: f64,
    /// That voltage, over that at the boost clock.
    pub voltage: f64,
    /// [`Clocks::memory_knee`].
    pub knee: f64,
    /// [`Clocks::byte_core_share`].
    pub byte_core: f64,
}

/// A row, as it was measured and as it is simulated; all over the row of its workload that draws most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapAnswer {
    /// The row.
    pub point: CapRow,
    /// Measured and simulated speed.
    pub speed: [f64; 2],
    /// Measured and simulated energy of a unit of work.
    pub energy: [f64; 2],
}

/// Static power at most, of what a workload draws: something is left for what it does.
const MOST_STATIC: f64 = 0.8;

/// The lowest clock of a device whose profile does not say: as `cost` has it.
const LOWEST: f64 = 0.1;

impl Swing {
    /// The profile with these numbers.
    pub fn put(&self, hw: &mut Hardware, source: &Source) {
        let of = |value: f64| Sourced { value, source: source.clone() };
        let boost = hw.compute.boost_clock_mhz.value;
        let lowest = hw.power.clocks.as_ref().map_or_else(
            || {
                let words = "a tenth of the boost clock: boards list 210 MHz as their lowest";
                Sourced { value: LOWEST * boost, source: Source::Assumed(words.into()) }
            },
            |clocks| clocks.lowest_mhz.clone(),
        );
        hw.power.clocks = Some(Clocks {
            flat_mhz: of((self.flat * boost).max(lowest.value)),
            lowest_mhz: lowest,
            flat_voltage: of(self.voltage),
            memory_knee: Some(of(self.knee)),
            byte_core_share: Some(of(self.byte_core)),
            evidence: None,
        });
        hw.power.idle_w = of(self.idle * hw.power.limit_w.value);
        hw.power.static_w = of(self.statics.max(self.idle) * hw.power.limit_w.value);
    }
}

/// Time and energy of a kernel under limits, static power included; nothing where the device cannot run so.
fn run(hw: &Hardware, kernel: &Kernel, limits: Limits) -> Option<(f64, f64)> {
    let price = Device::new(hw, limits).ok()?.price(kernel);
    let time = price.time.ps() as f64;
    Some((time, hw.power.static_w.value * time + price.dynamic_pj as f64))
}

/// What a workload of the table draws by the constants of a profile, without limits; watts.
///
/// # Errors
/// None but those of a profile that is none.
pub fn draw(hw: &Hardware, series: &CapSeries) -> Result<f64> {
    let price = Device::new(hw, Limits::default())?.price(&series.kernel);
    Ok(hw.power.static_w.value + price.dynamic_pj as f64 / price.time.ps().max(1) as f64)
}

/// The profile with energies scaled so that the workload draws what its reference row drew.
fn anchored(hw: &Hardware, series: &CapSeries) -> Option<Hardware> {
    let mut hw = hw.clone();
    let watts = series.reference.watts;
    let power = &mut hw.power;
    let held = (MOST_STATIC * watts / power.static_w.value).min(1.0);
    power.static_w.value *= held;
    power.idle_w.value *= held;
    // Whatever the board's limit: the table says what was drawn.
    power.limit_w.value = 1e6;
    let (time, energy) = run(&hw, &series.kernel, Limits::default())?;
    let statics = hw.power.static_w.value;
    let factor = (watts - statics) / (energy / time - statics);
    let power = &mut hw.power;
    let energies =
        [Some(&mut power.pj_per_byte), Some(&mut power.pj_per_flop), power.pj_per_widened.as_mut()];
    energies.into_iter().flatten().for_each(|number| number.value *= factor);
    factor.is_finite().then_some(hw)
}

/// Every row of a workload that the device can run as it was run.
pub fn answers(hw: &Hardware, series: &CapSeries) -> Vec<CapAnswer> {
    let Some(hw) = anchored(hw, series) else { return Vec::new() };
    let Some((time, energy)) = run(&hw, &series.kernel, Limits::default()) else { return Vec::new() };
    let reference = &series.reference;
    let answer = |point: &CapRow| {
        let limits = limits(point, reference, hw.compute.boost_clock_mhz.value);
        let (slower, less) = run(&hw, &series.kernel, limits)?;
        let speed = point.speed / reference.speed;
        let measured = point.watts / reference.watts / speed;
        Some(CapAnswer { point: *point, speed: [speed, time / slower], energy: [measured, less / energy] })
    };
    series.points.iter().filter_map(answer).collect()
}

/// What a row sets, where the reference row runs at the boost clock.
fn limits(point: &CapRow, reference: &CapRow, boost_mhz: f64) -> Limits {
    match (point.control, reference.control) {
        (Control::Cap(cap), _) => Limits { power_w: Some(cap), clock_mhz: None, ..Limits::default() },
        (Control::Lock(clock, cap), Control::Lock(highest, _)) => Limits {
            power_w: cap,
            clock_mhz: Some(boost_mhz * (clock / highest).min(1.0)),
            ..Limits::default()
        },
        (Control::Lock(..), Control::Cap(_)) => Limits::default(),
    }
}
