//! A JSON object read key by key, where each refusal names file, key, found and expected. It remembers what was read, so
//! that what was not can be named.

use crate::error::{Error, InputError, Result};
use crate::json_text;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read. Published ones stay below 100 kB.
const MOST_BYTES: u64 = 4 << 20;

/// An object of a JSON file.
pub(super) struct Object {
    file: PathBuf,
    /// What stands before its keys in messages: `text_config.`.
    within: String,
    keys: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
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
        Ok(Object { file: file.to_owned(), within: String::new(), keys, read: RefCell::default() })
    }

    /// Keys that stand in no file; `name` takes its place in messages.
    pub(super) fn of(name: &str, keys: Map<String, Value>) -> Object {
        Object { file: name.into(), within: String::new(), keys, read: RefCell::default() }
    }

    /// The file that it stands in.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The value of a key; `null` counts as absent, as in Hugging Face's own reader.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let value = self.keys.get(key)?;
        self.read.borrow_mut().insert(key.to_owned());
        Some(value).filter(|value| !value.is_null())
    }

    /// The object under a key.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object>> {
        let keys = match self.get(key) {
            None => return Ok(None),
            Some(Value::Object(keys)) => keys.clone(),
            Some(_) => return Err(self.wrong(key, "an object")),
        };
        let within = format!("{}{key}.", self.within);
        Ok(Some(Object { file: self.file.clone(), within, keys, read: RefCell::default() }))
    }

    /// Its keys that were not asked for, each with its value.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&String, &Value)> {
        let read = self.read.borrow().clone();
        self.keys.iter().filter(move |(key, _)| !read.contains(*key))
    }

    /// `key: value`, shortened, as messages name it.
    pub(super) fn named(&self, key: &str, value: &Value) -> String {
        crate::error::shorten(&format!("{}{key}: {value}", self.within))
    }

    /// Marks a key as read.
    pub(super) fn pass_over(&self, key: &str) {
        self.read.borrow_mut().insert(key.to_owned());
    }

    /// The first of these names that is there, else the first.
    pub(super) fn first_of<'a>(&self, names: &[&'a str]) -> &'a str {
        names.iter().find(|name| self.get(name).is_some()).unwrap_or(&names[0])
    }

    /// A refusal of the value of `key`.
    pub(super) fn wrong(&self, key: &str, expected: impl Into<String>) -> Error {
        let error = InputError::expected(expected).file(&self.file).key(format!("{}{key}", self.within));
        match self.keys.get(key) {
            Some(value) => error.found(value),
            None => error.found("nothing"),
        }
        .into()
    }

    /// A whole number from 1 to `most`.
    pub(super) fn number(&self, key: &str, most: u64) -> Result<u64> {
        self.number_from(key, 1, most)
    }

    fn number_from(&self, key: &str, least: u64, most: u64) -> Result<u64> {
        let value = self.get(key).and_then(Value::as_u64).filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| self.wrong(key, format!("a whole number from {least} to {most}")))
    }

    /// The same, with a value for absence.
    pub(super) fn number_or(&self, key: &str, absent: u64, most: u64) -> Result<u64> {
        if self.get(key).is_some() { self.number(key, most) } else { Ok(absent) }
    }

    /// The same from 0 on.
    pub(super) fn count_or(&self, key: &str, absent: u64, most: u64) -> Result<u64> {
        if self.get(key).is_some() { self.number_from(key, 0, most) } else { Ok(absent) }
    }

    /// A finite number above 0, with one for absence.
    pub(super) fn positive_or(&self, key: &str, absent: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(absent),
            Some(value) => {
                let value = value.as_f64().filter(|value| value.is_finite() && *value > 0.0);
                value.ok_or_else(|| self.wrong(key, "a number above 0"))
            }
        }
    }

    /// A truth value, with one for absence.
    pub(super) fn flag(&self, key: &str, absent: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(absent),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A finite number; `None` where absent.
    pub(super) fn real(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => {
                let value = value.as_f64().filter(|value| value.is_finite());
                value.map(Some).ok_or_else(|| self.wrong(key, "a number"))
            }
        }
    }

    /// Whether the key is there and null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Value::is_null)
    }

    /// Whether it has no keys.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
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

    /// A list that `read` takes each entry of; empty where absent.
    fn list<T>(&self, key: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let entries = value.as_array().and_then(|entries| entries.iter().map(read).collect());
        entries.ok_or_else(|| self.wrong(key, format!("a list of {what}")))
    }

    /// A list of whole numbers; empty where absent.
    pub(super) fn numbers(&self, key: &str) -> Result<Vec<u64>> {
        self.list(key, "whole numbers", Value::as_u64)
    }

    /// A list of numbers above 0, of this length.
    pub(super) fn positives(&self, key: &str, count: usize) -> Result<Vec<f64>> {
        let all = self.list(key, "numbers above 0", |value| {
            value.as_f64().filter(|value| value.is_finite() && *value > 0.0)
        })?;
        self.counted(key, all, count)
    }

    /// A list of texts, of this length.
    pub(super) fn texts(&self, key: &str, count: usize) -> Result<Vec<String>> {
        let all = self.list(key, "texts", |value| value.as_str().map(str::to_owned))?;
        self.counted(key, all, count)
    }

    /// A list of truth values, 0 and 1 among them, of this length.
    pub(super) fn flags_of(&self, key: &str, count: usize) -> Result<Vec<bool>> {
        let all = self.list(key, "0 and 1", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => value.as_u64().filter(|&value| value < 2).map(|value| value == 1),
        })?;
        self.counted(key, all, count)
    }

    fn counted<T>(&self, key: &str, all: Vec<T>, count: usize) -> Result<Vec<T>> {
        if all.len() == count {
            return Ok(all);
        }
        Err(self.wrong(key, format!("{count} entries rather than {}", all.len())))
    }
}
