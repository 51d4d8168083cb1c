//! Axes: which values which keys take.

use crate::error::{InputError, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;

/// Most values of one axis.
const MOST_VALUES: u32 = 1_000_000;

/// What moves. A key is a path as in `simulate --set`: of the scenario, or of the profile (`hardware.memory.dram_gb_per_s`), or
/// of the model (`shape.layers`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Axis {
    /// These values.
    Values {
        /// The key.
        key: String,
        /// More keys that take the same value.
        #[serde(default)]
        also: Vec<String>,
        /// Name of the column; absent: the key.
        #[serde(default)]
        name: Option<String>,
        /// The values: numbers, texts, or whatever the key takes, as JSON would have it.
        values: Vec<Value>,
        /// What reports call them; absent: as they are.
        #[serde(default)]
        labels: Vec<String>,
    },
    /// Evenly spaced numbers.
    Range {
        /// The key.
        key: String,
        /// More keys that take the same value.
        #[serde(default)]
        also: Vec<String>,
        /// Name of the column; absent: the key.
        #[serde(default)]
        name: Option<String>,
        /// The first number.
        from: f64,
        /// The last number.
        to: f64,
        /// How many there are; absent only in samples, which then take any number between.
        #[serde(default)]
        count: Option<u32>,
        /// Whether they are rounded to whole numbers; equal ones count once.
        #[serde(default)]
        whole: bool,
    },
    /// Numbers of which each is the same multiple of the one before.
    LogRange {
        /// The key.
        key: String,
        /// More keys that take the same value.
        #[serde(default)]
        also: Vec<String>,
        /// Name of the column; absent: the key.
        #[serde(default)]
        name: Option<String>,
        /// The first number, above 0.
        from: f64,
        /// The last number, above 0.
        to: f64,
        /// How many there are; absent only in samples, which then take any number between.
        #[serde(default)]
        count: Option<u32>,
        /// Whether they are rounded to whole numbers; equal ones count once.
        #[serde(default)]
        whole: bool,
    },
    /// These move together: the first value of each, then the second of each, and so on.
    Zip(Vec<Axis>),
    /// All combinations, the last one fastest: for use within the others.
    Product(Vec<Axis>),
    /// Settings drawn independently, evenly from each axis (from its logarithm, for a `LogRange`).
    Random {
        /// How many.
        count: u32,
        /// Seed of the draw.
        seed: u32,
        /// What is drawn from.
        over: Vec<Axis>,
    },
    /// The same with Sobol points, Owen-scrambled by the seed: they fill the space more evenly.
    Sobol {
        /// How many, at most 65536; powers of two are spread best.
        count: u32,
        /// Seed of the scrambling.
        seed: u32,
        /// What is drawn from.
        over: Vec<Axis>,
    },
}

impl Axis {
    /// How many values it lists, those within it included. One of too many values lists none: it is refused for itself.
    pub(super) fn listed(&self) -> u64 {
        match self {
            Axis::Values { values, .. } => values.len() as u64,
            Axis::Range { count, .. } | Axis::LogRange { count, .. } => {
                count.filter(|count| *count <= MOST_VALUES).unwrap_or(0).into()
            }
            Axis::Zip(axes)
            | Axis::Product(axes)
            | Axis::Random { over: axes, .. }
            | Axis::Sobol { over: axes, .. } => axes.iter().map(Axis::listed).sum(),
        }
    }
}

/// What one axis has at one point.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisValue<'a> {
    /// The axis.
    pub leaf: &'a Leaf,
    /// The value.
    pub value: Value,
    /// What reports call it.
    pub label: String,
}

/// An axis that sets keys, as opposed to one that combines others.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Name of the column.
    pub name: String,
    /// The keys that take its value, at least one.
    pub keys: Vec<String>,
    /// What it can be.
    pub spread: LeafRange,
    /// Whether its values are spaced between two, not listed one by one.
    pub spaced: bool,
}

/// What the value of a leaf can be.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafRange {
    /// One of these, each with what reports call it.
    Listed {
        /// The values with their names in reports.
        values: Vec<(Value, String)>,
        /// Whether they were spaced evenly by ratio.
        log: bool,
    },
    /// Any number between two: only in samples.
    Between {
        /// The smallest.
        from: f64,
        /// The largest.
        to: f64,
        /// Whether the logarithm is spread evenly.
        log: bool,
        /// Whether it is rounded.
        whole: bool,
    },
}

impl Leaf {
    /// What `Values`, `Range` and `LogRange` say.
    ///
    /// # Errors
    /// No value, too many, labels that do not match, or bounds that are no numbers.
    pub(super) fn new(axis: &Axis) -> Result<Option<Leaf>> {
        let (key, also, name) = match axis {
            Axis::Values { key, also, name, .. }
            | Axis::Range { key, also, name, .. }
            | Axis::LogRange { key, also, name, .. } => (key, also, name),
            Axis::Zip(_) | Axis::Product(_) | Axis::Random { .. } | Axis::Sobol { .. } => return Ok(None),
        };
        let name = name.clone().unwrap_or_else(|| key.clone());
        let bad = |found: String, expected: &str| {
            InputError::expected(expected).key(format!("axes, {name}")).found(found)
        };
        let spread = match axis {
            Axis::Values { values, labels, .. } => {
                if values.is_empty() || values.len() > MOST_VALUES as usize {
                    return Err(bad(format!("{} values", values.len()), "1 to 1000000 values").into());
                }
                if !labels.is_empty() && labels.len() != values.len() {
                    let found = format!("{} labels for {} values", labels.len(), values.len());
                    return Err(bad(found, "as many labels as values, or none").into());
                }
                let mut seen = HashSet::new();
                if let Some(twice) = values.iter().find(|value| !seen.insert(value.to_string())) {
                    return Err(bad(format!("{twice} twice"), "values that differ").into());
                }
                let label = |(index, value): (usize, &Value)| {
                    (value.clone(), labels.get(index).cloned().unwrap_or_else(|| plain(value)))
                };
                LeafRange::Listed { values: values.iter().enumerate().map(label).collect(), log: false }
            }
            Axis::Range { from, to, count, whole, .. } | Axis::LogRange { from, to, count, whole, .. } => {
                let log = matches!(axis, Axis::LogRange { .. });
                let least = if log { f64::MIN_POSITIVE } else { f64::MIN };
                let fits = |bound: &f64| bound.is_finite() && *bound >= least;
                if !fits(from) || !fits(to) || from == to {
                    let above = if log { " above 0" } else { "" };
                    return Err(bad(
                        format!("{from} to {to}"),
                        &format!("two different finite numbers{above}"),
                    )
                    .into());
                }
                match *count {
                    None => LeafRange::Between { from: *from, to: *to, log, whole: *whole },
                    Some(count @ 2..=MOST_VALUES) => {
                        let at = |index| {
                            number_at(*from, *to, f64::from(index) / f64::from(count - 1), log, *whole)
                        };
                        let mut values: Vec<(Value, String)> =
                            (0..count).map(at).map(|value| (value.clone(), plain(&value))).collect();
                        values.dedup();
                        LeafRange::Listed { values, log }
                    }
                    Some(count) => {
                        return Err(bad(format!("count {count}"), "a count from 2 to 1000000").into());
                    }
                }
            }
            Axis::Zip(_) | Axis::Product(_) | Axis::Random { .. } | Axis::Sobol { .. } => return Ok(None),
        };
        let keys: Vec<String> = std::iter::once(key).chain(also).cloned().collect();
        let spaced = !matches!(axis, Axis::Values { .. });
        Ok(Some(Leaf { name, keys, spread, spaced }))
    }

    /// How many values it lists; none where it can be any number between two.
    pub fn count(&self) -> Option<u64> {
        match &self.spread {
            LeafRange::Listed { values, .. } => Some(values.len() as u64),
            LeafRange::Between { .. } => None,
        }
    }

    /// Its value at this index.
    ///
    /// # Panics
    /// Where it does not list as many.
    pub fn at(&self, index: u64) -> AxisValue<'_> {
        let LeafRange::Listed { values, .. } = &self.spread else { panic!("{} lists no values", self.name) };
        let (value, label) = values[index as usize].clone();
        AxisValue { leaf: self, value, label }
    }

    /// A value that need not be listed; one that is equals it however it is written: 16 is 16.0.
    pub fn with(&self, value: Value) -> AxisValue<'_> {
        let number = value.as_f64();
        let same = |listed: &Value| *listed == value || (number.is_some() && listed.as_f64() == number);
        let listed = match &self.spread {
            LeafRange::Listed { values, .. } => values.iter().find(|(listed, _)| same(listed)),
            LeafRange::Between { .. } => None,
        };
        let (value, label) = listed.cloned().unwrap_or_else(|| (value.clone(), plain(&value)));
        AxisValue { leaf: self, value, label }
    }

    /// The value at `unit`, in [0, 1): evenly of those that it can take.
    pub fn draw(&self, unit: f64) -> AxisValue<'_> {
        match self.spread {
            LeafRange::Listed { ref values, .. } => {
                self.at(((unit * values.len() as f64) as u64).min(values.len() as u64 - 1))
            }
            // Each whole number has the same share, the first and the last one too.
            LeafRange::Between { from, to, log: false, whole: true } => {
                let (low, high) = (from.min(to).round(), from.max(to).round());
                self.with(whole((low + (unit * (high - low + 1.0)).floor()).min(high)))
            }
            LeafRange::Between { from, to, log, whole } => self.with(number_at(from, to, unit, log, whole)),
        }
    }

    /// Whether its values were spaced by ratio.
    pub fn is_log(&self) -> bool {
        matches!(self.spread, LeafRange::Listed { log: true, .. } | LeafRange::Between { log: true, .. })
    }

    /// Whether all that it lists is numbers.
    pub fn is_numeric(&self) -> bool {
        match &self.spread {
            LeafRange::Listed { values, .. } => values.iter().all(|(value, _)| value.is_number()),
            LeafRange::Between { .. } => true,
        }
    }
}

/// A text as it is, a number without a needless `.0`, everything else as JSON.
fn plain(value: &Value) -> String {
    match (value.as_str(), value.as_f64()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(number)) if value.is_f64() => number.to_string(),
        (None, _) => value.to_string(),
    }
}

/// The number this share of the way from `from` to `to`; the ends are exact, what lies between has 12 digits.
pub(super) fn number_at(from: f64, to: f64, share: f64, log: bool, is_whole: bool) -> Value {
    let between = || if log { from * libm::pow(to / from, share) } else { from + (to - from) * share };
    let number = match share {
        0.0 => from,
        1.0 => to,
        _ => format!("{:.11e}", between()).parse().expect("a number that was just written"),
    };
    if is_whole { whole(number.round()) } else { serde_json::json!(number) }
}

/// A whole number, as keys that count take it.
fn whole(number: f64) -> Value {
    if number >= 0.0 { serde_json::json!(number as u64) } else { serde_json::json!(number as i64) }
}
