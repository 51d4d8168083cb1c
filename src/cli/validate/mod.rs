//! `radialsim validate`: what was measured beside what is simulated. A stated gate that fails makes the exit code 1.

pub mod energy;

use radialsim::error::Result;

/// What is compared.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Latency and energy of measured serving runs.
    Energy(energy::Args),
}

/// Compares.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::Energy(args) => energy::run(args),
    }
}
