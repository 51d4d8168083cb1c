//! Curves of times by size, and how far off they are on what they have not seen.

use super::rows::CollectiveSeries;
use crate::calib::{PercentErrors, least_squares, rounded};
use crate::cost::Group;
use crate::error::Result;
use crate::hw::{Collectives, Curve, Fabric, Held, Level, Library, Operation, Source};

/// Knots for each doubling of the size at most; sizes closer together are one.
const KNOTS: f64 = 4.0;

/// A curve with its errors in percent, each on rows that it was not fitted to.
#[derive(Clone, Debug)]
pub struct CurveFit {
    /// The curve, of all rows.
    pub curve: Curve,
    /// Whether it is the newest of its library.
    pub written: bool,
    /// Rows.
    pub rows: usize,
    /// On the sizes of every second doubling, fitted to those of the others, and the other way round; sizes beyond those that are fitted left out.
    pub sizes: Option<PercentErrors>,
    /// On the same rows, by lines between the logarithms of times and sizes.
    pub log_log: Option<f64>,
    /// On the same rows, by a start and a bandwidth that fit the others best.
    pub start_and_bandwidth: Option<f64>,
    /// On the same rows, by the bytes on the wire over the bandwidth of the level alone.
    pub bandwidth_alone: Option<f64>,
    /// Predicted by the curves of other numbers of devices; none where there are none.
    pub others: Option<PercentErrors>,
    /// By what another level would lend.
    pub lent: Option<f64>,
}

/// Fits all series.
pub(super) fn fit(level: &Level, all: &[CollectiveSeries], lender: Option<&Level>) -> Result<Vec<CurveFit>> {
    let mut fits = Vec::new();
    for series in all {
        let call = |other: &&CollectiveSeries| {
            (other.operation, other.library, other.mode) == (series.operation, series.library, series.mode)
        };
        let newest = all.iter().filter(call).map(CollectiveSeries::age).max();
        let written = Some(series.age()) == newest;
        let curves: Vec<Curve> = series
            .by_devices
            .iter()
            .filter(|(_, rows)| knots(rows).len() > 1)
            .map(|(devices, rows)| curve(level, series, *devices, rows, written))
            .collect();
        for (place, own) in curves.iter().enumerate() {
            let rows = &series.by_devices[&own.devices];
            let mut fit = held_sizes(level, own, rows)?;
            let rest: Vec<Curve> = curves
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != place)
                .map(|(_, curve)| curve.clone())
                .collect();
            fit.others = match rest.is_empty() {
                true => None,
                false => PercentErrors::of(priced(&with(level, rest), own, rows)?),
            };
            if let Some(lender) = lender {
                let lent = Level { lender: Some(Box::new(lender.clone())), ..level.clone() };
                fit.lent = PercentErrors::of(priced(&lent, own, rows)?).map(|errors| errors.mean);
            }
            fit.curve = Curve { sizes: fit.sizes.map(held), others: fit.others.map(held), ..own.clone() };
            fits.push(CurveFit { written, ..fit });
        }
    }
    Ok(fits)
}

fn held(errors: PercentErrors) -> Held {
    Held { mean: rounded(errors.mean), interval: rounded(errors.interval) }
}

/// The level with these curves.
fn with(level: &Level, curves: Vec<Curve>) -> Level {
    let gb_per_s = level.gb_per_s.value;
    let source = Source::Fitted("rows that are fitted".into());
    Level {
        collectives: Some(Collectives { gb_per_s, source, curves, exchanges: Vec::new() }),
        ..level.clone()
    }
}

/// Priced and measured microseconds of rows, by the price that a run takes.
fn priced(level: &Level, of: &Curve, rows: &[(u64, f64)]) -> Result<Vec<(f64, f64)>> {
    let fabric = Fabric { name: "fit".into(), title: "fit".into(), levels: vec![level.clone()] };
    let group = Group::new(&fabric, &[of.devices], of.library, of.mode)?;
    Ok(rows.iter().map(|&(bytes, us)| (group.price(of.operation, bytes).time.us(), us)).collect())
}

fn curve(level: &Level, series: &CollectiveSeries, devices: u32, rows: &[(u64, f64)], newest: bool) -> Curve {
    let CollectiveSeries { operation, library, version, mode, .. } = series;
    // Engines' sources say of their newest version where it goes another way. Where TensorRT-LLM does depends on tokens and width, too, and
    // its times hardly jump there; so its curve is one.
    let known = newest && *operation == Operation::AllReduce && *library == Library::Vllm;
    let ways = if known { library.ways(level, devices) } else { Vec::new() };
    Curve {
        operation: *operation,
        library: *library,
        version: version.clone(),
        mode: *mode,
        devices,
        switches: ways.iter().skip(1).map(|&(from, _)| from).collect(),
        knots: knots(rows),
        sizes: None,
        others: None,
    }
}

fn held_sizes(level: &Level, own: &Curve, rows: &[(u64, f64)]) -> Result<CurveFit> {
    let (mut read, mut logs, mut starts, mut wire) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 0..2 {
        // Whole doublings, so that no row is held beside a neighbour that is fitted.
        let doubling = |bytes: u64| u64::from(bytes.ilog2()) % 2;
        let of = |kept: bool| -> Vec<(u64, f64)> {
            rows.iter().filter(|(bytes, _)| (doubling(*bytes) == turn) == kept).copied().collect()
        };
        let (fitted, mut held) = (of(false), of(true));
        let few = knots(&fitted);
        let (Some(first), Some(last)) = (few.first(), few.last()) else { continue };
        if few.len() < 2 {
            continue;
        }
        held.retain(|(bytes, _)| (first.0..=last.0).contains(bytes));
        let part = Curve { knots: few.clone(), ..own.clone() };
        read.extend(priced(&with(level, vec![part]), own, &held)?);
        logs.extend(held.iter().map(|&(bytes, us)| (log_log(&few, bytes), us)));
        let relative = fitted.iter().map(|&(bytes, us)| ([1.0 / us, bytes as f64 / us], 1.0));
        let [start, each] = least_squares(relative, [(0.0, f64::INFINITY); 2]);
        starts.extend(held.iter().map(|&(bytes, us)| (start + each * bytes as f64, us)));
        let share = own.operation.sent_share(own.devices);
        let alone = |bytes: u64| share * bytes as f64 / (1e3 * level.gb_per_s.value);
        wire.extend(held.iter().map(|&(bytes, us)| (alone(bytes), us)));
    }
    let mean = |pairs: Vec<(f64, f64)>| PercentErrors::of(pairs).map(|errors| errors.mean);
    Ok(CurveFit {
        curve: own.clone(),
        written: false,
        rows: rows.len(),
        sizes: PercentErrors::of(read),
        log_log: mean(logs),
        start_and_bandwidth: mean(starts),
        bandwidth_alone: mean(wire),
        others: None,
        lent: None,
    })
}

/// On the line between the logarithms of two knots.
fn log_log(knots: &[(u64, f64)], bytes: u64) -> f64 {
    let after = knots.partition_point(|knot| knot.0 < bytes).clamp(1, knots.len() - 1);
    let (low, high) = (knots[after - 1], knots[after]);
    let log = |bytes: u64| libm::log(bytes as f64);
    let share = (log(bytes) - log(low.0)) / (log(high.0) - log(low.0));
    libm::exp(libm::log(low.1) + share * (libm::log(high.1) - libm::log(low.1)))
}

/// Sizes and times of a curve: of sizes close together the middle, and of times that would fall the median of those that fall (isotonic
/// regression for absolute errors: Robertson and Waltman, Ann. Math. Stat. 39, 1968), so that single outliers do not pull.
fn knots(rows: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let mut bins: Vec<(i64, Vec<(u64, f64)>)> = Vec::new();
    for &(bytes, us) in rows {
        let bin = libm::floor(KNOTS * libm::log2(bytes as f64)) as i64;
        match bins.last_mut() {
            Some((last, rows)) if *last == bin => rows.push((bytes, us)),
            _ => bins.push((bin, vec![(bytes, us)])),
        }
    }
    let sizes: Vec<u64> = bins
        .iter()
        .map(|(_, rows)| {
            let sum: f64 = rows.iter().map(|(bytes, _)| libm::log(*bytes as f64)).sum();
            if rows.len() == 1 { rows[0].0 } else { libm::exp(sum / rows.len() as f64).round() as u64 }
        })
        .collect();
    // Blocks of sizes whose times fall become one time.
    let mut blocks: Vec<(usize, Vec<f64>)> = Vec::new();
    for (_, rows) in bins {
        blocks.push((1, rows.into_iter().map(|(_, us)| us).collect()));
        while let [.., before, last] = blocks.as_slice()
            && median(&before.1) > median(&last.1)
        {
            let (count, times) = blocks.pop().unwrap_or_default();
            if let Some(block) = blocks.last_mut() {
                block.0 += count;
                block.1.extend(times);
            }
        }
    }
    let times = blocks.iter().flat_map(|(count, times)| std::iter::repeat_n(rounded(median(times)), *count));
    sizes.into_iter().zip(times).collect()
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::{knots, median};
    use proptest::prelude::*;

    /// The outlier at 512 costs nothing; two that fall become what lies between them.
    #[test]
    fn one_outlier_moves_no_other_knot_far() {
        let rows = [(256, 3.0), (512, 40.0), (1024, 3.1), (2048, 3.2), (4096, 5.0)];
        assert_eq!(knots(&rows), [(256, 3.0), (512, 3.2), (1024, 3.2), (2048, 3.2), (4096, 5.0)]);
        let falls = [(256, 2.0), (512, 4.0), (1024, 3.0)];
        assert_eq!(knots(&falls), [(256, 2.0), (512, 3.5), (1024, 3.5)]);
    }

    proptest! {
        /// Against a plain search: no other never-falling curve over the same values is nearer in absolute error.
        #[test]
        fn no_curve_that_never_falls_is_nearer(times in prop::collection::vec(1u32..6, 1..6)) {
            let rows: Vec<(u64, f64)> =
                times.iter().enumerate().map(|(place, us)| (1 << (8 + place), f64::from(*us))).collect();
            let error = |curve: &[f64]| -> f64 {
                curve.iter().zip(&rows).map(|(said, (_, was))| (said - was).abs()).sum()
            };
            let fitted: Vec<f64> = knots(&rows).iter().map(|knot| knot.1).collect();
            prop_assert!(fitted.windows(2).all(|pair| pair[0] <= pair[1]));
            let count = rows.len();
            let mut least = f64::INFINITY;
            for code in 0..6usize.pow(count as u32) {
                let other: Vec<f64> = (0..count).map(|at| (code / 6usize.pow(at as u32) % 6) as f64).collect();
                if other.windows(2).all(|pair| pair[0] <= pair[1]) {
                    least = least.min(error(&other));
                }
            }
            prop_assert!(error(&fitted) <= least + 1e-9, "{fitted:?} {} {least}", error(&fitted));
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!((median(&[4.0, 1.0]), median(&[5.0, 1.0, 2.0])), (2.5, 2.0));
    }
}
