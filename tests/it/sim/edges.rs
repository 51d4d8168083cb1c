//! Numbers at the edges: whatever a number of a scenario, a profile or a model is set to, there is a finite answer or one error.

use crate::cli::{folder, radialsim, text};
use radialsim::error::{Error, Result};
use radialsim::report::{json, table};
use radialsim::rng::Stream;
use radialsim::scenario::{self, Inputs, Scenario};
use radialsim::sim::Silent;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Scenarios that together have every optional part, so that each number that can be set stands in one of them.
const SCENARIOS: [(&str, &str); 4] = [
    (
        "methods",
        r#"(title: "t", model: "smollm2-135m", hardware: "nvidia-h100-sxm",
    workload: (requests: (count: 3, lengths: (prompt: Uniform(low: 4, high: 6), output: Geometric(mean: 2.0, most: 4)),
        arrivals: Gamma(rate_per_s: 50.0, cv: 1.5), priorities: [(priority: 1, share: 0.5), (priority: 2, share: 0.5)])),
    serving: (max_batched_tokens: 64, max_sequences: 4, chunked_prefill: true, kv_blocks: 4096, queue: priority),
    dispatch: (policy: hop, capture: [1, 2, 4]),
    limits: (power_w: 500.0, clock_mhz: 1500.0),
    slo: (ttft_s: 1.0, tpot_s: 0.1, e2e_s: 5.0),
    fidelity: kernel, seed: 1, seeds: 1,
    variants: [
        (name: "dense", routes: Method(Dense)),
        (name: "last", routes: Method(StaticDepth(keep: DropLast(depth: 20.5)))),
        (name: "but", routes: Method(StaticDepth(keep: AllBut([3, 5])))),
        (name: "width", routes: Method(StaticWidth(keep: 0.5)), sparsity: unstructured(zeros: 0.5, efficiency: 0.5)),
        (name: "exit", routes: Method(EarlyExit(exits: Each([(5, 0.5), (30, 0.5)]), kv: copy_state, router: (hidden: 64)))),
        (name: "depths", routes: Method(MixtureOfDepths(capacity: 0.5, routed: EveryOther, window: 4))),
        (name: "skips", routes: Method(IndependentSkips(skip: 0.3, branches: Separately, keep: [0], kv: project_only,
            router: (hidden: 64, device: host))), router: (kind: mlp, when: per_layer, hidden: 32, device: host)),
        (name: "alike", routes: Method(CorrelatedSkips(skip: 0.3, correlation: 0.5, share: Step, branches: Jointly, kv: write))),
        (name: "loops", routes: Method(Recursion(prefix: 2, suffix: 2, times: Fixed(2), kv: Own))),
        (name: "walk", routes: Method(Radial(transitions: Banded(back: 2, ahead: 4), start: Layer(0), hops: Fixed(12), max_hops: 20))),
        (name: "drafts", routes: Method(DraftVerify(exit_layer: 8, drafts: 3, acceptance: 0.7))),
    ])"#,
    ),
    (
        "tiers",
        r#"(title: "t", model: "smollm2-135m", hardware: "nvidia-h100-sxm", formats: (weights: int8, kv: fp8),
    workload: (requests: (count: 4, lengths: (prompt: LogNormal(median: 9.0, sigma: 0.5, most: 20), output: Fixed(3)),
        arrivals: Weibull(rate_per_s: 50.0, shape: 0.8))),
    serving: (max_batched_tokens: 64, max_sequences: 4, chunked_prefill: true, kv_block_tokens: 4, watermark: 0.02,
        preemption: swap(host_gb: 1.0), prefix_caching: (block_tokens: 4)),
    dispatch: (policy: aligned),
    tiers: (link: rate(gb_per_s: 7.0, latency_us: 100.0), resident: 8, policy: lru, pinned: [0], prefetch: next(2)),
    fidelity: kernel, seed: 1,
    variants: [(name: "dense", routes: Method(Dense)), (name: "own", routes: Method(Dense),
        limits: (power_w: 600.0), tiers: (link: profile, resident: 4, policy: lfu))])"#,
    ),
    (
        "queues",
        r#"(title: "t", model: "smollm2-135m", hardware: "nvidia-h100-sxm.fitted",
    workload: (requests: (count: 4, lengths: (prompt: Fixed(7), output: Fixed(4)),
        arrivals: Clients(count: 2, think_s: Exponential(0.01)))),
    serving: (max_batched_tokens: 64, max_sequences: 4, chunked_prefill: true, async_scheduling: true),
    dispatch: (policy: queued(full: 2, wait_us: 50.0)),
    fidelity: step, seed: 1,
    variants: [(name: "dense", routes: Method(Dense)),
        (name: "walk", routes: Method(Radial(transitions: Uniform, start: Uniform, hops: Each([(4, 0.5), (9, 0.5)]))))])"#,
    ),
    (
        "file",
        r#"(title: "t", model: "smollm2-135m", hardware: "mesa-llvmpipe-1-thread",
    workload: (file: (path: "requests.csv", time_scale: 0.5, start_s: 0.5, duration_s: 10.0, most_requests: 3,
        most_prompt_tokens: 8, most_output_tokens: 3, arrivals: Bursts(size: 2, gap_s: 0.5, within_s: 0.1))),
    serving: (max_batched_tokens: 64, max_sequences: 4, chunked_prefill: true),
    dispatch: (policy: aligned),
    fidelity: step, seed: 1,
    variants: [(name: "dense", routes: Method(Dense)), (name: "fixed", routes: Method(StaticDepth(keep: DropMiddle(depth: 9.0))))])"#,
    ),
];

const REQUESTS: &str = "arrival_time,input_length,output_length\n0.5,9,2\n1.0,4,5\n1.5,6,3\n2.0,3,2\n";

/// The scenarios, written where their files lie.
fn scenarios(folder: &Path) -> Vec<Scenario> {
    std::fs::write(folder.join("requests.csv"), REQUESTS).unwrap();
    let load = |(name, text): &(&str, &str)| {
        let path = folder.join(format!("{name}.ron"));
        std::fs::write(&path, text).unwrap();
        Scenario::load(&path, &[]).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    SCENARIOS.iter().map(load).collect()
}

/// The paths of all numbers of a value, as `--set` takes them. Of long lists the first elements stand for all.
fn numbers(value: &Value, path: &str, all: &mut Vec<String>) {
    let deeper = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Number(_) => all.push(path.to_owned()),
        Value::Object(map) => map.iter().for_each(|(key, value)| numbers(value, &deeper(key), all)),
        Value::Array(list) => {
            let few = list.iter().take(2).enumerate();
            few.for_each(|(index, value)| numbers(value, &deeper(&index.to_string()), all));
        }
        _ => {}
    }
}

/// Every number of a scenario, of its profile and of its model.
fn keys(scenario: &Scenario) -> Vec<String> {
    let inputs = Inputs::default();
    let hardware = inputs.hardware(&scenario.folder, &scenario.hardware).unwrap();
    let model = inputs.model(&scenario.folder, &scenario.model).unwrap();
    let mut all = Vec::new();
    numbers(&json!(scenario), "", &mut all);
    numbers(&json!(*hardware), "hardware", &mut all);
    numbers(&json!(*model), "shape", &mut all);
    all
}

/// More work than this is a long run and no edge.
const MOST_TOKENS: u64 = 3000;

/// Whether the run would be long for its workload, by what the scenario asks for.
fn is_long(scenario: &Scenario, inputs: &Inputs) -> Result<bool> {
    if scenario.seeds > 4 || scenario.workload.requests.as_ref().is_some_and(|requests| requests.count > 1000)
    {
        return Ok(true);
    }
    // Drawing the routes of long requests takes as long as running them.
    let asked = json!(scenario.workload);
    let mut all = Vec::new();
    numbers(&asked, "", &mut all);
    let lengths = all.iter().filter(|path| path.contains("lengths."));
    let tokens = lengths.filter_map(|path| asked.pointer(&format!("/{}", path.replace('.', "/")))?.as_f64());
    if tokens.fold(0.0, f64::max) > MOST_TOKENS as f64 {
        return Ok(true);
    }
    let (built, _) = scenario.build_with(inputs)?;
    let visits = |built: &scenario::Built| {
        let tokens = built
            .trace
            .requests
            .iter()
            .map(|request| u64::from(request.prompt_tokens) + u64::from(request.output_tokens));
        let listed = built.trace.routes.iter().map(|route| route.0.len() as u64).max();
        let longest = built.later.as_ref().map_or(listed, |later| Some(later.longest().into())).unwrap_or(0);
        tokens.sum::<u64>() * longest.max(u64::from(built.setup.model.layers))
    };
    Ok(built.iter().map(visits).sum::<u64>() > MOST_TOKENS * 60)
}

/// Sets one key and runs. True where there was an answer, false where there was an error; an error text for all else.
fn outcome(
    scenario: &Scenario,
    inputs: &Inputs,
    key: &str,
    value: &Value,
) -> std::result::Result<Option<bool>, String> {
    let work = || -> Result<Option<()>> {
        let set = scenario.with_values(&[(key, value)])?;
        if is_long(&set, inputs)? {
            return Ok(None);
        }
        let (outcome, _) = scenario::run_with(inputs, &set, 1, &(), |_, _| Silent)?;
        // Refuses what is not finite.
        let _ = json::render(std::slice::from_ref(&outcome));
        let _ = table::render(&outcome);
        Ok(Some(()))
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done.map(|()| true)),
        Ok(Err(Error::Input(error))) if !error.expected.is_empty() => Ok(Some(false)),
        Ok(Err(error)) => Err(format!("{key}={value}: {error}")),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or(panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            Err(format!("--set {key}={value}: panic: {}", said.unwrap_or_default()))
        }
    }
}

/// Values that every key meets.
fn always() -> Vec<Value> {
    vec![json!(0), json!(-1), json!(u64::MAX), json!(i64::MIN), json!(1e-300), json!(1e300), json!("NaN")]
}

/// A number of some decade from 1e-15 to 1e15, near the one that stands there as often as not.
fn drawn(stream: &mut Stream, now: Option<f64>) -> Value {
    let mantissa = 1.0 + 9.0 * stream.uniform();
    let decade = libm::pow(10.0, stream.below(31) as f64 - 15.0);
    match (stream.below(6), now) {
        (0, _) => json!((mantissa * decade).round() as u64),
        (1, _) => json!(-mantissa * decade),
        (2 | 3, Some(now)) if now != 0.0 => {
            json!(now * libm::pow(10.0, stream.below(61) as f64 / 10.0 - 3.0))
        }
        _ => json!(mantissa * decade),
    }
}

/// Each number of every scenario, profile and model over 30 decades. `RADIALSIM_EDGES` says how many values each takes beyond those that
/// all take, and draws them by another seed each time; without it the values are the same each time. A failure names the setting.
#[test]
fn every_number_gives_an_answer_or_an_error() {
    let folder = folder();
    let asked = std::env::var("RADIALSIM_EDGES").ok().and_then(|text| text.parse().ok());
    let rounds: u64 = asked.unwrap_or(1);
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let seed = asked.map_or(1, |_| now());
    let mut stream = Stream::new(seed, "edges");
    let (mut answers, mut errors, mut long, mut wrong) = (0, 0, 0, Vec::new());
    for scenario in scenarios(folder.path()) {
        let inputs = Inputs::default();
        let hardware = inputs.hardware(&scenario.folder, &scenario.hardware).unwrap();
        let all = keys(&scenario);
        assert!(all.len() > 60, "{}", all.len());
        for (place, key) in all.iter().enumerate() {
            let now = scenario.number(key, &hardware).and_then(|number| number.as_f64());
            let all_take = always();
            // Of those that all take, each round of keys takes two, and all of them over a few keys or runs.
            let some = (0..2)
                .map(|at| all_take[(place * 2 + at).wrapping_add(seed as usize) % all_take.len()].clone());
            let random: Vec<Value> = (0..rounds).map(|_| drawn(&mut stream, now)).collect();
            for value in some.chain(random) {
                match outcome(&scenario, &inputs, key, &value) {
                    Ok(Some(true)) => answers += 1,
                    Ok(Some(false)) => errors += 1,
                    Ok(None) => long += 1,
                    Err(said) => wrong.push(said),
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong of {answers} answers, {errors} errors\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        answers > 100 && errors > 100 && long < answers,
        "{answers} answers, {errors} errors, {long} long"
    );
}

/// JSON has no NaN, RON has: in the place of each number of the text.
#[test]
fn numbers_that_are_none_are_refused() {
    let folder = folder();
    let mut refused = 0;
    for (scenario, (_, text)) in scenarios(folder.path()).iter().zip(SCENARIOS) {
        let inputs = Inputs::default();
        let digit = |c: char| c.is_ascii_digit();
        let starts: Vec<usize> = text.match_indices(digit).map(|(at, _)| at).collect();
        for start in starts.into_iter().filter(|&at| text[..at].ends_with([' ', '(', '['])) {
            let length = text[start..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(0);
            let path = folder.path().join("odd.ron");
            for odd in ["NaN", "inf", "-inf"] {
                let changed = format!("{}{odd}{}", &text[..start], &text[start + length..]);
                std::fs::write(&path, &changed).unwrap();
                let run = || {
                    let set = Scenario::load(&path, &[])?;
                    assert_eq!(set.folder, scenario.folder);
                    scenario::run_with(&inputs, &set, 1, &(), |_, _| Silent).map(drop)
                };
                match catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Err(Error::Input(_))) => refused += 1,
                    Ok(other) => panic!("{odd} at {}: {other:?}", &text[start.saturating_sub(30)..start]),
                    Err(_) => panic!("{odd} panics at {}", &text[start.saturating_sub(30)..start]),
                }
            }
        }
    }
    assert!(refused > 200, "{refused}");
}

const BASE: &str = r#"(title: "t", model: "llama-3.1-8b", hardware: "nvidia-h100-sxm",
    workload: (requests: (count: 8, lengths: (prompt: Fixed(512), output: Fixed(64)), arrivals: Closed)),
    serving: (max_batched_tokens: 2048, max_sequences: 8, chunked_prefill: true),
    dispatch: (policy: aligned), seed: 1,
    variants: [(name: "dense", routes: Method(Dense)),
        (name: "skip", routes: Method(IndependentSkips(skip: 0.25, branches: Jointly, keep: [0], kv: project_only)))])"#;

/// Exit code, standard output and standard error of `simulate` with these settings.
fn simulate(folder: &Path, settings: &[&str], more: &[&str]) -> (Option<i32>, String, String) {
    let path = folder.join("base.ron");
    std::fs::write(&path, BASE).unwrap();
    let sets = settings.iter().flat_map(|setting| ["--set", setting]);
    let words: Vec<&str> =
        ["simulate", path.to_str().unwrap()].into_iter().chain(sets).chain(more.iter().copied()).collect();
    let out = radialsim(&words);
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// What cannot be counted in 64 bits is one error that names the setting.
#[test]
fn beyond_what_is_counted_is_an_error_that_names_the_setting() {
    let folder = folder();
    for (setting, key) in [
        ("hardware.memory.dram_gb_per_s=1e-6", "hardware.memory.dram_gb_per_s"),
        ("hardware.compute.matrix_f16_tflops=0.000001", "hardware.compute.matrix_f16_tflops"),
        ("hardware.kernels.matmul.bytes=1e-12", "hardware.kernels.matmul.bytes"),
        ("hardware.kernels.matmul.flops=1e-12", "hardware.kernels.matmul.flops"),
        ("hardware.launch.step_us=1e9", "hardware.launch.step_us"),
    ] {
        // A profile that no fit has changed: what is set counts as it is.
        let settings = ["hardware=nvidia-h100-pcie", "workload.requests.lengths.output.Fixed=20000", setting];
        let shorter = ["hardware=nvidia-h100-pcie", setting];
        let settings = if setting.contains("step_us") { &settings[..] } else { &shorter };
        let (code, out, said) = simulate(folder.path(), settings, &["--quiet"]);
        assert_eq!((code, out.as_str(), said.lines().count()), (Some(2), "", 1), "{setting}: {said}");
        assert!(
            said.starts_with(&format!("error: {key}: found ")) && said.contains("213 days"),
            "{setting}: {said}"
        );
    }
    // A cap a hair above the static power is held as far as it can be.
    let hair = ["hardware=nvidia-h100-pcie", "limits.power_w=107.500000000001"];
    let (code, _, said) = simulate(folder.path(), &hair, &["--quiet"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let far = "workload.requests.arrivals={\"Every\":{\"gap_s\":1e7}}";
    let (code, _, said) = simulate(folder.path(), &[far], &["--quiet"]);
    assert!(code == Some(2) && said.contains("arrivals within the 213 days"), "{said}");
}

/// More than 2^64 picojoules (18 MJ, 7 hours at 700 W) are counted, in a pass and over a run.
#[test]
fn energy_beyond_64_bits_is_counted() {
    let folder = folder();
    let slow =
        ["hardware=nvidia-h100-pcie", "hardware.memory.dram_gb_per_s=0.0004", "hardware.power.static_w=300"];
    let file = folder.path().join("out.json");
    let (code, _, said) = simulate(folder.path(), &slow, &["--quiet", "--json", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let out: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for variant in out["variants"].as_array().unwrap() {
        let number = |key: &str| variant.pointer(key).and_then(Value::as_f64).unwrap();
        let (energy, makespan) = (number("/energy_j"), number("/makespan_s"));
        // A pass reads 10 to 16 GB in at least 30,000 s at 300 W and more, and there are 65.
        assert!(makespan > 65.0 * 3e4 && energy > 300.0 * makespan, "{energy} J in {makespan} s");
        assert!(energy > 20.0 * 1.8e7 && energy < 350.0 * makespan, "{energy} J in {makespan} s");
        let parts = number("/phases/prefill/energy_j") + number("/phases/decode/energy_j");
        let of_requests = 8.0 * number("/energy_per_request_j/mean");
        assert!((parts / of_requests - 1.0).abs() < 1e-12 && (parts / energy - 1.0).abs() < 1e-6);
    }
}

/// A number in another unit than its key's: said on standard error, in the table and in the JSON, with what to write.
#[test]
fn a_number_in_another_unit_is_remarked() {
    let folder = folder();
    let file = folder.path().join("out.json");
    for (setting, key, meant) in [
        (
            "hardware.memory.dram_gb_per_s=3.35",
            "hardware.memory.dram_gb_per_s",
            "3.35 TB/s was meant, write 3350",
        ),
        ("hardware.memory.capacity_gb=80e9", "hardware.memory.capacity_gb", "8.000e10 B was meant, write 80"),
        ("limits.power_w=700000", "limits.power_w", "700000 mW was meant, write 700"),
        (
            "variants.1.limits.power_w=700000",
            "variants.skip.limits.power_w",
            "700000 mW was meant, write 700",
        ),
        ("hardware.launch.kernel_us=0.003", "hardware.launch.kernel_us", "0.003 ms was meant, write 3"),
    ] {
        let (code, out, said) =
            simulate(folder.path(), &[setting], &["--full", "--json", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        let warning =
            said.lines().find(|line| line.starts_with(&format!("warning: {key} = "))).unwrap_or_default();
        assert!(warning.contains(meant), "{setting}: {said}");
        assert!(out.contains(key.rsplit('.').next().unwrap()), "{out}");
        let out: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let notes = out["assumed"].as_array().unwrap();
        let doubted: Vec<&Value> = notes.iter().filter(|note| note["doubt"] == json!(true)).collect();
        assert_eq!((doubted.len(), &doubted[0]["key"]), (1, &json!(key)), "{setting}");
    }
    // What is refused says so, too.
    for (setting, meant) in [
        ("hardware.memory.dram_gb_per_s=3350000", "3350000 MB/s was meant, write 3350"),
        ("limits.power_w=0.7", "0.7 kW was meant, write 700"),
        ("limits.clock_mhz=1.83", "1.83 GHz was meant, write 1830"),
        ("limits.clock_mhz=1830000", "1830000 kHz was meant, write 1830"),
    ] {
        let (code, _, said) = simulate(folder.path(), &[setting], &["--quiet"]);
        assert!(code == Some(2) && said.contains(meant), "{setting}: {said}");
    }
    for setting in [
        "hardware.memory.dram_gb_per_s=335",
        "hardware.memory.dram_gb_per_s=1000",
        "hardware.memory.capacity_gb=8000",
        "hardware.launch.kernel_us=0",
        "limits.power_w=300",
        "limits.clock_mhz=198",
    ] {
        let (code, _, said) = simulate(folder.path(), &[setting], &[]);
        assert!(code == Some(0) && !said.contains("warning"), "{setting}: {said}");
    }
}

/// A profile of one's own is held against the shipped one that it was made of.
#[test]
fn a_profile_in_another_unit_is_remarked() {
    let folder = folder();
    let text = std::fs::read_to_string("hw-profiles/nvidia-h100-sxm.ron").unwrap();
    let own = |from: &str, to: &str, name: &str| {
        let changed =
            text.replacen(from, to, 1).replace("name: \"nvidia-h100-sxm\"", &format!("name: {name:?}"));
        assert_ne!(changed, text, "{from}");
        let path = folder.path().join("own.ron");
        std::fs::write(&path, changed).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for name in ["nvidia-h100-sxm", "mine"] {
        let path = own("dram_gb_per_s: (value: 3350", "dram_gb_per_s: (value: 3.35", name);
        let (code, _, said) = simulate(folder.path(), &[&format!("hardware={path}")], &[]);
        assert!(code == Some(0) && said.contains("3.35 TB/s was meant"), "{name}: {said}");
        let out = text_of(&["inspect", "hw", &path]);
        assert!(out.contains("doubt") && out.contains("3.35 TB/s was meant"), "{out}");
    }
    let path = own("dram_gb_per_s: (value: 3350", "dram_gb_per_s: (value: 6700", "mine");
    let (_, _, said) =
        simulate(folder.path(), &[&format!("hardware={path}"), "hardware.memory.l2_gb_per_s=9000"], &[]);
    assert!(!said.contains("warning"), "{said}");
}

fn text_of(words: &[&str]) -> String {
    let out = radialsim(words);
    text(&out.stdout) + &text(&out.stderr)
}

/// A key that is not there is answered with the nearest one, wherever it stands.
#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    let folder = folder();
    for (setting, meant) in [
        ("serving.max_sequence=8", "max_sequences"),
        ("serving.max_seqs=8", "max_sequences"),
        ("servng.max_sequences=8", "serving"),
        ("hardware.memory.dram_gbps=8", "dram_gb_per_s"),
        ("hardware.memory.capacity=8", "capacity_gb"),
        ("hardware.memry.capacity_gb=8", "memory"),
        ("dram_gb_per_s=8", "hardware.memory.dram_gb_per_s"),
        ("max_sequences=8", "serving.max_sequences"),
        ("shape.layer=8", "layers"),
        ("limits.power=300", "power_w"),
        ("formats.kvs=fp8", "kv"),
        ("variants.1.limits.clock=300", "clock_mhz"),
        ("dispatch.policy=hopp", "hop"),
        ("dispatch.policy={\"queued\":{\"ful\":2,\"wait_us\":5}}", "full"),
        ("hardware=nvidia-h100-smx", "nvidia-h100-sxm"),
        ("formats.kv=fp88", "fp8"),
    ] {
        let (code, _, said) = simulate(folder.path(), &[setting], &["--quiet"]);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{setting}: {said}");
        assert!(said.trim_end().ends_with(&format!("did you mean {meant}?")), "{setting}: {said}");
    }
    for (from, to, meant) in [
        ("seed: 1", "sed: 1", "seed"),
        ("chunked_prefill", "chunk_prefill", "chunked_prefill"),
        ("aligned", "alined", "aligned"),
    ] {
        let path = folder.path().join("typo.ron");
        std::fs::write(&path, BASE.replacen(from, to, 1)).unwrap();
        let said = text_of(&["simulate", path.to_str().unwrap()]);
        assert!(said.trim_end().ends_with(&format!("did you mean {meant}?")), "{said}");
    }
}

/// Keys of what a file leaves out are set one by one.
#[test]
fn a_key_of_what_is_left_out_is_set_alone() {
    let folder = folder();
    std::fs::write(folder.path().join("base.ron"), BASE).unwrap();
    let with = |settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Scenario::load(&folder.path().join("base.ron"), &settings)
            .unwrap_or_else(|error| panic!("{settings:?}: {error}"))
    };
    let model = |settings: &[&str]| with(settings).build().unwrap().0.remove(0).setup.model;
    let (own, set) = (model(&[]), model(&["formats.kv=fp8"]));
    assert_eq!(set.kv.to_string(), "fp8");
    assert_eq!(
        (set.weights, set.activations, set.embedding_weights),
        (own.weights, own.activations, own.embedding_weights)
    );
    let all = model(&["formats.weights=fp8", "formats.activations=f16", "formats.kv=int8"]);
    let formats =
        [all.weights, all.activations, all.kv, all.embedding_weights].map(|format| format.to_string());
    assert_eq!(formats, ["fp8", "f16", "int8", "f16"]);

    let set = with(&["serving.prefix_caching.block_tokens=64", "limits.clock_mhz=1500", "slo.ttft_s=1"]);
    assert_eq!(set.serving.prefix_block(), Some(64));
    let set = with(&["limits.clock_mhz=1500", "variants.1.limits.power_w=400"]);
    let limits = set.variants[1].limits.expect("it was set");
    assert_eq!((limits.power_w, limits.clock_mhz), (Some(400.0), Some(1500.0)), "the rest is what it was");
    assert_eq!(set.variants[0].limits, None);
    // What has no default is set together.
    let tiers = ["tiers.link=pcie4", "tiers.resident=4", "tiers.policy=lru"];
    assert_eq!(with(&tiers).tiers.expect("set").resident, 4);
    let (code, _, said) = simulate(folder.path(), &tiers[1..], &["--quiet"]);
    assert!(code == Some(2) && said.contains("tiers.resident") && said.contains("link"), "{said}");
    let set = with(&["hardware.memory.l2_peak_gb_per_s=9000"]);
    let hardware = &set.build().unwrap().0[0].setup.hardware;
    assert_eq!(hardware.memory.l2_peak_gb_per_s.as_ref().map(|number| number.value), Some(9000.0));
}
