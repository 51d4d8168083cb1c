//! One model on several devices: what the parts add up to, and what messages cost.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::cost::{Device, Limits, Ranks};
use radialsim::engine::Ended;
use radialsim::hw::{CallMode, Collectives, Curve, Fabric, Library, Operation, Source};
use radialsim::lower::{Call, Node};
use radialsim::metrics::{Ledger, Summary};
use radialsim::model::{Model, builtin_names};
use radialsim::sim::{Fidelity, Observer, Silent, run};
use radialsim::trace::Trace;
use std::path::Path;
use std::sync::Arc;

/// A fabric on which every message takes so many microseconds, however large.
pub fn flat(us: f64) -> Fabric {
    let mut fabric = Fabric::shipped("nvidia-hgx-h100").expect("shipped");
    let curve = |operation: Operation, mode: CallMode, devices: u32| Curve {
        operation,
        library: Library::Nccl,
        version: "1".into(),
        mode,
        devices,
        switches: Vec::new(),
        knots: vec![(1, us), (1 << 40, us)],
        sizes: None,
        others: None,
    };
    let all = Operation::ALL.iter().flat_map(|&(operation, _)| {
        let modes = CallMode::ALL.iter().map(move |&(mode, _)| (operation, mode));
        modes.flat_map(move |(operation, mode)| [2, 4, 8].map(|devices| curve(operation, mode, devices)))
    });
    let (gb_per_s, source) = (fabric.levels[0].gb_per_s.value, Source::Assumed("a test".into()));
    fabric.levels[0].collectives =
        Some(Collectives { gb_per_s, source, curves: all.collect(), exchanges: Vec::new() });
    fabric
}

/// The lab with the model in parts.
fn split(mut lab: Lab, devices: u32, fabric: &Fabric, library: Library) -> Lab {
    lab.setup.model = lab.setup.model.shard(devices).expect("it goes evenly");
    lab.setup.ranks =
        (devices > 1).then(|| Arc::new(Ranks::new(fabric, devices, library).expect("so many devices")));
    lab
}

fn summary(lab: &Lab, ledger: &Ledger) -> Summary {
    Summary::new(ledger, &lab.setup.device().expect("valid limits"), &lab.setup.model)
}

/// Runs event by event and pass by pass, which must be the same.
fn both(lab: &Lab, trace: &Trace) -> Ledger {
    let of = |fidelity| {
        let setup = radialsim::sim::Setup { fidelity, ..lab.setup.clone() };
        run(&setup, trace, &mut Silent).expect("it fits")
    };
    let (kernels, passes) = (of(Fidelity::Kernel), of(Fidelity::Step));
    assert_eq!(summary(lab, &kernels), summary(lab, &passes));
    assert_eq!((kernels.by_cause, kernels.by_bound), (passes.by_cause, passes.by_bound));
    assert_eq!((kernels.losses, kernels.doubts), (passes.losses, passes.doubts));
    kernels
}

const METHODS: [&str; 4] = [
    "Dense",
    "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only)",
    "CorrelatedSkips(skip: 0.4, correlation: 0.5, share: Step, branches: Jointly, kv: none)",
    "EarlyExit(exits: Each([(8, 0.3), (32, 0.7)]), kv: project_only, dense_prefill: true)",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Messages of no time: the devices take what one of them takes for its part, and draw as many times the power.
    #[test]
    fn free_messages_leave_what_the_parts_take(
        which in 0..METHODS.len(), devices in prop::sample::select(vec![2u32, 4, 8]), batch in 1..6u32,
        captured in any::<bool>(), explain in any::<bool>(), seed in any::<u64>(),
    ) {
        let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", batch);
        lab.setup.explain = explain;
        lab.setup.hardware.launch.eager_gap_us = None;
        lab.setup.hardware.launch.graph_gap_us.value = 0.0;
        // What the host takes for the launch of a message is no message.
        lab.setup.hardware.launch.kernel_us.value = 0.0;
        lab.setup.dispatch.capture = if captured { vec![1, 2, 4, 8] } else { Vec::new() };
        let trace = lab.trace(&method(METHODS[which]), batch, 20, 6, seed);
        let lab = split(lab, devices, &flat(0.0), Library::Nccl);
        let together = both(&lab, &trace);
        let mut part = Lab { setup: lab.setup.clone() };
        part.setup.ranks = None;
        // The same part on a device that has nobody to exchange messages with.
        part.setup.model.shards = 1;
        part.setup.model.outputs = part.setup.model.outputs.div_ceil(devices.into());
        if let radialsim::model::Input::Tokens { vocabulary, .. } = &mut part.setup.model.input {
            *vocabulary = vocabulary.div_ceil(devices.into());
        }
        let alone = both(&part, &trace);
        // The sampler sees all logits.
        let off = (together.makespan.s() - alone.makespan.s()) / alone.makespan.s();
        prop_assert!((0.0..0.02).contains(&off), "{off}");
        let (a, b) = (summary(&lab, &together), summary(&part, &alone));
        let energy = a.energy_j / (f64::from(devices) * b.energy_j) - 1.0;
        prop_assert!(energy.abs() < 0.02, "{energy}");
        prop_assert_eq!(a.memory_bytes.weights, b.memory_bytes.weights);
        prop_assert_eq!(a.memory_bytes.kv_peak, b.memory_bytes.kv_peak);
    }

    /// Slower messages make nothing faster; each takes what the fabric says.
    #[test]
    fn messages_cost_what_the_fabric_says(
        which in 0..METHODS.len(), devices in prop::sample::select(vec![2u32, 4, 8]), batch in 1..6u32,
        us in 1.0..50.0f64, seed in any::<u64>(),
    ) {
        let lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", batch);
        let trace = lab.trace(&method(METHODS[which]), batch, 20, 6, seed);
        let of = |us: f64| {
            let lab = Lab { setup: lab.setup.clone() };
            both(&split(lab, devices, &flat(us), Library::Nccl), &trace)
        };
        let (fast, slow) = (of(us), of(2.0 * us));
        prop_assert!(slow.makespan >= fast.makespan);
        let link = radialsim::cost::Bound::Link as usize;
        let (one, two) = (fast.by_bound[link], slow.by_bound[link]);
        prop_assert_eq!(one.count, two.count);
        let gap = lab.setup.device().expect("valid").launch().gap(false).ps();
        let each = |tally: radialsim::metrics::Tally| tally.time_ps as f64 / tally.count as f64 - gap as f64;
        prop_assert!((each(one) / 1e6 - us).abs() < 1e-3 * us, "{} {us}", each(one));
        prop_assert!((each(two) / 1e6 - 2.0 * us).abs() < 2e-3 * us);
    }
}

/// Messages by operation: how many, and their bytes.
#[derive(Default)]
struct Messages {
    reduced: Vec<u64>,
    gathered: Vec<u64>,
    visits: u64,
}

impl Observer for Messages {
    fn call(&mut self, call: &Call, _price: Option<&radialsim::cost::Price>, _ended: &Ended) {
        match call.node {
            Node::Collective { operation: Operation::AllReduce, bytes, .. } => self.reduced.push(bytes),
            Node::Collective { operation: Operation::AllGather, bytes, .. } => self.gathered.push(bytes),
            Node::Kernel { kernel: radialsim::kernel::Kernel::ResidualAdd { rows, .. }, .. } => {
                self.visits += u64::from(rows);
            }
            _ => {}
        }
    }
}

/// Two all-reduces for each block that a group visits, as large as its rows, one for the embedding, one gathering of logits: bytes that
/// tokens cause, and no others.
#[test]
fn messages_are_as_large_as_the_groups() {
    for (text, groups) in [("Dense", 64), (METHODS[2], 0)] {
        let lab = split(
            Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 4),
            4,
            &Fabric::shipped("nvidia-hgx-h100").expect("shipped"),
            Library::Vllm,
        );
        let trace = lab.trace(&method(text), 4, 16, 4, 3);
        let mut seen = Messages::default();
        let ledger = run(&lab.setup, &trace, &mut seen).expect("it fits");
        let row = 2 * lab.setup.model.hidden;
        // Each row of a branch is added to the stream behind its message; each token enters once.
        assert_eq!(seen.reduced.iter().sum::<u64>(), row * (seen.visits + ledger.routed_tokens), "{text}");
        let branches: u64 = 2 * ledger.layer_visits;
        if groups > 0 {
            assert_eq!(seen.visits, branches, "both branches of every layer");
            assert_eq!(seen.reduced.len() as u64, (groups + 1) * ledger.passes, "{text}");
        }
        let logits = 2 * lab.setup.model.outputs;
        assert_eq!(seen.gathered.iter().sum::<u64>(), logits * ledger.output_tokens, "{text}");
    }
}

/// Parts of a model add up to it, but for what each keeps whole: norms, routers, latent vectors, and heads of which there are too few.
#[test]
fn parts_add_up_to_the_model() {
    let mut cut = 0;
    for name in builtin_names() {
        let whole = Model::builtin(name).expect("built in");
        for devices in [2u64, 4, 8] {
            let Ok(part) = whole.shard(devices as u32) else { continue };
            cut += 1;
            part.check().expect("a part is a model");
            let twice = whole.kv_heads < devices && whole.latent.is_none();
            let count = whole.layers;
            let sum = devices * part.weight_bytes(count);
            let all = whole.weight_bytes(count);
            assert!(sum >= all, "{name} on {devices}: {sum} {all}");
            // Norms, positions, projections between table and stream, routers, and biases of the stream are kept whole; rows are rounded up.
            let projections = match whole.input {
                radialsim::model::Input::Tokens { width, .. } if width != whole.hidden => {
                    2 * width * whole.hidden
                }
                radialsim::model::Input::Patches { values, .. } => (values + 2) * whole.hidden,
                radialsim::model::Input::Tokens { .. } => 0,
            };
            let routers = whole.experts.map_or(0, |experts| experts.router_params(whole.hidden));
            let of_layers = u64::from(count) * (whole.norm_params() + routers + 2 * whole.hidden);
            let values = of_layers + (whole.positions + devices) * whole.hidden + projections + whole.beside;
            let small = devices * 4 * values;
            if !twice && whole.latent.is_none() {
                assert!(sum <= all + small, "{name} on {devices}: {sum} {all}");
                assert_eq!(devices * part.kv_entry_bytes(), whole.kv_entry_bytes(), "{name}");
            }
            if whole.latent.is_some() {
                assert_eq!(part.kv_entry_bytes(), whole.kv_entry_bytes(), "{name}: one vector for all heads");
            }
        }
    }
    assert!(cut > 20, "{cut} parts");
}

/// One device in any notation is a device; a variant may differ in how it is split, and savings tell the settings from the routes.
#[test]
fn one_device_in_any_notation_is_one_device() {
    let text = |parallel: &str, own: &str| {
        format!(
            r#"(title: "t", model: "llama-3.1-8b", hardware: "nvidia-h100-sxm", seed: 1, {parallel}
            workload: (requests: (count: 3, lengths: (prompt: Fixed(40), output: Fixed(5)), arrivals: Closed)),
            serving: (max_batched_tokens: 2048, max_sequences: 8, chunked_prefill: true), dispatch: (policy: aligned),
            variants: [(name: "first", routes: Method(Dense)), (name: "own", routes: Method(Dense), {own})])"#
        )
    };
    let run = |parallel: &str, own: &str| {
        let scenario =
            radialsim::scenario::Scenario::from_text(&text(parallel, own), Path::new("t.ron"), &[]);
        let outcome = radialsim::scenario::run(&scenario.expect("valid"), 1, &(), |_, _| Silent);
        outcome.expect("it runs").0
    };
    let plain = run("", "");
    for (parallel, own) in [("parallel: (tensor: 1),", ""), ("", "parallel: (tensor: 1, collectives: nccl),")]
    {
        let other = run(parallel, own);
        for (a, b) in plain.variants.iter().zip(&other.variants) {
            assert_eq!(a.first().summary, b.first().summary);
        }
    }
    let two = run("", "parallel: (tensor: 2),");
    let [first, own] = &two.variants[..] else { panic!("two variants") };
    assert_eq!(first.first().summary, plain.variants[0].first().summary);
    assert!(own.first().summary.makespan_s < first.first().summary.makespan_s);
    assert_eq!(own.first().summary.devices, 2);
    // All of what it saves comes of the settings.
    let saved =
        radialsim::metrics::TimeSaved::of(&first.first().ledger, &own.first().ledger).expect("explained");
    let settings = radialsim::metrics::PARTS.iter().position(|part| *part == "settings").expect("a part");
    let others: i128 =
        saved.parts.iter().enumerate().filter(|(part, _)| *part != settings).map(|(_, ps)| ps.abs()).sum();
    assert!(saved.parts[settings] > 0 && others < saved.parts[settings] / 50, "{:?}", saved.parts);
}

/// What cannot be split is refused, with the key.
#[test]
fn what_cannot_be_split_is_refused() {
    let cases = [
        (
            "llama-3.1-8b",
            "parallel: (tensor: 3)",
            "parallel.tensor: found 3, expected a divisor of the 32 query heads",
        ),
        ("llama-3.1-8b", "parallel: (tensor: 16)", "parallel.tensor"),
        ("llama-3.1-8b", "parallel: (tensor: 0)", "at least 1"),
        ("llama-3.1-8b", "parallel: (tensor: 2, fabric: Some(\"nvlink\"))", "nvidia-hgx-h100"),
        ("smollm2-135m", "parallel: (tensor: 2)", "a divisor of the 9 query heads"),
        ("llama-3.1-8b", "parallel: (pipeline: 33)", "parallel.pipeline"),
        ("llama-3.1-8b", "parallel: (sequence: 2)", "sequence"),
    ];
    for (model, parallel, say) in cases {
        let text = format!(
            r#"(title: "t", model: "{model}", hardware: "nvidia-h100-sxm", seed: 1, {parallel},
            workload: (requests: (count: 1, lengths: (prompt: Fixed(4), output: Fixed(2)), arrivals: Closed)),
            serving: (max_batched_tokens: 2048, max_sequences: 8, chunked_prefill: true), dispatch: (policy: aligned),
            variants: [(name: "first", routes: Method(Dense))])"#
        );
        let scenario = radialsim::scenario::Scenario::from_text(&text, Path::new("t.ron"), &[]);
        let error = scenario.and_then(|scenario| scenario.build()).expect_err(say).to_string();
        assert!(error.contains(say), "{parallel}: {error}");
    }
}

/// A part without the devices that have the others is nothing to run, so no key makes one.
#[test]
fn no_key_makes_a_part() {
    let example = Path::new("examples/batch-union.ron");
    let scenario = radialsim::scenario::Scenario::load(example, &["shape.shards=2".to_owned()]);
    let error = scenario.and_then(|scenario| scenario.build()).expect_err("no such key").to_string();
    assert!(error.contains("shards"), "{error}");
}

/// Under a cap, several devices keep it each: the clock is that of one, and the power as many times as much.
#[test]
fn a_cap_is_one_of_each_device() {
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 4);
    lab.setup.limits = Limits { power_w: Some(350.0), ..Limits::default() };
    let trace = lab.trace(&method("Dense"), 4, 600, 4, 1);
    let lab = split(lab, 2, &flat(0.0), Library::Nccl);
    let capped = both(&lab, &trace);
    let watts = summary(&lab, &capped).power_w.hottest_pass;
    assert!((600.0..700.1).contains(&watts), "{watts}");
    let free = Lab { setup: radialsim::sim::Setup { limits: Limits::default(), ..lab.setup.clone() } };
    assert!(both(&free, &trace).makespan < capped.makespan);
    let device = Device::new(&lab.setup.hardware, Limits::default()).expect("valid");
    let (static_w, idle_w) = device.static_and_idle_w();
    let two = device.with_ranks(lab.setup.ranks.clone());
    assert_eq!(two.static_and_idle_w(), (2.0 * static_w, 2.0 * idle_w));
}
