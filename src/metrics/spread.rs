//! Distributions, with percentiles as numpy has them.

use serde::{Serialize, Serializer};

/// A distribution over requests or tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; none where there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.sort_by(f64::total_cmp);
        let at = |index: u64| values[index as usize];
        Spread::sorted(values.len() as u64, mean, at)
    }

    /// Of values that each stand so many times.
    pub fn of_counted(mut counted: Vec<(f64, u64)>) -> Option<Self> {
        counted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut count = 0;
        // Behind each value: how many there are up to it.
        let ends: Vec<u64> = counted
            .iter()
            .map(|&(_, times)| {
                count += times;
                count
            })
            .collect();
        let mean = counted.iter().map(|&(value, times)| value * times as f64).sum::<f64>() / count as f64;
        Spread::sorted(count, mean, |index| counted[ends.partition_point(|end| *end <= index)].0)
    }

    /// `at`: the value at a place of the sorted ones.
    fn sorted(count: u64, mean: f64, at: impl Fn(u64) -> f64) -> Option<Self> {
        let last = count.checked_sub(1)?;
        let percentile = |percent: f64| percentile(last, percent, &at);
        Some(Spread {
            mean,
            p50: percentile(50.0),
            p90: percentile(90.0),
            p99: percentile(99.0),
            max: at(last),
        })
    }
}

/// `numpy.percentile` with its default, `linear` (Hyndman and Fan, type 7): with places 0 to `last` of the sorted values, that at
/// h = last p / 100, and between two places on the line between their values.
fn percentile(last: u64, percent: f64, at: &impl Fn(u64) -> f64) -> f64 {
    let place = last as f64 * (percent / 100.0);
    let below = (place.floor() as u64).min(last);
    let (low, high, part) = (at(below), at((below + 1).min(last)), place - below as f64);
    // As numpy rounds: from the nearer end.
    if part < 0.5 { low + (high - low) * part } else { high - (high - low) * (1.0 - part) }
}

/// A distribution of nothing has the same keys, with null for each.
pub(super) fn or_nulls<S: Serializer>(spread: &Option<Spread>, serializer: S) -> Result<S::Ok, S::Error> {
    match spread {
        Some(spread) => spread.serialize(serializer),
        None => serializer.collect_map(["mean", "p50", "p90", "p99", "max"].map(|key| (key, None::<f64>))),
    }
}
