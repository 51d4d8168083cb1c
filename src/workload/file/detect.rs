//! Which format a file has, told from its name and its beginning.

use super::RequestFormat;
use super::columns::separator;
use super::table::{OUTPUT, PROMPT, has_one};
use crate::error::{InputError, Result};
use crate::json_text;
use crate::trace::lines::Input;
use std::path::Path;

/// The keys of Mooncake's traces, and of AIPerf's files in their form.
const MOONCAKE: [&str; 6] = ["timestamp", "input_length", "output_length", "hash_ids", "session_id", "delay"];

/// Parquet files are router traces.
pub(super) fn by_name(path: &Path) -> Option<RequestFormat> {
    let ending = path.extension()?.to_string_lossy().to_lowercase();
    (ending == "parquet").then_some(RequestFormat::Trace)
}

/// What the beginning of a file says.
#[derive(Debug)]
pub(super) struct Shape {
    layout: Layout,
    /// The cells of the first line, or the keys of the first object as far as they are to be seen.
    names: Vec<String>,
    /// Whether the first object says that it is the header of a router trace.
    header: bool,
}

/// How values lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Not JSON.
    Cells,
    /// An object that ends on its line; others may follow.
    Lines,
    /// An object that goes over several lines, or further than what was looked at.
    Object,
    /// A list of objects.
    List,
}

impl Shape {
    /// Looks at the beginning of a file, of which nothing is taken away.
    pub fn of(input: &mut Input) -> Result<Shape> {
        let start = input.bytes.fill_buf().map_err(|cause| input.origin.error(1, cause))?;
        let skipped = start.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let start = &start[skipped..];
        if !matches!(start.first(), Some(b'{' | b'[')) {
            let end = start.iter().position(|&byte| byte == b'\n').unwrap_or(start.len());
            let line = String::from_utf8_lossy(&start[..end]);
            let cell = |cell: &str| cell.trim().trim_matches('"').to_owned();
            let names = line.split(char::from(separator(start))).take(64).map(cell).collect();
            return Ok(Shape { layout: Layout::Cells, names, header: false });
        }
        let list = start[0] == b'[';
        let text = if list { start[1..].trim_ascii_start() } else { start };
        let keys = Keys::of(text);
        let layout = match (list, keys.end) {
            (true, _) => Layout::List,
            (false, Some(end)) if !text[..end].contains(&b'\n') => Layout::Lines,
            (false, _) => Layout::Object,
        };
        Ok(Shape { layout, names: keys.names, header: keys.header })
    }

    /// Whether it is JSON.
    pub fn is_json(&self) -> bool {
        self.layout != Layout::Cells
    }

    /// Whether it is a list of objects.
    pub fn is_list(&self) -> bool {
        self.layout == Layout::List
    }

    /// Whether each object has a line of its own.
    pub fn is_lines(&self) -> bool {
        self.layout == Layout::Lines
    }

    /// Whether the first object has this key.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// Whether it is one object with a list for each property of the requests. One without its lists is still a result, and the error
    /// should say so.
    pub fn is_result(&self) -> bool {
        self.is_json()
            && ["input_lens", "output_lens", "total_input_tokens"].iter().any(|name| self.has(name))
    }

    /// The format, where it is a known one.
    pub fn format(&self) -> Result<RequestFormat> {
        let any = |names: &[&str]| names.iter().any(|name| self.has(name));
        let json = self.is_json();
        let format = match () {
            () if self.header => Some(RequestFormat::Trace),
            () if json && any(&["resourceSpans", "resource_spans"]) => Some(RequestFormat::Otel),
            () if json && self.has("benchmarks") => Some(RequestFormat::Guidellm),
            () if self.is_result() => Some(RequestFormat::Vllm),
            () if json && self.has("metadata") && self.has("metrics") => Some(RequestFormat::Aiperf),
            () if json && any(&["conversations", "conversation", "messages"]) => {
                Some(RequestFormat::Sharegpt)
            }
            () if json && any(&["chat_id", "parent_chat_id"]) && self.has("input_length") => {
                Some(RequestFormat::Bailian)
            }
            () if json && self.has("hash_ids") => Some(RequestFormat::Mooncake),
            () if json
                && self.has("timestamp")
                && self.names.iter().all(|name| MOONCAKE.contains(&&**name)) =>
            {
                Some(RequestFormat::Mooncake)
            }
            () if !json && self.has("TIMESTAMP") && self.has("ContextTokens") => Some(RequestFormat::Azure),
            () if has_one(&self.names, &PROMPT) && has_one(&self.names, &OUTPUT) => {
                Some(RequestFormat::Lengths)
            }
            () if json && any(&["sub_requests", "usage", "attributes"]) => Some(RequestFormat::Lengths),
            () => None,
        };
        format.ok_or_else(|| {
            let names = &self.names;
            let found = if names.iter().all(String::is_empty) { "nothing".into() } else { names.join(", ") };
            InputError::expected(self.remedy()).found(found).line(1).into()
        })
    }

    fn remedy(&self) -> &'static str {
        if self.has("experiments") {
            return "a file with token counts: profile_export.json of GenAI-Perf has texts, profile_export.jsonl of AIPerf has counts";
        }
        if self.has("input_config") || self.has("request_throughput") {
            return "a record for each request: this is a summary; AIPerf writes the records to profile_export.jsonl";
        }
        "requests as azure (CSV with TIMESTAMP, ContextTokens, GeneratedTokens), mooncake (JSON Lines with timestamp, input_length, \
            output_length, hash_ids), bailian (the same with chat_id, parent_chat_id), lengths (CSV or JSON with input_tokens, \
            output_tokens or the like), vllm (a benchmark result with input_lens, output_lens), aiperf (metadata, metrics), guidellm \
            (benchmarks), otel (resourceSpans), sharegpt (conversations) or trace (a router trace)"
    }
}

/// The keys of the object at the beginning of a text, read without building it: it may go on beyond what is there.
struct Keys {
    names: Vec<String>,
    header: bool,
    /// Behind its last brace, where that is there.
    end: Option<usize>,
}

impl Keys {
    fn of(text: &[u8]) -> Keys {
        let mut keys = Keys { names: Vec::new(), header: false, end: None };
        let (mut depth, mut at) = (0_u32, 0);
        // The string that was read last at the depth of the keys, until what follows it says what it is.
        let mut last: Option<String> = None;
        while at < text.len() {
            match text[at] {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        keys.value(last.take());
                        keys.end = Some(at + 1);
                        return keys;
                    }
                }
                b':' if depth == 1 => keys.names.extend(last.take()),
                b',' if depth == 1 => keys.value(last.take()),
                b'"' => {
                    let Some(length) = string_length(&text[at..]) else { return keys };
                    if depth == 1 {
                        last = json_text::from_slice(&text[at..at + length], "a string").ok();
                    }
                    at += length - 1;
                }
                _ => {}
            }
            at += 1;
        }
        keys
    }

    /// A string that stands behind the key that was read last.
    fn value(&mut self, text: Option<String>) {
        let key = self.names.last().map(String::as_str);
        self.header |= (key, text.as_deref()) == (Some("type"), Some("header"));
    }
}

/// Bytes of the string at the beginning, with its quotes.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let end = text[1..].iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map(|end| end + 2)
}
