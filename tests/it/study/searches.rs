//! What searches find: against scans of every value, and against closed forms.

use crate::cli::folder;
use radialsim::scenario::{self, Scenario};
use radialsim::sim::Silent;
use radialsim::study::{self, Axis, Finding, Shard, Study};
use serde_json::{Value, json};
use std::path::Path;

/// A study over a scenario, swept and merged: what its searches found.
fn answers(scenario: &str, study: &str) -> (Study, Vec<Finding>) {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("scenario.ron", scenario);
    write("study.ron", &format!("(title: \"t\", question: \"q\", scenario: \"scenario.ron\", {study})"));
    let study = Study::load(&folder.path().join("study.ron")).unwrap_or_else(|error| panic!("{error}"));
    let out = folder.path().join("out");
    study::sweep(&study, &out, Shard::WHOLE, 2, &()).unwrap_or_else(|error| panic!("{error}"));
    let answers = study::merge(&study, &[out]).unwrap().answers;
    (study, answers)
}

/// A scenario of requests that all come at once, on the ideal device but for `hardware`.
fn scenario(hardware: &str, requests: &str, variants: &str) -> String {
    format!(
        r#"(
    title: "t", model: "smollm2-135m", hardware: "{hardware}",
    workload: (requests: {requests}),
    serving: (max_batched_tokens: 512, max_sequences: 1, chunked_prefill: true),
    dispatch: (policy: aligned), fidelity: step, seed: 3, variants: [{variants}],
)"#
    )
}

/// A metric of every variant with these keys, straight from the simulator.
fn direct(base: &Scenario, keys: &[(&str, Value)], metric: &str) -> Vec<f64> {
    let keys: Vec<(&str, &Value)> = keys.iter().map(|(key, value)| (*key, value)).collect();
    let scenario = base.with_values(&keys).unwrap();
    let (outcome, _) = scenario::run(&scenario, 1, &(), |_, _| Silent).unwrap();
    let path = format!("/{}", metric.replace('.', "/"));
    let number = |variant: &scenario::VariantOutcome| {
        variant.mean(|run| radialsim::report::json::run(run).pointer(&path).unwrap().as_f64().unwrap())
    };
    outcome.variants.iter().map(number).collect()
}

const BATCH: [&str; 2] = ["serving.max_sequences", "workload.requests.count"];

/// Whole axes end at neighbours, which a scan of every batch finds, too; on an even number of borders between two listed values nothing is
/// found, so the list is fine enough here.
#[test]
fn break_even_agrees_with_a_scan() {
    let variants = "(name: \"dense\", routes: Method(Dense)),
        (name: \"skips\", routes: Method(IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only))),
        (name: \"shared\", routes: Method(CorrelatedSkips(skip: 0.25, correlation: 1, share: Step, branches: Jointly, kv: none)))";
    let requests = "(count: 1, lengths: (prompt: Fixed(1), output: Fixed(9)), arrivals: Closed)";
    let (study, found) = answers(
        &scenario("nvidia-h100-sxm", requests, variants),
        r#"axes: [LogRange(name: "batch", key: "serving.max_sequences", also: ["workload.requests.count"], from: 1, to: 64, count: 7, whole: true)],
           objectives: [Least("pass_time_s")],
           searches: [BreakEven(axis: "batch", variants: ["skips", "shared"], against: "dense", of: Least("pass_time_s"))]"#,
    );
    let better: Vec<[bool; 2]> = (1..=64)
        .map(|batch: u64| {
            let keys = BATCH.map(|key| (key, json!(batch)));
            let times = direct(&study.base, &keys, "pass_time_s");
            [times[1] < times[0], times[2] < times[0]]
        })
        .collect();
    for (place, name) in ["skips", "shared"].into_iter().enumerate() {
        let scanned: Vec<String> = (1..64)
            .filter(|&batch| better[batch - 1][place] != better[batch][place])
            .map(|batch| {
                let (was, is) =
                    if better[batch - 1][place] { ("better", "worse") } else { ("worse", "better") };
                format!("{was} up to {batch}, {is} from {}", batch + 1)
            })
            .collect();
        let found: Vec<&str> = found
            .iter()
            .filter(|answer| answer.variant == name)
            .map(|answer| answer.words.as_str())
            .collect();
        match scanned.as_slice() {
            [] => assert_eq!(found, ["better at every value"], "{name}"),
            borders => assert_eq!(found, borders, "{name}"),
        }
    }
    assert!(better.iter().any(|one| !one[0]) && better[0][0], "the skips of single tokens stop paying");
    assert!(better.iter().all(|one| one[1]), "shared skips always pay");
}

/// Along the correlation of skips, static removal of less depth is the opponent: the border lies where a scan has it.
#[test]
fn break_even_along_the_skip_correlation() {
    let variants = "(name: \"static\", routes: Method(StaticDepth(keep: DropLast(depth: 27)))),
        (name: \"dynamic\", routes: Method(CorrelatedSkips(skip: 0.3, correlation: 0.5, share: Step, branches: Jointly, kv: none)))";
    let requests = "(count: 8, lengths: (prompt: Fixed(1), output: Fixed(17)), arrivals: Closed)";
    let key = "variants.1.routes.Method.CorrelatedSkips.correlation";
    let (study, found) = answers(
        &scenario("ideal", requests, variants).replace("max_sequences: 1", "max_sequences: 8"),
        &format!(
            "axes: [Range(name: \"correlation\", key: \"{key}\", from: 0, to: 1, count: 2)], objectives: [Least(\"tpot_s.mean\")],
             searches: [BreakEven(axis: \"correlation\", variants: [\"dynamic\"], against: \"static\", of: Least(\"tpot_s.mean\"), tolerance: 0.001)]"
        ),
    );
    let [answer] = found.as_slice() else { panic!("{found:?}") };
    let border = answer.value.expect("a border");
    let gain = |correlation: f64| {
        let times = direct(&study.base, &[(key, json!(correlation))], "tpot_s.mean");
        times[0] - times[1]
    };
    assert!(gain(border * 0.999) < 0.0 && gain(border * 1.001) > 0.0, "{answer:?}");
    assert!((0.3..1.0).contains(&border), "{border}");
}

#[test]
fn capacity_agrees_with_a_scan() {
    let variants = "(name: \"dense\", routes: Method(Dense)), (name: \"half\", routes: Method(StaticDepth(keep: DropLast(depth: 15))))";
    let requests =
        "(count: 120, lengths: (prompt: Fixed(8), output: Fixed(12)), arrivals: Poisson(rate_per_s: 1))";
    let key = "workload.requests.arrivals.Poisson.rate_per_s";
    let bound = 0.02;
    let (study, found) = answers(
        &scenario("ideal", requests, variants),
        &format!(
            "axes: [LogRange(name: \"rate\", key: \"{key}\", from: 1, to: 4096, count: 4)], objectives: [Most(\"requests_per_s\")],
             constraints: [AtMost(\"ttft_s.p99\", {bound})],
             searches: [Capacity(axis: \"rate\", tolerance: 0.01, most_seeds: 1)]"
        ),
    );
    assert_eq!(found.len(), 2);
    for (place, answer) in found.iter().enumerate() {
        let capacity = answer.value.expect("a capacity");
        let holds = |rate: f64| direct(&study.base, &[(key, json!(rate))], "ttft_s.p99")[place] <= bound;
        assert!(holds(capacity) && !holds(capacity * 1.011), "{answer:?}");
        // Upwards, nothing fails before and nothing holds behind.
        let scan: Vec<f64> = (-20..=20).map(|step| capacity * 1.05_f64.powi(step)).collect();
        for rate in scan {
            assert_eq!(holds(rate), rate <= capacity * 1.005, "{rate} against {capacity}");
        }
    }
    assert!(found[1].value > found[0].value, "half the layers carry more");
}

/// One server, Poisson arrivals, answers of geometric length, which is as good as exponential: M/M/1 but for the steps of a token. The mean
/// time in the system of M/G/1 is E S + r E S^2 / (2 (1 - r E S)) at the rate r (Pollaczek and Khinchine); with a bound W on it the
/// capacity is r = 2 (W - E S) / (E S^2 + 2 E S (W - E S)).
#[test]
fn capacity_of_an_m_m_1_like_server_is_that_of_its_closed_form() {
    const MEAN: f64 = 25.0;
    let requests = "(count: 1500, lengths: (prompt: Fixed(1), output: Geometric(mean: 25, most: 100000)), arrivals: Poisson(rate_per_s: 1))";
    let variants = "(name: \"dense\", routes: Method(Dense))";
    let text = scenario("ideal", requests, variants);
    // A token takes a pass, and a pass takes as long as reading the weights; keys and values of so few tokens are nothing beside them.
    let alone = |tokens: u32| {
        let requests =
            format!("(count: 1, lengths: (prompt: Fixed(1), output: Fixed({tokens})), arrivals: Closed)");
        let folder = folder();
        let path = folder.path().join("alone.ron");
        std::fs::write(&path, scenario("ideal", &requests, variants)).unwrap();
        direct(&Scenario::load(&path, &[]).unwrap(), &[], "e2e_s.mean")[0]
    };
    let token_s = alone(25) / 25.0;
    assert!((alone(200) / (200.0 * token_s) - 1.0).abs() < 0.02 && (alone(1) / token_s - 1.0).abs() < 0.02);
    let mean = MEAN * token_s;
    let square = (2.0 * MEAN * MEAN - MEAN) * token_s * token_s;
    let bound = 2.5 * mean;
    let expected = |square: f64| 2.0 * (bound - mean) / (square + 2.0 * mean * (bound - mean));
    let exponential = 1.0 / mean - 1.0 / bound;
    assert!((expected(square) / exponential - 1.0).abs() < 0.01, "as good as M/M/1");

    let (_, found) = answers(
        &text,
        &format!(
            "seeds: 6,
             axes: [LogRange(name: \"rate\", key: \"workload.requests.arrivals.Poisson.rate_per_s\", from: {}, to: {}, count: 3)],
             objectives: [Most(\"requests_per_s\")], constraints: [AtMost(\"e2e_s.mean\", {bound})],
             searches: [Capacity(axis: \"rate\", tolerance: 0.01, most_seeds: 12)]",
            0.2 / mean,
            0.95 / mean
        ),
    );
    let [answer] = found.as_slice() else { panic!("{found:?}") };
    let (capacity, low, high) = (answer.value.unwrap(), answer.low.unwrap(), answer.high.unwrap());
    assert!((capacity / expected(square) - 1.0).abs() < 0.03, "{capacity} against {}", expected(square));
    assert!(
        low < expected(square) && expected(square) < high,
        "{low} to {high} against {}",
        expected(square)
    );
    // The interval tells this service from one of constant length.
    assert!(!(low..high).contains(&expected(mean * mean)), "{low} to {high}");
}

/// Where memory alone counts, time is bytes over bandwidth and nothing else matters; energy is static power for that time and what bytes and
/// flops take.
#[test]
fn elasticities_on_the_ideal_device_are_those_of_its_formula() {
    let requests = "(count: 1, lengths: (prompt: Fixed(1), output: Fixed(9)), arrivals: Closed)";
    let (_, found) = answers(
        &scenario("ideal", requests, "(name: \"dense\", routes: Method(Dense))"),
        "objectives: [Least(\"pass_time_s\"), Least(\"energy_j\")], searches: [Sensitivity(step: 0.01)]",
    );
    let of = |key: &str, metric: &str| {
        let is_it = |answer: &&Finding| answer.moved == format!("hardware.{key}") && answer.about == metric;
        found.iter().find(is_it).unwrap_or_else(|| panic!("{key}")).value
    };
    let near =
        |value: Option<f64>, expected: f64| assert!((value.unwrap() - expected).abs() < 2e-3, "{value:?}");
    near(of("memory.dram_gb_per_s", "pass_time_s"), -1.0);
    near(of("power.pj_per_byte", "pass_time_s"), 0.0);
    let energy =
        ["power.static_w", "power.pj_per_byte", "power.pj_per_flop"].map(|key| of(key, "energy_j").unwrap());
    near(Some(energy.iter().sum()), 1.0);
    assert!(energy.iter().all(|share| *share > 0.0));
    // Static power is drawn as long as memory is read.
    near(of("memory.dram_gb_per_s", "energy_j"), -energy[0]);
}

/// The examples load, and ask what can be asked.
#[test]
fn every_example_study_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/studies");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".ron") {
            continue;
        }
        if name.ends_with(".scenario.ron") {
            Scenario::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        } else {
            Study::load(&path).unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
    }
    assert!(count >= 5, "{count} studies");
}

/// The examples run: thinned to the ends of their axes, with one seed.
#[test]
fn every_example_study_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/studies");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if name.ends_with(".scenario.ron") || !name.ends_with(".ron") {
            continue;
        }
        let mut study = Study::load(&path).unwrap();
        study.base.seeds = 1;
        let axes: Vec<Axis> = study.spec.axes.iter().map(ends).collect();
        study.grid = study::Grid::new(&axes).unwrap();
        let out = crate::cli::folder();
        study::sweep(&study, out.path(), Shard::WHOLE, 2, &())
            .unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let assembly = study::merge(&study, &[out.path().to_owned()]).unwrap();
        let report = study::report(&assembly, "command", 2).unwrap();
        assert_eq!(report.failed, None, "{path:?}");
        assert!(report.charts.len() >= 5, "{path:?}: {} charts", report.charts.len());
        assert_eq!(assembly.answers.is_empty(), study.spec.searches.is_empty(), "{path:?}");
    }
}

/// The axis with its first and last value, or a few samples.
fn ends(axis: &Axis) -> Axis {
    let mut axis = axis.clone();
    match &mut axis {
        Axis::Values { values, labels, .. } => {
            values.drain(1..values.len() - 1);
            if !labels.is_empty() {
                labels.drain(1..labels.len() - 1);
            }
        }
        Axis::Range { count, .. } | Axis::LogRange { count, .. } => *count = count.map(|_| 2),
        Axis::Zip(axes) | Axis::Product(axes) => axes.iter_mut().for_each(|axis| *axis = ends(axis)),
        Axis::Random { count, .. } | Axis::Sobol { count, .. } => *count = 16,
    }
    axis
}
