//! `radialsim validate operators`: a profile against the measured operators of a layer.

use super::gate;
use crate::cli::print;
use radialsim::calib::{
    self, MeasuredCall, MeasuredOperator, Operator, PercentErrors, TableFormat, interval, read, read_layers,
};
use radialsim::cost::{Device, Limits, Price};
use radialsim::error::{InputError, Result};
use radialsim::hw::Hardware;
use radialsim::kernel::Kernel;
use radialsim::report::{self, layers, uneven};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A profile and a table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The profile: a file, or the name of a shipped one; a fitted one wins.
    #[arg(long, value_name = "NAME")]
    hw: String,
    /// Exit code 1 if the mean error of the matrix products is larger.
    #[arg(long, value_name = "PERCENT")]
    gate: Option<f64>,
    /// Shows the coverage of intervals of plus or minus this percentage, instead of the profile's own.
    #[arg(long, value_name = "PERCENT")]
    interval: Option<f64>,
    /// A table of products of another source (columns m, n, k): prints how far its times differ on the same shapes.
    #[arg(long, value_name = "TABLE")]
    beside: Option<PathBuf>,
    /// Of whole passes: each number of generated tokens or rows of a chunk is left out in turn, and the rest of the table is what the profile has.
    #[arg(long)]
    leave_out: bool,
    /// The table: CSV with columns `time_stats.NAME.median`; `MODEL_skew.csv`, attention over uneven contexts; or `MODEL_attention.csv` with
    /// `MODEL_dense.csv` and `MODEL_per_sequence.csv` beside it: the sum of a whole pass.
    file: PathBuf,
}

/// Prints a table of matrix products and one of the other operators; or one of uneven contexts.
pub fn run(args: &Args) -> Result<()> {
    if let Some(gate) = args.gate.filter(|gate| !(*gate > 0.0 && gate.is_finite())) {
        return Err(InputError::expected("percent above 0").key("gate").found(gate).into());
    }
    if let Some(interval) = args.interval.filter(|width| !(*width >= 0.0 && width.is_finite())) {
        return Err(InputError::expected("percent of at least 0").key("interval").found(interval).into());
    }
    let device = Device::new(&Hardware::resolve(&args.hw)?, Limits::default())?;
    if args.file.to_string_lossy().ends_with("_skew.csv") {
        return uneven_contexts(args, &device);
    }
    if args.file.to_string_lossy().ends_with("_attention.csv") {
        return whole_passes(args);
    }
    if args.leave_out {
        return Err(InputError::expected("MODEL_attention.csv, of which whole passes are made")
            .key("leave-out")
            .into());
    }
    let measured = read_layers(&args.file)?;
    let prices: Vec<Vec<Price>> = measured
        .iter()
        .map(|operator| operator.rows.iter().map(|row| device.price(&row.kernel)).collect())
        .collect();
    print(&layers(&measured, &prices, args.interval))?;
    print(&widest(&measured, &prices))?;
    if let Some(path) = &args.beside {
        print(&beside(path, &measured)?)?;
    }
    if args.gate.is_none() {
        return Ok(());
    }
    let products = measured.iter().zip(&prices).filter(|(operator, _)| operator.projection);
    let pairs = products.flat_map(|(operator, prices)| operator.rows.iter().zip(prices));
    let Some(errors) = PercentErrors::of(pairs.map(|(row, price)| (price.time.s(), row.seconds))) else {
        return Err(InputError::expected("a matrix product to hold the gate to").file(&args.file).into());
    };
    gate(args.gate, errors.mean, "matrix products are")
}

/// How far calls of uneven contexts lie from even ones of the same mean, measured and by the profile.
fn uneven_contexts(args: &Args, device: &Device) -> Result<()> {
    for (key, given) in [("beside", args.beside.is_some()), ("interval", args.interval.is_some())] {
        if given {
            return Err(InputError::expected("a table of operators, not of uneven contexts").key(key).into());
        }
    }
    let (calls, _) = calib::layers::read_uneven(&args.file)?;
    let Some(ratios) = calib::ratios(device, &calls) else {
        let expected = "a profile that was fitted to a table of uneven contexts";
        return Err(InputError::expected(expected).key("hw").found(&args.hw).into());
    };
    print(&uneven(&calls, &ratios))?;
    let mean = PercentErrors::of(ratios).map_or(0.0, |errors| errors.mean);
    gate(args.gate, mean, "ratios of uneven to even calls are")
}

/// How far sums of all operators of a pass are off.
fn whole_passes(args: &Args) -> Result<()> {
    for (key, given) in [("beside", args.beside.is_some()), ("interval", args.interval.is_some())] {
        if given {
            return Err(InputError::expected("a table of operators, not of whole passes").key(key).into());
        }
    }
    let name = args.file.to_string_lossy();
    let beside = |ending: &str| PathBuf::from(name.replace("_attention.csv", ending));
    let grids = [beside("_dense.csv"), beside("_per_sequence.csv"), args.file.clone()];
    let layers = calib::layers::read(&calib::layers::LayerTables { grids, uneven: None })?;
    let hw = Hardware::resolve(&args.hw)?;
    let passes =
        if args.leave_out { calib::passes_left_out(&hw, &layers)? } else { calib::passes(&hw, &layers)? };
    print(&report::passes(&passes))?;
    let mean = PercentErrors::of(passes.iter().map(|pass| (pass.said, pass.was)))
        .map_or(f64::NAN, |errors| errors.mean);
    gate(args.gate, mean, "whole passes are")
}

/// The interval that these rows would ask for: each product of each shape a family.
fn widest(measured: &[MeasuredOperator], prices: &[Vec<Price>]) -> String {
    let products = measured.iter().zip(prices).filter(|(operator, _)| operator.projection);
    let rows = products.flat_map(|(operator, prices)| {
        let row = |(row, price): (&MeasuredCall, &Price)| {
            ((operator.operator, row.family), price.time.s(), row.seconds)
        };
        operator.rows.iter().zip(prices).map(row).collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    let mut families: Vec<_> = rows.iter().map(|(family, ..)| *family).collect();
    families.sort_unstable();
    families.dedup();
    interval(rows).map_or_else(String::new, |width| {
        format!(
            "Products: nominal 90 % of a family that is not here: ± {width:.1} %, from {} families.\n",
            families.len()
        )
    })
}

/// What the table at `path` says of the products measured, as if it were a profile: two sources of the same shapes.
fn beside(path: &Path, measured: &[MeasuredOperator]) -> Result<String> {
    let shape = |kernel: &Kernel| match *kernel {
        Kernel::MatMul { rows, inner, columns, .. } => Some((rows, inner, columns)),
        _ => None,
    };
    let table = read(path, Operator::Gemm, TableFormat::Sixteen, true)?;
    let times: HashMap<_, f64> = table.rows.iter().map(|row| (shape(&row.kernel), row.seconds)).collect();
    let products = measured.iter().filter(|operator| operator.projection).flat_map(|operator| &operator.rows);
    let pairs = products.filter_map(|row| Some((*times.get(&shape(&row.kernel))?, row.seconds)));
    Ok(match PercentErrors::of(pairs) {
        Some(errors) => format!(
            "Rows whose shape the other table has: {}. Its times are off by {:.2} % on average, bias {:.2} %.\n",
            errors.rows, errors.mean, errors.bias
        ),
        None => "The other table has none of these shapes.\n".to_owned(),
    })
}
