//! One setting of the axes: what is asked of the simulator at once.

use super::guard::guarded;
use super::objective::{COST, Objective};
use super::row::{REMARK, RUNS, Row};
use super::{AxisValue, Study};
use crate::error::{Error, InputError, Result, hint};
use crate::report::json;
use crate::scenario::{self, Inputs, Note, Outcome, ReadInput, Scenario};
use crate::sim::{Setup, Silent};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Keys with their values, and which variants run: all, or one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// Keys of the scenario with their values, in the order in which they are set.
    pub settings: Vec<(String, Value)>,
    /// The place of the only variant that runs; none: all run.
    pub variant: Option<usize>,
}

/// What a case is known by.
pub type Id = [u8; 16];

/// What a case came to.
#[derive(Debug)]
pub struct Ran {
    /// A row for each variant, in their order.
    pub rows: Vec<Row>,
    /// What was read for it.
    pub inputs: Vec<ReadInput>,
    /// Whether a row failed for a file that is missing or broken: when that is mended, it will not.
    pub again: bool,
}

impl Case {
    /// The case of these choices, with all variants.
    pub fn of(choices: &[AxisValue]) -> Case {
        let settings = choices.iter().flat_map(|AxisValue { leaf, value, .. }| {
            leaf.keys.iter().map(move |key| (key.clone(), value.clone()))
        });
        Case { settings: settings.collect(), variant: None }
    }

    /// For each axis what reports call its value here, and the number where it is one.
    pub fn labels(&self, study: &Study) -> Vec<(String, Option<f64>)> {
        let label = |leaf: &super::Leaf| {
            let set = self.settings.iter().find(|(key, _)| *key == leaf.keys[0]);
            let choice = leaf.with(set.map_or(Value::Null, |(_, value)| value.clone()));
            (choice.label, choice.value.as_f64())
        };
        study.grid.leaves().into_iter().map(label).collect()
    }

    /// The same with one key more, or with another value of it.
    pub fn with(mut self, key: &str, value: Value) -> Case {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value));
        self
    }

    /// The value that it sets a key to.
    pub fn setting(&self, key: &str) -> Option<&Value> {
        self.settings.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The same with one variant alone.
    pub fn only(self, variant: usize) -> Case {
        Case { variant: Some(variant), ..self }
    }

    /// The first 16 bytes of SHA-256 over the settings and the variant as JSON.
    pub fn id(&self) -> Id {
        let text = json!([self.settings, self.variant]).to_string();
        let hash = Sha256::digest(text.as_bytes());
        std::array::from_fn(|index| hash[index])
    }

    /// The scenario with these settings.
    ///
    /// # Errors
    /// Settings that the scenario cannot have.
    pub fn scenario(&self, study: &Study) -> Result<Scenario> {
        let settings: Vec<(&str, &Value)> =
            self.settings.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let mut scenario = study.base.with_values(&settings)?;
        if let Some(place) = self.variant {
            scenario.variants = vec![scenario.variants.swap_remove(place)];
        }
        Ok(scenario)
    }

    /// Runs it on this thread. Whatever fails becomes the text of its rows: a setting that cannot be, a file that is missing or
    /// broken, a defect of the program. Where one variant fails, the others are run alone.
    ///
    /// # Errors
    /// A metric of the study that its rows do not have.
    pub fn run(&self, study: &Study, inputs: &Inputs) -> Result<Ran> {
        let scenario = match guarded(|| self.scenario(study).map_err(|error| error.to_string())) {
            Ok(Ok(scenario)) => scenario,
            Ok(Err(said)) | Err(said) => {
                let rows = failed(&study.base, self.variant, &said);
                return Ok(Ran { rows, inputs: Vec::new(), again: false });
            }
        };
        let mut again = false;
        let mut settle = |of: &Scenario, ran: std::result::Result<Vec<Row>, Failed>| match ran {
            Ok(rows) => Ok(rows),
            Err(Failed::Study(error)) => Err(error),
            Err(Failed::Point { said, of_file }) => {
                again |= of_file;
                Ok(failed(of, None, &said))
            }
        };
        let rows = match run(study, &scenario, inputs) {
            Err(Failed::Point { .. }) if scenario.variants.len() > 1 => {
                let alone = |variant: &scenario::Variant| {
                    let alone = Scenario { variants: vec![variant.clone()], ..scenario.clone() };
                    settle(&alone, run(study, &alone, inputs))
                };
                scenario.variants.iter().map(alone).collect::<Result<Vec<_>>>()?.concat()
            }
            ran => settle(&scenario, ran)?,
        };
        Ok(Ran { rows, inputs: scenario.used(inputs), again })
    }
}

/// What went wrong: at a point, which is a row with its error, or with the study, which ends it.
enum Failed {
    Point { said: String, of_file: bool },
    Study(Error),
}

fn failed(scenario: &Scenario, only: Option<usize>, said: &str) -> Vec<Row> {
    let rows =
        scenario.variants.iter().enumerate().filter(|(place, _)| only.is_none_or(|only| only == *place));
    rows.map(|(_, variant)| Row::failed(&variant.name, said)).collect()
}

fn run(study: &Study, scenario: &Scenario, inputs: &Inputs) -> std::result::Result<Vec<Row>, Failed> {
    let work = || {
        let watch = |_: usize, _: &Setup| Silent;
        let (outcome, _) = scenario::run_with(inputs, scenario, 1, &(), watch).map_err(|error| {
            let of_file = match &error {
                Error::Input(input) => input.file.is_some(),
                _ => true,
            };
            Failed::Point { said: error.to_string(), of_file }
        })?;
        rows(study, scenario, &outcome).map_err(Failed::Study)
    };
    guarded(work).unwrap_or_else(|said| Err(Failed::Point { said, of_file: false }))
}

/// The rows of an outcome, with what the study adds to the numbers of the simulator.
fn rows(study: &Study, scenario: &Scenario, outcome: &Outcome) -> Result<Vec<Row>> {
    let metrics = study.metrics();
    // Who spaces values from a small one to a large one means both.
    let spaced =
        |note: &&Note| study.grid.leaves().iter().any(|leaf| leaf.spaced && leaf.keys.contains(&note.key));
    let doubts = outcome.doubts().filter(|note| !spaced(note));
    let doubts = doubts.map(|note| format!("{} = {} is {}", note.key, note.value, note.why));
    let remark = doubts.collect::<Vec<_>>().join("; ");
    let objects = json::variants(outcome).into_iter().zip(&outcome.variants);
    let row = |(mut object, variant): (Map<String, Value>, &scenario::VariantOutcome)| {
        object.shift_remove("scenario");
        if let Some(name) = object.shift_remove("name") {
            object.shift_insert(0, "variant".into(), name);
        }
        // Those that the study asks about come back below; the others follow from the errors and confidences beside them.
        object.shift_remove("interval");
        let names = [scenario.hardware.as_str(), &variant.hardware];
        let price = study.spec.prices.iter().find(|price| names.contains(&price.hardware.as_str()));
        let devices = variant.first().summary.devices;
        let per_million = |rate: Option<&Value>| Some(price?.per_million(rate?.as_f64()?, devices));
        if let Some(cost) = per_million(object.get("output_tokens_per_s")) {
            object.insert(COST.into(), json!(cost));
        }
        let grows = variant.grows().then(|| format!("not stable at this rate: {}", scenario::GROWS));
        let remarks = [remark.clone()].into_iter().chain(grows).filter(|remark| !remark.is_empty());
        let remarks = remarks.collect::<Vec<_>>().join("; ");
        if !remarks.is_empty() {
            object.insert(REMARK.into(), remarks.into());
        }
        if variant.runs.len() > 1 {
            let runs: Vec<Value> = variant.runs.iter().map(json::run).collect();
            let value = |metric: &str, run: &Value| match metric {
                COST => per_million(run.get("output_tokens_per_s")),
                metric => run.pointer(&format!("/{}", metric.replace('.', "/")))?.as_f64(),
            };
            let of_runs = metrics.iter().map(|metric| {
                let values: Vec<Option<f64>> = runs.iter().map(|run| value(metric, run)).collect();
                (metric.clone(), json!(values))
            });
            object.insert(RUNS.into(), Value::Object(of_runs.collect()));
        }
        Row(object)
    };
    let mut rows: Vec<Row> = objects.map(row).collect();
    for metric in &metrics {
        if let Some(row) = rows.iter().find(|row| !row.knows(metric)) {
            return Err(unknown(metric, row).in_file(&study.path));
        }
    }
    for row in &mut rows {
        let mut intervals = json!({});
        for metric in &metrics {
            let figure = row.figure(metric).filter(|figure| figure.seeds.is_some() || figure.model.is_some());
            if let Some(figure) = figure {
                intervals[metric] = json!(figure.ends());
            }
        }
        row.0.insert("interval".into(), intervals);
        let known = |metric: &String| Some((metric.clone(), json!(row.figure(metric)?.is_known())));
        let known: Map<String, Value> = metrics.iter().filter_map(known).collect();
        row.0.insert("error_known".into(), known.into());
    }
    if let Some(leaf) = study.grid.leaves().into_iter().find(|leaf| rows[0].number(&leaf.name).is_some()) {
        let expected = "a `name` that is not that of a metric";
        let error = InputError::expected(expected).key(format!("axes, {}", leaf.name)).found(&leaf.name);
        return Err(error.file(&study.path).into());
    }
    for objective in &study.spec.objectives {
        let (metric, less) = (objective.metric(), objective.less_is_better());
        let gains: Vec<Value> = rows
            .iter()
            .map(|row| row.gain(&rows[0], metric, less).map_or(Value::Null, |gain| json!(gain)))
            .collect();
        for (row, gain) in rows.iter_mut().zip(gains).skip(1) {
            let place = row.0.entry("gain").or_insert_with(|| json!({}));
            place[metric] = gain;
        }
    }
    Ok(rows)
}

/// A metric that the study names and the simulator does not.
fn unknown(metric: &str, row: &Row) -> Error {
    let expected = if metric == COST {
        format!("a price of {} under `prices`", row.text("hardware"))
    } else if metric.starts_with("goodput") {
        "a bound under `slo` in the scenario, without which there is no goodput".to_owned()
    } else {
        let first = |(path, value): (String, &Value)| value.is_number().then_some(path);
        let known: Vec<String> = row.leaves().into_iter().filter_map(first).collect();
        format!("one of {}{}", known.join(", "), hint(metric, known.iter().map(String::as_str)))
    };
    InputError::expected(expected).key("metric").found(metric).into()
}

impl Study {
    /// The metrics that it asks about, each once: of objectives, constraints and searches. Rows keep their values of each seed.
    pub fn metrics(&self) -> Vec<String> {
        let objectives = self.spec.objectives.iter().map(Objective::metric);
        let constraints = self.spec.constraints.iter().filter_map(|constraint| constraint.metric());
        let searches = self.spec.searches.iter().filter_map(|search| search.metric());
        once(objectives.chain(constraints).chain(searches))
    }

    /// Those, and what the pictures show.
    pub fn shown(&self) -> Vec<String> {
        let metrics = self.metrics();
        let plots = self.spec.plots.iter().flat_map(super::Plot::metrics);
        once(metrics.iter().map(String::as_str).chain(plots))
    }
}

fn once<'a>(all: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut metrics: Vec<String> = Vec::new();
    for metric in all {
        if !metrics.iter().any(|known| known == metric) {
            metrics.push(metric.to_owned());
        }
    }
    metrics
}

impl super::Plot {
    fn metrics(&self) -> Vec<&str> {
        match self {
            super::Plot::Lines { y, .. } => vec![y],
            super::Plot::Gain { of, .. } => vec![of.metric()],
            super::Plot::Pareto { x, y, .. } => vec![x.metric(), y.metric()],
        }
    }
}
