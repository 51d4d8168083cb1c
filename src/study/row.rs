//! What came out of a point.

use crate::metrics::{ErrorBar, ErrorKind, Estimate, Gain};
use crate::scenario::LEVEL;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Key of the error of a point that failed.
pub const FAILURE: &str = "failure";

/// Key of what is probably a mistake in the setting of a point that ran.
pub(super) const REMARK: &str = "remark";

/// Key of the values of each seed, by metric.
pub(super) const RUNS: &str = "runs";

/// One variant at one setting: the object of `simulate --json`, or the words of its error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row(pub Map<String, Value>);

impl Row {
    /// A row of a point that failed.
    pub fn failed(variant: &str, error: &str) -> Row {
        let cells = [("variant", variant), (FAILURE, error)];
        Row(cells.map(|(key, text)| (key.to_owned(), text.into())).into_iter().collect())
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.0.get(FAILURE)?.as_str()
    }

    /// What is probably a mistake in its setting, if anything is.
    pub fn remark(&self) -> Option<&str> {
        self.0.get(REMARK)?.as_str()
    }

    /// Name of the variant.
    pub fn variant(&self) -> &str {
        self.text("variant")
    }

    /// A text of it; empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// What stands under a key path with dots.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |place, part| place.get(part))
    }

    /// A metric by its key path.
    pub fn number(&self, metric: &str) -> Option<f64> {
        self.get(metric)?.as_f64()
    }

    /// Whether a run has such a metric, be it null because here it does not exist.
    pub fn knows(&self, metric: &str) -> bool {
        let mut place = Some(&self.0).map(|map| (map, metric.split('.')));
        while let Some((map, mut parts)) = place.take() {
            match parts.next().and_then(|part| map.get(part)) {
                Some(Value::Null) => return true,
                Some(Value::Object(inner)) => place = Some((inner, parts)),
                Some(value) => return value.is_number() && parts.next().is_none(),
                None => return false,
            }
        }
        false
    }

    /// Whether the requests in the system still grow: not stable at this rate, or too short a run to tell.
    pub fn grows(&self) -> bool {
        self.get("growth.grows").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether they may grow, though that may be chance: Kendall's S of more than one case in four in random order.
    pub fn may_grow(&self) -> bool {
        let number = |metric| self.number(metric).unwrap_or(0.0);
        self.grows() || (number("growth.kendall_s") >= 9.0 && number("growth.requests") >= 1.0)
    }

    /// How wrong its run may be.
    fn error_bar(&self) -> ErrorBar {
        let bar = self.0.get("error").and_then(|error| ErrorBar::deserialize(error).ok());
        bar.unwrap_or_default()
    }

    /// A value for each seed: those of a metric that the study asks about, else the mean of all.
    fn values(&self, metric: &str) -> Option<Vec<f64>> {
        let runs = self.0.get(RUNS).and_then(|runs| runs.get(metric)).and_then(Value::as_array);
        match runs {
            // What does not exist in one of the runs has no value.
            Some(runs) => runs.iter().map(Value::as_f64).collect(),
            None => Some(vec![self.number(metric)?]),
        }
    }

    /// A metric with its interval.
    pub fn figure(&self, metric: &str) -> Option<Estimate> {
        let figure = Estimate::new(&self.values(metric)?, ErrorKind::of(metric), &self.error_bar(), LEVEL);
        let seeds = figure.seeds.or_else(|| self.number(&format!("confidence.{metric}.half_width")));
        Some(Estimate { seeds, ..figure })
    }

    /// What this row gains over another one of the same setting in a metric.
    pub fn gain(&self, other: &Row, metric: &str, less_is_better: bool) -> Option<Gain> {
        let (values, others) = (self.values(metric)?, other.values(metric)?);
        let (bar, other_bar) = (self.error_bar(), other.error_bar());
        Gain::of((&values, &bar), (&others, &other_bar), ErrorKind::of(metric), less_is_better, LEVEL)
    }

    /// Every number, text and truth with its key path, in order. The values of single seeds and lists stay out.
    pub fn leaves(&self) -> Vec<(String, &Value)> {
        let mut leaves = Vec::new();
        for (key, value) in self.0.iter().filter(|(key, _)| *key != RUNS) {
            flatten(key.clone(), value, &mut leaves);
        }
        leaves
    }
}

fn flatten<'a>(path: String, value: &'a Value, leaves: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| flatten(format!("{path}.{key}"), value, leaves));
        }
        Value::Array(_) | Value::Null => {}
        leaf => leaves.push((path, leaf)),
    }
}
