//! Families of models that are run otherwise than they are defined: small ones against a naive forward pass, with routes and
//! without, kernel by kernel as lowered; and those that the transformers library wrote, against what it said.

use crate::family_list::families;
use crate::family_models::{LAYERS, VOCABULARY, Weights};
use crate::gpu::routed::{AsLowered, POLICIES};
use crate::gpu::skips::settings;
use radialsim::batch::Policy;
use radialsim::gpu::{Completion, Executor, ExecutorOptions, Oracle, Prompt, Ratio, Routing};
use radialsim::trace::{Header, KvAction, Route, RouteTable, Trace};
use radialsim::weights::Checkpoint;

/// A run whose kernels are those of its lowering.
fn run(executor: &mut Executor, prompts: &[Prompt], routing: Routing, policy: Policy) -> Vec<Completion> {
    let model = executor.model().clone();
    let mut watch = AsLowered { model: &model, passes: 0, kernels: 0 };
    let settings = settings(routing, policy);
    executor.generate(prompts, &settings, &mut watch).expect("a run").answers
}

/// Largest logit behind a prompt, mean negative log-likelihood of it, and tokens that follow.
fn naive(weights: &Weights, prompt: &Prompt, takes: impl Fn(usize, usize) -> bool) -> (f64, f64, Vec<u32>) {
    let mut ids = prompt.ids.clone();
    let (mut first, mut nll) = (0.0, 0.0);
    for step in 0..prompt.most {
        let logits = weights.logits(&ids, &takes);
        let rows: Vec<&[f64]> = logits.chunks_exact(VOCABULARY).collect();
        let last = rows.last().expect("a prompt");
        let best = (0..VOCABULARY).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("a vocabulary");
        if step == 0 {
            let log_sum = |row: &[f64]| row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let terms = rows.iter().zip(&ids[1..]).map(|(row, &next)| log_sum(row) - row[next as usize]);
            (first, nll) = (last[best], terms.sum::<f64>() / (ids.len() - 1) as f64);
        }
        ids.push(best as u32);
    }
    (first, nll, ids.split_off(prompt.ids.len()))
}

fn assert_said(answer: &Completion, wanted: &(f64, f64, Vec<u32>), what: &str) {
    let (first, nll, ids) = wanted;
    let found = (f64::from(answer.first[0].1), answer.nll.expect("asked for"));
    assert!(
        (found.0 - first).abs() <= 1e-4 * first.abs().max(1.0),
        "{what}: {} rather than {first}",
        found.0
    );
    assert!((found.1 - nll).abs() <= 1e-4 * nll.abs().max(1.0), "{what}: {} rather than {nll}", found.1);
    assert_eq!(&answer.ids, ids, "{what}");
}

/// Which layers a token takes: each another, by its position; layer 0 always.
fn takes(position: usize, layer: usize) -> bool {
    layer == 0 || !(position + 2 * layer).is_multiple_of(3)
}

/// A trace of two requests whose tokens take the layers that [`takes`] says.
fn routed(prompts: &[Prompt]) -> Trace {
    let header = Header { kv: KvAction::None, ..Header::dense("small", LAYERS as u32) };
    let mut routes = RouteTable::default();
    let requests = prompts.iter().enumerate().map(|(id, prompt)| {
        let tokens = prompt.ids.len() + prompt.most as usize - 1;
        let mut route = |position: usize| {
            routes
                .intern(Route::of_layers((0..LAYERS as u32).filter(|&layer| takes(position, layer as usize))))
        };
        let all: Vec<u32> = (0..tokens).map(&mut route).collect();
        let (before, after) = all.split_at(prompt.ids.len());
        radialsim::trace::Request::plain(id as u64, before, prompt.most, after)
    });
    let requests = requests.collect();
    Trace { header, routes, requests }
}

#[test]
fn every_family_says_what_its_definition_says() {
    for family in families() {
        let weights = Weights::new(family);
        let folder = tempfile::tempdir().expect("a folder");
        weights.write(folder.path());
        let name = weights.family.name;
        let checkpoint = Checkpoint::open(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Some(gpu) = crate::gpu() else { return };
        let options = ExecutorOptions { positions: 64, ..ExecutorOptions::default() };
        let mut executor =
            Executor::new(gpu, &checkpoint, options).unwrap_or_else(|error| panic!("{name}: {error}"));
        let prompts: Vec<Prompt> =
            [vec![1, 2, 3, 40, 0, 7, 7, 12, 33, 4, 5], vec![5, 6]].map(|ids| Prompt { ids, most: 5 }).into();
        let dense: Vec<_> = prompts.iter().map(|prompt| naive(&weights, prompt, |_, _| true)).collect();
        let some: Vec<_> = prompts.iter().map(|prompt| naive(&weights, prompt, takes)).collect();
        for policy in POLICIES {
            let what = format!("{name}, {}", policy.name());
            let answers = run(&mut executor, &prompts, Routing::dense(LAYERS as u32), policy);
            answers.iter().zip(&dense).for_each(|(answer, wanted)| assert_said(answer, wanted, &what));
            let routing = Routing::Replay(Box::new(routed(&prompts)));
            let answers = run(&mut executor, &prompts, routing, policy);
            answers
                .iter()
                .zip(&some)
                .for_each(|(answer, wanted)| assert_said(answer, wanted, &format!("{what}, routed")));
        }
        // An oracle without thresholds takes every branch.
        let oracle = Oracle { attention: 0.0, feed_forward: 0.0, ratio: Ratio::OverOutput, always: vec![] };
        let answers = run(&mut executor, &prompts, Routing::Oracle(oracle), Policy::DenseMasked);
        answers
            .iter()
            .zip(&dense)
            .for_each(|(answer, wanted)| assert_said(answer, wanted, &format!("{name}, oracle")));
    }
}

#[derive(serde::Deserialize)]
struct Expected {
    prompt_ids: Vec<u32>,
    last_top5: Vec<(u32, f64)>,
    nll_prompt: f64,
}

#[test]
fn models_that_transformers_wrote_say_what_it_said() {
    let Some(folder) = crate::data("models/tiny") else { return };
    let mut folders: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    folders.sort();
    for folder in folders {
        let Ok(text) = std::fs::read_to_string(folder.join("expected.json")) else { continue };
        let expected: Expected = serde_json::from_str(&text).expect("what was said");
        let what = folder.display();
        let Some(gpu) = crate::gpu() else { return };
        let checkpoint = Checkpoint::open(&folder).unwrap_or_else(|error| panic!("{what}: {error}"));
        let options = ExecutorOptions { positions: 128, ..ExecutorOptions::default() };
        let mut executor =
            Executor::new(gpu, &checkpoint, options).unwrap_or_else(|error| panic!("{what}: {error}"));
        let routing = Routing::dense(executor.model().layers);
        let prompts = [Prompt { ids: expected.prompt_ids, most: 1 }];
        let answer = run(&mut executor, &prompts, routing, Policy::Aligned).remove(0);
        let scale = expected.last_top5.iter().map(|(_, logit)| logit.abs()).fold(0.0, f64::max);
        for ((id, logit), (found, said)) in expected.last_top5.iter().zip(&answer.first) {
            assert_eq!(id, found, "{what}");
            assert!((logit - f64::from(*said)).abs() <= 1e-3 * scale, "{what}: {said} rather than {logit}");
        }
        assert!((answer.nll.expect("asked for") - expected.nll_prompt).abs() <= 1e-3, "{what}");
    }
}
