//! `simulate`, and what comes out of it.

use crate::error::raised;
use crate::scenario::read;
use crate::wait::waiting;
use pyo3::prelude::*;
use radialsim::error::Error;
use radialsim::report::answer::Answer;
use radialsim::report::brief::Brief;
use radialsim::report::timeline::{self, Timeline};
use radialsim::report::{Staged, html, json, table};
use radialsim::scenario::{self, Scenario, VariantOutcome};
use radialsim::sim::{Fidelity, Silent};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

/// As many threads as asked for; absent, as many as the machine has.
pub fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from).max(1)
}

/// What came out of a scenario, with the scenario.
#[pyclass(frozen, module = "radialsim._core")]
pub struct Outcome {
    scenario: Arc<Scenario>,
    threads: usize,
    outcome: scenario::Outcome,
}

/// Runs a scenario: a `text` in RON whose files lie in the folder `path`, or the file `path` where there is no text. `settings` are `KEY=JSON`;
/// `tick(done, total)` hears of output tokens.
#[pyfunction]
pub fn simulate(
    py: Python,
    text: Option<&str>,
    path: PathBuf,
    settings: Vec<String>,
    threads: Option<u16>,
    tick: Option<Bound<PyAny>>,
) -> PyResult<Outcome> {
    let scenario = read(text, &path, &settings).map_err(|error| raised(py, error))?;
    let (scenario, threads) = (Arc::new(scenario), self::threads(threads));
    let own = scenario.clone();
    let done = waiting(py, tick.as_ref(), move |pace| scenario::run(&own, threads, pace, |_, _| Silent))?;
    let (outcome, _) = done.map_err(|error| raised(py, error))?;
    Ok(Outcome { scenario, threads, outcome })
}

#[pymethods]
impl Outcome {
    /// What `radialsim simulate --json` writes.
    fn json(&self) -> String {
        json::render(std::slice::from_ref(&self.outcome))
    }

    /// What the comparison comes to, in sentences.
    fn answer(&self) -> Vec<String> {
        Answer::of(&self.outcome).sentences
    }

    /// What `radialsim simulate` prints, or prints with `--full`.
    fn table(&self, full: bool) -> String {
        if full { table::render(&self.outcome) } else { Brief::of(&self.outcome).text() }
    }

    /// The results as a piece of HTML.
    fn html(&self) -> String {
        html::fragment(&self.outcome)
    }

    /// Runs the scenario again with every kernel as an event, at most `kernels` of all variants, and writes what `radialsim simulate --timeline`
    /// does. Returns the variants whose timelines ended early.
    fn timeline(&self, py: Python, path: PathBuf, kernels: u64) -> PyResult<Vec<String>> {
        let file = Staged::create(path).map_err(|error| raised(py, error))?;
        let scenario = Scenario { fidelity: Some(Fidelity::Kernel), ..(*self.scenario).clone() };
        scenario.check_timeline("timeline").map_err(|error| raised(py, error))?;
        let (threads, each) = (self.threads, (kernels / scenario.variants.len() as u64).max(1));
        let done = waiting(py, None, move |pace| -> Result<Vec<String>, Error> {
            let (outcome, lines) =
                scenario::run(&scenario, threads, pace, |_, setup| Timeline::new(setup, each))?;
            let names = outcome.variants.iter().flat_map(VariantOutcome::engine_names);
            let named: Vec<(String, &Timeline)> = names.zip(&lines).collect();
            file.finish(|out| timeline::write(out, &named))?;
            let ended = named.into_iter().filter(|(_, line)| line.stopped().is_some());
            Ok(ended.map(|(name, _)| name).collect())
        })?;
        done.map_err(|error| raised(py, error))
    }
}
