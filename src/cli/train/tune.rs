//! `radialsim train tune`: layers that come nearer to the whole model where branches are left out.

use super::curve::Course;
use super::{Given, checkpoint_of, remove};
use radialsim::error::{InputError, Result};
use radialsim::train::{Distilled, Folder, TrainedRouting, TuneRecipe, left_out, plain_llama, tune};
use radialsim::weights::{Checkpoint, SkipKv};
use std::path::PathBuf;

/// What to tune.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true).args(["router", "left_out"]))]
pub struct Args {
    #[command(flatten)]
    pub given: Given,
    /// A skip router, which stays as it is.
    #[arg(long, value_name = "FILE.safetensors")]
    pub router: Option<PathBuf>,
    /// Layers and branches that every token leaves out: 5,16a,17f.
    #[arg(long, value_name = "LAYERS")]
    pub left_out: Option<String>,
    /// Makes this folder: the additions as the peft library keeps them; with --full a whole model as Hugging Face keeps it.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Rank of the additions.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub rank: u32,
    /// Trains all weights of the layers, in place of additions. Takes memory for four times those weights in F32 beside the model.
    #[arg(long, conflicts_with = "rank")]
    pub full: bool,
    /// Steps through the whole model.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub steps: u32,
    /// Highest learning rate; absent: 1e-3, with --full 1e-5.
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,
    /// Writes the course of the training: a row for each step as `.csv`, a picture as `.svg`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub curve: Vec<PathBuf>,
}

/// Tunes.
pub fn run(args: &Args) -> Result<()> {
    let rate = args.rate.unwrap_or(if args.full { 1e-5 } else { 1e-3 });
    if !(rate > 0.0 && rate <= 1.0) {
        let what = "a learning rate above 0, at most 1";
        return Err(InputError::expected(what).key("--rate").found(rate).into());
    }
    let folder = Folder::create(&args.out)?;
    let mut course = Course::open(&args.curve, args.given.quiet)?;
    let source = Checkpoint::open(&args.given.weights)?;
    if args.full {
        plain_llama(&source)?;
    }
    let (network, _, texts) = args.given.read()?;
    let router = args.router.as_ref().map(|path| Distilled::read(path, &network)).transpose()?;
    let router = router.map(|(trained, kv)| (trained.router.fixed(), trained.candidates, kv));
    let out = match &args.left_out {
        Some(list) => left_out(list, network.model().layers)?,
        None => Vec::new(),
    };
    let (routing, kv) = match &router {
        Some((router, candidates, kv)) => (TrainedRouting::Router(router, candidates), *kv),
        None => (TrainedRouting::Static(&out), SkipKv::ProjectOnly),
    };
    let recipe = TuneRecipe {
        rank: (!args.full).then_some(args.rank),
        steps: args.steps,
        rows: 4,
        rate,
        clip: 1.0,
        kv,
        seed: args.given.seed,
    };
    let routed = format!("{:?} {:?}", args.router, args.left_out);
    let kept = checkpoint_of(&args.out);
    let texts = texts.mixed(args.given.seed);
    let tuned = tune(&network, &texts, &routing, &routed, &recipe, Some(&kept), |step| course.hear(step))?;
    tuned.write(&source, &network, folder.path())?;
    folder.finish()?;
    remove(&kept)?;
    course.finish()
}
