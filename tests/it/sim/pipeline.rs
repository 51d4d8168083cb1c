//! Pipeline stages: what they take, what goes between them, and what one stage changes.

use crate::cli::{folder, radialsim, refuses, text};
use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::Policy;
use radialsim::cost::{Links, Ranks};
use radialsim::hw::{CallMode, Collectives, Curve, Fabric, Library, Operation, Source};
use radialsim::lower::Layout;
use radialsim::metrics::{Ledger, Summary};
use radialsim::sim::{Fidelity, Placed, Setup, Silent, run};
use radialsim::trace::{Placement, Trace};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A fabric on which every message takes so many microseconds, however large.
pub fn flat(us: f64) -> Fabric {
    let mut fabric = Fabric::shipped("nvidia-hgx-h100").expect("shipped");
    let curve = |operation: Operation, devices: u32| Curve {
        operation,
        library: Library::Nccl,
        version: "1".into(),
        mode: CallMode::Graph,
        devices,
        switches: Vec::new(),
        knots: vec![(1, us), (1 << 40, us)],
        sizes: None,
        others: None,
    };
    let all =
        Operation::ALL.iter().flat_map(|&(operation, _)| [2, 4, 8].map(|devices| curve(operation, devices)));
    let (gb_per_s, source) = (fabric.levels[0].gb_per_s.value, Source::Assumed("a test".into()));
    fabric.levels[0].collectives =
        Some(Collectives { gb_per_s, source, curves: all.collect(), exchanges: Vec::new() });
    fabric
}

/// The lab with its layers on devices that this fabric joins, by NCCL.
pub fn placed(lab: &Lab, placement: &Placement, fabric: &Fabric, most: Option<u32>) -> Lab {
    let mut setup = lab.setup.clone();
    let devices = placement.count();
    setup.placed = Some(Arc::new(Placed {
        name: "test".into(),
        layout: Layout::new(placement.devices(), devices),
        links: Links::new(fabric, devices, 1, Library::Nccl).expect("so many devices"),
        in_flight: devices,
        micro_batch: most,
    }));
    Lab { setup }
}

/// The lab in pipeline stages.
fn staged(lab: &Lab, stages: u32, fabric: &Fabric, most: Option<u32>) -> Lab {
    placed(lab, &Placement::stages(lab.setup.model.layers, stages).expect("enough layers"), fabric, most)
}

pub fn summary(lab: &Lab, ledger: &Ledger) -> Summary {
    Summary::new(ledger, &lab.setup.device().expect("valid limits"), &lab.setup.model)
}

/// Runs event by event and leg by leg, which must be the same.
pub fn both(lab: &Lab, trace: &Trace) -> (Ledger, Summary) {
    let of = |fidelity| run(&Setup { fidelity, ..lab.setup.clone() }, trace, &mut Silent).expect("it fits");
    let (kernels, legs) = (of(Fidelity::Kernel), of(Fidelity::Step));
    let summary = summary(lab, &kernels);
    assert_eq!(summary, self::summary(lab, &legs), "the two fidelities");
    assert_eq!((kernels.by_cause, kernels.by_bound), (legs.by_cause, legs.by_bound));
    assert_eq!((&kernels.placed, kernels.doubts), (&legs.placed, legs.doubts));
    (kernels, summary)
}

const METHODS: [&str; 5] = [
    "Dense",
    "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only)",
    "CorrelatedSkips(skip: 0.4, correlation: 0.5, share: Step, branches: Jointly, kv: none)",
    "EarlyExit(exits: Each([(8, 0.3), (32, 0.7)]), kv: project_only, dense_prefill: true)",
    "EarlyExit(exits: Each([(4, 0.5), (32, 0.5)]), kv: copy_state)",
];

/// A small head, so that stages take the same; no time between passes.
fn even(batch: u32) -> Lab {
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", batch);
    lab.setup.model.outputs = 1;
    lab.setup.hardware.launch.step_us.value = 0.0;
    lab
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// One stage is one device: the same digest, and the same numbers.
    #[test]
    fn one_stage_is_one_device(
        which in 0..METHODS.len(), batch in 1..6u32, captured in any::<bool>(), overlaps in any::<bool>(),
        policy in prop::sample::select(vec![Policy::Aligned, Policy::Hop, Policy::Grouped, Policy::DenseMasked]),
        cap in prop::option::of(300.0..700.0f64), seed in any::<u64>(),
    ) {
        let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", batch).policy(policy);
        lab.setup.dispatch.capture = if captured { vec![1, 2, 4, 8] } else { Vec::new() };
        lab.setup.serving.async_scheduling = overlaps;
        lab.setup.limits.power_w = cap;
        let trace = lab.trace(&method(METHODS[which]), batch + 2, 20, 6, seed);
        let (_, alone) = both(&lab, &trace);
        let (_, mut one) = both(&staged(&lab, 1, &flat(5.0), None), &trace);
        prop_assert_eq!(&one.digest, &alone.digest);
        let placement = one.placement.take().expect("placed");
        prop_assert_eq!((placement.crossings_per_token, placement.sent_bytes), (0.0, 0.0));
        prop_assert!((one.energy_j / alone.energy_j - 1.0).abs() < 1e-9);
        // The hottest pass is that of its leg, without the scheduler's step.
        one.power_w.hottest_pass = alone.power_w.hottest_pass;
        prop_assert_eq!(one, alone);
    }

    /// Equal stages, free links: k passes take S - 1 + k times what a stage takes.
    #[test]
    fn passes_fill_and_drain_equal_stages(
        stages in prop::sample::select(vec![2u32, 4, 8]), passes in 1..9u32, seed in any::<u64>(),
    ) {
        let lab = even(16);
        let of = |count: u32| {
            let trace = lab.trace(&method("Dense"), count, 1, 1, seed);
            both(&staged(&lab, stages, &flat(0.0), Some(1)), &trace).1
        };
        let stage = of(1).makespan_s / f64::from(stages);
        let all = of(passes);
        let law = f64::from(stages - 1 + passes) * stage;
        prop_assert!((all.makespan_s / law - 1.0).abs() < 0.005, "{} {law}", all.makespan_s);
        let most = all.placement.expect("placed").most_in_flight;
        prop_assert_eq!(most, passes.min(stages));
    }

    /// What goes over each link is what each token brings: followed one by one.
    #[test]
    fn links_carry_what_tokens_bring(
        which in 0..METHODS.len(), stages in prop::sample::select(vec![2u32, 3, 5]), batch in 1..5u32, seed in any::<u64>(),
    ) {
        let lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", batch);
        let trace = lab.trace(&method(METHODS[which]), batch + 1, 9, 5, seed);
        let placement = Placement::stages(32, stages).expect("stages");
        let (ledger, summary) = both(&placed(&lab, &placement, &flat(3.0), None), &trace);
        let used = ledger.placed.as_ref().expect("placed");
        let count = stages as usize;
        let (mut states, keeps) = (vec![0u64; count * count], METHODS[which].contains("project_only") || METHODS[which].contains("copy_state"));
        for request in &trace.requests {
            for run in &request.runs {
                for (ahead, id) in run.routes.iter().enumerate() {
                    let layers: Vec<usize> = trace.routes.get(id).0.iter().map(|step| step.layer as usize).collect();
                    // Where something is kept of every layer, a token comes by everywhere.
                    let mut way: Vec<u32> = (0..32).filter(|layer| keeps || layers.contains(layer)).map(|layer| placement.devices()[layer]).collect();
                    way.insert(0, 0);
                    if run.start + ahead as u32 + 1 >= request.prompt_tokens {
                        way.push(stages - 1);
                    }
                    way.dedup();
                    way.windows(2).for_each(|pair| states[pair[0] as usize * count + pair[1] as usize] += 1);
                }
            }
        }
        let bytes: Vec<u64> = states.iter().map(|states| states * 2 * lab.setup.model.hidden).collect();
        prop_assert_eq!(&used.sent, &bytes);
        prop_assert_eq!(used.states, states.iter().sum::<u64>());
        prop_assert_eq!(summary.placement.expect("placed").sent_bytes, bytes.iter().sum::<u64>() as f64);
    }

    /// Slower links make nothing faster; energy is that of all devices, idle ones included, and requests share it.
    #[test]
    fn slower_links_and_idle_devices_cost(
        stages in prop::sample::select(vec![2u32, 4]), count in 1..5u32, us in 1.0..200.0f64, seed in any::<u64>(),
    ) {
        let lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 8);
        let trace = lab.trace(&method("Dense"), count.min(stages), 3, 6, seed);
        let of = |us: f64| both(&staged(&lab, stages, &flat(us), Some(1)), &trace);
        let ((ledger, fast), (_, slow)) = (of(us), of(2.0 * us));
        prop_assert!(slow.makespan_s > fast.makespan_s);
        prop_assert!(slow.energy_j > fast.energy_j);
        let (static_w, idle_w) = lab.setup.device().expect("valid").static_and_idle_w();
        let busy = ledger.busy_ps as f64 / 1e12;
        let idle = f64::from(stages) * fast.makespan_s - busy;
        let energy = static_w * busy + idle_w * idle + ledger.dynamic_pj as f64 / 1e12;
        prop_assert!((fast.energy_j / energy - 1.0).abs() < 1e-9);
        let shared = fast.phases.prefill.energy_j + fast.phases.decode.energy_j + fast.idle_energy_j;
        prop_assert!((shared / fast.energy_j - 1.0).abs() < 1e-6, "{shared} {}", fast.energy_j);
        let devices = fast.placement.expect("placed").devices;
        let of_devices: f64 = devices.iter().map(|device| device.busy).sum::<f64>() * fast.makespan_s;
        prop_assert!((of_devices / busy - 1.0).abs() < 1e-9);
        prop_assert!((devices.iter().map(|device| device.load).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}

/// Full stages: S of them do nearly S times as much as one device with passes of the same size.
#[test]
fn full_stages_do_as_many_times_as_much() {
    let lab = even(64);
    let trace = |lab: &Lab| lab.trace(&method("Dense"), 64, 1, 40, 1);
    let mut alone = even(8);
    alone.setup.serving.max_sequences = 8;
    let (_, one) = both(&alone, &trace(&alone));
    let mut before = 1.0;
    for stages in [2, 4, 8] {
        let (_, many) = both(&staged(&lab, stages, &flat(0.0), Some(8)), &trace(&lab));
        let times = many.output_tokens_per_s / one.output_tokens_per_s;
        assert!(times > 0.9 * f64::from(stages) && times < 1.01 * f64::from(stages), "{stages}: {times}");
        assert!(times > before);
        before = times;
    }
}

/// Passes that are not split stay together: one pass in flight, however many stages, as in vLLM, each of which is idle most of the time.
#[test]
fn passes_that_are_not_split_leave_stages_idle() {
    let lab = even(8);
    let trace = lab.trace(&method("Dense"), 8, 1, 20, 1);
    let of = |most| both(&staged(&lab, 4, &flat(0.0), most), &trace).1.placement.expect("placed");
    let (whole, split) = (of(None), of(Some(2)));
    assert_eq!((whole.most_in_flight, split.most_in_flight), (1, 4));
    for (whole, split) in whole.devices.iter().zip(&split.devices) {
        assert!(whole.busy < 0.26 && split.busy > 3.3 * whole.busy, "{} {}", whole.busy, split.busy);
    }
}

/// Tokens that leave early free the stages behind: these do less, and tokens come sooner.
#[test]
fn early_exits_free_later_stages() {
    let lab = even(8);
    let run = |text: &str| {
        let trace = lab.trace(&method(text), 8, 8, 24, 3);
        both(&staged(&lab, 4, &flat(5.0), None), &trace).1
    };
    let dense = run("Dense");
    let exits = run("EarlyExit(exits: Each([(8, 1.0)]), kv: none)");
    let devices = |summary: &Summary| summary.placement.clone().expect("placed").devices;
    let (of_dense, of_exits) = (devices(&dense), devices(&exits));
    assert!(of_exits[1].load == 0.0 && of_exits[2].busy == 0.0, "nobody comes to the middle stages");
    assert!(of_exits[3].busy < 0.1 * of_dense[3].busy, "the last has its head");
    let tpot = |summary: &Summary| summary.tpot_s.expect("several tokens").mean;
    assert!(tpot(&exits) < 0.3 * tpot(&dense), "{} {}", tpot(&exits), tpot(&dense));
}

/// The stage with the least room for its layers says how many KV blocks there are, and each keeps to its own.
#[test]
fn the_fullest_stage_decides_the_blocks() {
    let lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 4);
    let trace = lab.trace(&method("Dense"), 4, 50, 4, 1);
    let uneven =
        Placement::listed((0..32).map(|layer| u32::from(layer >= 24)).collect(), 2).expect("devices");
    let (ledger, _) = both(&placed(&lab, &uneven, &flat(1.0), None), &trace);
    let used = ledger.placed.expect("placed").devices;
    let rooms: Vec<u64> = used.iter().map(|device| device.kv_room / u64::from(device.layers)).collect();
    assert!(rooms[0] < rooms[1], "24 layers leave less room for each than 8");
    assert_eq!(ledger.kv.blocks, 32 * rooms[0]);
    assert_eq!((used[0].layers, used[1].layers), (24, 8));
    let model = &lab.setup.model;
    let all: u64 = used.iter().map(|device| device.weights).sum();
    assert_eq!(all, model.weight_bytes(32), "weights are on one device each, as the head is not tied");
    assert!(used.iter().all(|device| device.kv_peak <= device.kv_room && device.kv_peak > 0));
    assert_eq!(used[0].kv_peak, 3 * used[1].kv_peak);
}

/// Stages as vLLM cuts them: what is left over goes to the middle.
#[test]
fn stages_are_cut_as_vllm_cuts_them() {
    for (layers, stages, counts) in [
        (32, 4, vec![8, 8, 8, 8]),
        (22, 4, vec![5, 6, 6, 5]),
        (5, 3, vec![2, 2, 1]),
        (3, 2, vec![2, 1]),
        (7, 3, vec![2, 3, 2]),
    ] {
        let placement = Placement::stages(layers, stages).expect("stages");
        let each: Vec<usize> = placement.layers().iter().map(Vec::len).collect();
        assert_eq!(each, counts, "{layers} on {stages}");
        assert!(placement.devices().is_sorted());
    }
    assert!(Placement::stages(3, 4).is_err());
}

/// Stages of devices that compute their layers together.
#[test]
fn stages_are_tensor_parallel_too() {
    let lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 4);
    let trace = lab.trace(&method("Dense"), 4, 16, 8, 1);
    let fabric = Fabric::shipped("nvidia-hgx-h100").expect("shipped");
    let mut setup = lab.setup.clone();
    setup.model = setup.model.shard(2).expect("it goes evenly");
    setup.ranks = Some(Arc::new(Ranks::new(&fabric, 2, Library::Vllm).expect("two")));
    let placement = Placement::stages(32, 2).expect("stages");
    setup.placed = Some(Arc::new(Placed {
        name: "pipeline".into(),
        layout: Layout::new(placement.devices(), 2),
        links: Links::new(&fabric, 2, 2, Library::Vllm).expect("four"),
        in_flight: 2,
        micro_batch: None,
    }));
    let (ledger, summary) = both(&Lab { setup }, &trace);
    assert_eq!(summary.devices, 4);
    let row = 2 * 2 * lab.setup.model.hidden;
    assert_eq!(
        ledger.placed.expect("placed").sent[1],
        row * ledger.routed_tokens,
        "branch and stream of each token"
    );
}

/// Many requests that come and go over few blocks: nothing is lost, with passes in flight and sequences that lose their places.
#[test]
fn preempted_sequences_end_too() {
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 12);
    lab.setup.serving.kv_blocks = Some(90);
    lab.setup.serving.watermark = 0.0;
    let trace = lab.trace(&method("Dense"), 24, 10, 20, 5);
    let (ledger, summary) = both(&staged(&lab, 3, &flat(2.0), Some(4)), &trace);
    assert!(summary.preemptions > 0 && ledger.recomputed_tokens > 0, "{}", summary.preemptions);
    assert_eq!(summary.output_tokens, 24 * 20);
}

/// What is not there is refused, with the key.
#[test]
fn what_has_no_stages_is_refused() {
    let cases = [
        ("parallel: (pipeline: 0)", "parallel.pipeline: found 0, expected a number of devices"),
        ("parallel: (pipeline: 33)", "parallel.pipeline: found 33, expected 1 to 32 devices"),
        ("parallel: (pipeline: 2, fabric: \"nothing\")", "nvidia-hgx-h100"),
        ("parallel: (pipeline: 16)", "parallel.devices"),
        (
            "parallel: (pipeline: 2, devices: 2, placement: contiguous)",
            "parallel.pipeline: found 2, expected 1",
        ),
        ("parallel: (devices: 2)", "parallel.devices: found 2, expected a placement"),
        ("parallel: (placement: round_robin)", "parallel.devices: found none"),
        (
            "parallel: (placement: listed([0, 1]))",
            "parallel.placement: found 2 devices, expected a device for each of the 32 layers",
        ),
        ("parallel: (micro_batch: 4)", "parallel.micro_batch: found 4, expected none"),
        ("parallel: (pipeline: 2, in_flight: 0)", "parallel.in_flight: found 0"),
        ("parallel: (pipeline: 2, in_flight: 3)", "parallel.in_flight: found 3, expected at most 2"),
    ];
    for (parallel, say) in cases {
        let error = built(parallel, "").expect_err(say);
        assert!(error.contains(say), "{parallel}: {error}");
    }
    let runs = [
        ("tiers: (link: pcie5, resident: 8, policy: lru),", "tiers"),
        ("policy: queued(full: 2, wait_us: 10),", "dispatch.policy: found queued"),
    ];
    for (own, say) in runs {
        let error = built("parallel: (pipeline: 2)", own).expect_err(say);
        assert!(error.contains(say) && error.contains("several devices"), "{own}: {error}");
    }
    assert!(built("parallel: (pipeline: 2)", "").is_ok());
}

/// A scenario with these keys.
fn scenario(parallel: &str, own: &str) -> String {
    format!(
        r#"(title: "t", model: "llama-3.1-8b", hardware: "nvidia-h100-sxm", seed: 1, {parallel},
        workload: (requests: (count: 2, lengths: (prompt: Fixed(4), output: Fixed(2)), arrivals: Closed)),
        serving: (max_batched_tokens: 2048, max_sequences: 8, chunked_prefill: true), dispatch: (policy: aligned),
        variants: [(name: "first", routes: Method(Dense), {own})])"#
    )
}

/// Reads and runs a scenario with these keys.
fn built(parallel: &str, own: &str) -> Result<Summary, String> {
    let text = scenario(parallel, own);
    let scenario = radialsim::scenario::Scenario::from_text(&text, Path::new("t.ron"), &[]);
    let outcome = scenario.and_then(|scenario| radialsim::scenario::run(&scenario, 1, &(), |_, _| Silent));
    outcome.map(|(outcome, _)| outcome.variants[0].first().summary.clone()).map_err(|error| error.to_string())
}

/// The program shows what devices do, in the table and in JSON, and refuses a timeline, which shows one.
#[test]
fn the_program_shows_the_devices() {
    let folder = folder();
    let file = folder.path().join("two.ron");
    let own = r#"(name: "two", routes: Method(Dense), parallel: (pipeline: 2, micro_batch: 2)),"#;
    std::fs::write(
        &file,
        scenario("parallel: (tensor: 1)", "").replace("variants: [", &format!("variants: [{own}")),
    )
    .expect("written");
    let (file, json) = (file.to_string_lossy().into_owned(), folder.path().join("out.json"));
    let out = radialsim(&["simulate", &file, "--quiet", "--full", "--json", &json.to_string_lossy()]);
    let shown = text(&out.stdout);
    assert!(shown.contains("Layers on several devices"), "{shown}{}", text(&out.stderr));
    let written: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    let [two, one] = [0, 1].map(|variant: usize| &written["variants"][variant]);
    assert!(two["devices"] == 2 && one["devices"].is_null(), "absent where it is one");
    // Every token crosses once; those that put a token out are at the head then.
    assert_eq!(two["placement"]["crossings_per_token"], 1.0);
    assert_eq!(two["placement"]["states_sent_per_token"], 1.0);
    assert_eq!(two["placement"]["devices"].as_array().expect("a list").len(), 2);
    assert!(one["placement"].is_null(), "absent");
    let shown = text(&radialsim(&["inspect", "scenario", &file]).stdout);
    assert!(shown.contains("2 by layers, pipeline"), "{shown}");
    let timeline = folder.path().join("t.json");
    let expected =
        "--timeline: found t, expected variants with all layers on one device, whose kernels it shows";
    refuses(&["simulate", &file, "--timeline", &timeline.to_string_lossy()], expected);
    assert!(!timeline.exists());
}
