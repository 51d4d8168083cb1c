//! `radialsim validate power`: measured power caps and clock locks beside the simulated ones.

use crate::cli::print;
use radialsim::error::{InputError, Result};
use radialsim::hw::Hardware;
use radialsim::meter::caps::{self, CapAnswer, CapSeries, LeftOut};
use radialsim::report::{Answered, cap_errors, cap_points, caps as sheet, skipped};
use std::path::PathBuf;

/// A table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Prints every row, too.
    #[arg(long)]
    points: bool,
    /// Exit code 1 if the mean errors over held-out devices, in percent, of the speed or of joules a unit are larger.
    #[arg(long, value_name = "SPEED,ENERGY", value_parser = gate)]
    gate: Option<(f64, f64)>,
    /// The table: CSV with the columns device, workload, precision, phase, batch, control, `cap_w`, `clock_mhz`, speed, `mean_power_w`,
    /// `power_fix_factor`.
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
}

fn gate(text: &str) -> std::result::Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|x: &f64| *x > 0.0 && *x <= 1e6);
    let pair = text.split_once(',').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    pair.ok_or_else(|| "expected two percentages above 0 with a comma between: 6,12".into())
}

/// The shipped profile of a workload's device, or one made for it: its answers, and its draw over the measured one.
fn shipped(series: &CapSeries) -> Result<(Vec<CapAnswer>, f64)> {
    let hw: Hardware = series.board.hardware()?;
    Ok((caps::answers(&hw, series), caps::draw(&hw, series)? / series.reference.watts))
}

/// Prints the errors of the profiles as they are, and those of numbers that were fitted to other devices.
pub fn run(args: &Args) -> Result<()> {
    let table = caps::read(&args.file)?;
    let shipped: Vec<(Vec<CapAnswer>, f64)> = table.series.iter().map(shipped).collect::<Result<_>>()?;
    let pairs = table.series.iter().zip(&shipped);
    let as_is: Vec<Answered> =
        pairs.map(|(series, (answers, draw))| (series, answers.as_slice(), *draw)).collect();
    let mut text = format!(
        "Shipped profiles; devices without one have a profile made of their datasheet\n{}",
        sheet(&as_is)
    );
    let left = caps::left_out(&table)?;
    let left: Option<Vec<Answered>> = left.as_ref().map(|all| {
        all.iter().map(|LeftOut { series, answers, draw }| (*series, answers.as_slice(), *draw)).collect()
    });
    match &left {
        Some(left) => {
            text += "\nThe same with idle and static power, voltages and memory fitted to the other devices of the table\n";
            text += &sheet(left);
        }
        None => text += "\nOne device, so none can be left out.\n",
    }
    text += "Speed and joules a unit of work over the row of the workload that draws most, whose draw is taken from the table; draw: what\n\
             the constants say of it instead. A sign is that of a change of joules by more than 2 %. Devices of a family are left out together.\n";
    text += &skipped(&table.skipped);
    if args.points {
        text += &format!("\n{}", cap_points(left.as_ref().unwrap_or(&as_is)));
    }
    print(&text)?;
    let Some((speed, energy)) = args.gate else { return Ok(()) };
    let errors = left.as_deref().and_then(cap_errors);
    let Some(errors) = errors else {
        return Err(InputError::expected("devices to leave out, to hold the gate to")
            .file(&args.file)
            .into());
    };
    for (name, found, most) in [("speed", errors.speed, speed), ("joules a unit", errors.energy, energy)] {
        super::gate(Some(most), found, &format!("devices left out: {name}"))?;
    }
    Ok(())
}
