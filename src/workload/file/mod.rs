//! Requests read from files. The file may be compressed (`.gz`, `.zst`); it is read as a stream and never held as text.

mod blocks;
mod collect;
mod columns;
mod date;
mod detect;
mod hashed;
mod otel;
mod records;
mod results;
mod rows;
mod sharegpt;
mod table;
mod time;
mod value;
mod vllm;

use super::{RequestSet, TokenCount};
use crate::error::{InputError, Result};
use crate::trace::lines::Input;
pub use blocks::{BAILIAN_BLOCK, MOONCAKE_BLOCK};
use collect::Collector;
use detect::Shape;
use serde::{Deserialize, Serialize};
use std::path::Path;
pub use time::TimeUnit;

/// What a request file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestFormat {
    /// The Azure public dataset's LLM inference traces: CSV with `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`.
    Azure,
    /// Mooncake's traces: JSON Lines with `timestamp` (ms), `input_length`, `output_length` and, mostly, `hash_ids`.
    Mooncake,
    /// The traces of Alibaba's Bailian: JSON Lines with `chat_id`, `parent_chat_id`, `timestamp` (s), `input_length`,
    /// `output_length`, `hash_ids`.
    Bailian,
    /// CSV or JSON with prompt and output lengths, and arrivals where they are known, under one of the names that
    /// `docs/REQUESTS.md` lists.
    Lengths,
    /// The result of `vllm bench serve --save-result --save-detailed` or of SGLang's `bench_serving --output-details`; or JSON
    /// Lines with a line for each request of a vLLM run.
    Vllm,
    /// `profile_export.jsonl` of AIPerf, a record for each request.
    Aiperf,
    /// `benchmarks.json` of GuideLLM.
    Guidellm,
    /// OpenTelemetry's spans of calls of language models, in OTLP's JSON.
    Otel,
    /// Conversations as texts: ShareGPT's, or lists of messages.
    Sharegpt,
    /// A router trace of this project; its routes are not taken.
    Trace,
}

impl RequestFormat {
    /// Each format with its name in scenarios and on the command line.
    pub const ALL: [(RequestFormat, &'static str); 10] = [
        (RequestFormat::Azure, "azure"),
        (RequestFormat::Mooncake, "mooncake"),
        (RequestFormat::Bailian, "bailian"),
        (RequestFormat::Lengths, "lengths"),
        (RequestFormat::Vllm, "vllm"),
        (RequestFormat::Aiperf, "aiperf"),
        (RequestFormat::Guidellm, "guidellm"),
        (RequestFormat::Otel, "otel"),
        (RequestFormat::Sharegpt, "sharegpt"),
        (RequestFormat::Trace, "trace"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(format, _)| *format == self).expect("ALL is complete").1
    }
}

/// How a file is read. Absent keys are told from the file, or refused where that cannot be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Its format.
    pub format: Option<RequestFormat>,
    /// Leaves out requests without prompt or output tokens, and those that failed; otherwise they are errors.
    pub skip_empty: bool,
    /// The unit of its arrivals, where they are numbers.
    pub time_unit: Option<TimeUnit>,
    /// The column or key of its arrivals, in files of lengths.
    pub time_column: Option<String>,
    /// Prompt tokens that a hash of its prompt blocks stands for.
    pub block_tokens: Option<u32>,
    /// Characters (Unicode scalar values) that make a token, where it has texts and no token counts; a part of a token counts whole.
    pub characters_per_token: Option<f64>,
    /// Counts the tokens of its texts, in place of `characters_per_token`.
    pub tokenizer: Option<TokenCount>,
    /// Passes over its arrivals: they will be replaced.
    pub without_arrivals: bool,
}

impl Reading {
    /// Refuses what would have no effect on a file of this format.
    fn must_count(&self, format: RequestFormat) -> Result<()> {
        let lengths = matches!(format, RequestFormat::Lengths | RequestFormat::Vllm);
        let texts = "texts (sharegpt)";
        let unused = [
            (
                self.time_unit.is_some() && format == RequestFormat::Trace,
                "time_unit",
                "arrivals in an unknown unit",
            ),
            (self.time_column.is_some() && !lengths, "time_column", "lengths, under any names"),
            (
                self.characters_per_token.is_some() && format != RequestFormat::Sharegpt,
                "characters_per_token",
                texts,
            ),
            (self.tokenizer.is_some() && format != RequestFormat::Sharegpt, "tokenizer", texts),
        ];
        match unused.into_iter().find(|(unused, ..)| *unused) {
            None => Ok(()),
            Some((_, key, what)) => {
                let found = format!("a file of the format {}", format.name());
                Err(InputError::expected(format!("a file with {what}")).key(key).found(found).into())
            }
        }
    }
}

/// What a file was taken for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Its format; `None` for requests of no file.
    pub format: Option<RequestFormat>,
    /// Which of its keys says the arrivals, in which unit, and how that is known.
    pub times: String,
}

/// Reads the requests of a file: ids from 0 in the order of the file, arrivals counted from the earliest one, without routes.
/// Requests come out by arrival, equal arrivals in the order of the file. Requests that are left out get no id.
///
/// # Errors
/// A file that cannot be read or is of no known format, and the first mistake in it, with line and key.
pub fn read(path: impl AsRef<Path>, reading: &Reading) -> Result<RequestSet> {
    let path = path.as_ref();
    read_file(path, reading).map_err(|error| error.in_file(path))
}

fn read_file(path: &Path, reading: &Reading) -> Result<RequestSet> {
    if let Some(0) = reading.block_tokens {
        return Err(InputError::expected("at least 1").key("block_tokens").found(0).into());
    }
    let told = |format| reading.must_count(format).map(|()| format);
    if reading.format.or_else(|| detect::by_name(path)) == Some(RequestFormat::Trace) {
        told(RequestFormat::Trace)?;
        return from_trace(path);
    }
    let mut input = Input::open(path)?;
    let shape = Shape::of(&mut input)?;
    let format = reading.format.map_or_else(|| shape.format(), Ok).and_then(told)?;
    let mut out = Collector::new(reading);
    out.told.format = Some(format);
    match format {
        RequestFormat::Azure => columns::azure(input, reading, &mut out)?,
        RequestFormat::Mooncake => hashed::mooncake(input, &shape, reading, &mut out)?,
        RequestFormat::Bailian => hashed::bailian(input, &shape, reading, &mut out)?,
        RequestFormat::Vllm if shape.is_result() => vllm::read(input, reading, &mut out)?,
        RequestFormat::Lengths | RequestFormat::Vllm if shape.is_json() => {
            rows::read(input, &shape, reading, &mut out)?
        }
        RequestFormat::Lengths | RequestFormat::Vllm => columns::read(input, reading, &mut out)?,
        RequestFormat::Aiperf => results::aiperf(input, &shape, reading, &mut out)?,
        RequestFormat::Guidellm => results::guidellm(input, reading, &mut out)?,
        RequestFormat::Otel => otel::read(input, &shape, reading, &mut out)?,
        RequestFormat::Sharegpt => sharegpt::read(input, &shape, reading, &mut out)?,
        RequestFormat::Trace => return from_trace(path),
    }
    out.finish()
}

/// The requests of a router trace. A request has at least one prompt and output token there.
fn from_trace(path: &Path) -> Result<RequestSet> {
    let mut reader = crate::trace::open(path)?;
    let mut numbered = Vec::new();
    while let Some(mut next) = reader.next_numbered()? {
        next.request.runs = Vec::new();
        collect::room(numbered.len())?;
        numbered.push(next);
    }
    numbered.sort_by_key(|next| next.number);
    let mut out = Collector::new(&Reading::default());
    out.told.format = Some(RequestFormat::Trace);
    for next in numbered {
        let arrival = i128::from(next.request.arrival.ps());
        out.add(arrival, next.request);
    }
    let mut load = out.finish()?;
    load.told.times = "`arrival_s` in s, by the format".into();
    Ok(load)
}
