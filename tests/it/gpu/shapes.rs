//! Families of models that are run otherwise than they are defined: small ones against a naive forward pass.

use crate::gpu::skips::settings;
use crate::small_models::{Small, VOCABULARY};
use radialsim::batch::Policy;
use radialsim::gpu::{Completion, Executor, ExecutorOptions, Prompt, Routing};
use radialsim::trace::{KvAction, Route};
use radialsim::weights::Checkpoint;
use safetensors::Dtype;

fn answers(
    folder: &std::path::Path,
    prompts: &[Prompt],
    routing: Routing,
    policy: Policy,
) -> Option<Vec<Completion>> {
    let checkpoint = Checkpoint::open(folder).expect("a valid folder");
    let mut executor =
        Executor::new(crate::gpu()?, &checkpoint, ExecutorOptions::default()).expect("a model that fits");
    let settings = settings(routing, policy);
    Some(executor.generate(prompts, &settings, &mut ()).expect("a run").answers)
}

/// What the naive pass says of a prompt: mean negative log-likelihood, largest logit behind it, and greedy tokens.
fn naive(small: &Small, prompt: &Prompt, takes: impl Fn(usize) -> bool) -> (f64, f64, Vec<u32>) {
    let mut ids = prompt.ids.clone();
    let (mut nll, mut first) = (0.0, 0.0);
    for _ in 0..prompt.most {
        let logits = small.logits(&ids, &takes);
        let rows: Vec<&[f64]> = logits.chunks_exact(VOCABULARY).collect();
        let best =
            |row: &[f64]| (0..VOCABULARY).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary");
        if ids.len() == prompt.ids.len() {
            let log_sum = |row: &[f64]| row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let terms = rows.iter().zip(&ids[1..]).map(|(row, &next)| log_sum(row) - row[next as usize]);
            nll = terms.sum::<f64>() / (ids.len() - 1) as f64;
            let last = rows.last().expect("a prompt");
            first = last[best(last)];
        }
        ids.push(best(rows.last().expect("a prompt")) as u32);
    }
    (nll, first, ids.split_off(prompt.ids.len()))
}

#[test]
fn llama_and_opt_from_folders_say_what_their_definition_says() {
    for opt in [false, true] {
        let small = Small::new(opt);
        let prompts: Vec<Prompt> =
            [vec![1, 2, 3, 40, 0, 7, 7], vec![5], vec![9; 11]].map(|ids| Prompt { ids, most: 6 }).into();
        for (dtype, shards) in [(Dtype::F32, 1), (Dtype::F16, 2), (Dtype::BF16, 3)] {
            let folder = tempfile::tempdir().expect("a folder");
            small.write(folder.path(), dtype, shards);
            for (skip, policy) in [(false, Policy::Aligned), (true, Policy::Hop), (true, Policy::DenseMasked)]
            {
                let takes = |layer: usize| !(skip && layer == 1);
                let route = Route::of_layers((0..3).filter(|&layer| takes(layer as usize)));
                let routing = Routing::Fixed(route, KvAction::None);
                let Some(answers) = answers(folder.path(), &prompts, routing, policy) else { return };
                for (prompt, answer) in prompts.iter().zip(&answers) {
                    let (nll, first, ids) = naive(&small, prompt, takes);
                    assert_eq!(answer.ids, ids, "opt {opt}, {dtype:?}, {}", policy.name());
                    assert!((f64::from(answer.first[0].1) - first).abs() <= 1e-4 * first.abs().max(1.0));
                    if prompt.ids.len() > 1 {
                        assert!((answer.nll.expect("asked for") - nll).abs() <= 1e-4 * nll.abs().max(1.0));
                    }
                }
            }
        }
    }
}
