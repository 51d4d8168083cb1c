//! How wrong the times and the energy of a run may be: the errors that kernels had on measured rows kept aside, joined by
//! their shares of the time. The formulas stand in `docs/ERRORS.md`, "Error".

use super::Ledger;
use super::ledger::Doubts;
use crate::cost::{Bound, Device};
use crate::kernel::Class;
use crate::units::SourceKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Errors of a run in percent. What has no error stays out of them, and `covered_share` says how much has one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBar {
    /// Share of the pass time in kernels whose prices have an error.
    pub covered_share: f64,
    /// Share of the pass time in kernels whose prices are extrapolated from measured ones.
    pub extrapolated_share: f64,
    /// Mean errors of the prices, of the source of the fitted tables.
    #[serde(flatten)]
    pub mean: FigureErrors,
    /// Half widths of the nominal 90 % intervals; absent where nothing is covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval90: Option<Ninety>,
    /// What a cap or a lock adds to the mean errors of times: the clock that it sets, and the speed there; absent where it slowed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_percent: Option<f64>,
    /// What each kernel class adds.
    #[serde(serialize_with = "named", deserialize_with = "by_name")]
    pub by_class: [Option<ClassError>; Class::ALL.len()],
}

/// Errors of the figures of a run, in percent; each absent where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FigureErrors {
    /// Of times made of passes, if what is not covered is as wrong as what is; absent where nothing is covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_percent: Option<f64>,
    /// Of the makespan, in which waits for arrivals are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub makespan_percent: Option<f64>,
    /// Of a time with any other mix of the same classes of kernels, such as that of a prompt: the largest error of a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_mix_percent: Option<f64>,
    /// Of the energy; absent, too, where the power of the device was not fitted to measured runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_percent: Option<f64>,
}

/// Half widths of nominal 90 % intervals, in percent: of what any source measures on the device, the spread between sources included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ninety {
    /// Of what any source measures.
    #[serde(flatten)]
    pub any_source: FigureErrors,
    /// Of the pass time as the source of the fitted tables measures.
    pub same_source_time_percent: f64,
}

/// The covered kernels of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassError {
    /// Their mean error in percent, by time.
    pub error_percent: f64,
    /// Half width of their 90 % interval of any source, by time.
    #[serde(default)]
    pub interval_percent: f64,
    /// Their share of the pass time.
    pub share: f64,
}

fn named<S: Serializer>(
    classes: &[Option<ClassError>; Class::ALL.len()],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let known = Class::ALL.iter().zip(classes).filter_map(|((_, name), class)| Some((name, (*class)?)));
    serializer.collect_map(known)
}

fn by_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[Option<ClassError>; Class::ALL.len()], D::Error> {
    let named = std::collections::BTreeMap::<String, ClassError>::deserialize(deserializer)?;
    Ok(Class::ALL.map(|(_, name)| named.get(name).copied()))
}

impl ErrorBar {
    /// Of a run that is over, on the device that it ran on.
    pub fn of(ledger: &Ledger, device: &Device) -> ErrorBar {
        let mut bar = ErrorBar::default();
        let pass_ps = (ledger.places() * ledger.pass_ps) as f64;
        if ledger.pass_ps == 0 {
            return bar;
        }
        bar.extrapolated_share = ledger.by_source[SourceKind::Extrapolated as usize].time_ps as f64 / pass_ps;
        let mut all = Doubts::default();
        for (class, doubts) in bar.by_class.iter_mut().zip(&ledger.doubts) {
            all.absorb(doubts);
            *class = (doubts.time_ps > 0).then(|| ClassError {
                error_percent: doubts.mean_percent(doubts.mean),
                interval_percent: doubts.mean_percent(doubts.any_source),
                share: doubts.time_ps as f64 / pass_ps,
            });
        }
        let clock = clock_errors(ledger, device);
        bar.clock_percent = clock.map(|(time, _)| time);
        if all.time_ps == 0 {
            return bar;
        }
        bar.covered_share = all.time_ps as f64 / pass_ps;
        let worst = |of: fn(&ClassError) -> f64| bar.by_class.iter().flatten().map(of).fold(0.0, f64::max);
        let (mean, any_source) = (worst(|class| class.error_percent), worst(|class| class.interval_percent));
        let figures = Figures { ledger, device, clock: clock.unwrap_or_default() };
        bar.mean = figures.errors(all.mean_percent(all.mean), mean, 1.0);
        let by_clock = NORMAL * figures.clock.0;
        bar.interval90 = Some(Ninety {
            any_source: figures.errors(all.mean_percent(all.any_source), any_source, NORMAL),
            same_source_time_percent: all.mean_percent(all.same_source) + by_clock,
        });
        bar
    }

    /// Half the 90 % interval of the ratio of two times, in percent, if kernels of a class err by the same share in both runs: what the
    /// classes and the clocks add to both intervals, one by one, apart. `of_passes` says what share of each time its passes are.
    pub fn apart(&self, other: &ErrorBar, of_passes: [f64; 2]) -> f64 {
        let [own, others] = of_passes;
        let by_clock = |bar: &ErrorBar| NORMAL * bar.clock_percent.unwrap_or(0.0);
        let clocks = (own * by_clock(self) - others * by_clock(other)).abs();
        clocks
            + self.parts().iter().zip(other.parts()).map(|(a, b)| (own * a - others * b).abs()).sum::<f64>()
    }

    /// Share of the makespan with a pass in flight, as far as its errors tell; 1 where they do not.
    pub(super) fn pass_share(&self) -> f64 {
        match (self.mean.makespan_percent, self.mean.time_percent) {
            (Some(makespan), Some(time)) if time > 0.0 => makespan / time,
            _ => 1.0,
        }
    }

    /// Half width of the 90 % interval of the pass time, in percent.
    fn interval(&self) -> Option<f64> {
        self.interval90?.any_source.time_percent
    }

    /// What each class adds to the interval of the pass time, in percent of it, as if the covered kernels were all there is.
    fn parts(&self) -> [f64; Class::ALL.len()] {
        self.by_class
            .map(|class| class.map_or(0.0, |class| class.interval_percent * class.share / self.covered_share))
    }
}

/// Half a 90 % interval of a normal number about 0 over its mean without sign: 1.645 over the root of 2 / pi. The power model's fit states a mean
/// error alone; that its errors are normal is assumed.
const NORMAL: f64 = 2.062;

/// What the errors of a run's figures are made of.
struct Figures<'a> {
    ledger: &'a Ledger,
    device: &'a Device,
    /// What clocks add to the mean errors of times and of energies, in percent.
    clock: (f64, f64),
}

impl Figures<'_> {
    /// From the error of the kernels and the largest of a class, in percent. `wider` times the mean errors of power and of clocks
    /// are theirs.
    fn errors(&self, kernels: f64, most: f64, wider: f64) -> FigureErrors {
        let Figures { ledger, device, clock: (by_clock, energy_by_clock) } = *self;
        let time_percent = kernels + wider * by_clock;
        let passing = ledger.pass_ps as f64 / ledger.engine_ps() as f64;
        let energy = energy(ledger, device, time_percent, wider);
        FigureErrors {
            time_percent: Some(time_percent),
            makespan_percent: Some(time_percent * passing),
            any_mix_percent: Some(most + wider * by_clock),
            energy_percent: energy.map(|percent| percent + wider * energy_by_clock),
        }
    }
}

/// By how many percent a device draws more or less than a profile says whose constants of power nobody fitted: the last column of
/// `radialsim validate power`, devices left out.
const DRAW_ERROR: f64 = 24.0;

/// What a cap or a lock adds to the errors of times and of energy, in percent: the error of its law, and under a cap that of the draw that
/// sets the clock; by the share of the pass time in kernels that it slowed.
fn clock_errors(ledger: &Ledger, device: &Device) -> Option<(f64, f64)> {
    let slowed = match device.is_locked() {
        true => ledger.busy_ps,
        false => ledger.by_bound[Bound::Power as usize].time_ps,
    };
    let share = slowed as f64 / (ledger.places() * ledger.pass_ps) as f64;
    let (speed, energy) = device.clock_errors().filter(|_| slowed > 0)?;
    let prompts =
        ledger.prefill.time_ps as f64 / (ledger.prefill.time_ps + ledger.decode.time_ps).max(1) as f64;
    let by_draw = device.cap_error(device.metered_error().unwrap_or(DRAW_ERROR), prompts);
    Some((share * (speed + by_draw), share * (energy + by_draw)))
}

/// The power model's own error, and that of the time for which static power is drawn.
fn energy(ledger: &Ledger, device: &Device, time_percent: f64, power: f64) -> Option<f64> {
    let power_percent = power * device.metered_error()?;
    let (static_w, _) = device.static_and_idle_w();
    let idle_ps = ledger.device_ps() - ledger.busy_ps;
    let all = device.energy_pj(ledger.busy_ps, idle_ps, ledger.dynamic_pj);
    let by_time = if all > 0.0 { static_w * ledger.busy_ps as f64 / all } else { 0.0 };
    Some(power_percent + by_time * time_percent)
}

/// What a run saves of the pass time of another on the same device, and how sure that is; in percent of the other's pass time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Saving {
    /// Saved; below zero where the run takes longer.
    pub saved_percent: f64,
    /// Half of its 90 % interval where kernels of a class are wrong by the same share in both runs.
    pub shared_error_percent: f64,
    /// Half the interval where those of one run are too fast and those of the other too slow.
    pub opposed_error_percent: f64,
    /// The smaller covered share of both runs.
    pub covered_share: f64,
}

/// Whether a saving lies beyond its 90 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Less than half of the time of one of the runs has an error.
    Unknown,
    /// It is not.
    No,
    /// If kernels of a class are wrong by the same share in both runs.
    IfShared,
    /// Even if what is too fast in one run is too slow in the other.
    Yes,
}

impl Saving {
    /// Of a run with the pass time `ps` and this error against the `first`; nothing where one of them has no error.
    pub fn of((first_ps, first): (u128, &ErrorBar), (ps, other): (u128, &ErrorBar)) -> Option<Saving> {
        let (first_error, other_error) = (first.interval()?, other.interval()?);
        let ratio = ps as f64 / first_ps as f64;
        Some(Saving {
            saved_percent: 100.0 * (1.0 - ratio),
            shared_error_percent: ratio * first.apart(other, [1.0; 2]),
            opposed_error_percent: ratio * (first_error + other_error),
            covered_share: first.covered_share.min(other.covered_share),
        })
    }

    /// Whether it is more than its error.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(
            self.saved_percent,
            self.shared_error_percent,
            self.opposed_error_percent,
            self.covered_share >= ENOUGH,
        )
    }
}

/// Share of the pass time that must have an error for it to stand for the whole. Assumed: more than what has none.
pub const ENOUGH: f64 = 0.5;

impl Verdict {
    /// Whether the difference is more than its error, at least if kernels of a class are wrong by the same share in both runs.
    pub fn is_sure(self) -> bool {
        matches!(self, Verdict::Yes | Verdict::IfShared)
    }

    /// Whether a difference is more than its error, shared by both runs or opposed; all in percent.
    pub fn of(difference: f64, shared: f64, opposed: f64, is_covered: bool) -> Verdict {
        match difference.abs() {
            _ if !is_covered => Verdict::Unknown,
            difference if difference > opposed => Verdict::Yes,
            difference if difference > shared => Verdict::IfShared,
            _ => Verdict::No,
        }
    }
}
