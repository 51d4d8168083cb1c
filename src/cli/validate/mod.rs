//! `radialsim validate`: what a profile says beside what was measured.

mod operators;

use radialsim::error::Result;

/// What to hold against measurements.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Operators of a layer, as Vidur's profiler measures them.
    Operators(operators::Args),
}

/// Prints the errors. A stated gate that is not met is an error.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::Operators(args) => operators::run(args),
    }
}
