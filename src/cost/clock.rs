//! How a device answers a lower clock: voltage, power and the speed of its memory; and which clock a power cap allows.
//!
//! A clock is written as its share of the boost clock, at which the prices of a profile hold. The energy of switching goes with the square of
//! the voltage; arithmetic and caches go with the clock; device memory hardly does until the clock is low. Formulas and how well they hold:
//! `docs/COST_POWER.md` and `docs/VALIDATION_POWER.md`.

use crate::hw::{Clocks, Hardware, Sourced};
use crate::units::SourceKind;

/// Voltage over clock, flat up to a clock, then rising in proportion to 1 at the boost clock; and what a lower clock does to device memory.
#[derive(Clone, Copy, Debug)]
struct Law {
    /// The lowest clock.
    lowest: f64,
    /// The highest clock that runs at the lowest voltage.
    flat: f64,
    /// The lowest voltage.
    voltage: f64,
    /// Clock at which the core asks for as many bytes as device memory gives.
    knee: f64,
    /// Share of the energy of a byte of device memory that goes with the voltage of the core: caches, crossbar, registers.
    byte_core: f64,
}

/// For profiles without `power.clocks`. All but `lowest` fitted to measured caps and locks by `radialsim fit --caps`, with the errors that
/// `radialsim validate power` prints (docs/VALIDATION_POWER.md, "Power caps and clocks"); `lowest` from 210 of 1,980 MHz on Hopper and 210 of
/// 2,520 on Ada, as `nvidia-smi -q -d SUPPORTED_CLOCKS` lists them.
const LAW: Law = Law { lowest: 0.1, flat: 0.88, voltage: 0.9, knee: 0.5, byte_core: 0.7 };

/// Errors in percent of speed and energy a unit under caps and locks, on devices whose rows the law was not fitted to: the line "all" of
/// `radialsim validate power`.
const LAW_ERRORS: (f64, f64) = (7.5, 7.4);

/// Clocks that are tried for one call under a power cap: this many steps between the lowest and the highest.
const STEPS: u32 = 1 << 10;

/// MHz between the clocks that a pass can run at: NVIDIA's lie that far apart (`nvidia-smi -q -d SUPPORTED_CLOCKS`).
const STEP_MHZ: f64 = 15.0;

/// The clocks that a device chooses among under its limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockRange {
    law: Law,
    /// The highest, which a lock may lower.
    highest: f64,
    /// The one that a whole pass runs at, where it was chosen.
    chosen: Option<f64>,
    /// Of the boost clock, one step.
    step: f64,
    cap_w: Option<f64>,
    idle_w: f64,
    static_w: f64,
    /// Who says so.
    pub(super) source: SourceKind,
    /// Errors in percent of speed and energy a unit on caps and locks that were measured and not fitted.
    pub(super) errors: (f64, f64),
}

/// What a kernel takes at the boost clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unclocked {
    /// Picoseconds.
    pub time: f64,
    /// Picojoules beyond static power.
    pub dynamic_pj: f64,
    /// Of them, for bytes of device memory.
    pub byte_share: f64,
}

/// What it takes at the clock that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clocked {
    pub clock: f64,
    /// Picoseconds.
    pub time: u64,
    /// Picojoules beyond what the static power at the boost clock would take in that time; below zero where a lower clock saves more of it.
    pub dynamic_pj: i64,
}

impl ClockRange {
    /// The clocks of a profile; `lock` as a share of the boost clock.
    pub(super) fn new(hw: &Hardware, lock: Option<f64>, cap_w: Option<f64>) -> Self {
        let boost = hw.compute.boost_clock_mhz.value;
        let (law, source, errors) = match &hw.power.clocks {
            None => (LAW, SourceKind::Transferred, LAW_ERRORS),
            Some(Clocks { lowest_mhz, flat_mhz, flat_voltage, memory_knee, byte_core_share, evidence }) => {
                let or = |number: &Option<Sourced>, general| {
                    number.as_ref().map_or(general, |number| number.value)
                };
                let law = Law {
                    lowest: lowest_mhz.value / boost,
                    flat: flat_mhz.value / boost,
                    voltage: flat_voltage.value,
                    knee: or(memory_knee, LAW.knee),
                    byte_core: or(byte_core_share, LAW.byte_core),
                };
                // Who gives no evidence has measured nothing, so is as wrong as one who borrows.
                let errors = evidence.as_ref();
                let errors = errors.map_or(LAW_ERRORS, |known| (known.speed_error, known.energy_error));
                (law, flat_mhz.source.kind().join(flat_voltage.source.kind()), errors)
            }
        };
        let (idle_w, static_w) = (hw.power.idle_w.value, hw.power.static_w.value);
        let (highest, step) = (lock.unwrap_or(1.0), STEP_MHZ / boost);
        ClockRange { law, highest, chosen: None, step, cap_w, idle_w, static_w, source, errors }
    }

    /// This clock for every call.
    pub(super) fn at_clock(self, clock: f64) -> Self {
        ClockRange { chosen: Some(clock), ..self }
    }

    /// So many devices together, each with the same clock, under a cap each.
    pub(super) fn of_devices(self, count: f64) -> Self {
        let (idle_w, static_w) = (count * self.idle_w, count * self.static_w);
        ClockRange { idle_w, static_w, cap_w: self.cap_w.map(|cap| count * cap), ..self }
    }

    /// The cap.
    pub(super) fn cap_w(&self) -> Option<f64> {
        self.cap_w
    }

    /// The same under another cap.
    pub(super) fn under(self, cap_w: f64) -> Self {
        ClockRange { cap_w: Some(cap_w), ..self }
    }

    /// Time of reading device memory at a clock over that at the boost clock.
    pub(super) fn memory_stretch(&self, clock: f64) -> f64 {
        self.law.memory_stretch(clock)
    }

    /// The clocks that a pass can run at, rising: in steps down from the highest, and the lowest.
    pub(super) fn steps(&self) -> Vec<f64> {
        let lowest = self.law.lowest.min(self.highest);
        let steps = ((self.highest - lowest) / self.step).ceil().min(f64::from(STEPS)) as u32;
        let step = (self.highest - lowest) / f64::from(steps.max(1));
        let below = (1..=steps).rev().map(|index| (self.highest - f64::from(index) * step).max(lowest));
        below.chain([self.highest]).collect()
    }

    /// The lowest clock, and what the device draws there while a kernel runs, before what it does.
    pub(super) fn lowest(&self) -> (f64, f64) {
        (self.law.lowest, self.static_w(self.law.lowest))
    }

    /// The clock that a lock sets, as a share of the boost clock.
    pub(super) fn highest(&self) -> f64 {
        self.highest
    }

    /// The clock that was chosen, or else the highest whose draw is within the cap, or the lowest where none is; `stretch` is the time at a clock over that at the boost
    /// clock. The draw rises with the clock, so that halving finds it.
    pub(super) fn choose(&self, kernel: Unclocked, stretch: impl Fn(f64) -> f64) -> Clocked {
        let at = |clock| self.at(clock, kernel, &stretch);
        if let Some(clock) = self.chosen {
            return at(clock);
        }
        let fastest = at(self.highest);
        let Some(cap) = self.cap_w else { return fastest };
        if fastest.time == 0 && fastest.dynamic_pj > 0 {
            return self.inside_another(cap, kernel);
        }
        let within = |clocked: &Clocked| self.watts(clocked) <= cap;
        if within(&fastest) {
            return fastest;
        }
        let lowest = self.law.lowest.min(self.highest);
        let step = |index: u32| lowest + (self.highest - lowest) * f64::from(index) / f64::from(STEPS);
        let (mut held, mut above) = (0, STEPS);
        while above - held > 1 {
            let middle = (held + above) / 2;
            if within(&at(step(middle))) {
                held = middle;
            } else {
                above = middle;
            }
        }
        at(step(held))
    }

    fn at(&self, clock: f64, kernel: Unclocked, stretch: impl Fn(f64) -> f64) -> Clocked {
        if clock == 1.0 {
            return Clocked { clock, time: kernel.time as u64, dynamic_pj: kernel.dynamic_pj as i64 };
        }
        let time = (kernel.time * stretch(clock)).ceil();
        let core = 1.0 - kernel.byte_share * (1.0 - self.law.byte_core);
        let energy = kernel.dynamic_pj * (1.0 - core * (1.0 - self.law.energy(clock)));
        let saved = (self.static_w - self.static_w(clock)) * time;
        Clocked { clock, time: time as u64, dynamic_pj: (energy - saved).floor() as i64 }
    }

    /// What runs in no time of its own, inside another kernel, lengthens that one by what its energy takes under the cap, at the lowest clock.
    fn inside_another(&self, cap_w: f64, kernel: Unclocked) -> Clocked {
        let (clock, static_w) = self.lowest();
        let energy = self.at(clock, kernel, |_| 1.0).dynamic_pj as f64;
        // A cap a hair above the static power leaves next to nothing; then it is not held.
        let time = (energy / (cap_w - static_w).max(cap_w / 20.0)).ceil();
        let saved = (self.static_w - static_w) * time;
        Clocked { clock, time: time as u64, dynamic_pj: (energy - saved).floor() as i64 }
    }

    fn watts(&self, clocked: &Clocked) -> f64 {
        self.static_w + clocked.dynamic_pj as f64 / clocked.time.max(1) as f64
    }

    /// Static power beyond that of an idle device is leakage and clock trees: it goes with the clock and the square of the voltage.
    fn static_w(&self, clock: f64) -> f64 {
        self.idle_w + (self.static_w - self.idle_w) * clock * self.law.energy(clock)
    }
}

impl Law {
    /// Energy of switching at this clock over that at the boost clock: the square of the voltage.
    fn energy(&self, clock: f64) -> f64 {
        let above = (clock - self.flat).max(0.0);
        let rise = if above > 0.0 { above / (1.0 - self.flat) } else { 0.0 };
        let voltage = self.voltage + (1.0 - self.voltage) * rise;
        voltage * voltage
    }

    /// Time of reading device memory at this clock over that at the boost clock: the power mean of both times with exponent 6, so a knee
    /// between those of a stream, which is sharper, and of decoding, which is softer.
    fn memory_stretch(&self, clock: f64) -> f64 {
        let time = |clock: f64| {
            let core = self.knee / clock;
            let cube = core * core * core;
            libm::pow(1.0 + cube * cube, 1.0 / 6.0)
        };
        time(clock) / time(1.0)
    }
}
