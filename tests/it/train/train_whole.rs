//! Layers tuned as a whole, and the model that is written of them.

use crate::gpu::skips::run;
use crate::small_models::{LAYERS, Small};
use crate::train::{small, texts};
use radialsim::batch::Policy;
use radialsim::gpu::{Executor, ExecutorOptions, Prompt};
use radialsim::quality::Texts;
use radialsim::rng::Stream;
use radialsim::train::{
    Device, DivergenceOf, Network, TrainStep, TrainedRouting, TuneRecipe, Tuned, left_out, measure,
    plain_llama, tune,
};
use radialsim::weights::{Checkpoint, SkipKv};
use safetensors::Dtype;
use std::path::{Path, PathBuf};

/// A llama2.c file, whose queries and keys turn by neighbours and whose head is the embedding.
fn by_neighbours(folder: &Path) -> PathBuf {
    let [width, inside, layers, heads, keys, words, positions] = [24, 36, 3, 3, 1, 97, 40];
    let head = width / heads;
    let layer = 2 * width + 2 * width * width + 2 * width * head * keys + 3 * width * inside;
    let count = words * width + layers * layer + width + positions * head;
    let random = &mut Stream::new(5, "llama2.c");
    let header = [width, inside, layers, heads, keys, words, positions].map(|size: usize| size as i32);
    let mut bytes: Vec<u8> = header.iter().flat_map(|size| size.to_le_bytes()).collect();
    bytes.extend((0..count).flat_map(|_| ((random.uniform() - 0.4) as f32).to_le_bytes()));
    let path = folder.join("neighbours.bin");
    std::fs::write(&path, bytes).expect("written");
    path
}

fn kl(network: &Network, tuned: &Network, texts: &Texts, routing: &TrainedRouting) -> f64 {
    let all = measure(network, texts, SkipKv::ProjectOnly, &[DivergenceOf::Tuned(tuned, routing.clone())]);
    all[0].iter().map(|row| row.kl).sum()
}

/// Layers tuned as a whole come nearer to the model; the folder that is written is a model that says the same, in the trainer and in the executor,
/// whichever way the source turns its heads; without a step it is the source itself; a stop changes no value.
#[test]
fn whole_layers_are_tuned_and_written_as_a_model() {
    let (folder, halves) = small();
    let neighbours = Checkpoint::open(by_neighbours(folder.path())).expect("a llama2.c file");
    let train = texts(24, 2);
    let out = left_out("1 2a", LAYERS as u32).expect("layers");
    let routing = TrainedRouting::Static(&out);
    for (index, source) in [halves, neighbours].iter().enumerate() {
        let network = Network::read(source, &Device::flex()).expect("a Llama");
        let recipe = TuneRecipe {
            rank: None,
            steps: 30,
            rows: 8,
            rate: 3e-3,
            clip: 1.0,
            kv: SkipKv::ProjectOnly,
            seed: 1,
        };
        let written = |tuned: &Tuned, name: &str| {
            let path = folder.path().join(format!("{name}-{index}"));
            std::fs::create_dir(&path).expect("a folder");
            tuned.write(source, &network, &path).expect("written");
            path
        };
        let none = TuneRecipe { steps: 0, ..recipe.clone() };
        let same = tune(&network, &train, &routing, "test", &none, None, |_| ()).expect("nothing tuned");
        let same = Tuned::read(&network, &written(&same, "same")).expect("a model");
        assert!(kl(&network, &same, &train, &TrainedRouting::Dense).abs() < 1e-4);
        let before = kl(&network, &same, &train, &routing);
        let tuned = tune(&network, &train, &routing, "test", &recipe, None, |_| ()).expect("tuned");
        let after = kl(&network, &tuned.of(&network), &train, &routing);
        assert!(after < 0.7 * before, "{index}: {before} {after}");
        let path = written(&tuned, "tuned");
        let read = Tuned::read(&network, &path).expect("a model");
        assert!((kl(&network, &read, &train, &routing) - after).abs() < 1e-4 * after.max(1.0));

        let keep = folder.path().join(format!("kept-{index}"));
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let stop = |step: &TrainStep| assert!(step.step < 15, "stopped");
            tune(&network, &train, &routing, "test", &recipe, Some(&keep), stop).map(drop)
        }));
        assert!(stopped.is_err() && keep.exists());
        let mut first = None;
        let again = tune(&network, &train, &routing, "test", &recipe, Some(&keep), |step| {
            first.get_or_insert(step.step);
        });
        assert_eq!(first, Some(10));
        let again = written(&again.expect("tuned"), "again");
        let bytes = |folder: &Path| std::fs::read(folder.join("model.safetensors")).expect("a file");
        assert!(bytes(&again) == bytes(&path));

        let Some(gpu) = crate::gpu() else { continue };
        let model = Checkpoint::open(&path).expect("a model");
        let options = ExecutorOptions { positions: 40, ..ExecutorOptions::default() };
        let mut executor = Executor::new(gpu, &model, options).expect("fits");
        let some = texts(3, 9);
        let prompts: Vec<Prompt> =
            some.sequences.iter().map(|ids| Prompt { ids: ids.clone(), most: 1 }).collect();
        let whole = radialsim::gpu::Routing::dense(LAYERS as u32);
        let ran = run(&mut executor, &prompts, whole, Policy::Aligned);
        let said = measure(
            &network,
            &some,
            SkipKv::ProjectOnly,
            &[DivergenceOf::Tuned(&tuned.of(&network), TrainedRouting::Dense)],
        );
        for (answer, measured) in ran.answers.iter().zip(&said[0]) {
            let (nll, trained) = (answer.nll.expect("asked for"), measured.nll / measured.count);
            assert!((nll - trained).abs() < 1e-4 * nll, "{index}: {nll} {trained}");
        }
    }
}

/// A model of which the folder would not say everything is refused before it is tuned, and a folder of another model when it is read.
#[test]
fn what_no_folder_would_say_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(true).write(folder.path(), Dtype::F32, 1);
    let opt = Checkpoint::open(folder.path()).expect("a valid folder");
    let said = plain_llama(&opt).expect_err("refused").to_string();
    assert!(said.contains("weights: found") && said.contains("expected a plain Llama"), "{said}");
    let (_folder, checkpoint) = small();
    plain_llama(&checkpoint).expect("a plain Llama");
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let deep = tempfile::tempdir().expect("a folder");
    Small::deep(false, LAYERS + 1).write(deep.path(), Dtype::F32, 1);
    let said = Tuned::read(&network, deep.path()).map(drop).expect_err("refused").to_string();
    assert!(said.contains("config.json: found 4 layers") && said.contains("shapes 3 layers"), "{said}");
}
