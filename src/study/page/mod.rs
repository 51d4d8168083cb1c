//! The report of a study: one page, and its charts.

mod charts;
mod findings;
mod seen;

use super::guard::guarded;
use super::{Assembly, Study, VERSION};
use crate::error::{InputError, Result};
use crate::metrics::Estimate;
use crate::page::{Block, Cell, Mark, Page, Section, Table};
use crate::plot::Chart;
use crate::report::detail::{Detail, figure, foot, gain};
use crate::report::quantity::Quantity;
use crate::scenario::{Inputs, Note, ReadInput};
pub(super) use charts::is_wide;
pub(super) use findings::capital;
use seen::{SeenRow, SeenRows};
use std::collections::BTreeSet;

/// Rows of the table of points that the page shows; the files beside it have all.
const MOST_ROWS: usize = 300;

/// A page and the charts in it, in their order.
#[derive(Debug)]
pub struct Report {
    /// What the study found, in sentences.
    pub answer: Vec<String>,
    /// The page.
    pub page: Page,
    /// The charts.
    pub charts: Vec<Chart>,
    /// How many rows failed, and why the first one did.
    pub failed: Option<(u64, String)>,
    /// How many rows have a remark, and the first one.
    pub remarked: Option<(u64, String)>,
    /// How many rows there are.
    pub rows: u64,
}

/// Makes the report of a complete study; `threads` are for the closer look, which is run again. `command` is what makes it again.
///
/// # Errors
/// Those of [`Assembly::points`]. A setting of the closer look that cannot run is said in the page.
pub fn report(assembly: &Assembly, command: &str, threads: usize) -> Result<Report> {
    let study = assembly.study;
    let seen = SeenRows::new(assembly)?;
    let mut charts = Vec::new();
    let answer = findings::sentences(assembly, &seen);
    let mut sections = vec![
        Section {
            title: "Answer".into(),
            blocks: vec![Block::Answer(answer.clone()), Block::Facts(facts(study, &seen))],
        },
        pictures(assembly, &seen, &mut charts),
        Section {
            title: "Points".into(),
            blocks: std::iter::once(Block::Text(about_points(study)))
                .chain(failed(&seen).map(|(count, first)| {
                    Block::Text(format!(
                        "{count} rows failed; points.csv says why each did. The first: {first}"
                    ))
                }))
                .chain(seen.remarked.iter().map(|(count, first)| {
                    Block::Text(format!(
                        "{count} rows have a remark; points.csv has it under `remark`. The first: {first}"
                    ))
                }))
                .chain([Block::Table(points(study, &seen))])
                .collect(),
        },
    ];
    if !assembly.answers.is_empty() {
        sections.push(findings::section(assembly, &mut charts));
    }
    let mut inputs: BTreeSet<ReadInput> = seen.inputs.clone();
    let mut assumed = Vec::new();
    sections.push(closer_look(study, threads, &mut inputs, &mut assumed, &mut charts));
    let inputs: Vec<ReadInput> = [
        ReadInput { kind: "study".into(), name: study.name(), digest: study.digest.clone() },
        ReadInput { kind: "program".into(), name: VERSION.into(), digest: "-".into() },
    ]
    .into_iter()
    .chain(inputs)
    .collect();
    assumed.extend(study.spec.prices.iter().map(|price| {
        let value = format!("{} USD per hour", price.usd_per_hour);
        Note::new(format!("price of {}", price.hardware), value, price.source.clone())
    }));
    sections.extend(foot(&assumed, &inputs));
    sections.push(Section {
        title: "To make this report again".into(),
        blocks: vec![Block::Code(command.into())],
    });
    let page = Page { title: study.spec.title.clone(), lead: study.spec.question.clone(), sections };
    Ok(Report { answer, page, charts, failed: failed(&seen), remarked: seen.remarked, rows: seen.count })
}

fn failed(seen: &SeenRows) -> Option<(u64, String)> {
    let first = seen.rows.iter().find_map(|row| row.failure.clone())?;
    Some((seen.failed, first))
}

fn facts(study: &Study, seen: &SeenRows) -> Vec<(String, String)> {
    let list = |texts: Vec<String>| if texts.is_empty() { "none".to_owned() } else { texts.join("; ") };
    let axes = study.grid.leaves().into_iter().map(|leaf| match leaf.count() {
        Some(count) => format!("{} ({count} values)", leaf.name),
        None => leaf.name.clone(),
    });
    let wanted = study.spec.objectives.iter().map(|objective| {
        format!(
            "{} {}",
            if objective.less_is_better() { "least" } else { "most" },
            Quantity::of(objective.metric()).name
        )
    });
    let constraints = study.spec.constraints.iter().map(|constraint| constraint.words());
    vec![
        ("Scenario".into(), study.spec.scenario.display().to_string()),
        ("Axes".into(), list(axes.collect())),
        ("Wanted".into(), list(wanted.collect())),
        ("Must hold".into(), list(constraints.collect())),
        ("Seeds".into(), study.base.seeds.to_string()),
        (
            "Rows".into(),
            format!(
                "{} of {} settings; {} failed, {} meet what must hold",
                seen.count, seen.points, seen.failed, seen.feasible
            ),
        ),
    ]
}

fn pictures(assembly: &Assembly, seen: &SeenRows, charts: &mut Vec<Chart>) -> Section {
    let mut blocks = Vec::new();
    for plot in charts::plots(assembly.study) {
        match charts::chart(assembly, seen, &plot) {
            Some(chart) => {
                blocks.push(figure(&chart));
                charts.push(chart);
            }
            None => {
                let plot = serde_json::to_string(&plot).unwrap_or_default();
                blocks
                    .push(Block::Text(format!("No row that is of use has what this picture shows: {plot}.")));
            }
        }
    }
    if blocks.is_empty() {
        blocks.push(Block::Text("The study has no axis of numbers to draw against.".into()));
    }
    Section { title: "Pictures".into(), blocks }
}

fn about_points(study: &Study) -> String {
    let first = study.base.variants.first().map_or("", |variant| variant.name.as_str());
    format!(
        "Each figure is a mean over the seeds, plus or minus the half width of its 95 % confidence interval and the error that the \
         profile's kernels had on measured rows; ± ? stands where that is not known. Gains are against {first:?} at the same setting, better is positive; one that is \
         not more than its error, or whose error is not known, is set in italics."
    )
}

fn points(study: &Study, seen: &SeenRows) -> Table {
    let axes = study.grid.leaves();
    let objectives = &study.spec.objectives;
    let mut header: Vec<String> = axes.iter().map(|leaf| leaf.name.clone()).collect();
    header.push("variant".into());
    for objective in objectives {
        header.push(Quantity::of(objective.metric()).label());
        header.push("gain".into());
    }
    header.push("holds".into());
    let row = |seen: &SeenRow| {
        let mut cells: Vec<Cell> = seen
            .at
            .iter()
            .map(
                |(label, value)| {
                    if value.is_some() { Cell::number(label.as_str()) } else { Cell::text(label.as_str()) }
                },
            )
            .collect();
        cells.push(Cell::text(seen.variant.as_str()));
        for (place, objective) in objectives.iter().enumerate() {
            let quantity = Quantity::of(objective.metric());
            let shown = |figure: Estimate| {
                let interval = quantity.interval(figure.value, figure.half_width());
                if figure.is_known() { interval } else { format!("{interval}\u{a0}±\u{a0}?") }
            };
            cells.push(Cell::number(seen.figures[place].map_or("-".into(), shown)));
            cells.push(
                seen.gains[place].map_or(Cell::number("-"), |one| gain(one.percent, one.verdict.is_sure())),
            );
        }
        cells.push(match (&seen.failure, seen.feasible) {
            (Some(failure), _) => Cell::text(failure.as_str()).mark(Mark::Bad),
            (None, true) => Cell::text("yes"),
            (None, false) => Cell::text("no").mark(Mark::Muted),
        });
        cells
    };
    let grid = || seen.rows.iter().filter(|seen| seen.on_grid);
    let all = grid().count();
    Table {
        caption: "Points of the study".into(),
        header,
        rows: grid().take(MOST_ROWS).map(row).collect(),
        left_out: (all.saturating_sub(MOST_ROWS)) as u64 + seen.left_out,
    }
}

/// Runs one setting again, to look at what the rows do not hold.
fn closer_look(
    study: &Study,
    threads: usize,
    inputs: &mut BTreeSet<ReadInput>,
    assumed: &mut Vec<Note>,
    charts: &mut Vec<Chart>,
) -> Section {
    let choices = study.grid.at(study.detail().unwrap_or(0));
    let words: Vec<String> =
        choices.iter().map(|choice| format!("{} = {}", choice.leaf.name, choice.label)).collect();
    let title = "A closer look".to_owned();
    let kept = Inputs::default();
    let lead = format!(
        "At one setting: {}.",
        if words.is_empty() { "the only one".into() } else { words.join(", ") }
    );
    let looked = guarded(|| -> Result<_> {
        let scenario = super::Case::of(&choices).scenario(study)?;
        let closer = Detail::new(&kept, &scenario, threads)?;
        let mut charts = Vec::new();
        let section = closer.section(&title, &lead, &mut charts);
        Ok((section, charts, closer.outcome().assumed.clone()))
    });
    match looked
        .unwrap_or_else(|said| Err(InputError::expected(format!("a setting that runs: {said}")).into()))
    {
        Ok((section, drawn, notes)) => {
            inputs.extend(kept.read());
            assumed.extend(notes);
            charts.extend(drawn);
            section
        }
        Err(error) => {
            let text = format!("The setting {} cannot be run: {error}", words.join(", "));
            Section { title, blocks: vec![Block::Text(text)] }
        }
    }
}
