//! The program: arguments in, exit code out.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program is who prints; the library never does"
)]

mod cli;

use clap::Parser;
use cli::{Args, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(said) => return cli::usage(&said),
    };
    let done = match args.command {
        Command::Calibrate(args) => cli::calibrate::run(&args),
        Command::Simulate(args) => cli::simulate::run(&args),
        Command::Execute(args) => cli::execute::run(&args),
        Command::Fit(args) => cli::fit::run(&args),
        Command::Inspect(what) => cli::inspect::run(&what),
        Command::List { what } => cli::list::run(what),
        Command::Predict(args) => cli::predict::run(&args),
        Command::Sweep(args) => cli::sweep::run(&args),
        Command::Frontier(args) => cli::frontier::run(&args),
        Command::Merge(args) => cli::sweep::merge(&args),
        Command::Trace(what) => cli::trace::run(&what),
        #[cfg(feature = "train")]
        Command::Train(what) => cli::train::run(&what),
        Command::Validate(what) => cli::validate::run(&what),
        Command::Completions { shell } => cli::list::completions(shell),
        Command::Man(args) => cli::list::man(&args),
    };
    cli::end(done)
}
