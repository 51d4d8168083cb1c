//! The swing of devices that leaves the least errors of speed and energy, and those errors on devices left out.

use super::rows::{CapSeries, CapTable};
use super::swing::{CapAnswer, Swing, answers, draw};
use crate::calib::golden;
use crate::error::{InputError, Result};
use crate::hw::{ClockEvidence, Hardware, Source, Sourced};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of the finer search, each along every number in turn.
const ROUNDS: i32 = 2;
/// Rows of a workload that a fit sees at most, evenly spread: more say the same again.
const MOST_ROWS: usize = 8;
/// A coarse grid of numbers, all of which are tried, and the bounds of a finer search: idle and static power, flat clock and its voltage, knee,
/// share of the core. Other devices borrow what the grid says, since a finer search would find the devices that it sees. Idle and static power
/// of boards lie about a tenth and a quarter of the limit; voltages between 0.65 and 1.1 V (`nvidia-smi -q -d VOLTAGE`), so the lowest is
/// hardly below 0.6 of the highest.
const GRID: [(&[f64], f64, f64); 6] = [
    (&[0.05, 0.1], 0.02, 0.3),
    (&[0.15, 0.2, 0.25, 0.3], 0.05, 0.45),
    (&[0.7, 0.76, 0.82, 0.88], 0.4, 0.95),
    (&[0.75, 0.8, 0.85, 0.9], 0.6, 0.95),
    (&[0.4, 0.5, 0.6], 0.1, 0.9),
    (&[0.7], 0.0, 1.0),
];

/// What the source of an energy says that static power gave to it.
const GIVEN_UP: &str =
    "; and what a fitted static power gives up, so that the most that the board draws stays";

/// What was fitted to measured caps and locks.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// The numbers.
    pub swing: Swing,
    /// Energy of a weight that is widened, which makes the draws of narrow products right, picojoules over the limit in watts and over the
    /// bandwidth in GB/s; none where no row says.
    pub widened: Option<f64>,
}

/// A workload of a device, with answers of numbers that were fitted to other devices.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut<'a> {
    /// The workload.
    pub series: &'a CapSeries,
    /// As simulated.
    pub answers: Vec<CapAnswer>,
    /// What it draws by those numbers, over what its reference row drew.
    pub draw: f64,
}

fn of(at: [f64; 6]) -> Swing {
    let [idle, statics, flat, voltage, knee, byte_core] = at;
    Swing { idle, statics: statics.max(idle), flat, voltage, knee, byte_core }
}

/// Thins a workload out.
fn thin(series: &CapSeries) -> CapSeries {
    let step = series.points.len().div_ceil(MOST_ROWS);
    CapSeries { points: series.points.iter().step_by(step).copied().collect(), ..series.clone() }
}

/// The numbers that leave the least errors: every family of devices counts the same, in it every device, in it every workload. `fine`: near the
/// best of the grid, too, for a device of which there are rows.
fn search(all: &[(Hardware, CapSeries)], fine: bool) -> Result<Swing> {
    let source = Source::Assumed("a step of a search".into());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let cost = |at: &[f64; 6]| -> f64 {
        let swing = of(*at);
        let mut devices: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for (hw, series) in all {
            let mut hw = hw.clone();
            swing.put(&mut hw, &source);
            if let Some([speed, energy]) = errors(answers(&hw, series).iter()) {
                devices
                    .entry((series.board.family, series.device.as_str()))
                    .or_default()
                    .push(speed + energy);
            }
        }
        let mut families: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        devices
            .iter()
            .for_each(|((family, _), errors)| families.entry(family).or_default().push(mean(errors)));
        mean(&families.values().map(|devices| mean(devices)).collect::<Vec<_>>())
    };
    let count = GRID.iter().map(|(values, ..)| values.len()).product::<usize>();
    let place = |mut index: usize| {
        GRID.map(|(values, ..)| {
            let value = values[index % values.len()];
            index /= values.len();
            value
        })
    };
    let costs: Vec<f64> = (0..count).into_par_iter().map(|index| cost(&place(index))).collect();
    let least = (0..count).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or_default();
    let (mut at, mut known) = (place(least), costs[least]);
    for round in 0..if fine { ROUNDS } else { 0 } {
        for number in 0..at.len() {
            let (_, low, high) = GRID[number];
            let reach = (high - low) / libm::pow(2.0, f64::from(round + 1));
            let range = ((at[number] - reach).max(low), (at[number] + reach).min(high));
            let with = |value: f64| {
                let mut other = at;
                other[number] = value;
                other
            };
            let best = golden(range, &mut |value| Ok(cost(&with(value))))?;
            let other = with((best * 1e3).round() / 1e3);
            let found = cost(&other);
            if found < known {
                (at, known) = (other, found);
            }
        }
    }
    Ok(of(at))
}

/// What narrow products draw beyond static power and bytes, for a weight: the median over workloads.
fn widened(all: &[(Hardware, CapSeries)], swing: &Swing) -> Result<Option<f64>> {
    use crate::kernel::Kernel::MatMul;
    use crate::units::Dtype;
    let source = Source::Assumed("a step of a search".into());
    let mut found = Vec::new();
    for (hw, series) in all {
        let MatMul { rows, inner, columns, weights: Dtype::Int4, .. } = series.kernel else { continue };
        if rows > 16 {
            continue;
        }
        let mut hw = hw.clone();
        swing.put(&mut hw, &source);
        hw.power.pj_per_widened = None;
        hw.power.limit_w.value = 1e6;
        let limits = crate::cost::Limits::default();
        let time = crate::cost::Device::new(&hw, limits)?.price(&series.kernel).time.ps() as f64;
        let pj =
            (series.reference.watts - draw(&hw, series)?) * time / (f64::from(inner) * f64::from(columns));
        let limit_w = super::boards::board(&series.device)
            .map_or(Ok(f64::NAN), |board| board.hardware().map(|hw| hw.power.limit_w.value))?;
        found.push(pj.max(0.0) * hw.memory.dram_gb_per_s.value / limit_w);
    }
    found.sort_by(f64::total_cmp);
    Ok(found.get(found.len() / 2).copied().filter(|pj| pj.is_finite()))
}

fn with_profiles<'a>(series: impl Iterator<Item = &'a CapSeries>) -> Result<Vec<(Hardware, CapSeries)>> {
    series.map(|series| Ok((series.board.hardware()?, thin(series)))).collect()
}

impl Caps {
    /// Fitted to these workloads.
    fn of<'a>(series: impl Iterator<Item = &'a CapSeries>, fine: bool) -> Result<Caps> {
        let all = with_profiles(series)?;
        let swing = search(&all, fine)?;
        Ok(Caps { swing, widened: widened(&all, &swing)? })
    }

    /// Puts them into a profile. What a device draws with its memory or its arithmetic at the peak stays where it was: what static power gives
    /// up goes to bytes and flops. Idle and static power that were fitted to serving runs stay.
    fn put(&self, hw: &mut Hardware, source: &Source) {
        let (idle_w, before_w) = (hw.power.idle_w.clone(), hw.power.static_w.clone());
        self.swing.put(hw, source);
        if hw.power.metered.is_some() {
            (hw.power.idle_w, hw.power.static_w) = (idle_w, before_w);
            return;
        }
        let free_w = before_w.value - hw.power.static_w.value;
        let product = &hw.kernels.matmul;
        let bytes = hw.memory.dram_gb_per_s.value * product.bytes.value * 1e-3;
        let flops = hw.compute.matrix_f16_tflops.value * product.flops.value;
        for (number, rate) in [(&mut hw.power.pj_per_byte, bytes), (&mut hw.power.pj_per_flop, flops)] {
            let moved = digits((number.value + free_w / rate).max(0.0));
            if (moved / number.value - 1.0).abs() > 1e-3 {
                let words = format!("{}{GIVEN_UP}", number.source.text());
                *number = Sourced { value: moved, source: Source::Assumed(words) };
            }
        }
        hw.power.pj_per_widened = self.widened.map(|share| {
            let value = digits(share * hw.power.limit_w.value / hw.memory.dram_gb_per_s.value);
            Sourced { value, source: source.clone() }
        });
    }
}

/// Three digits, as these numbers are kept in a profile.
fn digits(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// Every workload with the numbers that the other families of devices say; nothing where all are of one family.
///
/// # Errors
/// None but those of profiles that do not load.
pub fn left_out(table: &CapTable) -> Result<Option<Vec<LeftOut<'_>>>> {
    let families: BTreeSet<&str> = table.series.iter().map(|series| series.board.family).collect();
    if families.len() < 2 {
        return Ok(None);
    }
    let source = Source::Fitted("the other devices of the table".into());
    let fitted: Vec<Result<(&str, Caps)>> = families
        .par_iter()
        .map(|&left| {
            Ok((left, Caps::of(table.series.iter().filter(|series| series.board.family != left), false)?))
        })
        .collect();
    let fitted: BTreeMap<&str, Caps> = fitted.into_iter().collect::<Result<_>>()?;
    let one = |series| -> Result<LeftOut<'_>> {
        let series: &CapSeries = series;
        let mut hw = series.board.hardware()?;
        hw.power.metered = None;
        fitted[series.board.family].put(&mut hw, &source);
        Ok(LeftOut {
            series,
            answers: answers(&hw, series),
            draw: draw(&hw, series)? / series.reference.watts,
        })
    };
    table.series.iter().map(one).collect::<Result<_>>().map(Some)
}

/// Mean absolute errors in percent of speed and of energy; none without answers.
pub(super) fn errors<'a>(answers: impl Iterator<Item = &'a CapAnswer>) -> Option<[f64; 2]> {
    let (mut count, mut sums) = (0.0, [0.0; 2]);
    for answer in answers {
        count += 1.0;
        for (sum, [was, said]) in sums.iter_mut().zip([answer.speed, answer.energy]) {
            *sum += 100.0 * (said / was - 1.0).abs();
        }
    }
    (count > 0.0).then(|| sums.map(|sum| sum / count))
}

/// Puts into a profile what measured caps and locks say: those of its own device where the table has enough of them, else those of all
/// devices. Says which.
///
/// # Errors
/// A table of fewer than two workloads of the device, and of fewer than two families of devices.
pub fn fit(hw: &mut Hardware, table: &CapTable) -> Result<String> {
    let own: Vec<&CapSeries> = table
        .series
        .iter()
        .filter(|series| series.board.profile == hw.name && series.board.is_own())
        .collect();
    let rows = |series: &[&CapSeries]| series.iter().map(|series| series.points.len() as u64).sum::<u64>();
    let (who, used, errors) = if own.len() >= 2 {
        let left = |index: usize| -> Result<Vec<CapAnswer>> {
            let others =
                own.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, series)| *series);
            let mut hw = own[index].board.hardware()?;
            Caps::of(others, true)?.put(&mut hw, &Source::Fitted("the other workloads".into()));
            Ok(answers(&hw, own[index]))
        };
        let all: Result<Vec<_>> = (0..own.len()).into_par_iter().map(left).collect();
        (own[0].board.family.to_owned(), own, errors(all?.iter().flatten()))
    } else {
        let Some(left) = left_out(table)? else {
            let wrong = InputError::expected("two workloads of the device, or two families of devices");
            return Err(wrong.found(format!("{} of {}", own.len(), hw.name)).into());
        };
        let families: BTreeSet<&str> = table.series.iter().map(|series| series.board.family).collect();
        let errors = errors(left.iter().flat_map(|left| &left.answers));
        (families.into_iter().collect::<Vec<_>>().join(", "), table.series.iter().collect(), errors)
    };
    let [speed_error, energy_error] =
        errors.unwrap_or([f64::NAN; 2]).map(|error| (error * 10.0).round() / 10.0);
    let is_own = used.iter().all(|series| series.board.is_own() && series.board.profile == hw.name);
    let caps = Caps::of(used.iter().copied(), is_own)?;
    let what = if is_own { "workloads" } else { "devices" };
    let words = format!(
        "`radialsim fit --caps` on {} rows under caps and locks of {who}, table {}; {what} left out: {speed_error} % of the speed, \
         {energy_error} % of joules a unit",
        rows(&used),
        table.sha256.get(..16).unwrap_or_default(),
    );
    // Numbers of other devices are lent, not fitted.
    caps.put(
        hw,
        &if is_own { Source::Fitted(words.clone()) } else { Source::Assumed(format!("lent: {words}")) },
    );
    if let Some(clocks) = &mut hw.power.clocks {
        let (devices, sha256) = (who, table.sha256.clone());
        clocks.evidence =
            Some(ClockEvidence { devices, sha256, rows: rows(&used), speed_error, energy_error });
    }
    let Swing { idle, statics, flat, voltage, knee, byte_core } = caps.swing;
    Ok(format!(
        "{words}\nOf the limit: idle {idle}, static {statics}. Lowest voltage {voltage} up to {flat} of the boost clock, knee of the memory {knee}, \
         share of the core in a byte {byte_core}.",
    ))
}
