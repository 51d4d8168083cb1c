//! `radialsim validate energy`: time between tokens and joules a token of measured runs beside those that are simulated.

use crate::cli::print;
use radialsim::error::{InputError, Result};
use radialsim::hw::Hardware;
use radialsim::meter::{self, ComparedRun, PredictedRun, StackConstants, Wrong};
use radialsim::report::{metered, skipped};
use std::path::PathBuf;

/// A profile and a table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The profile: a file, or the name of a shipped one; a fitted one wins.
    #[arg(long, value_name = "NAME")]
    hw: String,
    /// Exit code 1 if the mean error of the time between tokens or of joules a token is above this.
    #[arg(long, value_name = "PERCENT")]
    gate: Option<f64>,
    /// The table: CSV with the columns of the ML.ENERGY benchmark.
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
}

/// Prints the errors of the profile as it is, and those of constants fitted to the other models of the table.
pub fn run(args: &Args) -> Result<()> {
    if let Some(gate) = args.gate.filter(|gate| !(gate.is_finite() && *gate > 0.0)) {
        return Err(InputError::expected("a number of percent above 0").key("--gate").found(gate).into());
    }
    let hw = Hardware::resolve(&args.hw)?;
    let mut table = meter::read(&args.file, &hw)?;
    let all = meter::points(&hw, &mut table)?;
    let (points, several): (Vec<ComparedRun>, Vec<ComparedRun>) =
        all.into_iter().partition(|point| point.row.devices == 1);
    let constants = StackConstants::of(&hw);
    let as_is: Vec<PredictedRun> = points.iter().map(|point| constants.predict(&point.parts)).collect();
    let seen = hw.power.metered.as_ref().is_some_and(|metered| metered.sha256 == table.sha256);
    let words = match seen {
        true => "which was fitted to this table",
        false => "which has not seen this table",
    };
    let mut text = format!("{}, {words}\n{}", hw.name, metered(&points, &as_is));
    let left = meter::left_out(&points, &hw);
    match &left {
        Some(left) => {
            text += "\nThe same profile with its constants of power, step and sampler fitted to the other models of the table\n";
            text += &metered(&points, left);
        }
        None => text += "\nOne model, so none can be left out.\n",
    }
    if !several.is_empty() {
        text += "\nThe same profile, each model split over several devices (tensor parallel, vLLM's collectives), to which nothing was fitted\n";
        let said: Vec<PredictedRun> = several.iter().map(|point| constants.predict(&point.parts)).collect();
        text += &metered(&several, &said);
    }
    text += "ITL: median time between tokens. Models of the same shapes are left out together.\n";
    text += &skipped(&table.skipped);
    print(&(text + &meter::assumed()))?;
    let Some(gate) = args.gate else { return Ok(()) };
    for (what, predicted) in [("the profile", Some(&as_is)), ("models left out", left.as_ref())] {
        let Some(predicted) = predicted else { continue };
        let pairs: Vec<(&ComparedRun, PredictedRun)> = points.iter().zip(predicted.iter().copied()).collect();
        let Some(Wrong { itl, joules, .. }) = meter::wrong(&pairs) else { continue };
        for (name, error) in [("time between tokens", itl.mean), ("joules a token", joules.mean)] {
            super::gate(Some(gate), error, &format!("{what}: {name}"))?;
        }
    }
    Ok(())
}
