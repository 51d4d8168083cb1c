//! `simulate --json`: keys that others read. Version 1; keys are added, never renamed.

use super::table::{SOURCES, left};
use crate::cost::Bound;
use crate::lower::Cause;
use crate::metrics::{Losses, Tally};
use crate::scenario::{Note, Outcome, VariantOutcome};
use crate::units::PS_PER_S;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Version of the object.
pub const SCHEMA: u32 = 1;

/// The object of these scenarios, in their order, as text that ends with a line break.
///
/// # Panics
/// Where a number is not finite: a defect of the simulator.
pub fn render(outcomes: &[Outcome]) -> String {
    let all =
        outcomes.iter().flat_map(|outcome| outcome.variants.iter().map(move |variant| (outcome, variant)));
    let variants: Vec<Value> = all.map(|(outcome, one)| variant(&outcome.title, one)).collect();
    let mut seen = HashSet::new();
    let notes = outcomes.iter().flat_map(|outcome| &outcome.assumed);
    let assumed: Vec<&Note> = notes.filter(|note| seen.insert(*note)).collect();
    let object = json!({ "schema": SCHEMA, "variants": variants, "assumed": assumed });
    serde_json::to_string_pretty(&object).expect("a value with text keys is JSON") + "\n"
}

fn variant(scenario: &str, variant: &VariantOutcome) -> Value {
    let VariantOutcome { name, hardware, model, policy, summary, ledger } = variant;
    let mut object = Map::new();
    let words = [
        ("name", name.as_str()),
        ("hardware", hardware),
        ("model", model),
        ("scenario", scenario),
        ("policy", policy),
    ];
    object.extend(words.map(|(key, word)| (key.to_owned(), word.into())));
    let Ok(Value::Object(numbers)) = serde_json::to_value(summary) else {
        unreachable!("a struct is an object")
    };
    object.extend(numbers);
    object.insert("pass_time_s".into(), json!(seconds(ledger.pass_ps as f64)));
    object.insert("time_by_cause_s".into(), by(Cause::ALL.map(|(_, name)| name), &ledger.by_cause));
    object.insert("time_by_bound_s".into(), by(Bound::ALL.map(|(_, name)| name), &ledger.by_bound));
    object.insert("time_by_source_s".into(), by(SOURCES.map(|source| source.to_string()), &ledger.by_source));
    assert!(object.values().all(finite), "every number of {name} is finite");
    object.insert("losses_s".into(), ledger.losses.as_ref().map_or(Value::Null, losses));
    Value::Object(object)
}

fn seconds(ps: f64) -> f64 {
    ps / PS_PER_S as f64
}

/// Kernel time under each name; names of two words are joined as keys are.
fn by<const N: usize>(names: [impl AsRef<str>; N], tallies: &[Tally; N]) -> Value {
    let pairs = names.iter().zip(tallies);
    pairs
        .map(|(name, tally)| (name.as_ref().replace(' ', "_"), json!(seconds(tally.time_ps as f64))))
        .collect()
}

fn losses(losses: &Losses) -> Value {
    let Losses { dense, saving, union, fragmentation, kv, router, moves, launch, waiting, other } = *losses;
    let all = [
        ("dense", dense),
        ("saving", saving),
        ("union", union),
        ("fragmentation", fragmentation),
        ("kv", kv),
        ("router", router),
        ("gather_scatter", moves),
        ("launch", launch),
        ("waiting", waiting),
        ("other", other),
        ("left", left(losses)),
    ];
    all.into_iter().map(|(key, ps)| (key.to_owned(), json!(seconds(ps as f64)))).collect()
}

/// JSON has no word for infinity; such numbers become null.
fn finite(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => list.iter().all(finite),
        Value::Object(map) => map.values().all(finite),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
