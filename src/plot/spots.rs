//! Points with error bars in small pictures. They share the axis upward; across, each has its own.

use super::canvas::{At, Canvas, LABEL};
use super::ink::Paint;
use super::scale::{Scale, Span, usable};
use super::scatter::shape;
use super::sheet::{Axes, EDGE, Sample, Sheet, WIDTH, axis, distinct, gutter, listed};
use super::text::{are, fit};
use super::{Spot, SpotPanel, Spots, UNSURE};

const PANELS: usize = 12;
const NAMES: usize = 16;
/// Lines are told apart by dashes, of which there are so many kinds.
const LINES: usize = 4;

impl Spots {
    pub(super) fn draw(&self, sheet: &mut Sheet) {
        let panels = &self.panels[..self.panels.len().min(PANELS)];
        let spots = || panels.iter().flat_map(|panel| &panel.spots);
        let all_names = distinct(spots().map(|spot| spot.name.as_str()));
        let (names, rest) = all_names.split_at(all_names.len().min(NAMES));
        let all_lines = distinct(panels.iter().flat_map(|panel| &panel.lines).map(|(name, _)| name.as_str()));
        let (lines, more_lines) = all_lines.split_at(all_lines.len().min(LINES));
        let place_of = |spot: &Spot| names.iter().position(|name| *name == spot.name);
        let drawn = |panel: &SpotPanel| -> Vec<(usize, Spot)> {
            let usable = panel.spots.iter().filter(|spot| self.usable((spot.x, spot.y)));
            usable.filter_map(|spot| Some((place_of(spot)?, spot.clone()))).collect()
        };
        if panels.iter().all(|panel| drawn(panel).is_empty()) {
            return sheet.nothing();
        }
        let line_paint = |at: usize| Paint::MUTED.dashed(at + 1);
        let mut entries: Vec<(Sample, &str)> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (Sample::Mark(Paint::series(at), shape(at)), *name))
            .collect();
        entries.extend(lines.iter().enumerate().map(|(at, name)| (Sample::Line(line_paint(at)), *name)));
        if panels.iter().any(|panel| !panel.front.is_empty()) {
            entries.push((Sample::Line(Paint::TEXT), "front: the best known"));
        }
        if spots().any(|spot| spot.unsure) {
            entries.push((Sample::Struck(Paint::MUTED), UNSURE));
        }
        sheet.legend(&entries);
        if let Some(corner) = self.corner {
            corner.arrow(&sheet.canvas, (WIDTH - EDGE, sheet.y + 9.0));
        }
        sheet.y_label(&self.y);

        let ends = |value: f64, ends: [f64; 2]| [value, ends[0], ends[1]];
        let ups = spots().filter(|spot| place_of(spot).is_some()).flat_map(|spot| ends(spot.y, spot.y_ends));
        let y_span = Span::of(ups, self.y.log).near_zero(0.3).padded();
        let columns = panels.len().min(2);
        let high = if panels.len() == 1 { 290.0 } else { 170.0 };
        let y_ticks = y_span.ticks(if panels.len() == 1 { 6 } else { 5 });
        let (left, between) = (gutter(&y_ticks), 24.0);
        let wide = (WIDTH - left - EDGE - 6.0 - between * (columns - 1) as f64) / columns as f64;
        for pair in panels.chunks(columns) {
            let heading = if pair.iter().any(|panel| !panel.name.is_empty()) { 20.0 } else { 0.0 };
            let top = sheet.y + heading + 4.0;
            let y = y_span.on(top + high, top);
            for (at, panel) in pair.iter().enumerate() {
                let from = left + (wide + between) * at as f64;
                let spots = drawn(panel);
                let across = spots.iter().flat_map(|(_, spot)| ends(spot.x, spot.x_ends));
                let x_span = Span::of(across, self.x.log).near_zero(0.3).padded();
                let (x, x_ticks) = axis(x_span, from, from + wide, if columns == 1 { 8 } else { 5 });
                sheet.canvas.bold((from, sheet.y + 7.0), &fit(&panel.name, wide, LABEL), LABEL);
                Axes { x: &x, y: &y, x_ticks: &x_ticks, y_ticks: &y_ticks, numbers: (true, at == 0) }
                    .draw(&sheet.canvas);
                let paint = |name: &str| lines.iter().position(|known| *known == name).map(line_paint);
                for (name, points) in &panel.lines {
                    if let Some(paint) = paint(name) {
                        sheet.canvas.path(&self.places(points, &x, &y), paint, 1.4);
                    }
                }
                let front = self.places(&panel.front, &x, &y);
                let stairs = self.corner.map_or_else(Vec::new, |corner| corner.staircase(&front, &x, &y));
                for (piece, paint) in stairs {
                    sheet.canvas.path(&piece, paint, 1.6);
                }
                spots.iter().for_each(|(at, spot)| bars(&sheet.canvas, spot, Paint::series(*at), &x, &y));
                for (at, spot) in &spots {
                    let place = (x.at(spot.x), y.at(spot.y));
                    sheet.canvas.mark(place, shape(*at), 4.4, Paint::series(*at).strength(0.9));
                    if spot.unsure {
                        sheet.canvas.strike(place, Paint::series(*at));
                    }
                }
                front.iter().for_each(|at| sheet.canvas.ring(*at, 6.8, Paint::TEXT, 1.2));
            }
            sheet.y = top + high + 26.0;
        }
        sheet.x_label(&self.x);
        let hidden = spots().filter(|spot| !self.usable((spot.x, spot.y))).count();
        if hidden > 0 {
            sheet.remark(&format!("{} not on these axes and left out.", are(hidden, "point")));
        }
        if self.panels.len() > PANELS {
            let names: Vec<_> = self.panels[PANELS..].iter().map(|panel| panel.name.as_str()).collect();
            sheet.remark(&format!("{} left out: {}.", are(names.len(), "more panel"), listed(&names)));
        }
        for (what, rest) in [("more name", rest), ("more line", more_lines)] {
            if !rest.is_empty() {
                sheet.remark(&format!("{} left out: {}.", are(rest.len(), what), listed(rest)));
            }
        }
    }

    fn usable(&self, (x, y): At) -> bool {
        usable(x, self.x.log) && usable(y, self.y.log)
    }

    /// Pixels of points, from left to right.
    fn places(&self, points: &[At], x: &Scale, y: &Scale) -> Vec<At> {
        let mut points: Vec<At> = points.iter().copied().filter(|at| self.usable(*at)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points.into_iter().map(|(across, up)| (x.at(across), y.at(up))).collect()
    }
}

/// The intervals of a point in both directions, with a stroke at each end that the axes hold.
fn bars(canvas: &Canvas, spot: &Spot, paint: Paint, x: &Scale, y: &Scale) {
    const CAP: f64 = 3.0;
    let paint = paint.strength(0.75);
    let place = (x.at(spot.x), y.at(spot.y));
    let drawn = |[low, high]: [f64; 2]| low < high && usable(low, false) && usable(high, false);
    if drawn(spot.x_ends) {
        let [low, high] = spot.x_ends.map(|end| x.at(end));
        canvas.path(&[(low, place.1), (high, place.1)], paint, 1.3);
        for end in [low, high] {
            canvas.path(&[(end, place.1 - CAP), (end, place.1 + CAP)], paint, 1.3);
        }
    }
    if drawn(spot.y_ends) {
        let [low, high] = spot.y_ends.map(|end| y.at(end));
        canvas.path(&[(place.0, low), (place.0, high)], paint, 1.3);
        for end in [low, high] {
            canvas.path(&[(place.0 - CAP, end), (place.0 + CAP, end)], paint, 1.3);
        }
    }
}
