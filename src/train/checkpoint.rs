//! What a training goes on from after it was stopped: one file, replaced as a whole, so that there is always one that can be read.
//!
//! Its first line is JSON; files of weights and the optimiser's state follow, byte by byte.

use crate::error::{Error, InputError, Result};
use crate::quality::Texts;
use crate::report::Staged;
use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::io::Read;
use std::path::Path;

/// The first line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<S> {
    /// What is trained, on what, how: only the same training may go on.
    training: String,
    /// Where it stands.
    state: S,
    /// Bytes of each part behind this line.
    parts: Vec<usize>,
}

/// A name of the training of this recipe on these texts.
pub(super) fn name(model: &str, texts: &Texts, recipe: &impl Debug) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{model} {recipe:?} {}", texts.length));
    for token in texts.sequences.iter().flatten() {
        hash.update(token.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a checkpoint in the place of the one before.
///
/// # Errors
/// Whatever the system refuses.
pub(super) fn write<S: Serialize>(path: &Path, training: &str, state: S, parts: &[&[u8]]) -> Result<()> {
    let head =
        Head { training: training.into(), state, parts: parts.iter().map(|part| part.len()).collect() };
    let head = serde_json::to_string(&head).expect("a head is JSON");
    Staged::create(path)?.finish(|out| {
        writeln!(out, "{head}")?;
        parts.iter().try_for_each(|part| out.write_all(part))
    })
}

/// Reads one of `N` parts, if there is one.
///
/// # Errors
/// A file that is none, and one of another training.
pub(super) fn read<S: DeserializeOwned, const N: usize>(
    path: &Path,
    training: &str,
) -> Result<Option<(S, [Vec<u8>; N])>> {
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.and_then(|mut file| file.read_to_end(&mut bytes)).map_err(Error::io(path, "read"))?,
    };
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let (head, mut rest) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let head: Head<S> = serde_json::from_slice(head).map_err(|error| broken(path, &error.to_string()))?;
    if head.training != training {
        let what = "a checkpoint of this training: remove it, or name another --out";
        return Err(InputError::expected(what).key("training").found("another").file(path).into());
    }
    let mut parts = Vec::new();
    for length in head.parts {
        let (part, behind) =
            rest.split_at_checked(length).ok_or_else(|| broken(path, "it ends within a part"))?;
        parts.push(part.to_vec());
        rest = behind;
    }
    let parts = parts.try_into().map_err(|_| broken(path, &format!("other than {N} parts")))?;
    Ok(Some((head.state, parts)))
}

/// A checkpoint that cannot be read.
pub(super) fn broken(path: &Path, what: &str) -> Error {
    let what = format!("a whole checkpoint of a training ({what})");
    InputError::expected(what).key("checkpoint").file(path).into()
}

/// An optimiser's state as bytes of a part.
///
/// # Errors
/// What the library refuses.
pub(super) fn state(optimiser: &ModuleOptimizer, path: &Path) -> Result<Vec<u8>> {
    optimiser.into_bytes().map(|bytes| bytes.to_vec()).map_err(|error| broken(path, &error.to_string()))
}

/// An optimiser with the state that was kept; `empty` is one without.
///
/// # Errors
/// Bytes that are none.
pub(super) fn restored(empty: ModuleOptimizer, state: Vec<u8>, path: &Path) -> Result<ModuleOptimizer> {
    let state = Bytes::from_bytes_vec(state);
    empty.from_bytes(state).map_err(|error| broken(path, &error.to_string()))
}

/// Values as bytes of a part.
pub(super) fn bytes(values: impl Iterator<Item = Vec<f32>>) -> Vec<u8> {
    values.flatten().flat_map(f32::to_le_bytes).collect()
}

/// Values of the bytes of a part.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
