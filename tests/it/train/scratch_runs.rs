//! What was trained from nothing is what runs: the executor against the trainer, token by token.

use crate::gpu::skips::settings;
use crate::train::scratch::{WORDS, lawful, recipe, rules, shape};
use radialsim::batch::Policy;
use radialsim::gpu::{Executor, ExecutorOptions, GenerationSettings, Prompt, Radial, Routing, Skips};
use radialsim::trace::RouterDevice;
use radialsim::train::{Begin, Device, ScratchRecipe, ScratchWay, evaluate, scratch, train_words};
use radialsim::weights::{AnyRouter, Checkpoint};

/// Likelihoods to 1e-4 and routes step for step, by host and by device: pools smaller and larger than the number of hops, with and without leaving,
/// weighted, in order, and a Mixture-of-Depths.
#[test]
fn networks_from_nothing_run_as_they_were_trained() {
    if crate::gpu().is_none() {
        return;
    }
    let cases = [
        (4, ScratchWay::Routed(Begin::Random), rules(2, 2), None),
        (2, ScratchWay::Routed(Begin::Random), rules(5, 1), Some(3.0)),
        (
            6,
            ScratchWay::Routed(Begin::Staged { hops: 3 }),
            radialsim::train::Rules { weighted: true, ..rules(3, 3) },
            None,
        ),
        (2, ScratchWay::InOrder, rules(4, 4), None),
        (4, ScratchWay::Depths(0.5), rules(4, 4), None),
        (4, ScratchWay::Hashed { staged: false }, rules(3, 3), None),
        (4, ScratchWay::Hashed { staged: true }, rules(2, 2), None),
        (4, ScratchWay::Routed(Begin::Words { words: WORDS }), rules(3, 2), Some(2.5)),
        (4, ScratchWay::Fixed(Begin::Words { words: WORDS }), rules(3, 3), None),
    ];
    let (train, texts) = (lawful(64, 1), lawful(6, 2));
    let mut left_early = 0;
    for (layers, way, rules, depth) in cases {
        let (parent, folder, model, config) = shape(layers);
        let recipe = ScratchRecipe { rules, depth, steps: 60, ..recipe(way) };
        let trained =
            scratch(&model, &train, &texts, &recipe, &Device::flex(), None, |_| ()).expect("trained");
        let words = tempfile::tempdir().expect("a folder");
        let json = train_words(&["a few words".into()], 300).expect("words");
        std::fs::write(words.path().join("tokenizer.json"), json).expect("written");
        folder.write(&model, &config, &trained, &recipe, words.path()).expect("written");
        folder.finish().expect("a name");
        let path = parent.path().join("network");
        let checkpoint = Checkpoint::open(&path).expect("a model");
        let router = AnyRouter::read(&path.join("router.safetensors")).expect("read").expect("a router");
        let (measured, walked) = evaluate(&model, &trained, &texts, &recipe).expect("measured");
        let prompts: Vec<Prompt> =
            texts.sequences.iter().map(|ids| Prompt { ids: ids.clone(), most: 1 }).collect();
        for device in [RouterDevice::Host, RouterDevice::Gpu] {
            let (routing, policy) = match router.clone() {
                AnyRouter::Radial(router) => {
                    (Routing::Radial(Box::new(Radial { router, device })), Policy::Grouped)
                }
                // Nothing is decided.
                AnyRouter::Table(_) if device == RouterDevice::Gpu => continue,
                AnyRouter::Table(table) => (Routing::Words(Box::new(table)), Policy::Grouped),
                // Where the device decides, nobody knows beforehand who leaves no entry.
                AnyRouter::Skip(_) if device == RouterDevice::Gpu => continue,
                AnyRouter::Skip(router) => {
                    (Routing::Skips(Box::new(Skips { router, device })), Policy::Aligned)
                }
            };
            let gpu = crate::gpu().expect("there is one");
            let options = ExecutorOptions { positions: 40, ..ExecutorOptions::default() };
            let mut executor = Executor::new(gpu, &checkpoint, options).expect("fits");
            let visibility = routing.visible().unwrap_or_default();
            let settings = GenerationSettings { visibility, ..settings(routing, policy) };
            let ran = executor.generate(&prompts, &settings, &mut ()).expect("a run");
            for (index, (answer, measured)) in ran.answers.iter().zip(&measured).enumerate() {
                let (nll, trained) = (answer.nll.expect("asked for"), measured.nll / measured.count);
                assert!((nll - trained).abs() < 1e-4 * nll, "{way:?} {device:?}: {nll} {trained}");
                let ids = ran.trace.requests[index].runs.iter().flat_map(|run| run.routes.iter());
                let routes: Vec<Vec<u32>> = ids
                    .map(|id| ran.trace.routes.get(id).0.iter().map(|step| step.layer).collect())
                    .collect();
                assert!(routes.len() >= 11, "{}", routes.len());
                let (batch, row) = (&walked[index / 4], index % 4);
                for (token, route) in routes.iter().enumerate() {
                    let visits = batch.0.iter().filter_map(|hop| hop[row * 12 + token]);
                    assert!(
                        visits.eq(route.iter().copied()),
                        "{way:?} {device:?} {index} {token}: {route:?}"
                    );
                    left_early += usize::from(route.len() < rules.hops as usize);
                }
            }
        }
    }
    assert!(left_early > 20, "{left_early}");
}
