//! How wrong the times and the energy of a run may be: the errors that kernels had on measured rows kept aside, joined by
//! their shares of the time. The formulas stand in `docs/METRICS.md`, "Error".

use super::Ledger;
use crate::cost::{Bound, Device};
use crate::kernel::Class;
use crate::units::SourceKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How much wider the error of an extrapolated price is than that of its class. Assumed: beyond the fitted rows a correction knows
/// nothing new, and without it prices of products on H100 are three times as wrong on rows kept aside (`docs/VALIDATION.md`:
/// 11.7 against 3.8 %), others more.
const EXTRAPOLATED: f64 = 3.0;

/// Errors of a run in percent. What has no error stays out of them, and `covered_share` says how much has one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBar {
    /// Share of the pass time in kernels whose prices have an error.
    pub covered_share: f64,
    /// Share of the pass time in kernels whose prices are extrapolated from measured ones.
    pub extrapolated_share: f64,
    /// Of times made of passes, if what is not covered is as wrong as what is; absent where nothing is covered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_percent: Option<f64>,
    /// Of the makespan, in which waits for arrivals are exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub makespan_percent: Option<f64>,
    /// Of a time with any other mix of the same kernels, such as that of a prompt: the largest error of any of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_mix_percent: Option<f64>,
    /// Of the energy; absent, too, where the power of the device was not fitted to measured runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_percent: Option<f64>,
    /// What a cap or a lock adds to the errors of times: the clock that it sets, and the speed there; absent where it slowed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_percent: Option<f64>,
    /// What each kernel class adds.
    #[serde(serialize_with = "named", deserialize_with = "by_name")]
    pub by_class: [Option<ClassError>; Class::ALL.len()],
}

/// The covered kernels of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassError {
    /// Their mean error in percent, by time.
    pub error_percent: f64,
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

/// Error in percent of the price of a kernel of this class with this source, where it is known.
pub fn error_percent(device: &Device, class: Class, source: SourceKind) -> Option<f64> {
    let error = device.fitted_error(class)?;
    match source {
        SourceKind::Measured | SourceKind::Fitted | SourceKind::Transferred => Some(error),
        SourceKind::Extrapolated => Some(EXTRAPOLATED * error),
        SourceKind::Datasheet | SourceKind::Assumed => None,
    }
}

impl ErrorBar {
    /// Of a run that is over, on the device that it ran on.
    pub fn of(ledger: &Ledger, device: &Device) -> ErrorBar {
        let mut bar = ErrorBar::default();
        let pass_ps = ledger.pass_ps as f64;
        if ledger.pass_ps == 0 {
            return bar;
        }
        let mut largest: Option<f64> = None;
        for (&(class, _), tallies) in Class::ALL.iter().zip(&ledger.by_class) {
            let (mut share, mut weighted) = (0.0, 0.0);
            for (&source, tally) in SourceKind::ALL.iter().zip(tallies) {
                let part = tally.time_ps as f64 / pass_ps;
                if source == SourceKind::Extrapolated {
                    bar.extrapolated_share += part;
                }
                let Some(error) = error_percent(device, class, source).filter(|_| part > 0.0) else {
                    continue;
                };
                share += part;
                weighted += part * error;
                largest = Some(largest.map_or(error, |largest| largest.max(error)));
            }
            if share > 0.0 {
                bar.covered_share += share;
                bar.by_class[class as usize] = Some(ClassError { error_percent: weighted / share, share });
            }
        }
        let clock = clock_errors(ledger, device);
        bar.clock_percent = clock.map(|(time, _)| time);
        let by_clock = bar.clock_percent.unwrap_or(0.0);
        bar.any_mix_percent = largest.map(|largest| largest + by_clock);
        bar.time_percent = largest.map(|_| bar.parts().iter().sum::<f64>() + by_clock);
        let makespan_ps = ledger.makespan.ps() as f64;
        bar.makespan_percent = bar.time_percent.map(|error| error * pass_ps / makespan_ps);
        bar.energy_percent =
            energy(ledger, device, bar.time_percent).map(|error| error + clock.map_or(0.0, |clock| clock.1));
        bar
    }

    /// By how many percent the ratio of two times may be wrong if kernels of a class err by the same share in both runs: what the
    /// classes add to both errors, class by class, apart. `of_passes` says what share of each time its passes are.
    pub fn apart(&self, other: &ErrorBar, of_passes: [f64; 2]) -> f64 {
        let [own, others] = of_passes;
        let by_clock = |bar: &ErrorBar| bar.clock_percent.unwrap_or(0.0);
        let clocks = (own * by_clock(self) - others * by_clock(other)).abs();
        clocks
            + self.parts().iter().zip(other.parts()).map(|(a, b)| (own * a - others * b).abs()).sum::<f64>()
    }

    /// Share of the makespan with a pass in flight, as far as its errors tell; 1 where they do not.
    pub(super) fn pass_share(&self) -> f64 {
        match (self.makespan_percent, self.time_percent) {
            (Some(makespan), Some(time)) if time > 0.0 => makespan / time,
            _ => 1.0,
        }
    }

    /// What each class adds to the error of the pass time, in percent of it, as if the covered kernels were all there is.
    fn parts(&self) -> [f64; Class::ALL.len()] {
        self.by_class.map(|class| {
            class
                .map_or(0.0, |ClassError { error_percent, share }| error_percent * share / self.covered_share)
        })
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
    let share = slowed as f64 / ledger.pass_ps as f64;
    let (speed, energy) = device.clock_errors().filter(|_| slowed > 0)?;
    let prompts =
        ledger.prefill.time_ps as f64 / (ledger.prefill.time_ps + ledger.decode.time_ps).max(1) as f64;
    let by_draw = device.cap_error(device.metered_error().unwrap_or(DRAW_ERROR), prompts);
    Some((share * (speed + by_draw), share * (energy + by_draw)))
}

/// The power model's own error, and that of the time for which static power is drawn.
fn energy(ledger: &Ledger, device: &Device, time_percent: Option<f64>) -> Option<f64> {
    let (time_percent, power_percent) = (time_percent?, device.metered_error()?);
    let (static_w, _) = device.static_and_idle_w();
    let idle_ps = u128::from(ledger.makespan.ps()) - ledger.busy_ps;
    let all = device.energy_pj(ledger.busy_ps, idle_ps, ledger.dynamic_pj);
    let by_time = if all > 0.0 { static_w * ledger.busy_ps as f64 / all } else { 0.0 };
    Some(power_percent + by_time * time_percent)
}

/// What a run saves of the pass time of another on the same device, and how sure that is; in percent of the other's pass time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Saving {
    /// Saved; below zero where the run takes longer.
    pub saved_percent: f64,
    /// Its error where kernels of a class are wrong by the same share in both runs.
    pub shared_error_percent: f64,
    /// Its error where those of one run are too fast and those of the other too slow: the most there can be.
    pub opposed_error_percent: f64,
    /// The smaller covered share of both runs.
    pub covered_share: f64,
}

/// Whether a saving is more than its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Less than half of the time of one of the runs has an error.
    Unknown,
    /// It is not.
    No,
    /// If kernels of a class are wrong by the same share in both runs.
    IfShared,
    /// In any case.
    Yes,
}

impl Saving {
    /// Of a run with the pass time `ps` and this error against the `first`; nothing where one of them has no error.
    pub fn of((first_ps, first): (u128, &ErrorBar), (ps, other): (u128, &ErrorBar)) -> Option<Saving> {
        let (first_error, other_error) = (first.time_percent?, other.time_percent?);
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
