//! `radialsim train scratch` and `radialsim train words`: networks from nothing.

use super::curve::Curve;
use super::{On, checkpoint_of, read_text_files, remove, say_unless};
use crate::cli::print;
use radialsim::error::{InputError, Result};
use radialsim::quality::{Quality, SequenceSums, read_texts};
use radialsim::report::Staged;
use radialsim::train::{
    Begin, Folder, NetworkShape, Rules, ScratchRecipe, ScratchStep, ScratchWay, Walked, evaluate, scratch,
    train_words,
};
use radialsim::weights::Tokenizer;
use std::path::PathBuf;
use std::time::Instant;

/// What to make words of.
#[derive(Debug, clap::Args)]
pub struct WordsArgs {
    /// Texts: `.txt` whole, `.jsonl` by the key `text`.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// Makes this folder, with a `tokenizer.json`.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Words.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(257..=1_000_000))]
    pub words: u32,
}

/// Who sends tokens through the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Routes {
    /// All tokens take the layers in order, from the first again behind the last.
    InOrder,
    /// A layer drawn for each word and hop.
    Hash,
    /// The same, among the layers of the hop's part of the pool.
    StagedHash,
    /// A router that is trained with the layers.
    Router,
    /// The same, which begins with a part of the pool for each hop.
    StagedRouter,
    /// The same, which sees a token's word too and begins as a hash of word and layer.
    WordRouter,
    /// A router as it was drawn.
    FixedRouter,
    /// A word router as it was drawn.
    FixedWordRouter,
    /// The same, with a part of the pool for each hop.
    StagedFixedRouter,
    /// All layers in order, each second one by a share of the tokens only, which a router chooses (Mixture-of-Depths).
    Depths,
}

/// What to train.
#[derive(Debug, clap::Args)]
pub struct ScratchArgs {
    /// Texts to train on: `.txt` whole, `.jsonl` by the key `text`.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// Texts that are never trained on, for the curve and for stopping early.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub held_out: Vec<PathBuf>,
    /// Texts on which the network is measured at the end.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub test: Vec<PathBuf>,
    /// A folder with a `tokenizer.json`.
    #[arg(long, value_name = "FOLDER")]
    pub words: PathBuf,
    /// Makes this folder, with the network.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Who sends tokens through the pool.
    #[arg(long, value_enum, default_value_t = Routes::Router)]
    pub routes: Routes,
    /// Layers of the pool.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub layers: u32,
    /// Most layers that a token visits.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub hops: u32,
    /// Share of the tokens that takes each second layer, with --routes depths.
    #[arg(long, value_name = "SHARE", default_value_t = 0.125)]
    pub capacity: f64,
    /// Layers that a token visits before it may leave; absent: all hops.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub least_hops: Option<u32>,
    /// Mean number of layers that is wanted.
    #[arg(long, value_name = "LAYERS", requires = "least_hops")]
    pub depth: Option<f64>,
    /// Multiplies what a layer adds by the router's probability of it.
    #[arg(long)]
    pub weighted: bool,
    /// Spread of the noise on the router's scores at the first step; it falls evenly to nothing.
    #[arg(long, value_name = "SPREAD", default_value_t = 0.1)]
    pub noise: f64,
    /// Price of unequal use of the layers, nats.
    #[arg(long, value_name = "NATS", default_value_t = 0.01)]
    pub balance: f64,
    /// Width of the router's hidden layer.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(4..=1024))]
    pub router_width: u32,
    /// Width of the stream.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=16384))]
    pub width: u32,
    /// Heads.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub heads: u32,
    /// Width of the feed-forward part.
    #[arg(long, value_name = "N", default_value_t = 344, value_parser = clap::value_parser!(u32).range(4..=65536))]
    pub feed_forward: u32,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub length: u32,
    /// Sequences of a step.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub rows: u32,
    /// Steps.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Highest learning rate.
    #[arg(long, value_name = "RATE", default_value_t = 3e-3)]
    pub rate: f64,
    /// Factor on the router's learning rate.
    #[arg(long, value_name = "FACTOR", default_value_t = 0.1)]
    pub router_rate: f64,
    /// Steps from evaluation to evaluation.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// Evaluations in a row without a better one that end the training; 0: none do.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub patience: u32,
    /// Seed of all that is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Writes the course of the training: a row for each step as `.csv`, a picture as `.svg`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub curve: Vec<PathBuf>,
    /// Writes the final measurements here.
    #[arg(long, value_name = "FILE.csv")]
    pub csv: Option<PathBuf>,
    /// What computes.
    #[arg(long, value_enum, default_value_t = On::Cpu)]
    pub device: On,
    /// No remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Makes words.
pub fn words(args: &WordsArgs) -> Result<()> {
    let folder = Folder::create(&args.out)?;
    let json = train_words(&read_text_files(&args.text)?, args.words)?;
    Staged::create(folder.path().join("tokenizer.json"))?.finish(|out| out.write_all(json.as_bytes()))?;
    folder.finish()
}

impl ScratchArgs {
    fn recipe(&self, words: u32) -> ScratchRecipe {
        let way = match self.routes {
            Routes::InOrder => ScratchWay::InOrder,
            Routes::Hash => ScratchWay::Hashed { staged: false },
            Routes::StagedHash => ScratchWay::Hashed { staged: true },
            Routes::Router => ScratchWay::Routed(Begin::Random),
            Routes::StagedRouter => ScratchWay::Routed(Begin::Staged { hops: self.hops }),
            Routes::WordRouter => ScratchWay::Routed(Begin::Words { words }),
            Routes::FixedWordRouter => ScratchWay::Fixed(Begin::Words { words }),
            Routes::FixedRouter => ScratchWay::Fixed(Begin::Random),
            Routes::Depths => ScratchWay::Depths(self.capacity),
            Routes::StagedFixedRouter => ScratchWay::Fixed(Begin::Staged { hops: self.hops }),
        };
        let least_hops = self.least_hops.unwrap_or(self.hops).min(self.hops);
        ScratchRecipe {
            way,
            rules: Rules { hops: self.hops, least_hops, weighted: self.weighted },
            hidden: self.router_width,
            steps: self.steps,
            rows: self.rows as usize,
            rate: self.rate,
            router_rate: self.router_rate,
            decay: 0.1,
            clip: 1.0,
            noise: self.noise,
            balance: self.balance,
            depth: self.depth,
            patience: self.patience,
            every: self.every,
            seed: self.seed,
        }
    }
}

/// Trains a network.
pub fn run(args: &ScratchArgs) -> Result<()> {
    let begin = Instant::now();
    let say = |text: &str| say_unless(args.quiet, text);
    let device = args.device.device()?;
    let (folder, tokenizer) = (Folder::create(&args.out)?, Tokenizer::in_folder(&args.words)?);
    let length = args.length as usize;
    let texts = read_texts(&args.text, &tokenizer, length)?.mixed(args.seed);
    let held_out = read_texts(&args.held_out, &tokenizer, length)?;
    let test = if args.test.is_empty() { None } else { Some(read_texts(&args.test, &tokenizer, length)?) };
    // What cannot be written is refused before anything is computed.
    let mut curve = Curve::open(&args.curve, HEADER)?;
    let csv = args.csv.as_ref().map(Staged::create).transpose()?;
    let shape = NetworkShape {
        layers: args.layers,
        width: args.width,
        heads: args.heads,
        feed_forward: args.feed_forward,
        words: tokenizer.words(),
        context: args.length,
    };
    let config = shape.config();
    let model = folder.model(&config)?;
    let recipe = args.recipe(shape.words);
    let trained_on = u64::from(recipe.steps) * recipe.rows as u64 * u64::from(args.length);
    say(&format!(
        "{} parameters; {trained_on} tokens to train on, {} of them different",
        model.total_params(),
        texts.tokens()
    ));
    let kept = checkpoint_of(&args.out);
    let mut first = None;
    let trained = scratch(&model, &texts, &held_out.some(32), &recipe, &device, Some(&kept), |step| {
        let held_out = step.held_out.map(|nll| ("held out", nll));
        let values = [("trained on", step.nll)].into_iter().chain(held_out).collect::<Vec<_>>();
        curve.push(row(step), step.step, &values);
        let spent = begin.elapsed().as_secs_f64();
        let (from, at) = *first.get_or_insert((step.step, spent));
        if step.held_out.is_some() || step.step % 20 == 19 {
            let done = f64::from(step.step - from).max(1.0);
            let left = (spent - at) / done * f64::from(recipe.steps - step.step - 1);
            say(&told(step, recipe.steps, left));
        }
    })?;
    let (mut rows, mut lines) = (vec!["texts,depth,perplexity,low,high".to_owned()], Vec::new());
    let sets = [("held out", Some(&held_out)), ("test", test.as_ref())];
    for (name, texts) in sets.into_iter().filter_map(|(name, texts)| Some((name, texts?))) {
        let (measured, walked) = evaluate(&model, &trained, texts, &recipe)?;
        let depth = SequenceSums::mean_depth(&measured);
        let Quality { mean, interval } = Quality::perplexity(&measured, args.seed);
        let (low, high) = interval
            .map_or((String::new(), String::new()), |[low, high]| (low.to_string(), high.to_string()));
        rows.push(format!("{name},{depth},{mean},{low},{high}"));
        let within = interval.map_or_else(String::new, |[low, high]| format!(" ({low:.2} to {high:.2})"));
        let sequences = texts.sequences.len();
        lines.push(format!("{name}: perplexity {mean:.2}{within}, depth {depth:.2}, {sequences} sequences"));
        lines.push(format!("{name}: {}", visited(&walked, model.layers)));
    }
    folder.write(&model, &config, &trained, &recipe, &args.words)?;
    folder.finish()?;
    curve.finish(&format!("Training of {}", model.name))?;
    if let Some(file) = csv {
        file.finish(|out| writeln!(out, "{}", rows.join("\n")))?;
    }
    remove(&kept)?;
    print(&format!("{}\n", lines.join("\n")))
}

/// Which layers were visited how often.
fn visited(walked: &[Walked], layers: u32) -> String {
    let mut loads = vec![0u64; layers as usize];
    for walked in walked {
        loads.iter_mut().zip(walked.loads(layers)).for_each(|(sum, load)| *sum += load);
    }
    let all = loads.iter().sum::<u64>().max(1) as f64;
    let shares: Vec<String> = loads.iter().map(|&load| format!("{:.1}", 100.0 * load as f64 / all)).collect();
    format!("{} dead layers; share of the visits by layer, %: {}", dead(&loads), shares.join(" "))
}

/// Layers with less than a tenth of an equal share of the visits.
fn dead(loads: &[u64]) -> usize {
    let fair = loads.iter().sum::<u64>() as f64 / loads.len() as f64;
    loads.iter().filter(|&&load| (load as f64) < 0.1 * fair).count()
}

const HEADER: &str = "step,loss,nll,depth,entropy,dead_layers,rate,held_out_nll,loads";

fn row(step: &ScratchStep) -> String {
    let some = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let loads: Vec<String> = step.loads.iter().map(u64::to_string).collect();
    format!(
        "{},{},{},{},{},{},{},{},{}",
        step.step,
        step.loss,
        step.nll,
        step.depth,
        some(step.entropy),
        dead(&step.loads),
        step.rate,
        some(step.held_out),
        loads.join(" ")
    )
}

fn told(step: &ScratchStep, of: u32, left: f64) -> String {
    let mut text =
        format!("step {} of {of}: perplexity {:.1}, depth {:.2}", step.step + 1, step.nll.exp(), step.depth);
    if let Some(entropy) = step.entropy {
        text += &format!(", entropy {entropy:.2}, {} dead layers", dead(&step.loads));
    }
    if let Some(nll) = step.held_out {
        text += &format!(", held out {:.1}", nll.exp());
    }
    text + &format!("; {left:.0} s left")
}

/// Refuses numbers that mean nothing.
pub fn check(args: &ScratchArgs) -> Result<()> {
    let wrong = |key: &str, found: f64, what: &str| -> Result<()> {
        Err(InputError::expected(what).key(key).found(found).into())
    };
    if !(args.rate > 0.0 && args.rate <= 1.0) {
        return wrong("--rate", args.rate, "a learning rate above 0, at most 1");
    }
    if !(args.router_rate >= 0.0 && args.router_rate <= 10.0) {
        return wrong("--router-rate", args.router_rate, "0 to 10");
    }
    if !(args.capacity > 0.0 && args.capacity <= 1.0) {
        return wrong("--capacity", args.capacity, "above 0, at most 1");
    }
    if args.routes == Routes::Depths && args.layers != args.hops {
        return wrong("--hops", args.hops.into(), "as many hops as layers with --routes depths");
    }
    if args.layers < args.hops
        && [Routes::StagedHash, Routes::StagedRouter, Routes::StagedFixedRouter].contains(&args.routes)
    {
        let what = "a pool with a layer for each hop at least, where each hop has a part of it";
        return wrong("--layers", args.layers.into(), what);
    }
    if !(0.0..=100.0).contains(&args.balance) {
        return wrong("--balance", args.balance, "0 to 100");
    }
    if !(0.0..=100.0).contains(&args.noise) {
        return wrong("--noise", args.noise, "0 to 100");
    }
    if let Some(depth) = args.depth
        && !(depth >= 1.0 && depth <= f64::from(args.hops))
    {
        return wrong("--depth", depth, "1 to the number of hops");
    }
    if !args.width.is_multiple_of(args.heads) || !(args.width / args.heads).is_multiple_of(4) {
        let what = "a number of heads that cuts the width into multiples of 4";
        return wrong("--heads", args.heads.into(), what);
    }
    Ok(())
}
