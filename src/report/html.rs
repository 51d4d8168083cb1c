//! `simulate --html`: one scenario as a page.

use super::answer::Answer;
use super::detail::{Charts, Detail, foot, gain};
use super::json;
use super::quantity::Quantity;
use crate::metrics::Verdict;
use crate::page::{Block, Cell, Page, Section, Table};
use crate::scenario::{Outcome, ReadInput, Scenario};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A page about one scenario; `commands` are those that make it again.
pub fn page(scenario: &Scenario, closer: &Detail, inputs: &[ReadInput], commands: &str) -> Page {
    let outcome = closer.outcome();
    let objects = json::variants(outcome);
    let mut sections = vec![Section {
        title: "Results".into(),
        blocks: vec![
            Block::Answer(Answer::of(outcome).sentences),
            Block::Facts(vec![
                ("Model".into(), scenario.model.clone()),
                ("Hardware".into(), scenario.hardware.clone()),
                ("Seeds".into(), scenario.seeds.to_string()),
            ]),
            Block::Table(table(&objects)),
        ],
    }];
    let lead = "Savings are against the first variant, as its run and each other run really were, batching included.";
    sections.push(closer.section("Why", lead, &mut Charts::new()));
    sections.extend(foot(&outcome.assumed, inputs));
    sections.push(Section {
        title: "To make this page again".into(),
        blocks: vec![Block::Code(commands.into())],
    });
    Page {
        title: outcome.title.clone(),
        lead: "What each variant costs in time, memory and energy, and why.".into(),
        sections,
    }
}

/// The results alone, as a piece of a page: the table of the variants, and what nobody measured.
pub fn fragment(outcome: &Outcome) -> String {
    let table = Block::Table(Table { caption: outcome.title.clone(), ..table(&json::variants(outcome)) });
    let assumed = outcome.assumed.len();
    let note = match assumed {
        0 => None,
        _ => Some(Block::Text(format!(
            "A saving without a sign is not known to be more than the error of the kernels' prices. These results rest on {assumed} constants and \
             choices that nobody measured."
        ))),
    };
    std::iter::once(table).chain(note).map(|block| block.html("results")).collect()
}

/// The metrics of the table, by their keys.
const COLUMNS: [&str; 7] = [
    "work.mean_depth",
    "pass_time_s",
    "output_tokens_per_s",
    "ttft_s.p99",
    "tpot_s.p99",
    "energy_per_output_token_j",
    "memory_bytes.total_peak",
];

fn table(objects: &[Map<String, Value>]) -> Table {
    let value = |object: &Map<String, Value>, path: &str| -> Option<f64> {
        let mut parts = path.split('.');
        let first = object.get(parts.next()?)?;
        parts.try_fold(first, |place, part| place.get(part))?.as_f64()
    };
    let row = |object: &Map<String, Value>| {
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
        let shown =
            |path: &str| value(object, path).map_or("-".into(), |value| Quantity::of(path).number(value));
        let numbers = COLUMNS.map(|path| Cell::number(shown(path)));
        let saved = value(object, "error.against_first.saved_percent");
        let verdict = object.get("error").and_then(|error| error.get("against_first")?.get("verdict"));
        let is_sure =
            verdict.and_then(|verdict| Verdict::deserialize(verdict).ok()).is_some_and(Verdict::is_sure);
        let saved = saved.map_or(Cell::text("-"), |saved| gain(saved, is_sure));
        std::iter::once(Cell::text(name)).chain(numbers).chain([saved]).collect()
    };
    let several = objects.iter().any(|object| object.contains_key("devices"));
    let names = COLUMNS.map(|path| match several && path.starts_with("memory_bytes") {
        true => format!("{} of each device", Quantity::of(path).label()),
        false => Quantity::of(path).label(),
    });
    Table {
        caption: "Variants".into(),
        header: ["variant".to_owned()].into_iter().chain(names).chain(["time saved".to_owned()]).collect(),
        rows: objects.iter().map(row).collect(),
        left_out: 0,
    }
}
