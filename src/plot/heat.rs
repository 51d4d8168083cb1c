//! Rows of cells, darker for more.

use super::HeatMap;
use super::canvas::{Anchor, At, Canvas, LABEL, TICK};
use super::ink::Paint;
use super::scale::{Scale, Span, usable};
use super::sheet::{EDGE, Sheet, WIDTH, axis, listed};
use super::text::{are, fit, name, width};

const ROWS: usize = 24;
const COLUMNS: usize = 128;
/// Steps of the key from the least to the most.
const KEY: usize = 24;

impl HeatMap {
    pub(super) fn draw(&self, sheet: &mut Sheet) {
        let (rows, rest) = self.rows.split_at(self.rows.len().min(ROWS));
        let longest = rows.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
        let columns = longest.min(COLUMNS);
        let cells = || rows.iter().flat_map(|(_, cells)| cells.iter().take(columns).copied());
        if !cells().any(|cell| usable(cell, false)) {
            return sheet.nothing();
        }
        // From 0 unless there is less: then a cell twice as dark is twice as much.
        let span = Span::of(cells().chain([0.0]), false);
        let shade = span.on(0.0, 1.0);
        let missing =
            cells().any(|cell| !usable(cell, false)) || rows.iter().any(|(_, cells)| cells.len() < longest);
        self.key(sheet, &shade, missing);

        let names = rows.iter().map(|(text, _)| width(&name(text), LABEL));
        let left = EDGE + names.fold(20.0, f64::max).min(190.0) + 8.0;
        let wide = ((WIDTH - EDGE - left) / columns as f64).min(34.0);
        // Gaps between wide cells; narrow ones lie side by side.
        let (gap, paint) = if wide > 5.0 { (0.5, Paint::HEAT) } else { (0.0, Paint::HEAT.crisp()) };
        for (text, cells) in rows {
            let (top, bottom) = (sheet.y + 1.0, sheet.y + 21.0);
            let label = fit(text, left - EDGE - 8.0, LABEL);
            sheet.canvas.text((left - 8.0, sheet.y + 11.0), &label, Anchor::End, LABEL, Paint::TEXT);
            sheet.canvas.frame(
                (left - 0.5, top - 0.5),
                (left + wide * columns as f64 + 0.5, bottom + 0.5),
                Paint::GRID,
                1.0,
            );
            let starts = |at: usize| left + wide * at as f64;
            let values = cells.iter().copied().chain(std::iter::repeat(f64::NAN)).take(columns);
            for (at, cell) in values.enumerate() {
                let (from, to) = ((starts(at) + gap, top), (starts(at + 1) - gap, bottom));
                if usable(cell, false) {
                    sheet.canvas.rect(from, to, paint.strength(shade.at(cell)))
                } else {
                    cross(&sheet.canvas, from, to)
                }
            }
            sheet.y += 24.0;
        }
        self.columns(sheet, left, wide, columns);
        if longest > columns {
            sheet.remark(&format!("{} left out.", are(longest - columns, "more column")));
        }
        if !rest.is_empty() {
            let names: Vec<_> = rest.iter().map(|(name, _)| name.as_str()).collect();
            sheet.remark(&format!("{} left out: {}.", are(rest.len(), "more row"), listed(&names)));
        }
    }

    /// Numbers below the columns.
    fn columns(&self, sheet: &mut Sheet, left: f64, wide: f64, columns: usize) {
        let last = columns.saturating_sub(1) as f64;
        let across = Span::of([0.0, last.max(1.0)], false);
        let middle = |at: f64| left + wide * (at + 0.5);
        let (x, ticks) =
            axis(across, middle(0.0), middle(last.max(1.0)), ((wide * columns as f64) / 46.0) as usize);
        for (value, text) in ticks.iter().filter(|(value, _)| value.fract() == 0.0 && *value <= last) {
            sheet.canvas.path(&[(x.at(*value), sheet.y), (x.at(*value), sheet.y + 4.0)], Paint::MUTED, 1.0);
            sheet.canvas.text((x.at(*value), sheet.y + 13.0), text, Anchor::Middle, TICK, Paint::MUTED);
        }
        sheet.y += 24.0;
        sheet.x_label(&super::ChartAxis { label: self.x_label.clone(), log: false });
    }

    /// What the shades mean.
    fn key(&self, sheet: &mut Sheet, shade: &Scale, missing: bool) {
        let text = fit(&self.unit, 300.0, LABEL);
        sheet.canvas.text((EDGE, sheet.y + 9.0), &text, Anchor::Start, LABEL, Paint::TEXT);
        let left = EDGE + width(&text, LABEL) + 10.0;
        let (scale, ticks) = axis(shade.span, left, left + 180.0, 4);
        let step = 180.0 / KEY as f64;
        for at in 0..KEY {
            let (x, share) = (left + step * at as f64, (at as f64 + 0.5) / KEY as f64);
            let paint = Paint::HEAT.crisp().strength(share);
            sheet.canvas.rect((x, sheet.y + 2.0), (x + step, sheet.y + 16.0), paint);
        }
        sheet.canvas.frame((left - 0.5, sheet.y + 1.5), (left + 180.5, sheet.y + 16.5), Paint::GRID, 1.0);
        for (value, text) in &ticks {
            sheet.canvas.text((scale.at(*value), sheet.y + 26.0), text, Anchor::Middle, TICK, Paint::MUTED);
        }
        if missing {
            cross(&sheet.canvas, (left + 204.0, sheet.y + 2.0), (left + 218.0, sheet.y + 16.0));
            sheet.canvas.text((left + 224.0, sheet.y + 9.0), "no value", Anchor::Start, LABEL, Paint::TEXT);
        }
        sheet.y += 42.0;
    }
}

/// A cell without a value.
fn cross(canvas: &Canvas, (x0, y0): At, (x1, y1): At) {
    let (x, y, half) = ((x0 + x1) / 2.0, (y0 + y1) / 2.0, ((x1 - x0) / 2.0).min(4.0));
    canvas.path(&[(x - half, y - half), (x + half, y + half)], Paint::MUTED, 1.0);
    canvas.path(&[(x - half, y + half), (x + half, y - half)], Paint::MUTED, 1.0);
}
