//! What a study found, in sentences and tables.

use super::seen::{SeenRow, SeenRows};
use crate::page::{Block, Cell, Section, Table};
use crate::plot::{Body, Chart, Tornado};
use crate::report::detail::figure;
use crate::report::quantity::{Quantity, number};
use crate::study::{Assembly, Finding, Objective, Study};

/// Sentences of searches at the head of a page, at most; the tables have all.
const MOST_SENTENCES: usize = 12;

/// Bars of a tornado that move anything; charts for each setting and variant, at most.
const MOST_TORNADOES: usize = 6;

/// The findings: what the searches found, then the best point for each objective.
pub fn sentences(assembly: &Assembly, seen: &SeenRows) -> Vec<String> {
    let study = assembly.study;
    let objectives = study.spec.objectives.iter().enumerate();
    let best = objectives.map(|(place, objective)| best(study, seen, place, objective));
    searched(&assembly.answers).into_iter().chain(best).collect()
}

/// A sentence for each variant and search: what it found, at which settings.
fn searched(answers: &[Finding]) -> Vec<String> {
    let mut groups: Vec<(String, Vec<Said>)> = Vec::new();
    for Finding { kind, at, variant, moved, about, words, .. } in answers {
        let head = match *kind {
            "elasticity" => continue,
            // What must hold stands below the findings.
            "capacity" => format!("Capacity of {variant} along {moved}"),
            kind => format!("{} of {variant} in {} along {moved}", capital(kind), named(about)),
        };
        let place = groups.iter().position(|(known, _)| *known == head).unwrap_or_else(|| {
            groups.push((head, Vec::new()));
            groups.len() - 1
        });
        let all = &mut groups[place].1;
        match all.iter_mut().find(|(known, _)| known == words) {
            Some((_, settings)) => settings.push(short(at)),
            None => all.push((words, vec![short(at)])),
        }
    }
    let said = |(words, settings): Said| match settings.join("; ") {
        none if none.is_empty() => words.to_owned(),
        settings => format!("{words} ({settings})"),
    };
    let sentence = |(head, all): (String, Vec<Said>)| {
        format!("{head}: {}.", all.into_iter().map(said).collect::<Vec<_>>().join(", "))
    };
    let left = groups.len().saturating_sub(MOST_SENTENCES);
    let more = (left > 0).then(|| format!("{left} more findings stand under Searches."));
    groups.into_iter().take(MOST_SENTENCES).map(sentence).chain(more).collect()
}

/// What was found, and at which settings.
type Said<'a> = (&'a str, Vec<&'a str>);

/// What an answer is about, with the metric called as people call it.
fn named(about: &str) -> String {
    match about.split_once(' ') {
        Some((metric, rest)) => format!("{} {rest}", Quantity::of(metric).name),
        None => Quantity::of(about).name,
    }
}

/// A setting of one axis by its value alone.
fn short(at: &str) -> &str {
    match at.split_once(" = ") {
        Some((_, label)) if !label.contains(" = ") => label,
        _ => at,
    }
}

/// With a capital at its start.
pub fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// The best point of the axes that holds what must hold, and whether the next best of another setting is worse by more than both
/// errors.
fn best(study: &Study, seen: &SeenRows, place: usize, objective: &Objective) -> String {
    let mut rows: Vec<(&SeenRow, crate::metrics::Estimate)> = seen
        .rows
        .iter()
        .filter(|row| row.on_grid && row.feasible)
        .filter_map(|row| Some((row, row.figures[place]?)))
        .collect();
    // The first of equals, as the points are ordered.
    rows.sort_by(|a, b| {
        let (a, b) = (a.1.value, b.1.value);
        if objective.less_is_better() { a.total_cmp(&b) } else { b.total_cmp(&a) }
    });
    let word = if objective.less_is_better() { "Least" } else { "Most" };
    let quantity = Quantity::of(objective.metric());
    let metric = &quantity.name;
    let Some((row, figure)) = rows.first() else {
        return format!("{word} {metric}: no point holds what must hold.");
    };
    let names = study.grid.leaves();
    let at: Vec<String> =
        names.iter().zip(&row.at).map(|(leaf, (label, _))| format!("{} {label}", leaf.name)).collect();
    let half = figure.half_width();
    let known = match (figure.is_known(), half > 0.0) {
        (true, _) => "",
        (false, true) => " over the seeds, with an error of the kernels that is not known,",
        (false, false) => ", with an error that is not known,",
    };
    let next = rows.get(1).map_or(String::new(), |(_, other)| {
        if !(figure.is_known() && other.is_known()) {
            "; whether the next best is really worse is not known".into()
        } else if (other.value - figure.value).abs() > half + other.half_width() {
            "; the next best is worse by more than both errors".into()
        } else {
            "; the next best lies within the errors".into()
        }
    });
    let at = if at.is_empty() { String::new() } else { format!(" at {}", at.join(", ")) };
    format!("{word} {metric}: {}{known} with {}{at}{next}.", quantity.words(figure.value, half), row.variant)
}

/// The searches: a table of borders and capacities, tornado plots and a table of elasticities.
pub fn section(assembly: &Assembly, charts: &mut Vec<Chart>) -> Section {
    let answers = &assembly.answers;
    let mut blocks = Vec::new();
    let borders: Vec<&Finding> = answers.iter().filter(|answer| answer.kind != "elasticity").collect();
    if !borders.is_empty() {
        blocks.push(Block::Text(
            "Where a search found its border. Sure below and above: the nearest values at which what it decides is more than its error \
             (of kernels that err alike in both runs, and over the seeds)."
                .into(),
        ));
        blocks.push(Block::Table(table("Break-even points and capacities", &borders)));
    }
    let moved: Vec<&Finding> = answers.iter().filter(|answer| answer.kind == "elasticity").collect();
    if !moved.is_empty() {
        blocks.push(Block::Text(
            "Elasticities: by how many percent a metric moves when a number of the profile moves by one percent, all else as it is.".into(),
        ));
        for chart in tornadoes(&moved) {
            blocks.push(figure(&chart));
            charts.push(chart);
        }
        let mut most: Vec<&Finding> =
            moved.into_iter().filter(|answer| answer.value.is_some_and(|v| v.abs() >= 5e-4)).collect();
        most.sort_by(|a, b| b.value.unwrap_or(0.0).abs().total_cmp(&a.value.unwrap_or(0.0).abs()));
        blocks.push(Block::Table(elasticities(&most)));
    }
    Section { title: "Searches".into(), blocks }
}

fn optional(value: Option<f64>) -> Cell {
    Cell::number(value.map_or("-".into(), number))
}

fn table(caption: &str, answers: &[&Finding]) -> Table {
    let row = |answer: &&Finding| {
        vec![
            Cell::text(answer.at.as_str()),
            Cell::text(answer.variant.as_str()),
            Cell::text(answer.kind),
            Cell::text(named(&answer.about)),
            Cell::text(answer.moved.as_str()),
            optional(answer.value),
            optional(answer.low),
            optional(answer.high),
            Cell::text(answer.words.as_str()),
        ]
    };
    let header =
        ["setting", "variant", "kind", "in", "along", "value", "sure below", "sure above", "in words"];
    Table {
        caption: caption.into(),
        header: header.map(str::to_owned).to_vec(),
        rows: answers.iter().map(row).collect(),
        left_out: 0,
    }
}

fn elasticities(answers: &[&Finding]) -> Table {
    const MOST: usize = 100;
    let row = |answer: &&Finding| {
        vec![
            Cell::text(answer.moved.as_str()),
            Cell::text(answer.variant.as_str()),
            Cell::text(Quantity::of(&answer.about).name),
            Cell::number(format!("{:+.3}", answer.value.unwrap_or(0.0))),
            Cell::text(answer.at.as_str()),
        ]
    };
    Table {
        caption: "Elasticities of at least 0.0005, largest first".into(),
        header: ["key", "variant", "metric", "elasticity", "setting"].map(str::to_owned).to_vec(),
        rows: answers.iter().take(MOST).map(row).collect(),
        left_out: answers.len().saturating_sub(MOST) as u64,
    }
}

/// A key, and what it does lower and higher.
type Swing = (String, f64, f64);

/// A chart for each setting, metric and variant, in the order of the answers.
fn tornadoes(answers: &[&Finding]) -> Vec<Chart> {
    let mut charts: Vec<(String, Vec<Swing>)> = Vec::new();
    for answer in answers {
        let Some((low, high)) = answer.swing else { continue };
        if low.abs().max(high.abs()) < 0.005 {
            continue;
        }
        let title = format!("What moves the {} of {}", Quantity::of(&answer.about).name, answer.variant);
        let key = answer.moved.strip_prefix("hardware.").unwrap_or(&answer.moved).to_owned();
        match charts.iter_mut().find(|(known, _)| *known == title) {
            Some((_, bars)) => bars.push((key, low, high)),
            None => charts.push((title, vec![(key, low, high)])),
        }
    }
    let chart = |(title, bars): (String, Vec<Swing>)| Chart {
        title,
        summary:
            "Change of the metric when each number of the profile is one step lower and one step higher."
                .into(),
        body: Body::Tornado(Tornado {
            unit: "change, %".into(),
            low_name: "lower".into(),
            high_name: "higher".into(),
            bars,
        }),
    };
    charts.into_iter().take(MOST_TORNADOES).map(chart).collect()
}
