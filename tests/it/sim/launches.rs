//! What starting kernels costs, and what the host must know to start them: engines, and decisions that are taken on the device.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Decisions, Policy};
use radialsim::hw::{Hardware, ServingEngine};
use radialsim::metrics::Ledger;
use radialsim::scenario::{Scenario, published};
use radialsim::sim::{Silent, run};
use radialsim::trace::Trace;
use std::path::PathBuf;

const MODEL: &str = "smollm2-135m";
const H100: &str = "nvidia-h100-sxm";
const SKIPS: &str = "IndependentSkips(skip: 0.5, branches: Jointly, kv: none)";
const ROUTED: &str = "IndependentSkips(skip: 0.5, branches: Jointly, kv: none, router: (hidden: 64))";
const ONE_GRAPH: [Decisions; 3] = [Decisions::Padded, Decisions::Conditional, Decisions::Switch];

fn lab(batch: u32, decisions: Decisions) -> Lab {
    let mut lab = Lab::new(MODEL, H100, batch);
    lab.setup.dispatch.capture = vec![1, 2, 4, 8];
    lab.setup.dispatch.decisions = decisions;
    lab.setup.hardware.launch = lab.setup.hardware.own_launch();
    lab
}

fn passes(lab: &Lab, text: &str) -> Ledger {
    let batch = lab.setup.serving.max_sequences;
    lab.run(&lab.trace(&method(text), batch, 1, 9, 3))
}

/// A launch of each kernel costs what a launch of all does not, whoever drives the device.
#[test]
fn eager_is_never_faster_than_captured() {
    let own = Hardware::shipped(H100).expect("shipped");
    let engines = ServingEngine::names().map(|name| ServingEngine::named(name).expect("an engine"));
    let launches = engines.filter(ServingEngine::captures).map(|engine| engine.launch(&own.launch));
    for launch in launches.chain([own.own_launch()]) {
        for batch in [1, 2, 8] {
            let mut lab = lab(batch, Decisions::Known);
            lab.setup.hardware.launch = launch.clone();
            let captured = passes(&lab, "Dense").pass_ps;
            lab.setup.dispatch.capture.clear();
            let eager = passes(&lab, "Dense").pass_ps;
            assert!(eager > captured, "{launch:?} {batch}: {eager} against {captured}");
        }
    }
}

/// Where launches take longer than kernels, a pass takes its launches and the last kernel: twice the launch time adds one for each
/// kernel. Where they take less, the host is ahead from the second kernel on, and only the first of a pass waits.
#[test]
fn one_sequence_takes_its_launches_or_its_kernels() {
    let mut lab = Lab::new("llama-2-7b", "ideal", 1);
    let trace = lab.trace(&method("Dense"), 1, 1, 6, 1);
    let mut time = |kernel_us: f64| {
        lab.setup.hardware.launch.kernel_us.value = kernel_us;
        lab.run(&trace)
    };
    let (one, two) = (time(10_000.0), time(20_000.0));
    assert_eq!(two.pass_ps - one.pass_ps, u128::from(one.done.kernels) * 10_000 * 1_000_000);
    let (free, small) = (time(0.0), time(0.001));
    let waited = small.pass_ps - free.pass_ps;
    assert!(waited >= u128::from(free.passes) * 1000, "{waited}");
    assert!(waited < u128::from(free.done.kernels) * 1000, "{waited}: kernels hide launches behind them");
}

/// The fixed time of a kernel is device time in a graph as well; what launching adds on the device is the gap alone.
#[test]
fn fixed_times_are_in_both_and_the_gap_in_one() {
    let mut lab = lab(1, Decisions::Known);
    let launch = &mut lab.setup.hardware.launch;
    (launch.kernel_us.value, launch.graph_us.value) = (0.0, 0.0);
    let gap = launch.eager_gap_us.clone().expect("a CUDA device has a gap");
    let captured = passes(&lab, "Dense");
    lab.setup.dispatch.capture.clear();
    let eager = passes(&lab, "Dense");
    // The prompt is never captured.
    let kernels = eager.done.kernels / eager.passes * (eager.passes - 1);
    assert_eq!(eager.done.kernels, captured.done.kernels);
    assert_eq!(eager.pass_ps - captured.pass_ps, u128::from(kernels) * (gap.value * 1e6) as u128);
}

/// A graph that holds all layers costs at least the kernels that the routes need, and reads the weights of each.
#[test]
fn a_padded_graph_costs_at_least_its_kernels_and_reads_every_layer() {
    for batch in [1, 3, 8] {
        // Masked, so that neither moves rows.
        let masked = |decisions| passes(&lab(batch, decisions).policy(Policy::DenseMasked), SKIPS);
        let (known, padded) = (masked(Decisions::Known), masked(Decisions::Padded));
        assert!(padded.busy_ps >= known.busy_ps && padded.done.bytes >= known.done.bytes, "{batch}");
        assert!(batch > 1 || padded.busy_ps > known.busy_ps * 3 / 2, "alone, half of the layers are skipped");
        // All but the prompts', which are launched kernel by kernel.
        let rest = padded.pool_bytes - padded.pool_bytes / u128::from(padded.passes);
        assert!(padded.union_bytes >= rest, "{batch}: {} of {}", padded.union_bytes, padded.pool_bytes);
    }
}

/// At batch 1, conditional nodes run the kernels of the layers that are taken, and a node for each body: 30 layers whose routes differ are
/// 30 bodies, taken or not.
#[test]
fn conditional_nodes_cost_a_node_for_each_body() {
    for decisions in [Decisions::Conditional, Decisions::Switch] {
        let mut lab = lab(1, decisions);
        let trace = lab.trace(&method(SKIPS), 1, 1, 17, 3);
        let mut time = |conditional_us: f64| {
            lab.setup.hardware.launch.conditional_us.as_mut().expect("CUDA has them").value = conditional_us;
            lab.run(&trace)
        };
        let (none, three, six) = (time(0.0), time(3.0), time(6.0));
        let captured = u128::from(three.passes - 1);
        assert_eq!(three.pass_ps - none.pass_ps, captured * 30 * 3_000_000);
        assert_eq!(six.pass_ps - three.pass_ps, three.pass_ps - none.pass_ps);
        assert_eq!(three.busy_ps, none.busy_ps, "nodes are no kernels");
        let mut known = self::lab(1, Decisions::Known);
        known.setup.hardware.launch.graph_us.value = 0.0;
        assert_eq!(known.run(&trace).busy_ps, three.busy_ps);
    }
}

/// An exit is one body: the layers behind it are taken or skipped together. Keys and values of who skips are another IF node, and the other
/// case of a SWITCH node.
#[test]
fn layers_that_are_skipped_together_are_one_body() {
    let nodes = |text: &str, decisions| {
        let mut lab = lab(1, decisions);
        let trace = lab.trace(&method(text), 2, 1, 17, 3);
        let mut time = |conditional_us: f64| {
            lab.setup.hardware.launch.conditional_us.as_mut().expect("CUDA has them").value = conditional_us;
            lab.run(&trace).pass_ps
        };
        let passes = 2 * 16 * 1_000_000;
        (time(1.0) - time(0.0)) / passes
    };
    let exit = "EarlyExit(exits: Each([(8, 0.5), (30, 0.5)]), kv: share)";
    assert_eq!(nodes(exit, Decisions::Conditional), 1);
    let branches = "IndependentSkips(skip: 0.5, branches: Separately, kv: none)";
    assert_eq!(nodes(branches, Decisions::Conditional), 60);
    let projected = "IndependentSkips(skip: 0.5, branches: Jointly, kv: project_only)";
    assert_eq!(nodes(projected, Decisions::Conditional), 60);
    assert_eq!(nodes(projected, Decisions::Switch), 30);
}

/// A set of layers that is fixed is one graph, whatever the choice; one that changes from token to token is not, even of one sequence.
#[test]
fn one_graph_only_where_the_set_of_layers_is_fixed() {
    let fixed = "StaticDepth(keep: AllBut([3, 4, 17]))";
    let before = passes(&lab(4, Decisions::Known), fixed);
    for decisions in ONE_GRAPH {
        let after = passes(&lab(4, decisions), fixed);
        let lab = lab(4, Decisions::Known);
        assert_eq!(lab.summary(&before), lab.summary(&after), "{decisions:?}");
    }
    let launches = |text: &str| {
        let mut lab = lab(1, Decisions::Known);
        let trace = lab.trace(&method(text), 1, 1, 9, 3);
        let mut time = |graph_us: f64| {
            lab.setup.hardware.launch.graph_us.value = graph_us;
            lab.run(&trace).pass_ps
        };
        // So long that nothing else counts.
        (time(20_000.0) - time(10_000.0)) / (10_000 * 1_000_000)
    };
    assert_eq!(launches("Dense"), 8);
    assert_eq!(launches(fixed), 8);
    assert!(launches(SKIPS) > 8 * 10, "a graph for each group, and for what is before and behind");
}

/// Reading back costs more the longer it takes; decisions that are taken earlier cost no more; and none is worse than to know.
#[test]
fn read_backs_cost_what_they_take() {
    for capture in [vec![], vec![1, 2, 4]] {
        let time = |decisions, readback_us: f64| {
            let mut lab = lab(4, decisions);
            lab.setup.dispatch.capture.clone_from(&capture);
            lab.setup.hardware.launch.readback_us.value = readback_us;
            passes(&lab, ROUTED).makespan
        };
        let known = time(Decisions::Known, 10.0);
        let mut before = known;
        for readback_us in [10.0, 20.0, 50.0, 200.0] {
            let read = time(Decisions::ReadBack, readback_us);
            assert!(read > before, "{readback_us}: {read}");
            for ahead in [1, 3, 8] {
                let fetched = time(Decisions::Prefetch { ahead }, readback_us);
                assert!(known <= fetched && fetched <= read, "{readback_us} {ahead}: {fetched} of {read}");
            }
            before = read;
        }
    }
}

/// Queues cannot know where a token goes before it is decided: each pass of a queue reads back.
#[test]
fn queues_read_back_before_they_choose() {
    let time = |decisions, readback_us: f64| {
        let mut lab = lab(4, decisions).policy(Policy::Queued {
            full: 2,
            wait_us: 100.0,
            hold: radialsim::batch::Hold::Always,
        });
        lab.setup.hardware.launch.readback_us.value = readback_us;
        passes(&lab, ROUTED)
    };
    assert_eq!(time(Decisions::Known, 10.0).makespan, time(Decisions::Known, 100.0).makespan);
    let (read, slow) = (time(Decisions::ReadBack, 10.0), time(Decisions::ReadBack, 100.0));
    assert!(slow.makespan > read.makespan && read.makespan > time(Decisions::Known, 10.0).makespan);
}

/// A layer takes a share of the rows, whoever is in them: more where the share is larger, all of them at 1; too small a share is refused.
#[test]
fn capacity_is_a_number_of_rows() {
    let at = |share| {
        let lab = lab(4, Decisions::Capacity { share });
        let trace = lab.trace(&method(SKIPS), 4, 1, 9, 3);
        let mut setup = lab.setup.clone();
        setup.dispatch.router = radialsim::lower::RouterPlan::FREE;
        run(&setup, &trace, &mut Silent)
    };
    let error = at(0.25).unwrap_err().to_string();
    assert!(
        error.contains("dispatch.decisions.capacity") && error.contains("a layer takes 1 of them"),
        "{error}"
    );
    let whole = at(1.0).expect("everybody has room");
    let known = passes(&lab(4, Decisions::Known), SKIPS);
    assert!(whole.done.flops > known.done.flops, "all rows are computed");
    let most = at(0.75).map_or(whole.done.flops, |ledger| ledger.done.flops);
    assert!(most <= whole.done.flops);
}

fn scenario(settings: &[&str]) -> Result<(), String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/llama-2-70b-skip25-h100.ron");
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    let built = Scenario::load(&path, &settings).and_then(|scenario| scenario.build());
    built.map(|_| ()).map_err(|error| error.to_string())
}

/// What no machine can run is refused, and the reason is said.
#[test]
fn combinations_that_cannot_be_are_refused_by_name() {
    let router = r#"variants.1.router={"kind":"mlp","when":"per_layer","hidden":64,"device":"gpu"}"#;
    let host = r#"variants.1.router={"kind":"mlp","when":"per_layer","hidden":64,"device":"host"}"#;
    let hops = r#"variants.1.router={"kind":"mlp","when":"per_hop","hidden":64,"device":"gpu"}"#;
    let routes = "variants.1.routes=Recorded";
    let capacity = r#"variants.1.decisions={"capacity":{"share":0}}"#;
    let ahead = r#"variants.1.decisions={"prefetch":{"ahead":2}}"#;
    let far = r#"variants.1.decisions={"prefetch":{"ahead":99}}"#;
    for (settings, expected) in [
        (vec!["engine=vlm-v1"], "engine: found vlm-v1"),
        (vec!["engine=webgpu"], "captures no graphs"),
        (vec![routes, router, "variants.1.decisions=known"], "does not know what to launch"),
        (vec![routes, host, "variants.1.decisions=padded"], "the router decides on the host"),
        (vec![routes, router, "variants.1.decisions=padded", "variants.1.policy=hop"], "order of the pool"),
        (vec![routes, router, "variants.1.decisions=padded", "dispatch.capture=[]"], "captured sizes"),
        (vec![routes, router, "variants.1.decisions=switch", "hardware=amd-mi300x"], "conditional nodes"),
        (vec![routes, router, capacity], "above 0, at most 1"),
        (vec![routes, router, far], "1 to 79 layers"),
        (vec![routes, hops, ahead], "a router per_layer"),
    ] {
        let error = scenario(&settings).expect_err("it cannot be");
        assert!(error.contains(expected), "{settings:?}: {error}");
    }
    for decisions in ["read_back", "padded", "conditional", "switch"] {
        let setting = format!("variants.1.decisions={decisions}");
        scenario(&[routes, router, &setting]).unwrap_or_else(|error| panic!("{decisions}: {error}"));
    }
}

/// What comes out for rows to which nothing was fitted.
#[test]
fn published_times_are_met_within_a_quarter() {
    let rows = published().expect("rows that run");
    let kept: Vec<_> = rows.iter().filter(|row| row.row.used == "kept").collect();
    assert!(kept.len() >= 4);
    for row in kept {
        assert!(row.error().abs() < 0.25, "{}: {:.2} for {:.2}", row.row.case, row.ratio(), row.row.ratio());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// As one event or kernel by kernel, whatever the choice (`Lab::run` compares), and with all work done.
    #[test]
    fn both_fidelities_agree_on_every_choice(
        which in 0..5_usize, choice in 0..7_usize, batch in 1..7_u32, count in 1..8_u32, prompt in 1..30_u32, output in 1..8_u32,
        masked in any::<bool>(), captured in any::<bool>(), explain in any::<bool>(), seed in any::<u64>(),
    ) {
        let text = [
            SKIPS, ROUTED, "EarlyExit(exits: Each([(8, 0.5), (30, 0.5)]), kv: copy_state, router: (hidden: 16))",
            "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only, router: (hidden: 64, device: host))",
            "StaticDepth(keep: DropMiddle(depth: 20))",
        ][which];
        let decisions = [
            Decisions::Known, Decisions::ReadBack, Decisions::Prefetch { ahead: 2 }, Decisions::Padded, Decisions::Conditional,
            Decisions::Switch, Decisions::Capacity { share: 1.0 },
        ][choice];
        let mut lab = lab(batch, decisions);
        lab.setup.dispatch.policy = if masked { Policy::DenseMasked } else { Policy::Aligned };
        if !captured {
            lab.setup.dispatch.capture.clear();
        }
        lab.setup.explain = explain;
        let trace: Trace = lab.trace(&method(text), count, prompt, output, seed);
        let ledger = lab.run(&trace);
        prop_assert_eq!(ledger.output_tokens, u64::from(count * output));
    }
}

/// Every engine runs what it can, and says nothing of what it cannot.
#[test]
fn the_same_comparison_under_every_engine() {
    let run = |settings: &[&str]| {
        let all = [&["simulate", crate::cli::EXAMPLE, "--quiet", "--engines"], settings].concat();
        let out = crate::cli::radialsim(&all);
        assert_eq!(out.status.code(), Some(0), "{}", crate::cli::text(&out.stderr));
        crate::cli::text(&out.stdout)
    };
    let requests = r#"workload.requests={"count":2,"lengths":{"prompt":{"Fixed":4},"output":{"Fixed":4}},"arrivals":"Closed"}"#;
    let text =
        run(&["--set", requests, "--set", "dispatch.capture=[1,2]", "--set", "variants.2.decisions=padded"]);
    let (_, table) = text.split_once("The same under other engines").expect("a table");
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
    let cells = |name: &str| -> Vec<String> {
        let line =
            table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {table}"));
        let cells = line[name.len()..].split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    };
    assert_eq!(cells("dense").len(), 1 + ServingEngine::names().count());
    let masked = cells("recorded, masked");
    assert_eq!(masked.iter().filter(|cell| *cell == "-").count(), 5, "engines without graphs: {masked:?}");
}
