//! `radialsim inspect`: files in plain words.

use super::print;
use radialsim::error::Result;
use radialsim::hw::Hardware;
use radialsim::model::Model;
use radialsim::report::inspect;
use radialsim::scenario::Scenario;
use radialsim::trace::{Stats, open};
use radialsim::workload::Format;
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
        /// CSV, JSON Lines, a vLLM result or a router trace; `.gz` and `.zst` too.
        file: PathBuf,
        /// Its format: azure, mooncake, lengths, vllm or trace. Told from its beginning where absent.
        #[arg(long, value_name = "FORMAT", value_parser = format)]
        format: Option<Format>,
        /// Leaves out requests without prompt or output tokens.
        #[arg(long)]
        skip_empty: bool,
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
        What::Requests { file, format, skip_empty } => {
            inspect::requests(&radialsim::workload::read(file, *format, *skip_empty)?)
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
    let known = Format::ALL.iter().find(|(_, known)| *known == name);
    known.map(|(format, _)| *format).ok_or_else(|| {
        let names = Format::ALL.map(|(_, name)| name);
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
