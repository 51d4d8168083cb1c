//! Tables of measured expert layers, as NVIDIA's aiconfigurator publishes them (`moe*`, Apache-2.0).

use super::super::rows::TableFormat;
use super::super::table::{Csv, hexadecimal};
use super::GateShape;
use crate::error::Result;
use crate::kernel::{Density, ExpertLayer, ExpertLoad};
use crate::units::Dtype;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

const COLUMNS: [&str; 10] = [
    "moe_dtype",
    "num_tokens",
    "hidden_size",
    "inter_size",
    "topk",
    "num_experts",
    "moe_tp_size",
    "moe_ep_size",
    "distribution",
    "latency_ms",
];

/// A measured call.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertRow {
    /// Its shape, with the rows that its experts had on average.
    pub shape: ExpertLayer,
    /// Of matrices and of the rows of products.
    pub format: TableFormat,
    /// Layers that are left out together: hidden width, width of an expert, experts that a token takes, experts of a layer.
    pub family: [u32; 4],
    /// Measured time in seconds.
    pub seconds: f64,
}

/// A table as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertTable {
    /// Its rows.
    pub rows: Vec<ExpertRow>,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// What the columns do not say of the models that were measured.
struct Model {
    family: [u32; 4],
    gated: bool,
    plain: bool,
    groups: Option<(u32, u32)>,
}

/// From the models' `config.json`: Nemotron 3 Nano and Super (`mlp_hidden_act` relu2, no gate; Super in a latent width of 1,024), Gemma 4 26B-A4B
/// (`hidden_activation` gelu_pytorch_tanh), MiniMax-M3 (`hidden_act` swigluoai, clamped), DeepSeek-V3 (`n_group` 8, `topk_group` 4).
const MODELS: [Model; 5] = [
    Model { family: [2688, 1856, 6, 128], gated: false, plain: true, groups: None },
    Model { family: [1024, 2688, 22, 512], gated: false, plain: true, groups: None },
    Model { family: [2816, 704, 8, 128], gated: true, plain: false, groups: None },
    Model { family: [6144, 3072, 4, 128], gated: true, plain: false, groups: None },
    Model { family: [7168, 2048, 8, 256], gated: true, plain: true, groups: Some((8, 4)) },
];

/// Reads a table.
///
/// # Errors
/// A file that is no such table: the line, the column, what was found and what was expected.
pub fn read_experts(path: &Path) -> Result<ExpertTable> {
    let mut digest = Sha256::new();
    let csv = Csv::read(path, &COLUMNS, &mut digest)?;
    let mut loads: HashMap<(GateShape, Option<u64>), ExpertLoad> = HashMap::new();
    let mut rows = Vec::new();
    for (line, cells) in csv.lines() {
        let [tokens, width, inner, top, count, tensor, devices] = {
            let mut numbers = [0; 7];
            for (number, column) in numbers.iter_mut().zip(1..) {
                *number = csv.whole(line, cells, column)?;
            }
            numbers
        };
        let (format, dtype) = match cells[0].as_str() {
            "bfloat16" | "float16" => (TableFormat::Sixteen, Dtype::Bf16),
            "fp8" => (TableFormat::Fp8, Dtype::Fp8),
            "fp8_block" => (TableFormat::Fp8Block, Dtype::Fp8Block),
            "nvfp4" => (TableFormat::Nvfp4, Dtype::Fp4),
            // Others widen their weights or were measured under names of their own.
            _ => continue,
        };
        let wrong = |column, expected: &str| csv.wrong(line, cells, column, expected);
        if tokens == 0 || top == 0 || top > count {
            return Err(wrong(4, "tokens, and experts of a token from 1 to those of the layer").into());
        }
        if tensor == 0 || !inner.is_multiple_of(tensor) {
            return Err(wrong(6, "devices that divide the width of an expert").into());
        }
        if devices == 0 || !count.is_multiple_of(devices) {
            return Err(wrong(7, "devices that divide the experts").into());
        }
        let family = [width, inner, top, count];
        let model = MODELS.iter().find(|model| model.family == family);
        let choice =
            GateShape { rows: tokens, count, top, devices, groups: model.and_then(|model| model.groups) };
        let alpha = match cells[8].strip_prefix("power_law_") {
            Some(alpha) => {
                let alpha =
                    alpha.parse().ok().filter(|alpha: &f64| *alpha > 0.0 && *alpha != 1.0 && *alpha < 10.0);
                Some(alpha.ok_or_else(|| wrong(8, "an exponent above 0 and other than 1"))?)
            }
            None if cells[8] == "balanced" => None,
            None => return Err(wrong(8, "balanced, or power_law_ with an exponent").into()),
        };
        let load = loads.entry((choice, alpha.map(f64::to_bits)));
        let load =
            *load.or_insert_with(|| alpha.map_or_else(|| choice.balanced(), |alpha| choice.power_law(alpha)));
        let shape = ExpertLayer {
            rows: tokens,
            width,
            inner: inner / tensor,
            count,
            own: count / devices,
            top,
            gated: model.is_none_or(|model| model.gated),
            plain: model.is_none_or(|model| model.plain),
            load,
            weights: dtype,
            inputs: dtype,
            activations: Dtype::Bf16,
            density: Density::Dense,
        };
        rows.push(ExpertRow {
            shape,
            format,
            family,
            seconds: csv.time(line, cells, 9, "milliseconds")? * 1e-3,
        });
    }
    Ok(ExpertTable { rows, sha256: hexadecimal(digest) })
}
