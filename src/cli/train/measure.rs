//! `radialsim train measure`: what routers are worth beside static depth.

use super::{Given, print};
use radialsim::error::{Error, InputError, Result};
use radialsim::quality::{NetworkWorth, QualityTable, read_texts};
use radialsim::report::Staged;
use radialsim::train::{
    Distilled, DivergenceOf, Network, RadialRouter, Rules, SkipRouter, TrainedRouting, Tuned, Unit, Walk,
    left_out, measure, prune,
};
use radialsim::weights::{AnyRouter, SkipKv};
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
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
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present_any = ["router", "left_out"])]
    pub pruned_by: Vec<PathBuf>,
    /// Static depth that is named: layers and branches that every token leaves out, as 5,16a,17f.
    #[arg(long, value_name = "LAYERS", num_args = 1..)]
    pub left_out: Vec<String>,
    /// A folder of `train tune`: each skip router and each static depth also with its additions, or its layers.
    #[arg(long, value_name = "FOLDER")]
    pub tuned: Option<PathBuf>,
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

/// Sequences by which static depth finds the least harmful layers; each layer that is left out takes as many passes over them as half the layers.
const PRUNED_BY: usize = 4;

/// A router that is measured.
enum Judged {
    /// With one of random weights beside it.
    Skip {
        name: String,
        trained: Box<SkipRouter>,
        untrained: Box<SkipRouter>,
        candidates: Vec<[bool; 2]>,
        kv: SkipKv,
    },
    Radial {
        name: String,
        router: Box<RadialRouter>,
        rules: Rules,
    },
}

impl Judged {
    fn read(path: &Path, network: &Network, seed: u64) -> Result<Judged> {
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let model = network.model();
        if let Some(AnyRouter::Radial(weights)) = AnyRouter::read(path)? {
            weights.check(model).map_err(|error: Error| error.in_file(path))?;
            let described = &weights.described;
            let rules = Rules {
                hops: described.hops,
                least_hops: described.least_hops,
                weighted: described.weighted,
            };
            let router = Box::new(RadialRouter::with(&weights, network.device()).fixed());
            return Ok(Judged::Radial { name, router, rules });
        }
        let (Distilled { router, candidates }, kv) = Distilled::read(path, network)?;
        let hidden = router.hidden();
        let untrained = SkipRouter::new(model.layers, model.hidden, hidden, seed, network.device()).fixed();
        let [trained, untrained] = [router.fixed(), untrained].map(Box::new);
        Ok(Judged::Skip { name, trained, untrained, candidates, kv })
    }

    /// What a token that leaves attention out leaves in the KV cache, where it can.
    fn kv(&self) -> Option<SkipKv> {
        match self {
            Judged::Skip { kv, .. } => Some(*kv),
            Judged::Radial { .. } => None,
        }
    }

    fn list<'a>(&'a self, networks: &mut Vec<(String, DivergenceOf<'a>)>, controls: bool, seed: u64) {
        match self {
            Judged::Radial { name, router, rules } => {
                networks.push((name.clone(), DivergenceOf::Along(Walk::Routed(router), *rules)));
            }
            Judged::Skip { name, trained, untrained, candidates, .. } => {
                let routing = TrainedRouting::Router(trained, candidates);
                networks.push((name.clone(), DivergenceOf::As(routing.clone())));
                if controls {
                    networks.push((format!("{name}, shuffled"), DivergenceOf::Shuffled(routing, seed)));
                    let untrained = DivergenceOf::As(TrainedRouting::Router(untrained, candidates));
                    networks.push((format!("{name}, untrained"), untrained));
                }
            }
        }
    }
}

/// Measures.
pub fn run(args: &Args) -> Result<()> {
    let (network, tokenizer, texts) = args.given.read()?;
    let texts = texts.some((args.tokens as usize).div_ceil(texts.length));
    let mut networks: Vec<(String, DivergenceOf)> =
        vec![("dense".into(), DivergenceOf::As(TrainedRouting::Dense))];
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
        networks.push((
            format!("static, {count} left out"),
            DivergenceOf::As(TrainedRouting::Static(&pruned.out)),
        ));
    }
    let routers = args.router.iter().map(|path| Judged::read(path, &network, args.given.seed));
    let routers = routers.collect::<Result<Vec<Judged>>>()?;
    let kvs = || args.router.iter().zip(&routers).filter_map(|(path, router)| Some((path, router.kv()?)));
    let kept = kvs().next().map_or(SkipKv::ProjectOnly, |(_, kv)| kv);
    if let Some((path, _)) = kvs().find(|(_, kv)| *kv != kept) {
        let what = "routers that leave the same in the KV cache";
        return Err(InputError::expected(what).key("--router").found(path.display()).into());
    }
    for router in &routers {
        router.list(&mut networks, args.controls, args.given.seed);
    }
    let named = args.left_out.iter().map(|list| left_out(list, layers)).collect::<Result<Vec<_>>>()?;
    for (list, out) in args.left_out.iter().zip(&named) {
        networks.push((format!("static, without {list}"), DivergenceOf::As(TrainedRouting::Static(out))));
    }
    let tuned = match &args.tuned {
        Some(folder) => Some(Tuned::read(&network, folder)?),
        None => None,
    };
    if let Some(tuned) = &tuned {
        let mut more = Vec::new();
        for (name, choice) in &networks {
            match choice {
                DivergenceOf::As(TrainedRouting::Dense) => {}
                DivergenceOf::As(routing) => more.push((format!("{name}, tuned"), routing.clone())),
                _ => {}
            }
        }
        networks.extend(more.into_iter().map(|(name, routing)| (name, DivergenceOf::Tuned(tuned, routing))));
    }
    let choices: Vec<DivergenceOf> = networks.iter().map(|(_, choice)| choice.clone()).collect();
    let all = measure(&network, &texts, kept, &choices);
    let row =
        |((name, _), measured): (&(String, _), &Vec<_>)| NetworkWorth::of(name, measured, args.given.seed);
    let table = QualityTable::new(networks.iter().zip(&all).map(row).collect());
    if let Some(path) = &args.csv {
        Staged::create(path)?.finish(|out| table.write(out))?;
    }
    let (sequences, length) = (texts.sequences.len(), texts.length);
    let about = format!("{sequences} sequences of {length} tokens; intervals: 90 %, by drawing sequences");
    print(&format!("{about}\n{}\n", table.words()))
}
