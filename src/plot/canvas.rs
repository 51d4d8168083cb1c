//! Shapes and texts in pixels, drawn through `plotters` in tenths of a pixel: its coordinates are whole numbers.

use super::ink::Paint;
use plotters::coord::Shift;
use plotters::element::{
    Circle, CoordMapper, Drawable, PathElement, PointCollection, Polygon, Rectangle, Text,
};
use plotters::prelude::{DrawingArea, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont};

/// A place on the picture, in pixels from the upper left corner.
pub(super) type At = (f64, f64);

/// Which part of a text lies at its place; vertically it is the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Sizes of text in pixels.
pub(super) const TITLE: f64 = 17.0;
pub(super) const LABEL: f64 = 14.0;
pub(super) const TICK: f64 = 13.0;

/// A drawing of `plotters` that takes pixels and paints.
pub(super) struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

fn unit((x, y): At) -> (i32, i32) {
    ((x * 10.0).round() as i32, (y * 10.0).round() as i32)
}

impl<'a> Canvas<'a> {
    /// Draws into a text. The size becomes known only at the end, and `ink::finish` writes it.
    pub fn on(svg: &'a mut String) -> Canvas<'a> {
        const ENDLESS: u32 = 1 << 30;
        Canvas(SVGBackend::with_string(svg, (ENDLESS, ENDLESS)).into_drawing_area())
    }

    fn draw<'e, E, B>(&self, element: &'e E)
    where
        B: CoordMapper,
        &'e E: PointCollection<'e, (i32, i32), B>,
        E: Drawable<SVGBackend<'a>, B>,
    {
        // A text in memory refuses nothing.
        self.0.draw(element).ok();
    }

    /// A line through points.
    pub fn path(&self, points: &[At], paint: Paint, width: f64) {
        if points.len() > 1 {
            let points: Vec<_> = points.iter().copied().map(unit).collect();
            self.draw(&PathElement::new(points, paint.pack().stroke_width((width * 10.0).round() as u32)));
        }
    }

    /// Slanted strokes across a line, evenly apart: how far to both sides a value may lie is not known.
    pub fn hatch(&self, points: &[At], paint: Paint) {
        /// Pixels between two strokes.
        const APART: f64 = 7.0;
        let stroke = |at: At| self.strike(at, paint.strength(0.55));
        if let [(x, y)] = *points {
            return [-APART, 0.0, APART].into_iter().for_each(|dx| stroke((x + dx, y)));
        }
        let mut left = 0.0;
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let length = libm::hypot(x1 - x0, y1 - y0);
            while left <= length && length > 0.0 {
                let share = left / length;
                stroke((x0 + share * (x1 - x0), y0 + share * (y1 - y0)));
                left += APART;
            }
            left -= length;
        }
    }

    /// One slanted stroke across a place.
    pub fn strike(&self, (x, y): At, paint: Paint) {
        self.path(&[(x - 3.0, y + 8.0), (x + 3.0, y - 8.0)], paint.dashed(0), 1.2);
    }

    /// A filled shape.
    pub fn shape(&self, points: &[At], paint: Paint) {
        self.draw(&Polygon::new(points.iter().copied().map(unit).collect::<Vec<_>>(), paint.pack()));
    }

    /// A filled rectangle between two corners.
    pub fn rect(&self, (x0, y0): At, (x1, y1): At, paint: Paint) {
        let corners = [unit((x0.min(x1), y0.min(y1))), unit((x0.max(x1), y0.max(y1)))];
        self.draw(&Rectangle::new(corners, paint.pack().filled()));
    }

    /// The outline of a rectangle, inside it.
    pub fn frame(&self, (x0, y0): At, (x1, y1): At, paint: Paint, width: f64) {
        let half = width / 2.0;
        let (x0, x1) = (x0.min(x1) + half, x0.max(x1) - half);
        let (y0, y1) = (y0.min(y1) + half, y0.max(y1) - half);
        if x1 > x0 && y1 > y0 {
            self.path(&[(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0), (x1, y0)], paint, width);
        }
    }

    /// A filled circle.
    pub fn disc(&self, at: At, radius: f64, paint: Paint) {
        self.draw(&Circle::new(unit(at), (radius * 10.0).round() as i32, paint.pack().filled()));
    }

    /// The outline of a circle.
    pub fn ring(&self, at: At, radius: f64, paint: Paint, width: f64) {
        let style = paint.pack().stroke_width((width * 10.0).round() as u32);
        self.draw(&Circle::new(unit(at), (radius * 10.0).round() as i32, style));
    }

    /// A text of one line.
    pub fn text(&self, at: At, text: &str, anchor: Anchor, size: f64, paint: Paint) {
        self.styled(at, text, anchor, size, paint, FontStyle::Normal);
    }

    /// A heading.
    pub fn bold(&self, at: At, text: &str, size: f64) {
        self.styled(at, text, Anchor::Start, size, Paint::TEXT, FontStyle::Bold);
    }

    fn styled(&self, at: At, text: &str, anchor: Anchor, size: f64, paint: Paint, style: FontStyle) {
        let side = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        // The backend divides sizes by 1.24, and sets the middle of small letters at the place: too high for digits.
        let at = (at.0, at.1 + size * 0.08);
        let font = ("sans-serif", size * 12.4).into_font().style(style).color(&paint.pack());
        self.draw(&Text::new(text.to_owned(), unit(at), font.pos(Pos::new(side, VPos::Center))));
    }

    /// One of eight marks of about equal weight, told apart by shape.
    pub fn mark(&self, (x, y): At, shape: usize, radius: f64, paint: Paint) {
        let polygon = |corners: &[At]| {
            let corners: Vec<At> =
                corners.iter().map(|(dx, dy)| (x + dx * radius, y + dy * radius)).collect();
            self.shape(&corners, paint);
        };
        let stroke = |(dx, dy): At| {
            let (dx, dy) = (dx * radius, dy * radius);
            self.path(&[(x - dx, y - dy), (x + dx, y + dy)], paint, radius * 0.55);
        };
        match shape % 8 {
            0 => self.disc((x, y), radius, paint),
            1 => self.rect(
                (x - 0.87 * radius, y - 0.87 * radius),
                (x + 0.87 * radius, y + 0.87 * radius),
                paint,
            ),
            2 => polygon(&[(0.0, -1.25), (1.15, 0.8), (-1.15, 0.8)]),
            3 => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            4 => polygon(&[(0.0, 1.25), (1.15, -0.8), (-1.15, -0.8)]),
            5 => [(0.9, 0.9), (0.9, -0.9)].into_iter().for_each(stroke),
            6 => [(1.2, 0.0), (0.0, 1.2)].into_iter().for_each(stroke),
            _ => self.ring((x, y), radius * 0.9, paint, radius * 0.5),
        }
    }
}
