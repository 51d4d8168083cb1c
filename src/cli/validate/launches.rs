//! `radialsim validate launches`: published times with and without captured graphs against the engines' host times.

use crate::cli::print;
use radialsim::error::{Error, InputError, Result};
use radialsim::report::launches;
use radialsim::scenario::published;

/// A gate, if any.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit code 1 if the ratio of a row that was not fitted is off by more.
    #[arg(long, value_name = "PERCENT")]
    gate: Option<f64>,
}

/// Prints the rows.
pub fn run(args: &Args) -> Result<()> {
    if let Some(gate) = args.gate.filter(|gate| !(*gate > 0.0 && gate.is_finite())) {
        return Err(InputError::expected("percent above 0").key("gate").found(gate).into());
    }
    let rows = published()?;
    print(&launches(&rows))?;
    let kept = rows.iter().filter(|row| row.row.used == "kept");
    let worst = kept.max_by(|a, b| a.error().abs().total_cmp(&b.error().abs()));
    match (args.gate, worst) {
        (Some(gate), Some(worst)) if worst.error().abs() * 100.0 > gate => Err(Error::Gate(format!(
            "the ratio of {} is off by {:+.1} %, at most {gate} % allowed",
            worst.row.case,
            worst.error() * 100.0
        ))),
        _ => Ok(()),
    }
}
