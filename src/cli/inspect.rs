//! `radialsim inspect`: files in plain words.

use super::print;
use radialsim::error::Result;
use radialsim::hw::Hardware;
use radialsim::model::Model;
use radialsim::report::inspect;
use radialsim::scenario::{Scenario, token_count};
use radialsim::trace::{Stats, open};
use radialsim::workload::{Format, Reading, TimeUnit};
use std::path::PathBuf;

/// What to look at.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// A model: shapes, parameters, bytes.
    Model {
        /// A built-in name, or a Hugging Face config.json (file or folder).
        #[arg(value_name = "NAME or FILE")]
        model: String,
    },
    /// A device: every number with its source.
    Hw {
        /// A shipped name, or a profile file (.ron).
        #[arg(value_name = "NAME or FILE")]
        hardware: String,
    },
    /// A router trace: who comes, which routes tokens take, which layer follows which.
    Trace {
        /// .jsonl, .jsonl.gz, .jsonl.zst or .parquet.
        file: PathBuf,
    },
    /// A request file: how many requests, how often they come, how long they are, what they share.
    Requests {
        /// CSV, JSON, JSON Lines or a router trace; `.gz` and `.zst` too.
        file: PathBuf,
        #[command(flatten)]
        reading: Reads,
    },
    /// A scenario: what would be run, and what it assumes.
    Scenario {
        /// A scenario file (.ron).
        file: PathBuf,
        /// Sets a key anew, as in simulate.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// The GPUs of this machine.
    Gpu,
}

/// How a request file is read.
#[derive(Debug, clap::Args)]
pub struct Reads {
    /// Its format: azure, mooncake, bailian, lengths, vllm, aiperf, guidellm, otel, sharegpt or trace. Told from its beginning where
    /// absent.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
    /// Leaves out requests without prompt or output tokens, and those that failed.
    #[arg(long)]
    skip_empty: bool,
    /// The unit of its arrivals: s, ms, us or ns. Told from the name or the size of the numbers where absent.
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    time_unit: Option<TimeUnit>,
    /// The column or key of its arrivals, where its name does not tell.
    #[arg(long, value_name = "NAME")]
    time_column: Option<String>,
    /// Prompt tokens of a hash. Told from lengths and numbers of hashes where absent.
    #[arg(long, value_name = "N")]
    block_tokens: Option<u32>,
    /// Characters that make a token, for files of texts.
    #[arg(long, value_name = "N")]
    characters_per_token: Option<f64>,
    /// Tokenizer for files of texts: a folder with one, or its tokenizer.json.
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
}

impl Reads {
    fn reading(&self) -> Result<Reading> {
        let tokenizer = self.tokenizer.as_ref();
        let tokenizer = tokenizer.map(|path| token_count(path, &path.to_string_lossy())).transpose()?;
        Ok(Reading {
            format: self.format,
            skip_empty: self.skip_empty,
            time_unit: self.time_unit,
            time_column: self.time_column.clone(),
            block_tokens: self.block_tokens,
            characters_per_token: self.characters_per_token,
            tokenizer,
            without_arrivals: false,
        })
    }
}

/// Looks.
pub fn run(what: &What) -> Result<()> {
    let text = match what {
        What::Model { model } => Model::resolve(model)?.describe(),
        What::Hw { hardware } => inspect::hardware(&Hardware::resolve(hardware)?),
        What::Trace { file } => {
            let mut reader = open(file)?;
            let stats = Stats::read(&mut reader)?;
            inspect::trace(reader.header(), &stats, reader.routes())
        }
        What::Requests { file, reading } => {
            inspect::requests(&radialsim::workload::read(file, &reading.reading()?)?)
        }
        What::Scenario { file, settings } => {
            let scenario = Scenario::load(file, settings)?;
            let (built, notes) = scenario.build()?;
            inspect::scenario(&scenario, &built, &notes)
        }
        What::Gpu => gpus()?,
    };
    print(&text)
}

/// A format by its name.
fn format(name: &str) -> std::result::Result<Format, String> {
    one_of(&Format::ALL, name)
}

/// A unit by its name.
fn unit(name: &str) -> std::result::Result<TimeUnit, String> {
    one_of(&TimeUnit::ALL, name)
}

/// One of some names.
pub fn one_of<T: Copy>(all: &[(T, &str)], name: &str) -> std::result::Result<T, String> {
    let known = all.iter().find(|(_, known)| *known == name);
    known.map(|(value, _)| *value).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(_, name)| *name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

#[cfg(feature = "gpu")]
fn gpus() -> Result<String> {
    let adapters = radialsim::gpu::adapters();
    if adapters.is_empty() {
        return Err(radialsim::error::Error::NoGpu("wgpu finds no adapter on this machine".into()));
    }
    Ok(inspect::adapters(&adapters))
}

#[cfg(not(feature = "gpu"))]
fn gpus() -> Result<String> {
    Err(super::no_gpu())
}
