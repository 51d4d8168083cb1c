//! `radialsim simulate`: the main job.

use super::progress::Bar;
use radialsim::error::{InputError, Result, shorten};
use radialsim::report::timeline::{self, Timeline};
use radialsim::report::{Staged, json, table};
use radialsim::scenario::{self, Outcome, Scenario};
use radialsim::sim::{Fidelity, Silent};
use std::path::{Path, PathBuf};

/// What to simulate, and where the results go.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Scenario files; each gets tables of its own.
    #[arg(required = true, value_name = "SCENARIO.ron")]
    scenarios: Vec<PathBuf>,
    /// Writes all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes every kernel, for ui.perfetto.dev; fidelity is then `kernel`.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Kernels that the timeline holds at most, shared evenly between the variants.
    #[arg(long, value_name = "N", default_value_t = timeline::MOST_KERNELS, requires = "timeline",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    timeline_events: u64,
    /// Sets a key of the scenario anew: serving.max_sequences=8, variants.1.policy=hop, hardware.memory.dram_gb_per_s=2000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Replaces the scenario's seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads; results do not depend on them. Absent: as many as the machine has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// No progress bar and no remarks.
    #[arg(long, short)]
    quiet: bool,
}

/// Simulates.
pub fn run(args: &Args) -> Result<()> {
    let scenarios = args.scenarios.iter().map(|path| args.load(path)).collect::<Result<Vec<_>>>()?;
    if args.json.is_some() && args.json == args.timeline {
        let error = InputError::expected("a file of its own, which is not that of --json").key("--timeline");
        return Err(error.into());
    }
    // A place that cannot be written to is better known before the work than after it.
    let json = args.json.as_ref().map(Staged::create).transpose()?;
    let timeline = args.timeline.as_ref().map(Staged::create).transpose()?;
    let variants: usize = scenarios.iter().map(|scenario| scenario.variants.len()).sum();
    let kernels = (args.timeline_events / variants as u64).max(1);

    let (mut outcomes, mut timelines) = (Vec::new(), Vec::new());
    for scenario in &scenarios {
        let bar = Bar::new(&scenario.title, args.quiet);
        let outcome = if timeline.is_some() {
            let watch = |_, setup: &_| Timeline::new(setup, kernels);
            let (outcome, watched) = scenario::run(scenario, args.threads(), &bar, watch)?;
            let of_variant = |one: &scenario::VariantOutcome| match scenarios.len() {
                1 => one.name.clone(),
                _ => format!("{}: {}", outcome.title, one.name),
            };
            timelines.extend(outcome.variants.iter().map(of_variant).zip(watched));
            outcome
        } else {
            scenario::run(scenario, args.threads(), &bar, |_, _| Silent)?.0
        };
        outcomes.push(outcome);
    }

    if let Some(file) = json {
        file.finish(|out| out.write_all(json::render(&outcomes).as_bytes()))?;
    }
    if let Some(file) = timeline {
        let timelines: Vec<_> = timelines.iter().map(|(name, timeline)| (name.clone(), timeline)).collect();
        file.finish(|out| timeline::write(out, &timelines))?;
        args.say_what_is_left_out(&timelines);
    }
    print_tables(&outcomes)
}

fn print_tables(outcomes: &[Outcome]) -> Result<()> {
    super::print(&outcomes.iter().map(table::render).collect::<Vec<_>>().join("\n"))
}

impl Args {
    fn load(&self, path: &Path) -> Result<Scenario> {
        let mut scenario = Scenario::load(path, &self.settings)?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        if self.timeline.is_some() {
            scenario.fidelity = Some(Fidelity::Kernel);
        }
        Ok(scenario)
    }

    fn threads(&self) -> usize {
        let most = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(most, usize::from)
    }

    fn say_what_is_left_out(&self, timelines: &[(String, &Timeline)]) {
        let full: Vec<_> = timelines.iter().filter(|(_, timeline)| timeline.stopped().is_some()).collect();
        let Some((name, first)) = full.first().filter(|_| !self.quiet) else { return };
        let (name, more) = (shorten(name), full.len() - 1);
        let others = if more > 0 { format!(" and of {more} more") } else { String::new() };
        let until = first.stopped().unwrap_or_default();
        super::say(&format!(
            "note: the timeline of {name}{others} is full and ends early, at {until}; --timeline-events raises this"
        ));
    }
}
