//! What files of routers have in common: safetensors with a few tensors, and a description under the key `radial` of their metadata.

use crate::error::{Error, InputError, Result};
use crate::model::{Described, Input, Model, under};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// Where the description stands in the metadata.
const KEY: &str = "radial";

/// A router's file that was opened.
pub(crate) struct RouterFile<'a> {
    tensors: SafeTensors<'a>,
    /// What it says of itself; `None`: it has no description.
    pub described: Option<Described>,
    path: &'a Path,
}

/// A tensor: its shape, and its values row after row.
pub(crate) type Values<const RANK: usize> = ([usize; RANK], Vec<f32>);

/// The same before its bytes are taken for numbers.
type Words<const RANK: usize> = ([usize; RANK], Vec<[u8; 4]>);

impl<'a> RouterFile<'a> {
    /// Opens the bytes of a file.
    ///
    /// # Errors
    /// What is no safetensors file, names a tensor twice, or has a description that says what cannot be.
    pub fn open(bytes: &'a [u8], path: &'a Path) -> Result<RouterFile<'a>> {
        let wrong = |key: &str, what: String| Error::from(InputError::expected(what).key(key).file(path));
        let no_file = |error| wrong("header", format!("a safetensors file ({error})"));
        let (length, header) = SafeTensors::read_metadata(bytes).map_err(no_file)?;
        super::once::tensors(&bytes[8..8 + length]).map_err(|error| error.file(path))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(no_file)?;
        let text = header.metadata().as_ref().and_then(|all| all.get(KEY));
        let described = text.map(|text| Described::parse(text)).transpose();
        let described = described.map_err(|error| under(&format!("__metadata__.{KEY}"), error).file(path))?;
        Ok(RouterFile { tensors, described, path })
    }

    /// An error of this file.
    pub fn wrong(&self, key: &str, what: impl Into<String>) -> Error {
        InputError::expected(what).key(key).file(self.path).into()
    }

    /// Tensors that it has.
    #[cfg(feature = "train")]
    pub fn count(&self) -> usize {
        self.tensors.len()
    }

    /// No tensor has another name.
    pub fn only(&self, names: &[&str]) -> Result<()> {
        match self.tensors.names().into_iter().find(|name| !names.contains(name)) {
            Some(other) => Err(self.wrong(other, format!("only {}", names.join(", ")))),
            None => Ok(()),
        }
    }

    /// Shape and words of four bytes of a tensor of this type, `None` where there is no tensor of this name.
    fn words<const RANK: usize>(&self, name: &str, dtype: Dtype) -> Result<Option<Words<RANK>>> {
        let Ok(tensor) = self.tensors.tensor(name) else { return Ok(None) };
        let shape = <[usize; RANK]>::try_from(tensor.shape()).ok();
        let shape = shape.filter(|_| tensor.dtype() == dtype);
        let what = || format!("values in {dtype:?} with {RANK} dimensions");
        let shape = shape.ok_or_else(|| self.wrong(name, what()))?;
        let word = |bytes: &[u8]| [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(Some((shape, tensor.data().chunks_exact(4).map(word).collect())))
    }

    /// The tensor of this name in U32.
    pub fn integers<const RANK: usize>(&self, name: &str) -> Result<([usize; RANK], Vec<u32>)> {
        let words = self.words::<RANK>(name, Dtype::U32)?;
        let (shape, words) = words.ok_or_else(|| self.wrong(name, "a tensor of this name"))?;
        Ok((shape, words.into_iter().map(u32::from_le_bytes).collect()))
    }

    /// The tensor of this name in F32, `None` where there is none.
    pub fn find<const RANK: usize>(&self, name: &str) -> Result<Option<Values<RANK>>> {
        let Some((shape, words)) = self.words::<RANK>(name, Dtype::F32)? else { return Ok(None) };
        let values: Vec<f32> = words.into_iter().map(f32::from_le_bytes).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(self.wrong(name, "finite weights"));
        }
        Ok(Some((shape, values)))
    }

    /// The tensor of this name.
    pub fn tensor<const RANK: usize>(&self, name: &str) -> Result<Values<RANK>> {
        self.find(name)?.ok_or_else(|| self.wrong(name, "a tensor of this name"))
    }

    /// Each shape is what the others ask for.
    pub fn shapes(&self, all: &[(&str, &[usize], &[usize])]) -> Result<()> {
        let Some((name, found, expected)) = all.iter().find(|(_, found, expected)| found != expected) else {
            return Ok(());
        };
        let what = InputError::expected(format!("a shape of {expected:?}, as the others have"));
        Err(what.key(*name).found(format!("{found:?}")).file(self.path).into())
    }

    /// A size of the first tensor.
    pub fn size(&self, value: usize) -> Result<u32> {
        u32::try_from(value).map_err(|_| self.wrong("first", "shapes below 2^32"))
    }
}

/// The bytes of a file with these tensors: name, shape, values.
///
/// # Panics
/// Values whose number is not what the shape says.
pub(crate) fn bytes(parts: &[(&str, &[u32], &[f32])], described: &impl Serialize) -> Vec<u8> {
    let raw: Vec<(&str, Vec<usize>, Vec<u8>)> = parts
        .iter()
        .map(|(name, shape, values)| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (*name, shape.iter().map(|&size| size as usize).collect(), bytes)
        })
        .collect();
    let view = |shape: &[usize], bytes| {
        TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("as many values as the shape says")
    };
    file(raw.iter().map(|(name, shape, bytes)| (*name, view(shape, bytes))), described)
}

/// The same of views.
///
/// # Panics
/// Two tensors of one name.
pub(crate) fn file<'a>(
    views: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
    described: &impl Serialize,
) -> Vec<u8> {
    let text = serde_json::to_string(described).expect("a description is JSON");
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    safetensors::serialize(views, Some(metadata)).expect("tensors with different names")
}

/// Whether a tensor with a row for each word fits a model.
///
/// # Errors
/// Another number of words.
pub(crate) fn check_words(tensor: &str, words: u32, model: &Model) -> Result<()> {
    let Input::Tokens { vocabulary, .. } = model.input else { return Ok(()) };
    if u64::from(words) == vocabulary {
        return Ok(());
    }
    let what = format!("rows for {vocabulary} words, as the model has");
    Err(InputError::expected(what).key(tensor).found(words).into())
}

/// Whether a router for `(layers, width of the stream)` fits a model.
///
/// # Errors
/// Other shapes.
pub(crate) fn check(router: (u32, u32), layers: u32, width: u64) -> Result<()> {
    if (router.0, u64::from(router.1)) == (layers, width) {
        return Ok(());
    }
    let what = format!("a router for {layers} layers and a stream of {width}");
    let found = format!("one for {} layers and a stream of {}", router.0, router.1);
    Err(InputError::expected(what).key("router").found(found).into())
}
