//! The GGUF container (ggml's `docs/gguf.md`, versions 2 and 3): key-value pairs, then a table of tensors, then their bytes.
//!
//! A reader of our own: those on crates.io allocate what a length in the file says before they look whether the file is that
//! long, or bring a whole tensor library.

use super::Format;
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
    pub format: Format,
    /// From the start of the file.
    pub offset: u64,
}

/// What stands before the bytes of the tensors.
#[derive(Debug)]
pub struct Gguf {
    pub path: PathBuf,
    keys: HashMap<String, Value>,
    pub tensors: Vec<Entry>,
}

/// Deepest nesting of lists: none of the known keys nests them.
const DEEPEST: u32 = 2;
/// Bytes between tensors where the file does not say (gguf.md, `general.alignment`).
const ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor (ggml.h, GGML_MAX_DIMS).
const DIMENSIONS: u32 = 4;

/// A file with what is left of it.
struct Source<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    length: u64,
    left: u64,
}

impl Gguf {
    /// Reads everything but the tensors.
    pub fn read(path: &Path) -> Result<Gguf> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut source = Source { path, reader: BufReader::new(file), length, left: length };
        let magic = source.bytes("magic", 4)?;
        if magic != b"GGUF" {
            let found = String::from_utf8_lossy(&magic).into_owned();
            return Err(source.wrong("magic", found, "a GGUF file, which begins with GGUF"));
        }
        let version = source.u32("version")?;
        if !(2..=3).contains(&version) {
            return Err(source.wrong("version", version, "2 or 3"));
        }
        let tensors = source.count("tensor_count", 24)?;
        let pairs = source.count("metadata_kv_count", 13)?;
        let mut keys = HashMap::new();
        for _ in 0..pairs {
            let key = source.text("a key")?;
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
        let mut gguf = Gguf { path: path.to_owned(), keys, tensors: entries };
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

    fn text(&mut self, key: &str) -> Result<String> {
        let length = self.u64(key)?;
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
        let name = self.text("a tensor's name")?;
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
        Ok(Entry { name, dims, format, offset })
    }

    /// Types of tensors (ggml.h, `ggml_type`).
    fn format(&self, name: &str, kind: u32) -> Result<Format> {
        match kind {
            0 => Ok(Format::F32),
            1 => Ok(Format::F16),
            2 => Ok(Format::Q4_0),
            3 => Ok(Format::Q4_1),
            8 => Ok(Format::Q8_0),
            30 => Ok(Format::Bf16),
            other => {
                let names = Format::ALL.map(|(_, name)| name).join(", ");
                Err(self.wrong(name, format!("type {other}"), format!("one of {names}")))
            }
        }
    }
}
