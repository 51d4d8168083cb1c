//! Real weights: model files as shapes, tensors and a tokenizer. Nothing is loaded before it is asked for.
//!
//! Read are folders as Hugging Face keeps them (`config.json`, safetensors, a tokenizer), GGUF files, and the `.bin`
//! files of llama2.c. Each says the same things in its own way; a [`Checkpoint`] says them in one.

mod any_router;
mod blocks;
mod bytes;
mod charsmap;
mod chat;
mod chat_python;
mod date;
mod folder;
mod folder_words;
mod format;
mod gguf;
mod gguf_keys;
mod gguf_model;
mod gguf_rope;
mod gguf_words;
mod llama2c;
mod names;
mod needed;
mod once;
#[cfg(feature = "train")]
mod peft;
mod radial_router;
mod router_file;
mod skip_router;
mod split;
mod tensor;
mod text;
mod tokenizer;
mod vocabulary;
mod word_table;
#[cfg(feature = "train")]
mod written;

pub use any_router::AnyRouter;
pub use date::Date;
pub use format::TensorFormat;
pub(crate) use format::f16 as half;
#[cfg(feature = "train")]
pub(crate) use peft::PeftFolder;
pub use radial_router::RadialRouter;
pub(crate) use router_file::RouterFile;
pub use skip_router::SkipRouter;
pub(crate) use skip_router::takes;
pub use tensor::Tensor;
pub use tokenizer::{Asked, TokenStream, Tokenizer};
pub use word_table::WordTable;
#[cfg(feature = "train")]
pub(crate) use written::{llama as write_llama, transposed};

pub use crate::model::{Described, RadialDescription, RadialKv, SkipDescription, SkipKv, TableDescription};

use crate::error::{Error, InputError, Result};
use crate::model::{Model, Network, Rope, agree};
use names::Pick;
#[cfg(feature = "train")]
pub(crate) use needed::needed;
#[cfg(not(feature = "train"))]
use needed::needed;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A model with its weights, not yet read: shapes, and where each tensor lies.
#[derive(Debug)]
pub struct Checkpoint {
    model: Model,
    files: Vec<PathBuf>,
    tensors: HashMap<Name, Place>,
    words: Words,
}

/// A tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the parts of a transformer")]
pub enum Name {
    Embedding,
    Positions,
    /// Between the embedding and the stream, where their widths differ.
    ProjectIn,
    /// Between the last norm and the head, where theirs do.
    ProjectOut,
    FinalNorm,
    FinalNormBias,
    /// Absent where the model is tied: the embedding then serves.
    Head,
    Layer(u32, LayerTensor),
    /// Of a layer: of one expert (matrices), or of one head (norms).
    Each(u32, u32, LayerTensor),
}

/// A tensor of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the parts of a layer")]
pub enum LayerTensor {
    AttentionNorm,
    AttentionNormBias,
    Q,
    K,
    V,
    O,
    QBias,
    KBias,
    VBias,
    OBias,
    QNorm,
    KNorm,
    /// Norm behind the attention branch.
    AttentionAfter,
    FfnNorm,
    FfnNormBias,
    /// Norm behind the feed-forward branch.
    FfnAfter,
    /// Scores of experts.
    Router,
    Gate,
    GateBias,
    Up,
    Down,
    UpBias,
    DownBias,
}

/// Where a tensor lies and what it is.
#[derive(Clone, Debug)]
struct Place {
    /// Its name in the file.
    called: String,
    /// Which of the files.
    file: usize,
    offset: u64,
    format: TensorFormat,
    rows: usize,
    width: usize,
    /// Which rows of the file's tensor it is; absent: all.
    pick: Option<Pick>,
}

impl Place {
    /// Values of the file's tensor.
    fn values(&self) -> u64 {
        match self.pick {
            None => (self.rows * self.width) as u64,
            Some(pick) if self.is_vector() => pick.of as u64,
            Some(pick) => (pick.of * self.width) as u64,
        }
    }

    /// Whether it is a vector, which is kept as one row.
    fn is_vector(&self) -> bool {
        self.rows == 1 && self.pick.is_some_and(|pick| pick.count == self.width)
    }
}

/// Where the tokenizer comes from.
#[derive(Debug)]
enum Words {
    /// A folder with the files of a tokenizer, and the ids that end a generation.
    Folder(PathBuf, Vec<u32>),
    /// Taken from a GGUF file.
    Listed(PathBuf, Box<vocabulary::Vocabulary>),
    /// A `tokenizer.bin` of llama2.c for a vocabulary of this size; absent where none was found.
    Llama2c(Option<PathBuf>, u64),
}

impl Checkpoint {
    /// Opens a model: a folder of Hugging Face's, a GGUF file (or a folder that holds those of one model), or a llama2.c `.bin`.
    ///
    /// # Errors
    /// What is broken, with file, tensor or key, what was found and what was expected.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let kind = std::fs::metadata(path).map_err(Error::io(path, "read"))?;
        let file = if kind.is_dir() { only_gguf(path)? } else { Some(path.to_owned()) };
        let checkpoint = match file {
            None => folder::open(path)?,
            Some(file) if has_ending(&file, "bin") => llama2c::open(&file)?,
            Some(file) => gguf_model::open(&file)?,
        };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// Its shapes.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its rotary embedding; `None` where it has none.
    pub fn rope(&self) -> Option<&Rope> {
        self.model.rope.as_ref()
    }

    /// The files it is read from.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whether it has this tensor.
    pub fn has(&self, name: Name) -> bool {
        self.tensors.contains_key(&name)
    }

    /// Format of the layers' matrices, by the attention output of the first.
    pub fn format(&self) -> TensorFormat {
        self.tensors[&Name::Layer(0, LayerTensor::O)].format
    }

    /// Formats of its matrices, without repetition, in the order of `TensorFormat::all`.
    pub fn formats(&self) -> Vec<TensorFormat> {
        let has = |format: &TensorFormat| {
            self.tensors.values().any(|place| place.rows > 1 && place.format == *format)
        };
        TensorFormat::all().filter(has).collect()
    }

    /// Format and shape of a tensor, without reading it: (format, rows, width).
    ///
    /// # Errors
    /// A tensor that is not there.
    pub fn shape(&self, name: Name) -> Result<(TensorFormat, usize, usize)> {
        let place = self.place(name)?;
        Ok((place.format, place.rows, place.width))
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// A tensor that is not there, and a file that cannot be read.
    pub fn tensor(&self, name: Name) -> Result<Tensor> {
        let place = self.place(name)?;
        let path = &self.files[place.file];
        let mut file = File::open(path).map_err(Error::io(path, "read"))?;
        let length = place.format.bytes(place.values());
        let mut bytes = bytes::at(&mut file, place.offset, length).map_err(Error::io(path, "read"))?;
        if let Some(pick) = &place.pick {
            let width = if place.is_vector() { 0 } else { place.width };
            bytes = pick.of_bytes(&bytes, place.format, width);
        }
        Ok(Tensor { rows: place.rows, width: place.width, format: place.format, bytes })
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// None found, or a broken one.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.words {
            Words::Folder(path, end) => folder_words::tokenizer(path, end),
            Words::Listed(path, words) => Tokenizer::listed(words).map_err(|error| error.in_file(path)),
            Words::Llama2c(Some(path), count) => {
                Tokenizer::listed(&vocabulary::llama2c(path, *count)?).map_err(|error| error.in_file(path))
            }
            Words::Llama2c(None, count) => {
                let what = format!("a tok{count}.bin or tokenizer.bin beside it");
                Err(InputError::expected(what).key("tokenizer").file(&self.files[0]).into())
            }
        }
    }

    /// The router of a trained network: that of a folder whose `config.json` has a section `radial`.
    ///
    /// # Errors
    /// A router's file that is absent, broken, says something else than `config.json`, or has other shapes than the model.
    pub fn router(&self) -> Result<Option<AnyRouter>> {
        let Words::Folder(folder, _) = &self.words else { return Ok(None) };
        let Some(described) = Network::section(folder)? else { return Ok(None) };
        let file = folder.join(Network::FILE);
        let Some(router) = AnyRouter::read(&file)? else {
            return Err(InputError::expected("a description").key("__metadata__.radial").file(&file).into());
        };
        agree(&described, &router.described(), &file)?;
        router.check(&self.model).map_err(|error| error.in_file(&file))?;
        Ok(Some(router))
    }

    /// Ids that end a generation, as far as they are known without a tokenizer.
    pub fn end_ids(&self) -> &[u32] {
        match &self.words {
            Words::Folder(_, end) => end,
            Words::Listed(_, words) => &words.end,
            Words::Llama2c(..) => &vocabulary::LLAMA2C_END,
        }
    }

    fn place(&self, name: Name) -> Result<&Place> {
        self.tensors.get(&name).ok_or_else(|| {
            let what = format!("a tensor for {name:?}");
            InputError::expected(what).key("tensors").file(&self.files[0]).into()
        })
    }

    /// Every tensor that the shapes ask for is there, in the shape that they ask for, within its file.
    fn check(&self) -> Result<()> {
        for (name, rows, width) in needed(&self.model) {
            let place = self.place(name)?;
            if (place.rows as u64, place.width as u64) != (rows, width) {
                let found = format!("{} x {}", place.rows, place.width);
                let what = format!("{rows} x {width}, as the model's shapes say");
                let wrong = InputError::expected(what).key(&place.called).found(found);
                return Err(wrong.file(&self.files[place.file]).into());
            }
        }
        let known: HashSet<Name> = needed(&self.model).map(|(name, ..)| name).collect();
        // A bias that the shapes do not know would be left out in silence.
        let unknown = self.tensors.iter().find(|(name, _)| !known.contains(name));
        if let Some((name, place)) = unknown {
            let what = format!("no tensor for {name:?} in a model of these shapes");
            return Err(InputError::expected(what).key(&place.called).file(&self.files[place.file]).into());
        }
        self.check_ranges()
    }

    /// No tensor ends behind its file, and no two overlap.
    fn check_ranges(&self) -> Result<()> {
        for (index, path) in self.files.iter().enumerate() {
            let length = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
            let mut places: Vec<_> = self.tensors.values().filter(|place| place.file == index).collect();
            places.sort_by(|a, b| (a.offset, &a.called).cmp(&(b.offset, &b.called)));
            let mut before = (0, "");
            for place in places {
                let end = place.offset.saturating_add(place.format.bytes(place.values()));
                let wrong = if end > length {
                    format!("its end within the {length} bytes of the file")
                } else if place.offset < before.0 && (place.called != before.1 || place.pick.is_none()) {
                    format!("it behind {}, which ends at byte {}", before.1, before.0)
                } else {
                    before = (end, &place.called);
                    continue;
                };
                let found = format!("bytes {} to {end}", place.offset);
                return Err(InputError::expected(wrong).key(&place.called).found(found).file(path).into());
            }
        }
        Ok(())
    }
}

/// The GGUF file of a folder that holds one model and no `config.json`: of several files of a split model, the first.
fn only_gguf(folder: &Path) -> Result<Option<PathBuf>> {
    if folder.join("config.json").exists() {
        return Ok(None);
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let files = entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(folder, "read"))?;
    let mut found: Vec<_> =
        files.iter().map(std::fs::DirEntry::path).filter(|path| has_ending(path, "gguf")).collect();
    let count = found.len();
    let first = format!("-00001-of-{count:05}.gguf");
    if count > 1 {
        found.retain(|path| path.to_string_lossy().ends_with(&first));
    }
    match found.pop() {
        Some(path) => Ok(Some(path)),
        None => {
            let what = "a folder with a config.json, or with the .gguf files of one model";
            Err(InputError::expected(what).found(format!("{count} .gguf files")).file(folder).into())
        }
    }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}
