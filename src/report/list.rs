//! What the program knows by name: models, devices, fabrics, engines, policies, methods, metrics.

use super::quantity;
use super::sheet::Sheet;
use crate::error::Result;
use crate::hw::{Fabric, Hardware, ServingEngine};
use crate::model::{Model, builtin_names};

/// Dispatch policies in the order of [`crate::batch::Policy`], with what they do.
pub const POLICIES: [(&str, &str); 5] = [
    ("dense_masked", "runs a layer for the whole batch if any token takes it, and masks the others' results"),
    ("aligned", "goes through the pool in order, each layer for the tokens that take it; routes must ascend"),
    ("hop", "at each hop, runs a group for each next layer, each with kernels of its own"),
    ("grouped", "as hop, with all groups of a hop in one grouped kernel"),
    (
        "queued",
        "keeps a queue for each layer and runs it when it is full or has waited: queued(full: 8, wait_us: 500)",
    ),
];

/// Routing methods in the order of [`crate::trace::synth::Method`], with how tokens choose and an example that a scenario and `--method` take.
pub const METHODS: [(&str, &str, &str); 10] = [
    ("Dense", "every layer, in order", "Dense"),
    ("StaticDepth", "layers removed once and for all", "StaticDepth(keep: DropMiddle(depth: 24))"),
    ("StaticWidth", "feed-forward rows removed once and for all", "StaticWidth(keep: 0.75)"),
    (
        "EarlyExit",
        "each token leaves after some layers",
        "EarlyExit(exits: Each([(16, 0.5), (32, 0.5)]), kv: copy_state)",
    ),
    (
        "MixtureOfDepths",
        "a routed layer takes a fixed share of the tokens",
        "MixtureOfDepths(capacity: 0.5, routed: EveryOther, window: 128)",
    ),
    (
        "IndependentSkips",
        "each token skips each layer with one probability",
        "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)",
    ),
    (
        "CorrelatedSkips",
        "the same, and tokens tend to skip alike",
        "CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: project_only)",
    ),
    (
        "Recursion",
        "a block of layers runs several times",
        "Recursion(prefix: 4, suffix: 4, times: Fixed(2), kv: Own)",
    ),
    (
        "Radial",
        "a walk through the pool in any order",
        "Radial(transitions: Uniform, start: Uniform, hops: Fixed(24))",
    ),
    (
        "DraftVerify",
        "drafts by the first layers, verified by all",
        "DraftVerify(exit_layer: 8, drafts: 4, acceptance: 0.7)",
    ),
];

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Built-in models.
    Models,
    /// Shipped devices.
    Hardware,
    /// Shipped fabrics.
    Fabrics,
    /// Engines whose host times are known.
    Engines,
    /// Dispatch policies.
    Policies,
    /// Ways to draw routes.
    Methods,
    /// Numbers of a variant.
    Metrics,
}

impl List {
    /// All of them, with their names and what they are.
    pub const ALL: [(List, &'static str, &'static str); 7] = [
        (List::Models, "models", "Built-in models"),
        (List::Hardware, "hardware", "Shipped devices"),
        (List::Fabrics, "fabrics", "Shipped fabrics, which join devices"),
        (List::Engines, "engines", "Engines whose host times are known"),
        (List::Policies, "policies", "Dispatch policies"),
        (List::Methods, "methods", "Ways to draw routes"),
        (List::Metrics, "metrics", "Numbers of a variant, for studies"),
    ];
}

/// The table.
///
/// # Errors
/// None of files that ship with the program.
pub fn table(list: List) -> Result<String> {
    Ok(match list {
        List::Models => {
            let models: Vec<Model> = builtin_names().filter_map(Model::builtin).collect();
            Sheet::new()
                .words("model", models.iter().map(|model| &model.name))
                .numbers("layers", models.iter().map(|model| model.layers.to_string()))
                .numbers(
                    "parameters, billion",
                    models.iter().map(|model| format!("{:.2}", model.total_params() as f64 / 1e9)),
                )
                .numbers("context", models.iter().map(|model| model.context.to_string()))
                .render()
                + "Or a Hugging Face config.json: a file or a folder.\n"
        }
        List::Hardware => {
            let devices =
                Hardware::shipped_names().into_iter().map(Hardware::shipped).collect::<Result<Vec<_>>>()?;
            let learned = |device: &Hardware| {
                if device.corrections.is_some() || device.measured.is_some() { "fitted" } else { "datasheet" }
            };
            Sheet::new()
                .words("hardware", devices.iter().map(|device| &device.name))
                .numbers(
                    "memory GB",
                    devices.iter().map(|device| device.memory.capacity_gb.value.to_string()),
                )
                .numbers("GB/s", devices.iter().map(|device| device.memory.dram_gb_per_s.value.to_string()))
                .words("prices", devices.iter().map(learned))
                .prose("device", devices.iter().map(|device| &device.title))
                .render()
                + "Or a profile: a .ron file (`radialsim fit`, `radialsim calibrate`). fitted: to measured kernels.\n"
        }
        List::Fabrics => {
            let fabrics =
                Fabric::shipped_names().into_iter().map(Fabric::shipped).collect::<Result<Vec<_>>>()?;
            Sheet::new()
                .words("fabric", fabrics.iter().map(|fabric| &fabric.name))
                .prose("what joins the devices", fabrics.iter().map(|fabric| &fabric.title))
                .render()
        }
        List::Engines => {
            let engines = ServingEngine::names()
                .map(ServingEngine::named)
                .collect::<std::result::Result<Vec<_>, _>>()?;
            Sheet::new()
                .words("engine", engines.iter().map(|engine| &engine.name))
                .numbers("us a kernel", engines.iter().map(|engine| engine.kernel_us.value.to_string()))
                .prose("software", engines.iter().map(|engine| &engine.title))
                .render()
        }
        List::Policies => Sheet::new()
            .words("policy", POLICIES.map(|(name, _)| name))
            .prose("what it does", POLICIES.map(|(_, words)| words))
            .render(),
        List::Methods => Sheet::new()
            .narrow("method", METHODS.map(|(name, _, _)| name))
            .words("how tokens choose", METHODS.map(|(_, words, _)| words))
            .prose("for example", METHODS.map(|(_, _, example)| example))
            .render(),
        List::Metrics => {
            let known = quantity::known();
            Sheet::new()
                .words("key", known.iter().map(|(key, _)| *key))
                .words("metric", known.iter().map(|(_, quantity)| &quantity.name))
                .words("unit in reports", known.iter().map(|(_, quantity)| quantity.unit))
                .render()
                + "Times of requests have .mean, .p50, .p90, .p99 behind them. Every key of `simulate --json` is one (docs/METRICS.md).\n"
        }
    })
}
