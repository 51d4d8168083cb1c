//! The numbers behind a picture, for those who do not see it.

use super::text::{name, number};
use super::{Arcs, Body, ChartAxis, HeatMap, Lines, Scatter, Spots, Tornado, UNSURE, Waterfall};
use std::collections::HashSet;

type Table = (Vec<String>, Vec<Vec<String>>);

/// The head of the table, and its rows.
pub(super) fn of(body: &Body) -> Table {
    match body {
        Body::Lines(body) => lines(body),
        Body::Scatter(body) => scatter(body),
        Body::Spots(body) => spots(body),
        Body::Waterfall(body) => waterfall(body),
        Body::HeatMap(body) => heat(body),
        Body::Arcs(body) => arcs(body),
        Body::Tornado(body) => tornado(body),
    }
}

fn head<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(name).to_vec()
}

fn or<'t>(axis: &'t ChartAxis, other: &'t str) -> &'t str {
    if axis.label.is_empty() { other } else { &axis.label }
}

fn lines(body: &Lines) -> Table {
    let mut rows = Vec::new();
    for panel in &body.panels {
        for line in &panel.lines {
            for point in &line.points {
                let band = |end| if point.low < point.high { number(end) } else { String::new() };
                let unsure = if point.unsure { UNSURE } else { "" };
                let numbers =
                    [number(point.x), number(point.y), band(point.low), band(point.high), unsure.to_owned()];
                rows.push([name(&panel.name), name(&line.name)].into_iter().chain(numbers).collect());
            }
        }
        let mark = |(x, text): &(f64, String)| {
            let blank = std::iter::repeat_n(String::new(), 4);
            [name(&panel.name), name(text), number(*x)].into_iter().chain(blank).collect()
        };
        rows.extend(panel.marks.iter().map(mark));
    }
    (head(["panel", "line", or(&body.x, "x"), or(&body.y, "y"), "low", "high", "error"]), rows)
}

fn scatter(body: &Scatter) -> Table {
    let bits = |x: f64, y: f64| (x.to_bits(), y.to_bits());
    let all_unsure: HashSet<_> = body.unsure.iter().map(|(x, y)| bits(*x, *y)).collect();
    let mut rows = Vec::new();
    for group in &body.groups {
        for (x, y, text) in &group.points {
            let front = if body.front.contains(&(*x, *y)) { "yes" } else { "" };
            let unsure = if all_unsure.contains(&bits(*x, *y)) { UNSURE } else { "" };
            let words = [front, unsure].map(str::to_owned);
            let cells = [name(&group.name), name(text), number(*x), number(*y)];
            rows.push(cells.into_iter().chain(words).collect());
        }
    }
    (head(["group", "point", or(&body.x, "x"), or(&body.y, "y"), "on the front", "error"]), rows)
}

fn spots(body: &Spots) -> Table {
    let mut rows = Vec::new();
    for panel in &body.panels {
        for spot in &panel.spots {
            let ends = |[low, high]: [f64; 2]| match low < high {
                true => [low, high].map(number),
                false => Default::default(),
            };
            let front = if panel.front.contains(&(spot.x, spot.y)) { "yes" } else { "" };
            let unsure = if spot.unsure { UNSURE } else { "" };
            let ([x_low, x_high], [y_low, y_high]) = (ends(spot.x_ends), ends(spot.y_ends));
            let numbers = [number(spot.x), x_low, x_high, number(spot.y), y_low, y_high];
            let words = [front, unsure].map(str::to_owned);
            rows.push(
                [name(&panel.name), name(&spot.name)].into_iter().chain(numbers).chain(words).collect(),
            );
        }
    }
    let (x, y) = (or(&body.x, "x"), or(&body.y, "y"));
    (head(["panel", "point", x, "low", "high", y, "low", "high", "on the front", "error"]), rows)
}

fn waterfall(body: &Waterfall) -> Table {
    let bars = body.groups.iter().flat_map(|group| group.bars.iter().map(|bar| (&group.name, bar)));
    let rows = bars.map(|(group, (text, value))| vec![name(group), name(text), number(*value)]).collect();
    (head(["group", "bar", &body.unit]), rows)
}

fn heat(body: &HeatMap) -> Table {
    let columns = body.rows.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
    let mut names = vec![name(&format!("{} by {}", body.unit, body.x_label))];
    names.extend((0..columns).map(|column| column.to_string()));
    let row = |(text, cells): &(String, Vec<f64>)| {
        let blank = std::iter::repeat_n(String::new(), columns - cells.len());
        [name(text)].into_iter().chain(cells.iter().map(|cell| number(*cell))).chain(blank).collect()
    };
    (names, body.rows.iter().map(row).collect())
}

fn arcs(body: &Arcs) -> Table {
    let node = |at: usize| body.nodes.get(at).map_or_else(|| at.to_string(), |text| name(text));
    let row = |(from, to, weight): &(usize, usize, f64)| vec![node(*from), node(*to), number(*weight)];
    (head(["from", "to", "weight"]), body.edges.iter().map(row).collect())
}

fn tornado(body: &Tornado) -> Table {
    let row = |(text, low, high): &(String, f64, f64)| vec![name(text), number(*low), number(*high)];
    let names = [&body.low_name, &body.high_name].map(|text| format!("{text} ({})", body.unit));
    (head(["input", &names[0], &names[1]]), body.bars.iter().map(row).collect())
}
