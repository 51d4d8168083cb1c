//! The numbers behind a picture, for those who do not see it.

use super::text::{name, number};
use super::{Arcs, Axis, Body, HeatMap, Lines, Scatter, Tornado, Waterfall};

type Table = (Vec<String>, Vec<Vec<String>>);

/// The head of the table, and its rows.
pub(super) fn of(body: &Body) -> Table {
    match body {
        Body::Lines(body) => lines(body),
        Body::Scatter(body) => scatter(body),
        Body::Waterfall(body) => waterfall(body),
        Body::HeatMap(body) => heat(body),
        Body::Arcs(body) => arcs(body),
        Body::Tornado(body) => tornado(body),
    }
}

fn head<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(name).to_vec()
}

fn or<'t>(axis: &'t Axis, other: &'t str) -> &'t str {
    if axis.label.is_empty() { other } else { &axis.label }
}

fn lines(body: &Lines) -> Table {
    let mut rows = Vec::new();
    for panel in &body.panels {
        for line in &panel.lines {
            for point in &line.points {
                let band = |end| if point.low < point.high { number(end) } else { String::new() };
                let numbers = [number(point.x), number(point.y), band(point.low), band(point.high)];
                rows.push([name(&panel.name), name(&line.name)].into_iter().chain(numbers).collect());
            }
        }
        let mark = |(x, text): &(f64, String)| {
            vec![name(&panel.name), name(text), number(*x), String::new(), String::new(), String::new()]
        };
        rows.extend(panel.marks.iter().map(mark));
    }
    (head(["panel", "line", or(&body.x, "x"), or(&body.y, "y"), "low", "high"]), rows)
}

fn scatter(body: &Scatter) -> Table {
    let mut rows = Vec::new();
    for group in &body.groups {
        for (x, y, text) in &group.points {
            let front = if body.front.contains(&(*x, *y)) { "yes" } else { "" };
            rows.push(vec![name(&group.name), name(text), number(*x), number(*y), front.to_owned()]);
        }
    }
    (head(["group", "point", or(&body.x, "x"), or(&body.y, "y"), "on the front"]), rows)
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
