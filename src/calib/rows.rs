//! Tables of measured operators: CSV as in public benchmark data, and the Parquet files of NVIDIA's aiconfigurator.

use crate::error::{Error, InputError, Result};
use crate::kernel::{Attention, Density, Kernel};
use crate::units::Dtype;
use sha2::{Digest, Sha256};
use std::path::Path;

mod layers;
#[cfg(feature = "parquet")]
mod parquet;

pub use layers::{MeasuredOperator, read_layers};

/// Larger tables are refused.
const MOST_BYTES: u64 = 1 << 30;
/// Rows a table may have.
const MOST_ROWS: usize = 10_000_000;

/// What a table measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Matrix products: m, n, k.
    Gemm,
    /// Attention of prompts.
    ContextAttention,
    /// Attention of generated tokens.
    GenerationAttention,
}

impl Operator {
    /// All, with their names.
    pub const ALL: [(Operator, &'static str); 3] = [
        (Operator::Gemm, "gemm"),
        (Operator::ContextAttention, "context_attention"),
        (Operator::GenerationAttention, "generation_attention"),
    ];

    /// Its name on the command line, in profiles, and at the beginning of the names of its tables.
    pub fn name(self) -> &'static str {
        Operator::ALL[self as usize].1
    }

    /// Under which of its tables' names, and of the corrections of a profile, it stands in this format: `gemm_fp8`,
    /// `context_attention_fp8kv`; alone in 16 bits.
    pub fn in_format(self, format: TableFormat) -> Option<String> {
        let ending = match (self, format) {
            (_, TableFormat::Sixteen) => "",
            (Operator::Gemm, TableFormat::Fp8) => "_fp8",
            (Operator::Gemm, TableFormat::Fp8Block) => "_fp8_block",
            (Operator::Gemm, TableFormat::Nvfp4) => "_nvfp4",
            (_, TableFormat::Fp8) => "_fp8kv",
            (_, TableFormat::Nvfp4) => "_nvfp4kv",
            // No engine keeps a cache in blocks of 128 x 128.
            (_, TableFormat::Fp8Block) => return None,
        };
        Some(format!("{}{ending}", self.name()))
    }

    /// Columns of whole numbers that its tables must have.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Operator::Gemm => &["m", "n", "k"],
            Operator::ContextAttention | Operator::GenerationAttention => {
                &["batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim"]
            }
        }
    }

    /// The call that a row measured, in this format.
    pub(super) fn kernel(self, format: TableFormat, numbers: &[u32]) -> Option<Kernel> {
        let (narrow, activations, density) = (format.dtype(), Dtype::Bf16, Density::Dense);
        match (self, numbers) {
            (Operator::Gemm, &[rows, columns, inner]) => {
                let (weights, inputs) = (narrow, narrow);
                Some(Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density })
            }
            (_, &[batch, length, step, heads, kv_heads, head_dim]) => {
                // Tables write 0 for as many KV heads as query heads.
                let kv_heads = if kv_heads == 0 { heads } else { kv_heads };
                let (batch, length, step) = (u64::from(batch), u64::from(length), u64::from(step));
                let pairs = batch.checked_mul(length)?.checked_mul(2 * step + length + 1)? / 2;
                Some(Kernel::Attention(Attention {
                    rows: u32::try_from(batch * length).ok()?,
                    heads: u16::try_from(heads).ok()?,
                    kv_heads: u16::try_from(kv_heads).ok()?,
                    head_dim: u16::try_from(head_dim).ok()?,
                    decode: self == Operator::GenerationAttention,
                    beside: 0,
                    waits: 0,
                    pairs,
                    entries: batch * (length + step),
                    activations,
                    kv: narrow,
                }))
            }
            _ => None,
        }
    }
}

/// Format in which a table measures products, inputs and weights alike, or the cache of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// bfloat16 or float16.
    Sixteen,
    /// 8-bit floats, one scale a tensor.
    Fp8,
    /// 8-bit floats, a scale for each 128 values of a row and each 128 x 128 weights.
    Fp8Block,
    /// 4-bit floats, a scale for each 16.
    Nvfp4,
}

impl TableFormat {
    /// All.
    pub const ALL: [TableFormat; 4] =
        [TableFormat::Sixteen, TableFormat::Fp8, TableFormat::Fp8Block, TableFormat::Nvfp4];

    fn dtype(self) -> Dtype {
        match self {
            TableFormat::Sixteen => Dtype::Bf16,
            TableFormat::Fp8 => Dtype::Fp8,
            TableFormat::Fp8Block => Dtype::Fp8Block,
            TableFormat::Nvfp4 => Dtype::Fp4,
        }
    }

    /// What tables call it.
    fn names(self) -> &'static [&'static str] {
        match self {
            TableFormat::Sixteen => SIXTEEN_BITS,
            TableFormat::Fp8 => &["fp8"],
            TableFormat::Fp8Block => &["fp8_block"],
            TableFormat::Nvfp4 => &["nvfp4"],
        }
    }
}

/// A measured call.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredCall {
    /// Its shape.
    pub kernel: Kernel,
    /// Shapes that are kept aside or fitted together: a pair (n, k), a head configuration.
    pub family: [u32; 3],
    /// Measured time in seconds; 0 where the table has none.
    pub seconds: f64,
}

/// A table as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct CallTable {
    /// What it measures.
    pub operator: Operator,
    /// In which format.
    pub format: TableFormat,
    /// Its rows.
    pub rows: Vec<MeasuredCall>,
    /// Names of its columns, and the text of each row, where it was CSV.
    pub text: (Vec<String>, Vec<Vec<String>>),
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

const SIXTEEN_BITS: &[&str] = &["bfloat16", "float16", "bf16", "fp16"];

/// Columns with the values that are taken; rows with others measured another format, or another kernel: attention in a sliding window,
/// several beams. Tables without such a column measure what they are said to. Further columns (framework, version, device, kernel) are not
/// looked at.
fn taken(format: TableFormat) -> [(&'static str, &'static [&'static str]); 5] {
    [
        ("gemm_dtype", format.names()),
        ("attn_dtype", SIXTEEN_BITS),
        ("kv_cache_dtype", format.names()),
        ("window_size", &["0", "-1", ""]),
        ("beam_width", &["1", ""]),
    ]
}

/// Reads a table. Times stand in a column `latency_ms` or `latency`, in milliseconds; without `timed` they may be missing.
///
/// # Errors
/// A file that is no such table: the line, the column, what was found and what was expected.
pub fn read(path: &Path, operator: Operator, format: TableFormat, timed: bool) -> Result<CallTable> {
    let size = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    if size > MOST_BYTES {
        return Err(InputError::expected("a table of at most 1 GiB").found(size).file(path).into());
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let digest = Sha256::digest(&bytes);
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = if path.extension().is_some_and(|ending| ending == "parquet") {
        parquet_text(bytes, path)?
    } else {
        csv_text(&bytes).map_err(|error| Error::from(error.file(path)))?
    };
    if operator.in_format(format).is_none() {
        let wrong = InputError::expected("fp8 or nvfp4, as no cache is kept in blocks of 128 x 128");
        return Err(wrong.key("format").found("fp8_block").into());
    }
    let rows = rows((operator, format), &text, timed).map_err(|error| Error::from(error.file(path)))?;
    Ok(CallTable { operator, format, rows, text, sha256 })
}

type Text = (Vec<String>, Vec<Vec<String>>);

#[cfg(feature = "parquet")]
fn parquet_text(bytes: Vec<u8>, path: &Path) -> Result<Text> {
    parquet::text(bytes, MOST_ROWS).map_err(|error| error.file(path).into())
}

#[cfg(not(feature = "parquet"))]
fn parquet_text(_: Vec<u8>, path: &Path) -> Result<Text> {
    Err(InputError::expected("CSV; this program was built without Parquet").file(path).into())
}

fn csv_text(bytes: &[u8]) -> std::result::Result<Text, InputError> {
    let wrong = |error: csv::Error| {
        let line = error.position().map(csv::Position::line);
        let mistake = InputError::expected(format!("CSV with a header ({error})"));
        line.map_or(mistake.clone(), |line| mistake.line(line))
    };
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(wrong)?.iter().map(|name| name.trim().to_owned()).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        rows.push(record.map_err(wrong)?.iter().map(str::to_owned).collect());
        if rows.len() > MOST_ROWS {
            return Err(InputError::expected(format!("at most {MOST_ROWS} rows")));
        }
    }
    Ok((header, rows))
}

fn rows(
    (operator, format): (Operator, TableFormat),
    text: &Text,
    timed: bool,
) -> std::result::Result<Vec<MeasuredCall>, InputError> {
    let (header, lines) = text;
    let place = |name: &str| header.iter().position(|column| column == name);
    let missing =
        |name: &str| InputError::expected("a column of this name").key(name).found(header.join(",")).line(1);
    let columns: Vec<usize> = operator
        .columns()
        .iter()
        .map(|name| place(name).ok_or_else(|| missing(name)))
        .collect::<std::result::Result<_, _>>()?;
    let latency = place("latency_ms").or_else(|| place("latency"));
    if timed && latency.is_none() {
        return Err(missing("latency_ms"));
    }
    let formats: Vec<_> =
        taken(format).into_iter().filter_map(|(name, taken)| Some((place(name)?, taken))).collect();
    let mut out = Vec::new();
    for (line, cells) in (2..).zip(lines) {
        if !formats.iter().all(|(column, taken)| taken.contains(&cells[*column].trim())) {
            continue;
        }
        let mut numbers = Vec::with_capacity(columns.len());
        for (&column, name) in columns.iter().zip(operator.columns()) {
            let number = cells[column].trim().parse().ok().filter(|&number: &u32| number <= 1 << 30);
            let wrong = || InputError::expected("a whole number").key(*name).found(&cells[column]).line(line);
            numbers.push(number.ok_or_else(wrong)?);
        }
        let kernel = operator.kernel(format, &numbers);
        let wrong = || InputError::expected("a call of a possible size").found(cells.join(",")).line(line);
        let kernel = kernel.ok_or_else(wrong)?;
        let seconds = match latency {
            Some(column) if timed => {
                let cell = &cells[column];
                let wrong = || {
                    InputError::expected("milliseconds above 0").key(&header[column]).found(cell).line(line)
                };
                let time: f64 = cell.trim().parse().map_err(|_| wrong())?;
                if !(time > 0.0 && time < 1e9) {
                    return Err(wrong());
                }
                time * 1e-3
            }
            _ => 0.0,
        };
        let family = match operator {
            Operator::Gemm => [numbers[1], numbers[2], 0],
            _ => [numbers[3], numbers[4], numbers[5]],
        };
        out.push(MeasuredCall { kernel, family, seconds });
    }
    Ok(out)
}
