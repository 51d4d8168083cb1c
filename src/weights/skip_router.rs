//! The file of a skip router: a small network that decides before each layer which of its two branches a token takes.

use crate::error::{Error, InputError, Result};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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

/// What the file of a router says beside its tensors: JSON under the key `radial` of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipDescription {
    /// Always `skip`.
    pub kind: String,
    /// The model that it was trained for.
    pub model: String,
    /// What a token that leaves attention out leaves in the KV cache.
    pub kv: SkipKv,
    /// For each layer whether attention and whether the feed-forward branch may be left out; where neither may, nothing is decided.
    pub candidates: Vec<[bool; 2]>,
}

/// What a token that leaves attention out leaves in the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipKv {
    /// Its key and value all the same.
    #[default]
    ProjectOnly,
    /// Nothing.
    None,
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
        let [layers, width, hidden] = [self.layers, self.width, self.hidden].map(|size| size as usize);
        let bytes =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let parts = [
            ("biases", vec![layers, 2], bytes(&self.biases)),
            ("first", vec![hidden, width], bytes(&self.first)),
            ("second", vec![layers, 2, hidden], bytes(&self.second)),
            ("vectors", vec![layers, hidden], bytes(&self.vectors)),
        ];
        let view = |shape: &Vec<usize>, bytes| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many values as the shape says")
        };
        let views = parts.iter().map(|(name, shape, bytes)| (*name, view(shape, bytes)));
        let text = serde_json::to_string(&self.described).expect("a description is JSON");
        let metadata = HashMap::from([("radial".to_owned(), text)]);
        safetensors::serialize(views, Some(metadata)).expect("four tensors with names")
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
        let wrong = |key: &str, what: &str| Error::from(InputError::expected(what).key(key).file(path));
        let no_file = |error| wrong("header", &format!("a safetensors file ({error})"));
        let (length, header) = SafeTensors::read_metadata(bytes).map_err(no_file)?;
        super::once::tensors(&bytes[8..8 + length]).map_err(|error| error.file(path))?;
        let Some(text) = header.metadata().as_ref().and_then(|all| all.get("radial")) else {
            return Ok(None);
        };
        let described: SkipDescription = serde_json::from_str(text).map_err(|error| {
            wrong("__metadata__.radial", &format!("kind, model, kv and candidates ({error})"))
        })?;
        if described.kind != "skip" {
            return Err(wrong("__metadata__.radial.kind", "skip"));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(no_file)?;
        if let Some(name) =
            tensors.names().into_iter().find(|name| !["first", "vectors", "second", "biases"].contains(name))
        {
            return Err(wrong(name, "only first, vectors, second and biases"));
        }
        let read = |name: &str, rank: usize| -> Result<(Vec<usize>, Vec<f32>)> {
            let tensor = tensors.tensor(name).map_err(|_| wrong(name, "a tensor of this name"))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape().len() != rank {
                return Err(wrong(name, &format!("values in F32 with {rank} dimensions")));
            }
            let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let values: Vec<f32> = tensor.data().chunks_exact(4).map(value).collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(wrong(name, "finite weights"));
            }
            Ok((tensor.shape().to_vec(), values))
        };
        let (first, vectors, second, biases) =
            (read("first", 2)?, read("vectors", 2)?, read("second", 3)?, read("biases", 2)?);
        let (hidden, width, layers) = (first.0[0], first.0[1], biases.0[0]);
        if hidden == 0 || width == 0 || layers == 0 {
            return Err(wrong("first", "at least one layer, one hidden value and a stream of one value"));
        }
        for (name, found, expected) in [
            ("vectors", &vectors.0, vec![layers, hidden]),
            ("second", &second.0, vec![layers, 2, hidden]),
            ("biases", &biases.0, vec![layers, 2]),
        ] {
            if *found != expected {
                let what = InputError::expected(format!("a shape of {expected:?}, as the others have"));
                return Err(what.key(name).found(format!("{found:?}")).file(path).into());
            }
        }
        if described.candidates.len() != layers {
            return Err(wrong("__metadata__.radial.candidates", &format!("{layers}, one for each layer")));
        }
        let size = |value: usize| u32::try_from(value).map_err(|_| wrong("first", "shapes below 2^32"));
        Ok(Some(SkipRouter {
            described,
            layers: size(layers)?,
            width: size(width)?,
            hidden: size(hidden)?,
            first: first.1,
            vectors: vectors.1,
            second: second.1,
            biases: biases.1,
        }))
    }

    /// Whether it was made for a model of these shapes.
    ///
    /// # Errors
    /// Other shapes.
    pub fn check(&self, layers: u32, width: u64) -> Result<()> {
        if (self.layers, u64::from(self.width)) == (layers, width) {
            return Ok(());
        }
        let what = format!("a router for {layers} layers and a stream of {width}");
        let found = format!("one for {} layers and a stream of {}", self.layers, self.width);
        Err(InputError::expected(what).key("router").found(found).into())
    }
}
