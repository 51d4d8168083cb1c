//! What a training goes on from after it was stopped: one file, replaced as a whole, so that there is always one that can be read.

use super::distill::Recipe;
use super::skip::SkipRouter;
use crate::error::{Error, InputError, Result};
use crate::quality::Texts;
use crate::report::Staged;
use crate::weights::{SkipDescription, SkipRouter as Weights};
use burn::optim::ModuleOptimizer;
use burn::tensor::{Bytes, Device};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// Where the second stage stands.
pub(super) struct Checkpoint {
    pub router: SkipRouter,
    pub candidates: Vec<[bool; 2]>,
    pub optimiser: ModuleOptimizer,
    /// The next step.
    pub step: u32,
    pub price: f64,
}

/// The first line of the file; the router's file and the optimiser's state follow.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// What is trained, on what, how: only the same training may go on.
    training: String,
    step: u32,
    /// The price's bits.
    price: u64,
    candidates: Vec<[bool; 2]>,
    /// Bytes of the router's file.
    router: usize,
}

/// A name of the training of this recipe on these texts.
pub(super) fn name(model: &str, texts: &Texts, recipe: &Recipe) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{model} {recipe:?} {}", texts.length));
    for token in texts.sequences.iter().flatten() {
        hash.update(token.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Checkpoint {
    /// Writes it in the place of the one before.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn write(&self, training: &str, description: &SkipDescription, path: &Path) -> Result<()> {
        let router = self.router.weights(description.clone()).bytes();
        let optimiser = self.optimiser.into_bytes().map_err(|error| broken(path, &error.to_string()))?;
        let head = Head {
            training: training.into(),
            step: self.step,
            price: self.price.to_bits(),
            candidates: self.candidates.clone(),
            router: router.len(),
        };
        let head = serde_json::to_string(&head).expect("a head is JSON");
        Staged::create(path)?.finish(|out| {
            writeln!(out, "{head}")?;
            out.write_all(&router)?;
            out.write_all(&optimiser)
        })
    }

    /// Reads one, if there is one; `optimiser` is one without a state.
    ///
    /// # Errors
    /// A file that is none, and one of another training.
    pub fn read(
        training: &str,
        path: &Path,
        optimiser: ModuleOptimizer,
        device: &Device,
    ) -> Result<Option<Checkpoint>> {
        let mut bytes = Vec::new();
        match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => {
                file.and_then(|mut file| file.read_to_end(&mut bytes)).map_err(Error::io(path, "read"))?
            }
        };
        let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(0);
        let (head, rest) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
        let head: Head = serde_json::from_slice(head).map_err(|error| broken(path, &error.to_string()))?;
        if head.training != training {
            let what = "a checkpoint of this training: remove it, or name another --out";
            return Err(InputError::expected(what).key("training").found("another").file(path).into());
        }
        let Some((router, state)) = rest.split_at_checked(head.router) else {
            return Err(broken(path, "it ends within the router"));
        };
        let weights = Weights::parse(router, path)?.ok_or_else(|| broken(path, "no router"))?;
        let state = Bytes::from_bytes_vec(state.to_vec());
        let optimiser = optimiser.from_bytes(state).map_err(|error| broken(path, &error.to_string()))?;
        Ok(Some(Checkpoint {
            router: SkipRouter::with(&weights, device),
            candidates: head.candidates,
            optimiser,
            step: head.step,
            price: f64::from_bits(head.price),
        }))
    }
}

fn broken(path: &Path, what: &str) -> Error {
    let what = format!("a whole checkpoint of a training ({what})");
    InputError::expected(what).key("checkpoint").file(path).into()
}
