//! `radialsim train radial`: a router that sends the tokens of a frozen model through its layers.

use super::curve::Course;
use super::{Given, checkpoint_of, remove};
use radialsim::error::{InputError, Result};
use radialsim::report::Staged;
use radialsim::train::{Rules, SendRecipe, send, write_router};
use std::path::PathBuf;

/// What to train.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub given: Given,
    /// Writes the router here.
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    /// Mean depth that is wanted, in layers.
    #[arg(long, value_name = "LAYERS")]
    pub depth: f64,
    /// Most layers that a token visits; absent: as many as the model has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub hops: Option<u32>,
    /// Layers that a token visits before it may leave.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub least_hops: u32,
    /// Steps through the whole model.
    #[arg(long, value_name = "N", default_value_t = 36)]
    pub steps: u32,
    /// Writes the course of the training: a row for each step as `.csv`, a picture as `.svg`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub curve: Vec<PathBuf>,
}

/// Trains.
pub fn run(args: &Args) -> Result<()> {
    let (network, _, texts) = args.given.read()?;
    let layers = network.model().layers;
    let hops = args.hops.unwrap_or(layers);
    if !(args.depth >= f64::from(args.least_hops) && args.depth <= f64::from(hops)) {
        let what = format!("a depth between the least hops, {}, and the most, {hops}", args.least_hops);
        return Err(InputError::expected(what).key("--depth").found(args.depth).into());
    }
    let rules = Rules { hops, least_hops: args.least_hops, weighted: false };
    let recipe = SendRecipe {
        depth: args.depth,
        rules,
        hidden: 64,
        steps: args.steps,
        rows: 4,
        rate: 1e-2,
        noise: 1.0,
        clip: 0.5,
        seed: args.given.seed,
    };
    // What cannot be written is refused before anything is computed.
    drop(Staged::create(&args.out)?);
    let mut course = Course::open(&args.curve, args.given.quiet)?;
    let kept = checkpoint_of(&args.out);
    if kept.exists() {
        args.given.say(&format!("goes on from {}", kept.display()));
    }
    let texts = texts.mixed(args.given.seed);
    let router = send(&network, &texts, &recipe, Some(&kept), |step| course.hear(step))?;
    write_router(&router, &network.model().name, &rules, &args.out)?;
    remove(&kept)?;
    course.finish()
}
