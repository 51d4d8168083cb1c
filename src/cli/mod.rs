//! Arguments, files, progress bars, exit codes. Tables go to standard output, everything else that is said to standard error.

pub mod calibrate;
pub mod execute;
pub mod fit;
mod fit_fabric;
pub mod frontier;
pub mod inspect;
pub mod list;
pub mod predict;
mod progress;
pub mod simulate;
pub mod sweep;
pub mod trace;
#[cfg(feature = "train")]
pub mod train;
pub mod validate;

use radialsim::error::{Error, Result};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

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
    /// Simulates scenarios: a table each, a row for each variant.
    Simulate(simulate::Args),
    /// Runs a study: many scenarios, one report. Goes on where an earlier run ended.
    Sweep(sweep::Args),
    /// Joins the shards of a study into its tables and its report.
    Merge(sweep::MergeArgs),
    /// Holds what networks are worth against what they cost: a study whose variants have measured qualities.
    Frontier(frontier::Args),
    /// Fits a profile to tables of measured operators, or a fabric to tables of measured collectives.
    Fit(fit::Args),
    /// Measures the GPU of this machine and fits a profile to it.
    Calibrate(calibrate::Args),
    /// Says what a profile predicts for the rows of a table.
    Predict(predict::Args),
    /// Runs a real model on the GPU of this machine, layer by layer as its routes say.
    Execute(Box<execute::Args>),
    /// Says in plain words what a file holds, and checks it.
    #[command(subcommand)]
    Inspect(inspect::What),
    /// Lists what the program knows by name.
    List {
        /// What to list.
        what: list::What,
    },
    /// Looks at, converts and makes router traces.
    #[command(subcommand)]
    Trace(trace::What),
    /// Trains routers for a model, and says what they are worth.
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Train(train::What),
    /// Holds simulations against what was measured.
    #[command(subcommand)]
    Validate(validate::What),
    /// Prints what a shell needs to complete commands: `source <(radialsim completions bash)`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes manual pages.
    Man(list::ManArgs),
}

/// What clap has to say, help and version included.
pub fn usage(said: &clap::Error) -> ExitCode {
    // A closed pipe is no reason to fail while failing.
    let _ = said.print();
    ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(2))
}

/// The end of the program: one line where it failed.
pub fn end(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
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

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/=:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Says something that is no result.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
