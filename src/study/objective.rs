//! What is wanted of a point, and what must hold.

use super::row::Row;
use crate::error::{InputError, Result};
use serde::{Deserialize, Serialize};

/// What is wanted: a metric by its key in `simulate --json`, such as `tpot_s.p99`, and which way it should go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objective {
    /// As little as possible.
    Least(String),
    /// As much as possible.
    Most(String),
}

impl Objective {
    /// The key of the metric.
    pub fn metric(&self) -> &str {
        match self {
            Objective::Least(metric) | Objective::Most(metric) => metric,
        }
    }

    /// Whether less of it is better.
    pub fn less_is_better(&self) -> bool {
        matches!(self, Objective::Least(_))
    }

    /// Whether `a` is better than `b`.
    pub fn prefers(&self, a: f64, b: f64) -> bool {
        if self.less_is_better() { a < b } else { a > b }
    }
}

/// The points that no other one beats in one objective without losing in the other, by the first.
pub fn front(points: &[(f64, f64)], x: &Objective, y: &Objective) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    let order = |objective: &Objective, a: f64, b: f64| {
        if objective.less_is_better() { a.total_cmp(&b) } else { b.total_cmp(&a) }
    };
    sorted.sort_by(|a, b| order(x, a.0, b.0).then(order(y, a.1, b.1)));
    let mut front: Vec<(f64, f64)> = Vec::new();
    for point in sorted {
        if front.last().is_none_or(|last| y.prefers(point.1, last.1)) {
            front.push(point);
        }
    }
    front
}

/// What must hold for a point to be of use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Constraint {
    /// The run fits into the memory of the device. A point that does not fails and is of no use, whether this is stated or not.
    FitsInMemory,
    /// This share of the requests met all bounds of the scenario's `slo`.
    SloMet {
        /// The share, in (0, 1].
        share: f64,
    },
    /// A metric is at most this.
    AtMost(String, f64),
    /// A metric is at least this.
    AtLeast(String, f64),
}

/// Metric of [`Constraint::SloMet`].
const ATTAINED: &str = "goodput.attained";

/// Whether something holds, judged by a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// Not even the better end of the interval keeps the bound.
    Broken,
    /// The bound lies within the interval.
    Unsure,
    /// Even the worse end of the interval keeps the bound.
    Holds,
}

impl Constraint {
    /// The metric that it bounds, where it bounds one.
    pub fn metric(&self) -> Option<&str> {
        match self {
            Constraint::FitsInMemory => None,
            Constraint::SloMet { .. } => Some(ATTAINED),
            Constraint::AtMost(metric, _) | Constraint::AtLeast(metric, _) => Some(metric),
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Constraint::FitsInMemory => "fits into the memory of the device".into(),
            Constraint::SloMet { share } => {
                format!("{} % of the requests meet the service level objective", share * 100.0)
            }
            Constraint::AtMost(metric, bound) => format!("{metric} at most {bound}"),
            Constraint::AtLeast(metric, bound) => format!("{metric} at least {bound}"),
        }
    }

    /// Whether the row keeps it: by its mean alone.
    pub fn holds(&self, row: &Row) -> bool {
        self.decide(row, false) == Decision::Holds
    }

    /// Whether the row keeps it: by the confidence interval over its seeds where `by_interval` is set and there are several, else by
    /// its mean. A row that failed keeps nothing.
    pub fn decide(&self, row: &Row, by_interval: bool) -> Decision {
        let (metric, bound, at_most) = match self {
            Constraint::FitsInMemory if row.failure().is_none() => return Decision::Holds,
            Constraint::FitsInMemory => return Decision::Broken,
            Constraint::SloMet { share } => (ATTAINED, *share, false),
            Constraint::AtMost(metric, bound) => (metric.as_str(), *bound, true),
            Constraint::AtLeast(metric, bound) => (metric.as_str(), *bound, false),
        };
        let Some(figure) = row.figure(metric) else { return Decision::Broken };
        let half = figure.seeds.filter(|_| by_interval).unwrap_or(0.0);
        // By how much the bound is kept; a mean on the bound keeps it.
        let slack = if at_most { bound - figure.value } else { figure.value - bound };
        if slack >= half {
            Decision::Holds
        } else if slack < -half {
            Decision::Broken
        } else {
            Decision::Unsure
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let bad = |found: f64, expected: &str| {
            Err(InputError::expected(expected).key("constraints").found(found).into())
        };
        match self {
            Constraint::SloMet { share } if !(*share > 0.0 && *share <= 1.0) => {
                bad(*share, "a share above 0 and at most 1")
            }
            Constraint::AtMost(_, bound) | Constraint::AtLeast(_, bound) if !bound.is_finite() => {
                bad(*bound, "a finite bound")
            }
            _ => Ok(()),
        }
    }
}

/// All constraints together, by the intervals over the seeds.
pub fn decide(constraints: &[Constraint], row: &Row) -> Decision {
    if row.failure().is_some() {
        return Decision::Broken;
    }
    constraints.iter().map(|constraint| constraint.decide(row, true)).min().unwrap_or(Decision::Holds)
}

/// What a device costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePrice {
    /// Its name, as `hardware` names it in the scenario or on the axis, or as the profile does.
    pub hardware: String,
    /// US dollars for an hour of it.
    pub usd_per_hour: f64,
    /// Who says so.
    pub source: String,
}

/// The metric that prices bring: US dollars for a million output tokens.
pub const COST: &str = "usd_per_million_output_tokens";

impl DevicePrice {
    /// What a million output tokens cost at this rate of so many devices: usd_per_hour x devices / 3600 s / (tokens / s) x 10^6.
    pub fn per_million(&self, output_tokens_per_s: f64, devices: u32) -> f64 {
        self.usd_per_hour * f64::from(devices) / 3600.0 / output_tokens_per_s * 1e6
    }

    pub(super) fn check(&self) -> Result<()> {
        let DevicePrice { hardware, usd_per_hour, source } = self;
        let key = format!("prices, {hardware}");
        if !(usd_per_hour.is_finite() && *usd_per_hour >= 0.0) {
            return Err(InputError::expected("a finite price of at least 0")
                .key(key)
                .found(usd_per_hour)
                .into());
        }
        if source.trim().is_empty() {
            return Err(InputError::expected("a source: who says so").key(key).found("none").into());
        }
        Ok(())
    }
}
