//! `radialsim validate serving`: a scenario against the run that it describes.

use crate::cli::{print, say};
use radialsim::error::{Error, InputError, Result};
use radialsim::metrics::ErrorBar;
use radialsim::report::{Gate, Queue, Served};
use radialsim::scenario::Scenario;
use radialsim::workload::{measured, ticks};
use std::path::PathBuf;

/// A scenario and what was measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The scenario; its first variant is compared. Its requests must be the measured ones, in the same order.
    #[arg(value_name = "SCENARIO.ron")]
    scenario: PathBuf,
    /// A line of JSON for each request: `input_toks`, `output_toks`, and in seconds `arrival_time`, `queued_ts`, `scheduled_ts`,
    /// `first_token_ts`, `last_token_ts`.
    #[arg(long, value_name = "FILE")]
    measured: PathBuf,
    /// CSV of requests over time: t, running, waiting.
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
    /// Exit code 1 if a statistic is off by more percent: tpot.mean=2, ttft.p99=8. Metrics ttft, tpot, e2e, queue; statistics mean,
    /// p50, p90, p99.
    #[arg(long = "gate", value_name = "KEY=PERCENT", num_args = 1.., value_delimiter = ',')]
    gates: Vec<Gate>,
    /// Sets a key of the scenario anew, as in `simulate`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// No remarks.
    #[arg(long, short)]
    quiet: bool,
}

/// Simulates, compares, and fails where a gate is not met.
pub fn run(args: &Args) -> Result<()> {
    let requests = measured(&args.measured)?;
    let seconds = args.series.as_ref().map(|path| ticks(path)).transpose()?;
    let scenario = Scenario::load(&args.scenario, &args.settings)?;
    let (built, notes) = scenario.build()?;
    let first = built.first().ok_or_else(|| InputError::expected("a variant").key("variants"))?;
    let mut queue = Queue::default();
    let ledger = first.run(&mut queue)?;
    let series = seconds.as_deref().map(|seconds| (seconds, &queue));
    let device = first.setup.device()?;
    let error = ErrorBar::of(&ledger, &device);
    let served = Served::new(&requests, (&ledger, error), series)?;
    print(&served.render())?;
    if !args.quiet {
        let rests = notes.iter().map(|note| note.key.as_str()).collect::<Vec<_>>().join(", ");
        say(&format!("note: assumed or set: {rests}"));
    }
    let missed = served.missed(&args.gates);
    if missed.is_empty() { Ok(()) } else { Err(Error::Gate(missed.join("; "))) }
}
