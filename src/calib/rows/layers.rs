//! Tables of the operators of a transformer layer, one row for each number of tokens, as Vidur's profiler writes them
//! (microsoft/vidur, `mlp.csv`): a column `time_stats.NAME.median` in milliseconds for each operator.

use super::{MOST_BYTES, MeasuredCall, csv_text};
use crate::error::{Error, InputError, Result};
use crate::kernel::{Density, Kernel};
use crate::units::Dtype;
use std::path::Path;

/// An operator of a layer with what was measured of it.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredOperator {
    /// As the table calls it.
    pub operator: &'static str,
    /// Whether it is a matrix product with the weights of the layer.
    pub projection: bool,
    /// Its calls with their median times. Their family: columns, inner width (0 where there is none), tensor-parallel degree.
    pub rows: Vec<MeasuredCall>,
}

/// A row's shape, per worker of a tensor-parallel group.
struct Shape {
    tokens: u32,
    hidden: u32,
    ffn: u32,
    query: u32,
    key_value: u32,
    head_dim: u32,
    gated: bool,
    workers: u32,
}

/// An operator's name and its call.
type Known = (&'static str, fn(&Shape) -> Kernel);

/// The operators that this reader knows, with the kernel that each is; in float16, as Vidur runs.
const OPERATORS: [Known; 10] = [
    ("attn_pre_proj", |s| product(s, s.hidden, s.query + 2 * s.key_value)),
    ("attn_post_proj", |s| product(s, s.query, s.hidden)),
    ("mlp_up_proj", |s| product(s, s.hidden, if s.gated { 2 * s.ffn } else { s.ffn })),
    ("mlp_down_proj", |s| product(s, s.ffn, s.hidden)),
    ("input_layernorm", norm),
    ("post_attention_layernorm", norm),
    ("attn_rope", |s| Kernel::Rope {
        rows: s.tokens,
        heads: (s.query + s.key_value) / s.head_dim,
        head_dim: s.head_dim,
        activations: Dtype::F16,
    }),
    ("mlp_act", |s| Kernel::Activation {
        rows: s.tokens,
        width: s.ffn,
        gated: s.gated,
        activations: Dtype::F16,
    }),
    ("add", |s| Kernel::ResidualAdd { rows: s.tokens, width: s.hidden, activations: Dtype::F16 }),
    ("emb", |s| Kernel::Embed {
        rows: s.tokens,
        width: s.hidden,
        table: Dtype::F16,
        activations: Dtype::F16,
    }),
];

fn product(shape: &Shape, inner: u32, columns: u32) -> Kernel {
    Kernel::product(shape.tokens, [inner, columns], Dtype::F16, Dtype::F16, Density::Dense)
}

fn norm(shape: &Shape) -> Kernel {
    let (rows, width) = (shape.tokens, shape.hidden);
    Kernel::Norm { rows, width, groups: 1, layer_norm: false, activations: Dtype::F16 }
}

/// Reads such a table: the operators it has of those known.
///
/// # Errors
/// A file that is no such table: the line, the column, what was found and what was expected.
pub fn read_layers(path: &Path) -> Result<Vec<MeasuredOperator>> {
    let size = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    if size > MOST_BYTES {
        return Err(InputError::expected("a table of at most 1 GiB").found(size).file(path).into());
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    layers(&bytes).map_err(|error| error.file(path).into())
}

fn layers(bytes: &[u8]) -> std::result::Result<Vec<MeasuredOperator>, InputError> {
    let (header, lines) = csv_text(bytes)?;
    let place = |name: &str| header.iter().position(|column| column == name);
    let needed = |name: &str| {
        let missing =
            || InputError::expected("a column of this name").key(name).found(header.join(",")).line(1);
        place(name).ok_or_else(missing)
    };
    let [tokens, workers, heads, kv_heads, hidden, ffn, gated] = [
        "num_tokens",
        "num_tensor_parallel_workers",
        "n_head",
        "n_kv_head",
        "n_embd",
        "n_expanded_embd",
        "use_gated_mlp",
    ]
    .map(needed);
    let numbers = [tokens?, workers?, heads?, kv_heads?, hidden?, ffn?];
    let gated = gated?;
    let mut shapes = Vec::with_capacity(lines.len());
    for (line, cells) in (2..).zip(&lines) {
        let mut values = [0; 6];
        for (value, &column) in values.iter_mut().zip(&numbers) {
            let number = cells[column].trim().parse().ok().filter(|number| (1..=1 << 24).contains(number));
            let wrong = || {
                InputError::expected("a whole number above 0")
                    .key(&header[column])
                    .found(&cells[column])
                    .line(line)
            };
            *value = number.ok_or_else(wrong)?;
        }
        let [tokens, workers, heads, kv_heads, hidden, ffn] = values;
        let fits = hidden % heads == 0 && heads % workers == 0 && ffn % workers == 0;
        if !fits {
            let expected = "heads that divide the width, workers that divide heads and the inner width";
            return Err(InputError::expected(expected).found(cells.join(",")).line(line));
        }
        let gated = match cells[gated].trim() {
            "True" | "true" => true,
            "False" | "false" => false,
            other => {
                let wrong = InputError::expected("True or False").key("use_gated_mlp");
                return Err(wrong.found(other).line(line));
            }
        };
        let head_dim = hidden / heads;
        // A worker has one KV head where there are fewer than workers.
        let (query, key_value) = (heads / workers * head_dim, (kv_heads / workers).max(1) * head_dim);
        shapes.push(Shape { tokens, hidden, ffn: ffn / workers, query, key_value, head_dim, gated, workers });
    }
    let mut out = Vec::new();
    for (operator, kernel) in OPERATORS {
        let Some(column) = place(&format!("time_stats.{operator}.median")) else { continue };
        let mut rows = Vec::with_capacity(shapes.len());
        for ((line, cells), shape) in (2..).zip(&lines).zip(&shapes) {
            let time = cells[column].trim().parse().ok().filter(|&time: &f64| time > 0.0 && time < 1e9);
            let wrong = || {
                InputError::expected("milliseconds above 0")
                    .key(&header[column])
                    .found(&cells[column])
                    .line(line)
            };
            let kernel = kernel(shape);
            let family = match kernel {
                Kernel::MatMul { inner, columns, .. } => [columns, inner, shape.workers],
                _ => [0, 0, shape.workers],
            };
            rows.push(MeasuredCall { kernel, family, seconds: time.ok_or_else(wrong)? * 1e-3 });
        }
        let projection = rows.first().is_some_and(|row| matches!(row.kernel, Kernel::MatMul { .. }));
        out.push(MeasuredOperator { operator, projection, rows });
    }
    if out.is_empty() {
        let expected = "a column time_stats.NAME.median for an operator that is known";
        return Err(InputError::expected(expected).found(header.join(",")).line(1));
    }
    Ok(out)
}
