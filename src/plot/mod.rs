//! Charts as data, and their pictures: SVG for a page or a file, PNG, and the numbers behind them as a table.
//!
//! Same chart, same bytes. Whatever the data are, a picture comes out: values that cannot be drawn (not a number,
//! infinite, 0 on a log axis) are left out, and where something else had to be left out the picture says so.

mod arcs;
mod canvas;
mod heat;
mod ink;
mod lines;
#[cfg(feature = "png")]
mod png;
mod scale;
mod scatter;
mod sheet;
mod spots;
mod table;
mod text;
mod tornado;
mod waterfall;

#[cfg(test)]
mod tests;

pub use ink::Ink;

use sheet::{Sheet, WIDTH};

/// A picture of some numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows, in a few words.
    pub title: String,
    /// One sentence with what there is to see: for those who do not see it, and below the title on paper; a page shows both itself.
    pub summary: String,
    /// The kind of picture and its data.
    pub body: Body,
}

/// Kinds of pictures.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Lines over a common axis, in one panel or several.
    Lines(Lines),
    /// Points on two axes.
    Scatter(Scatter),
    /// Points with error bars on two axes, in one panel or several.
    Spots(Spots),
    /// How a total becomes another, step by step.
    Waterfall(Waterfall),
    /// A table of shares as darker and lighter cells.
    HeatMap(HeatMap),
    /// A graph whose nodes have an order.
    Arcs(Arcs),
    /// How far each input moves the outcome.
    Tornado(Tornado),
}

/// What an axis counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChartAxis {
    /// Quantity and unit.
    pub label: String,
    /// Equal distances are equal factors.
    pub log: bool,
}

/// What legends and tables call a value whose error is not known.
pub const UNSURE: &str = "error not known";

/// Lines in small pictures with the same axes. At most 12 panels and 16 names of lines are drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lines {
    /// The axis across.
    pub x: ChartAxis,
    /// The axis upward.
    pub y: ChartAxis,
    /// The small pictures.
    pub panels: Vec<Panel>,
    /// Each value holds until the next: a time series.
    pub steps: bool,
}

/// One small picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Panel {
    /// Stands above it.
    pub name: String,
    /// Lines of the same name look the same in all panels.
    pub lines: Vec<Line>,
    /// Places on the axis across, with a text.
    pub marks: Vec<(f64, String)>,
}

/// Points joined in their order. A value that cannot be drawn leaves a gap.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Line {
    /// Stands in the legend.
    pub name: String,
    /// Where the line runs.
    pub points: Vec<Point>,
}

/// A value and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// Place across.
    pub x: f64,
    /// The value.
    pub y: f64,
    /// From here to `high` a band is drawn, if it is wider than nothing.
    pub low: f64,
    /// Upper end of the band.
    pub high: f64,
    /// Whether the error is not known: the band is not all of it, and no band means nothing. Drawn hatched.
    pub unsure: bool,
}

/// Points in groups, and the best of them as a front.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scatter {
    /// The axis across.
    pub x: ChartAxis,
    /// The axis upward.
    pub y: ChartAxis,
    /// At most 16 are drawn.
    pub groups: Vec<PointGroup>,
    /// Points than which none is better on both axes, drawn as a staircase.
    pub front: Vec<(f64, f64)>,
    /// Points whose error is not known, drawn with a stroke across.
    pub unsure: Vec<(f64, f64)>,
    /// Where the best points would lie; without it the front is a plain line.
    pub corner: Option<Corner>,
}

/// Points with error bars in small pictures with a common axis upward; each has its own axis across. At most 12 panels, 16 names of
/// points and 4 names of lines are drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spots {
    /// The axis across.
    pub x: ChartAxis,
    /// The axis upward.
    pub y: ChartAxis,
    /// The small pictures.
    pub panels: Vec<SpotPanel>,
    /// Where the best points would lie; without it no panel has a front.
    pub corner: Option<Corner>,
}

/// One of these small pictures.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpotPanel {
    /// Stands above it.
    pub name: String,
    /// Points of the same name look the same in all panels.
    pub spots: Vec<Spot>,
    /// Names of lines, with the points that they join.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Points than which none is better on both axes, drawn as a staircase.
    pub front: Vec<(f64, f64)>,
}

/// A point and how sure it is on each axis.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spot {
    /// Stands in the legend.
    pub name: String,
    /// Place across.
    pub x: f64,
    /// Place upward.
    pub y: f64,
    /// Ends of its interval across; equal where there is none.
    pub x_ends: [f64; 2],
    /// Ends of its interval upward.
    pub y_ends: [f64; 2],
    /// Whether an error is not known: the bars are not all of it. Drawn with a stroke across.
    pub unsure: bool,
}

/// A corner of a picture, as the direction in which points get better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corner {
    /// Less of both is better.
    LowerLeft,
    /// More across and less upward is better.
    LowerRight,
    /// Less across and more upward is better.
    UpperLeft,
    /// More of both is better.
    UpperRight,
}

/// Points that look the same.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PointGroup {
    /// Stands in the legend.
    pub name: String,
    /// Across, upward, and what the point is called. Names are shown on the front, and everywhere if there are few.
    pub points: Vec<(f64, f64, String)>,
}

/// Totals taken apart into steps. At most 12 groups are drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Waterfall {
    /// Unit of all values.
    pub unit: String,
    /// One panel each.
    pub groups: Vec<Bars>,
}

/// A total, signed steps, and the total that they lead to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bars {
    /// Stands above the panel.
    pub name: String,
    /// The first and the last are totals, the others changes. At most 24 are drawn, the smallest steps as one.
    pub bars: Vec<(String, f64)>,
}

/// Rows of cells, darker for more. At most 24 rows and 128 columns are drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatMap {
    /// What the columns count, from 0.
    pub x_label: String,
    /// Quantity and unit of the cells.
    pub unit: String,
    /// Name and cells.
    pub rows: Vec<(String, Vec<f64>)>,
}

/// Nodes on a line; arcs above lead forward, arcs below lead back, and a ring stays. At most 160 nodes are drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arcs {
    /// Names in their order.
    pub nodes: Vec<String>,
    /// From, to and weight. Arcs below 0.5 % of the heaviest are not drawn, nor any but the 2000 heaviest.
    pub edges: Vec<(usize, usize, f64)>,
}

/// Inputs by how far they move the outcome, the widest first. At most 20 are drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tornado {
    /// Unit of the changes.
    pub unit: String,
    /// What the first change of each bar is for.
    pub low_name: String,
    /// What the second change of each bar is for.
    pub high_name: String,
    /// Input, change of the outcome when it is low, and when it is high.
    pub bars: Vec<(String, f64, f64)>,
}

impl Chart {
    /// The picture as SVG.
    pub fn svg(&self, ink: Ink) -> String {
        let mut raw = String::new();
        let height = {
            let mut sheet = Sheet { canvas: canvas::Canvas::on(&mut raw), y: 6.0 };
            // On a page both stand above the picture, as text.
            if ink == Ink::Paper {
                sheet.title(&self.title, &self.summary);
            }
            match &self.body {
                Body::Lines(body) => body.draw(&mut sheet),
                Body::Scatter(body) => body.draw(&mut sheet),
                Body::Spots(body) => body.draw(&mut sheet),
                Body::Waterfall(body) => body.draw(&mut sheet),
                Body::HeatMap(body) => body.draw(&mut sheet),
                Body::Arcs(body) => body.draw(&mut sheet),
                Body::Tornado(body) => body.draw(&mut sheet),
            }
            (sheet.y + 8.0).ceil()
        };
        ink::finish(ink, &raw, (WIDTH, height), &self.title, &self.summary)
    }

    /// The picture on white as PNG, two dots for each pixel.
    ///
    /// # Errors
    /// What the renderer refuses, as text.
    #[cfg(feature = "png")]
    pub fn png(&self) -> Result<Vec<u8>, String> {
        png::render(&self.svg(Ink::Paper))
    }

    /// The numbers behind the picture, all of them: the head of the table and its rows. Numbers have 4 digits.
    pub fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        table::of(&self.body)
    }
}
