//! A closer look at one scenario, as sections of a page: where the time saved comes from, memory and power over time, which layers its tokens
//! visit and which follows which.

use super::json;
use super::series::Series;
use crate::error::Result;
use crate::page::{Block, Cell, Figure, Mark, Section, Table};
use crate::plot::{Arcs, Bars, Body, Chart, ChartAxis, HeatMap, Ink, Line, Lines, Panel, Point, Waterfall};
use crate::scenario::{Built, Inputs, Note, Outcome, Scenario, VariantOutcome, run_with};
use crate::sim::Setup;
use crate::trace::{Stats, Trace, transitions};
use crate::units::SimTime;
use petgraph::visit::EdgeRef;
use serde_json::Value;

/// Points of a line over time; finer ones are joined.
const MOST_SAMPLES: u64 = 400;

/// Transition graphs that are drawn, at most.
const MOST_GRAPHS: usize = 3;

/// A scenario that was run and watched.
pub struct Detail {
    outcome: Outcome,
    series: Vec<Series>,
    /// Of each variant: its name and its trace.
    traces: Vec<(String, Trace)>,
}

/// Figures beside the blocks that show them, so that they can be written as files, too.
pub type Charts = Vec<Chart>;

impl Detail {
    /// Runs a scenario on `threads` threads.
    ///
    /// # Errors
    /// Those of [`run_with`].
    pub fn new(inputs: &Inputs, scenario: &Scenario, threads: usize) -> Result<Detail> {
        let (outcome, series) = run_with(inputs, scenario, threads, &(), |_, setup| Detail::watch(setup))?;
        Detail::of(inputs, scenario, outcome, series)
    }

    /// What watches a variant of a run that is to be looked at.
    pub fn watch(setup: &Setup) -> Series {
        // A microsecond at first: a series joins its intervals until they fit.
        Series::new(setup, SimTime::from_ps(1 << 20), MOST_SAMPLES)
    }

    /// Of a scenario that was run, with what watched its variants.
    ///
    /// # Errors
    /// Those of [`Scenario::build_with`].
    pub fn of(inputs: &Inputs, scenario: &Scenario, outcome: Outcome, series: Vec<Series>) -> Result<Detail> {
        let (built, _) = scenario.build_with(inputs)?;
        let whole = |built: Built| built.with_all_routes().map(|built| (built.name, built.trace));
        let traces = built.into_iter().map(whole).collect::<Result<_>>()?;
        Ok(Detail { outcome, series, traces })
    }

    /// What came out.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The figures: waterfall, power, memory, visits, transitions. Charts are added to `charts`.
    pub fn section(&self, title: &str, lead: &str, charts: &mut Charts) -> Section {
        let mut blocks = vec![Block::Text(lead.to_owned())];
        let pictures = self
            .waterfall()
            .into_iter()
            .chain([self.over_time("Power over time", "power, W", |sample| sample.power_w)])
            .chain([self.over_time("KV memory over time", "KV entries, GB", |sample| sample.kv_bytes / 1e9)])
            .chain([self.visits()])
            .chain(self.graphs());
        for chart in pictures {
            blocks.push(figure(&chart));
            charts.push(chart);
        }
        Section { title: title.to_owned(), blocks }
    }

    /// What each variant saves against the first; where there is only one, what its passes save against the same ones, dense.
    fn waterfall(&self) -> Option<Chart> {
        let objects = json::variants(&self.outcome);
        let groups =
            |steps: Steps| objects.iter().filter_map(|object| bars(object, steps)).collect::<Vec<Bars>>();
        let (saved, alone) = (groups(SAVED), objects.len() == 1);
        let (groups, title, summary, unit) = match alone {
            false => (
                saved,
                "Where the time saved comes from",
                "From the saving if every token paid only for its own branches, step by step to the pass time that is saved against the \
                 first variant, in percent of its pass time.",
                "% of the first variant's pass time",
            ),
            true => (
                groups(SAME_PASSES),
                "The same passes, dense",
                "From the saving if every token paid only for its own branches, step by step to what is left, in percent of the time that \
                 the same passes take dense. A dense run would batch otherwise: a dense variant beside this one tells what is saved.",
                "% of dense time",
            ),
        };
        (!groups.is_empty()).then(|| Chart {
            title: title.into(),
            summary: summary.into(),
            body: Body::Waterfall(Waterfall { unit: unit.into(), groups }),
        })
    }

    fn over_time(&self, title: &str, label: &str, of: fn(&super::series::SeriesRow) -> f64) -> Chart {
        let panel = |(series, name): (&Series, String)| {
            let points: Vec<Point> = series
                .rows(&name)
                .map(|row| {
                    let y = of(&row);
                    Point { x: row.time_s, y, low: y, high: y, unsure: false }
                })
                .collect();
            Panel { name, lines: vec![Line { name: label.to_owned(), points }], marks: Vec::new() }
        };
        let engines = self.outcome.variants.iter().flat_map(VariantOutcome::engine_names);
        let axis = |label: &str| ChartAxis { label: label.to_owned(), log: false };
        Chart {
            title: title.into(),
            summary: format!(
                "The {label}, of each variant over the run with the first seed; means of equal intervals."
            ),
            body: Body::Lines(Lines {
                x: axis("time, s"),
                y: axis(label),
                panels: self.series.iter().zip(engines).map(panel).collect(),
                steps: true,
            }),
        }
    }

    fn visits(&self) -> Chart {
        let row = |(name, trace): &(String, Trace)| {
            let stats = Stats::of(trace);
            let tokens = stats.tokens.max(1) as f64;
            (name.clone(), stats.layer_visits.iter().map(|visits| *visits as f64 / tokens).collect())
        };
        Chart {
            title: "Which layers tokens visit".into(),
            summary: "Visits of each layer over tokens, for each variant: 1 where every token takes it once."
                .into(),
            body: Body::HeatMap(HeatMap {
                x_label: "layer".into(),
                unit: "visits a token".into(),
                rows: self.traces.iter().map(row).collect(),
            }),
        }
    }

    /// Of the variants whose tokens do not all take the same route.
    fn graphs(&self) -> Vec<Chart> {
        let routed = |(name, trace): &(String, Trace)| {
            let stats = Stats::of(trace);
            let taken = stats.uses().iter().filter(|uses| **uses > 0).count();
            if taken < 2 {
                return None;
            }
            let graph = transitions(&trace.routes, stats.uses());
            let edges = graph
                .edge_references()
                .map(|edge| (edge.source().index(), edge.target().index(), *edge.weight() as f64));
            let edges: Vec<(usize, usize, f64)> = edges.collect();
            Some((graph.node_weights().map(ToString::to_string).collect::<Vec<_>>(), edges, name.clone()))
        };
        let mut charts: Vec<Chart> = Vec::new();
        for (nodes, edges, name) in self.traces.iter().filter_map(routed) {
            let body = Body::Arcs(Arcs { nodes, edges });
            // Variants that differ in how they run share their routes.
            if charts.len() == MOST_GRAPHS || charts.iter().any(|chart| chart.body == body) {
                continue;
            }
            charts.push(Chart {
                title: format!("Which layer follows which: {name}"),
                summary: "An arc for each pair of layers that tokens take one after the other, the wider the more tokens; ahead above, \
                          back below."
                    .into(),
                body,
            });
        }
        charts
    }
}

/// What a waterfall shows: an object of the JSON; its key of the whole; the first bar, the steps (with the sign that a part has) and the
/// last bar by their keys, the ends with their names.
#[derive(Clone, Copy)]
struct Steps {
    object: &'static str,
    whole: &'static str,
    from: &'static str,
    sign: f64,
    to: (&'static str, &'static str),
}

/// Time saved against the first variant.
const SAVED: Steps =
    Steps { object: "saved_s", whole: "first", from: "ideal", sign: 1.0, to: ("saved", "saved") };

/// Time of the same passes, dense.
const SAME_PASSES: Steps =
    Steps { object: "losses_s", whole: "dense", from: "saving", sign: -1.0, to: ("left", "left") };

/// The steps between the ideal saving and what comes of it, by their keys in the JSON.
const STEPS: [(&str, &str); 10] = [
    ("union", "union"),
    ("fragmentation", "fragments"),
    ("kv", "skipped KV"),
    ("router", "router"),
    ("gather_scatter", "gather, scatter"),
    ("launch", "launch"),
    ("waiting", "waiting"),
    ("other", "other"),
    ("settings", "settings"),
    ("batching", "batching"),
];

fn bars(object: &serde_json::Map<String, Value>, steps: Steps) -> Option<Bars> {
    let Steps { object: of, whole, from, sign, to } = steps;
    let parts = object.get(of)?;
    let whole = parts.get(whole)?.as_f64().filter(|whole| *whole > 0.0)?;
    // To a hundredth of a percent: a launch more or less is nothing to see.
    let percent = |key: &str| Some((parts.get(key)?.as_f64()? / whole * 1e4).round() / 1e2);
    let steps = STEPS.iter().filter_map(|(key, name)| Some(((*name).to_owned(), sign * percent(key)?)));
    let all = std::iter::once(("ideal saving".to_owned(), percent(from)?))
        .chain(steps)
        .chain([(to.1.to_owned(), percent(to.0)?)]);
    let bars: Vec<(String, f64)> = all.collect();
    // Nothing went anywhere where nothing was to be saved.
    let moves = bars.iter().any(|(_, percent)| *percent != 0.0);
    moves.then_some(Bars { name: object.get("name")?.as_str()?.to_owned(), bars })
}

/// A chart as a figure of a page.
pub fn figure(chart: &Chart) -> Block {
    let (header, rows) = chart.table();
    Block::Figure(Figure {
        title: chart.title.clone(),
        summary: chart.summary.clone(),
        svg: chart.svg(Ink::Page),
        header,
        rows: rows.into_iter().take(MOST_NUMBERS).collect(),
    })
}

/// Rows of numbers behind a figure; the tables beside the report have all.
const MOST_NUMBERS: usize = 500;

/// What nobody measured, and what was read.
pub fn foot(assumed: &[Note], inputs: &[crate::scenario::ReadInput]) -> Vec<Section> {
    let cells = |texts: [&str; 3]| texts.map(Cell::text).to_vec();
    let assumed: Vec<Vec<Cell>> =
        assumed.iter().map(|note| cells([&note.key, &note.value, &note.why])).collect();
    let inputs: Vec<Vec<Cell>> =
        inputs.iter().map(|input| cells([&input.kind, &input.name, &input.digest])).collect();
    let table = |caption: &str, header: [&str; 3], rows: Vec<Vec<Cell>>| {
        Block::Table(Table {
            caption: caption.into(),
            header: header.map(str::to_owned).to_vec(),
            rows,
            left_out: 0,
        })
    };
    vec![
        Section {
            title: "What nobody measured".into(),
            blocks: vec![
                Block::Text("Constants and choices that these results rest on and that are neither measured nor published.".into()),
                table("Assumed constants and choices", ["key", "value", "why"], assumed),
            ],
        },
        Section {
            title: "Inputs".into(),
            blocks: vec![
                Block::Text(
                    "The first 16 digits of SHA-256: of the bytes of traces and request files, of profiles and models as JSON.".into(),
                ),
                table("What was read", ["kind", "name", "digest"], inputs),
            ],
        },
    ]
}

/// A cell with a gain in percent, marked by its sign where it is more than its error.
pub fn gain(percent: f64, is_sure: bool) -> Cell {
    let mark = match (is_sure, percent > 0.0) {
        (false, _) => Mark::Muted,
        (true, true) => Mark::Good,
        (true, false) => Mark::Bad,
    };
    // No sign before a zero.
    let shown = format!("{percent:+.1}\u{a0}%");
    Cell::number(if shown.starts_with("-0.0") { "0.0\u{a0}%".into() } else { shown }).mark(mark)
}
