//! Totals taken apart: bars that each begin where the one before ended.

use super::canvas::{Anchor, LABEL, TICK};
use super::ink::Paint;
use super::scale::{Scale, Span, usable};
use super::sheet::{EDGE, Sample, Sheet, WIDTH, axis, listed};
use super::text::{are, fit, name, shown, signed, width};
use super::{Bars, Waterfall};

const GROUPS: usize = 12;
const BARS: usize = 24;
/// Height of a bar with the room around it, and half its height without.
const ROW: f64 = 24.0;
const HALF: f64 = 8.0;
/// Room for a number beside a bar.
const NUMBER: f64 = 66.0;

/// A bar from one value to another. Without ends it has no value that could be drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub name: String,
    pub value: f64,
    pub ends: Option<(f64, f64)>,
    pub total: bool,
}

impl Bars {
    /// The bars in their order, and by how much the last total differs from what the steps lead to.
    pub(super) fn steps(&self) -> (Vec<Bar>, f64) {
        let last = self.bars.len().saturating_sub(1);
        let (mut at, mut missing) = (0.0, 0.0);
        let mut bars = Vec::new();
        for (index, (name, value)) in self.few().into_iter().enumerate() {
            let total = index == 0 || index == last.min(BARS - 1);
            let start = if total { 0.0 } else { at };
            let ends = usable(value, false).then_some((start, start + value));
            if let Some((_, end)) = ends {
                if index > 0 && total {
                    missing = end - at;
                }
                at = end;
            }
            bars.push(Bar { name, value, ends, total });
        }
        (bars, missing)
    }

    /// At most `BARS`: of more steps, the smallest are added up into one.
    fn few(&self) -> Vec<(String, f64)> {
        let Some((last, before)) = self.bars.split_last().filter(|(_, before)| before.len() >= BARS) else {
            return self.bars.clone();
        };
        let mut sizes: Vec<usize> = (1..before.len()).collect();
        sizes.sort_by(|a, b| before[*b].1.abs().total_cmp(&before[*a].1.abs()));
        let (kept, small) = sizes.split_at(BARS - 3);
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        let rest = small.iter().map(|at| before[*at].1).filter(|value| usable(*value, false)).sum();
        let mut few = vec![before[0].clone()];
        few.extend(kept.into_iter().map(|at| before[at].clone()));
        few.push((format!("{} smaller steps", small.len()), rest));
        few.push(last.clone());
        few
    }
}

impl Waterfall {
    pub(super) fn draw(&self, sheet: &mut Sheet) {
        let (groups, rest) = self.groups.split_at(self.groups.len().min(GROUPS));
        let stairs: Vec<_> = groups.iter().map(|group| (group, group.steps())).collect();
        let ends: Vec<f64> = stairs
            .iter()
            .flat_map(|(_, (bars, _))| bars)
            .filter_map(|bar| bar.ends)
            .flat_map(|(a, b)| [a, b])
            .collect();
        if ends.is_empty() {
            return sheet.nothing();
        }
        sheet.legend(&[
            (Sample::Box(Paint::series(7)), "total"),
            (Sample::Box(Paint::GOOD), "adds (+)"),
            (Sample::Frame(Paint::BAD), "takes away (−)"),
        ]);
        let names = stairs.iter().flat_map(|(_, (bars, _))| bars).map(|bar| width(&name(&bar.name), LABEL));
        let left = EDGE + names.fold(60.0, f64::max).min(200.0) + 8.0;
        let span = Span::of(ends.into_iter().chain([0.0]), false);
        let from = left + if span.low < 0.0 { NUMBER } else { 2.0 };
        let (x, ticks) = axis(span, from, WIDTH - EDGE - NUMBER, 6);
        for (group, (bars, missing)) in &stairs {
            if !group.name.is_empty() || stairs.len() > 1 {
                sheet.canvas.bold((EDGE, sheet.y + 9.0), &fit(&group.name, WIDTH - 2.0 * EDGE, LABEL), LABEL);
                sheet.y += 22.0;
            }
            let (top, bottom) = (sheet.y, sheet.y + ROW * bars.len() as f64);
            for (value, _) in &ticks {
                let strong = if *value == 0.0 { Paint::MUTED } else { Paint::GRID };
                sheet.canvas.path(&[(x.at(*value), top), (x.at(*value), bottom)], strong, 1.0);
            }
            draw(sheet, bars, &x, left);
            if missing.abs() > 0.005 * (x.span.high - x.span.low) {
                let text =
                    format!("The steps miss the last total by {} {}.", signed(*missing), name(&self.unit));
                sheet.remark(&text);
            }
            sheet.y += 10.0;
        }
        for (value, text) in &ticks {
            sheet.canvas.text((x.at(*value), sheet.y), text, Anchor::Middle, TICK, Paint::MUTED);
        }
        sheet.y += 12.0;
        sheet.x_label(&super::ChartAxis { label: self.unit.clone(), log: false });
        if !rest.is_empty() {
            let names: Vec<_> = rest.iter().map(|group| group.name.as_str()).collect();
            sheet.remark(&format!("{} left out: {}.", are(rest.len(), "more group"), listed(&names)));
        }
    }
}

/// One panel's bars, joined by thin lines.
fn draw(sheet: &mut Sheet, bars: &[Bar], x: &Scale, left: f64) {
    let mut joint: Option<(f64, f64)> = None;
    for bar in bars {
        let middle = sheet.y + ROW / 2.0;
        let label = fit(&bar.name, left - EDGE - 8.0, LABEL);
        sheet.canvas.text((left - 8.0, middle), &label, Anchor::End, LABEL, Paint::TEXT);
        if let Some((start, end)) = bar.ends {
            let (from, to) = (x.at(start), x.at(end));
            if let Some((before, above)) = joint {
                sheet.canvas.path(&[(before, above + HALF), (before, middle - HALF)], Paint::MUTED, 1.0);
            }
            let corners = ((from, middle - HALF), (to, middle + HALF));
            match bar.total {
                true => sheet.canvas.rect(corners.0, corners.1, Paint::series(7)),
                false if bar.value >= 0.0 => sheet.canvas.rect(corners.0, corners.1, Paint::GOOD),
                false => {
                    sheet.canvas.rect(corners.0, corners.1, Paint::BAD.strength(0.3));
                    sheet.canvas.frame(corners.0, corners.1, Paint::BAD, 1.4);
                }
            }
            let text = if bar.total { shown(bar.value, 3) } else { signed(bar.value) };
            if end < 0.0 && end <= start {
                sheet.canvas.text((from.min(to) - 5.0, middle), &text, Anchor::End, TICK, Paint::TEXT);
            } else {
                sheet.canvas.text((from.max(to) + 5.0, middle), &text, Anchor::Start, TICK, Paint::TEXT);
            }
            joint = Some((to, middle));
        } else {
            sheet.canvas.text((x.at(0.0) + 5.0, middle), "no value", Anchor::Start, TICK, Paint::MUTED);
        }
        sheet.y += ROW;
    }
}
