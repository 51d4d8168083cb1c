//! `radialsim train`: routers for a model, and what they are worth.

mod scratch;

use super::{print, say};
use radialsim::error::{Error, InputError, Result};
use radialsim::quality::{Row, Table, Texts, read_strings, read_texts};
use radialsim::report::Staged;
use radialsim::train::{
    Choice, Device, Distilled, Effects, Network, Recipe, Routing, SkipRouter, Step, Unit, distill, measure,
    prune, sample,
};
use radialsim::weights::{Checkpoint, SkipKv, Tokenizer};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Trains a router that leaves out branches of a model, token by token.
    Skip(Box<SkipArgs>),
    /// Measures routers beside static depth: perplexity, and divergence from the model.
    Measure(MeasureArgs),
    /// Trains a network from nothing: a pool of layers and who sends tokens through it.
    Scratch(Box<scratch::ScratchArgs>),
    /// Makes words of texts, for networks from nothing.
    Words(scratch::WordsArgs),
    /// Lets a model write text, sampled at temperature 1.
    Text(TextArgs),
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
    /// No remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

/// What to train.
#[derive(Debug, clap::Args)]
pub struct SkipArgs {
    #[command(flatten)]
    pub given: Given,
    /// Writes the router here.
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    /// Mean depth that is wanted, in layers.
    #[arg(long, value_name = "LAYERS")]
    pub depth: f64,
    /// Steps through the whole model.
    #[arg(long, value_name = "N", default_value_t = 36)]
    pub steps: u32,
    /// Writes a row for each step here.
    #[arg(long, value_name = "FILE.csv")]
    pub curve: Option<PathBuf>,
    /// What a token that leaves attention out leaves in the KV cache: project_only or none.
    #[arg(long, default_value = "project_only", value_parser = kv)]
    pub kv: SkipKv,
    /// Gives labels to other tokens: a control, of which nothing can be learned about a token.
    #[arg(long)]
    pub shuffled_labels: bool,
}

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct MeasureArgs {
    #[command(flatten)]
    pub given: Given,
    /// Routers.
    #[arg(long, value_name = "FILE.safetensors", num_args = 1..)]
    pub router: Vec<PathBuf>,
    /// Static depth beside them: so many layers left out at most, the least harmful first.
    #[arg(long, value_name = "LAYERS", default_value_t = 0)]
    pub pruned: u32,
    /// Leaves out single branches in place of whole layers, twice as many of them.
    #[arg(long, requires = "pruned_by")]
    pub pruned_branches: bool,
    /// Texts by which static depth finds the least harmful layers.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "router")]
    pub pruned_by: Vec<PathBuf>,
    /// Most tokens that are measured.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: u32,
    /// Also each router with its decisions given to other tokens, and one that was not trained.
    #[arg(long)]
    pub controls: bool,
    /// Writes all rows here.
    #[arg(long, value_name = "FILE.csv")]
    pub csv: Option<PathBuf>,
}

/// What to write.
#[derive(Debug, clap::Args)]
pub struct TextArgs {
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
    /// No remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

fn kv(text: &str) -> std::result::Result<SkipKv, String> {
    match text {
        "project_only" => Ok(SkipKv::ProjectOnly),
        "none" => Ok(SkipKv::None),
        _ => Err("expected project_only or none".to_owned()),
    }
}

/// Sequences by which static depth finds the least harmful layers; each layer that is left out takes as many passes over them as half the layers.
const PRUNED_BY: usize = 4;

/// Trains, measures or writes.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::Skip(args) => skip(args),
        What::Measure(args) => measured(args),
        What::Scratch(args) => scratch::check(args).and_then(|()| scratch::run(args)),
        What::Words(args) => scratch::words(args),
        What::Text(args) => text(args),
    }
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

fn opened(weights: &Path) -> Result<(Network, Tokenizer)> {
    let checkpoint = Checkpoint::open(weights)?;
    let tokenizer = checkpoint.tokenizer()?;
    Ok((Network::read(&checkpoint, &Device::flex())?, tokenizer))
}

impl Given {
    fn read(&self) -> Result<(Network, Tokenizer, Texts)> {
        let (network, tokenizer) = opened(&self.weights)?;
        let texts = read_texts(&self.text, &tokenizer, self.length as usize)?;
        Ok((network, tokenizer, texts))
    }

    fn say(&self, text: &str) {
        say_unless(self.quiet, text);
    }
}

fn skip(args: &SkipArgs) -> Result<()> {
    let begin = Instant::now();
    let (network, _, texts) = args.given.read()?;
    let layers = f64::from(network.model().layers);
    if !(args.depth > 0.0 && args.depth < layers) {
        let what = format!("a depth above 0 and below the model's {layers} layers");
        return Err(InputError::expected(what).key("--depth").found(args.depth).into());
    }
    let recipe = Recipe {
        steps: args.steps,
        kv: args.kv,
        shuffled_labels: args.shuffled_labels,
        ..Recipe::new(args.depth, args.given.seed)
    };
    // What cannot be written is refused before anything is computed.
    drop(Staged::create(&args.out)?);
    let curve_file = args.curve.as_ref().map(Staged::create).transpose()?;
    let texts = texts.mixed(args.given.seed);
    args.given.say(&format!("{} tokens to train on", texts.tokens()));
    let effects = || {
        let labelled = texts.some(recipe.labelled);
        let effects = Effects::measure(&network, &labelled, recipe.kv, |_| ());
        let (branches, tokens) = (2.0 * layers, labelled.tokens());
        let spent = begin.elapsed().as_secs_f64();
        args.given
            .say(&format!("effects of {branches} branches measured on {tokens} tokens after {spent:.0} s"));
        effects
    };
    let mut kept = args.out.clone().into_os_string();
    kept.push(".checkpoint");
    let kept = PathBuf::from(kept);
    if kept.exists() {
        args.given.say(&format!("goes on from {}", kept.display()));
    }
    let mut began = [0.0; 2];
    let mut curve = vec!["stage,step,loss,kl,depth,price".to_owned()];
    let trained = distill(&network, &texts, &recipe, effects, Some(&kept), |step| {
        let Step { stage, step, of, loss, kl, depth, price } = *step;
        if began[stage as usize - 1] == 0.0 {
            began[stage as usize - 1] = begin.elapsed().as_secs_f64();
        }
        curve.push(format!("{stage},{step},{loss},{kl},{depth},{price}"));
        if stage == 2 || (step + 1) % 100 == 0 {
            let spent = begin.elapsed().as_secs_f64();
            let left = (spent - began[stage as usize - 1]) / f64::from(step + 1) * f64::from(of - step - 1);
            args.given.say(&format!(
                "stage {stage}, step {} of {of}: loss {loss:.4}, KL {kl:.4}, depth {depth:.2}, price {price:.3}; {left:.0} s left",
                step + 1
            ));
        }
    })?;
    trained.write(&network.model().name, recipe.kv, &args.out)?;
    // What it was trained to is there; from where it could have gone on is of no more use.
    remove(&kept)?;
    if let Some(file) = curve_file {
        file.finish(|out| writeln!(out, "{}", curve.join("\n")))?;
    }
    Ok(())
}

fn measured(args: &MeasureArgs) -> Result<()> {
    let (network, tokenizer, texts) = args.given.read()?;
    let texts = texts.some((args.tokens as usize).div_ceil(texts.length));
    let mut networks: Vec<(String, Choice)> = vec![("dense".into(), Choice::As(Routing::Dense))];
    let layers = network.model().layers;
    if args.pruned >= layers {
        let what = format!("fewer than the model's {layers} layers");
        return Err(InputError::expected(what).key("--pruned").found(args.pruned).into());
    }
    let pruned = if args.pruned > 0 {
        let by = read_texts(&args.pruned_by, &tokenizer, texts.length)?.some(PRUNED_BY);
        let (unit, most) = match args.pruned_branches {
            true => (Unit::Branches, 2 * args.pruned),
            false => (Unit::Layers, args.pruned),
        };
        prune(&network, &by, unit, most, |pruned| {
            args.given
                .say(&format!("static depth without {pruned}: KL {:.4} where it was chosen", pruned.kl));
        })
    } else {
        Vec::new()
    };
    for pruned in &pruned {
        let count = pruned.count();
        networks.push((format!("static, {count} left out"), Choice::As(Routing::Static(&pruned.out))));
    }
    let mut routers = Vec::new();
    for path in &args.router {
        routers.push((path, Distilled::read(path, &network)?));
    }
    let untrained: Vec<SkipRouter> = routers
        .iter()
        .map(|(_, (trained, _))| {
            let model = network.model();
            SkipRouter::new(
                model.layers,
                model.hidden,
                trained.router.hidden(),
                args.given.seed,
                network.device(),
            )
            .fixed()
        })
        .collect();
    let fixed: Vec<SkipRouter> = routers.iter().map(|(_, (trained, _))| trained.router.fixed()).collect();
    let kept = routers.first().map_or(SkipKv::ProjectOnly, |(_, (_, kv))| *kv);
    if let Some((path, _)) = routers.iter().find(|(_, (_, kv))| *kv != kept) {
        let what = "routers that leave the same in the KV cache";
        return Err(InputError::expected(what).key("--router").found(path.display()).into());
    }
    for (((path, (trained, _)), router), untrained) in routers.iter().zip(&fixed).zip(&untrained) {
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let routing = Routing::Router(router, &trained.candidates);
        networks.push((name.clone(), Choice::As(routing.clone())));
        if args.controls {
            networks.push((format!("{name}, shuffled"), Choice::Shuffled(routing, args.given.seed)));
            networks.push((
                format!("{name}, untrained"),
                Choice::As(Routing::Router(untrained, &trained.candidates)),
            ));
        }
    }
    let choices: Vec<Choice> = networks.iter().map(|(_, choice)| choice.clone()).collect();
    let all = measure(&network, &texts, kept, &choices);
    let row = |((name, _), measured): (&(String, _), &Vec<_>)| Row::of(name, measured, args.given.seed);
    let table = Table::new(networks.iter().zip(&all).map(row).collect());
    if let Some(path) = &args.csv {
        Staged::create(path)?.finish(|out| table.write(out))?;
    }
    let (sequences, length) = (texts.sequences.len(), texts.length);
    let about = format!("{sequences} sequences of {length} tokens; intervals: 90 %, by drawing sequences");
    print(&format!("{about}\n{}\n", table.words()))
}

fn text(args: &TextArgs) -> Result<()> {
    let (network, tokenizer) = opened(&args.weights)?;
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
