//! Reads a study and checks all that can be checked before anything runs.

use super::{Case, Grid, Plot, Spec, Study, VERSION};
use crate::error::{Error, InputError, Result, hint};
use crate::ron_text;
use crate::scenario::{Scenario, digest};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;

/// Larger study files are refused.
const MOST_BYTES: u64 = 1 << 20;

impl Study {
    /// Reads a study file and the scenario that it names.
    ///
    /// # Errors
    /// Whatever is wrong with either, with file, line and key; a key that the scenario does not have.
    pub fn load(path: &Path) -> Result<Study> {
        let text = ron_text::read(path, "a study", MOST_BYTES)?;
        let spec: Spec = ron_text::parse(&text, "a study in RON").map_err(|error| error.file(path))?;
        let in_study = |error: Error| match error {
            Error::Input(error) if error.file.is_none() => {
                let line = error.key.as_deref().and_then(|key| {
                    let first = key.split(", ").next().unwrap_or_default();
                    ron_text::line_of(&text, key).or_else(|| ron_text::line_of(&text, first))
                });
                Error::from(InputError { line, ..error.file(path) })
            }
            other => other,
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let scenario = folder.join(&spec.scenario);
        let scenario_text = ron_text::read(&scenario, "a scenario", MOST_BYTES)?;
        let mut base = Scenario::load(&scenario, &[])?;
        let set: Vec<(&str, &Value)> = spec.set.iter().map(|(key, value)| (key.as_str(), value)).collect();
        base = base.with_values(&set).map_err(in_study)?;
        if let Some(seeds) = spec.seeds {
            base = base.with_values(&[("seeds", &json!(seeds))]).map_err(in_study)?;
        }
        let grid = Grid::new(&spec.axes).map_err(in_study)?;
        let mut study = Study { spec, base, grid, path: path.to_owned(), digest: String::new() };
        study.check().map_err(in_study)?;
        study.digest = study.digest_of(&scenario_text);
        Ok(study)
    }

    /// A hash of all that the rows of a case depend on beside its settings and the files that it reads.
    fn digest_of(&self, scenario: &str) -> String {
        let Spec { set, seeds, objectives, prices, .. } = &self.spec;
        digest(
            json!([VERSION, scenario, set, seeds, objectives, prices, self.metrics()]).to_string().as_bytes(),
        )
    }

    /// The point of the closer look: the first one at which every axis that `detail` names has that value. None where there is none among
    /// the first hundred thousand.
    pub(super) fn detail(&self) -> Option<u64> {
        let fits = |index: &u64| {
            let choices = self.grid.at(*index);
            self.spec.detail.iter().all(|(name, value)| {
                choices.iter().filter(|choice| choice.leaf.name == *name).any(|choice| {
                    let meant = choice.leaf.with(value.clone()).value;
                    choice.value == meant || value.as_str() == Some(&choice.label)
                })
            })
        };
        (0..self.grid.count().min(100_000)).find(fits)
    }

    fn check(&self) -> Result<()> {
        let bad = |key: &str, found: &str, expected: &str| {
            Err(InputError::expected(expected).key(key).found(found).into())
        };
        let spec = &self.spec;
        if spec.objectives.is_empty() {
            return bad("objectives", "none", "at least one objective");
        }
        spec.constraints.iter().try_for_each(|constraint| constraint.check())?;
        spec.prices.iter().try_for_each(|price| price.check())?;
        spec.searches.iter().try_for_each(|search| search.check(self))?;
        self.check_worth()?;
        let mut names = HashSet::new();
        if let Some(twice) = self.base.variants.iter().find(|variant| !names.insert(&variant.name)) {
            return bad("variants, name", &twice.name, "names that differ: rows are known by them");
        }
        let leaves = self.grid.leaves();
        let axis = |key: &str, name: &str| {
            if leaves.iter().any(|leaf| leaf.name == name) {
                return Ok(());
            }
            let names: Vec<&str> = leaves.iter().map(|leaf| leaf.name.as_str()).collect();
            let near = hint(name, names.iter().copied());
            bad(key, name, &format!("the name of an axis: one of {}{near}", names.join(", ")))
        };
        const TAKEN: [&str; 7] = ["point", "source", "set", "variant", "failure", "feasible", "version"];
        if let Some(leaf) = leaves
            .iter()
            .find(|leaf| TAKEN.contains(&leaf.name.as_str()) || leaf.name.starts_with("digest_of."))
        {
            return bad("axes, name", &leaf.name, "a name that no column of the tables has");
        }
        for name in spec.detail.keys() {
            axis("detail", name)?;
        }
        if self.detail().is_none() {
            return bad("detail", &json!(spec.detail).to_string(), "values that a point of the axes has");
        }
        for plot in &spec.plots {
            match plot {
                Plot::Gain { of, .. } if !spec.objectives.contains(of) => {
                    return bad("plots, of", of.metric(), "one of the objectives, as it stands there");
                }
                Plot::Lines { x, .. } | Plot::Gain { x, .. } => axis("plots, x", x)?,
                Plot::Pareto { by, .. } if by == "variant" => {}
                Plot::Pareto { by, .. } => axis("plots, by", by)?,
            }
        }
        // A key that no scenario has would make every point fail; better said now. Values may be wrong at single points.
        let mut scenario = self.base.clone();
        for (key, value) in Case::of(&self.grid.at(0)).settings {
            scenario.has(&key, &value)?;
            // The next key may stand within this value.
            let _ = scenario.set_values(&[(&key, &value)]);
        }
        Ok(())
    }
}
