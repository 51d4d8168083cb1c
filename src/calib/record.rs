//! Raw rows of a calibration as they are kept: one JSON object a line, the environment first.

use super::Probe;
use crate::error::{InputError, Result};
use crate::kernel::Kernel;
use crate::ron_text;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Where and how was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Adapter and driver.
    pub adapter: String,
    /// Processor that plays it or feeds it.
    pub processor: String,
    /// Variables that change the driver.
    pub settings: String,
    /// Version of this program.
    pub version: String,
    /// Day, as the caller says it.
    pub date: String,
    /// Bytes a nanosecond that a copy reads and writes, and that a read reads, of a large buffer.
    pub copy_gb_per_s: f64,
    /// See above.
    pub read_gb_per_s: f64,
    /// Reads of buffers of these bytes: GB/s.
    pub read_by_bytes: Vec<(u64, f64)>,
    /// Multiply-adds in registers: GFLOP/s.
    pub fma_gflops: f64,
    /// A dispatch that does nothing, microseconds.
    pub empty_us: f64,
    /// Chains of small kernels: how many, and the host's microseconds from the first recording to the result.
    pub chains: Vec<(u32, f64)>,
    /// The same arithmetic before and after every visit: lower quartile, median, upper quartile of its microseconds. Times of a visit
    /// are in proportion to the median: what they would have been at that speed of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_us: Option<(f64, f64, f64)>,
    /// What the device drew, where a counter of energy could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<Drawn>,
}

/// Mean power over some seconds of doing one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// Who counted.
    pub counter: String,
    /// Nothing at all.
    pub idle_w: f64,
    /// Dispatches that do nothing, one after the other.
    pub empty_w: f64,
    /// Reads of a large buffer, and at which rate.
    pub read_w: f64,
    /// See above.
    pub read_gb_per_s: f64,
    /// Multiply-adds in registers, and at which rate.
    pub fma_w: f64,
    /// See above.
    pub fma_gflops: f64,
}

/// A measured call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What ran.
    pub kernel: Kernel,
    /// Sequences of an attention call.
    pub sequences: u32,
    /// Rows and columns of a product's tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<(u32, u32)>,
    /// Microseconds: lower quartile, median, upper quartile over all runs.
    pub us: (f64, f64, f64),
    /// Medians of the visits, which lie minutes apart.
    pub visits_us: Vec<f64>,
    /// Runs.
    pub runs: u32,
}

impl Record {
    /// The call.
    pub fn probe(&self) -> Probe {
        Probe { kernel: self.kernel, sequences: self.sequences }
    }

    /// Of the times of several visits.
    pub fn new(probe: Probe, tile: Option<(u32, u32)>, visits: &[Vec<f64>]) -> Record {
        let mut all: Vec<f64> = visits.concat();
        let us = quartiles(&mut all);
        let visits_us = visits.iter().map(|visit| at(&mut visit.clone(), 0.5)).collect();
        Record {
            kernel: probe.kernel,
            sequences: probe.sequences,
            tile,
            us,
            visits_us,
            runs: all.len() as u32,
        }
    }
}

/// Lower quartile, median, upper quartile, rounded to nanoseconds.
pub fn quartiles(us: &mut [f64]) -> (f64, f64, f64) {
    (at(us, 0.25), at(us, 0.5), at(us, 0.75))
}

/// The value below which this share of them lies, rounded to nanoseconds.
fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let value = values[((values.len() - 1) as f64 * share).round() as usize];
    (value * 1e3).round() / 1e3
}

/// All of a calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// Where and how.
    pub environment: Environment,
    /// What.
    pub rows: Vec<Record>,
}

/// Files are at most this long.
const MOST_BYTES: u64 = 64 << 20;

impl Records {
    /// As a file.
    pub fn text(&self) -> String {
        let line = |value: serde_json::Result<String>| value.expect("numbers and words are JSON") + "\n";
        let head = line(serde_json::to_string(&self.environment));
        self.rows.iter().fold(head, |text, row| text + &line(serde_json::to_string(row)))
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> String {
        Sha256::digest(self.text().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A line that is no such object.
    pub fn read(path: &Path) -> Result<Records> {
        let text = ron_text::read(path, "records", MOST_BYTES)?;
        let wrong = |line: u64, error: serde_json::Error| {
            InputError::expected(format!("a line of `radialsim calibrate` ({error})")).file(path).line(line)
        };
        let mut lines = (1..).zip(text.lines());
        let (number, first) = lines.next().unwrap_or((1, ""));
        let environment = serde_json::from_str(first).map_err(|error| wrong(number, error))?;
        let row = |(number, line): (u64, &str)| -> Result<Record> {
            let row: Record = serde_json::from_str(line).map_err(|error| wrong(number, error))?;
            let sound = row.us.1 > 0.0
                && row.us.1.is_finite()
                && row.tile.is_none_or(|(rows, columns)| rows > 0 && columns > 0);
            let expected =
                InputError::expected("a time above 0, tiles above 0").key("us").found(row.us.1).file(path);
            if sound { Ok(row) } else { Err(expected.line(number).into()) }
        };
        Ok(Records { environment, rows: lines.map(row).collect::<Result<_>>()? })
    }

    /// How far visits of one call lie apart: the median over calls of the larger over the smaller median, less one, in percent.
    pub fn drift_percent(&self) -> f64 {
        let apart = |row: &Record| {
            let (low, high) = row
                .visits_us
                .iter()
                .fold((f64::INFINITY, 0.0f64), |(low, high), &us| (low.min(us), high.max(us)));
            100.0 * (high / low - 1.0)
        };
        let mut all: Vec<f64> = self.rows.iter().map(apart).collect();
        if all.is_empty() { 0.0 } else { at(&mut all, 0.5) }
    }
}
