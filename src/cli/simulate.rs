//! `radialsim simulate`: the main job.

use super::progress::Bar;
use radialsim::error::Result;
use radialsim::report::{Staged, json, table};
use radialsim::scenario::{self, Outcome, Scenario};
use radialsim::sim::Silent;
use std::path::PathBuf;

/// What to simulate, and where the results go.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Scenario files; each gets tables of its own.
    #[arg(required = true, value_name = "SCENARIO.ron")]
    scenarios: Vec<PathBuf>,
    /// Writes all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Sets a key of the scenario anew: serving.max_sequences=8, variants.1.policy=hop, hardware.memory.dram_gb_per_s=2000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Replaces the scenario's seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads; results do not depend on them. Absent: as many as the machine has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// No progress bar.
    #[arg(long, short)]
    quiet: bool,
}

/// Simulates.
pub fn run(args: &Args) -> Result<()> {
    let scenarios = args.scenarios.iter().map(|path| args.load(path)).collect::<Result<Vec<_>>>()?;
    let json = args.json.as_ref().map(Staged::create).transpose()?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for scenario in &scenarios {
        let bar = Bar::new(&scenario.title, args.quiet);
        let (outcome, _) = scenario::run(scenario, args.threads(), &bar, |_, _| Silent)?;
        outcomes.push(outcome);
    }
    if let Some(file) = json {
        file.finish(|out| out.write_all(json::render(&outcomes).as_bytes()))?;
    }
    super::print(&outcomes.iter().map(table::render).collect::<Vec<_>>().join("\n"))
}

impl Args {
    fn load(&self, path: &PathBuf) -> Result<Scenario> {
        let mut scenario = Scenario::load(path, &self.settings)?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        Ok(scenario)
    }

    fn threads(&self) -> usize {
        let most = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(most, usize::from)
    }
}
