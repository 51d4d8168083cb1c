//! Timelines: the picture and the numbers cannot disagree.

use crate::cli::{SKIPS, folder, small};
use radialsim::report::timeline::{Timeline, write};
use radialsim::scenario::{Outcome, Scenario, run};
use serde_json::Value;
use std::collections::BTreeMap;

fn variants() -> String {
    let router = "router: (kind: mlp, when: per_layer, hidden: 64, device: host)";
    format!(
        r#"(name: "dense", routes: Method(Dense)),
        (name: "captured", routes: Method(Dense), capture: [1, 2, 4, 8]),
        (name: "hop", routes: {SKIPS}, policy: hop, {router}),
        (name: "capped", routes: {SKIPS}, policy: grouped, limits: (power_w: 300.0)),
        (name: "queued", routes: {SKIPS}, policy: queued(full: 2, wait_us: 200))"#
    )
}

/// Runs the small scenario and returns the parsed file.
fn timelines(most: u64) -> (Outcome, Value) {
    let folder = folder();
    let scenario = Scenario::load(&small(folder.path(), "t", &variants()), &[]).unwrap();
    let (outcome, timelines) = run(&scenario, 2, &(), |_, setup| Timeline::new(setup, most)).unwrap();
    let named: Vec<_> = outcome.variants.iter().map(|one| one.name.clone()).zip(&timelines).collect();
    let mut file = Vec::new();
    write(&mut file, &named).unwrap();
    (outcome, serde_json::from_slice(&file).expect("a timeline is JSON"))
}

fn events<'a>(file: &'a Value, phase: &'a str, process: usize) -> impl Iterator<Item = &'a Value> {
    let all = file["traceEvents"].as_array().expect("a list of events");
    all.iter().filter(move |event| event["ph"] == phase && event["pid"] == process)
}

fn number(event: &Value, key: &str) -> f64 {
    event[key].as_f64().unwrap_or_else(|| panic!("{key} of {event}"))
}

#[test]
fn the_power_counter_adds_up_to_the_energy() {
    let (outcome, file) = timelines(u64::MAX);
    assert_eq!(file["otherData"]["complete"], true);
    for (index, variant) in outcome.variants.iter().enumerate() {
        let steps: Vec<(f64, f64)> = events(&file, "C", index + 1)
            .filter(|event| event["name"] == "power")
            .map(|event| (number(event, "ts"), number(&event["args"], "W")))
            .collect();
        assert!(steps.len() > 100, "{}: {} steps", variant.name, steps.len());
        let joules: f64 = steps.windows(2).map(|pair| (pair[1].0 - pair[0].0) * 1e-6 * pair[0].1).sum();
        let energy = variant.first().summary.energy_j;
        assert!(
            (joules - energy).abs() <= 1e-9 * energy,
            "{}: {joules} J in the picture, {energy} J in the ledger",
            variant.name
        );
        assert_eq!(steps.first().map(|step| step.0), Some(0.0));
        let end = steps.last().unwrap();
        assert!(
            (end.0 * 1e-6 - variant.first().summary.makespan_s).abs() < 1e-12 && end.1 == 0.0,
            "it ends with the run: {end:?}"
        );
        let peak = steps.iter().map(|step| step.1).fold(0.0, f64::max);
        assert!(
            (peak - variant.first().summary.power_w.peak).abs() <= 1e-9 * peak,
            "{peak} {}",
            variant.first().summary.power_w.peak
        );
    }
}

#[test]
fn every_kernel_is_there_once_and_none_overlaps_another() {
    let (outcome, file) = timelines(u64::MAX);
    for (index, variant) in outcome.variants.iter().enumerate() {
        let mut tracks: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
        let mut kernels = 0;
        let (mut flops, mut bytes) = (0.0, 0.0);
        for event in events(&file, "X", index + 1) {
            let (start, length) = (number(event, "ts"), number(event, "dur"));
            tracks.entry(event["tid"].as_u64().unwrap()).or_default().push((start, start + length));
            if event["args"]["shape"].is_string() {
                kernels += 1;
                flops += number(&event["args"], "flops");
                bytes += number(&event["args"], "dram_bytes");
                assert!(
                    ["cause", "bound", "source"].iter().all(|key| event["args"][key].is_string()),
                    "{event}"
                );
            }
        }
        let work = &variant.first().summary.work;
        assert_eq!(
            (kernels, flops, bytes),
            (work.kernel_launches, work.flops, work.bytes),
            "{}",
            variant.name
        );
        for (track, slices) in &tracks {
            for pair in slices.windows(2) {
                // Half a picosecond: the sum of two decimals in binary.
                assert!(pair[0].1 <= pair[1].0 + 5e-7, "{}, track {track}: {pair:?} overlap", variant.name);
            }
        }
        assert_eq!(tracks.contains_key(&4), variant.name == "hop", "only a router on the host reads back");
        for counter in ["power", "memory", "batch"] {
            let times: Vec<f64> = events(&file, "C", index + 1)
                .filter(|event| event["name"] == counter)
                .map(|event| number(event, "ts"))
                .collect();
            assert!(times.len() > 1 && times.is_sorted_by(|a, b| a < b), "{counter} of {}", variant.name);
        }
        let memory = events(&file, "C", index + 1).filter(|event| event["name"] == "memory");
        let peak = memory.map(|event| event["args"]["bytes"].as_u64().unwrap()).max().unwrap();
        assert!(
            peak <= variant.first().summary.memory_bytes.total_peak
                && peak > variant.first().summary.memory_bytes.weights
        );
    }
}

#[test]
fn a_full_timeline_says_where_it_stopped() {
    let (outcome, file) = timelines(100);
    assert_eq!(file["otherData"]["complete"], false);
    let stops = file["otherData"]["stopped_for_want_of_room"].as_array().unwrap();
    assert_eq!(stops.len(), outcome.variants.len());
    for (index, stop) in stops.iter().enumerate() {
        let kernels = events(&file, "X", index + 1).filter(|event| event["args"]["shape"].is_string());
        assert_eq!(kernels.count(), 100);
        let until = number(stop, "recorded_s") * 1e6;
        assert!(until > 0.0);
        for phase in ["X", "C"] {
            for event in events(&file, phase, index + 1) {
                let end = number(event, "ts") + event["dur"].as_f64().unwrap_or(0.0);
                assert!(end <= until + 1e-5, "{event} after {until}");
            }
        }
    }
}

#[test]
fn each_process_and_track_has_a_name() {
    let (outcome, file) = timelines(10);
    for (index, variant) in outcome.variants.iter().enumerate() {
        let named = |what: &str| {
            let events = events(&file, "M", index + 1).filter(|event| event["name"] == what);
            events.filter_map(|event| event["args"]["name"].as_str()).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(named("process_name"), std::slice::from_ref(&variant.name));
        assert_eq!(named("thread_name"), ["passes", "host", "compute", "copy", "link"]);
    }
}
