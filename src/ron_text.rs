//! Texts that people write, most of them in RON, read with errors that name line and key.

use crate::error::{Error, InputError, Result, hint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The text of a file of at most `most_bytes`, without a byte order mark; larger ones are refused before they are read. `what` names it in errors.
///
/// # Errors
/// A file that cannot be read, is too large or is not UTF-8.
pub fn read(path: &Path, what: &str, most_bytes: u64) -> Result<String> {
    let too_large = |found: String| {
        InputError::expected(format!("{what} of at most {most_bytes} bytes")).found(found).file(path)
    };
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let bytes = file.metadata().map_err(Error::io(path, "read"))?.len();
    if bytes > most_bytes {
        return Err(too_large(format!("{bytes} bytes")).into());
    }
    // A pipe or device states no length, so the read has its own bound.
    let mut text = Vec::new();
    file.take(most_bytes + 1).read_to_end(&mut text).map_err(Error::io(path, "read"))?;
    if text.len() as u64 > most_bytes {
        return Err(too_large("more".into()).into());
    }
    // The mark that some editors put before UTF-8.
    if text.starts_with(b"\xef\xbb\xbf") {
        text.drain(..3);
    }
    String::from_utf8(text).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count() as u64;
        InputError::expected("UTF-8 text").found("other bytes").line(line).file(path).into()
    })
}

/// Reads a value; optional keys are written without `Some`. `what` is what the text should be, for errors.
///
/// # Errors
/// The mistake with its line and, where it can be told, its key.
pub fn parse<T: DeserializeOwned>(text: &str, what: &str) -> std::result::Result<T, InputError> {
    let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    options.from_str(text).map_err(|error| in_our_words(text, what, &error))
}

/// The same mistake in this crate's words, with line and key.
fn in_our_words(text: &str, what: &str, error: &ron::error::SpannedError) -> InputError {
    use ron::Error as Code;
    let line = error.span.start.line as u64;
    let said = match &error.code {
        Code::MissingStructField { field, .. } => {
            InputError::expected(format!("the key `{field}`, which is missing"))
        }
        Code::NoSuchStructField { expected, found: field, .. } => {
            let near = hint(field, expected.iter().copied());
            InputError::expected(format!("one of {}{near}", expected.join(", "))).found("an unknown key")
        }
        Code::DuplicateStructField { field, .. } => {
            InputError::expected(format!("the key `{field}` once")).found("it twice")
        }
        Code::NoSuchEnumVariant { expected, found, .. } => {
            let near = hint(found, expected.iter().copied());
            InputError::expected(format!("one of {}{near}", expected.join(", "))).found(found)
        }
        Code::InvalidValueForType { expected, found } => InputError::expected(expected.as_str()).found(found),
        other => {
            let said = other.to_string();
            match said.strip_prefix("Expected ") {
                Some(what) => InputError::expected(what),
                None => InputError::expected(what).found(said),
            }
        }
    };
    let said = said.line(line);
    let at = offset(text, error.span.start);
    let key = match &error.code {
        // The place is the end of what it is missing from; there the key would be.
        Code::MissingStructField { field, .. } => {
            key_at(&format!("{} {field}:", &text[..at]), text.len() + 1)
        }
        _ => key_at(text, at),
    };
    match key {
        Some(key) if !matches!(error.code, Code::Eof | Code::TrailingCharacters) => said.key(key),
        _ => said,
    }
}

/// Refuses numbers that are not finite (`NaN`, `inf`, `1e999`), which the JSON between a file and its settings cannot hold.
///
/// # Errors
/// The first one, with its key; without file and line.
pub fn finite(value: &impl Serialize) -> std::result::Result<(), InputError> {
    // Written anew, such numbers are words of their own, however they stood in the file.
    let text = ron::to_string(value).unwrap_or_default();
    let mut bad = None;
    visit_words(&text, |keys, word| {
        if !word.is_key && ["NaN", "inf"].contains(&word.text) {
            bad = Some(InputError::expected("a finite number").key(keys.join(".")).found(word.text));
        }
        bad.is_none()
    });
    bad.map_or(Ok(()), Err)
}

/// A word that a reader does not know, with those that it does.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown<'s> {
    /// The word.
    pub found: &'s str,
    /// Those that could have stood in its place.
    pub known: Vec<&'s str>,
    /// Whether it stands for a key rather than a value.
    pub is_key: bool,
}

/// Takes apart what serde says of an unknown field or variant: "unknown field `a`, expected one of `b`, `c`".
pub fn unknown(said: &str) -> Option<Unknown<'_>> {
    let is_key = said.starts_with("unknown field");
    if !is_key && !said.starts_with("unknown variant") {
        return None;
    }
    let mut words = said.split('`').skip(1).step_by(2);
    let found = words.next()?;
    Some(Unknown { found, known: words.collect(), is_key })
}

/// Line of a key path, from 1.
pub fn line_of(text: &str, path: &str) -> Option<u64> {
    line_of_nth(text, path, 0)
}

/// Line, from 1, of a key path that stands in a text several times, as in a list: of its `nth`, from 0.
pub fn line_of_nth(text: &str, path: &str, nth: usize) -> Option<u64> {
    let (mut found, mut before) = (None, 0);
    visit_keys(text, |keys, line, _| {
        let here = keys.iter().copied().eq(path.split('.'));
        found = (here && before == nth).then_some(line);
        before += usize::from(here);
        found.is_none()
    });
    found
}

/// Bytes before a position.
fn offset(text: &str, at: ron::error::Position) -> usize {
    let line: usize = text.split_inclusive('\n').take(at.line.saturating_sub(1)).map(str::len).sum();
    line + text[line..].chars().take(at.col.saturating_sub(1)).map(char::len_utf8).sum::<usize>()
}

/// The last key path that starts `at` bytes into the text or before, without the `value` and `source` of a number.
fn key_at(text: &str, at: usize) -> Option<String> {
    let mut last = String::new();
    visit_keys(text, |keys, _, of_key| {
        if of_key <= at {
            last = keys.join(".");
        }
        of_key <= at
    });
    let last = last.strip_suffix(".value").or(last.strip_suffix(".source")).unwrap_or(&last);
    (!last.is_empty()).then(|| last.to_owned())
}

/// Shows each key of a text, with the keys around it, its line and its place in bytes, until `visit` has enough (false).
fn visit_keys<'a>(text: &'a str, mut visit: impl FnMut(&[&'a str], u64, usize) -> bool) {
    visit_words(text, |keys, word| !word.is_key || visit(keys, word.line, word.at));
}

/// A word outside of strings and comments.
struct Word<'a> {
    text: &'a str,
    is_key: bool,
    line: u64,
    /// Bytes before it.
    at: usize,
}

/// Shows each word of a text with the keys around it, its own included, until `visit` has enough (false).
/// It knows plain texts and line comments, and gives up at a depth that no file has.
fn visit_words<'a>(text: &'a str, mut visit: impl FnMut(&[&'a str], Word<'a>) -> bool) {
    const DEEPEST: usize = 16;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut keys: Vec<&str> = Vec::new();
    // For each open parenthesis, how many keys stand around it.
    let mut opened: Vec<usize> = Vec::new();
    let (mut line, mut rest) = (1, text);
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let is_key = rest[end..].trim_start().starts_with(':');
            if is_key {
                keys.truncate(opened.last().copied().unwrap_or(0));
                keys.push(&rest[..end]);
            }
            let word = Word { text: &rest[..end], is_key, line, at: text.len() - rest.len() };
            if !visit(&keys, word) {
                return;
            }
            end
        } else {
            match first {
                '(' => opened.push(keys.len()),
                ')' => keys.truncate(opened.pop().unwrap_or(0)),
                _ => {}
            }
            first.len_utf8()
        };
        if opened.len() > DEEPEST {
            return;
        }
        line += rest[..length].matches('\n').count() as u64;
        rest = &rest[length..];
    }
}
