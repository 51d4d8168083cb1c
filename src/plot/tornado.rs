//! How far each input moves the outcome, the widest first.

use super::Tornado;
use super::canvas::{Anchor, LABEL, TICK};
use super::ink::Paint;
use super::scale::{Span, usable};
use super::sheet::{EDGE, Sample, Sheet, WIDTH, axis};
use super::text::{are, fit, name, signed, width};

const BARS: usize = 20;
const ROW: f64 = 25.0;
/// Width of a column of numbers.
const NUMBER: f64 = 62.0;

impl Tornado {
    /// The bars that can be drawn, the widest first.
    pub(super) fn sorted(&self) -> Vec<&(String, f64, f64)> {
        let mut bars: Vec<_> =
            self.bars.iter().filter(|(_, low, high)| usable(*low, false) && usable(*high, false)).collect();
        let reach = |(_, low, high): &(String, f64, f64)| low.max(*high).max(0.0) - low.min(*high).min(0.0);
        bars.sort_by(|a, b| reach(b).total_cmp(&reach(a)));
        bars
    }

    pub(super) fn draw(&self, sheet: &mut Sheet) {
        let bars = self.sorted();
        let unusable = self.bars.len() - bars.len();
        let (bars, rest) = bars.split_at(bars.len().min(BARS));
        if bars.is_empty() {
            return sheet.nothing();
        }
        let (low_paint, high_paint) = (Paint::series(0), Paint::series(1));
        sheet.legend(&[
            (Sample::Box(low_paint), &self.low_name),
            (Sample::Frame(high_paint), &self.high_name),
        ]);

        let names = bars.iter().map(|(text, ..)| width(&name(text), LABEL));
        let left = EDGE + names.fold(40.0, f64::max).min(190.0) + 10.0;
        let right = WIDTH - EDGE - 2.0 * NUMBER - 6.0;
        let span = Span::of(bars.iter().flat_map(|(_, low, high)| [*low, *high, 0.0]), false);
        let (x, ticks) = axis(span, left + 4.0, right, 7);
        let columns = [WIDTH - EDGE - NUMBER, WIDTH - EDGE];
        let swatch = |right: f64| ((right - 13.0, sheet.y + 3.0), (right, sheet.y + 15.0));
        let (from, to) = swatch(columns[0]);
        sheet.canvas.rect(from, to, low_paint);
        let (from, to) = swatch(columns[1]);
        sheet.canvas.rect(from, to, high_paint.strength(0.3));
        sheet.canvas.frame(from, to, high_paint, 1.4);
        sheet.y += 20.0;

        let bottom = sheet.y + ROW * bars.len() as f64;
        for (value, text) in &ticks {
            let x = x.at(*value);
            sheet.canvas.path(&[(x, sheet.y), (x, bottom + 4.0)], Paint::GRID, 1.0);
            sheet.canvas.text((x, bottom + 14.0), text, Anchor::Middle, TICK, Paint::MUTED);
        }
        for (text, low, high) in bars {
            let middle = sheet.y + ROW / 2.0;
            let text = fit(text, left - EDGE - 10.0, LABEL);
            sheet.canvas.text((left - 10.0, middle), &text, Anchor::End, LABEL, Paint::TEXT);
            // On the same side of 0 the bars would cover each other: then each takes half the height.
            let (above, below) =
                if low * high > 0.0 { ((-9.0, -0.5), (0.5, 9.0)) } else { ((-9.0, 9.0), (-9.0, 9.0)) };
            sheet.canvas.rect((x.at(0.0), middle + above.0), (x.at(*low), middle + above.1), low_paint);
            let (from, to) = ((x.at(0.0), middle + below.0), (x.at(*high), middle + below.1));
            sheet.canvas.rect(from, to, high_paint.strength(0.3));
            sheet.canvas.frame(from, to, high_paint, 1.4);
            for (value, right) in [low, high].into_iter().zip(columns) {
                sheet.canvas.text((right, middle), &signed(*value), Anchor::End, TICK, Paint::TEXT);
            }
            sheet.y += ROW;
        }
        sheet.canvas.path(
            &[(x.at(0.0), sheet.y - ROW * bars.len() as f64), (x.at(0.0), bottom + 4.0)],
            Paint::MUTED,
            1.2,
        );
        sheet.y = bottom + 26.0;
        sheet.x_label(&super::ChartAxis { label: self.unit.clone(), log: false });
        if !rest.is_empty() {
            sheet.remark(&format!(
                "{} left out, each narrower than those shown.",
                are(rest.len(), "more input")
            ));
        }
        if unusable > 0 {
            sheet.remark(&format!("{} left out: no number that can be drawn.", are(unusable, "input")));
        }
    }
}
