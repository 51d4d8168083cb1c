//! The file of a skip router: a small network that decides before each layer which of its two branches a token takes.

use super::router_file::{self, RouterFile};
use crate::error::{Error, Result};
use crate::model::{Described, SkipDescription};
use std::path::Path;

/// Weights of a skip router, each matrix row after row.
///
/// With `n` the state that enters layer `l` over its root mean square, a token leaves out a branch where its score is below zero:
///
/// ```text
/// scores = second[l] silu(first n + vectors[l]) + biases[l]
/// ```
///
/// the first score being that of attention, the second that of the feed-forward branch.
#[derive(Clone, Debug, PartialEq)]
pub struct SkipRouter {
    /// What it says of itself.
    pub described: SkipDescription,
    /// Layers that it decides for.
    pub layers: u32,
    /// Width of the stream.
    pub width: u32,
    /// Width of its hidden layer.
    pub hidden: u32,
    /// `hidden x width`.
    pub first: Vec<f32>,
    /// `layers x hidden`.
    pub vectors: Vec<f32>,
    /// `layers x 2 x hidden`.
    pub second: Vec<f32>,
    /// `layers x 2`.
    pub biases: Vec<f32>,
}

/// Whether a token takes a branch: one that may not be left out, or whose score is not below zero; NaN is never routed around.
pub(crate) fn takes(candidate: bool, score: f32) -> bool {
    !candidate || score >= 0.0 || score.is_nan()
}

impl SkipRouter {
    /// Added to the mean square of a state before the root.
    pub const EPSILON: f64 = 1e-6;

    /// A safetensors file with tensors `first`, `vectors`, `second` and `biases` in F32.
    ///
    /// # Panics
    /// Weights whose number is not what the sizes say.
    pub fn bytes(&self) -> Vec<u8> {
        let (layers, hidden) = (self.layers, self.hidden);
        let parts: [(&str, &[u32], &[f32]); 4] = [
            ("biases", &[layers, 2], &self.biases),
            ("first", &[hidden, self.width], &self.first),
            ("second", &[layers, 2, hidden], &self.second),
            ("vectors", &[layers, hidden], &self.vectors),
        ];
        router_file::bytes(&parts, &self.described)
    }

    /// Reads one; `None` where the file is another safetensors file, without a key `radial`.
    ///
    /// # Errors
    /// A file that cannot be read, a description or tensors that do not fit together, and weights that are not finite.
    pub fn read(path: &Path) -> Result<Option<SkipRouter>> {
        SkipRouter::parse(&std::fs::read(path).map_err(Error::io(path, "read"))?, path)
    }

    /// The same of bytes that came from a file.
    ///
    /// # Errors
    /// Those of [`SkipRouter::read`].
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Option<SkipRouter>> {
        let file = RouterFile::open(bytes, path)?;
        match &file.described {
            None => Ok(None),
            Some(Described::Skip(described)) => SkipRouter::of(&file, described.clone()).map(Some),
            Some(_) => Err(file.wrong("__metadata__.radial.kind", "skip")),
        }
    }

    /// The same of a file that was opened.
    pub(super) fn of(file: &RouterFile, described: SkipDescription) -> Result<SkipRouter> {
        file.only(&["first", "vectors", "second", "biases"])?;
        let (first, vectors) = (file.tensor::<2>("first")?, file.tensor::<2>("vectors")?);
        let (second, biases) = (file.tensor::<3>("second")?, file.tensor::<2>("biases")?);
        let ([hidden, width], [layers, _]) = (first.0, biases.0);
        if hidden == 0 || width == 0 || layers == 0 {
            return Err(file.wrong("first", "at least one layer, one hidden value and a stream of one value"));
        }
        file.shapes(&[
            ("vectors", &vectors.0, &[layers, hidden]),
            ("second", &second.0, &[layers, 2, hidden]),
            ("biases", &biases.0, &[layers, 2]),
        ])?;
        if described.candidates.len() != layers {
            let what = format!("{layers}, one for each layer");
            return Err(file.wrong("__metadata__.radial.candidates", what));
        }
        Ok(SkipRouter {
            described,
            layers: file.size(layers)?,
            width: file.size(width)?,
            hidden: file.size(hidden)?,
            first: first.1,
            vectors: vectors.1,
            second: second.1,
            biases: biases.1,
        })
    }

    /// Whether it was made for a model of these shapes.
    ///
    /// # Errors
    /// Other shapes.
    pub fn check(&self, layers: u32, width: u64) -> Result<()> {
        router_file::check((self.layers, self.width), layers, width)
    }
}
