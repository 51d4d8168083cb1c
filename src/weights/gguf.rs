//! The GGUF container (ggml's `docs/gguf.md`, versions 2 and 3): key-value pairs, then a table of tensors, then their bytes.
//!
//! A reader of our own: those on crates.io allocate what a length in the file says before they look whether the file is that
//! long, or bring a whole tensor library.

use super::TensorFormat;
use crate::error::{Error, InputError, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// A value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Whole(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

/// A row of the table of tensors.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    /// Innermost first.
    pub dims: Vec<u64>,
    pub format: TensorFormat,
    /// Which of the files holds it.
    pub file: usize,
    /// From the start of the file.
    pub offset: u64,
}

/// What stands before the bytes of the tensors.
#[derive(Debug)]
pub struct Gguf {
    pub path: PathBuf,
    /// All files of the model; the first is `path`, and its keys are those of the model.
    pub files: Vec<PathBuf>,
    keys: HashMap<String, Value>,
    pub tensors: Vec<Entry>,
}

const SPLIT_NUMBER: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
/// Deepest nesting of lists: none of the known keys nests them.
const DEEPEST: u32 = 2;
/// Bytes between tensors where the file does not say (gguf.md, `general.alignment`).
const ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor (ggml.h, GGML_MAX_DIMS).
const DIMENSIONS: u32 = 4;
/// Most bytes of a key (gguf.md) or of a tensor's name.
const LONGEST_NAME: u64 = 65_535;
/// Most keys: published files have some dozens.
const MOST_KEYS: u64 = 1 << 16;
/// Most elements of all lists together: six times those of the largest vocabularies, and 256 MiB in memory.
const MOST_ITEMS: u64 = 1 << 23;
/// Most files of a model: their names have five digits (llama.cpp, `llama_split_path`).
const MOST_FILES: u64 = 99_999;

/// A file with what is left of it.
struct Source<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    length: u64,
    left: u64,
    /// Elements that lists may still have.
    items: u64,
}

impl Gguf {
    /// Reads everything but the tensors, of all files where a model is split.
    pub fn read(path: &Path) -> Result<Gguf> {
        let mut gguf = Gguf::read_one(path)?;
        let count = gguf.whole_or(SPLIT_COUNT, 0..=MOST_FILES, 0)?;
        if count <= 1 {
            return Ok(gguf);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let called = |number: u64| format!("-{number:05}-of-{count:05}.gguf");
        let Some(stem) = name.strip_suffix(&called(1)).filter(|_| gguf.whole(SPLIT_NUMBER, 0..=0).is_ok())
        else {
            let what = format!("the first of {count} files, whose name ends in {}", called(1));
            return Err(InputError::expected(what).key("split.no").found(&name).file(path).into());
        };
        for number in 2..=count {
            let next = Gguf::read_one(&path.with_file_name(format!("{stem}{}", called(number))))?;
            next.whole(SPLIT_NUMBER, number - 1..=number - 1)?;
            next.whole(SPLIT_COUNT, count..=count)?;
            let file = gguf.files.len();
            gguf.tensors.extend(next.tensors.into_iter().map(|entry| Entry { file, ..entry }));
            gguf.files.push(next.path);
        }
        let all = gguf.tensors.len() as u64;
        gguf.whole_or("split.tensors.count", all..=all, all)?;
        Ok(gguf)
    }

    /// Reads everything but the tensors of one file.
    fn read_one(path: &Path) -> Result<Gguf> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut source =
            Source { path, reader: BufReader::new(file), length, left: length, items: MOST_ITEMS };
        let magic = source.bytes("magic", 4)?;
        if magic != b"GGUF" {
            let found = String::from_utf8_lossy(&magic).into_owned();
            return Err(source.wrong("magic", found, "a GGUF file, which begins with GGUF"));
        }
        let version = source.u32("version")?;
        if !(2..=3).contains(&version) {
            let big = (2..=3).contains(&version.swap_bytes());
            let what = if big {
                "2 or 3 with its lowest byte first; big-endian files are not read"
            } else {
                "2 or 3"
            };
            return Err(source.wrong("version", version, what));
        }
        let tensors = source.count("tensor_count", 24)?;
        let pairs = source.count("metadata_kv_count", 13)?;
        if pairs > MOST_KEYS {
            return Err(source.wrong("metadata_kv_count", pairs, format!("at most {MOST_KEYS}")));
        }
        let mut keys = HashMap::new();
        for _ in 0..pairs {
            let key = source.name("a key")?;
            let kind = source.u32(&key)?;
            let value = source.value(&key, kind, 0)?;
            if keys.insert(key.clone(), value).is_some() {
                return Err(source.wrong(&key, "it twice", "each key once"));
            }
        }
        let mut entries = Vec::new();
        for _ in 0..tensors {
            entries.push(source.entry()?);
        }
        let mut gguf = Gguf { path: path.to_owned(), files: vec![path.to_owned()], keys, tensors: entries };
        let alignment = gguf.whole_or("general.alignment", 1..=1 << 20, ALIGNMENT)?;
        let start = (source.length - source.left).next_multiple_of(alignment);
        for entry in &mut gguf.tensors {
            if !entry.offset.is_multiple_of(alignment) {
                let what = format!("an offset that is a multiple of {alignment}");
                return Err(source.wrong(&entry.name, entry.offset, what));
            }
            entry.offset = entry.offset.saturating_add(start);
        }
        Ok(gguf)
    }

    /// A mistake at a key.
    pub fn wrong(&self, key: &str, what: impl Into<String>) -> Error {
        let wrong = InputError::expected(what).key(key).file(&self.path);
        match self.keys.get(key) {
            Some(Value::List(list)) => wrong.found(format!("a list of {}", list.len())).into(),
            Some(Value::Text(text)) => wrong.found(text).into(),
            Some(Value::Whole(whole)) => wrong.found(whole).into(),
            Some(Value::Float(float)) => wrong.found(float).into(),
            Some(Value::Bool(bool)) => wrong.found(bool).into(),
            None => wrong.found("no such key").into(),
        }
    }

    /// All keys with their values, by name.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Value)> {
        let sorted: std::collections::BTreeMap<_, _> =
            self.keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
        sorted.into_iter()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// A whole number within a range.
    pub fn whole(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64> {
        let found = match self.get(key) {
            Some(Value::Whole(whole)) => u64::try_from(*whole).ok().filter(|whole| range.contains(whole)),
            _ => None,
        };
        found.ok_or_else(|| {
            self.wrong(key, format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// As `whole`, or `default` where the key is absent.
    pub fn whole_or(&self, key: &str, range: std::ops::RangeInclusive<u64>, default: u64) -> Result<u64> {
        if self.get(key).is_none() { Ok(default) } else { self.whole(key, range) }
    }

    /// A number above zero, or `default` where the key is absent.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Float(float)) if float.is_finite() && *float > 0.0 => Ok(*float),
            _ => Err(self.wrong(key, "a number above 0")),
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.wrong(key, "a text")),
        }
    }

    /// A list whose elements `take` takes.
    pub fn list<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        take: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Vec<T>> {
        let list = match self.get(key) {
            Some(Value::List(list)) => list.iter().map(take).collect(),
            _ => None,
        };
        list.ok_or_else(|| self.wrong(key, format!("a list of {what}")))
    }
}

impl Source<'_> {
    fn wrong(&self, key: &str, found: impl std::fmt::Display, what: impl Into<String>) -> Error {
        InputError::expected(what).key(key).found(found).file(self.path).into()
    }

    fn bytes(&mut self, key: &str, count: u64) -> Result<Vec<u8>> {
        if count > self.left {
            let found = format!("{count} bytes at byte {}", self.length - self.left);
            return Err(self.wrong(key, found, format!("at most the {} that are left", self.left)));
        }
        let mut bytes = vec![0; count as usize];
        self.reader.read_exact(&mut bytes).map_err(Error::io(self.path, "read"))?;
        self.left -= count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, key: &str) -> Result<[u8; N]> {
        Ok(self.bytes(key, N as u64)?.try_into().expect("as many as were asked for"))
    }

    fn u32(&mut self, key: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(key)?))
    }

    fn u64(&mut self, key: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(key)?))
    }

    /// A number of things of at least so many bytes each: no more than the file has room for.
    fn count(&mut self, key: &str, bytes: u64) -> Result<u64> {
        let count = self.u64(key)?;
        let most = self.left / bytes;
        if count <= most {
            Ok(count)
        } else {
            Err(self.wrong(key, count, format!("at most {most} in so short a file")))
        }
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let length = self.u64(what)?;
        if length > LONGEST_NAME {
            return Err(self.wrong(what, format!("{length} bytes"), format!("at most {LONGEST_NAME}")));
        }
        self.text_of(what, length)
    }

    fn text(&mut self, key: &str) -> Result<String> {
        let length = self.u64(key)?;
        self.text_of(key, length)
    }

    fn text_of(&mut self, key: &str, length: u64) -> Result<String> {
        let bytes = self.bytes(key, length)?;
        String::from_utf8(bytes).map_err(|error| self.wrong(key, error, "a text in UTF-8"))
    }

    /// A value of a type (gguf.md, `gguf_metadata_value_type`).
    fn value(&mut self, key: &str, kind: u32, depth: u32) -> Result<Value> {
        let float = |value: f64| Value::Float(value);
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.array(key)?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Whole(self.u32(key)?.into()),
            5 => Value::Whole(i32::from_le_bytes(self.array(key)?).into()),
            6 => float(f32::from_le_bytes(self.array(key)?).into()),
            7 => match self.array(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(self.wrong(key, other, "0 or 1 for a truth value")),
            },
            8 => Value::Text(self.text(key)?),
            9 if depth < DEEPEST => {
                let kind = self.u32(key)?;
                let count = self.count(key, 1)?;
                let left = self.items.checked_sub(count);
                self.items = left.ok_or_else(|| {
                    let found = format!("a list of {count}");
                    self.wrong(key, found, format!("at most {MOST_ITEMS} elements in all lists"))
                })?;
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(key, kind, depth + 1)?);
                }
                Value::List(list)
            }
            10 => Value::Whole(self.u64(key)?.into()),
            11 => Value::Whole(i64::from_le_bytes(self.array(key)?).into()),
            12 => float(f64::from_le_bytes(self.array(key)?)),
            other => {
                return Err(self.wrong(
                    key,
                    format!("type {other}"),
                    "a value type from 0 to 12, lists not nested deeply",
                ));
            }
        })
    }

    fn entry(&mut self) -> Result<Entry> {
        let name = self.name("a tensor's name")?;
        let count = self.u32(&name)?;
        if !(1..=DIMENSIONS).contains(&count) {
            return Err(self.wrong(&name, format!("{count} dimensions"), format!("1 to {DIMENSIONS}")));
        }
        let dims = (0..count).map(|_| self.u64(&name)).collect::<Result<Vec<_>>>()?;
        let kind = self.u32(&name)?;
        let format = self.format(&name, kind)?;
        let offset = self.u64(&name)?;
        let values = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        if values.is_none_or(|values| values == 0 || values > self.length.saturating_mul(8)) {
            return Err(self.wrong(
                &name,
                format!("dimensions {dims:?}"),
                "as many values as the file can hold",
            ));
        }
        if !dims[0].is_multiple_of(format.block().1 as u64) {
            let what = format!("rows of whole blocks of {}", format.block().1);
            return Err(self.wrong(&name, format!("rows of {}", dims[0]), what));
        }
        Ok(Entry { name, dims, format, file: 0, offset })
    }

    fn format(&self, name: &str, number: u32) -> Result<TensorFormat> {
        TensorFormat::numbered(number).map_err(|found| {
            let names: Vec<&str> = TensorFormat::all().map(TensorFormat::name).collect();
            self.wrong(name, found, format!("one of {}", names.join(", ")))
        })
    }
}
