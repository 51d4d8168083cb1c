//! Tables of a model's layers as LLMServingSim 2.0 profiles them in vLLM: `MODEL_dense.csv` (layers by tokens),
//! `MODEL_per_sequence.csv` (head and sampler by sequences), `MODEL_attention.csv` (one call for a chunk of a prompt and for generated
//! tokens, by the shapes of both), and, where it is there, `MODEL_skew.csv` (calls whose generated tokens see contexts of two lengths, beside
//! calls of the same mean). Times are microseconds of the kernels of one layer; those of the last table are sums over several passes, so that
//! only their ratios count.

use super::table::{Csv, hexadecimal};
use crate::error::{Error, InputError, Result};
use crate::kernel::{Attention, Density, Kernel};
use crate::model::{Model, builtin_names};
use crate::units::Dtype;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The tables of a folder.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The model, or the part of it that one device has.
    pub model: Model,
    /// Kernels with their rows and their measured seconds.
    pub by_rows: Vec<(u32, Kernel, f64)>,
    /// Attention.
    pub attention: Vec<AttentionRow>,
    /// Attention over uneven contexts.
    pub uneven: Vec<UnevenCall>,
    /// SHA-256 of the table of these, in hexadecimal digits.
    pub uneven_sha256: String,
    /// SHA-256 of the first three files one after another, in hexadecimal digits.
    pub sha256: String,
}

/// A measured attention call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionRow {
    /// Rows of a chunk of one prompt, and entries before it.
    pub chunk: (u32, u32),
    /// Generated tokens, and entries that each of them sees.
    pub decode: (u32, u32),
    /// Measured time in seconds.
    pub seconds: f64,
    /// A decode call of the model's heads, to be given rows and entries.
    pub heads: Attention,
}

/// A measured attention call whose generated tokens see contexts of two lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnevenCall {
    /// Rows of a chunk of one prompt in the same call, and entries before it.
    pub chunk: (u32, u32),
    /// Generated tokens, and those among them with the longer context.
    pub sequences: (u32, u32),
    /// Entries of the shorter and of the longer context.
    pub contexts: (u32, u32),
    /// Measured time over that of the even call of the same mean.
    pub ratio: f64,
    /// A decode call of the model's heads, to be given rows and entries.
    pub heads: Attention,
}

/// The tables of a folder as files.
#[derive(Clone, Debug)]
pub struct LayerTables {
    /// Those that must be there: `_dense.csv`, `_per_sequence.csv`, `_attention.csv`.
    pub grids: [PathBuf; 3],
    /// `_skew.csv`.
    pub uneven: Option<PathBuf>,
}

/// The tables of a folder, if they are there.
///
/// # Errors
/// Some of the three that belong together, or more than one of a kind.
pub fn find(folder: &Path, files: &[PathBuf]) -> Result<Option<LayerTables>> {
    let one = |ending: &str| -> Result<Option<PathBuf>> {
        let named = |path: &&PathBuf| path.to_string_lossy().ends_with(ending);
        let mut found = files.iter().filter(named);
        match (found.next(), found.next()) {
            (Some(_), Some(second)) => {
                let wrong = InputError::expected("one table of each kind").key(ending).file(folder);
                Err(wrong.found(second.display()).into())
            }
            (first, _) => Ok(first.cloned()),
        }
    };
    let Some(dense) = one("_dense.csv")? else { return Ok(None) };
    let need = |ending: &str| {
        let missing = InputError::expected("this table beside that of the dense layers").key(ending);
        one(ending)?.ok_or_else(|| Error::from(missing.file(folder)))
    };
    let grids = [dense, need("_per_sequence.csv")?, need("_attention.csv")?];
    Ok(Some(LayerTables { grids, uneven: one("_skew.csv")? }))
}

/// Reads them. The model is the built-in one whose name the file names begin with, but for case and punctuation.
///
/// # Errors
/// A file that is no such table: the line, the column, what was found and what was expected.
pub fn read(LayerTables { grids: [dense, per_sequence, attention], uneven }: &LayerTables) -> Result<Layers> {
    let (whole, parts) = (model(dense)?, shards(dense));
    let model = whole.shard(parts.into())?;
    let mut digest = Sha256::new();
    let mut by_rows = Vec::new();
    for (path, count) in [(dense, "tokens"), (per_sequence, "sequences")] {
        let columns = ["layer", count, "time_us"];
        let table = Csv::read(path, &columns, &mut digest)?;
        for (line, cells) in table.lines() {
            let rows = table.whole(line, cells, 1)?.max(1);
            if let Some((kernel, calls)) = layer(&model, &cells[0], rows) {
                // A norm of heads has a row for each head.
                let rows = if let Kernel::Norm { rows: all, .. } = kernel { all } else { rows };
                by_rows.push((rows, kernel, calls * table.seconds(line, cells, 2)?));
            }
        }
    }
    let columns = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"];
    let table = Csv::read(attention, &columns, &mut digest)?;
    let mut calls = Vec::new();
    for (line, cells) in table.lines() {
        let whole = |column| table.whole(line, cells, column);
        calls.push(AttentionRow {
            chunk: (whole(0)?, whole(1)?),
            decode: (whole(2)?, whole(3)?),
            seconds: table.seconds(line, cells, 4)?,
            heads: heads(&model),
        });
    }
    let (uneven, uneven_sha256) = uneven.as_deref().map(read_uneven).transpose()?.unwrap_or_default();
    Ok(Layers { model, by_rows, attention: calls, uneven, uneven_sha256, sha256: hexadecimal(digest) })
}

/// Reads a table `MODEL_skew.csv` and tells its SHA-256. The model is the built-in one whose name the file name begins with; of `MODEL_tp2_skew.csv`
/// each of two devices has half of its heads.
///
/// # Errors
/// A file that is no such table: the line, the column, what was found and what was expected.
pub fn read_uneven(path: &Path) -> Result<(Vec<UnevenCall>, String)> {
    let whole = heads(&model(path)?);
    let parts = shards(path);
    // Heads of the cache are copied where there are fewer than devices.
    let part = |heads: u16| (heads / parts).max(1);
    let heads = Attention { heads: part(whole.heads), kv_heads: part(whole.kv_heads), ..whole };
    let mut digest = Sha256::new();
    let columns = ["n", "nb", "pc", "kp", "kvs", "kv_big", "t_mean_us", "t_skew_us"];
    let table = Csv::read(path, &columns, &mut digest)?;
    let mut calls = Vec::new();
    for (line, cells) in table.lines() {
        let whole = |column| table.whole(line, cells, column);
        let (sequences, longer) = (whole(0)?, whole(1)?);
        let (short, long) = (whole(4)?, whole(5)?);
        if sequences == 0 || longer > sequences || short == 0 {
            return Err(table.wrong(line, cells, 1, "sequences, some of them longer, with entries").into());
        }
        let (even, uneven) = (table.seconds(line, cells, 6)?, table.seconds(line, cells, 7)?);
        calls.push(UnevenCall {
            chunk: (whole(2)?, whole(3)?),
            sequences: (sequences, longer),
            contexts: (short, long),
            ratio: uneven / even,
            heads,
        });
    }
    Ok((calls, hexadecimal(digest)))
}

/// The built-in model that a file is named after.
fn model(path: &Path) -> Result<Model> {
    let plain = |name: &str| name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let name = plain(&path.file_name().unwrap_or_default().to_string_lossy());
    let found = builtin_names().find(|builtin| name.starts_with(&plain(builtin)));
    found.and_then(Model::builtin).ok_or_else(|| {
        let names: Vec<&str> = builtin_names().collect();
        let what = format!("a file named after one of {}", names.join(", "));
        InputError::expected(what).file(path).into()
    })
}

/// How many devices share a layer, as file names tell: `qwen3_32b_tp2_skew.csv`; 1 where the name does not.
fn shards(path: &Path) -> u16 {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let told = name.split('_').find_map(|word| word.strip_prefix("tp")?.parse().ok());
    told.filter(|&parts| parts > 0).unwrap_or(1)
}

/// The kernel of a layer in 16 bits, and how many such calls a layer makes of it; nothing for the last norm, which is another norm of the same shape.
///
/// A row `qk_norm` is the mean of two calls, of queries and of keys, on one device: LLMServingSim states 87.0 us for both at 2048 tokens of
/// Qwen3-32B (profiler/models/qwen3.yaml), where these tables say 42.5. Tables of parts repeat those rows, so that there they are not read.
fn layer(model: &Model, name: &str, rows: u32) -> Option<(Kernel, f64)> {
    let (weights, activations, density) = (Dtype::Bf16, Dtype::Bf16, Density::Dense);
    let (hidden, ffn, q_dim) = (model.hidden as u32, model.ffn as u32, model.q_dim() as u32);
    let (vocabulary, head_dim) = (model.outputs as u32, model.head_dim as u32);
    let layer_norm = false;
    let heads = (model.heads + model.kv_heads) as u32;
    let product = |inner, columns| Kernel::product(rows, [inner, columns], weights, activations, density);
    let kernel = match name {
        "qkv_proj" => product(hidden, q_dim + 2 * model.kv_dim() as u32),
        "o_proj" => product(q_dim, hidden),
        "gate_up_proj" => product(hidden, 2 * ffn),
        "down_proj" => product(ffn, hidden),
        "lm_head" => product(hidden, model.own_outputs() as u32),
        "embedding" => Kernel::Embed { rows, width: hidden, table: weights, activations },
        "layernorm" => Kernel::Norm { rows, width: hidden, groups: 1, layer_norm, activations },
        "qk_norm" if model.shards == 1 => {
            let (rows, width) = (rows * heads, head_dim);
            return Some((Kernel::Norm { rows, width, groups: 1, layer_norm, activations }, 2.0));
        }
        "rotary_emb" => Kernel::Rope { rows, heads, head_dim, activations },
        "act_fn" => Kernel::Activation { rows, width: ffn, gated: true, activations },
        "sampler" => Kernel::Sample { rows, vocabulary, activations },
        _ => return None,
    };
    Some((kernel, 1.0))
}

fn heads(model: &Model) -> Attention {
    Attention {
        rows: 0,
        heads: model.heads as u16,
        kv_heads: model.kv_heads as u16,
        head_dim: model.head_dim as u16,
        decode: true,
        beside: 0,
        waits: 0,
        pairs: 0,
        entries: 0,
        activations: Dtype::Bf16,
        kv: Dtype::Bf16,
    }
}

/// A chunk of so many rows behind so many entries, as a call of its own.
pub(super) fn prefill((rows, before): (u32, u32), heads: Attention) -> Kernel {
    let (count, before) = (u64::from(rows), u64::from(before));
    let (pairs, entries) = (count * before + count * (count + 1) / 2, count + before);
    Kernel::Attention(Attention { rows, decode: false, pairs, entries, ..heads })
}

impl AttentionRow {
    /// The chunk as a call of its own.
    pub fn prefill(&self) -> Kernel {
        prefill(self.chunk, self.heads)
    }

    /// The generated tokens as a call beside the chunk.
    pub fn generation(&self) -> Kernel {
        let (rows, seen) = self.decode;
        let pairs = u64::from(rows) * u64::from(seen);
        Kernel::Attention(Attention { rows, beside: self.chunk.0, pairs, entries: pairs, ..self.heads })
    }
}
