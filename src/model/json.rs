//! A JSON object read key by key, where each refusal names file, key, found and expected.

use crate::error::{Error, InputError, Result};
use crate::json_text;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read. Published ones stay below 100 kB.
const MOST_BYTES: u64 = 4 << 20;

/// The top object of a JSON file.
pub(super) struct Object {
    file: PathBuf,
    keys: Map<String, Value>,
}

impl Object {
    /// Reads `file`. Refuses other things than files, more than 4 MiB, and what is no JSON object.
    pub(super) fn read(file: &Path) -> Result<Object> {
        let meta = std::fs::metadata(file).map_err(Error::io(file, "read"))?;
        if !meta.is_file() {
            return Err(InputError::expected("a file").file(file).found("something else").into());
        }
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(Error::io(file, "read"))?;
        opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(file, "read"))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(InputError::expected("at most 4 MiB").file(file).found("a larger file").into());
        }
        let keys = json_text::from_slice(&bytes, "a JSON object").map_err(|error| error.file(file))?;
        Ok(Object { file: file.to_owned(), keys })
    }

    /// The value of a key; `null` counts as absent, as in Hugging Face's own reader.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// A refusal of the value of `key`.
    pub(super) fn wrong(&self, key: &str, expected: impl Into<String>) -> Error {
        let error = InputError::expected(expected).file(&self.file).key(key);
        match self.keys.get(key) {
            Some(value) => error.found(value),
            None => error.found("nothing"),
        }
        .into()
    }

    /// A whole number from 1 to `most`.
    pub(super) fn number(&self, key: &str, most: u64) -> Result<u64> {
        let value = self.get(key).and_then(Value::as_u64).filter(|value| (1..=most).contains(value));
        value.ok_or_else(|| self.wrong(key, format!("a whole number from 1 to {most}")))
    }

    /// The same, with a value for absence.
    pub(super) fn number_or(&self, key: &str, absent: u64, most: u64) -> Result<u64> {
        if self.get(key).is_some() { self.number(key, most) } else { Ok(absent) }
    }

    /// A truth value, with one for absence.
    pub(super) fn flag(&self, key: &str, absent: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(absent),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// Refuses any value of a truth key but `only`, which is also what absence means.
    pub(super) fn must_be(&self, key: &str, only: bool) -> Result<()> {
        if self.flag(key, only)? == only {
            return Ok(());
        }
        Err(self.wrong(key, format!("{only}, the other is not supported")))
    }

    /// One of the named values.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.get(key).and_then(Value::as_str);
        choices.iter().find(|(name, _)| Some(*name) == text).map(|(_, value)| *value).ok_or_else(|| {
            let names = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            self.wrong(key, format!("one of {names}"))
        })
    }
}
