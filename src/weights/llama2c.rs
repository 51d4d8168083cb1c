//! The `.bin` files of llama2.c (`run.c` of karpathy/llama2.c, version 0): seven 32-bit integers, then all weights as f32.

use super::{Checkpoint, LayerTensor, Name, Place, TensorFormat, Words, bytes};
use crate::error::{Error, InputError, Result};
use crate::model::{Model, Rope};
use crate::units::Dtype;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

const HEADER: [&str; 7] = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"];
const HEADER_BYTES: u64 = 28;

/// Opens a `.bin` file.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    let wrong = |key: &str, found: &dyn std::fmt::Display, what: String| -> Error {
        InputError::expected(what).key(key).found(found).file(path).into()
    };
    if length < HEADER_BYTES {
        return Err(wrong("header", &format!("{length} bytes"), format!("at least {HEADER_BYTES}")));
    }
    let header = bytes::at(&mut file, 0, HEADER_BYTES).map_err(Error::io(path, "read"))?;
    let mut numbers = [0u64; 7];
    let mut tied = true;
    for (index, (number, bytes)) in numbers.iter_mut().zip(header.chunks_exact(4)).enumerate() {
        let found = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        // A negative vocabulary says that the head is a matrix of its own.
        let value = if index == 5 { found.unsigned_abs() } else { found.max(0) as u32 };
        tied &= index != 5 || found > 0;
        if !(1..=1 << 24).contains(&value) {
            return Err(wrong(HEADER[index], &found, "1 to 16777216".into()));
        }
        *number = value.into();
    }
    let [hidden, ffn, layers, heads, kv_heads, vocabulary, sequence] = numbers;
    if !hidden.is_multiple_of(heads) || !heads.is_multiple_of(kv_heads) || layers > 65_535 {
        let found = format!("{hidden} wide, {heads} heads, {kv_heads} kv heads, {layers} layers");
        return Err(wrong(
            "header",
            &found,
            "heads that divide the width, kv heads that divide the heads".into(),
        ));
    }
    let name =
        path.file_stem().map_or_else(String::new, |stem| crate::error::shorten(&stem.to_string_lossy()));
    let mut model = Model::plain(name, "llama2.c", Dtype::F32);
    model.layers = layers as u32;
    (model.hidden, model.heads, model.kv_heads, model.ffn) = (hidden, heads, kv_heads, ffn);
    model.head_dim = hidden / heads;
    model.set_vocabulary(vocabulary, hidden);
    (model.tied, model.context) = (tied, sequence);
    // `rmsnorm` and `forward` of run.c.
    model.norm.epsilon_1e12 = 10_000_000;
    model.rope = Some(Rope { interleaved: true, ..Rope::plain(10_000.0, model.head_dim) });
    model.check().map_err(|error| error.in_file(path))?;
    // A layer has nine tensors of at least one value: what a short file cannot hold is not listed.
    if layers > length / (9 * 4) {
        return Err(wrong(
            "n_layers",
            &layers,
            format!("as many as the {length} bytes of the file can hold"),
        ));
    }
    let (tensors, end) = tensors(&model, sequence);
    if end != length {
        return Err(wrong("length", &length, format!("{end} bytes for a model of these shapes")));
    }
    let beside = |name: String| Some(path.with_file_name(name)).filter(|file| file.exists());
    let words = beside(format!("tok{vocabulary}.bin")).or_else(|| beside("tokenizer.bin".into()));
    Ok(Checkpoint { model, files: vec![path.to_owned()], tensors, words: Words::Llama2c(words, vocabulary) })
}

/// Where each tensor lies, and the end of the file.
fn tensors(model: &Model, sequence: u64) -> (HashMap<Name, Place>, u64) {
    let (mut tensors, mut offset) = (HashMap::new(), HEADER_BYTES);
    let (hidden, q, kv, ffn) = (model.hidden, model.q_dim(), model.kv_dim(), model.ffn);
    let mut add = |name: Name, called: &str, rows: u64, width: u64| {
        let (rows, width) = (rows as usize, width as usize);
        let place = Place {
            called: called.into(),
            file: 0,
            offset,
            format: TensorFormat::F32,
            rows,
            width,
            pick: None,
        };
        offset += (rows * width) as u64 * 4;
        tensors.insert(name, place);
    };
    add(Name::Embedding, "token_embedding_table", model.outputs, hidden);
    let parts = [
        (LayerTensor::AttentionNorm, "rms_att_weight", 1, hidden),
        (LayerTensor::Q, "wq", q, hidden),
        (LayerTensor::K, "wk", kv, hidden),
        (LayerTensor::V, "wv", kv, hidden),
        (LayerTensor::O, "wo", hidden, q),
        (LayerTensor::FfnNorm, "rms_ffn_weight", 1, hidden),
        (LayerTensor::Gate, "w1", ffn, hidden),
        (LayerTensor::Down, "w2", hidden, ffn),
        (LayerTensor::Up, "w3", ffn, hidden),
    ];
    // One kind of tensor for all layers after the other.
    for (part, called, rows, width) in parts {
        (0..model.layers).for_each(|layer| add(Name::Layer(layer, part), called, rows, width));
    }
    add(Name::FinalNorm, "rms_final_weight", 1, hidden);
    // Two tables of rotations that run.c skips too.
    let skipped = 2 * sequence * (model.head_dim / 2) * 4;
    let head = offset + skipped;
    if !model.tied {
        let (rows, width) = (model.outputs as usize, hidden as usize);
        let called = "wcls".into();
        tensors.insert(
            Name::Head,
            Place { called, file: 0, offset: head, format: TensorFormat::F32, rows, width, pick: None },
        );
    }
    (tensors, head + u64::from(!model.tied) * model.outputs * hidden * 4)
}
