//! The frame of every chart: title, legend, axes, remarks, one below the other.

use super::canvas::{Anchor, At, Canvas, LABEL, TICK, TITLE};
use super::ink::Paint;
use super::scale::{Scale, Span};
use super::text::{balance, fit, long, name, width, wrap};

/// Width of every picture in pixels. Small enough that its text can still be read on a telephone.
pub(super) const WIDTH: f64 = 640.0;
/// Room at the left and right edge.
pub(super) const EDGE: f64 = 8.0;

/// A canvas that fills from above.
pub(super) struct Sheet<'a> {
    pub canvas: Canvas<'a>,
    /// Everything above is taken.
    pub y: f64,
}

/// What a name in a legend stands beside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sample {
    Line(Paint),
    /// A mark, by its shape.
    Mark(Paint, usize),
    MarkedLine(Paint, usize),
    Box(Paint),
    /// A box of which only the outline is strong.
    Frame(Paint),
    /// Strokes across a line.
    Hatch(Paint),
    /// A mark with a stroke across it.
    Struck(Paint),
}

/// A rectangle with an axis below and one at its left.
pub(super) struct Axes<'s> {
    pub x: &'s Scale,
    pub y: &'s Scale,
    pub x_ticks: &'s [(f64, String)],
    pub y_ticks: &'s [(f64, String)],
    /// Whether the numbers of the axes are written.
    pub numbers: (bool, bool),
}

impl Sheet<'_> {
    /// The title and the summary.
    pub fn title(&mut self, title: &str, summary: &str) {
        for line in balance(&long(title, 160), WIDTH - 2.0 * EDGE, TITLE * 1.06) {
            self.canvas.bold((EDGE, self.y + 13.0), &line, TITLE);
            self.y += 22.0;
        }
        for line in balance(&long(summary, 400), WIDTH - 2.0 * EDGE, TICK) {
            self.canvas.text((EDGE, self.y + 10.0), &line, Anchor::Start, TICK, Paint::MUTED);
            self.y += 18.0;
        }
        self.y += 6.0;
    }

    /// Samples with their names, in as many lines as they need.
    pub fn legend(&mut self, entries: &[(Sample, &str)]) {
        let mut x = EDGE;
        for (sample, text) in entries {
            let text = fit(text, 260.0, LABEL);
            let wide = matches!(sample, Sample::Line(_) | Sample::MarkedLine(..) | Sample::Hatch(_));
            let start = if wide { 40.0 } else { 19.0 };
            let room = start + width(&text, LABEL) + 12.0;
            if x > EDGE && x + room > WIDTH {
                (x, self.y) = (EDGE, self.y + 20.0);
            }
            let middle = self.y + 10.0;
            let (low, high) = ((x, middle + 6.0), (x + 13.0, middle - 6.0));
            match *sample {
                Sample::Line(paint) => self.canvas.path(&[(x, middle), (x + 34.0, middle)], paint, 2.2),
                Sample::Mark(paint, shape) => self.canvas.mark((x + 6.0, middle), shape, 4.5, paint),
                Sample::MarkedLine(paint, shape) => {
                    self.canvas.path(&[(x, middle), (x + 34.0, middle)], paint, 2.2);
                    self.canvas.mark((x + 17.0, middle), shape, 4.2, paint);
                }
                Sample::Hatch(paint) => {
                    self.canvas.path(&[(x, middle), (x + 34.0, middle)], paint, 2.2);
                    self.canvas.hatch(&[(x, middle), (x + 34.0, middle)], paint);
                }
                Sample::Struck(paint) => {
                    self.canvas.mark((x + 6.0, middle), 0, 4.5, paint);
                    self.canvas.strike((x + 6.0, middle), paint);
                }
                Sample::Box(paint) => self.canvas.rect(low, high, paint),
                Sample::Frame(paint) => {
                    self.canvas.rect(low, high, paint.strength(0.3));
                    self.canvas.frame(low, high, paint, 1.4);
                }
            }
            self.canvas.text((x + start, middle), &text, Anchor::Start, LABEL, Paint::TEXT);
            x += room;
        }
        if !entries.is_empty() {
            self.y += 26.0;
        }
    }

    /// What a reader has to know beside the picture.
    pub fn remark(&mut self, text: &str) {
        for line in wrap(text, WIDTH - 2.0 * EDGE, TICK) {
            self.canvas.text((EDGE, self.y + 11.0), &line, Anchor::Start, TICK, Paint::MUTED);
            self.y += 18.0;
        }
    }

    /// In place of a picture.
    pub fn nothing(&mut self) {
        self.canvas.text((WIDTH / 2.0, self.y + 30.0), "no data", Anchor::Middle, LABEL, Paint::MUTED);
        self.y += 60.0;
    }

    /// Says above a picture what its upward axis counts.
    pub fn y_label(&mut self, axis: &super::ChartAxis) {
        self.canvas.text((EDGE, self.y + 9.0), &axis_label(axis), Anchor::Start, LABEL, Paint::MUTED);
        self.y += 24.0;
    }

    /// Says at the lower right what the axis across counts.
    pub fn x_label(&mut self, axis: &super::ChartAxis) {
        self.canvas.text((WIDTH - EDGE, self.y + 9.0), &axis_label(axis), Anchor::End, LABEL, Paint::MUTED);
        self.y += 22.0;
    }
}

fn axis_label(axis: &super::ChartAxis) -> String {
    fit(&axis.label, 480.0, LABEL) + if axis.log { " (log scale)" } else { "" }
}

/// Room for the numbers of an upward axis.
pub(super) fn gutter(ticks: &[(f64, String)]) -> f64 {
    EDGE + 8.0 + ticks.iter().map(|(_, text)| width(text, TICK)).fold(10.0, f64::max)
}

impl Axes<'_> {
    /// Grid, axes and numbers.
    pub fn draw(&self, canvas: &Canvas) {
        let (left, right, bottom, top) = (self.x.from, self.x.to, self.y.from, self.y.to);
        for (value, text) in self.y_ticks {
            let y = self.y.at(*value);
            canvas.path(&[(left, y), (right, y)], Paint::GRID, 1.0);
            if self.numbers.1 {
                canvas.text((left - 7.0, y), text, Anchor::End, TICK, Paint::MUTED);
            }
        }
        let mut free = f64::NEG_INFINITY;
        for (value, text) in self.x_ticks {
            let x = self.x.at(*value);
            canvas.path(&[(x, top), (x, bottom)], Paint::GRID.strength(0.5), 1.0);
            canvas.path(&[(x, bottom), (x, bottom + 4.0)], Paint::MUTED, 1.0);
            let half = width(text, TICK) / 2.0;
            let middle = x.clamp(half, WIDTH - half);
            if self.numbers.0 && middle - half > free {
                canvas.text((middle, bottom + 14.0), text, Anchor::Middle, TICK, Paint::MUTED);
                free = middle + half + 4.0;
            }
        }
        canvas.path(&[(left, bottom), (right, bottom)], Paint::MUTED, 1.2);
    }
}

/// Labels beside places, each where it covers nothing that was placed before, or not at all.
#[derive(Default)]
pub(super) struct Labels {
    taken: Vec<(At, At)>,
}

impl Labels {
    /// Keeps a rectangle around a place free.
    pub fn keep(&mut self, (x, y): At, radius: f64) {
        self.taken.push(((x - radius, y - radius), (x + radius, y + radius)));
    }

    /// Keeps a line of level and upright pieces free.
    pub fn keep_line(&mut self, points: &[At]) {
        let piece = |pair: &[At]| {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            ((x0.min(x1), y0.min(y1)), (x0.max(x1), y0.max(y1)))
        };
        self.taken.extend(points.windows(2).map(piece));
    }

    /// Writes a name beside a place, inside the rectangle of two corners. Whether there was room.
    pub fn write(&mut self, canvas: &Canvas, (x, y): At, text: &str, inside: (At, At)) -> bool {
        let text = fit(text, 150.0, TICK);
        let (wide, high) = (width(&text, TICK), TICK * 1.1);
        let corner = [
            (x + 10.0, y - high / 2.0),
            (x - 10.0 - wide, y - high / 2.0),
            (x + 4.0, y - high - 8.0),
            (x - 4.0 - wide, y - high - 8.0),
            (x + 4.0, y + 8.0),
            (x - 4.0 - wide, y + 8.0),
            (x - wide / 2.0, y - high - 8.0),
            (x - wide / 2.0, y + 8.0),
        ];
        let ((left, top), (right, bottom)) = inside;
        let free = |(x, y): &At| {
            let clear =
                |((x0, y0), (x1, y1)): &(At, At)| *x1 < *x || *x0 > x + wide || *y1 < *y || *y0 > y + high;
            *x >= left && x + wide <= right && *y >= top && y + high <= bottom && self.taken.iter().all(clear)
        };
        let Some((x, y)) = corner.into_iter().find(free) else { return text.is_empty() };
        self.taken.push(((x, y), (x + wide, y + high)));
        canvas.text((x, y + high / 2.0), &text, Anchor::Start, TICK, Paint::TEXT);
        true
    }
}

/// Names without repetition, in the order in which they first come.
pub(super) fn distinct<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut seen = std::collections::HashSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

/// The first few of some names, for a sentence.
pub(super) fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(6).map(|text| name(text)).collect();
    shown.join(", ") + if names.len() > 6 { ", …" } else { "" }
}

/// A span on the pixels from one to another, and its ticks.
pub(super) fn axis(span: Span, from: f64, to: f64, most: usize) -> (Scale, Vec<(f64, String)>) {
    (span.on(from, to), span.ticks(most))
}
