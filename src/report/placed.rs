//! Layers of a pool over several devices: what tokens cross.

use super::sheet::Sheet;
use crate::trace::{Fares, Placement};
use serde_json::{Value, json};

/// A placement, and how tokens fare under it.
#[derive(Clone, Debug)]
pub struct PlacementFares {
    /// How it came about.
    pub name: &'static str,
    /// The device of each layer.
    pub placement: Placement,
    /// Tokens of the requests that a cut was learned from.
    pub learned: Fares,
    /// Those of the others; of all, where it was learned from all.
    pub kept: Fares,
}

/// `0-7, 12`.
fn ranges(layers: &[u32]) -> String {
    let runs = layers.chunk_by(|a, b| a + 1 == *b);
    let one = |run: &[u32]| match run {
        [only] => only.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    };
    runs.map(one).collect::<Vec<_>>().join(", ")
}

/// A row for each placement, then the layers of each device. `all`: it was learned from all requests.
pub fn placed(rows: &[PlacementFares], all: bool) -> String {
    let largest = |fares: &Fares| fares.load.iter().copied().fold(0.0, f64::max) * fares.load.len() as f64;
    let fewest = |fares: &Fares| fares.load.iter().copied().fold(1.0, f64::min) * fares.load.len() as f64;
    let two = |number: f64| format!("{number:.2}");
    let table = Sheet::new()
        .words("placement", rows.iter().map(|row| row.name))
        .numbers("crossings a token\nlearned", rows.iter().map(|row| two(row.learned.crossings)))
        .numbers(if all { "all" } else { "kept aside" }, rows.iter().map(|row| two(row.kept.crossings)))
        .numbers("load of a device\nlargest", rows.iter().map(|row| two(largest(&row.kept))))
        .numbers("least", rows.iter().map(|row| two(fewest(&row.kept))))
        .render();
    let mut text = table;
    text += "crossings: moves of a token's state from device to device. load: steps that a device runs, over its even share.\n";
    for row in rows {
        text += &format!("\n{}\n", row.name);
        for (device, layers) in row.placement.layers().iter().enumerate() {
            text += &format!("  device {device}: {}\n", ranges(layers));
        }
    }
    text
}

/// The same as JSON: under the name of each placement `devices` (of each layer), and `learned` and `kept` with `tokens`, `crossings_per_token` and `load`.
pub fn placed_json(rows: &[PlacementFares]) -> Value {
    let fares = |fares: &Fares| json!({ "tokens": fares.tokens, "crossings_per_token": fares.crossings, "load": fares.load });
    let one = |row: &PlacementFares| {
        let counts = json!({ "devices": row.placement.devices(), "learned": fares(&row.learned), "kept": fares(&row.kept) });
        (row.name.replace(' ', "_"), counts)
    };
    Value::Object(rows.iter().map(one).collect())
}
