//! `radialsim inspect`: files in plain words.

use super::print;
use radialsim::error::{InputError, Result};
use radialsim::hw::{Fabric, Hardware};
use radialsim::model::{Model, Network};
use radialsim::plot::Ink;
use radialsim::report::contributions::{self, LayerProfile};
use radialsim::report::{Staged, fabric, inspect};
use radialsim::scenario::{Footprint, Scenario, token_count};
use radialsim::trace::{Stats, open};
use radialsim::workload::{Reading, RequestFormat, TimeUnit};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

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
    /// A fabric: every number with its source, what was measured on it, and what all-reduces take.
    Fabric {
        /// A shipped name, a fabric file (.ron), or several with + between them, from the inside: nvidia-hgx-h100+infiniband-ndr.
        #[arg(value_name = "NAME or FILE")]
        fabric: String,
    },
    /// A router trace: requests, routes of tokens, transitions between layers.
    Trace {
        /// .jsonl, .jsonl.gz, .jsonl.zst or .parquet.
        file: PathBuf,
    },
    /// A request file: number, arrivals and lengths of requests, shared prefixes.
    Requests {
        /// CSV, JSON, JSON Lines or a router trace; `.gz` and `.zst` too.
        file: PathBuf,
        #[command(flatten)]
        reading: Reads,
    },
    /// A scenario: what it would run, and what it assumes.
    Scenario {
        /// A scenario file (.ron).
        file: PathBuf,
        /// Sets a key anew, as in simulate.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// What layers add to the residual stream, over several models: quantiles, and trends against depth and size.
    Residuals {
        /// A model's name, its parameters (135M, 1.3B or a number), and the table that `execute --residuals` wrote of it.
        #[arg(value_name = "NAME:PARAMETERS=FILE.csv", required = true, value_parser = profiled)]
        models: Vec<Profiled>,
        /// Writes the quantiles of every layer here.
        #[arg(long, value_name = "FILE.csv")]
        csv: Option<PathBuf>,
        /// Writes pictures to PREFIX-layers.svg, PREFIX-depth.svg and PREFIX-size.svg.
        #[arg(long, value_name = "PREFIX")]
        svg: Option<PathBuf>,
    },
    /// The GPUs of this machine.
    Gpu,
}

/// How a request file is read.
#[derive(Debug, clap::Args)]
pub struct Reads {
    /// Its format: azure, mooncake, bailian, lengths, vllm, aiperf, guidellm, otel, sharegpt or trace. Absent: detected from its beginning.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<RequestFormat>,
    /// Leaves out requests without prompt or output tokens, and those that failed.
    #[arg(long)]
    skip_empty: bool,
    /// The unit of its arrivals: s, ms, us or ns. Absent: detected from the name or the size of the numbers.
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    time_unit: Option<TimeUnit>,
    /// The column or key of its arrivals, if its name is not recognised.
    #[arg(long, value_name = "NAME")]
    time_column: Option<String>,
    /// Prompt tokens of a hash. Absent: detected from lengths and numbers of hashes.
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
        What::Model { model } => {
            let shapes = Model::resolve(model)?;
            let network = if Model::builtin(model).is_some() { None } else { Network::of(Path::new(model))? };
            shapes.describe() + &network.map_or(String::new(), |network| network.describe(&shapes))
        }
        What::Hw { hardware } => inspect::hardware(&Hardware::resolve(hardware)?),
        What::Fabric { fabric: words } => fabric::inspect(&Fabric::resolve(words)?)?,
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
            inspect::scenario(
                &scenario,
                &built,
                &notes,
                &Footprint::of(&scenario, &built, super::threads(None)),
            )
        }
        What::Residuals { models, csv, svg } => residuals(models, csv.as_deref(), svg.as_deref())?,
        What::Gpu => gpus()?,
    };
    print(&text)
}

/// The profile of a model: its name, its parameters, its file.
#[derive(Clone, Debug)]
pub struct Profiled {
    name: String,
    parameters: f64,
    file: PathBuf,
}

fn profiled(text: &str) -> std::result::Result<Profiled, String> {
    let parts = text.split_once('=').and_then(|(model, file)| Some((model.rsplit_once(':')?, file)));
    let Some(((name, count), file)) = parts.filter(|((name, _), file)| !name.is_empty() && !file.is_empty())
    else {
        return Err("expected NAME:PARAMETERS=FILE.csv, such as SmolLM2:135M=smollm2.csv".into());
    };
    const UNITS: [(char, f64); 3] = [('k', 1e3), ('M', 1e6), ('B', 1e9)];
    let unit = UNITS.into_iter().find(|(letter, _)| count.ends_with(*letter));
    let (digits, unit) = unit.map_or((count, 1.0), |(_, unit)| (&count[..count.len() - 1], unit));
    let parameters = digits.parse().ok().map(|number: f64| number * unit);
    let parameters = parameters.filter(|number| number.is_finite() && *number > 0.0);
    let parameters = parameters.ok_or("expected a number of parameters above 0, such as 135M or 1.3B")?;
    Ok(Profiled { name: name.to_owned(), parameters, file: file.into() })
}

/// Residual profiles of several models beside each other.
fn residuals(models: &[Profiled], csv: Option<&Path>, svg: Option<&Path>) -> Result<String> {
    let read = |model: &Profiled| LayerProfile::read(&model.name, model.parameters, &model.file);
    let profiles = models.iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut names = HashSet::new();
    if let Some(twice) = profiles.iter().find(|profile| !names.insert(&profile.name)) {
        return Err(InputError::expected("names that differ").key("NAME").found(&twice.name).into());
    }
    if let Some(path) = csv {
        Staged::create(path)?.finish(|out| contributions::write(out, &profiles))?;
    }
    if let Some(prefix) = svg {
        for (name, chart) in contributions::charts(&profiles) {
            let mut path = prefix.as_os_str().to_owned();
            path.push(format!("-{name}.svg"));
            Staged::create(path)?.finish(|out| out.write_all(chart.svg(Ink::Paper).as_bytes()))?;
        }
    }
    Ok(contributions::words(&profiles))
}

/// A format by its name.
fn format(name: &str) -> std::result::Result<RequestFormat, String> {
    one_of(&RequestFormat::ALL, name)
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
