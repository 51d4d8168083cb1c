//! What chat templates expect of Python, beyond what the template library brings.

use super::date::Date;
use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State};
use serde::Serialize;
use serde_json::ser::Formatter;
use std::borrow::Cow;
use std::fmt::Write;
use std::io;

/// Deepest nesting of a value that is written: Python's own limit is a thousand, on a larger stack.
const DEEPEST: usize = 100;

fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value is nested deeper than {DEEPEST}"))
}

/// `datetime.strftime` for midnight of a day.
pub fn strftime(day: Date, format: &str) -> Result<String, Error> {
    let mut text = String::new();
    let midnight = day.0.and_time(chrono::NaiveTime::MIN);
    write!(text, "{}", midnight.format(format))
        .map(|()| text)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("{format:?} is no format of a date")))
}

/// Writes a value as Python's `str` does, where the template library differs: `True`, `None`, `['a']`.
pub fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool | ValueKind::None | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let mut text = String::new();
            represent(state, value, DEEPEST, 1, &mut text)?;
            out.write_str(&text).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// Python's `repr` of what templates hold, nested no deeper than `left`. Takes this much fuel for each value, and one for each 64 bytes
/// of a text: a list may be a hundred million times the same value, of which nothing is held yet ([`ValueKind::Iterable`]).
fn represent(state: &State, value: &Value, left: usize, fuel: u64, out: &mut String) -> Result<(), Error> {
    let inner = left.checked_sub(1).ok_or_else(too_deep)?;
    state.consume_fuel(fuel + value.as_str().map_or(0, |text| text.len() as u64 / 64))?;
    match value.kind() {
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None => out.push_str("None"),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            out.push(quote);
            for c in text.chars() {
                match c {
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if c == quote || c == '\\' => out.extend(['\\', c]),
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        kind @ (ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => {
            let mapping = kind == ValueKind::Map;
            out.push(if mapping { '{' } else { '[' });
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                represent(state, &item, inner, fuel, out)?;
                if mapping {
                    out.push_str(": ");
                    represent(state, &value.get_item(&item)?, inner, fuel, out)?;
                }
            }
            out.push(if mapping { '}' } else { ']' });
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

/// Whether Jinja calls a value a sequence: whatever has a length and can be indexed, texts and mappings included.
pub fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
}

/// Methods of Python's texts that `minijinja-contrib` lacks; all others are its own.
pub fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args);
    };
    let list = |parts: Vec<&str>| Value::from_iter(parts.into_iter().map(Value::from));
    let around = |at: Option<usize>, mark: &str, missing: [&str; 3]| match at {
        Some(at) => list(vec![&text[..at], mark, &text[at + mark.len()..]]),
        None => list(missing.to_vec()),
    };
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" => {
            let (mark,): (&str,) = from_args(args)?;
            Ok(around(text.find(mark), mark, [text, "", ""]))
        }
        "rpartition" => {
            let (mark,): (&str,) = from_args(args)?;
            Ok(around(text.rfind(mark), mark, ["", "", text]))
        }
        "rsplit" => {
            let (mark, most): (Option<&str>, Option<usize>) = from_args(args)?;
            let Some(mark) = mark.filter(|mark| !mark.is_empty()) else {
                return Err(Error::new(ErrorKind::InvalidOperation, "rsplit needs a text to split at"));
            };
            let mut parts: Vec<&str> = match most {
                Some(most) => text.rsplitn(most.saturating_add(1), mark).collect(),
                None => text.rsplit(mark).collect(),
            };
            parts.reverse();
            Ok(list(parts))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// `json.dumps` as transformers calls it: nothing escaped for HTML, characters beyond ASCII as they are.
pub fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let bad = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    options.assert_all_used()?;
    let indent = indent.map(|spaces| spaces.min(32));
    let around = separators.iter().flatten().map(String::len).sum::<usize>() + DEEPEST * indent.unwrap_or(0);
    // Nested too deeply, serialisation would not come back; and what is written around each value is paid for as well.
    represent(state, value, DEEPEST, 1 + around as u64 / 64, &mut String::new())?;
    let mut value = serde_json::to_value(value).map_err(bad)?;
    if sorted {
        value.sort_all_objects();
    }
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.clone(), key.clone()],
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators are two texts")),
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
    };
    let mut bytes = Vec::new();
    let style = Python { indent, depth: 0, item, key };
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, style)).map_err(bad)?;
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    Ok(if ascii { escaped(&text) } else { text })
}

/// Characters beyond ASCII, which stand in texts only, as JSON escapes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// JSON with the separators and line breaks of Python's `json` module.
struct Python {
    indent: Option<usize>,
    depth: usize,
    item: String,
    key: String,
}

impl Python {
    fn begin<W: ?Sized + io::Write>(&mut self, out: &mut W, open: &[u8]) -> io::Result<()> {
        self.depth += 1;
        out.write_all(open)
    }

    fn next<W: ?Sized + io::Write>(&self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.line(out)
    }

    fn line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        match self.indent {
            Some(spaces) => write!(out, "\n{}", " ".repeat(spaces * self.depth)),
            None => Ok(()),
        }
    }

    fn end<W: ?Sized + io::Write>(&mut self, out: &mut W, close: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        self.line(out)?;
        out.write_all(close)
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"[")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"}")
    }
}

/// A template without the tags that mark what the model said, which say nothing about the text: `{% generation %}` becomes a
/// block that changes nothing and trims what the tag trimmed.
pub fn without_generation(template: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        let word = tag.trim_start_matches(['-', '+']).trim_start();
        let new = [("generation", "with"), ("endgeneration", "endwith")].into_iter().find(|(old, _)| {
            let behind = word.strip_prefix(old).map(str::trim_start);
            behind.is_some_and(|behind| behind.trim_start_matches(['-', '+']).starts_with("%}"))
        });
        let skipped = &tag[..tag.len() - word.len()];
        out.push_str(skipped);
        rest = word;
        if let Some((old, new)) = new {
            out.push_str(new);
            rest = &word[old.len()..];
        }
    }
    if out.is_empty() { Cow::Borrowed(template) } else { Cow::Owned(out + rest) }
}
