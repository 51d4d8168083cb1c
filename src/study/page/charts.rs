//! The pictures that a study asks for, from its rows.

use super::findings::capital;
use super::seen::{SeenRow, SeenRows};
use crate::metrics::{Estimate, Gain};
use crate::plot::{Body, Chart, ChartAxis, Corner, Line, Lines, Panel, Point, PointGroup, Scatter};
use crate::report::quantity::Quantity;
use crate::study::{Assembly, Objective, Plot, Study, front};

/// From this ratio of the largest to the smallest value on, an axis is logarithmic.
const WIDE: f64 = 10.0;

/// Those that the study names, or else what its axes suggest: each objective and the gain in it against the first axis of numbers, and
/// the front of the first two objectives.
pub fn plots(study: &Study) -> Vec<Plot> {
    if !study.spec.plots.is_empty() {
        return study.spec.plots.clone();
    }
    let objectives = &study.spec.objectives;
    let mut plots = Vec::new();
    let leaves = study.grid.leaves();
    let moving = leaves.iter().find(|leaf| leaf.is_numeric() && leaf.count() != Some(1));
    if let Some(leaf) = moving {
        let several = study.base.variants.len() > 1;
        for objective in objectives {
            let (x, y) = (leaf.name.clone(), objective.metric().to_owned());
            plots.push(Plot::Lines { x: x.clone(), y, log_y: false });
            if several && !study.grid.is_sampled(&x) {
                plots.push(Plot::Gain { x, of: objective.clone() });
            }
        }
    }
    if let [x, y, ..] = objectives.as_slice() {
        plots.push(Plot::Pareto { x: x.clone(), y: y.clone(), by: "variant".into() });
    }
    plots
}

/// A picture; none where no row has what it shows.
pub fn chart(assembly: &Assembly, seen: &SeenRows, plot: &Plot) -> Option<Chart> {
    let study = assembly.study;
    let metrics = study.shown();
    let place = |metric: &str| metrics.iter().position(|known| known == metric);
    match plot {
        Plot::Lines { x, y, .. } if study.grid.is_sampled(x) => {
            let (axis, metric) = (axis_place(study, x)?, place(y)?);
            let quantity = Quantity::of(y);
            let points = |seen: &SeenRow| Some((seen.at[axis].1?, seen.figures[metric]?));
            Some(cloud(study, seen, x, &quantity, points))
        }
        Plot::Lines { x, y, log_y } => {
            let metric = place(y)?;
            let quantity = Quantity::of(y);
            let of = |seen: &SeenRow| seen.figures[metric].map(|figure| interval(&figure, &quantity));
            let name = &quantity.name;
            let title = capital(&format!("{name} against {x}"));
            let summary = capital(&format!(
                "{name} of each variant against {x}. Bands join the confidence over the seeds and the error of the kernels; where that is not known, lines are hatched."
            ));
            lines(assembly, seen, x, (quantity.label(), *log_y), (title, summary), &of)
        }
        Plot::Gain { x, of } => {
            let first = &study.base.variants.first()?.name;
            let objective = study.spec.objectives.iter().position(|objective| objective == of)?;
            let gain = |seen: &SeenRow| seen.gains[objective].map(|gain| band(&gain));
            let metric = Quantity::of(of.metric()).name;
            let title = format!("Gain in {metric} over {first}");
            let summary = format!(
                "By how many percent each variant is better than {first} in {metric}, against {x}; below 0 it is worse. Where the error is not known, lines are hatched."
            );
            lines(assembly, seen, x, (format!("gain in {metric}, %"), false), (title, summary), &gain)
        }
        Plot::Pareto { x, y, by } => {
            pareto(study, seen, (x, place(x.metric())?), (y, place(y.metric())?), by)
        }
    }
}

fn axis_place(study: &Study, name: &str) -> Option<usize> {
    study.grid.leaves().iter().position(|leaf| leaf.name == name)
}

/// A value with the ends of its interval, and whether the error of the kernels is missing in it.
struct Ends {
    value: f64,
    low: f64,
    high: f64,
    unsure: bool,
}

/// A figure as a value with its ends.
fn interval(figure: &Estimate, quantity: &Quantity) -> Ends {
    let [value, low, high] = [figure.value, figure.low(), figure.high()].map(|end| end * quantity.factor);
    // No share is more than all.
    let high = if quantity.unit == "%" { high.min(100.0) } else { high };
    Ends { value, low, high, unsure: !figure.is_known() }
}

/// A gain with its error over the seeds and of kernels that err alike.
fn band(gain: &Gain) -> Ends {
    let half = gain.seeds_percent.unwrap_or(0.0) + gain.shared_percent.unwrap_or(0.0);
    let (low, high) = (gain.percent - half, gain.percent + half);
    Ends { value: gain.percent, low, high, unsure: gain.shared_percent.is_none() }
}

/// A line for each variant, a panel for each setting of the axes that do not move with `x`.
fn lines(
    assembly: &Assembly,
    seen: &SeenRows,
    x: &str,
    (y, log_y): (String, bool),
    (title, summary): (String, String),
    of: &dyn Fn(&SeenRow) -> Option<Ends>,
) -> Option<Chart> {
    let study = assembly.study;
    let leaves = study.grid.leaves();
    let axis = axis_place(study, x)?;
    let together = study.grid.together(x);
    let others: Vec<usize> = (0..leaves.len())
        .filter(|place| {
            !together.contains(&leaves[*place].name.as_str()) && leaves[*place].count() != Some(1)
        })
        .collect();
    let mut panels: Vec<(Vec<String>, Panel)> = Vec::new();
    for row in seen.rows.iter().filter(|row| row.on_grid) {
        let (Some(at), Some(ends)) = (row.at[axis].1, of(row)) else { continue };
        let Ends { value, low, high, unsure } = ends;
        let key: Vec<String> = others.iter().map(|place| row.at[*place].0.clone()).collect();
        let panel = match panels.iter_mut().position(|(known, _)| *known == key) {
            Some(place) => &mut panels[place].1,
            None => {
                let named = others.iter().zip(&key).map(|(place, label)| match label.parse::<f64>() {
                    Ok(_) => format!("{} {label}", leaves[*place].name),
                    Err(_) => label.clone(),
                });
                let name = named.collect::<Vec<_>>().join(", ");
                panels.push((key, Panel { name, lines: Vec::new(), marks: Vec::new() }));
                &mut panels.last_mut()?.1
            }
        };
        let line = match panel.lines.iter_mut().position(|line| line.name == row.variant) {
            Some(place) => &mut panel.lines[place],
            None => {
                panel.lines.push(Line { name: row.variant.clone(), points: Vec::new() });
                panel.lines.last_mut()?
            }
        };
        line.points.push(Point { x: at, y: value, low, high, unsure });
    }
    for (_, panel) in &mut panels {
        panel.lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.x.total_cmp(&b.x)));
    }
    let panels: Vec<Panel> = panels.into_iter().map(|(_, panel)| panel).collect();
    if panels.is_empty() {
        return None;
    }
    let all = panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points).map(|point| point.x);
    let log = leaves[axis].is_log() || is_wide(all);
    let body = Lines {
        x: ChartAxis { label: x.to_owned(), log },
        y: ChartAxis { label: y, log: log_y },
        panels,
        steps: false,
    };
    Some(Chart { title, summary, body: Body::Lines(body) })
}

/// Whether values spread over so much that equal ratios should be equally far apart.
pub fn is_wide(values: impl Iterator<Item = f64>) -> bool {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    low > 0.0 && high / low >= WIDE
}

/// Points of samples: an axis against a metric.
fn cloud(
    study: &Study,
    seen: &SeenRows,
    x: &str,
    y: &Quantity,
    of: impl Fn(&SeenRow) -> Option<(f64, Estimate)>,
) -> Chart {
    let place = |row: &SeenRow| of(row).map(|(x, figure)| (x, figure.value * y.factor, figure.is_known()));
    let group = |variant: &crate::scenario::Variant| PointGroup {
        name: variant.name.clone(),
        points: seen
            .rows
            .iter()
            .filter(|row| row.on_grid && row.variant == variant.name)
            .filter_map(|row| place(row).map(|(x, y, _)| (x, y, words(study, row, None))))
            .collect(),
    };
    let mut groups: Vec<PointGroup> = study.base.variants.iter().map(group).collect();
    let drawn = seen.rows.iter().filter(|row| row.on_grid).filter_map(place);
    let unsure = drawn.filter(|(.., known)| !known).map(|(x, y, _)| (x, y)).collect();
    let drawn = thin(&mut groups, &[]);
    let (xs, ys): (Vec<f64>, Vec<f64>) =
        groups.iter().flat_map(|group| &group.points).map(|(x, y, _)| (*x, *y)).unzip();
    let axis = |label: &str, values: Vec<f64>| ChartAxis {
        label: label.to_owned(),
        log: is_wide(values.into_iter()),
    };
    Chart {
        title: capital(&format!("{} against {x}", y.name)),
        summary: capital(&format!("{} of every sampled point against its {x}.{drawn}", y.name)),
        body: Body::Scatter(Scatter {
            x: axis(x, xs),
            y: axis(&y.label(), ys),
            groups,
            unsure,
            front: Vec::new(),
            corner: None,
        }),
    }
}

/// Points of one picture; more of them hide each other.
const MOST_POINTS: usize = 1500;

/// Leaves out points beyond those, evenly and none of the front; says so.
fn thin(groups: &mut [PointGroup], front: &[(f64, f64)]) -> String {
    let all: usize = groups.iter().map(|group| group.points.len()).sum();
    let every = all.div_ceil(MOST_POINTS).max(1);
    if every == 1 {
        return String::new();
    }
    let mut number = 0;
    for group in groups {
        group.points.retain(|(x, y, _)| {
            number += 1;
            number % every == 0 || front.contains(&(*x, *y))
        });
    }
    format!(" One of {every} points is drawn.")
}

/// What a point is called, beside the name of its group: a variant, or a value of the axis at this place. Of axes that move together the
/// first one says it.
fn words(study: &Study, row: &SeenRow, grouped_by: Option<usize>) -> String {
    let says = |place: usize, name: &str| {
        Some(place) != grouped_by
            && (study.grid.is_sampled(name) || study.grid.together(name).first() == Some(&name))
    };
    let leaves = study.grid.leaves();
    let at = leaves.iter().zip(&row.at).enumerate();
    let at =
        at.filter(|(place, (leaf, _))| says(*place, &leaf.name)).map(|(_, (_, (label, _)))| label.as_str());
    let variant = grouped_by.map(|_| row.variant.as_str());
    at.chain(variant).collect::<Vec<_>>().join(", ")
}

fn pareto(
    study: &Study,
    seen: &SeenRows,
    (x, x_place): (&Objective, usize),
    (y, y_place): (&Objective, usize),
    by: &str,
) -> Option<Chart> {
    let axis = axis_place(study, by);
    let (across, up) = (Quantity::of(x.metric()), Quantity::of(y.metric()));
    let mut groups: Vec<PointGroup> = Vec::new();
    let mut all: Vec<(f64, f64)> = Vec::new();
    let mut unsure: Vec<(f64, f64)> = Vec::new();
    for row in seen.rows.iter().filter(|row| row.on_grid && row.feasible) {
        let (Some(at), Some(to)) = (row.figures[x_place], row.figures[y_place]) else { continue };
        let name = axis.map_or(&row.variant, |axis| &row.at[axis].0);
        let group = match groups.iter_mut().position(|group| group.name == *name) {
            Some(place) => &mut groups[place],
            None => {
                groups.push(PointGroup { name: name.clone(), points: Vec::new() });
                groups.last_mut()?
            }
        };
        let point = (at.value * across.factor, to.value * up.factor);
        group.points.push((point.0, point.1, words(study, row, axis)));
        all.push(point);
        if !(at.is_known() && to.is_known()) {
            unsure.push(point);
        }
    }
    if all.is_empty() {
        return None;
    }
    let corner = match (x.less_is_better(), y.less_is_better()) {
        (true, true) => Corner::LowerLeft,
        (true, false) => Corner::UpperLeft,
        (false, true) => Corner::LowerRight,
        (false, false) => Corner::UpperRight,
    };
    let axis = |quantity: &Quantity, values: Vec<f64>| ChartAxis {
        label: quantity.label(),
        log: is_wide(values.into_iter()),
    };
    let (xs, ys): (Vec<f64>, Vec<f64>) = all.iter().copied().unzip();
    let front = front(&all, x, y);
    let drawn = thin(&mut groups, &front);
    Some(Chart {
        title: capital(&format!("{} against {}, by {by}", up.name, across.name)),
        summary: format!(
            "Every point that holds what must hold; the line joins those that no other point beats in both. A stroke marks those whose error is not known.{drawn}"
        ),
        body: Body::Scatter(Scatter {
            front,
            unsure,
            x: axis(&across, xs),
            y: axis(&up, ys),
            groups,
            corner: Some(corner),
        }),
    })
}
