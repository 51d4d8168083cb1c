//! The entry point for users of the library: a comparison that is built, run and read in a few lines. It makes a scenario and runs it as the
//! program does; there is no second way.

use crate::error::{Error, InputError, Result, demand};
use crate::report::{answer::Answer, brief::Brief, json, table};
use crate::scenario::{Inputs, Outcome, Quick, RouteSource, Scenario, run_with};
use crate::sim::Silent;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::path::Path;

/// Sequences at once, unless a number is asked for: that of `radialsim simulate`.
const BATCH: u32 = 16;

/// The name of a scenario that is no file; errors do not show it.
const NO_FILE: &str = "scenario";

/// A comparison that is ready to run: a model on a device, the same requests on dense, static and routed layers.
///
/// ```
/// use radialsim::{RouteSource, Simulation};
///
/// # fn main() -> radialsim::Result<()> {
/// let routes = RouteSource::Method("IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)".into());
/// let results = Simulation::builder("llama-3.1-8b", "nvidia-h100-sxm", routes)
///     .batch(8)
///     .requests(16)
///     .prompt(64)
///     .output(16)
///     .set("serving.chunked_prefill", false)
///     .build()?
///     .run()?;
/// println!("{}", results.verdict());
/// for row in results.rows() {
///     let tpot = row.number("tpot_s.mean").expect("16 tokens have gaps between them");
///     println!("{:24} {:.2} ms per token", row.name(), 1e3 * tpot);
/// }
/// # assert_eq!(results.rows()[0].name(), "dense");
/// # assert!(results.rows().len() > 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Simulation {
    scenario: Scenario,
    inputs: Inputs,
    threads: usize,
}

impl Simulation {
    /// Starts a comparison of `model` on `hardware`: built-in names (`radialsim list models|hardware`), or paths of a `config.json` and of a
    /// profile.
    pub fn builder(model: &str, hardware: &str, routes: RouteSource) -> SimulationBuilder {
        let quick = Quick {
            from: routes,
            model: model.into(),
            hardware: hardware.into(),
            batch: BATCH,
            with_static: true,
            policies: Vec::new(),
            prompt: None,
            output: None,
            rate: None,
            requests: None,
        };
        SimulationBuilder { quick, settings: Vec::new() }
    }

    /// Reads a scenario file, with keys set anew: `("serving.max_sequences", "8")`. `docs/SCENARIOS.md` lists the keys.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read, [`Error::Input`] where it is no scenario, or a key cannot be set.
    pub fn from_file(path: impl AsRef<Path>, settings: &[(&str, &str)]) -> Result<Simulation> {
        let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Scenario::load(path.as_ref(), &settings).map(Simulation::of).map_err(of_library)
    }

    /// The same of the text of such a file. Files that it names are looked for in `folder`.
    ///
    /// # Errors
    /// [`Error::Input`] where the text is no scenario.
    pub fn from_ron(text: &str, folder: impl AsRef<Path>) -> Result<Simulation> {
        let scenario = Scenario::from_text(text, &folder.as_ref().join(NO_FILE), &[]);
        scenario.map(Simulation::of).map_err(of_no_file)
    }

    fn of(scenario: Scenario) -> Simulation {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Simulation { scenario, inputs: Inputs::default(), threads }
    }

    /// The seed of everything that is drawn. Same inputs and seed, same results.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Simulation {
        self.scenario.seed = seed;
        self
    }

    /// How many seeds each row runs with; numbers of rows are then means. From 1 to 1000.
    ///
    /// # Errors
    /// [`Error::Input`] for any other number.
    pub fn seeds(mut self, seeds: u32) -> Result<Simulation> {
        demand((1..=1000).contains(&seeds), "seeds", seeds, "1 to 1000 seeds")?;
        self.scenario.seeds = seeds;
        Ok(self)
    }

    /// Threads, all of the machine's unless set; at least one runs. Results do not depend on them.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Simulation {
        self.threads = threads.max(1);
        self
    }

    /// Runs every row.
    ///
    /// # Errors
    /// [`Error::Input`] where a name is unknown, a file is wrong, or the model does not fit on the device; [`Error::Io`] where a file cannot be read.
    pub fn run(&self) -> Result<Results> {
        let (outcome, _) =
            run_with(&self.inputs, &self.scenario, self.threads, &(), |_, _| Silent).map_err(of_library)?;
        let rows = json::variants(&outcome).into_iter().map(ResultRow).collect();
        Ok(Results { outcome, rows })
    }
}

/// Collects what a [`Simulation`] compares. What is left out is what `radialsim simulate` takes without that option.
#[derive(Clone, Debug)]
#[must_use = "nothing is simulated before `build` and `run`"]
pub struct SimulationBuilder {
    quick: Quick,
    settings: Vec<String>,
}

impl SimulationBuilder {
    /// Most sequences that run at once.
    pub fn batch(mut self, sequences: u32) -> Self {
        self.quick.batch = sequences;
        self
    }

    /// Requests. Absent, as the three below: as the trace recorded; for routes of a method, a few times the batch.
    pub fn requests(mut self, count: u32) -> Self {
        self.quick.requests = Some(count);
        self
    }

    /// Tokens of a prompt.
    pub fn prompt(mut self, tokens: u32) -> Self {
        self.quick.prompt = Some(tokens);
        self
    }

    /// Tokens that a request generates.
    pub fn output(mut self, tokens: u32) -> Self {
        self.quick.output = Some(tokens);
        self
    }

    /// Requests a second, at random times. Absent: all are there at the start.
    pub fn rate(mut self, per_second: f64) -> Self {
        self.quick.rate = Some(per_second);
        self
    }

    /// Dispatch policies of the routed rows, a row each (`radialsim list policies`). Absent: two that suit the routes.
    pub fn policies<'p>(mut self, names: impl IntoIterator<Item = &'p str>) -> Self {
        self.quick.policies = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// Leaves out the row of static depth, which stands beside recorded routes.
    pub fn without_static(mut self) -> Self {
        self.quick.with_static = false;
        self
    }

    /// Sets any key of the scenario, as `--set` does: `("hardware.memory.dram_gb_per_s", 2000)`. `docs/SCENARIOS.md` lists the keys.
    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// The scenario in RON, without the keys of [`SimulationBuilder::set`]: what `radialsim simulate --save-scenario` writes.
    ///
    /// # Errors
    /// Those of [`SimulationBuilder::build`] about routes.
    pub fn scenario(&self) -> Result<String> {
        self.quick.text(&Inputs::default()).map_err(of_library)
    }

    /// Checks what was asked for.
    ///
    /// # Errors
    /// [`Error::Input`] where a trace or a method is none, a key is not there, or a value cannot be; [`Error::Io`] where a trace cannot be read.
    pub fn build(self) -> Result<Simulation> {
        let inputs = Inputs::default();
        let text = self.quick.text(&inputs).map_err(of_library)?;
        let scenario = Scenario::from_text(&text, Path::new(NO_FILE), &self.settings).map_err(of_builder)?;
        Ok(Simulation { inputs, ..Simulation::of(scenario) })
    }
}

/// What came out of a [`Simulation`]: the rows of `radialsim simulate --json`. Savings are against the first.
#[derive(Clone, Debug)]
pub struct Results {
    outcome: Outcome,
    rows: Vec<ResultRow>,
}

impl Results {
    /// The rows in the order of the scenario; at least one.
    pub fn rows(&self) -> &[ResultRow] {
        &self.rows
    }

    /// The row of this name.
    pub fn row(&self, name: &str) -> Option<&ResultRow> {
        self.rows.iter().find(|row| row.name() == name)
    }

    /// The answer in sentences: what the best row saves, how sure that is, and why.
    pub fn verdict(&self) -> String {
        Answer::of(&self.outcome).sentences.join(" ")
    }

    /// The screen of `radialsim simulate`.
    pub fn screen(&self) -> String {
        Brief::of(&self.outcome).text()
    }

    /// Every table, as `radialsim simulate --full` prints them.
    pub fn tables(&self) -> String {
        table::render(&self.outcome)
    }

    /// The file that `radialsim simulate --json` writes.
    pub fn json(&self) -> String {
        json::render(std::slice::from_ref(&self.outcome))
    }

    /// What is assumed, with the reason of each.
    pub fn assumed(&self) -> impl Iterator<Item = String> {
        self.outcome.assumed.iter().map(|note| format!("{}: {} ({})", note.key, note.value, note.why))
    }
}

/// A row of [`Results`]: one variant of the comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRow(Map<String, Value>);

impl ResultRow {
    /// Its name.
    pub fn name(&self) -> &str {
        self.text("name").unwrap_or_default()
    }

    /// A number by its key with dots, such as `ttft_s.p99` (`radialsim list metrics`). None where there is no such number, or the run has none
    /// of it: a single generated token has no gap before the next.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.value(key)?.as_f64()
    }

    /// A text by its key, such as `policy`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value(key)?.as_str()
    }

    /// The whole row as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("a map with text keys is JSON")
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |place, part| place.get(part))
    }
}

/// An error without what only the command line has: no key was set by `--set`, and no method came from `--method`.
fn of_library(error: Error) -> Error {
    let Error::Input(mut mistake) = error else { return error };
    mistake.key = mistake.key.map(|key| key.trim_start_matches("--set ").to_owned());
    if mistake.file.as_deref() == Some(Path::new("--method")) {
        let key = mistake.key.take().map_or("method".to_owned(), |key| format!("method.{key}"));
        *mistake = InputError { file: None, line: None, key: Some(key), ..*mistake };
    }
    Error::Input(mistake)
}

/// An error in a text that is no file.
fn of_no_file(error: Error) -> Error {
    match of_library(error) {
        Error::Input(mistake) => InputError { file: None, ..*mistake }.into(),
        other => other,
    }
}

/// An error in a text that the builder wrote, so that its lines say nothing.
fn of_builder(error: Error) -> Error {
    match of_no_file(error) {
        Error::Input(mistake) => InputError { line: None, ..*mistake }.into(),
        other => other,
    }
}
