//! Tables of measured power caps and clock locks.

use super::boards::{Board, board};
use crate::error::{Error, InputError, Result};
use crate::kernel::{Density, Kernel};
use crate::units::Dtype;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// What was set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Control {
    /// A power cap in watts.
    Cap(f64),
    /// A clock in MHz, and perhaps a cap in watts.
    Lock(f64, Option<f64>),
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its line in the file, from 1.
    pub line: u64,
    /// What was set.
    pub control: Control,
    /// Units of work a second.
    pub speed: f64,
    /// Mean draw of the board.
    pub watts: f64,
}

/// One workload on one device under several caps or locks.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The device, as the table names it.
    pub device: String,
    /// As a profile.
    pub board: &'static Board,
    /// The workload, as the table names it.
    pub workload: String,
    /// What stands for it.
    pub kernel: Kernel,
    /// The row that draws most: everything is a ratio to it.
    pub reference: Point,
    /// The others, at which at least [`Series::LEAST_SPEED`] of its speed is left.
    pub points: Vec<Point>,
}

/// The workloads that one kernel stands for, and why the other rows are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// SHA-256 of the bytes.
    pub sha256: String,
    /// In the order of the file.
    pub series: Vec<Series>,
    /// Rows left out, by reason.
    pub skipped: BTreeMap<String, usize>,
}

/// Columns that are read.
const COLUMNS: [&str; 11] = [
    "device",
    "workload",
    "precision",
    "phase",
    "batch",
    "control",
    "cap_w",
    "clock_mhz",
    "speed",
    "mean_power_w",
    "power_fix_factor",
];

/// Larger files are refused.
const MOST_BYTES: u64 = 1 << 28;

/// A board that draws this share of its limit is held by the limit, whatever its clock was locked to.
const AT_THE_LIMIT: f64 = 0.97;

/// Fewer rows say little of how a workload follows.
const FEWEST: usize = 3;

impl Series {
    /// Below this share of the speed few would run.
    pub const LEAST_SPEED: f64 = 0.45;
}

/// Reads a table of measured power caps and clock locks.
///
/// # Errors
/// A file that is no such table; a number that cannot be; no row that can be simulated.
pub fn read(path: &Path) -> Result<Table> {
    let found = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    if found > MOST_BYTES {
        let wrong = InputError::expected(format!("a table of at most {MOST_BYTES} bytes"));
        return Err(wrong.file(path).found(format!("{found} bytes")).into());
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    parse(&bytes).map_err(|error| error.in_file(path))
}

fn parse(bytes: &[u8]) -> Result<Table> {
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
    let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut table = Table { sha256, series: Vec::new(), skipped: BTreeMap::new() };
    let mut all: Vec<([String; 4], &'static Board, Kernel, Vec<Point>)> = Vec::new();
    for record in csv.records() {
        let record = record.map_err(broken)?;
        let cells = Cells { record: &record, places: &places };
        let (board, kernel, point) = match cells.row()? {
            Ok(row) => row,
            Err(reason) => {
                *table.skipped.entry(reason).or_default() += 1;
                continue;
            }
        };
        let key = ["device", "workload", "phase", "batch"].map(|column| cells.text(column).to_owned());
        match all.iter_mut().find(|(known, ..)| *known == key) {
            Some((.., points)) => points.push(point),
            None => all.push((key, board, kernel, vec![point])),
        }
    }
    for ([device, workload, ..], board, kernel, points) in all {
        let mut skip = |reason: &str, rows: usize| {
            if rows > 0 {
                *table.skipped.entry(reason.to_owned()).or_default() += rows;
            }
        };
        if points.len() < FEWEST {
            skip(&format!("of workloads of fewer than {FEWEST}"), points.len());
            continue;
        }
        let limit_w = board.hardware()?.power.limit_w.value;
        let held = |point: &Point| {
            matches!(point.control, Control::Lock(..)) && point.watts > AT_THE_LIMIT * limit_w
        };
        let (bound, mut points): (Vec<Point>, Vec<Point>) = points.into_iter().partition(held);
        skip("under a clock lock that the board's power limit held below it", bound.len());
        let most =
            points.iter().copied().reduce(|most, point| if point.watts > most.watts { point } else { most });
        let Some(reference) = most else { continue };
        points.retain(|point| *point != reference);
        let before = points.len();
        points.retain(|point| point.speed >= Series::LEAST_SPEED * reference.speed);
        skip(
            &format!("below {} of the speed of the row that draws most", Series::LEAST_SPEED),
            before - points.len(),
        );
        if !points.is_empty() {
            table.series.push(Series { device, board, workload, kernel, reference, points });
        }
    }
    if table.series.is_empty() {
        let reasons: Vec<String> =
            table.skipped.iter().map(|(reason, rows)| format!("{rows} rows {reason}")).collect();
        let wrong = InputError::expected("rows of known devices under power caps or clock locks");
        return Err(wrong.found(reasons.join("; ")).into());
    }
    Ok(table)
}

struct Cells<'a> {
    record: &'a csv::StringRecord,
    places: &'a [usize; COLUMNS.len()],
}

type Row = (&'static Board, Kernel, Point);

impl Cells<'_> {
    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    fn text(&self, column: &str) -> &str {
        let index = COLUMNS.iter().position(|name| *name == column).unwrap_or_default();
        self.record.get(self.places[index]).unwrap_or_default().trim()
    }

    /// A number; none where the cell is empty.
    fn number(&self, column: &str) -> Result<Option<f64>> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() && value > 0.0 && value < 1e9 => Ok(Some(value)),
            _ => {
                let wrong = InputError::expected("a number above 0 and below 1e9, or nothing").key(column);
                Err(wrong.found(format!("{text:?}")).line(self.line()).into())
            }
        }
    }

    /// The row, or why it is left out.
    fn row(&self) -> Result<std::result::Result<Row, String>> {
        let (speed, watts) = (self.number("speed")?, self.number("mean_power_w")?);
        let (cap, clock) = (self.number("cap_w")?, self.number("clock_mhz")?);
        let factor = self.number("power_fix_factor")?.unwrap_or(1.0);
        let device = self.text("device");
        let Some(board) = board(device) else {
            return Ok(Err(format!("on {device}, of which no profile is made")));
        };
        let Some(kernel) = self.kernel()? else {
            return Ok(Err(format!("of {}, for which no kernel stands", self.text("phase"))));
        };
        let (Some(speed), Some(watts)) = (speed, watts) else {
            return Ok(Err("without a speed or a draw".into()));
        };
        let control = match (self.text("control").contains("clock"), clock, cap) {
            (true, Some(clock), cap) => Control::Lock(clock, cap),
            (false, _, Some(cap)) => Control::Cap(cap),
            _ => return Ok(Err("without a cap or a clock".into())),
        };
        Ok(Ok((board, kernel, Point { line: self.line(), control, speed, watts: watts * factor })))
    }

    /// A product of as many rows as ran together for decoding, of many for prompts and products, a stream for copies. None for what is
    /// neither: training, drafts, prompts and decoding in one figure.
    fn kernel(&self) -> Result<Option<Kernel>> {
        let (phase, precision) = (self.text("phase"), self.text("precision").to_lowercase());
        let has = |word: &str| phase.contains(word);
        let software = self.text("workload");
        let narrow = ["gguf", "int4", "4-bit"].iter().any(|word| precision.contains(word))
            || software.contains("llama.cpp")
            || software.contains("Ollama");
        let (weights, activations) = match () {
            () if narrow => (Dtype::Int4, Dtype::Bf16),
            () if precision.starts_with("fp32") => (Dtype::F32, Dtype::F32),
            () if precision.starts_with("fp8") => (Dtype::Fp8, Dtype::Bf16),
            () => (Dtype::Bf16, Dtype::Bf16),
        };
        let product = |rows: u32| Kernel::MatMul {
            rows,
            inner: 4096,
            columns: 14336,
            weights,
            activations,
            density: Density::Dense,
        };
        if ["train", "draft", "backward", "prefill+"].iter().any(|word| has(word)) {
            return Ok(None);
        }
        if phase.starts_with("decode") {
            let rows = match self.text("batch") {
                "" => 1,
                text => text.parse().ok().filter(|rows| (1..=4096).contains(rows)).ok_or_else(|| {
                    let wrong =
                        InputError::expected("1 to 4096 sequences of a decoding, or nothing").key("batch");
                    wrong.found(format!("{text:?}")).line(self.line())
                })?,
            };
            return Ok(Some(product(rows)));
        }
        Ok(match () {
            () if has("memory") => {
                Some(Kernel::ResidualAdd { rows: 1 << 16, width: 1 << 12, activations: Dtype::F32 })
            }
            () if phase == "prefill" || has("prefill-like") || has("matrix") => Some(product(4096)),
            () => None,
        })
    }
}
