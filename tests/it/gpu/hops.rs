//! Routers that send tokens elsewhere than their weights say: decided by the host and by the device, against a naive walk.

use crate::small_models::{HIDDEN, LAYERS, Small, VOCABULARY};
use radialsim::batch::{Decisions, Policy};
use radialsim::gpu::{
    Executor, ExecutorOptions, Generated, GenerationSettings, GenerationWatch, Pass, PassOutcome, Prompt,
    RouterMlp, Routing,
};
use radialsim::kernel::{Density, Kernel};
use radialsim::lower::{Dispatch, Graph, Lowering, RouterPlan};
use radialsim::model::Model;
use radialsim::reference::{self, RouterWeights};
use radialsim::rng::Stream;
use radialsim::trace::RouterDevice;
use radialsim::weights::Checkpoint;
use safetensors::Dtype;

fn router(hidden: usize, most_hops: u32, device: RouterDevice) -> RouterMlp {
    let mut random = Stream::new(11, "router");
    let mut values = |count: usize| (0..count).map(|_| (2.0 * random.uniform() - 1.0) as f32).collect();
    let inside = if hidden == 0 { HIDDEN } else { hidden };
    let (first, second) = (values(hidden * HIDDEN), values((LAYERS + 1) * inside));
    RouterMlp { hidden: hidden as u32, first, second, most_hops, device }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// The layer that a router names, or the exit.
fn named(router: &RouterMlp, x: &[f64]) -> Option<usize> {
    let (first, second) = (wide(&router.first), wide(&router.second));
    let weights = match router.hidden {
        0 => RouterWeights::Linear(&second[..]),
        hidden => RouterWeights::Mlp { hidden: hidden as usize, first: &first, second: &second },
    };
    let choice = reference::router(1, HIDDEN, LAYERS + 1, x, weights)[0] as usize;
    (choice < LAYERS).then_some(choice)
}

/// Kernels of a pass besides the router's are those of the lowering of the routes that came of it.
pub struct AsLowered<'a>(pub &'a Model, pub bool);

impl GenerationWatch for AsLowered<'_> {
    fn pass(
        &mut self,
        pass: &Pass,
        outcome: &PassOutcome,
        _: &[(usize, u32, bool)],
    ) -> radialsim::error::Result<()> {
        let is_router = |kernel: &Kernel| matches!(kernel, Kernel::Router { .. });
        let ran: Vec<Kernel> =
            outcome.kernels.iter().map(|done| done.kernel).filter(|kernel| !is_router(kernel)).collect();
        let dispatch = Dispatch {
            policy: pass.policy,
            capture: Vec::new(),
            visibility: pass.visibility,
            nested_width: false,
            density: Density::Dense,
            router: RouterPlan::FREE,
            monotone: false,
            decisions: Decisions::Known,
        };
        let mut graph = Graph::default();
        Lowering::new(self.0, dispatch).lower(pass.batch, pass.contexts, pass.paths, &mut graph);
        let lowered: Vec<Kernel> = graph.kernels().map(|(_, kernel)| *kernel).collect();
        if self.1 {
            assert_eq!(ran, lowered, "{}", pass.policy.name());
        }
        Ok(())
    }
}

fn run(executor: &mut Executor, prompts: &[Prompt], router: &RouterMlp, policy: Policy) -> Generated {
    let settings = GenerationSettings {
        routing: Routing::Router(Box::new(router.clone())),
        policy,
        visibility: Default::default(),
        sampling: None,
        end_ids: vec![],
        prompt_logits: false,
        timed: false,
    };
    let model = executor.model().clone();
    let host = router.device == RouterDevice::Host;
    executor.generate(prompts, &settings, &mut AsLowered(&model, host)).expect("a run")
}

#[test]
fn a_router_sends_tokens_where_a_naive_walk_goes() {
    for opt in [false, true] {
        let small = Small::new(opt);
        let folder = tempfile::tempdir().expect("a folder");
        small.write(folder.path(), Dtype::F32, 1);
        let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
        let Some(gpu) = crate::gpu() else { return };
        let options = ExecutorOptions { positions: 40, ..ExecutorOptions::default() };
        let mut executor = Executor::new(gpu, &checkpoint, options).expect("a model that fits");
        let prompts: Vec<Prompt> =
            [vec![1, 2, 3, 40, 0], vec![5], vec![9; 3]].map(|ids| Prompt { ids, most: 4 }).into();
        let (mut again, mut back, mut out) = (0, 0, 0);
        for (hidden, most_hops) in [(0, 6), (8, 1), (12, 5)] {
            let wanted: Vec<(Vec<u32>, Vec<Vec<usize>>)> = prompts
                .iter()
                .map(|prompt| {
                    let mut ids = prompt.ids.clone();
                    let router = router(hidden, most_hops, RouterDevice::Gpu);
                    let mut routes = Vec::new();
                    for _ in 0..prompt.most {
                        let (logits, taken) = small.walk(&ids, |_, hop, x| {
                            (hop < most_hops as usize).then(|| named(&router, x)).flatten()
                        });
                        let last = &logits[logits.len() - VOCABULARY..];
                        ids.push(reference::sample(1, VOCABULARY, last)[0]);
                        routes = taken;
                    }
                    (ids.split_off(prompt.ids.len()), routes)
                })
                .collect();
            for (device, policy) in [
                (RouterDevice::Host, Policy::Hop),
                (RouterDevice::Host, Policy::Grouped),
                (RouterDevice::Gpu, Policy::Grouped),
            ] {
                let generated = run(&mut executor, &prompts, &router(hidden, most_hops, device), policy);
                let trace = &generated.trace;
                for ((answer, request), (ids, routes)) in
                    generated.answers.iter().zip(&trace.requests).zip(&wanted)
                {
                    let taken: Vec<Vec<usize>> = (request.runs.iter())
                        .flat_map(|run| run.routes.iter())
                        .map(|id| trace.routes.get(id).0.iter().map(|step| step.layer as usize).collect())
                        .collect();
                    assert_eq!(&taken, routes, "hidden {hidden}, {device:?}");
                    assert_eq!(&answer.ids, ids);
                    for route in &taken {
                        again += usize::from((1..route.len()).any(|at| route[..at].contains(&route[at])));
                        back += usize::from(route.windows(2).any(|pair| pair[1] < pair[0]));
                        out += usize::from(route.len() < most_hops as usize);
                    }
                }
            }
        }
        assert!(again > 0 && back > 0 && out > 0, "the routes are of every kind: {again} {back} {out}");
    }
}

/// The library would keep the last of two matrices with one name.
#[test]
fn a_router_names_each_matrix_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("router.safetensors");
    let said = |entries: &[&str]| {
        let header = format!("{{{}}}", entries.join(","));
        let data = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
        std::fs::write(&path, bytes).expect("a writable folder");
        RouterMlp::read(&path, 4, RouterDevice::Host).map_err(|error| error.to_string())
    };
    let of =
        |shape: &str| format!("\"second\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,16]}}");
    assert_eq!(said(&[&of("[2,2]")]).expect("a router").second, [1.0, 2.0, 3.0, 4.0]);
    let twice = said(&[&of("[4,1]"), &of("[2,2]")]).expect_err("a refusal");
    assert!(twice.ends_with("router.safetensors: second: expected each tensor once"), "{twice}");
}
