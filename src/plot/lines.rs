//! Lines with bands in small pictures that share their axes.

use super::canvas::{Anchor, At, Canvas, LABEL, TICK};
use super::ink::{COLOURS, Paint};
use super::scale::{Scale, Span, usable};
use super::sheet::{Axes, EDGE, Sample, Sheet, WIDTH, axis, distinct, gutter, listed};
use super::text::{are, fit, width};
use super::{Line, Lines, Panel, Point, UNSURE};

const PANELS: usize = 12;
const NAMES: usize = 16;
/// Labelled vertical lines of a panel, and lines of text for their labels.
const MARKS: usize = 40;
const MARK_ROWS: usize = 3;
/// Lines with at most so many points show them as marks, told apart by shape; the others are told apart by dashes.
const FEW: usize = 24;

/// How the line of a name looks: its number among the names, and whether its points are marked.
#[derive(Clone, Copy)]
struct Look {
    at: usize,
    marked: bool,
}

impl Look {
    fn paint(self) -> Paint {
        // Colours come again from 8 on, with another dash each.
        let again = self.at / COLOURS;
        Paint::series(self.at).dashed(if self.marked { again } else { self.at + again })
    }

    fn sample(self) -> Sample {
        if self.marked { Sample::MarkedLine(self.paint(), self.at) } else { Sample::Line(self.paint()) }
    }
}

impl Lines {
    pub(super) fn draw(&self, sheet: &mut Sheet) {
        let panels = &self.panels[..self.panels.len().min(PANELS)];
        let all_names = distinct(panels.iter().flat_map(|panel| &panel.lines).map(|line| line.name.as_str()));
        let (names, rest) = all_names.split_at(all_names.len().min(NAMES));
        let look_of = |line: &Line| names.iter().position(|name| *name == line.name);
        let lines = || panels.iter().flat_map(|panel| &panel.lines).filter(|line| look_of(line).is_some());
        let points = || lines().flat_map(|line| &line.points).filter(|point| self.usable(point));
        if points().next().is_none() {
            return sheet.nothing();
        }
        let marked = !self.steps && lines().all(|line| line.points.len() <= FEW);
        if names.len() > 1 || names.iter().any(|name| !name.is_empty()) {
            let entries: Vec<_> =
                names.iter().enumerate().map(|(at, name)| (Look { at, marked }.sample(), *name)).collect();
            sheet.legend(&entries);
        }
        let unsure = points().any(|point| point.unsure);
        if unsure {
            sheet.legend(&[(Sample::Hatch(Paint::MUTED), UNSURE)]);
        }

        let marks = panels.iter().flat_map(|panel| panel.marks.iter().take(MARKS)).map(|(x, _)| *x);
        let x_span = Span::of(points().map(|point| point.x).chain(marks), self.x.log).near_zero(0.05);
        let x_span = if marked { x_span.padded() } else { x_span };
        let ends = |point: &Point| {
            if point.low < point.high { [point.y, point.low, point.high] } else { [point.y; 3] }
        };
        let y_span = Span::of(points().flat_map(ends), self.y.log).near_zero(0.6).padded();
        // Time runs across the whole width, one panel below the other.
        let columns = if self.steps { 1 } else { panels.len().min(2) };
        let high = if panels.len() == 1 { 290.0 } else { 150.0 };
        let y_ticks = y_span.ticks(if panels.len() == 1 { 6 } else { 4 });
        let (left, between) = (gutter(&y_ticks), 20.0);
        let wide = (WIDTH - left - EDGE - 6.0 - between * (columns - 1) as f64) / columns as f64;
        let column = |at: usize| left + (wide + between) * (at % columns) as f64;

        let mut crowded = 0;
        sheet.y_label(&self.y);
        for (row, pair) in panels.chunks(columns).enumerate() {
            let first = row * columns;
            let x_axis =
                |at: usize| axis(x_span, column(at), column(at) + wide, if columns == 1 { 8 } else { 5 });
            let labels: Vec<_> =
                pair.iter().enumerate().map(|(at, panel)| places(panel, &x_axis(at).0)).collect();
            crowded += labels.iter().flatten().filter(|label| label.row.is_none()).count();
            crowded += pair.iter().map(|panel| panel.marks.len().saturating_sub(MARKS)).sum::<usize>();
            let rows = labels.iter().flatten().filter_map(|label| label.row).max().map_or(0, |row| row + 1);
            let heading = if pair.iter().any(|panel| !panel.name.is_empty()) { 20.0 } else { 0.0 };
            let top = sheet.y + heading + rows as f64 * 16.0 + 4.0;
            let y = y_span.on(top + high, top);
            for (at, panel) in pair.iter().enumerate() {
                let (x, x_ticks) = x_axis(at);
                sheet.canvas.bold((x.from, sheet.y + 7.0), &fit(&panel.name, wide, LABEL), LABEL);
                let numbers = (first + at + columns >= panels.len(), at == 0);
                Axes { x: &x, y: &y, x_ticks: &x_ticks, y_ticks: &y_ticks, numbers }.draw(&sheet.canvas);
                labels[at].iter().for_each(|label| label.draw(&sheet.canvas, (top, top + high)));
                let looks =
                    panel.lines.iter().filter_map(|line| Some((line, Look { at: look_of(line)?, marked })));
                let runs: Vec<_> =
                    looks.flat_map(|(line, look)| self.runs(line).map(move |run| (run, look))).collect();
                runs.iter().for_each(|(run, look)| self.band(&sheet.canvas, run, &x, &y, *look));
                runs.iter().for_each(|(run, look)| self.line(&sheet.canvas, run, &x, &y, *look));
                runs.iter().for_each(|(run, look)| self.hatch(&sheet.canvas, run, &x, &y, *look));
            }
            sheet.y = top + high + 26.0;
        }
        sheet.x_label(&self.x);
        if unsure {
            sheet.remark("Hatched: the error is not known. It may be larger than any band that is drawn.");
        }
        self.remarks(sheet, rest, crowded);
    }

    fn remarks(&self, sheet: &mut Sheet, rest: &[&str], crowded: usize) {
        if !rest.is_empty() {
            sheet.remark(&format!("{} left out: {}.", are(rest.len(), "more line"), listed(rest)));
        }
        if self.panels.len() > PANELS {
            let names: Vec<_> = self.panels[PANELS..].iter().map(|panel| panel.name.as_str()).collect();
            sheet.remark(&format!("{} left out: {}.", are(names.len(), "more panel"), listed(&names)));
        }
        if crowded > 0 {
            sheet.remark(&format!("{} without a label, for want of room.", are(crowded, "more mark")));
        }
    }

    fn usable(&self, point: &Point) -> bool {
        usable(point.x, self.x.log) && usable(point.y, self.y.log)
    }

    /// The stretches of a line between its gaps.
    fn runs<'l>(&'l self, line: &'l Line) -> impl Iterator<Item = &'l [Point]> {
        line.points.split(|point| !self.usable(point)).filter(|run| !run.is_empty())
    }

    fn band(&self, canvas: &Canvas, run: &[Point], x: &Scale, y: &Scale, look: Look) {
        let inside = |value: f64| usable(value, false);
        for run in run.split(|point| !(point.low < point.high && inside(point.low) && inside(point.high))) {
            let edge = |of: fn(&Point) -> f64| {
                self.corners(run.iter().map(|point| (x.at(point.x), y.at(of(point)))).collect())
            };
            let mut outline = edge(|point| point.high);
            outline.extend(edge(|point| point.low).into_iter().rev());
            if run.len() > 1 {
                canvas.shape(&outline, look.paint().dashed(0).strength(0.18));
            } else if let [top, bottom] = outline[..] {
                canvas.path(&[top, bottom], look.paint().dashed(0).strength(0.35), 3.0);
            }
        }
    }

    fn line(&self, canvas: &Canvas, run: &[Point], x: &Scale, y: &Scale, look: Look) {
        let points: Vec<At> = run.iter().map(|point| (x.at(point.x), y.at(point.y))).collect();
        if look.marked {
            points.iter().for_each(|at| canvas.mark(*at, look.at, 3.8, look.paint().dashed(0)));
        } else if let [only] = points[..] {
            canvas.disc(only, 2.5, look.paint());
        }
        canvas.path(&self.corners(points), look.paint(), 2.0);
    }

    /// Strokes across those parts of a line whose error is not known.
    fn hatch(&self, canvas: &Canvas, run: &[Point], x: &Scale, y: &Scale, look: Look) {
        for run in run.split(|point| !point.unsure).filter(|run| !run.is_empty()) {
            let points: Vec<At> = run.iter().map(|point| (x.at(point.x), y.at(point.y))).collect();
            canvas.hatch(&self.corners(points), look.paint());
        }
    }

    /// The corners of a line through pixels: of a step if values hold, and no more than can be told apart.
    fn corners(&self, points: Vec<At>) -> Vec<At> {
        if !self.steps {
            return thin(points);
        }
        let steps = points.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
        thin(steps.chain(points.last().copied()).collect())
    }
}

/// The same picture from fewer points: of those in one column of pixels, the first, the extremes and the last.
fn thin(points: Vec<At>) -> Vec<At> {
    let column = |at: &At| at.0.floor();
    let mut out = Vec::new();
    for same in points.chunk_by(|a, b| column(a) == column(b)) {
        if let [first, .., last] = same
            && same.len() > 4
        {
            let by_height = |a: &&At, b: &&At| a.1.total_cmp(&b.1);
            out.push(*first);
            out.extend(same.iter().min_by(by_height));
            out.extend(same.iter().max_by(by_height));
            out.push(*last);
        } else {
            out.extend(same);
        }
    }
    out
}

/// A vertical line and where its label goes: which line of text above the panel, if one has room.
struct Label {
    x: f64,
    start: f64,
    text: String,
    row: Option<usize>,
}

/// Labels from right to left, each in the lowest row that is free there: no vertical line runs through a text.
fn places(panel: &Panel, x: &Scale) -> Vec<Label> {
    let mut marks: Vec<_> =
        panel.marks.iter().take(MARKS).filter(|(at, _)| usable(*at, x.span.log)).collect();
    marks.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut free = [f64::INFINITY; MARK_ROWS];
    let place = |(at, text): &(f64, String)| {
        let text = fit(text, (x.to - x.from) * 0.6, TICK);
        let at = x.at(*at);
        let start = (at - 2.0).min(x.to - width(&text, TICK));
        let fits = |row: &usize| {
            start + width(&text, TICK) + 6.0 < free[*row] && free[..*row].iter().all(|end| at < *end)
        };
        let row = (0..MARK_ROWS).find(fits);
        if let Some(row) = row {
            free[row] = start;
        }
        Label { x: at, start, text, row }
    };
    marks.into_iter().map(place).collect()
}

impl Label {
    fn draw(&self, canvas: &Canvas, (top, bottom): (f64, f64)) {
        let above = self.row.map_or(0.0, |row| row as f64 * 16.0 + 3.0);
        canvas.path(&[(self.x, top - above), (self.x, bottom)], Paint::MUTED.dashed(2), 1.2);
        if let Some(row) = self.row {
            let at = (self.start, top - 9.0 - row as f64 * 16.0);
            canvas.text(at, &self.text, Anchor::Start, TICK, Paint::TEXT);
        }
    }
}
