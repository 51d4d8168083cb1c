//! What goes wrong on a device: one clear error each, with the right exit code, and limits that split what they do not refuse.

use crate::small_models::Small;
use radialsim::batch::{Policy, Visibility};
use radialsim::error::Error;
use radialsim::gpu::{
    ExecutedKernel, Executor, ExecutorOptions, GenerationSettings, GenerationWatch, Gpu, Oracle, Pass,
    PassOutcome, Prompt, Ratio, Recording, Routing, shaders,
};
use radialsim::kernel::Kernel;
use radialsim::trace::{Header, KvAction, Request, Role, Route, RouteTable, Trace};
use radialsim::weights::Checkpoint;
use safetensors::Dtype;

fn small() -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(false).write(folder.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
    (folder, checkpoint)
}

fn settings(routing: Routing, policy: Policy) -> GenerationSettings {
    GenerationSettings {
        routing,
        policy,
        visibility: Default::default(),
        sampling: None,
        end_ids: vec![],
        prompt_logits: false,
        timed: true,
    }
}

/// Kernels and commands of a run.
#[derive(Default)]
struct Count {
    kernels: u32,
    dispatches: u32,
    /// Samplers, which take two dispatches.
    samplers: u32,
}

impl GenerationWatch for Count {
    fn pass(
        &mut self,
        _: &Pass,
        outcome: &PassOutcome,
        _: &[(usize, u32, bool)],
    ) -> radialsim::error::Result<()> {
        self.kernels += outcome.kernels.len() as u32;
        let sampler = |done: &&ExecutedKernel| matches!(done.kernel, Kernel::Sample { .. });
        self.samplers += outcome.kernels.iter().filter(sampler).count() as u32;
        self.dispatches += outcome.dispatches;
        Ok(())
    }
}

fn prompt(ids: &[u32], most: u32) -> Prompt {
    Prompt { ids: ids.to_vec(), most }
}

#[test]
fn an_adapter_that_is_not_there_is_named() {
    let error = Gpu::open(Some("no such adapter")).expect_err("nobody calls an adapter this");
    assert_eq!(error.exit_code(), 3);
    let said = error.to_string();
    assert!(said.contains("no such adapter") || said.contains("finds no adapter"), "{said}");
}

#[test]
fn a_lost_device_is_reported_and_stays_lost() {
    let Some(gpu) = crate::gpu() else { return };
    let (_folder, checkpoint) = small();
    let mut executor =
        Executor::new(gpu, &checkpoint, ExecutorOptions::default()).expect("a model that fits");
    let settings = settings(Routing::dense(3), Policy::Aligned);
    executor.generate(&[prompt(&[1, 2], 2)], &settings, &mut ()).expect("a run");
    executor.gpu().destroy();
    for _ in 0..2 {
        let error = executor.generate(&[prompt(&[1, 2], 2)], &settings, &mut ()).expect_err("a lost device");
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}

#[test]
fn small_buffers_split_a_model_and_change_nothing() {
    let (Some(whole), Some(split)) = (crate::gpu(), crate::gpu()) else { return };
    let (_folder, checkpoint) = small();
    // A layer's feed-forward inputs take 6,912 bytes, embedding and head 9,312, the KV entries of a layer of both sequences 1,600.
    let split = split.with_buffer_limit(8000);
    let options = ExecutorOptions { pass_tokens: 8, positions: 40, ..ExecutorOptions::default() };
    let mut executors =
        [whole, split].map(|gpu| Executor::new(gpu, &checkpoint, options).expect("a model that fits"));
    let prompts = [prompt(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 5), prompt(&[4], 9)];
    for policy in [Policy::Aligned, Policy::DenseMasked, Policy::Grouped, Policy::Hop] {
        for route in [Route::dense(3), Route::of_layers([0, 2]), Route::of_layers([2, 0, 2])] {
            let ordered = route.0.windows(2).all(|pair| pair[0].layer < pair[1].layer);
            if !ordered && policy == Policy::Aligned {
                continue;
            }
            let routing = Routing::Fixed(route, KvAction::Write);
            let mut counts = [Count::default(), Count::default()];
            let mut runs = executors.iter_mut().zip(&mut counts).map(|(executor, count)| {
                executor.generate(&prompts, &settings(routing.clone(), policy), count).expect("a run")
            });
            let runs = [runs.next(), runs.next()].map(|run| run.expect("there are two"));
            assert_eq!(runs[0].answers[0].ids, runs[1].answers[0].ids);
            assert_eq!(runs[0].answers[1].ids, runs[1].answers[1].ids);
            // One dispatch a kernel, but for the sampler, and for weights and entries that lie in several buffers.
            let least = counts.each_ref().map(|count| count.kernels + count.samplers);
            assert_eq!(counts[0].dispatches, least[0]);
            assert!(counts[1].dispatches > least[1]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_size() {
    let Some(gpu) = crate::gpu() else { return };
    let (_folder, checkpoint) = small();
    let error = Executor::new(gpu.with_buffer_limit(2000), &checkpoint, ExecutorOptions::default())
        .expect_err("too small");
    assert!(matches!(error, Error::Input(_) | Error::Gpu(_)), "{error}");
    assert!(error.to_string().contains("2000"), "{error}");

    let Some(gpu) = crate::gpu() else { return };
    let mut executor = Executor::new(
        gpu.with_buffer_limit(100_000),
        &checkpoint,
        ExecutorOptions { positions: 40, ..ExecutorOptions::default() },
    )
    .expect("fits");
    let error = executor.begin(&[1000, 2000]).expect_err("too many entries");
    assert!(error.to_string().contains("KV cache") && error.exit_code() == 2, "{error}");
}

#[test]
fn workgroups_that_a_device_does_not_take_are_refused() {
    let Some(gpu) = crate::gpu() else { return };
    let error = gpu.pipeline(shaders::RMS_NORM, &[("WORKGROUP", 1e6)]).expect_err("too large");
    assert!(error.to_string().contains("1000000") && error.exit_code() == 3, "{error}");
    gpu.submit(&Recording::default()).expect("the device still works");
}

#[test]
fn runs_that_cannot_be_are_refused() {
    let Some(gpu) = crate::gpu() else { return };
    let (_folder, checkpoint) = small();
    let mut executor =
        Executor::new(gpu, &checkpoint, ExecutorOptions { positions: 40, ..ExecutorOptions::default() })
            .expect("fits");
    let fixed = |steps: &str, kv| Routing::Fixed(Route::parse(steps).expect("a route"), kv);
    let oracle = Oracle { attention: 0.1, feed_forward: 0.1, ratio: Ratio::OverInput, always: vec![] };
    let dense = || Routing::dense(3);
    let ids: &[u32] = &[1, 2, 3];
    let free = || fixed("2 0", KvAction::Write);
    let cases: [(Routing, Policy, &[u32], u32, &str); 11] = [
        (dense(), Policy::Aligned, &[], 2, "at least one token"),
        (dense(), Policy::Aligned, ids, 0, "at least one to generate"),
        (dense(), Policy::Aligned, ids, 39, "at most 40 tokens"),
        (dense(), Policy::Aligned, &[97], 2, "an id below 97"),
        (fixed("0 3", KvAction::Write), Policy::Aligned, ids, 2, "3"),
        (fixed("0 1x", KvAction::Write), Policy::Aligned, ids, 2, "adapter"),
        (fixed("0 1@0.5", KvAction::Write), Policy::Aligned, ids, 2, "width"),
        (fixed("1 2", KvAction::Share), Policy::Aligned, ids, 2, "`share` at layer 0"),
        (free(), Policy::Aligned, ids, 2, "ascend"),
        (Routing::Oracle(oracle), Policy::Aligned, ids, 2, "dense_masked"),
        (dense(), Policy::Queued { full: 4, wait_us: 1.0, hold: Default::default() }, ids, 2, "queued"),
    ];
    for (routing, policy, ids, most, part) in cases {
        let error =
            executor.generate(&[prompt(ids, most)], &settings(routing, policy), &mut ()).expect_err(part);
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(part), "no {part:?} in: {error}");
    }
    // Entries of other layers are seen in a cache that is one for all, and steps leave their own.
    for (routing, visibility, part) in [
        (dense(), Visibility::OnePerToken, "one_per_token with write"),
        (fixed("0 1", KvAction::ProjectOnly), Visibility::AllEntries, "all_entries with project_only"),
        (fixed("0 1!share", KvAction::Unified), Visibility::OnePerToken, "leave their own entry"),
        (fixed("0 1f!project_only", KvAction::Unified), Visibility::AllEntries, "leave their own entry"),
    ] {
        let settings = GenerationSettings { visibility, ..settings(routing, Policy::Hop) };
        let error = executor.generate(&[prompt(ids, 2)], &settings, &mut ()).expect_err(part);
        assert!(error.to_string().contains(part) && error.exit_code() == 2, "no {part:?} in: {error}");
    }
}

/// Tokens that see entries of other layers need them in one buffer; drafts are tokens that may be taken back.
#[test]
fn what_is_not_executed_is_refused_by_name() {
    let Some(gpu) = crate::gpu() else { return };
    let (_folder, checkpoint) = small();
    let options = ExecutorOptions { pass_tokens: 8, positions: 40, ..ExecutorOptions::default() };
    let mut executor = Executor::new(gpu.with_buffer_limit(8000), &checkpoint, options).expect("fits");
    let share = Routing::Fixed(Route::of_layers([0, 1]), KvAction::Share);
    // Entries of a sequence take 7,296 bytes.
    let prompts = [(); 2].map(|()| prompt(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 30));
    let error =
        executor.generate(&prompts, &settings(share, Policy::Hop), &mut ()).expect_err("several buffers");
    assert!(error.to_string().contains("in one buffer") && error.exit_code() == 2, "{error}");

    let mut routes = RouteTable::default();
    let dense = routes.intern(Route::dense(3));
    let mut request = Request::plain(0, &[dense; 3], 3, &[dense; 2]);
    for role in [Role::Draft, Role::Verify] {
        request.runs[1].role = role;
        let header = Header::dense("small", 3);
        let trace = Trace { header, routes: routes.clone(), requests: vec![request.clone()] };
        let routing = Routing::Replay(Box::new(trace));
        let settings = settings(routing, Policy::Aligned);
        let error = executor.generate(&[prompt(&[1, 2, 3], 3)], &settings, &mut ()).expect_err("a role");
        assert!(error.to_string().contains("role: found") && error.exit_code() == 2, "{error}");
    }
}

/// A branch that is no number is not left out, and the error says where such numbers began.
#[test]
fn numbers_that_are_not_finite_end_a_run_and_are_placed() {
    let oracle = Oracle { attention: 0.1, feed_forward: 0.1, ratio: Ratio::OverOutput, always: vec![0] };
    let pruned = Routing::Fixed(Route::of_layers([0, 2]), KvAction::None);
    for (array, place) in [
        ("model.layers.1.mlp.down_proj.weight", "behind the feed-forward branch of layer 1"),
        ("model.layers.2.self_attn.o_proj.weight", "behind the attention branch of layer 2"),
        ("model.norm.weight", "in the head"),
    ] {
        let mut model = Small::new(false);
        model.spoil(array);
        let folder = tempfile::tempdir().expect("a folder");
        model.write(folder.path(), Dtype::F32, 1);
        let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
        let Some(gpu) = crate::gpu() else { return };
        let mut executor =
            Executor::new(gpu, &checkpoint, ExecutorOptions::default()).expect("a model that fits");
        for (routing, policy) in [
            (Routing::dense(3), Policy::Aligned),
            (Routing::dense(3), Policy::Hop),
            (Routing::Oracle(oracle.clone()), Policy::DenseMasked),
        ] {
            let settings = GenerationSettings { timed: false, ..settings(routing, policy) };
            for _ in 0..2 {
                let error =
                    executor.generate(&[prompt(&[1, 2, 3], 2)], &settings, &mut ()).expect_err("no number");
                assert_eq!(error.exit_code(), 2, "{error}");
                assert!(error.to_string().contains(place), "{array}: {error}");
            }
        }
        // A route that does not come by is not harmed.
        let settings = settings(pruned.clone(), Policy::Aligned);
        let pruned = executor.generate(&[prompt(&[1, 2, 3], 2)], &settings, &mut ());
        assert_eq!(pruned.is_ok(), array.contains("layers.1"), "{array}");
    }
}
