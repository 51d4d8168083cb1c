//! The page of a frontier: the answer, pictures, and the numbers behind both.

use super::{Frontier, PeerFinding, Setting, words};
use crate::metrics::{Estimate, Verdict};
use crate::page::{Block, Cell, Mark, Page, Section, Table};
use crate::plot::{Body, Chart, ChartAxis, Corner, Spot as Dot, SpotPanel, Spots};
use crate::quality::Quality;
use crate::report::detail::{figure, foot};
use crate::report::quantity::{Quantity, number};
use crate::scenario::{Note, ReadInput};
use crate::study::page::{capital, is_wide};
use crate::study::{Report, VERSION};

/// Rows of a table that the page shows; the file beside it has all.
const MOST_ROWS: usize = 300;

/// The page and its pictures.
pub fn report(frontier: &Frontier, command: &str) -> Report {
    let study = frontier.study;
    let charts: Vec<Chart> =
        (0..study.spec.objectives.len()).filter_map(|objective| chart(frontier, objective)).collect();
    let spots = || frontier.settings.iter().flat_map(|setting| &setting.spots);
    let failures: Vec<&String> = spots().filter_map(|spot| spot.failure.as_ref()).collect();
    let failed = failures.first().map(|first| (failures.len() as u64, (*first).clone()));
    let mut answer = vec![Block::Answer(frontier.answer())];
    if study.spec.families.is_empty() {
        let text = "The study names no `families`, so that no network is held against others of its quality.";
        answer = vec![Block::Text(text.into())];
    }
    answer.push(Block::Text(how(frontier)));
    let mut sections = vec![
        Section { title: "Answer".into(), blocks: answer },
        Section { title: "Pictures".into(), blocks: charts.iter().map(figure).collect() },
        Section { title: "Networks".into(), blocks: vec![Block::Table(networks(frontier))] },
        Section {
            title: "Points".into(),
            blocks: failed
                .iter()
                .map(|(count, first)| Block::Text(format!("{count} rows failed. The first: {first}")))
                .chain([Block::Table(points(frontier))])
                .collect(),
        },
    ];
    if !study.spec.families.is_empty() {
        let blocks = vec![Block::Table(comparisons(frontier))];
        sections.push(Section { title: "At equal quality".into(), blocks });
    }
    let read = [
        ReadInput { kind: "study".into(), name: study.name(), digest: study.digest.clone() },
        ReadInput { kind: "program".into(), name: VERSION.into(), digest: "-".into() },
    ];
    let inputs: Vec<ReadInput> = read.into_iter().chain(frontier.inputs.iter().cloned()).collect();
    let why = "it was measured once, on the texts and in the arithmetic of its table";
    let assumed = [Note::new("quality", "the same at every setting", why)];
    sections.extend(foot(&assumed, &inputs));
    let again =
        Section { title: "To make this report again".into(), blocks: vec![Block::Code(command.into())] };
    sections.push(again);
    let page = Page { title: study.spec.title.clone(), lead: study.spec.question.clone(), sections };
    Report { answer: frontier.answer(), page, charts, failed, remarked: None, rows: spots().count() as u64 }
}

fn how(frontier: &Frontier) -> String {
    let by = match frontier.measure {
        super::Measure::Perplexity => "the logarithm of perplexity",
        super::Measure::Kl => "the divergence",
    };
    format!(
        "What a family costs at a network's quality is read off between its two nearest members, evenly in {by}; members that another one \
         beats in both are left out, and beyond its members a family has no cost. Errors are those of the kernels, of seeds, and the intervals of the \
         qualities of both, added; what two networks share (kernels of a class, the texts of one table) is taken to be off alike in both unless \
         it is said otherwise. That costs are even between two members is not in them."
    )
}

/// A figure as a cell of a table.
fn shown(quantity: &Quantity, cost: &Estimate) -> String {
    let interval = quantity.interval(cost.value, cost.half_width());
    if cost.is_known() { interval } else { format!("{interval}\u{a0}±\u{a0}?") }
}

/// A quality with its interval.
fn interval(quality: &Quality) -> String {
    let mean = number(quality.mean);
    match quality.interval {
        Some([low, high]) => format!("{mean} ({} to {})", number(low), number(high)),
        None => format!("{mean}\u{a0}±\u{a0}?"),
    }
}

fn networks(frontier: &Frontier) -> Table {
    let study = frontier.study;
    let header = ["variant", "measured as", "depth", "perplexity", "KL, nats"].map(str::to_owned);
    let fronts = study.spec.objectives.iter();
    let fronts = fronts.map(|objective| format!("on the front of {}", Quantity::of(objective.metric()).name));
    let settings = frontier.settings.len();
    let row = |(place, row): (usize, &crate::quality::NetworkWorth)| {
        let mut cells = vec![
            Cell::text(study.base.variants[place].name.as_str()),
            Cell::text(row.network.as_str()),
            Cell::number(number(row.depth)),
            Cell::number(interval(&row.perplexity)),
            row.kl.as_ref().map_or_else(|| Cell::text("not measured"), |kl| Cell::number(interval(kl))),
        ];
        cells.extend((0..study.spec.objectives.len()).map(|objective| {
            let on =
                frontier.settings.iter().filter(|setting| setting.spots[place].on_front[objective]).count();
            Cell::number(format!("{on} of {settings}"))
        }));
        cells
    };
    Table {
        caption: "What the networks are worth, and at how many settings none beats them".into(),
        header: header.into_iter().chain(fronts).collect(),
        rows: frontier.networks.iter().enumerate().map(row).collect(),
        left_out: 0,
    }
}

/// What stands before the columns of a table: the setting.
fn place(setting: &Setting) -> Vec<Cell> {
    let cell = |(label, value): &(String, Option<f64>)| {
        if value.is_some() { Cell::number(label.as_str()) } else { Cell::text(label.as_str()) }
    };
    setting.at.iter().map(cell).collect()
}

fn axes(frontier: &Frontier) -> Vec<String> {
    frontier.study.grid.leaves().iter().map(|leaf| leaf.name.clone()).collect()
}

fn points(frontier: &Frontier) -> Table {
    let study = frontier.study;
    let objectives: Vec<Quantity> =
        study.spec.objectives.iter().map(|objective| Quantity::of(objective.metric())).collect();
    let mut header = axes(frontier);
    header.extend(["variant".to_owned(), frontier.measure.label().to_owned()]);
    header.extend(objectives.iter().flat_map(|quantity| [quantity.label(), "front".to_owned()]));
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for setting in &frontier.settings {
        for (variant, spot) in setting.spots.iter().enumerate() {
            let mut cells = place(setting);
            cells.push(Cell::text(study.base.variants[variant].name.as_str()));
            cells.push(Cell::number(interval(&frontier.quality(variant))));
            for (objective, quantity) in objectives.iter().enumerate() {
                let cost = spot.costs[objective].map_or("-".to_owned(), |cost| shown(quantity, &cost));
                cells.push(Cell::number(cost));
                cells.push(match (&spot.failure, spot.feasible, spot.on_front[objective]) {
                    (Some(failure), ..) => Cell::text(failure.as_str()).mark(Mark::Bad),
                    (None, false, _) => Cell::text("breaks a constraint").mark(Mark::Muted),
                    (None, true, true) => Cell::text("yes"),
                    (None, true, false) => Cell::text(""),
                });
            }
            rows.push(cells);
        }
    }
    let left_out = rows.len().saturating_sub(MOST_ROWS) as u64;
    rows.truncate(MOST_ROWS);
    Table { caption: "Quality and cost of every network at every setting".into(), header, rows, left_out }
}

fn comparisons(frontier: &Frontier) -> Table {
    let study = frontier.study;
    let mut header = axes(frontier);
    header.extend(["network", "at", "against", "in", "gain", "error", "sure"].map(str::to_owned));
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for setting in &frontier.settings {
        for comparison in &setting.comparisons {
            let objective = &study.spec.objectives[comparison.objective];
            let mut cells = place(setting);
            cells.push(Cell::text(study.base.variants[comparison.variant].name.as_str()));
            cells.push(Cell::text(words::quality(frontier, comparison.variant)));
            cells.push(Cell::text(study.spec.families[comparison.family].name.as_str()));
            cells.push(Cell::text(Quantity::of(objective.metric()).name));
            match comparison.found {
                PeerFinding::Gain { percent, shared, verdict, .. } => {
                    cells.push(crate::report::detail::gain(percent, verdict.is_sure()));
                    let error =
                        shared.map_or("not known".into(), |error| format!("±\u{a0}{error:.1}\u{a0}%"));
                    cells.push(Cell::number(error));
                    cells.push(Cell::text(sure(verdict)));
                }
                PeerFinding::Beyond(beyond) => {
                    cells.push(Cell::number("-"));
                    cells.push(Cell::number("-"));
                    cells.push(Cell::text(beyond.word()).mark(Mark::Muted));
                }
            }
            rows.push(cells);
        }
    }
    let left_out = rows.len().saturating_sub(MOST_ROWS) as u64;
    rows.truncate(MOST_ROWS);
    let caption = "Each network beside each family at its own quality; better is positive".into();
    Table { caption, header, rows, left_out }
}

fn sure(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Yes => "even if they err apart",
        Verdict::IfShared => "if they err alike",
        Verdict::No => "no: within the error",
        Verdict::Unknown => "not known",
    }
}

/// Quality against one objective: a panel for each setting.
fn chart(frontier: &Frontier, objective: usize) -> Option<Chart> {
    let study = frontier.study;
    let wanted = &study.spec.objectives[objective];
    let quantity = Quantity::of(wanted.metric());
    let mark = |variant: usize, cost: &Estimate| {
        let quality = frontier.quality(variant);
        Dot {
            name: study.base.variants[variant].name.clone(),
            x: cost.value * quantity.factor,
            y: quality.mean,
            x_ends: [cost.low(), cost.high()].map(|end| end * quantity.factor),
            y_ends: quality.interval.unwrap_or([quality.mean; 2]),
            unsure: !cost.is_known() || quality.interval.is_none(),
        }
    };
    let panel = |setting: &Setting| {
        let drawn = setting.spots.iter().enumerate();
        let drawn: Vec<(usize, Dot)> = drawn
            .filter(|(_, spot)| spot.feasible)
            .filter_map(|(variant, spot)| Some((variant, mark(variant, spot.costs[objective].as_ref()?))))
            .collect();
        let place = |(_, mark): &(usize, Dot)| (mark.x, mark.y);
        let is_of = |variant: usize, names: &[String]| names.contains(&study.base.variants[variant].name);
        let line = |family: &crate::study::QualityFamily| {
            let members = drawn.iter().filter(|(variant, _)| is_of(*variant, &family.variants));
            (family.name.clone(), members.map(place).collect())
        };
        let on_front = drawn.iter().filter(|(variant, _)| setting.spots[*variant].on_front[objective]);
        SpotPanel {
            name: title(frontier, setting),
            lines: study.spec.families.iter().map(line).collect(),
            front: on_front.map(place).collect(),
            spots: drawn.into_iter().map(|(_, mark)| mark).collect(),
        }
    };
    let panels: Vec<SpotPanel> = frontier.settings.iter().map(panel).collect();
    let spots = || panels.iter().flat_map(|panel| &panel.spots);
    spots().next()?;
    // Each panel has its own axis across, so that one alone says how far apart its values are.
    let wide = panels.iter().any(|panel| is_wide(panel.spots.iter().map(|spot| spot.x)));
    let label = frontier.measure.label();
    Some(Chart {
        title: capital(&format!("{label} against {}", quantity.name)),
        summary: "Bars are intervals in both directions; a stroke marks what has an error that is not known. The staircase joins the networks that no other one beats in both."
            .into(),
        body: Body::Spots(Spots {
            x: ChartAxis { label: quantity.label(), log: wide },
            y: ChartAxis { label: label.into(), log: is_wide(spots().map(|spot| spot.y)) },
            corner: Some(if wanted.less_is_better() { Corner::LowerLeft } else { Corner::LowerRight }),
            panels,
        }),
    })
}

/// What stands above a panel.
fn title(frontier: &Frontier, setting: &Setting) -> String {
    let leaves = frontier.study.grid.leaves();
    let words = leaves.iter().zip(&setting.at).filter(|(leaf, _)| leaf.count() != Some(1));
    let words = words.map(|(leaf, (label, value))| match value {
        Some(_) => format!("{} {label}", leaf.name),
        None => label.clone(),
    });
    words.collect::<Vec<_>>().join(", ")
}
