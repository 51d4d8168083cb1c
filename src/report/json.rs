//! `simulate --json`: keys that others read. Version 1; keys are added, never renamed.

use super::cells::SOURCES;
use super::cells::seconds;
use super::errors;
use super::saved;
use crate::cost::Bound;
use crate::lower::Cause;
use crate::metrics::{ErrorBar, ErrorKind, Estimate, Interval, Losses, PARTS, Tally};
use crate::scenario::{LEVEL, Note, Outcome, SeedRun, VariantOutcome};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Version of the object.
pub const SCHEMA: u32 = 1;

/// The object of these scenarios, in their order, as text that ends with a line break.
///
/// # Panics
/// Where a number is not finite: a defect of the simulator.
pub fn render(outcomes: &[Outcome]) -> String {
    let variants: Vec<Map<String, Value>> = outcomes.iter().flat_map(variants).collect();
    let mut seen = HashSet::new();
    let notes = outcomes.iter().flat_map(|outcome| &outcome.assumed);
    let assumed: Vec<&Note> = notes.filter(|note| seen.insert(*note)).collect();
    let object = json!({ "schema": SCHEMA, "variants": variants, "assumed": assumed });
    serde_json::to_string_pretty(&object).expect("a value with text keys is JSON") + "\n"
}

/// An object for each variant of a scenario, in its order.
///
/// # Panics
/// Where a number is not finite: a defect of the simulator.
pub fn variants(outcome: &Outcome) -> Vec<Map<String, Value>> {
    let mut objects: Vec<_> = outcome.variants.iter().map(|one| variant(&outcome.title, one)).collect();
    for (object, one) in objects.iter_mut().zip(&outcome.variants).skip(1) {
        if let Some(saving) = errors::mean_saving(&outcome.variants[0], one) {
            object["error"]["against_first"] = errors::json(&saving);
        }
        if let Some(parts) = saved::json(&outcome.variants[0], one) {
            object.insert("saved_s".into(), parts);
        }
    }
    objects
}

/// Numbers that get confidence intervals, as JSON pointers into the object of a run.
const CONFIDENT: [&str; 29] = [
    "/makespan_s",
    "/pass_time_s",
    "/requests_per_s",
    "/output_tokens_per_s",
    "/ttft_s/mean",
    "/ttft_s/p50",
    "/ttft_s/p99",
    "/tpot_s/mean",
    "/tpot_s/p50",
    "/tpot_s/p99",
    "/itl_s/mean",
    "/itl_s/p50",
    "/itl_s/p99",
    "/e2e_s/mean",
    "/e2e_s/p50",
    "/e2e_s/p99",
    "/normalized_latency_s/mean",
    "/queue_s/mean",
    "/energy_j",
    "/energy_per_output_token_j",
    "/energy_per_request_j/mean",
    "/power_w/mean",
    "/mean_waiting",
    "/mean_running",
    "/kv/mean_use",
    "/preemptions",
    "/goodput/attained",
    "/goodput/requests_per_s",
    "/goodput/output_tokens_per_s",
];

/// One run is shown as it is, of several the mean of each number.
fn variant(scenario: &str, variant: &VariantOutcome) -> Map<String, Value> {
    let VariantOutcome {
        name,
        hardware,
        model,
        policy,
        decisions,
        engine,
        choice: _,
        settings: _,
        router,
        runs,
    } = variant;
    let words = [
        ("name", name.as_str()),
        ("hardware", hardware),
        ("model", model),
        ("scenario", scenario),
        ("policy", policy),
        ("decisions", decisions),
        ("engine", engine),
    ];
    let mut object: Map<_, _> = words.map(|(key, word)| (key.to_owned(), word.into())).into_iter().collect();
    object.extend(router.map(|router| ("router".to_owned(), router.into())));
    let runs: Vec<Value> = runs.iter().map(run).collect();
    let Value::Object(numbers) = mean(&runs.iter().collect::<Vec<_>>()) else {
        unreachable!("runs are objects")
    };
    object.extend(numbers);
    object["digest"] = variant.digest().into();
    if let Some(grows) = object["growth"].get_mut("grows") {
        *grows = variant.grows().into();
    }
    if runs.len() > 1 {
        object.insert("confidence".into(), confidence(&runs));
    }
    object.insert("interval".into(), intervals(&runs, &object["error"]));
    for (key, value) in &object {
        assert_finite(name, key, value);
    }
    object
}

/// What may not exist, and is null then; all else is a number in every run.
const NULLABLE: [&str; 6] = ["losses_s", "growth", "tpot_s.", "itl_s.", "kv.fill", "tiers.hit_rate"];
const ENERGY_OF_NOTHING: &str = ".energy_per_token_j";

/// JSON has no word for infinity; such numbers become null.
fn assert_finite(name: &str, path: &str, value: &Value) {
    match value {
        Value::Null => {
            let known =
                NULLABLE.iter().any(|head| path == *head || head.ends_with('.') && path.starts_with(head));
            assert!(known || path.ends_with(ENERGY_OF_NOTHING), "{path} of {name} is finite");
        }
        Value::Array(list) => list.iter().for_each(|value| assert_finite(name, path, value)),
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| assert_finite(name, &format!("{path}.{key}"), value));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The numbers of one run, under the keys of the object of its variant.
pub fn run(SeedRun { summary, ledger, .. }: &SeedRun) -> Value {
    let mut numbers = serde_json::to_value(summary).expect("a struct with text keys is JSON");
    numbers["pass_time_s"] = json!(seconds(ledger.pass_ps as f64));
    numbers["device_idle_in_passes_s"] = json!(seconds(ledger.idle_in_passes() as f64));
    numbers["time_by_cause_s"] = by(Cause::ALL.map(|(_, name)| name), &ledger.by_cause);
    numbers["time_by_bound_s"] = by(Bound::ALL.map(|(_, name)| name), &ledger.by_bound);
    numbers["time_by_source_s"] = by(SOURCES.map(|source| source.to_string()), &ledger.by_source);
    numbers["losses_s"] = ledger.losses.as_ref().map_or(Value::Null, losses);
    numbers
}

/// Leaf by leaf: what is the same everywhere stays as it is, other numbers become their mean.
fn mean(values: &[&Value]) -> Value {
    let first = values[0];
    // What does not exist in one of the runs has no mean.
    if values.iter().any(|value| value.is_null()) {
        return Value::Null;
    }
    match first {
        Value::Object(map) => map
            .keys()
            .map(|key| (key.clone(), mean(&values.iter().map(|value| &value[key]).collect::<Vec<_>>())))
            .collect(),
        // Of as many engines in every run.
        Value::Array(list) => (0..list.len())
            .map(|place| mean(&values.iter().map(|value| &value[place]).collect::<Vec<_>>()))
            .collect(),
        Value::Number(_) if values.iter().any(|value| *value != first) => {
            let sum: f64 = values.iter().filter_map(|value| value.as_f64()).sum();
            json!(sum / values.len() as f64)
        }
        _ => first.clone(),
    }
}

/// Mean and half width under the keys that the numbers have.
fn confidence(runs: &[Value]) -> Value {
    let mut object = json!({ "level": LEVEL, "seeds": runs.len() });
    for path in CONFIDENT {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.pointer(path)?.as_f64()).collect();
        if values.len() < runs.len() {
            // No bound is stated, so there is no goodput.
            continue;
        }
        let Some(Interval { mean, half_width }) = Interval::of(&values, LEVEL) else { continue };
        let place = path.split('/').skip(1).fold(&mut object, |place, key| &mut place[key]);
        *place = json!({ "mean": mean, "half_width": half_width });
    }
    object
}

/// For each of those numbers, where something is known about its error: the ends of the interval that joins seeds and prices, and the half
/// widths that it is made of.
fn intervals(runs: &[Value], error: &Value) -> Value {
    let bar = ErrorBar::deserialize(error).unwrap_or_default();
    let mut object = json!({});
    for path in CONFIDENT {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.pointer(path)?.as_f64()).collect();
        if values.len() < runs.len() {
            continue;
        }
        let metric = path[1..].replace('/', ".");
        let figure = Estimate::new(&values, ErrorKind::of(&metric), &bar, LEVEL);
        if figure.seeds.is_none() && figure.model.is_none() {
            continue;
        }
        let place = path.split('/').skip(1).fold(&mut object, |place, key| &mut place[key]);
        *place = json!(figure.ends());
    }
    object
}

/// Kernel time under each name; names of two words are joined as keys are.
fn by<const N: usize>(names: [impl AsRef<str>; N], tallies: &[Tally; N]) -> Value {
    let pairs = names.iter().zip(tallies);
    pairs
        .map(|(name, tally)| (name.as_ref().replace(' ', "_"), json!(seconds(tally.time_ps as f64))))
        .collect()
}

fn losses(losses: &Losses) -> Value {
    let [saving, signed @ ..] = losses.signed();
    let lost = PARTS[1..].iter().copied().zip(signed.map(|part| -part));
    let all = [("dense", losses.dense), ("saving", saving)].into_iter().chain(lost);
    let all = all.chain([("left", losses.left())]);
    all.map(|(key, ps)| (key.to_owned(), json!(seconds(ps as f64)))).collect()
}
