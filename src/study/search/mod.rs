//! Questions that need more points than the axes have. A search is a function of the rows that it asks for: asked again after an
//! interruption, it finds those that were computed in the journal and goes on.

mod bisect;
mod break_even;
mod capacity;
mod sensitivity;

use super::axis::{AxisValue, Leaf};
use super::grid::Without;
use super::sweep::Asker;
use super::{Case, Finding, Objective, Row, Study};
use crate::error::{InputError, Result};
use crate::report::quantity;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Search {
    /// Where along an axis a variant starts or stops being better than another one. Between two neighbouring values of the axis of which
    /// one has it better and the other worse, it is narrowed down by halves.
    BreakEven {
        /// Name of the axis.
        axis: String,
        /// The variant, or several.
        variants: Vec<String>,
        /// What it is held against.
        against: String,
        /// In which metric.
        of: Objective,
        /// How narrow: the upper end over the lower one, less 1. Whole numbers end at neighbours.
        #[serde(default = "tolerance")]
        tolerance: f64,
    },
    /// The largest value of an axis (of the rate of requests, above all) at which every constraint holds, for each variant. A value
    /// whose confidence interval over the seeds does not tell runs with twice as many.
    Capacity {
        /// Name of the axis.
        axis: String,
        /// How narrow, as for break-even.
        #[serde(default = "tolerance")]
        tolerance: f64,
        /// Seeds at most; then the mean decides.
        #[serde(default = "most_seeds")]
        most_seeds: u32,
        /// A run that is too short to tell whether the requests in the system grow and grow runs again with twice as many drawn requests,
        /// up to this many times those of the scenario. What still grows then is not stable.
        #[serde(default = "longest")]
        longest: u32,
    },
    /// By how many percent each objective moves with each number, per percent: elasticities, from a step up and a step down.
    Sensitivity {
        /// The step: a number times and divided by 1 + step.
        #[serde(default = "step")]
        step: f64,
        /// The keys; absent: every number of the profile that is above 0.
        #[serde(default)]
        keys: Vec<String>,
        /// Axes that are held at one value; the others take all of theirs.
        #[serde(default)]
        at: BTreeMap<String, Value>,
    },
}

fn tolerance() -> f64 {
    0.02
}

fn most_seeds() -> u32 {
    32
}

fn longest() -> u32 {
    16
}

fn step() -> f64 {
    0.1
}

impl Search {
    /// The axes that it does not move.
    ///
    /// # Errors
    /// An axis that is not there, or has no numbers to move along.
    pub(super) fn settings<'a>(&self, study: &'a Study) -> Result<Without<'a>> {
        match self {
            Search::BreakEven { axis, .. } | Search::Capacity { axis, .. } => {
                let settings = study.grid.without(&[axis])?;
                if !settings.out[0].is_numeric() {
                    return Err(InputError::expected("an axis of numbers")
                        .key("searches, axis")
                        .found(axis)
                        .into());
                }
                Ok(settings)
            }
            Search::Sensitivity { at, .. } => {
                study.grid.without(&at.keys().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }

    /// The metric that it asks about beyond the objectives and constraints.
    pub(super) fn metric(&self) -> Option<&str> {
        match self {
            Search::BreakEven { of, .. } => Some(of.metric()),
            Search::Capacity { .. } | Search::Sensitivity { .. } => None,
        }
    }

    /// What it finds at one setting.
    ///
    /// # Errors
    /// What ends the study.
    pub(super) fn answers(&self, study: &Study, at: &[AxisValue], asker: &dyn Asker) -> Result<Vec<Finding>> {
        let settings = self.settings(study)?;
        let setting = Setting { study, at, asker };
        match self {
            Search::BreakEven { variants, against, of, tolerance, .. } => {
                break_even::find(&setting, settings.out[0], variants, against, of, *tolerance)
            }
            Search::Capacity { tolerance, most_seeds, longest, .. } => {
                let effort = capacity::Effort { most_seeds: *most_seeds, longest: *longest };
                capacity::find(&setting, settings.out[0], *tolerance, effort)
            }
            Search::Sensitivity { step, keys, at } => {
                let held = settings.out.iter().map(|leaf| leaf.with(at[&leaf.name].clone()));
                sensitivity::find(&setting, &held.collect::<Vec<_>>(), *step, keys)
            }
        }
    }

    /// Refuses what cannot be.
    pub(super) fn check(&self, study: &Study) -> Result<()> {
        let bad = |key: &str, found: String, expected: &str| -> Result<()> {
            Err(InputError::expected(expected).key(format!("searches, {key}")).found(found).into())
        };
        let variant = |name: &str| {
            let names: Vec<&str> = study.base.variants.iter().map(|variant| variant.name.as_str()).collect();
            if names.contains(&name) {
                return Ok(());
            }
            bad("variant", name.to_owned(), &format!("one of {}", names.join(", ")))
        };
        match self {
            Search::BreakEven { tolerance, .. } | Search::Capacity { tolerance, .. }
                if !(1e-6..=10.0).contains(tolerance) =>
            {
                bad("tolerance", tolerance.to_string(), "a number from 1e-6 to 10")
            }
            Search::Sensitivity { step, .. } if !(1e-4..=10.0).contains(step) => {
                bad("step", step.to_string(), "a number from 1e-4 to 10")
            }
            Search::Capacity { most_seeds, .. } if !(1..=1000).contains(most_seeds) => {
                bad("most_seeds", most_seeds.to_string(), "1 to 1000 seeds")
            }
            Search::Capacity { longest, .. } if !(1..=1024).contains(longest) => {
                bad("longest", longest.to_string(), "1 to 1024 times the requests of the scenario")
            }
            Search::Capacity { .. } if study.spec.constraints.is_empty() => {
                bad("Capacity", "no constraints".into(), "`constraints` that must hold")
            }
            Search::BreakEven { variants, against, .. } => {
                variant(against)?;
                variants.iter().try_for_each(|name| variant(name))
            }
            _ => Ok(()),
        }?;
        self.settings(study).map(drop)
    }
}

/// Where a search is: a study, the choices of the axes that it does not move, and who answers.
struct Setting<'a> {
    study: &'a Study,
    at: &'a [AxisValue<'a>],
    asker: &'a dyn Asker,
}

impl Setting<'_> {
    /// The case with a value of the axis that moves: keys in the order of the axes, so that a point of the grid is found again.
    fn case(&self, moved: &[AxisValue]) -> Case {
        let all = self.at.iter().chain(moved);
        let of = |leaf: &&Leaf| all.clone().find(|choice| choice.leaf.name == leaf.name).cloned();
        Case::of(&self.study.grid.leaves().iter().filter_map(of).collect::<Vec<_>>())
    }

    /// The row of a variant.
    fn row(&self, case: &Case, variant: usize) -> Result<Row> {
        let rows = self.asker.ask(case)?;
        let place = if case.variant.is_some() { 0 } else { variant };
        rows.into_iter().nth(place).ok_or_else(|| {
            InputError::expected("a row for each variant").key("journal").found("fewer").into()
        })
    }

    /// The axes that are held, in words.
    fn words(&self) -> String {
        let words = |AxisValue { leaf, label, .. }: &AxisValue| format!("{} = {label}", leaf.name);
        self.at.iter().map(words).collect::<Vec<_>>().join(", ")
    }
}

/// The values that a leaf lists, ascending.
fn ascending(leaf: &Leaf) -> Vec<(f64, Value)> {
    let listed = (0..leaf.count().unwrap_or(0)).map(|index| leaf.at(index).value);
    let mut values: Vec<(f64, Value)> = listed.filter_map(|value| Some((value.as_f64()?, value))).collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    values
}

/// A value in a sentence: a whole number as it is, another with four digits.
fn shown(value: &Value) -> String {
    let number = || value.as_f64().map_or_else(|| value.to_string(), quantity::number);
    value.as_i64().map_or_else(number, |whole| whole.to_string())
}
