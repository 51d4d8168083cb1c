//! The residual profile of a run: a table of every token and layer, and a picture of medians and quantiles by layer.

use super::contributions::{Quantiles, quantile, sorted, spread};
use crate::error::shorten;
use crate::gpu::Residual;
use plotters::prelude::*;
use std::io::{self, Write};

/// Writes a row for each token and layer.
///
/// # Errors
/// What `out` refuses.
pub fn write(out: &mut dyn Write, residuals: &[Residual]) -> io::Result<()> {
    let mut rows = csv::Writer::from_writer(out);
    rows.write_record([
        "prompt",
        "position",
        "phase",
        "layer",
        "attn_ratio",
        "ffn_ratio",
        "block_ratio",
        "cosine",
        "attn_over_output",
        "ffn_over_output",
        "block_over_output",
        "attn_over_input",
        "ffn_over_input",
        "block_over_input",
    ])?;
    for residual in residuals {
        let phase = if residual.in_prompt { "prompt" } else { "decode" };
        let head = [residual.prompt.to_string(), residual.position.to_string(), phase.to_owned()];
        let Residual { attention, feed_forward, block, cosine, .. } = *residual;
        let shares = [attention, feed_forward, block, cosine].into_iter();
        let shares = shares.chain(residual.over_output).chain(residual.over_input);
        let numbers = shares.map(|share| share.to_string());
        rows.write_record(head.into_iter().chain([residual.layer.to_string()]).chain(numbers))?;
    }
    rows.flush()
}

/// A line of the picture: its title, and the number that it shows.
type Panel = (&'static str, fn(&Residual) -> f32);

const PANELS: [Panel; 4] = [
    ("attention branch", |residual| residual.attention),
    ("feed-forward branch", |residual| residual.feed_forward),
    ("block", |residual| residual.block),
    ("cosine of input and output", |residual| residual.cosine),
];

/// Medians over all tokens and layers, in the order of the panels: attention, feed-forward, block, cosine.
pub fn medians(residuals: &[Residual]) -> [f64; 4] {
    PANELS.map(|(_, of)| quantile(&sorted(residuals.iter().map(of)), 0.5))
}

/// Quantiles of each layer.
fn by_layer(residuals: &[Residual], of: fn(&Residual) -> f32) -> Vec<Quantiles> {
    let layers = residuals.iter().map(|residual| residual.layer + 1).max().unwrap_or(0);
    let mut values = vec![Vec::new(); layers as usize];
    for residual in residuals {
        values[residual.layer as usize].push(of(residual));
    }
    values.into_iter().map(|values| spread(values.into_iter())).collect()
}

/// An SVG with four panels: median, quartiles, and the middle nine tenths of each layer.
///
/// # Errors
/// What the plotting library refuses, as text.
pub fn picture(title: &str, residuals: &[Residual]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (1000, 760)).into_drawing_area();
        draw(&area, title, residuals).map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(area: &Area, title: &str, residuals: &[Residual]) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let tokens = residuals.iter().filter(|residual| residual.layer == 0).count();
    let title =
        format!("{}, {tokens} tokens: median, middle half and middle nine tenths by layer", shorten(title));
    let area = area.titled(&title, ("sans-serif", 22))?;
    for (panel, (name, of)) in area.split_evenly((2, 2)).iter().zip(PANELS) {
        let rows = by_layer(residuals, of);
        let top = rows.iter().map(|row| row[4]).fold(0.0, f64::max) * 1.05;
        let bottom = rows.iter().map(|row| row[0]).fold(0.0, f64::min);
        let last = rows.len().max(2) as f64 - 1.0;
        let mut chart = ChartBuilder::on(panel)
            .caption(name, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..last, bottom..top.max(1e-6))?;
        chart
            .configure_mesh()
            .x_desc("layer")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        let line = |at: usize| rows.iter().enumerate().map(move |(layer, row)| (layer as f64, row[at]));
        let blue = RGBColor(31, 119, 180);
        for (low, high, strength) in [(0, 4, 0.18), (1, 3, 0.35)] {
            let outline: Vec<_> = line(high).chain(line(low).collect::<Vec<_>>().into_iter().rev()).collect();
            chart.draw_series(std::iter::once(Polygon::new(outline, blue.mix(strength))))?;
        }
        chart.draw_series(LineSeries::new(line(2), blue.stroke_width(2)))?;
    }
    Ok(())
}
