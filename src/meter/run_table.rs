//! Tables of measured serving runs: CSV with the columns of the ML.ENERGY benchmark.

use super::columns::{Cells, Columns};
use super::run_model::{RunModel, shape_of};
use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::units::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// A measured run.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredRun {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The model, as the table names it.
    pub id: String,
    /// Its shapes.
    pub shape: RunModel,
    /// Devices, each with an equal part of every layer: the tables say no other split of models without experts.
    pub devices: u32,
    /// What it was asked.
    pub task: String,
    /// Sequences that ran together, on average.
    pub batch: f64,
    /// Tokens of an answer, on average.
    pub output_tokens: f64,
    /// Median time between two tokens of a sequence, seconds.
    pub itl_s: f64,
    /// Joules for each output token, prompts included.
    pub joules: f64,
    /// Mean watts of the board.
    pub watts: f64,
}

/// The rows of a table that can be simulated, and why the others cannot.
#[derive(Clone, Debug, PartialEq)]
pub struct RunTable {
    /// SHA-256 of the bytes.
    pub sha256: String,
    /// In the order of the file.
    pub rows: Vec<MeasuredRun>,
    /// Rows left out, by reason.
    pub skipped: BTreeMap<String, usize>,
}

/// Columns that are read.
const COLUMNS: [&str; 12] = [
    "model_id",
    "task",
    "gpu_model",
    "num_gpus",
    "architecture",
    "weight_precision",
    "total_params_billions",
    "avg_batch_size",
    "avg_output_len",
    "median_itl_ms",
    "energy_per_token_joules",
    "avg_power_watts",
];

impl RunTable {
    /// Leaves out what ran on several devices: constants are fitted to what one device does.
    pub fn on_one_device(&mut self) {
        for row in self.rows.extract_if(.., |row| row.devices != 1) {
            let reason = format!("on {} GPUs, and constants are fitted to one device", row.devices);
            *self.skipped.entry(reason).or_default() += 1;
        }
    }
}

/// Reads the rows of `path` that ran on devices of the kind of `hw`.
///
/// # Errors
/// A file that is no such table; a number that cannot be; no row for this device.
pub fn read(path: &Path, hw: &Hardware) -> Result<RunTable> {
    let columns = Columns::read(path, &COLUMNS)?;
    rows(&columns, hw).map_err(|error| error.in_file(path))
}

fn rows(columns: &Columns, hw: &Hardware) -> Result<RunTable> {
    let mut table = RunTable { sha256: columns.sha256.clone(), rows: Vec::new(), skipped: BTreeMap::new() };
    for cells in columns.rows() {
        match row(cells, hw)? {
            Ok(row) => table.rows.push(row),
            Err(reason) => *table.skipped.entry(reason).or_default() += 1,
        }
    }
    if table.rows.is_empty() {
        let reasons: Vec<String> =
            table.skipped.iter().map(|(reason, count)| format!("{count} rows: {reason}")).collect();
        let wrong = InputError::expected(format!("rows of known models on {}", hw.title));
        return Err(wrong.found(reasons.join("; ")).into());
    }
    Ok(table)
}

/// The row, or why it is left out.
fn row(cells: Cells, hw: &Hardware) -> Result<std::result::Result<MeasuredRun, String>> {
    let device = cells.text("gpu_model");
    let known = |word: &str| word.eq_ignore_ascii_case(device);
    if !hw.name.split('-').any(known) && !hw.title.split_whitespace().any(known) {
        return Ok(Err(format!("on {device}")));
    }
    let devices = cells.count("num_gpus", 1 << 16)?;
    let architecture = cells.text("architecture");
    if !architecture.to_lowercase().contains("dense") {
        return Ok(Err(format!("a {architecture}, which is not modelled")));
    }
    let precision = cells.text("weight_precision");
    let format = match precision.to_lowercase().as_str() {
        "bfloat16" | "bf16" => Dtype::Bf16,
        "float16" | "fp16" | "f16" => Dtype::F16,
        "fp8" | "float8" => Dtype::Fp8,
        _ => return Ok(Err(format!("weights in {precision}, which is not modelled"))),
    };
    let id = cells.text("model_id").to_owned();
    let billions = cells.number("total_params_billions").ok();
    let Some(shape) = shape_of(&id, billions, format) else {
        return Ok(Err(format!("of {id}, whose shapes are not known")));
    };
    let [batch, output_tokens] = [cells.number("avg_batch_size")?, cells.number("avg_output_len")?];
    for (column, value, most) in
        [("avg_batch_size", batch, 8192.0), ("avg_output_len", output_tokens, 131_072.0)]
    {
        if value > most {
            let wrong = InputError::expected(format!("at most {most}")).key(column);
            return Err(wrong.found(value).line(cells.line()).into());
        }
    }
    Ok(Ok(MeasuredRun {
        line: cells.line(),
        id,
        shape,
        devices,
        task: cells.text("task").to_owned(),
        batch,
        output_tokens,
        itl_s: cells.number("median_itl_ms")? / 1e3,
        joules: cells.number("energy_per_token_joules")?,
        watts: cells.number("avg_power_watts")?,
    }))
}
