//! Tables of measured power caps and clock locks.

use super::super::columns::{Cells, Columns};
use super::boards::{Board, board};
use crate::error::{InputError, Result};
use crate::kernel::{Density, Kernel};
use crate::units::Dtype;
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
pub struct CapRow {
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
pub struct CapSeries {
    /// The device, as the table names it.
    pub device: String,
    /// As a profile.
    pub board: &'static Board,
    /// The workload, as the table names it.
    pub workload: String,
    /// What stands for it.
    pub kernel: Kernel,
    /// The row that draws most: everything is a ratio to it.
    pub reference: CapRow,
    /// The others, at which at least [`CapSeries::LEAST_SPEED`] of its speed is left.
    pub points: Vec<CapRow>,
}

/// The workloads that one kernel stands for, and why the other rows are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct CapTable {
    /// SHA-256 of the bytes.
    pub sha256: String,
    /// In the order of the file.
    pub series: Vec<CapSeries>,
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

/// A board that draws this share of its limit is held by the limit, whatever its clock was locked to.
const AT_THE_LIMIT: f64 = 0.97;

/// Fewer rows say little of how a workload follows.
const FEWEST: usize = 3;

impl CapSeries {
    /// Below this share of the speed few would run.
    pub const LEAST_SPEED: f64 = 0.45;
}

/// Reads a table of measured power caps and clock locks.
///
/// # Errors
/// A file that is no such table; a number that cannot be; no row that can be simulated.
pub fn read(path: &Path) -> Result<CapTable> {
    series(&Columns::read(path, &COLUMNS)?).map_err(|error| error.in_file(path))
}

fn series(columns: &Columns) -> Result<CapTable> {
    let mut table = CapTable { sha256: columns.sha256.clone(), series: Vec::new(), skipped: BTreeMap::new() };
    let mut all: Vec<([String; 4], &'static Board, Kernel, Vec<CapRow>)> = Vec::new();
    for cells in columns.rows() {
        let (board, kernel, point) = match row(cells)? {
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
        let held = |point: &CapRow| {
            matches!(point.control, Control::Lock(..)) && point.watts > AT_THE_LIMIT * limit_w
        };
        let (bound, mut points): (Vec<CapRow>, Vec<CapRow>) = points.into_iter().partition(held);
        skip("under a clock lock that the board's power limit held below it", bound.len());
        let most =
            points.iter().copied().reduce(|most, point| if point.watts > most.watts { point } else { most });
        let Some(reference) = most else { continue };
        points.retain(|point| *point != reference);
        let before = points.len();
        points.retain(|point| point.speed >= CapSeries::LEAST_SPEED * reference.speed);
        skip(
            &format!("below {} of the speed of the row that draws most", CapSeries::LEAST_SPEED),
            before - points.len(),
        );
        if !points.is_empty() {
            table.series.push(CapSeries { device, board, workload, kernel, reference, points });
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

type Row = (&'static Board, Kernel, CapRow);

/// A number; none where the cell is empty.
fn number(cells: Cells, column: &str) -> Result<Option<f64>> {
    if cells.text(column).is_empty() { Ok(None) } else { Ok(Some(cells.number(column)?)) }
}

/// The row, or why it is left out.
fn row(cells: Cells) -> Result<std::result::Result<Row, String>> {
    let (speed, watts) = (number(cells, "speed")?, number(cells, "mean_power_w")?);
    let (cap, clock) = (number(cells, "cap_w")?, number(cells, "clock_mhz")?);
    let factor = number(cells, "power_fix_factor")?.unwrap_or(1.0);
    let device = cells.text("device");
    let Some(board) = board(device) else {
        return Ok(Err(format!("on {device}, of which no profile is made")));
    };
    let Some(kernel) = kernel(cells)? else {
        return Ok(Err(format!("of {}, for which no kernel stands", cells.text("phase"))));
    };
    let (Some(speed), Some(watts)) = (speed, watts) else {
        return Ok(Err("without a speed or a draw".into()));
    };
    let control = match (cells.text("control").contains("clock"), clock, cap) {
        (true, Some(clock), cap) => Control::Lock(clock, cap),
        (false, _, Some(cap)) => Control::Cap(cap),
        _ => return Ok(Err("without a cap or a clock".into())),
    };
    Ok(Ok((board, kernel, CapRow { line: cells.line(), control, speed, watts: watts * factor })))
}

/// A product of as many rows as ran together for decoding, of many for prompts and products, a stream for copies. None for what is
/// neither: training, drafts, prompts and decoding in one figure.
fn kernel(cells: Cells) -> Result<Option<Kernel>> {
    let (phase, precision) = (cells.text("phase"), cells.text("precision").to_lowercase());
    let has = |word: &str| phase.contains(word);
    let software = cells.text("workload");
    let narrow = ["gguf", "int4", "4-bit"].iter().any(|word| precision.contains(word))
        || software.contains("llama.cpp")
        || software.contains("Ollama");
    let (weights, activations) = match () {
        () if narrow => (Dtype::Int4, Dtype::Bf16),
        () if precision.starts_with("fp32") => (Dtype::F32, Dtype::F32),
        () if precision.starts_with("fp8") => (Dtype::Fp8, Dtype::Bf16),
        () => (Dtype::Bf16, Dtype::Bf16),
    };
    let product = |rows: u32| Kernel::product(rows, [4096, 14336], weights, activations, Density::Dense);
    if ["train", "draft", "backward", "prefill+"].iter().any(|word| has(word)) {
        return Ok(None);
    }
    if phase.starts_with("decode") {
        let rows = match cells.text("batch") {
            "" => 1,
            text => text.parse().ok().filter(|rows| (1..=4096).contains(rows)).ok_or_else(|| {
                let wrong =
                    InputError::expected("1 to 4096 sequences of a decoding, or nothing").key("batch");
                wrong.found(format!("{text:?}")).line(cells.line())
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
