//! `radialsim train skip`: a router that leaves out branches.

use super::curve::Course;
use super::{Given, checkpoint_of, remove};
use radialsim::error::{InputError, Result};
use radialsim::report::Staged;
use radialsim::train::{Effects, Gradient, Labels, Recipe, distill};
use radialsim::weights::SkipKv;
use std::path::PathBuf;
use std::time::Instant;

/// What the first stage fits scores to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LabelsFrom {
    /// What leaving out each branch alone does to a token's prediction.
    Effects,
    /// What it does beside the other branches that a search leaves out with it.
    Search,
}

/// Where the second stage takes its derivatives from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GradientFrom {
    /// A gate has the derivative of a sigmoid.
    StraightThrough,
    /// The router's own draws (REINFORCE).
    Policy,
}

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
    /// What the first stage fits scores to.
    #[arg(long, value_enum, default_value_t = LabelsFrom::Effects)]
    pub labels: LabelsFrom,
    /// Sets of branches of each token that the search keeps from round to round, with --labels search; absent: 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub beam: Option<u32>,
    /// Where the second stage takes its derivatives from.
    #[arg(long, value_enum, default_value_t = GradientFrom::StraightThrough)]
    pub gradient: GradientFrom,
    /// Draws of each sequence of a step, with --gradient policy; absent: 4.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=256))]
    pub draws: Option<u32>,
    /// Factor by which the cost of each later token counts less for a token's decisions, with --gradient policy; absent: 1, without bias.
    #[arg(long, value_name = "FACTOR")]
    pub discount: Option<f64>,
    /// Steps through the whole model.
    #[arg(long, value_name = "N", default_value_t = 36)]
    pub steps: u32,
    /// Writes the course of the training: a row for each step as `.csv`, a picture as `.svg`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub curve: Vec<PathBuf>,
    /// What a token that leaves attention out leaves in the KV cache: project_only or none.
    #[arg(long, default_value = "project_only", value_parser = kv)]
    pub kv: SkipKv,
    /// Gives labels to other tokens: a control, of which nothing can be learned about a token.
    #[arg(long)]
    pub shuffled_labels: bool,
}

fn kv(text: &str) -> std::result::Result<SkipKv, String> {
    match text {
        "project_only" => Ok(SkipKv::ProjectOnly),
        "none" => Ok(SkipKv::None),
        _ => Err("expected project_only or none".to_owned()),
    }
}

impl Args {
    /// Who gives labels and derivatives.
    fn ways(&self) -> Result<(Labels, Gradient)> {
        let idle = |key: &str, with: &str| {
            Err(InputError::expected(format!("this option together with {with}")).key(key).into())
        };
        let labels = match (self.labels, self.beam) {
            (LabelsFrom::Effects, Some(_)) => return idle("--beam", "--labels search"),
            (LabelsFrom::Effects, None) => Labels::Effects,
            (LabelsFrom::Search, beam) => Labels::Search { width: beam.unwrap_or(1) },
        };
        let gradient = match (self.gradient, self.draws, self.discount) {
            (GradientFrom::StraightThrough, Some(_), _) => return idle("--draws", "--gradient policy"),
            (GradientFrom::StraightThrough, _, Some(_)) => return idle("--discount", "--gradient policy"),
            (GradientFrom::StraightThrough, None, None) => Gradient::StraightThrough,
            (GradientFrom::Policy, draws, discount) => {
                Gradient::Policy { draws: draws.unwrap_or(4), discount: discount.unwrap_or(1.0) }
            }
        };
        Ok((labels, gradient))
    }
}

/// Trains.
pub fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let (labels, gradient) = args.ways()?;
    let (network, _, texts) = args.given.read()?;
    let layers = f64::from(network.model().layers);
    if !(args.depth > 0.0 && args.depth < layers) {
        let what = format!("a depth above 0 and below the model's {layers} layers");
        return Err(InputError::expected(what).key("--depth").found(args.depth).into());
    }
    let recipe = Recipe {
        labels,
        gradient,
        steps: args.steps,
        kv: args.kv,
        shuffled_labels: args.shuffled_labels,
        ..Recipe::new(args.depth, args.given.seed)
    };
    // What cannot be written is refused before anything is computed.
    drop(Staged::create(&args.out)?);
    let mut course = Course::open(&args.curve, args.given.quiet)?;
    let texts = texts.mixed(args.given.seed);
    args.given.say(&format!("{} tokens to train on", texts.tokens()));
    let effects = || {
        let labelled = texts.some(recipe.labelled);
        let effects = Effects::measure(&network, &labelled, recipe.kv, |_| ());
        let (branches, tokens) = (2.0 * layers, labelled.tokens());
        let spent = begin.elapsed().as_secs_f64();
        args.given
            .say(&format!("effects of {branches} branches measured on {tokens} tokens after {spent:.0} s"));
        if args.labels == LabelsFrom::Search {
            args.given.say("searches which branches tokens leave out together; longer than that");
        }
        effects
    };
    let kept = checkpoint_of(&args.out);
    if kept.exists() {
        args.given.say(&format!("goes on from {}", kept.display()));
    }
    let trained = distill(&network, &texts, &recipe, effects, Some(&kept), |step| course.hear(step))?;
    trained.write(&network.model().name, recipe.kv, &args.out)?;
    // What it was trained to is there; from where it could have gone on is of no more use.
    remove(&kept)?;
    course.finish()
}
