//! Rotations of a GGUF file: keys, old ones too, and tables of divisors.

use super::bytes;
use super::gguf::{Entry, Gguf, Value};
use super::tensor::Tensor;
use crate::error::{Error, Result};
use crate::model::{Model, Rope, Scaling};
use std::fs::File;

/// Divisors of angles, one a pair: for any length; for long and for short texts.
const TABLES: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Whether a tensor is such a table.
pub fn holds(called: &str) -> bool {
    TABLES.contains(&called)
}

/// Reads the rotation of all layers, and of those with windows where they have another base.
pub fn read(
    gguf: &Gguf,
    architecture: &str,
    interleaved: bool,
    local_theta: Option<f64>,
    model: &mut Model,
) -> Result<()> {
    let key = |name: &str| format!("{architecture}.{name}");
    let width = gguf.whole_or(&key("rope.dimension_count"), 2..=model.head_dim, model.head_dim)?;
    if !width.is_multiple_of(2) {
        return Err(gguf.wrong(&key("rope.dimension_count"), "an even number, as values turn in pairs"));
    }
    let theta = gguf.positive_or(&key("rope.freq_base"), 10_000.0)?;
    let plain = |theta| Rope { interleaved, ..Rope::plain(theta, width) };
    let scaling = scaling(gguf, architecture, width)?;
    model.rope = Some(Rope { scaling, ..plain(theta) });
    model.local_rope = local_theta.map(plain);
    Ok(())
}

fn scaling(gguf: &Gguf, architecture: &str, width: u64) -> Result<Scaling> {
    let key = |name: &str| format!("{architecture}.{name}");
    let table = |name: &str| gguf.tensors.iter().find(|entry| entry.name == name);
    // 0 says nothing, as absence does.
    let number = |name: &str| match gguf.get(&key(name)) {
        None | Some(Value::Float(0.0)) => Ok(None),
        Some(_) => gguf.positive_or(&key(name), 1.0).map(Some),
    };
    // The old key counts where the new one is absent, and a factor without a type is linear (llama.cpp, `load_hparams`).
    let factor = number("rope.scaling.factor")?.or(number("rope.scale_linear")?).unwrap_or(1.0);
    let original = || gguf.whole(&key("rope.scaling.original_context_length"), 1..=1 << 40);
    let amplitude = number("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let kind = match gguf.get(&key("rope.scaling.type")) {
        None => "linear",
        Some(Value::Text(kind)) => kind.as_str(),
        Some(_) => return Err(gguf.wrong(&key("rope.scaling.type"), "a text")),
    };
    let plain = factor == 1.0 && amplitude == 1.0;
    match (kind, TABLES.map(table)) {
        ("longrope" | "none" | "linear", [None, Some(long), Some(short)]) if factor == 1.0 => {
            let [long, short] = [divisors(gguf, long, width)?, divisors(gguf, short, width)?];
            Ok(Scaling::Long { short, long, original: original()?, amplitude })
        }
        ("none" | "linear", [Some(table), None, None]) if plain => {
            Ok(Scaling::Divisors(divisors(gguf, table, width)?))
        }
        ("none" | "linear", [None, None, None]) if plain => Ok(Scaling::None),
        ("linear", [None, None, None]) if amplitude == 1.0 => Ok(Scaling::Linear { factor }),
        // As llama.cpp computes it (`rope_yarn`): the ramp of the paper, and its length of queries and keys.
        ("yarn", [None, None, None]) => Ok(Scaling::Yarn {
            factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original: original()?,
            amplitude: amplitude * (1.0 + 0.1 * libm::log(factor)),
            truncate: true,
        }),
        _ if amplitude != 1.0 => {
            let what = "1, as only yarn and longrope lengthen queries and keys";
            Err(gguf.wrong(&key("rope.scaling.attn_factor"), what))
        }
        _ => {
            let what = "none, linear, yarn or longrope, with a factor and tables of divisors that fit it";
            Err(gguf.wrong(&key("rope.scaling.type"), what))
        }
    }
}

/// A table of divisors.
fn divisors(gguf: &Gguf, entry: &Entry, width: u64) -> Result<Vec<f64>> {
    let path = &gguf.files[entry.file];
    let wrong = |what: String| -> Error {
        crate::error::InputError::expected(what).key(&entry.name).file(path).into()
    };
    let count: u64 = entry.dims.iter().product();
    if count != width / 2 {
        return Err(wrong(format!("{} numbers, one for each pair", width / 2)));
    }
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let length = entry.format.bytes(count);
    let bytes = bytes::at(&mut file, entry.offset, length).map_err(Error::io(path, "read"))?;
    let values = Tensor { rows: 1, width: count as usize, format: entry.format, bytes }.to_f32();
    if values.iter().any(|value| !value.is_finite() || *value <= 0.0) {
        return Err(wrong("positive numbers".into()));
    }
    Ok(values.into_iter().map(f64::from).collect())
}
