//! Requests read from files. The file may be compressed (`.gz`, `.zst`); it is read as a stream and never held as text.

mod azure;
mod collect;
mod columns;
mod detect;
mod mooncake;
mod rows;
mod table;
mod vllm;

use super::arrivals::Times;
use super::synthetic::prioritize;
use super::{Arrivals, Load, Options, PriorityShare, Remark};
use crate::error::Result;
use crate::trace::lines::Input;
use collect::Collector;
pub use mooncake::BLOCK as MOONCAKE_BLOCK;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a request file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The Azure public dataset's LLM inference traces: CSV with `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`.
    Azure,
    /// Mooncake's traces: JSON Lines with `timestamp` (ms), `input_length`, `output_length`, `hash_ids`.
    Mooncake,
    /// CSV or JSON Lines with prompt and output lengths, and arrivals where they are known, under one of the names that
    /// `docs/REQUESTS.md` lists.
    Lengths,
    /// The result of `vllm bench serve --save-result --save-detailed`, or JSON Lines with a line for each request of a vLLM run.
    Vllm,
    /// A router trace of this project; its routes are not taken.
    Trace,
}

impl Format {
    /// Each format with its name in scenarios and on the command line.
    pub const ALL: [(Format, &'static str); 5] = [
        (Format::Azure, "azure"),
        (Format::Mooncake, "mooncake"),
        (Format::Lengths, "lengths"),
        (Format::Vllm, "vllm"),
        (Format::Trace, "trace"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(format, _)| *format == self).expect("ALL is complete").1
    }
}

/// The key `workload.file` of a scenario: requests of a file. What the keys of [`Options`] do, they say there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// The file; relative paths start from the folder of the scenario.
    pub path: PathBuf,
    /// Its format. Absent: told from its beginning.
    #[serde(default)]
    pub format: Option<Format>,
    /// Leaves out requests without prompt or output tokens; otherwise they are errors.
    #[serde(default)]
    pub skip_empty: bool,
    /// Replaces the arrivals of the file, in the order of its arrivals. Absent: those of the file.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Replaces the priorities of the file. Absent or empty: those of the file, or 0.
    #[serde(default)]
    pub priorities: Vec<PriorityShare>,
    /// [`Options::time_scale`]. Absent: 1.
    #[serde(default = "one")]
    pub time_scale: f64,
    /// [`Options::start_s`]. Absent: 0.
    #[serde(default)]
    pub start_s: f64,
    /// [`Options::duration_s`].
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// [`Options::most_requests`].
    #[serde(default)]
    pub most_requests: Option<u32>,
    /// [`Options::most_prompt_tokens`].
    #[serde(default)]
    pub most_prompt_tokens: Option<u32>,
    /// [`Options::most_output_tokens`].
    #[serde(default)]
    pub most_output_tokens: Option<u32>,
}

fn one() -> f64 {
    1.0
}

impl FileSpec {
    /// All of a file, as it is.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let Options { time_scale, start_s, duration_s, .. } = Options::default();
        FileSpec {
            path: path.into(),
            format: None,
            skip_empty: false,
            arrivals: None,
            priorities: Vec::new(),
            time_scale,
            start_s,
            duration_s,
            most_requests: None,
            most_prompt_tokens: None,
            most_output_tokens: None,
        }
    }

    fn options(&self) -> Options {
        Options {
            time_scale: self.time_scale,
            start_s: self.start_s,
            duration_s: self.duration_s,
            most_requests: self.most_requests,
            most_prompt_tokens: self.most_prompt_tokens,
            most_output_tokens: self.most_output_tokens,
        }
    }

    /// Reads the file, whose relative path starts from `folder`, draws what is drawn, and takes what is asked for.
    ///
    /// # Errors
    /// The first mistake in the file, and an option that is wrong or leaves no request.
    pub fn load(&self, folder: &Path, seed: u64) -> Result<Load> {
        let mut load = read(folder.join(&self.path), self.format, self.skip_empty)?;
        if let Some(arrivals) = &self.arrivals {
            arrivals.check()?;
            let mut times = Times::new(arrivals, seed);
            for request in &mut load.requests {
                request.arrival = times.next()?;
            }
            let value = ron::to_string(arrivals).unwrap_or_default();
            let why = format!("replace the arrivals of the file, seed {seed}");
            load.remarks.retain(|remark| remark.key != "arrivals");
            load.remarks.push(Remark::new("arrivals", value, why));
            load.clients = arrivals.clients(load.requests.len(), seed)?;
        }
        prioritize(&mut load.requests, &self.priorities, seed)?;
        self.options().apply(&mut load)?;
        if let Some(clients) = &mut load.clients {
            clients.think.truncate(load.requests.len());
        }
        Ok(load)
    }
}

/// Reads the requests of a file: ids from 0 in the order of the file, arrivals counted from the earliest one, without routes.
/// Requests come out by arrival, equal arrivals in the order of the file. `format` absent: told from the beginning of the file.
/// With `skip_empty`, requests without prompt or output tokens are left out (and get no id).
///
/// # Errors
/// A file that cannot be read or is of no known format, and the first mistake in it, with line and key.
pub fn read(path: impl AsRef<Path>, format: Option<Format>, skip_empty: bool) -> Result<Load> {
    let path = path.as_ref();
    read_file(path, format, skip_empty).map_err(|error| error.in_file(path))
}

fn read_file(path: &Path, format: Option<Format>, skip_empty: bool) -> Result<Load> {
    let mut out = Collector::new(skip_empty);
    if format.or_else(|| detect::by_name(path)) == Some(Format::Trace) {
        return from_trace(path);
    }
    let mut input = Input::open(path)?;
    let found = detect::shape(&mut input)?;
    match format.map_or_else(|| found.format(), Ok)? {
        Format::Azure => azure::read(input, &mut out)?,
        Format::Mooncake => mooncake::read(input, &mut out)?,
        Format::Lengths if found.is_json() => rows::read(input, &mut out)?,
        Format::Lengths => columns::read(input, &mut out)?,
        Format::Vllm if found.is_result() => vllm::read(input, &mut out)?,
        Format::Vllm => rows::read(input, &mut out)?,
        Format::Trace => return from_trace(path),
    }
    out.finish()
}

/// The requests of a router trace. A request has at least one prompt and output token there.
fn from_trace(path: &Path) -> Result<Load> {
    let mut reader = crate::trace::open(path)?;
    let mut numbered = Vec::new();
    while let Some(mut next) = reader.next_numbered()? {
        next.request.runs = Vec::new();
        collect::room(numbered.len())?;
        numbered.push(next);
    }
    numbered.sort_by_key(|next| next.number);
    let mut out = Collector::new(false);
    for next in numbered {
        let arrival = i128::from(next.request.arrival.ps());
        out.add(arrival, next.request);
    }
    out.finish()
}
