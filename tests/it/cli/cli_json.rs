//! What programs read: every key, and the same bytes every time.

use crate::cli::{EXAMPLE, SKIPS, folder, radialsim, small, text};
use serde_json::Value;

/// Kinds of the keys that others read, as JSON pointers.
const NUMBERS: &[&str] = &[
    "requests",
    "prompt_tokens",
    "output_tokens",
    "makespan_s",
    "output_tokens_per_s",
    "energy_j",
    "energy_per_output_token_j",
    "power_w.mean",
    "power_w.peak",
    "memory_bytes.weights",
    "memory_bytes.kv_peak",
    "memory_bytes.activations_peak",
    "memory_bytes.total_peak",
    "memory_bytes.capacity",
    "work.flops",
    "work.bytes",
    "work.kernel_launches",
    "work.layer_visits",
    "work.mean_depth",
    "work.layer_weights_read",
    "busy.host",
    "busy.compute",
    "busy.copy",
    "bounds.critical_path_s",
    "bounds.work_over_peak_s",
    "pass_time_s",
    "device_idle_in_passes_s",
    "ttft_s.mean",
    "ttft_s.p50",
    "ttft_s.p90",
    "ttft_s.p99",
    "tpot_s.mean",
    "tpot_s.p50",
    "tpot_s.p90",
    "tpot_s.p99",
    "e2e_s.mean",
    "e2e_s.p50",
    "e2e_s.p90",
    "e2e_s.p99",
    "ttft_s.max",
    "tpot_s.max",
    "e2e_s.max",
    "requests_per_s",
    "normalized_latency_s.mean",
    "normalized_latency_s.p99",
    "queue_s.mean",
    "queue_s.max",
    "energy_per_request_j.mean",
    "energy_per_request_j.p90",
    "phases.prefill.tokens",
    "phases.prefill.time_s",
    "phases.prefill.energy_j",
    "phases.prefill.energy_per_token_j",
    "phases.decode.tokens",
    "phases.decode.time_s",
    "phases.decode.energy_j",
    "phases.decode.energy_per_token_j",
    "idle_energy_j",
    "preemptions",
    "recomputed_tokens",
    "swapped_bytes",
    "cached_prompt_tokens",
    "kv.block_tokens",
    "kv.block_bytes",
    "kv.blocks",
    "kv.peak_blocks",
    "kv.mean_use",
    "kv.fill",
    "mean_waiting",
    "mean_running",
    "losses_s.dense",
    "losses_s.saving",
    "losses_s.union",
    "losses_s.fragmentation",
    "losses_s.kv",
    "losses_s.router",
    "losses_s.gather_scatter",
    "losses_s.launch",
    "losses_s.waiting",
    "losses_s.other",
    "losses_s.left",
    "time_by_cause_s.embed",
    "time_by_cause_s.attention",
    "time_by_cause_s.feed_forward",
    "time_by_cause_s.adapter",
    "time_by_cause_s.kv",
    "time_by_cause_s.router",
    "time_by_cause_s.gather_scatter",
    "time_by_cause_s.head",
    "time_by_cause_s.launch",
    "time_by_bound_s.compute",
    "time_by_bound_s.dram",
    "time_by_bound_s.l2",
    "time_by_bound_s.fixed",
    "time_by_bound_s.power_cap",
    "time_by_source_s.measured",
    "time_by_source_s.fitted",
    "time_by_source_s.datasheet",
    "time_by_source_s.assumed",
];
const WORDS: &[&str] = &["name", "hardware", "model", "scenario", "policy", "decisions", "engine", "digest"];

#[test]
fn the_json_has_every_key_that_others_read() {
    let folder = folder();
    let json = folder.path().join("out.json");
    let out = radialsim(&["simulate", EXAMPLE, "--json", json.to_str().unwrap(), "--quiet"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let root: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(root["schema"], 1);
    let keys: Vec<&String> = root.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["schema", "variants", "assumed"]);
    let variants = root["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 7);
    for variant in variants {
        let at = |path: &str| {
            variant
                .pointer(&format!("/{}", path.replace('.', "/")))
                .unwrap_or_else(|| panic!("{path} is missing"))
        };
        for path in NUMBERS {
            assert!(at(path).as_f64().is_some_and(f64::is_finite), "{path}: {}", at(path));
        }
        for path in WORDS {
            assert!(at(path).is_string(), "{path}: {}", at(path));
        }
        let sum = |path: &str| at(path).as_object().unwrap().values().filter_map(Value::as_f64).sum::<f64>();
        let busy = at("busy.compute").as_f64().unwrap() * at("makespan_s").as_f64().unwrap();
        for path in ["time_by_cause_s", "time_by_bound_s", "time_by_source_s"] {
            assert!((sum(path) - busy).abs() <= 1e-9 * busy, "{path} adds up to the kernel time");
        }
        let loss = |key: &str| at(&format!("losses_s.{key}")).as_f64().unwrap();
        let left = loss("dense") - at("pass_time_s").as_f64().unwrap();
        assert!(
            (left - loss("left")).abs() < 1e-9,
            "what is left is the real saving: {left} {}",
            loss("left")
        );
    }
    let assumed = root["assumed"].as_array().unwrap();
    assert!(!assumed.is_empty());
    for note in assumed {
        let keys: Vec<&String> = note.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["key", "value", "why"]);
        assert!(note.as_object().unwrap().values().all(Value::is_string));
    }
}

#[test]
fn the_same_bytes_for_any_number_of_threads_and_every_time() {
    let folder = folder();
    let run = |name: &str, threads: &str| {
        let [json, timeline] = ["json", "trace"].map(|ending| folder.path().join(format!("{name}.{ending}")));
        let files = ["--json", json.to_str().unwrap(), "--timeline", timeline.to_str().unwrap()];
        let arguments = ["simulate", EXAMPLE, "--threads", threads, "--timeline-events", "7000"];
        let out = radialsim(&[&arguments[..], &files].concat());
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        (text(&out.stdout), std::fs::read(json).unwrap(), std::fs::read(timeline).unwrap())
    };
    let first = run("a", "1");
    assert!(first == run("b", "1"), "two runs differ");
    assert!(first == run("c", "2"), "one thread and two differ");
    assert!(first.0.lines().all(|line| line.chars().count() <= 120), "the report fits a terminal");
}

#[test]
fn several_scenarios_get_a_table_each_and_one_json() {
    let folder = folder();
    let path = small(folder.path(), "the small one", &format!("(name: \"a\", routes: {SKIPS})"));
    let json = folder.path().join("both.json");
    let out = radialsim(&["simulate", path.to_str().unwrap(), EXAMPLE, "--json", json.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    assert!(
        shown.contains("the small one\n")
            && shown.contains("SmolLM2-135M, recorded routes (skip25), H100 SXM\n")
    );
    let root: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let scenarios: Vec<&str> =
        root["variants"].as_array().unwrap().iter().filter_map(|v| v["scenario"].as_str()).collect();
    assert_eq!((scenarios.len(), scenarios[0]), (8, "the small one"));
    let notes = root["assumed"].as_array().unwrap();
    let distinct: std::collections::HashSet<String> = notes.iter().map(Value::to_string).collect();
    assert_eq!(notes.len(), distinct.len(), "each assumption once");
}
