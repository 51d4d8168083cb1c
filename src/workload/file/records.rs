//! Objects out of JSON of any shape: a line each, the elements of an array, or those of arrays deep within one object.
//!
//! Everything is a stream: what is not wanted is passed over without being held, and one object is held at a time.

use super::collect::in_line;
use super::value::Value;
use crate::error::{Error, InputError, Result};
use crate::json_text::{self, Standard};
use crate::trace::json::{Field, Object};
use crate::trace::limits::LINE_BYTES;
use crate::trace::lines::{Input, Lines, Origin};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::cell::Cell;
use std::fmt;
use std::io::Read;
use std::rc::Rc;

/// A step on the way to the objects that are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The value of one of these keys; each that is there is visited.
    Key(&'static [&'static str]),
    /// Every element of a list.
    Each,
}

/// Shows the object of each line, and the line, to `take`; blank lines are passed over.
pub(super) fn each_line(input: Input, mut take: impl FnMut(&Object, u64) -> Result<()>) -> Result<()> {
    let mut lines = Lines::new(input);
    loop {
        let line = lines.count() + 1;
        let Some(text) = lines.next()? else { return Ok(()) };
        if !text.trim().is_empty() {
            with_object(text, |object| take(object, line)).map_err(|error| in_line(error, line))?;
        }
    }
}

/// Reads one object, with the words of Python's `json`, and shows it.
fn with_object(text: &str, take: impl FnOnce(&Object) -> Result<()>) -> Result<()> {
    let standard = json_text::standard(text.as_bytes());
    let text = std::str::from_utf8(&standard).map_err(|_| InputError::expected("UTF-8 text"))?;
    Object::parse(text).and_then(|object| take(&object))
}

/// Where an object stands.
pub(super) struct Place<'a> {
    /// The line where it begins.
    pub line: u64,
    /// How many elements each [`Step::Each`] has passed.
    pub counts: &'a [u64],
}

/// Shows each object at the end of `path` to `take`. The text is one JSON value, or one after another. Errors name the line where the
/// object begins.
pub(super) fn each_at(
    input: Input,
    path: &[Step],
    mut take: impl FnMut(&Object, Place) -> Result<()>,
) -> Result<()> {
    let Input { bytes, origin } = input;
    let metered = Metered::new(Standard::new(bytes));
    let (left, line) = (metered.left(), metered.line.clone());
    let mut json = serde_json::Deserializer::from_reader(metered);
    let counts = vec![0; path.iter().filter(|step| matches!(step, Step::Each)).count()];
    let mut state = State { take: &mut take, wrong: None, left, line, counts };
    loop {
        let read = Walk { path, depth: 0, state: &mut state }.deserialize(&mut json);
        if let Err(error) = read {
            let out_of_bytes = state.left.get() == 0;
            return Err(explain(error, state.wrong, out_of_bytes, &origin));
        }
        if json.end().is_ok() {
            return Ok(());
        }
    }
}

/// A failed read in this crate's words.
fn explain(error: serde_json::Error, wrong: Option<Error>, out_of_bytes: bool, origin: &Origin) -> Error {
    let line = error.line() as u64;
    match wrong {
        Some(wrong) => wrong,
        None if out_of_bytes => {
            let what = format!("objects and keys of at most {LINE_BYTES} bytes");
            InputError::expected(what).found("a longer one").line(line).into()
        }
        None if error.is_io() => origin.error(line, error.into()),
        None => {
            let message = error.to_string();
            let cause = message.rfind(" at line ").map_or(&*message, |end| &message[..end]);
            InputError::expected("JSON").found(cause).line(line.max(1)).into()
        }
    }
}

struct State<'a> {
    take: &'a mut dyn FnMut(&Object, Place) -> Result<()>,
    wrong: Option<Error>,
    left: Rc<Cell<usize>>,
    line: Rc<Cell<u64>>,
    counts: Vec<u64>,
}

struct Walk<'a, 'b, 'c> {
    path: &'a [Step],
    /// How many lists there are around it.
    depth: usize,
    state: &'b mut State<'c>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        if !self.path.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let State { take, wrong, left, line, counts } = self.state;
        let begins = line.get();
        left.set(LINE_BYTES);
        let raw: Box<RawValue> = serde::Deserialize::deserialize(deserializer)?;
        left.set(usize::MAX);
        let taken = Object::parse(raw.get()).and_then(|object| take(&object, Place { line: begins, counts }));
        taken.map_err(|error| {
            *wrong = Some(in_line(error, begins));
            D::Error::custom("a wrong object")
        })
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.first() {
            Some(Step::Key(keys)) => write!(f, "an object with the key {}", keys[0]),
            _ => f.write_str("a list of objects"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.path.split_first() else {
            return Err(A::Error::custom("an object in place of a list"));
        };
        loop {
            self.state.left.set(LINE_BYTES);
            let key = map.next_key::<String>()?;
            self.state.left.set(usize::MAX);
            match key {
                None => return Ok(()),
                Some(key) if wanted.contains(&key.as_str()) => {
                    map.next_value_seed(Walk { path: rest, depth: self.depth, state: self.state })?;
                }
                Some(_) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        let Some((Step::Each, rest)) = self.path.split_first() else {
            return Err(A::Error::custom("a list in place of an object"));
        };
        let depth = self.depth + 1;
        while list.next_element_seed(Walk { path: rest, depth, state: self.state })?.is_some() {
            self.state.counts[self.depth] += 1;
        }
        Ok(())
    }

    /// `null` is nothing.
    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
}

/// Gives out bytes while some are left, and counts lines. Who shares `left` bounds what the parser holds next.
pub(super) struct Metered<R> {
    source: R,
    left: Rc<Cell<usize>>,
    line: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    /// Without a bound for now.
    pub fn new(source: R) -> Self {
        Metered { source, left: Rc::new(Cell::new(usize::MAX)), line: Rc::new(Cell::new(1)) }
    }

    /// How many bytes are left, to be shared.
    pub fn left(&self) -> Rc<Cell<usize>> {
        self.left.clone()
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(std::io::Error::other("an object beyond the limit"));
        }
        let most = buffer.len().min(left);
        let read = self.source.read(&mut buffer[..most])?;
        self.left.set(left - read);
        let lines = buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        self.line.set(self.line.get() + lines as u64);
        Ok(read)
    }
}

/// The value of `key`, which may be a path: `metrics.output_sequence_length.value`. A key with points in it goes first.
pub(super) fn find<'a>(object: &Object<'a>, key: &'a str) -> Option<Value<'a>> {
    if let Some(Field { raw, .. }) = object.get(key) {
        return Some(Value { key, text: raw });
    }
    let mut points = key.match_indices('.').map(|(at, _)| at);
    points.find_map(|at| {
        let inner = object.get(&key[..at]).and_then(|inner| Object::parse(inner.raw).ok())?;
        find(&inner, &key[at + 1..]).map(|value| Value { key, text: value.text })
    })
}

/// The same, where it must be there and not null.
pub(super) fn need<'a>(object: &Object<'a>, key: &'a str) -> Result<Value<'a>> {
    find(object, key).ok_or_else(|| InputError::expected("this key").key(key).found("nothing").into())
}

/// All keys of an object, those of objects in it as paths, up to three deep and to a number that no request has.
pub(super) fn paths(object: &Object) -> Vec<String> {
    fn add(object: &Object, before: &str, depth: u32, out: &mut Vec<String>) {
        for (key, raw) in object.entries() {
            if out.len() >= 4096 {
                return;
            }
            let path = format!("{before}{key}");
            if depth < 3
                && raw.starts_with('{')
                && let Ok(inner) = Object::parse(raw)
            {
                add(&inner, &format!("{path}."), depth + 1, out);
            }
            out.push(path);
        }
    }
    let mut out = Vec::new();
    add(object, "", 0, &mut out);
    out
}
