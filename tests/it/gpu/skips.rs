//! Skip routers: decided by the device and by the host, against a replay of the routes that they took and against naive scores.

use crate::small_models::{HIDDEN, LAYERS, Small};
use radialsim::batch::Policy;
use radialsim::gpu::{Executor, ExecutorOptions, Generated, GenerationSettings, Prompt, Routing, Skips};
use radialsim::rng::Stream;
use radialsim::trace::RouterDevice;
use radialsim::weights::{Checkpoint, SkipDescription, SkipKv, SkipRouter};
use safetensors::Dtype;

/// A router of random weights; the first layer is not decided, of the second only the feed-forward branch.
pub fn router(seed: u64, kv: SkipKv) -> SkipRouter {
    let mut random = Stream::new(seed, "skips");
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
    let hidden = 8;
    let mut candidates = vec![[true; 2]; LAYERS];
    candidates[0] = [false; 2];
    candidates[1] = [false, true];
    let described = SkipDescription { kind: "skip".into(), model: "small".into(), kv, candidates };
    SkipRouter {
        described,
        layers: LAYERS as u32,
        width: HIDDEN as u32,
        hidden,
        first: values(hidden as usize * HIDDEN),
        vectors: values(LAYERS * hidden as usize),
        second: values(LAYERS * 2 * hidden as usize),
        biases: values(LAYERS * 2),
    }
}

/// The likeliest token each time, up to the most that are asked for, with likelihoods of the prompt.
pub fn settings(routing: Routing, policy: Policy) -> GenerationSettings {
    GenerationSettings {
        routing,
        policy,
        visibility: Default::default(),
        sampling: None,
        end_ids: vec![],
        prompt_logits: true,
        timed: false,
    }
}

pub fn run(executor: &mut Executor, prompts: &[Prompt], routing: Routing, policy: Policy) -> Generated {
    executor.generate(prompts, &settings(routing, policy), &mut ()).expect("a run")
}

#[test]
fn both_ways_take_the_same_routes_and_say_what_their_replay_says() {
    let small = Small::new(false);
    let folder = tempfile::tempdir().expect("a folder");
    small.write(folder.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
    let Some(gpu) = crate::gpu() else { return };
    let options = ExecutorOptions { positions: 40, ..ExecutorOptions::default() };
    let mut executor = Executor::new(gpu, &checkpoint, options).expect("a model that fits");
    let prompts: Vec<Prompt> =
        [vec![1, 2, 3, 40, 0, 7, 9, 9], vec![5], vec![9; 3]].map(|ids| Prompt { ids, most: 5 }).into();
    let dense = run(&mut executor, &prompts, Routing::dense(LAYERS as u32), Policy::Aligned);
    let mut changed = 0;
    for seed in 0..6 {
        let mut before: Option<Generated> = None;
        for (device, policy, kv) in [
            (RouterDevice::Host, Policy::Aligned, SkipKv::None),
            (RouterDevice::Host, Policy::Aligned, SkipKv::ProjectOnly),
            (RouterDevice::Gpu, Policy::DenseMasked, SkipKv::ProjectOnly),
        ] {
            let router = router(seed, kv);
            let routing = Routing::Skips(Box::new(Skips { router, device }));
            let said = run(&mut executor, &prompts, routing, policy);
            let replay = Routing::Replay(Box::new(said.trace.clone()));
            let again = run(&mut executor, &prompts, replay, Policy::Aligned);
            for ((one, other), dense) in said.answers.iter().zip(&again.answers).zip(&dense.answers) {
                assert_eq!(one.ids, other.ids, "{seed} {device:?} {kv:?}");
                let (one, other) = (one.nll.unwrap_or_default(), other.nll.unwrap_or_default());
                assert!((one - other).abs() < 1e-5, "{seed} {device:?} {kv:?}: {one} {other}");
                let dense = dense.nll.unwrap_or_default();
                changed += usize::from((one - dense).abs() > 1e-4);
            }
            if let Some(before) = before.filter(|_| device == RouterDevice::Gpu) {
                let routes = |said: &Generated| -> Vec<Vec<_>> {
                    let all = said.trace.requests.iter().flat_map(|request| &request.runs);
                    let ids = all.flat_map(|run| run.routes.iter());
                    ids.map(|id| said.trace.routes.get(id).0.to_vec()).collect()
                };
                assert_eq!(routes(&before), routes(&said), "{seed}");
            }
            before = Some(said);
        }
    }
    assert!(changed > 20, "leaving out changes what is said: {changed} of 36");
}

/// The router that ships is one for SmolLM2-135M, and the trace that ships is what it decided: only branches that it may leave out are left out.
#[test]
fn the_router_that_ships_fits_its_trace() {
    let path = std::path::Path::new("examples/routers/smollm2-skip-27.safetensors");
    let router = SkipRouter::read(path).expect("a whole file").expect("a router");
    router.check(30, 576).expect("for SmolLM2-135M");
    let trace = radialsim::trace::read(std::path::Path::new("examples/traces/smollm2-trained-27.jsonl"))
        .expect("a trace");
    let mut left_out = 0;
    for route in trace.routes.iter() {
        for (layer, candidates) in router.described.candidates.iter().enumerate() {
            let step = route.0.iter().find(|step| step.layer as usize == layer);
            let taken =
                step.map_or([false; 2], |step| [step.modules.attention(), step.modules.feed_forward()]);
            for branch in 0..2 {
                assert!(taken[branch] || candidates[branch], "{layer} {branch}");
                left_out += u32::from(!taken[branch]);
            }
        }
    }
    assert!(left_out > 0);
}
