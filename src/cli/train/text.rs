//! `radialsim train text`: text that a model writes.

use super::{On, opened, say};
use radialsim::error::{InputError, Result};
use radialsim::report::Staged;
use radialsim::train::sample;
use std::path::PathBuf;
use std::time::Instant;

/// What to write.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model.
    #[arg(long, value_name = "MODEL")]
    pub weights: PathBuf,
    /// Writes a JSON object with a `text` for each sequence here.
    #[arg(long, value_name = "FILE.jsonl")]
    pub out: PathBuf,
    /// Sequences.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub sequences: u32,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub length: u32,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What computes.
    #[arg(long, value_enum, default_value_t = On::Cpu)]
    pub device: On,
    /// No remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Writes.
pub fn run(args: &Args) -> Result<()> {
    let (network, tokenizer) = opened(&args.weights, args.device)?;
    let begin = tokenizer.encode("")?;
    let begin = match begin.first().or(tokenizer.end_ids().first()) {
        Some(&begin) => begin,
        None => {
            return Err(InputError::expected("a tokenizer with a token that begins or ends texts")
                .key("weights")
                .into());
        }
    };
    let out = Staged::create(&args.out)?;
    let (start, sequences) = (Instant::now(), args.sequences as usize);
    let all = sample(&network, begin, sequences, args.length as usize, args.seed, |done| {
        if !args.quiet && done % 32 == 0 {
            let rate = (done * sequences) as f64 / start.elapsed().as_secs_f64();
            say(&format!("{done} of {} tokens each, {rate:.0} tokens a second", args.length));
        }
    });
    let mut lines = Vec::new();
    for tokens in all {
        lines.push(serde_json::json!({ "text": tokenizer.decode(&tokens[1..])? }).to_string());
    }
    out.finish(|out| writeln!(out, "{}", lines.join("\n")))
}
