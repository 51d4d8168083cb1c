//! `radialsim predict`: a table with what a profile says of its rows.

use super::print;
use crate::cli::fit::{In, Op};
use radialsim::calib::{MeasuredCall, TableFormat, predict, read, read_experts};
use radialsim::cost::{Device, Limits, Price};
use radialsim::error::{InputError, Result};
use radialsim::hw::Hardware;
use radialsim::kernel::Kernel;
use radialsim::report::scores;
use std::path::PathBuf;

/// A profile and a table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The profile: a file, or the name of a shipped one; a fitted one wins.
    #[arg(long, value_name = "NAME")]
    hw: String,
    /// What the table measures.
    #[arg(long)]
    op: Op,
    /// The format of the table; absent: 16 bits. For attention, that of the cache.
    #[arg(long)]
    format: Option<In>,
    /// Prints the errors against the times of the table instead.
    #[arg(long)]
    score: bool,
    /// The table: CSV or Parquet.
    file: PathBuf,
}

/// Writes the table with two columns more to standard output, as CSV.
pub fn run(args: &Args) -> Result<()> {
    let hardware = Hardware::resolve(&args.hw)?;
    let device = Device::new(&hardware, Limits::default())?;
    let Some(operator) = args.op.operator() else { return experts(args, &device) };
    let format = args.format.map_or(TableFormat::Sixteen, TableFormat::from);
    let table = read(&args.file, operator, format, args.score)?;
    let prices = predict(&device, &table);
    if args.score {
        return print(&scores(&table.rows, &prices));
    }
    let (mut header, rows) = table.text;
    if rows.len() != prices.len() {
        let wrong = InputError::expected(
            "rows of this format only, 16 bits without `--format`, without windows and beams",
        )
        .file(&args.file);
        return Err(wrong.found(format!("{} others", rows.len() - prices.len())).into());
    }
    header.extend(["predicted_ms".into(), "source".into()]);
    written(&header, rows, &prices)
}

/// Whole expert layers, of which a table has a line for each way in which tokens may be spread.
fn experts(args: &Args, device: &Device) -> Result<()> {
    let mut table = read_experts(&args.file)?;
    if let Some(format) = args.format.map(TableFormat::from) {
        table.rows.retain(|row| row.format == format);
    }
    let row = |row: &radialsim::calib::ExpertRow| {
        let [width, inner, top, count] = row.family;
        MeasuredCall {
            kernel: Kernel::ExpertLayer(row.shape),
            family: [width, inner, top << 16 | count],
            seconds: row.seconds,
        }
    };
    let rows: Vec<MeasuredCall> = table.rows.iter().map(row).collect();
    let prices: Vec<Price> = rows.iter().map(|row| device.price(&row.kernel)).collect();
    if args.score {
        return print(&scores(&rows, &prices));
    }
    let header: Vec<String> = [
        "format",
        "tokens",
        "hidden",
        "inner",
        "top",
        "experts",
        "own_experts",
        "copies",
        "experts_hit",
        "measured_ms",
        "predicted_ms",
        "source",
    ]
    .map(String::from)
    .to_vec();
    let cells = table.rows.iter().map(|row| {
        let shape = &row.shape;
        let [whole, hit] = [shape.load.copies, shape.load.taken].map(radialsim::kernel::ExpertLoad::whole);
        let numbers = [shape.rows, shape.width, shape.inner, shape.top, shape.count, shape.own];
        let mut cells = vec![radialsim::calib::experts_name(row.format).to_owned()];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.extend([whole, hit, row.seconds * 1e3].map(|number| number.to_string()));
        cells
    });
    written(&header, cells.collect(), &prices)
}

/// Rows with what is said of them, as CSV.
fn written(header: &[String], rows: Vec<Vec<String>>, prices: &[Price]) -> Result<()> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| InputError::expected(format!("rows that are CSV ({error})"));
    out.write_record(header).map_err(failed)?;
    for (mut row, price) in rows.into_iter().zip(prices) {
        row.extend([format!("{:.9}", price.time.s() * 1e3), price.source.to_string()]);
        out.write_record(&row).map_err(failed)?;
    }
    let bytes = out.into_inner().map_err(|error| InputError::expected(format!("CSV ({error})")))?;
    print(&String::from_utf8_lossy(&bytes))
}
