//! `radialsim predict`: a table with what a profile says of its rows.

use super::print;
use crate::cli::fit::{In, Op};
use radialsim::calib::{Format, predict, read};
use radialsim::cost::{Device, Limits};
use radialsim::error::{InputError, Result};
use radialsim::hw::Hardware;
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
    /// In which format it measures them; 16 bits without it. Of attention, that of the cache.
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
    let format = args.format.map_or(Format::Sixteen, Format::from);
    let table = read(&args.file, args.op.into(), format, args.score)?;
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
    let mut out = csv::Writer::from_writer(Vec::new());
    header.extend(["predicted_ms".into(), "source".into()]);
    let failed = |error: csv::Error| InputError::expected(format!("rows that are CSV ({error})"));
    out.write_record(&header).map_err(failed)?;
    for (mut row, price) in rows.into_iter().zip(prices) {
        row.extend([format!("{:.9}", price.time.s() * 1e3), price.source.to_string()]);
        out.write_record(&row).map_err(failed)?;
    }
    let bytes = out.into_inner().map_err(|error| InputError::expected(format!("CSV ({error})")))?;
    print(&String::from_utf8_lossy(&bytes))
}
