//! `radialsim validate`: simulations against measured runs.

pub mod serving;

use radialsim::error::Result;

/// What to validate.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Simulates a served run and compares the times of its requests.
    Serving(serving::Args),
}

/// Does it.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::Serving(args) => serving::run(args),
    }
}
