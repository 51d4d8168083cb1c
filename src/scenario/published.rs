//! Published times of a token with and without captured graphs, and what the engines of `engine-profiles/` predict for them.

use super::Scenario;
use super::run::run;
use crate::error::{InputError, Result};
use crate::ron_text;
use crate::sim::Silent;
use serde::Deserialize;

/// The rows, with their sources.
const TABLE: &str = include_str!("../../engine-profiles/published.csv");

/// A row: one model on one device under one software, one sequence at a time.
#[derive(Clone, Debug, Deserialize)]
pub struct PublishedRow {
    /// Its name.
    pub case: String,
    /// Who published it.
    pub source: String,
    /// `fitted`: an engine's constants come from it; `kept`: nothing does.
    #[serde(rename = "use")]
    pub used: String,
    /// The device that was measured, where the profile stands in for it.
    pub stand_in: String,
    /// The profile.
    pub hardware: String,
    model: String,
    shape: String,
    prompt: u32,
    output: u32,
    eager_engine: String,
    graph_engine: String,
    step_us: Option<f64>,
    metric: String,
    /// Milliseconds a token, kernels launched one by one.
    pub eager_ms: Option<f64>,
    /// Milliseconds a token, as captured graphs.
    pub graph_ms: Option<f64>,
    ratio: Option<f64>,
}

/// A row with what is predicted for it.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// The row.
    pub row: PublishedRow,
    /// Milliseconds a token, kernels launched one by one.
    pub eager_ms: f64,
    /// Milliseconds a token, as captured graphs.
    pub graph_ms: f64,
}

impl PublishedRow {
    /// How many times longer a token takes without graphs.
    pub fn ratio(&self) -> f64 {
        let of_times = || Some(self.eager_ms? / self.graph_ms?);
        self.ratio.or_else(of_times).unwrap_or(f64::NAN)
    }

    fn scenario(&self, engine: &str, capture: &str) -> Result<Scenario> {
        let text = format!(
            r#"(title: "{}", model: "{}", hardware: "{}", engine: "{engine}",
            workload: (requests: (count: 1, lengths: (prompt: Fixed({}), output: Fixed({})), arrivals: Closed)),
            serving: (max_batched_tokens: 16384, max_sequences: 1, chunked_prefill: true),
            dispatch: (policy: aligned, capture: {capture}), fidelity: step, seed: 1,
            variants: [(name: "dense", routes: Method(Dense))])"#,
            self.case, self.model, self.hardware, self.prompt, self.output,
        );
        let mut scenario: Scenario = ron_text::parse(&text, "a scenario in RON")?;
        let shape = self.shape.split_whitespace().map(|setting| format!("shape.{setting}"));
        let step = self.step_us.map(|step_us| format!("hardware.launch.step_us={step_us}"));
        scenario.set_all(&shape.chain(step).collect::<Vec<_>>())?;
        Ok(scenario)
    }

    fn ms(&self, engine: &str, capture: &str) -> Result<f64> {
        let (outcome, _) = run(&self.scenario(engine, capture)?, 1, &(), |_, _| Silent)?;
        let summary = &outcome.variants[0].first().summary;
        let seconds = match self.metric.as_str() {
            "tpot" => summary.tpot_s.as_ref().map_or(f64::NAN, |tpot| tpot.mean),
            _ => summary.makespan_s / f64::from(self.output),
        };
        Ok(seconds * 1e3)
    }
}

impl Predicted {
    /// How many times longer a token takes without graphs.
    pub fn ratio(&self) -> f64 {
        self.eager_ms / self.graph_ms
    }

    /// How far the ratio is off, as a share of the measured one.
    pub fn error(&self) -> f64 {
        self.ratio() / self.row.ratio() - 1.0
    }
}

/// All rows, in the order of the table.
///
/// # Errors
/// Those of a run.
pub fn published() -> Result<Vec<Predicted>> {
    let rows = csv::Reader::from_reader(TABLE.as_bytes())
        .into_deserialize()
        .collect::<std::result::Result<Vec<PublishedRow>, csv::Error>>();
    let rows = rows.map_err(|error| InputError::expected("rows of published times").found(error))?;
    let predict = |row: PublishedRow| {
        let eager_ms = row.ms(&row.eager_engine, "[]")?;
        let graph_ms = row.ms(&row.graph_engine, "[1]")?;
        Ok(Predicted { row, eager_ms, graph_ms })
    };
    rows.into_iter().map(predict).collect()
}
