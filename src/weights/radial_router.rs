//! The file of a radial router: a small network that sends each token, hop by hop, to the next layer of a pool, or to the head.

use super::router_file::{self, RouterFile};
use crate::error::{Error, Result};
use crate::model::{Described, Model, RadialDescription};
use std::path::Path;

/// Weights of a radial router over a pool of P layers, each matrix row after row.
///
/// With `n` the state over its root mean square and `p` the layer that the token visited last (P: none yet), a token takes the best of
/// P + 1 options, of which the last is to leave:
///
/// ```text
/// scores = second silu(first n + vectors[p] + words[w]) + biases[p]
/// ```
///
/// with `w` the token's word, where the router sees words.
#[derive(Clone, Debug, PartialEq)]
pub struct RadialRouter {
    /// What it says of itself.
    pub described: RadialDescription,
    /// Layers of the pool, P.
    pub layers: u32,
    /// Width of the stream.
    pub width: u32,
    /// Width of its hidden layer.
    pub hidden: u32,
    /// `hidden x width`.
    pub first: Vec<f32>,
    /// `(P + 1) x hidden`, by the layer before.
    pub vectors: Vec<f32>,
    /// `(P + 1) x hidden`, by option.
    pub second: Vec<f32>,
    /// `(P + 1) x (P + 1)`: layer before, option.
    pub biases: Vec<f32>,
    /// `V x hidden`, by the word; empty where it does not see words.
    pub words: Vec<f32>,
}

impl RadialRouter {
    /// Added to the mean square of a state before the root.
    pub const EPSILON: f64 = 1e-6;

    /// A safetensors file with tensors `first`, `vectors`, `second`, `biases` and, where it sees words, `words` in F32.
    ///
    /// # Panics
    /// Weights whose number is not what the sizes say.
    pub fn bytes(&self) -> Vec<u8> {
        let (options, hidden) = (self.layers + 1, self.hidden);
        let words = [self.seen_words().unwrap_or(0), hidden];
        let parts: [(&str, &[u32], &[f32]); 5] = [
            ("biases", &[options, options], &self.biases),
            ("first", &[hidden, self.width], &self.first),
            ("second", &[options, hidden], &self.second),
            ("vectors", &[options, hidden], &self.vectors),
            ("words", &words, &self.words),
        ];
        let parts = &parts[..if self.words.is_empty() { 4 } else { 5 }];
        router_file::bytes(parts, &self.described)
    }

    /// Reads one; `None` where the file is another safetensors file, without a key `radial`.
    ///
    /// # Errors
    /// A file that cannot be read, a description or tensors that do not fit together, and weights that are not finite.
    pub fn read(path: &Path) -> Result<Option<RadialRouter>> {
        RadialRouter::parse(&std::fs::read(path).map_err(Error::io(path, "read"))?, path)
    }

    /// The same of bytes that came from a file.
    ///
    /// # Errors
    /// Those of [`RadialRouter::read`].
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Option<RadialRouter>> {
        let file = RouterFile::open(bytes, path)?;
        match &file.described {
            None => Ok(None),
            Some(Described::Radial(described)) => RadialRouter::of(&file, described.clone()).map(Some),
            Some(_) => Err(file.wrong("__metadata__.radial.kind", "radial")),
        }
    }

    /// The same of a file that was opened.
    pub(super) fn of(file: &RouterFile, described: RadialDescription) -> Result<RadialRouter> {
        file.only(&["first", "vectors", "second", "biases", "words"])?;
        let (first, vectors) = (file.tensor::<2>("first")?, file.tensor::<2>("vectors")?);
        let (second, biases) = (file.tensor::<2>("second")?, file.tensor::<2>("biases")?);
        let ([words, inside], words_of) = file.find::<2>("words")?.unwrap_or(([0, first.0[0]], Vec::new()));
        let ([hidden, width], [options, _]) = (first.0, biases.0);
        if hidden == 0 || width == 0 || options < 2 {
            return Err(file.wrong("first", "at least one layer, one hidden value and a stream of one value"));
        }
        file.shapes(&[
            ("vectors", &vectors.0, &[options, hidden]),
            ("second", &second.0, &[options, hidden]),
            ("biases", &biases.0, &[options, options]),
            ("words", &[words, inside], &[words, hidden]),
        ])?;
        Ok(RadialRouter {
            described,
            layers: file.size(options - 1)?,
            width: file.size(width)?,
            hidden: file.size(hidden)?,
            first: first.1,
            vectors: vectors.1,
            second: second.1,
            biases: biases.1,
            words: words_of,
        })
    }

    /// How many words it has vectors for, where it sees words.
    pub fn seen_words(&self) -> Option<u32> {
        (!self.words.is_empty()).then(|| (self.words.len() / self.hidden as usize) as u32)
    }

    /// Whether it was made for a model of these layers, this width of the stream and, where it sees words, these words.
    ///
    /// # Errors
    /// Other shapes.
    pub fn check(&self, model: &Model) -> Result<()> {
        router_file::check((self.layers, self.width), model.layers, model.hidden)?;
        self.seen_words().map_or(Ok(()), |words| router_file::check_words("words", words, model))
    }
}
