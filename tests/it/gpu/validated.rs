//! Validations that pass what is wrong, or that compare unlike runs.

use radialsim::batch::{Policy, Visibility};
use radialsim::calib::{fit_adapter, shapes};
use radialsim::error::Error;
use radialsim::gpu::{Precision, Rig, Routing};
use radialsim::hw::Hardware;
use radialsim::model::Model;
use radialsim::trace::{Header, Request, Route, RouteTable, RouterDevice, Trace, read};
use radialsim::units::Dtype;
use radialsim::validate::{
    Bench, CaseErrors, ExecutedCase, RunComparison, RunTimes, orders, simulate, table,
};
use radialsim::weights::{AnyRouter, Checkpoint, SkipKv, TableDescription, WordTable};

/// A made-up adapter.
fn profile() -> Hardware {
    let mut base = Hardware::datasheet("generic-cpu-2core").expect("a shipped profile");
    base.compute.units.value = 1.0;
    fit_adapter(&base, &crate::calib::adapter::records(0.0), "made-up", 1.0).expect("a fit").0
}

fn model() -> Model {
    let model = Model::builtin("smollm2-135m").expect("a built-in model");
    Model { embedding_weights: Dtype::Int8, ..model.with_formats(Dtype::Int4, Dtype::F32, Dtype::F32) }
}

fn skip25(requests: usize) -> Trace {
    read("examples/traces/smollm2-skip25.jsonl").expect("a trace that ships").cut(requests, 7, 4)
}

/// A case "executed" by one profile and simulated with another.
fn compared(policy: Policy, executed: &Hardware, simulated: &Hardware) -> RunComparison {
    let trace = skip25(3);
    let case = ExecutedCase::replayed("skip25", trace.clone(), policy);
    let run = |hw: &Hardware| -> RunTimes { simulate(&model(), hw, &trace, &case, 21).expect("a run") };
    let (executed, simulated) = (run(executed), run(simulated));
    RunComparison::new(case, executed, simulated).expect("the same passes")
}

const POLICIES: [Policy; 4] = [Policy::Aligned, Policy::DenseMasked, Policy::Hop, Policy::Grouped];

#[test]
fn a_profile_that_is_right_passes_and_orders_alike() {
    let hw = profile();
    let all: Vec<RunComparison> = POLICIES.map(|policy| compared(policy, &hw, &hw)).into();
    let verdict = CaseErrors::of(&all).expect("cases");
    assert!(verdict.times.worst < 1e-9 && verdict.memory.worst < 1e-9, "{verdict:?}");
    assert!(verdict.gate(0.1, 0.1).is_ok());
    let pairs = orders(&all, 0.01);
    assert!(!pairs.is_empty() && pairs.iter().all(|pair| pair.agrees()));
    assert!(table(&all).contains("grouped"));
}

#[test]
fn a_constant_that_is_off_by_a_fifth_fails() {
    let hw = Hardware::shipped("mesa-llvmpipe-1-thread").expect("a shipped profile");
    let mut off = hw.clone();
    let kernels = &mut off.measured.as_mut().expect("kernels").kernels;
    let products = kernels.iter_mut().filter(|kernel| kernel.name == "matmul");
    products.for_each(|kernel| *kernel.ns.get_mut("wave_inner").expect("a constant") *= 1.2);
    let all: Vec<RunComparison> = POLICIES.map(|policy| compared(policy, &hw, &off)).into();
    let verdict = CaseErrors::of(&all).expect("cases");
    assert!(verdict.times.bias > 8.0, "{verdict:?}");
    let failed = verdict.gate(8.0, 15.0).expect_err("a gate");
    assert!(matches!(failed, Error::Gate(_)) && failed.exit_code() == 1);
    let nothing =
        CaseErrors { times: radialsim::calib::PercentErrors { mean: f64::NAN, ..verdict.times }, ..verdict };
    assert!(nothing.gate(100.0, 1e9).is_err(), "what is not a number passes no gate");
}

#[test]
fn unlike_passes_are_not_compared() {
    let hw = profile();
    let replayed = |trace: &Trace| ExecutedCase::replayed("skip25", trace.clone(), Policy::Aligned);
    let run =
        |trace: &Trace, tokens| simulate(&model(), &hw, trace, &replayed(trace), tokens).expect("a run");
    let trace = skip25(3);
    let case = replayed(&trace);
    // Chunks of a prompt rather than all at once.
    let failed = RunComparison::new(case, run(&trace, 21), run(&trace, 9)).expect_err("other passes");
    assert!(failed.to_string().contains("pass 0"), "{failed}");
}

#[test]
fn repeated_runs_count_by_their_medians() {
    let hw = profile();
    let replayed = ExecutedCase::replayed("skip25", skip25(2), Policy::Aligned);
    let run = |factor: f64| {
        let mut run = simulate(&model(), &hw, &skip25(2), &replayed, 14).expect("a run");
        for pass in &mut run.passes {
            pass.seconds *= factor;
            pass.kernels.values_mut().for_each(|kernel| kernel.1 *= factor);
        }
        run
    };
    let of = |factors: &[f64]| RunTimes::median(factors.iter().map(|&factor| run(factor)).collect()).passes;
    assert_eq!(of(&[9.0, 1.0, 0.1]), run(1.0).passes);
    let (middle, wanted) = (of(&[2.0, 4.0]), run(3.0).passes);
    assert!(middle.iter().zip(&wanted).all(|(a, b)| (a.seconds - b.seconds).abs() < 1e-12));
}

/// Each kernel of the plan comes out right on this machine's adapter; a handful of shapes, since each is timed.
#[test]
fn every_kernel_of_the_plan_is_right_before_it_is_timed() {
    let Some(gpu) = crate::gpu() else { return };
    let mut rig = Rig::new(gpu, 3).expect("a device with clocks");
    let mut seen = std::collections::BTreeSet::new();
    for probe in shapes(&[Dtype::F32, Dtype::F16, Dtype::Int8, Dtype::Int4]) {
        let (kind, weights) = radialsim::kernel::kind(&probe.kernel);
        let key = (kind, weights, rig.tile(&probe.kernel).expect("a tile"));
        if seen.insert(key) {
            let times = rig.measure(&probe, 0.0).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
            assert!(times.iter().all(|&us| us >= 0.0) && times.len() >= 2, "{probe:?}");
        }
    }
    assert!(seen.len() >= 15 + 2 * 4, "{seen:?}");
}

/// Real weights under every policy: the same passes as simulated, memory within two percent, no word about time.
#[test]
fn executed_passes_and_memory_are_the_simulated_ones() {
    let (Some(path), Some(_)) = (crate::smollm2(), crate::gpu()) else { return };
    let checkpoint = Checkpoint::open(path).expect("a model");
    let mut bench = Bench::new(&checkpoint, None, Precision::Kept);
    let hw = profile();
    for policy in POLICIES {
        let case = ExecutedCase::replayed("skip25", skip25(2), policy);
        let (executed, taken) = bench.run(&case).expect("a run");
        let (model, tokens) = bench.described().expect("a model");
        let simulated = simulate(model, &hw, &taken, &case, tokens).expect("a run");
        let compared = RunComparison::new(case, executed, simulated).expect("the same passes");
        let memory = compared.memory();
        assert!(memory.error().abs() <= 2.0, "{memory:?}");
    }
}

/// Networks with routers of their own: what decides as it runs makes the passes that the simulator makes of the trace, router and read-backs
/// included, and every kernel has a time.
#[test]
fn passes_of_networks_are_the_simulated_ones() {
    use crate::small_models::{LAYERS, Small};
    if crate::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(false).write(folder.path(), safetensors::Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a model");
    let words = checkpoint.model().outputs as u32;
    let described = crate::gpu::radial::described(4, 1, false, Visibility::OnePerToken);
    let table = WordTable {
        described: TableDescription {
            kind: "table".into(),
            model: "small".into(),
            hops: 3,
            kv: described.kv,
            visible: described.visible,
        },
        words,
        layers: (0..3 * words).map(|at| at * 5 % LAYERS as u32).collect(),
    };
    let routers = [
        (AnyRouter::Radial(crate::gpu::radial::router(2, LAYERS, &described)), Policy::Grouped, true),
        (AnyRouter::Skip(crate::gpu::skips::router(3, SkipKv::ProjectOnly)), Policy::Aligned, true),
        (AnyRouter::Table(table), Policy::Grouped, false),
    ];
    let hw = profile();
    let mut bench = Bench::new(&checkpoint, None, Precision::Kept);
    for (router, policy, decides) in routers {
        let network = Some(Routing::by(router, RouterDevice::Host));
        // Two requests of five tokens that write three.
        let mut routes = RouteTable::default();
        routes.intern(Route::dense(LAYERS as u32));
        let requests = (0..2).map(|id| Request::plain(id, &[0; 5], 3, &[0; 2])).collect();
        let trace = Trace { header: Header::dense("small", LAYERS as u32), routes, requests };
        let case = ExecutedCase { network, ..ExecutedCase::replayed("network", trace, policy) };
        let (executed, taken) = bench.run(&case).expect("a run");
        let (model, tokens) = bench.described().expect("a model");
        let simulated = simulate(model, &hw, &taken, &case, tokens).expect("a run");
        let named = |run: &RunTimes| -> Vec<Vec<(&str, u64)>> {
            run.passes
                .iter()
                .map(|pass| pass.kernels.iter().map(|(name, one)| (*name, one.0)).collect())
                .collect()
        };
        assert_eq!(named(&executed), named(&simulated), "{policy:?}");
        assert_eq!(named(&executed)[0].iter().any(|(name, _)| *name == "router"), decides);
        for pass in &executed.passes {
            let kernels: f64 = pass.kernels.values().map(|kernel| kernel.1).sum();
            assert!(kernels > 0.0 && kernels < pass.seconds, "{pass:?}");
        }
        // Without its router, the simulated network is another.
        let replayed = ExecutedCase { network: None, ..case.clone() };
        let replayed = simulate(model, &hw, &taken, &replayed, tokens);
        assert_eq!(decides, replayed.is_ok_and(|other| named(&other) != named(&simulated)));
        RunComparison::new(case, executed, simulated).expect("the same passes");
    }
}
