//! Routes that are not followed, or kernels that the simulator does not know: real routes on real weights, pass by pass
//! against the lowering of the same batches.

use radialsim::batch::{Context, Decisions, Paths, Policy, Visibility};
use radialsim::error::Result;
use radialsim::gpu::{
    Executor, Generated, GenerationSettings, GenerationWatch, Oracle, Pass, PassOutcome, Prompt, Ratio,
    Routing,
};
use radialsim::kernel::{Attention, Density, Kernel};
use radialsim::lower::{Cause, Dispatch, Graph, Lowering, RouterPlan};
use radialsim::model::Model;
use radialsim::trace::{KvAction, Route, Trace, read};

pub const POLICIES: [Policy; 4] = [Policy::DenseMasked, Policy::Aligned, Policy::Hop, Policy::Grouped];

/// Lowers every pass as the simulator does and holds its kernels against those that ran.
pub struct AsLowered<'a> {
    pub model: &'a Model,
    pub passes: u32,
    pub kernels: u64,
}

impl GenerationWatch for AsLowered<'_> {
    fn pass(&mut self, pass: &Pass, outcome: &PassOutcome, _rows: &[(usize, u32, bool)]) -> Result<()> {
        let dispatch = Dispatch {
            policy: pass.policy,
            capture: Vec::new(),
            visibility: pass.visibility,
            nested_width: false,
            density: Density::Dense,
            router: RouterPlan::FREE,
            monotone: pass.monotone,
            decisions: Decisions::Known,
        };
        let mut graph = Graph::default();
        Lowering::new(self.model, dispatch).lower(pass.batch, pass.contexts, pass.paths, &mut graph);
        let lowered: Vec<(Cause, u16, Kernel)> =
            graph.kernels().map(|(call, kernel)| (call.cause, call.layer, *kernel)).collect();
        let ran: Vec<(Cause, u16, Kernel)> =
            outcome.kernels.iter().map(|done| (done.cause, done.layer, done.kernel)).collect();
        // A window is so many positions, and a lowering knows how many entries there are, not whose: where tokens passed layers by, it
        // takes them as spread evenly, and shapes alone are compared.
        let layers = self.model.layers as usize;
        let whole = |context: &Context| {
            (0..layers as u16)
                .all(|layer| context.seen(layer, Visibility::SameLayer) == u64::from(context.tokens()))
        };
        let holes = !pass.contexts.iter().all(whole)
            || pass.batch.paths.iter().any(|&path| pass.paths.get(path).hops.len() != layers);
        let windows = holes && self.model.kinds.iter().any(|kind| kind.window.is_some());
        // Tokens that pass again are counted as if they saw what later ones left, too.
        let again = pass.batch.paths.iter().any(|&path| Paths::is_again(path));
        let shape = |(cause, layer, kernel): (Cause, u16, Kernel)| match kernel {
            Kernel::Attention(shape) if windows || again => {
                (cause, layer, Kernel::Attention(Attention { pairs: 0, entries: 0, ..shape }))
            }
            _ => (cause, layer, kernel),
        };
        for (index, (&ran, &lowered)) in ran.iter().zip(&lowered).enumerate() {
            if let (Kernel::Attention(ran), Kernel::Attention(lowered)) = (ran.2, lowered.2) {
                assert!(windows || (ran.pairs <= lowered.pairs && ran.entries <= lowered.entries));
            }
            let (ran, lowered) = (shape(ran), shape(lowered));
            assert_eq!(ran, lowered, "kernel {index} of pass {} under {}", self.passes, pass.policy.name());
        }
        assert_eq!(ran.len(), lowered.len());
        self.passes += 1;
        self.kernels += ran.len() as u64;
        Ok(())
    }
}

fn settings(routing: Routing, policy: Policy) -> GenerationSettings {
    GenerationSettings {
        routing,
        policy,
        visibility: Default::default(),
        sampling: None,
        end_ids: vec![2],
        prompt_logits: false,
        timed: false,
    }
}

fn run(executor: &mut Executor, prompts: &[Prompt], settings: &GenerationSettings) -> Generated {
    let model = executor.model().clone();
    let mut watch = AsLowered { model: &model, passes: 0, kernels: 0 };
    let generated = executor.generate(prompts, settings, &mut watch).expect("a run");
    assert!(watch.passes > 0 && watch.kernels > 0);
    generated
}

/// Routes of each request's tokens, as text.
fn steps(trace: &Trace) -> Vec<Vec<String>> {
    let text = |id: u32| trace.routes.get(id).to_string();
    let of = |request: &radialsim::trace::Request| {
        request.runs.iter().flat_map(|run| run.routes.iter()).map(text).collect()
    };
    trace.requests.iter().map(of).collect()
}

fn recorded(name: &str) -> Option<Trace> {
    crate::data(name).map(|path| read(path).expect("a valid trace"))
}

#[test]
fn oracle_thresholds_give_the_recorded_routes_back() {
    let (Some((mut executor, lines)), Some(skip25)) =
        (crate::gpu::golden::golden(), recorded("traces/smollm2-skip25.jsonl"))
    else {
        return;
    };
    let oracle = Oracle { attention: 0.125, feed_forward: 0.21, ratio: Ratio::OverOutput, always: vec![0] };
    let prompts: Vec<Prompt> = (lines.iter().zip(&skip25.requests))
        .map(|(line, request)| Prompt { ids: line.prompt_ids.clone(), most: request.output_tokens })
        .collect();
    let generated = run(&mut executor, &prompts, &settings(Routing::Oracle(oracle), Policy::DenseMasked));
    let (ours, theirs) = (steps(&generated.trace), steps(&skip25));
    let (mut same, mut all, mut prompts_same) = (0, 0, 0);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        // The recorded file has no ids of generated tokens: lengths tell the first difference at the latest.
        let before = ours.iter().zip(theirs).take_while(|(a, b)| shared(a, b) > 0.8).count();
        for (ours, theirs) in ours.iter().zip(theirs).take(before) {
            let (a, b) = (ours.split(' ').collect::<Vec<_>>(), theirs.split(' ').collect::<Vec<_>>());
            same += a.iter().filter(|step| b.contains(step)).count();
            all += a.len().max(b.len());
        }
        prompts_same += usize::from(before == theirs.len().min(ours.len()));
    }
    eprintln!("{same} of {all} steps, {prompts_same} of {} requests to the end", theirs.len());
    assert!(same as f64 >= 0.99 * all as f64, "{same} of {all}");
}

/// Share of steps that two routes have in common.
fn shared(a: &str, b: &str) -> f64 {
    let (a, b) = (a.split(' ').collect::<Vec<_>>(), b.split(' ').collect::<Vec<_>>());
    a.iter().filter(|step| b.contains(step)).count() as f64 / a.len().max(b.len()) as f64
}

#[test]
fn every_policy_says_the_same_for_the_same_routes() {
    let (Some((mut executor, lines)), Some(skip25)) =
        (crate::gpu::golden::golden(), recorded("traces/smollm2-skip25.jsonl"))
    else {
        return;
    };
    let mut short = skip25.clone();
    short.requests.truncate(4);
    let prompts: Vec<Prompt> =
        lines.iter().take(4).map(|line| Prompt { ids: line.prompt_ids.clone(), most: 6 }).collect();
    let mut first: Option<Generated> = None;
    for kv in [KvAction::ProjectOnly, KvAction::None, KvAction::CopyState, KvAction::Share] {
        short.header.kv = kv;
        for policy in POLICIES {
            let routing = Routing::Replay(Box::new(short.clone()));
            let generated = run(&mut executor, &prompts, &settings(routing, policy));
            for (ours, theirs) in steps(&generated.trace).iter().zip(steps(&short)) {
                assert_eq!(ours[..], theirs[..ours.len()], "replay visits the recorded steps");
            }
            if let Some(first) = first.as_ref().filter(|first| first.trace.header.kv == kv) {
                for (a, b) in first.answers.iter().zip(&generated.answers) {
                    assert_eq!(a.ids, b.ids, "{}", policy.name());
                    let scale = a.first[0].1.abs();
                    let near = a.first.iter().zip(&b.first).all(|(a, b)| (a.1 - b.1).abs() <= 1e-4 * scale);
                    assert!(near, "{}: {:?} {:?}", policy.name(), a.first, b.first);
                }
            } else {
                first = Some(generated);
            }
        }
    }
}

#[test]
fn a_layer_that_nobody_visits_is_not_run() {
    let Some((mut executor, lines)) = crate::gpu::golden::golden() else { return };
    let route = Route::of_layers((0..30).filter(|layer| layer % 7 != 3));
    let prompts: Vec<Prompt> =
        lines.iter().take(2).map(|line| Prompt { ids: line.prompt_ids.clone(), most: 3 }).collect();
    for kv in [KvAction::None, KvAction::ProjectOnly] {
        for policy in POLICIES {
            run(&mut executor, &prompts, &settings(Routing::Fixed(route.clone(), kv), policy));
        }
    }
}

#[test]
fn layers_in_any_order_and_again() {
    let Some((mut executor, lines)) = crate::gpu::golden::golden() else { return };
    let route = Route::of_layers([4, 1, 7, 7, 2, 29]);
    let prompts = [Prompt { ids: lines[0].prompt_ids[..9].to_vec(), most: 3 }];
    let mut said = Vec::new();
    for policy in [Policy::Hop, Policy::Grouped, Policy::DenseMasked] {
        let routing = Routing::Fixed(route.clone(), KvAction::Write);
        said.push(run(&mut executor, &prompts, &settings(routing, policy)).answers[0].ids.clone());
    }
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:?}");
}
