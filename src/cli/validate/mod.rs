//! `radialsim validate`: what was measured beside what is simulated. A stated gate that fails makes the exit code 1.

pub mod e2e;
pub mod energy;
pub mod launches;
pub mod operators;
pub mod power;
pub mod runs;
pub mod serving;

use radialsim::error::{Error, Result};

/// What is compared.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Mean TTFT and TPOT of measured closed loops of clients.
    E2e(e2e::Args),
    /// Latency and energy of measured serving runs.
    Energy(energy::Args),
    /// Published times of a token with and without captured graphs.
    Launches(launches::Args),
    /// Operators of a layer, as Vidur's profiler measures them.
    Operators(operators::Args),
    /// Measured power caps and clock locks.
    Power(power::Args),
    /// Runs of a real model on the GPU of this machine: times of passes and kernels, memory, the order of policies.
    Runs(runs::Args),
    /// Times of the requests of a measured serving run.
    Serving(serving::Args),
}

/// Fails where a mean error in percent is more than what is allowed, or no number.
fn gate(most: Option<f64>, found: f64, what: &str) -> Result<()> {
    match most {
        Some(most) if found.is_nan() || found > most => {
            Err(Error::Gate(format!("{what} off by {found:.2} % on average, at most {most} % allowed")))
        }
        _ => Ok(()),
    }
}

/// Compares.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::E2e(args) => e2e::run(args),
        What::Energy(args) => energy::run(args),
        What::Launches(args) => launches::run(args),
        What::Operators(args) => operators::run(args),
        What::Power(args) => power::run(args),
        What::Runs(args) => runs::run(args),
        What::Serving(args) => serving::run(args),
    }
}
