//! Which format a file has, told from its name and its beginning.

use super::Format;
use super::table::{OUTPUT, PROMPT};
use crate::error::{InputError, Result};
use crate::trace::json::Object;
use crate::trace::lines::Input;
use serde::de::IgnoredAny;
use std::path::Path;

/// Parquet files are router traces.
pub(super) fn by_name(path: &Path) -> Option<Format> {
    let ending = path.extension()?.to_string_lossy().to_lowercase();
    (ending == "parquet").then_some(Format::Trace)
}

/// What the beginning of a file says.
pub(super) enum Shape {
    /// The cells of the first line, which does not start with a brace.
    Cells(Vec<String>),
    /// The keys of the object on the first line.
    Keys(Vec<String>),
    /// An object that does not end on the first line, or not in what was looked at: a vLLM result.
    Result,
}

impl Shape {
    /// Whether it is JSON.
    pub fn is_json(&self) -> bool {
        !matches!(self, Shape::Cells(_))
    }

    /// Whether it is one object for the whole file.
    pub fn is_result(&self) -> bool {
        match self {
            Shape::Cells(_) => false,
            // A result without its lists is still one, and the error should say so.
            Shape::Keys(keys) => {
                let has = |name: &str| keys.iter().any(|key| key == name);
                has("input_lens") || has("output_lens") || has("total_input_tokens")
            }
            Shape::Result => true,
        }
    }

    /// The format, where it is a known one.
    pub fn format(&self) -> Result<Format> {
        let names = match self {
            Shape::Result => return Ok(Format::Vllm),
            Shape::Cells(names) | Shape::Keys(names) => names,
        };
        let has = |name: &str| names.iter().any(|known| known == name);
        let some = |known: &[&str]| known.iter().any(|name| has(name));
        if self.is_result() {
            return Ok(Format::Vllm);
        }
        if self.is_json() && has("type") {
            return Ok(Format::Trace);
        }
        if self.is_json() && has("hash_ids") {
            return Ok(Format::Mooncake);
        }
        if !self.is_json() && has("TIMESTAMP") {
            return Ok(Format::Azure);
        }
        if some(&PROMPT) && some(&OUTPUT) {
            return Ok(Format::Lengths);
        }
        let what = "requests as azure (CSV with TIMESTAMP, ContextTokens, GeneratedTokens), mooncake (JSON Lines with timestamp, \
            input_length, output_length, hash_ids), lengths (CSV or JSON Lines with input_tokens, output_tokens or the like), \
            vllm (a benchmark result with input_lens, output_lens) or trace (a router trace)";
        let found = if names.iter().all(String::is_empty) { "nothing".into() } else { names.join(", ") };
        Err(InputError::expected(what).found(found).line(1).into())
    }
}

/// Looks at the beginning of a file, of which nothing is taken away.
pub(super) fn shape(input: &mut Input) -> Result<Shape> {
    let start = input.bytes.fill_buf().map_err(|cause| input.origin.error(1, cause))?;
    let skipped = start.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let start = &start[skipped..];
    let end = start.iter().position(|&byte| byte == b'\n');
    let line = String::from_utf8_lossy(&start[..end.unwrap_or(start.len())]);
    if !line.starts_with('{') {
        let cell = |cell: &str| cell.trim().trim_matches('"').to_owned();
        return Ok(Shape::Cells(line.split(',').take(64).map(cell).collect()));
    }
    Ok(match Object::parse(&line) {
        Ok(object) => Shape::Keys(object.entries().map(|(key, _)| key.to_owned()).collect()),
        // A result goes over several lines, or on one that is longer than what is looked at.
        Err(_) if serde_json::from_str::<IgnoredAny>(&line).is_err_and(|error| error.is_eof()) => {
            Shape::Result
        }
        Err(error) => return Err(super::collect::in_line(error, 1)),
    })
}
