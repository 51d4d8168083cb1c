//! Arguments, files, progress bars, exit codes. Tables go to standard output, everything else that is said to standard error.

pub mod calibrate;
pub mod execute;
pub mod fit;
mod fit_args;
mod fit_fabric;
pub mod frontier;
pub mod inspect;
pub mod list;
mod memory;
pub mod predict;
mod progress;
pub mod simulate;
pub mod sweep;
pub mod trace;
#[cfg(feature = "train")]
pub mod train;
pub mod validate;

use clap::Parser;
use radialsim::error::{Error, Result};
use radialsim::report::list::List;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};

/// The whole program: the words of its command line, its own name first; returns the exit code. It alone prints.
pub fn program(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(said) => return usage(&said),
    };
    end(match args.command {
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Execute(args) => execute::run(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Inspect(what) => inspect::run(&what),
        Command::List { what } => list::run(what),
        Command::Predict(args) => predict::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Frontier(args) => frontier::run(&args),
        Command::Merge(args) => sweep::merge(&args),
        Command::Trace(what) => trace::run(&what),
        #[cfg(feature = "train")]
        Command::Train(what) => train::run(&what),
        Command::Validate(what) => validate::run(&what),
        Command::Completions { shell } => list::completions(shell),
        Command::Man(args) => list::man(&args),
    })
}

/// What a token's route through the layers of a model costs on a piece of hardware: time, memory, power.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 a stated gate failed, 2 bad input, 3 a GPU was required and none was found."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Simulates scenarios and prints a screen for each: a verdict, and a table with a row for each variant.
    Simulate(simulate::Args),
    /// Runs a study: many scenarios, one report. Continues an interrupted run.
    Sweep(sweep::Args),
    /// Joins the shards of a study into its tables and its report.
    Merge(sweep::MergeArgs),
    /// Compares what networks cost at equal quality: a study whose variants have measured qualities.
    Frontier(frontier::Args),
    /// Fits a profile to tables of measured operators, or a fabric to tables of measured collectives.
    Fit(fit_args::Args),
    /// Measures the GPU of this machine and fits a profile to it.
    Calibrate(calibrate::Args),
    /// Prints what a profile predicts for each row of a table.
    Predict(predict::Args),
    /// Runs a real model on the GPU of this machine, layer by layer as its routes say.
    Execute(Box<execute::Args>),
    /// Checks a file and describes it in plain words.
    #[command(subcommand)]
    Inspect(inspect::What),
    /// Lists what the program knows by name.
    List {
        /// What to list.
        #[arg(value_parser = list::names())]
        what: List,
    },
    /// Looks at, converts and makes router traces.
    #[command(subcommand)]
    Trace(trace::What),
    /// Trains routers for a model, and says what they are worth.
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Train(train::What),
    /// Compares simulations with measurements.
    #[command(subcommand)]
    Validate(validate::What),
    /// Prints a completion script for a shell: `source <(radialsim completions bash)`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes manual pages.
    Man(list::ManArgs),
}

/// What clap has to say, help and version included.
fn usage(said: &clap::Error) -> u8 {
    // A closed pipe is no reason to fail while failing.
    let _ = said.print();
    u8::try_from(said.exit_code()).unwrap_or(2)
}

/// The end of the program: one line where it failed.
fn end(done: Result<()>) -> u8 {
    let Err(error) = done else { return 0 };
    let _ = writeln!(std::io::stderr(), "error: {error}");
    error.exit_code()
}

/// Prints a whole report. A reader who has seen enough and closed the pipe is no failure.
fn print(text: &str) -> Result<()> {
    // Without colours where nobody looks, or NO_COLOR is set.
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", "write")(error))
        }
        _ => Ok(()),
    }
}

/// Lines that a terminal sets off.
fn strong(lines: &str) -> String {
    let bold = anstyle::Style::new().bold();
    lines.lines().map(|line| format!("{bold}{line}{bold:#}\n")).collect()
}

/// What commands say that need the feature, where the program has none.
#[cfg(not(feature = "gpu"))]
fn no_gpu() -> Error {
    Error::NoGpu("this program was built without the feature gpu".into())
}

/// As many threads as asked for; absent, as many as the machine has.
fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

/// Says something that is no result.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
