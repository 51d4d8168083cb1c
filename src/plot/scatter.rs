//! Points on two axes, with the front of those that none betters.

use super::canvas::{Anchor, At, Canvas, LABEL};
use super::ink::Paint;
use super::scale::{Scale, Span, usable};
use super::sheet::{Axes, EDGE, Labels, Sample, Sheet, WIDTH, axis, gutter, listed};
use super::text::are;
use super::{Corner, Scatter, UNSURE};
use std::collections::HashSet;

const GROUPS: usize = 16;
/// Up to so many points all get their names.
const FEW: usize = 14;
/// Names on a front; more would be a thicket.
const NAMED: usize = 40;

impl Scatter {
    pub(super) fn draw(&self, sheet: &mut Sheet) {
        let (groups, rest) = self.groups.split_at(self.groups.len().min(GROUPS));
        let drawn = |(x, y): At| usable(x, self.x.log) && usable(y, self.y.log);
        let mut front: Vec<At> = self.front.iter().copied().filter(|at| drawn(*at)).collect();
        front.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let points = || groups.iter().flat_map(|group| &group.points).map(|(x, y, _)| (*x, *y));
        let all: Vec<At> = points().chain(front.iter().copied()).filter(|at| drawn(*at)).collect();
        if all.is_empty() {
            return sheet.nothing();
        }

        let mut entries: Vec<(Sample, &str)> = groups
            .iter()
            .enumerate()
            .filter(|(_, group)| groups.len() > 1 || !group.name.is_empty())
            .map(|(at, group)| (Sample::Mark(Paint::series(at), shape(at)), group.name.as_str()))
            .collect();
        if !front.is_empty() {
            entries.push((Sample::Line(Paint::TEXT), "front: the best known"));
        }
        if !self.unsure.is_empty() {
            entries.push((Sample::Struck(Paint::MUTED), UNSURE));
        }
        let unsure: HashSet<(u64, u64)> = self.unsure.iter().map(bits).collect();
        sheet.legend(&entries);
        if let Some(corner) = self.corner {
            corner.arrow(&sheet.canvas, (WIDTH - EDGE, sheet.y + 9.0));
        }
        sheet.y_label(&self.y);

        let span = |of: fn(&At) -> f64, log| Span::of(all.iter().map(of), log).near_zero(0.6).padded();
        let (top, bottom) = (sheet.y + 12.0, sheet.y + 350.0);
        let (y, y_ticks) = axis(span(|at| at.1, self.y.log), bottom, top, 6);
        let (x, x_ticks) = axis(span(|at| at.0, self.x.log), gutter(&y_ticks), WIDTH - EDGE - 6.0, 8);
        Axes { x: &x, y: &y, x_ticks: &x_ticks, y_ticks: &y_ticks, numbers: (true, true) }
            .draw(&sheet.canvas);

        let place = |(across, up): At| (x.at(across), y.at(up));
        let front: Vec<At> = front.into_iter().map(place).collect();
        let mut labels = Labels::default();
        let stairs = match self.corner {
            Some(corner) => corner.staircase(&front, &x, &y),
            None => vec![(front.clone(), Paint::TEXT)],
        };
        for (piece, paint) in stairs {
            sheet.canvas.path(&piece, paint, 1.6);
            labels.keep_line(&piece);
        }
        let mut seen = HashSet::new();
        for (at, group) in groups.iter().enumerate() {
            for (across, up, _) in group.points.iter().filter(|(across, up, _)| drawn((*across, *up))) {
                let (left, down) = place((*across, *up));
                // Points on the same spot are drawn once: a million of them look like one.
                if seen.insert((at, (left * 2.0) as i64, (down * 2.0) as i64)) {
                    sheet.canvas.mark((left, down), shape(at), 4.2, Paint::series(at).strength(0.85));
                    if unsure.contains(&bits(&(*across, *up))) {
                        sheet.canvas.strike((left, down), Paint::series(at));
                    }
                }
            }
        }
        front.iter().for_each(|at| sheet.canvas.ring(*at, 6.5, Paint::TEXT, 1.4));

        all.iter().take(2000).for_each(|at| labels.keep(place(*at), 4.0));
        front.iter().for_each(|at| labels.keep(*at, 7.0));
        let named = groups.iter().flat_map(|group| &group.points).filter(|(x, y, _)| drawn((*x, *y)));
        let on_front = |x: f64, y: f64| self.front.contains(&(x, y));
        let (first, other): (Vec<_>, Vec<_>) = named.partition(|(x, y, _)| on_front(*x, *y));
        let few = first.len() + other.len() <= FEW;
        let inside = ((x.from + 2.0, sheet.y - 4.0), (WIDTH, bottom - 2.0));
        for (across, up, text) in first.into_iter().take(NAMED).chain(other.into_iter().filter(|_| few)) {
            labels.write(&sheet.canvas, place((*across, *up)), text, inside);
        }

        sheet.y = bottom + 26.0;
        sheet.x_label(&self.x);
        let hidden = points().filter(|at| !drawn(*at)).count();
        if hidden > 0 {
            sheet.remark(&format!("{} not on these axes and left out.", are(hidden, "point")));
        }
        if !rest.is_empty() {
            let names: Vec<_> = rest.iter().map(|group| group.name.as_str()).collect();
            sheet.remark(&format!("{} left out: {}.", are(rest.len(), "more group"), listed(&names)));
        }
    }
}

/// A place that can be looked up.
fn bits((x, y): &(f64, f64)) -> (u64, u64) {
    (x.to_bits(), y.to_bits())
}

/// Shapes come again with the colours from 8 on, shifted by one.
pub(super) fn shape(at: usize) -> usize {
    at + at / 8
}

impl Corner {
    /// The border of what is reached, piece by piece: between two points of the front, the worse of both in each direction.
    pub(super) fn staircase(self, front: &[At], x: &Scale, y: &Scale) -> Vec<(Vec<At>, Paint)> {
        let (Some(first), Some(last)) = (front.first(), front.last()) else { return Vec::new() };
        let (leftward, downward) = self.better();
        let level = |a: &At, b: &At| if leftward { (b.0, a.1) } else { (a.0, b.1) };
        let mut stairs = vec![*first];
        for pair in front.windows(2) {
            stairs.extend([level(&pair[0], &pair[1]), pair[1]]);
        }
        // Beyond its ends the front goes on level and upright, away from the corner.
        let worse_y = if downward { y.to } else { y.from };
        let (upright, flat) = if leftward { (first, last) } else { (last, first) };
        let worse_x = if leftward { x.to } else { x.from };
        let beyond = |from: &At, to: At| (vec![*from, to], Paint::MUTED.dashed(2));
        vec![(stairs, Paint::TEXT), beyond(upright, (upright.0, worse_y)), beyond(flat, (worse_x, flat.1))]
    }

    /// Whether better is to the left, and whether it is below.
    fn better(self) -> (bool, bool) {
        match self {
            Corner::LowerLeft => (true, true),
            Corner::LowerRight => (false, true),
            Corner::UpperLeft => (true, false),
            Corner::UpperRight => (false, false),
        }
    }

    /// `better`, with an arrow that points there; ends at the right at a place.
    pub(super) fn arrow(self, canvas: &Canvas, (right, middle): At) {
        let (leftward, downward) = self.better();
        let (dx, dy) = (if leftward { -1.0 } else { 1.0 }, if downward { 1.0 } else { -1.0 });
        let centre = (right - 8.0, middle);
        let along = |share: f64| (centre.0 + dx * share, centre.1 + dy * share);
        let tip = along(6.0);
        canvas.path(&[along(-6.0), tip], Paint::TEXT, 1.8);
        canvas.path(&[(tip.0 - dx * 7.0, tip.1), tip, (tip.0, tip.1 - dy * 7.0)], Paint::TEXT, 1.8);
        canvas.text((right - 21.0, middle), "better", Anchor::End, LABEL, Paint::TEXT);
    }
}
