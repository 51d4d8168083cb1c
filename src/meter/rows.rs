//! Tables of measured serving runs: CSV with the columns of the ML.ENERGY benchmark.

use super::shape::{Shape, shape_of};
use crate::error::{Error, InputError, Result};
use crate::hw::Hardware;
use crate::units::Dtype;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// A measured run on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The model, as the table names it.
    pub id: String,
    /// Its shapes.
    pub shape: Shape,
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
pub struct Table {
    /// SHA-256 of the bytes.
    pub sha256: String,
    /// In the order of the file.
    pub rows: Vec<Measured>,
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

/// Larger files are refused.
const MOST_BYTES: u64 = 1 << 30;

/// Reads the rows of `path` that ran on one device of the kind of `hw`.
///
/// # Errors
/// A file that is no such table; a number that cannot be; no row for this device.
pub fn read(path: &Path, hw: &Hardware) -> Result<Table> {
    let found = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    if found > MOST_BYTES {
        let wrong = InputError::expected(format!("a table of at most {MOST_BYTES} bytes"));
        return Err(wrong.file(path).found(format!("{found} bytes")).into());
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    parse(&bytes, hw, sha256).map_err(|error| error.in_file(path))
}

fn parse(bytes: &[u8], hw: &Hardware, sha256: String) -> Result<Table> {
    let mut csv = csv::Reader::from_reader(bytes);
    let broken = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        InputError::expected("a CSV file whose rows have as many cells as the first").line(line)
    };
    let header = csv.headers().map_err(broken)?.clone();
    let mut places = [0; COLUMNS.len()];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let Some(found) = header.iter().position(|known| known.trim() == name) else {
            let wrong = InputError::expected(format!("the columns {}", COLUMNS.join(", ")));
            return Err(wrong.key(name).found("none").line(1).into());
        };
        *place = found;
    }
    let mut table = Table { sha256, rows: Vec::new(), skipped: BTreeMap::new() };
    for record in csv.records() {
        let record = record.map_err(broken)?;
        let cells = Cells { record: &record, places: &places };
        match cells.row(hw)? {
            Ok(row) => table.rows.push(row),
            Err(reason) => *table.skipped.entry(reason).or_default() += 1,
        }
    }
    if table.rows.is_empty() {
        let reasons: Vec<String> =
            table.skipped.iter().map(|(reason, count)| format!("{count} rows: {reason}")).collect();
        let wrong = InputError::expected(format!("rows of known models on one {}", hw.title));
        return Err(wrong.found(reasons.join("; ")).into());
    }
    Ok(table)
}

struct Cells<'a> {
    record: &'a csv::StringRecord,
    places: &'a [usize; COLUMNS.len()],
}

impl Cells<'_> {
    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    fn text(&self, column: &str) -> &str {
        let index = COLUMNS.iter().position(|name| *name == column).unwrap_or_default();
        self.record.get(self.places[index]).unwrap_or_default().trim()
    }

    fn number(&self, column: &str) -> Result<f64> {
        let text = self.text(column);
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() && value > 0.0 && value < 1e9 => Ok(value),
            _ => {
                let wrong = InputError::expected("a number above 0 and below 1e9").key(column);
                Err(wrong.found(format!("{text:?}")).line(self.line()).into())
            }
        }
    }

    /// The row, or why it is left out.
    fn row(&self, hw: &Hardware) -> Result<std::result::Result<Measured, String>> {
        let device = self.text("gpu_model");
        let known = |word: &str| word.eq_ignore_ascii_case(device);
        if !hw.name.split('-').any(known) && !hw.title.split_whitespace().any(known) {
            return Ok(Err(format!("on {device}")));
        }
        let gpus = self.number("num_gpus")?;
        if gpus != 1.0 {
            return Ok(Err(format!("on {gpus} GPUs, and one device is simulated")));
        }
        let architecture = self.text("architecture");
        if !architecture.to_lowercase().contains("dense") {
            return Ok(Err(format!("a {architecture}, which is not modelled")));
        }
        let precision = self.text("weight_precision");
        let format = match precision.to_lowercase().as_str() {
            "bfloat16" | "bf16" => Dtype::Bf16,
            "float16" | "fp16" | "f16" => Dtype::F16,
            "fp8" | "float8" => Dtype::Fp8,
            _ => return Ok(Err(format!("weights in {precision}, which is not modelled"))),
        };
        let id = self.text("model_id").to_owned();
        let billions = self.number("total_params_billions").ok();
        let Some(shape) = shape_of(&id, billions, format) else {
            return Ok(Err(format!("of {id}, whose shapes are not known")));
        };
        let [batch, output_tokens] = [self.number("avg_batch_size")?, self.number("avg_output_len")?];
        for (column, value, most) in
            [("avg_batch_size", batch, 8192.0), ("avg_output_len", output_tokens, 131_072.0)]
        {
            if value > most {
                let wrong = InputError::expected(format!("at most {most}")).key(column);
                return Err(wrong.found(value).line(self.line()).into());
            }
        }
        Ok(Ok(Measured {
            line: self.line(),
            id,
            shape,
            task: self.text("task").to_owned(),
            batch,
            output_tokens,
            itl_s: self.number("median_itl_ms")? / 1e3,
            joules: self.number("energy_per_token_joules")?,
            watts: self.number("avg_power_watts")?,
        }))
    }
}
