//! `radialsim train`: routers and networks, and what they are worth.

mod curve;
mod measure;
mod radial;
mod scratch;
mod skip;
mod text;
mod tune;

use super::{print, say};
use radialsim::error::{Error, Result};
use radialsim::quality::{Texts, read_strings, read_texts};
use radialsim::train::{Device, Network};
use radialsim::weights::{Checkpoint, Tokenizer};
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Trains a router that skips branches of a model, token by token.
    Skip(Box<skip::Args>),
    /// Trains a router that sends the tokens of a model through its layers, hop by hop, in any order.
    Radial(Box<radial::Args>),
    /// Tunes a model's layers for a router, or for removed layers.
    Tune(Box<tune::Args>),
    /// Measures routers and static depth: perplexity, and KL divergence from the model.
    Measure(measure::Args),
    /// Trains a network from nothing: a pool of layers, and the router or rule that sends tokens through it.
    Scratch(Box<scratch::ScratchArgs>),
    /// Makes a vocabulary of words from texts, for networks trained from nothing.
    Words(scratch::WordsArgs),
    /// Lets a model write text, sampled at temperature 1.
    Text(text::Args),
}

/// Model and texts.
#[derive(Debug, clap::Args)]
pub struct Given {
    /// The model: a Hugging Face folder, a GGUF file, a llama2.c file.
    #[arg(long, value_name = "MODEL")]
    pub weights: PathBuf,
    /// Texts: `.txt` whole, `.jsonl` by the key `text`.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", default_value_t = 192, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub length: u32,
    /// Seed of all that is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What computes.
    #[arg(long, value_enum, default_value_t = On::Cpu)]
    pub device: On,
    /// No remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum On {
    /// The processor.
    Cpu,
    /// The GPU that wgpu finds first; needs the feature `train-gpu`.
    Gpu,
}

impl On {
    #[cfg(feature = "train-gpu")]
    fn device(self) -> Result<Device> {
        Ok(match self {
            On::Cpu => Device::flex(),
            On::Gpu => Device::wgpu(radialsim::train::DeviceKind::DefaultDevice),
        })
    }

    #[cfg(not(feature = "train-gpu"))]
    fn device(self) -> Result<Device> {
        match self {
            On::Cpu => Ok(Device::flex()),
            On::Gpu => {
                let what = "cpu: this program was built without the feature `train-gpu`";
                Err(radialsim::error::InputError::expected(what).key("--device").found("gpu").into())
            }
        }
    }
}

/// Trains, measures or writes.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::Skip(args) => skip::run(args),
        What::Radial(args) => radial::run(args),
        What::Tune(args) => tune::run(args),
        What::Measure(args) => measure::run(args),
        What::Scratch(args) => scratch::check(args).and_then(|()| scratch::run(args)),
        What::Words(args) => scratch::words(args),
        What::Text(args) => text::run(args),
    }
}

/// Where a training of this result is kept while it runs.
fn checkpoint_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".checkpoint");
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove")(error)),
        _ => Ok(()),
    }
}

fn say_unless(quiet: bool, text: &str) {
    if !quiet {
        say(text);
    }
}

fn read_text_files(paths: &[PathBuf]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(read_strings(path)?);
    }
    Ok(all)
}

fn opened(weights: &Path, on: On) -> Result<(Network, Tokenizer)> {
    let device = on.device()?;
    let checkpoint = Checkpoint::open(weights)?;
    let tokenizer = checkpoint.tokenizer()?;
    Ok((Network::read(&checkpoint, &device)?, tokenizer))
}

impl Given {
    fn read(&self) -> Result<(Network, Tokenizer, Texts)> {
        let (network, tokenizer) = opened(&self.weights, self.device)?;
        let texts = read_texts(&self.text, &tokenizer, self.length as usize)?;
        Ok((network, tokenizer, texts))
    }

    fn say(&self, text: &str) {
        say_unless(self.quiet, text);
    }
}
