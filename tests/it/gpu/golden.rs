//! A model that does not say what it says elsewhere: SmolLM2 against an independent f32 engine.

use radialsim::batch::Policy;
use radialsim::gpu::{Executor, ExecutorOptions, GenerationSettings, Prompt, Routing, TokenSampling};
use radialsim::weights::Checkpoint;

#[derive(serde::Deserialize)]
pub struct Golden {
    pub prompt_ids: Vec<u32>,
    last_top5: Vec<(u32, f64)>,
    pub greedy_ids: Vec<u32>,
    nll_prompt: f64,
}

pub fn golden() -> Option<(Executor, Vec<Golden>)> {
    let (path, golden) = (crate::smollm2()?, crate::data("golden/smollm2_dense.jsonl")?);
    let gpu = crate::gpu()?;
    let lines = std::fs::read_to_string(golden).expect("a readable file");
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("a golden line")).collect();
    let checkpoint = Checkpoint::open(path).expect("a valid file");
    let options = ExecutorOptions { positions: 512, ..ExecutorOptions::default() };
    Some((Executor::new(gpu, &checkpoint, options).expect("a model that fits"), lines))
}

fn settings(executor: &Executor) -> GenerationSettings {
    GenerationSettings {
        routing: Routing::dense(executor.model().layers),
        policy: Policy::Aligned,
        visibility: Default::default(),
        sampling: None,
        end_ids: vec![2],
        prompt_logits: true,
        timed: false,
    }
}

#[test]
fn dense_smollm2_says_what_the_golden_engine_says() {
    let Some((mut executor, lines)) = golden() else { return };
    let settings = settings(&executor);
    let prompts: Vec<Prompt> =
        lines.iter().map(|line| Prompt { ids: line.prompt_ids.clone(), most: 96 }).collect();
    let together = executor.generate(&prompts, &settings, &mut ()).expect("a run");
    for (line, answer) in lines.iter().zip(&together.answers) {
        let scale = line.last_top5.iter().map(|(_, logit)| logit.abs()).fold(0.0, f64::max);
        for ((wanted_id, wanted), (id, logit)) in line.last_top5.iter().zip(&answer.first) {
            assert_eq!(wanted_id, id);
            assert!((wanted - f64::from(*logit)).abs() <= 1e-4 * scale, "{wanted} {logit}");
        }
        assert!((answer.nll.expect("asked for") - line.nll_prompt).abs() <= 1e-4);
        assert_eq!(answer.ids, line.greedy_ids);
    }
}

#[test]
fn one_by_one_says_the_same_as_all_at_once() {
    let Some((mut executor, lines)) = golden() else { return };
    let settings = GenerationSettings { prompt_logits: false, ..settings(&executor) };
    let prompts: Vec<Prompt> =
        lines.iter().map(|line| Prompt { ids: line.prompt_ids.clone(), most: 24 }).collect();
    let together = executor.generate(&prompts, &settings, &mut ()).expect("a run");
    for ((prompt, line), all) in prompts.iter().zip(&lines).zip(&together.answers) {
        let alone = executor.generate(std::slice::from_ref(prompt), &settings, &mut ()).expect("a run");
        assert_eq!(alone.answers[0].ids, all.ids);
        assert_eq!(all.ids, line.greedy_ids[..all.ids.len()]);
    }
}

#[test]
fn draws_among_the_likeliest_follow_the_seed() {
    let Some((mut executor, lines)) = golden() else { return };
    let prompts = [Prompt { ids: lines[1].prompt_ids.clone(), most: 8 }];
    let mut draw = |top, temperature, seed| {
        let sampling = Some(TokenSampling { top, temperature, seed });
        let settings = GenerationSettings { sampling, prompt_logits: false, ..settings(&executor) };
        executor.generate(&prompts, &settings, &mut ()).map(|run| run.answers[0].ids.clone())
    };
    let hot = draw(5, 2.0, 1).expect("a run");
    assert_eq!(hot, draw(5, 2.0, 1).expect("a run"));
    assert!((2..6).any(|seed| draw(5, 2.0, seed).expect("a run") != hot), "another seed draws otherwise");
    for (top, temperature) in [(1, 2.0), (5, 1e-4)] {
        assert_eq!(draw(top, temperature, 3).expect("a run"), lines[1].greedy_ids[..8]);
    }
    for (top, temperature) in [(0, 1.0), (6, 1.0), (5, 0.0), (5, f64::NAN)] {
        assert_eq!(draw(top, temperature, 3).expect_err("no such draw").exit_code(), 2);
    }
}
