//! Training: the differentiable network against the executor, and what a router learns on a small model.

pub mod scratch;
pub mod scratch_runs;
pub mod train_ways;
pub mod train_whole;

use crate::gpu::skips::{router, run};
use crate::small_models::{LAYERS, Small};
use radialsim::batch::Policy;
use radialsim::gpu::{Executor, ExecutorOptions, Prompt, Routing, Skips};
use radialsim::quality::Texts;
use radialsim::rng::Stream;
use radialsim::trace::{self, RouterDevice};
use radialsim::train::{
    Additions, Device, Distilled, DivergenceOf, Effects, Gates, Gradient, Labels, Network, Recipe, TrainStep,
    TuneRecipe, Tuned, Unit, distill, left_out, measure, prune, tune,
};
use radialsim::weights::{Checkpoint, SkipKv};
use safetensors::Dtype;
use std::path::Path;
use tempfile::TempDir;

pub fn small() -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(false).write(folder.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
    (folder, checkpoint)
}

pub fn texts(sequences: usize, seed: u64) -> Texts {
    let mut random = Stream::new(seed, "texts");
    let sequence = |_| (0..12).map(|_| random.below(97) as u32).collect();
    Texts { length: 12, sequences: (0..sequences).map(sequence).collect() }
}

/// Likelihoods and decisions of the trainer are the executor's, dense and routed, decided by host and by device.
#[test]
fn what_is_trained_is_what_runs() {
    let (folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let Some(gpu) = crate::gpu() else { return };
    let mut executor =
        Executor::new(gpu, &checkpoint, ExecutorOptions { positions: 40, ..ExecutorOptions::default() })
            .expect("fits");
    let texts = texts(5, 1);
    let prompts: Vec<Prompt> =
        texts.sequences.iter().map(|ids| Prompt { ids: ids.clone(), most: 1 }).collect();
    let dense = run(&mut executor, &prompts, Routing::dense(LAYERS as u32), Policy::Aligned);
    let said = measure(
        &network,
        &texts,
        SkipKv::ProjectOnly,
        &[DivergenceOf::As(radialsim::train::TrainedRouting::Dense)],
    );
    for (answer, measured) in dense.answers.iter().zip(&said[0]) {
        let (nll, trained) = (answer.nll.expect("asked for"), measured.nll / measured.count);
        assert!((nll - trained).abs() < 1e-4 * nll, "{nll} {trained}");
        assert!(measured.kl.abs() < 1e-6 && measured.depth == LAYERS as f64);
    }
    let path = folder.path().join("router.safetensors");
    let mut left_out = 0;
    for seed in 0..4 {
        for (kv, device, policy) in [
            (SkipKv::ProjectOnly, RouterDevice::Gpu, Policy::DenseMasked),
            (SkipKv::ProjectOnly, RouterDevice::Host, Policy::Aligned),
            (SkipKv::None, RouterDevice::Host, Policy::Aligned),
        ] {
            let weights = router(seed, kv);
            std::fs::write(&path, weights.bytes()).expect("a file");
            let (trained, read) = Distilled::read(&path, &network).expect("a router");
            assert_eq!(read, kv);
            let skips = Skips { router: weights, device };
            let ran = run(&mut executor, &prompts, Routing::Skips(Box::new(skips)), policy);
            let fixed = trained.router.fixed();
            let routing = radialsim::train::TrainedRouting::Router(&fixed, &trained.candidates);
            let said = measure(&network, &texts, kv, &[DivergenceOf::As(routing)]);
            for (row, (answer, measured)) in ran.answers.iter().zip(&said[0]).enumerate() {
                let (nll, trained) = (answer.nll.expect("asked for"), measured.nll / measured.count);
                assert!((nll - trained).abs() < 1e-4 * nll, "{seed} {kv:?} {device:?}: {nll} {trained}");
                // The last token is not fed, but it is part of the sequence that was measured.
                let routes = ran.trace.requests[row].runs.iter().flat_map(|run| run.routes.iter());
                let half = |step: &trace::Step| {
                    u32::from(step.modules.attention()) + u32::from(step.modules.feed_forward())
                };
                let halves = |id| ran.trace.routes.get(id).0.iter().map(half).sum::<u32>();
                let depth = routes.map(halves).sum::<u32>() as f64 / 2.0 / 12.0;
                assert!(
                    (depth - measured.depth).abs() < 1e-9,
                    "{seed} {kv:?} {device:?}: {depth} {}",
                    measured.depth
                );
                left_out += usize::from(depth < LAYERS as f64);
            }
        }
    }
    assert!(left_out > 30, "{left_out}");
}

/// The same seed gives the same bytes; each stage lowers its loss; the depth is the one that was asked for.
#[test]
fn a_router_is_trained_to_a_depth_and_by_its_seed_alone() {
    let (folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let texts = texts(24, 2);
    let recipe = Recipe {
        candidates: 2.0,
        hidden: 8,
        first_steps: 60,
        steps: 12,
        ..Recipe::new(LAYERS as f64 - 0.75, 1)
    };
    let effects = || Effects::measure(&network, &texts.some(8), recipe.kv, |_| ());
    let mut files = Vec::new();
    for seed in [1, 1, 2] {
        let mut steps = Vec::new();
        let recipe = Recipe { seed, ..recipe.clone() };
        let trained =
            distill(&network, &texts, &recipe, effects, None, |step| steps.push(*step)).expect("trained");
        let path = folder.path().join("trained.safetensors");
        trained.write("small", recipe.kv, &path).expect("written");
        files.push(std::fs::read(&path).expect("a file"));
        let first: Vec<f64> = steps.iter().filter(|step| step.stage == 1).map(|step| step.loss).collect();
        assert!(first[first.len() - 1] < 0.8 * first[0], "{first:?}");
        let fixed = trained.router.fixed();
        let routing = radialsim::train::TrainedRouting::Router(&fixed, &trained.candidates);
        let said = measure(&network, &texts.some(8), recipe.kv, &[DivergenceOf::As(routing)]);
        let depth = said[0].iter().map(|row| row.depth).sum::<f64>() / said[0].len() as f64;
        assert!((depth - recipe.depth).abs() < 0.15, "{depth}");
    }
    assert!(files[0] == files[1] && files[0] != files[2]);
}

/// Arithmetic that is not differentiated here, routers of other shapes, and files that are none are refused by name.
#[test]
fn what_cannot_be_trained_is_refused() {
    let opt = tempfile::tempdir().expect("a folder");
    Small::new(true).write(opt.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(opt.path()).expect("a valid folder");
    let said = Network::read(&checkpoint, &Device::flex()).expect_err("refused").to_string();
    assert!(said.contains("norm: expected RMS norms with weights"), "{said}");

    let (folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let path = folder.path().join("router.safetensors");
    let good = router(1, SkipKv::None);
    let mut wide = good.clone();
    wide.width += 4;
    wide.first.extend(vec![0.0; 4 * wide.hidden as usize]);
    let mut odd = good.clone();
    odd.second[3] = f32::NAN;
    let mut few = good.clone();
    few.described.candidates.pop();
    let mut other = good.clone();
    other.described.kind = "hash".into();
    for (router, said) in [
        (
            &wide,
            "router: found one for 3 layers and a stream of 28, expected a router for 3 layers and a stream of 24",
        ),
        (&odd, "second: expected finite weights"),
        (&few, "__metadata__.radial.candidates: expected 3, one for each layer"),
        (&other, "__metadata__.radial.kind: found \"hash\", expected skip, radial or table"),
    ] {
        std::fs::write(&path, router.bytes()).expect("a file");
        let found = Distilled::read(&path, &network).expect_err("refused").to_string();
        assert!(found.contains(said) && found.contains("router.safetensors"), "{found}");
    }
    let mut empty = good.clone();
    (empty.hidden, empty.first, empty.vectors, empty.second) = (0, vec![], vec![], vec![]);
    std::fs::write(&path, empty.bytes()).expect("a file");
    let found = Distilled::read(&path, &network).expect_err("refused").to_string();
    assert!(found.contains("first: expected at least one layer"), "{found}");
    std::fs::write(&path, &good.bytes()[..100]).expect("a file");
    let found = Distilled::read(&path, &network).expect_err("refused").to_string();
    assert!(found.contains("header: expected a safetensors file"), "{found}");
    std::fs::write(&path, good.bytes()).expect("a file");
    Distilled::read(&path, &network).expect("a whole router is read");
}

/// A training that was stopped goes on from its last checkpoint to the same bytes, and one of other texts or another recipe is refused.
#[test]
fn a_training_that_was_stopped_comes_to_the_same_bytes() {
    let (folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let texts = texts(24, 3);
    let ways = [
        (Labels::Effects, Gradient::StraightThrough),
        (Labels::Search { width: 2 }, Gradient::Policy { draws: 3, discount: 0.5 }),
    ];
    for (labels, gradient) in ways {
        let recipe = Recipe {
            candidates: 2.0,
            hidden: 8,
            labels,
            labelled: 4,
            first_steps: 20,
            gradient,
            steps: 25,
            ..Recipe::new(LAYERS as f64 - 0.5, 4)
        };
        stopped_and_gone_on(&network, &texts, &recipe, folder.path());
    }
}

fn stopped_and_gone_on(network: &Network, texts: &Texts, recipe: &Recipe, folder: &Path) {
    let effects = || Effects::measure(network, &texts.some(4), recipe.kv, |_| ());
    let file = folder.join("router.safetensors");
    let bytes = |trained: &Distilled| {
        trained.write("small", recipe.kv, &file).expect("written");
        std::fs::read(&file).expect("a file")
    };
    let whole = distill(network, texts, recipe, effects, None, |_| ()).expect("trained");
    let kept = folder.join(format!("kept {:?}", recipe.gradient));
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let stop = |step: &TrainStep| assert!(step.stage == 1 || step.step < 16, "stopped here");
        distill(network, texts, recipe, effects, Some(&kept), stop)
    }));
    assert!(stopped.is_err() && kept.exists());
    let mut first = None;
    let none = || -> Effects { panic!("effects are measured again") };
    let again = distill(network, texts, recipe, none, Some(&kept), |step| first = first.or(Some(step.step)));
    assert_eq!(first, Some(10));
    assert!(bytes(&whole) == bytes(&again.expect("trained")));
    let other = Recipe { seed: 5, ..recipe.clone() };
    let said =
        distill(network, texts, &other, effects, Some(&kept), |_| ()).expect_err("refused").to_string();
    assert!(said.contains("training: found another, expected a checkpoint of this training"), "{said}");
    let whole = std::fs::read(&kept).expect("a file");
    for length in [0, 10, whole.len() / 2] {
        std::fs::write(&kept, &whole[..length]).expect("a file");
        let said = distill(network, texts, recipe, effects, Some(&kept), |_| ()).expect_err("refused");
        assert!(said.to_string().contains("kept"), "{said}");
    }
}

/// Layers, or branches, are left out in the order that trying all of them, from the first layer on, gives.
#[test]
fn static_depth_leaves_out_what_a_naive_search_does() {
    let (_folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let texts = texts(6, 7);
    let frame = network.frame(texts.length);
    let rows: Vec<&[u32]> = texts.sequences.iter().map(Vec::as_slice).collect();
    let shares = |out: &[[bool; 2]]| -> Vec<Vec<f64>> {
        let mut stream = network.embed(&rows);
        for (layer, out) in (0..).zip(out) {
            let gates = Gates::equal(*out, &stream);
            stream = network.layer(layer, &frame, stream, Some(&gates), SkipKv::ProjectOnly);
        }
        let logits: Vec<f64> = network.logits(stream).into_data().iter::<f64>().collect();
        let share = |row: &[f64]| {
            let all: f64 = row.iter().map(|logit| logit.exp()).sum();
            row.iter().map(|logit| logit.exp() / all).collect()
        };
        logits.chunks_exact(97).map(share).collect()
    };
    let whole = shares(&[[false; 2]; LAYERS]);
    let kl = |out: &[[bool; 2]]| {
        let of = |(p, q): (&Vec<f64>, Vec<f64>)| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        whole.iter().zip(shares(out)).map(of).sum::<f64>() / whole.len() as f64
    };
    for (unit, most) in [(Unit::Layers, 2), (Unit::Branches, 4)] {
        let mut out = vec![[false; 2]; LAYERS];
        for pruned in prune(&network, &texts, unit, most, |_| ()) {
            let mut tried = Vec::new();
            for layer in 0..LAYERS {
                for branches in [[true, true], [true, false], [false, true]] {
                    let whole = branches == [true; 2];
                    let new = (0..2).all(|branch| !branches[branch] || !out[layer][branch]);
                    if whole == (unit == Unit::Layers) && new {
                        let mut with = out.clone();
                        (0..2).for_each(|branch| with[layer][branch] |= branches[branch]);
                        tried.push(with);
                    }
                }
            }
            out = tried.into_iter().min_by(|a, b| kl(a).total_cmp(&kl(b))).expect("some are left");
            assert_eq!(pruned.out, out);
            assert!((pruned.kl - kl(&out)).abs() < 1e-5, "{} {}", pruned.kl, kl(&out));
        }
    }
}

/// Tuned layers come nearer to the whole model under a router and under static depth; additions that add nothing change nothing; a folder gives back
/// what was written; a stop changes no value.
#[test]
fn layers_are_tuned_for_what_is_left_out() {
    let (folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    // Words that nothing foretells: what can be learned is learned on the texts that are tuned on.
    let train = texts(24, 2);
    let out = left_out("1 2a", LAYERS as u32).expect("layers");
    assert_eq!(out, [[false; 2], [true; 2], [true, false]]);
    let weights = router(3, SkipKv::None);
    let path = folder.path().join("router.safetensors");
    std::fs::write(&path, weights.bytes()).expect("a file");
    let (trained, _) = Distilled::read(&path, &network).expect("a router");
    let fixed = trained.router.fixed();
    let routings = [
        (radialsim::train::TrainedRouting::Static(&out), SkipKv::ProjectOnly),
        (radialsim::train::TrainedRouting::Router(&fixed, &trained.candidates), SkipKv::None),
    ];
    for (index, (routing, kv)) in routings.iter().enumerate() {
        let recipe =
            TuneRecipe { rank: Some(2), steps: 60, rows: 8, rate: 3e-3, clip: 1.0, kv: *kv, seed: 1 };
        let kl = |network: &Network, tuned: &Network| {
            let all = measure(network, &train, *kv, &[DivergenceOf::Tuned(tuned, routing.clone())]);
            all[0].iter().map(|row| row.kl).sum::<f64>()
        };
        let nothing = network.added(&Additions::new(&network, 2, 1).fixed());
        let before = kl(&network, &network);
        assert_eq!(kl(&network, &nothing), before);
        let additions = tune(&network, &train, routing, "test", &recipe, None, |_| ()).expect("tuned");
        let tuned = additions.of(&network);
        let after = kl(&network, &tuned);
        assert!(after < 0.9 * before, "{index}: {before} {after}");
        let written = folder.path().join(format!("additions-{index}"));
        std::fs::create_dir(&written).expect("a folder");
        additions.write(&checkpoint, &network, &written).expect("written");
        assert_eq!(kl(&network, &Tuned::read(&network, &written).expect("read")), after);
        let keep = folder.path().join(format!("additions-{index}.checkpoint"));
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let stop = |step: &TrainStep| assert!(step.step < 25, "stopped");
            tune(&network, &train, routing, "test", &recipe, Some(&keep), stop).map(drop)
        }));
        assert!(stopped.is_err() && keep.exists());
        let mut first = None;
        let again = tune(&network, &train, routing, "test", &recipe, Some(&keep), |step| {
            first.get_or_insert(step.step);
        });
        assert_eq!(first, Some(20));
        assert_eq!(kl(&network, &again.expect("tuned").of(&network)), after);
        let config = written.join("adapter_config.json");
        let text = std::fs::read_to_string(&config).expect("a config").replace("\"none\"", "\"all\"");
        std::fs::write(&config, text).expect("written");
        let refused = Additions::read(&network, &written).map(drop).expect_err("biases").to_string();
        assert!(refused.contains("bias: expected \"none\""), "{refused}");
    }
    let refused = left_out("3", LAYERS as u32).expect_err("no such layer").to_string();
    assert!(refused.contains("--left-out: found 3, expected layers below 3"), "{refused}");
}
