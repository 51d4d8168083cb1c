//! Tables of measured runs of serving engines, end to end: a row for each closed loop, with mean time to the first token and mean time per output token.

use super::columns::{Cells, Columns};
use super::run_model::shape_of;
use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::units::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// A closed loop of clients, each of which sends its next request once it has the answer to its last one.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredEnd {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The built-in model that stands for what the row names.
    pub model: String,
    /// The shipped profile of the device that the row names.
    pub hardware: String,
    /// The serving engine, in small letters.
    pub engine: String,
    /// Devices that compute the model together, each with an equal part of every layer.
    pub devices: u32,
    /// Format of the products' weights and inputs.
    pub precision: String,
    /// Tokens of a prompt.
    pub prompt_tokens: u32,
    /// Tokens of an answer.
    pub output_tokens: u32,
    /// Clients.
    pub clients: u32,
    /// Mean time to the first token, seconds.
    pub ttft_s: f64,
    /// Mean time per output token behind the first, seconds.
    pub tpot_s: f64,
}

/// The rows that can be simulated, and why the others cannot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasuredEnds {
    /// In the order of the file.
    pub rows: Vec<MeasuredEnd>,
    /// Rows left out, by reason.
    pub skipped: BTreeMap<String, usize>,
}

/// Columns that are read; others are not looked at.
const COLUMNS: [&str; 10] = [
    "model_path",
    "system",
    "backend",
    "gemm_quant_mode",
    "tp_size",
    "isl",
    "osl",
    "batch_size",
    "silicon_ttft_ms",
    "silicon_tpot_ms",
];

/// Reads a table.
///
/// # Errors
/// A file that is no such table; a number that cannot be; no row that can be simulated.
pub fn read_ends(path: &Path) -> Result<MeasuredEnds> {
    ends(&Columns::read(path, &COLUMNS)?).map_err(|error| error.file(path).into())
}

fn ends(columns: &Columns) -> std::result::Result<MeasuredEnds, InputError> {
    let mut table = MeasuredEnds::default();
    for cells in columns.rows() {
        match end(cells)? {
            Ok(row) => table.rows.push(row),
            Err(reason) => *table.skipped.entry(reason).or_default() += 1,
        }
    }
    if table.rows.is_empty() {
        let reasons: Vec<String> =
            table.skipped.iter().map(|(reason, count)| format!("{count} rows {reason}")).collect();
        let wrong = InputError::expected("rows of known models and devices");
        return Err(wrong.found(reasons.join("; ")));
    }
    Ok(table)
}

/// The row, or why it is left out.
fn end(cells: Cells) -> std::result::Result<std::result::Result<MeasuredEnd, String>, InputError> {
    let system = cells.text("system");
    let Some(hardware) = device(system) else {
        return Ok(Err(format!("on {system}, of which no profile is shipped")));
    };
    let id = cells.text("model_path");
    let Some(shape) = shape_of(id, None, Dtype::Bf16) else {
        return Ok(Err(format!("of {id}, whose shapes are not known")));
    };
    Ok(Ok(MeasuredEnd {
        line: cells.line(),
        model: shape.model.name,
        hardware,
        engine: cells.text("backend").to_lowercase(),
        devices: cells.count("tp_size", 1 << 16)?,
        precision: cells.text("gemm_quant_mode").to_lowercase(),
        prompt_tokens: cells.count("isl", 1 << 20)?,
        output_tokens: cells.count("osl", 1 << 20)?,
        clients: cells.count("batch_size", 8192)?,
        ttft_s: cells.number("silicon_ttft_ms")? / 1e3,
        tpot_s: cells.number("silicon_tpot_ms")? / 1e3,
    }))
}

/// The shipped profile that `h100_sxm` and the like mean: all words of the name stand in the profile's, in their order. The shortest such name; of equal
/// ones the first that is shipped, the A100 of 80 GB.
fn device(system: &str) -> Option<String> {
    let words: Vec<String> = system.to_lowercase().split(['_', '-', ' ']).map(str::to_owned).collect();
    let within = |name: &&str| {
        let mut parts = name.split('-');
        words.iter().all(|word| parts.any(|part| part == word))
    };
    Hardware::shipped_names().into_iter().filter(within).min_by_key(|name| name.len()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Columns, MeasuredEnds, device, ends};
    use crate::error::InputError;

    fn parse(bytes: &[u8]) -> Result<MeasuredEnds, InputError> {
        ends(&Columns::parse(bytes, &COLUMNS)?)
    }

    const HEAD: &str = "model_path,system,backend,gemm_quant_mode,tp_size,isl,osl,batch_size,silicon_ttft_ms,silicon_tpot_ms\n";

    #[test]
    fn names_of_devices_and_models_are_found() {
        assert_eq!(device("h100_sxm").as_deref(), Some("nvidia-h100-sxm"));
        assert_eq!(device("a100_sxm"), Some("nvidia-a100-sxm-80gb".into()));
        assert_eq!(device("z9"), None);
        let rows = parse(format!("{HEAD}meta-llama/Llama-3.1-70B,h200_sxm,vLLM,fp8,1,1024,8192,8,247.3,24.1\nQwen/Qwen3-32B,h100_sxm,trtllm,fp8,2,1024,128,8,1,1\nno/model,h100_sxm,trtllm,fp8,1,1024,128,8,1,1\n").as_bytes()).expect("rows");
        let row = &rows.rows[0];
        assert_eq!(
            (row.model.as_str(), row.hardware.as_str(), row.engine.as_str()),
            ("llama-3.1-70b", "nvidia-h200-sxm", "vllm")
        );
        assert_eq!((row.prompt_tokens, row.output_tokens, row.clients, row.line), (1024, 8192, 8, 2));
        assert_eq!(rows.rows.iter().map(|row| row.devices).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            rows.skipped.iter().collect::<Vec<_>>(),
            [(&"of no/model, whose shapes are not known".to_owned(), &1)]
        );
    }

    #[test]
    fn what_is_no_such_table_is_refused() {
        for (text, say) in [
            ("a,b\n1,2\n".to_owned(), "model_path"),
            (format!("{HEAD}meta-llama/Llama-3.1-70B,h200_sxm,vllm,fp8,1,0,8,8,2,2\n"), "isl"),
            (format!("{HEAD}meta-llama/Llama-3.1-70B,h200_sxm,vllm,fp8,1,8,8,8,2,NaN\n"), "silicon_tpot_ms"),
            (format!("{HEAD}x,h200_sxm,vllm,fp8,1,8,8,8,2,2\n"), "whose shapes are not known"),
            (format!("{HEAD}meta-llama/Llama-3.1-70B,h200_sxm,vllm\n"), "as many cells"),
        ] {
            let error = parse(text.as_bytes()).expect_err(say).to_string();
            assert!(error.contains(say), "{say}: {error}");
        }
    }
}
