//! A graph whose nodes have an order: arcs above lead forward, arcs below lead back, rings stay.

use super::Arcs;
use super::canvas::{Anchor, At, LABEL, TICK};
use super::ink::Paint;
use super::scale::usable;
use super::sheet::{EDGE, Sample, Sheet, WIDTH};
use super::text::{are, fit, name, shown, width};

const NODES: usize = 160;
const EDGES: usize = 2000;
/// Edges below this share of the heaviest are not drawn.
const LEAST: f64 = 0.005;
/// Height of the longest arc, and of the strip with the names between both halves.
const HIGHEST: f64 = 190.0;
const STRIP: f64 = 22.0;

/// From, to and weight.
type Edge = (usize, usize, f64);

impl Arcs {
    pub(super) fn draw(&self, sheet: &mut Sheet) {
        let count = self.nodes.len().min(NODES);
        let heavy = |edge: &&Edge| edge.2 > 0.0 && usable(edge.2, false);
        let inside = |(from, to, _): &Edge| *from < count && *to < count;
        let (mut edges, outside): (Vec<_>, Vec<_>) =
            self.edges.iter().filter(heavy).copied().partition(|edge| inside(edge));
        if count == 0 {
            return sheet.nothing();
        }
        let heavier = |a: &Edge, b: &Edge| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1)));
        edges.sort_by(heavier);
        let most = edges.first().map_or(1.0, |edge| edge.2);
        let all = edges.len();
        edges.retain(|edge| edge.2 >= LEAST * most);
        let capped = edges.len() > EDGES;
        edges.truncate(EDGES);
        let weak = all - edges.len();
        // The heaviest are drawn last and lie above; rings above all, since they lie at the feet of the arcs.
        edges.reverse();
        edges.sort_by_key(|edge| edge.0 == edge.1);

        let step = (WIDTH - 2.0 * EDGE - 24.0) / (count.max(2) - 1) as f64;
        let x = |node: usize| if count == 1 { WIDTH / 2.0 } else { EDGE + 12.0 + step * node as f64 };
        let thickest = (step * 0.7).clamp(1.8, 6.0);
        let (forward, back, stay) = (Paint::series(0), Paint::series(1), Paint::series(2));
        let heaviest = format!("weight {}", shown(most, 3));
        sheet.legend(&[
            (Sample::Line(forward), "forward, above"),
            (Sample::Line(back), "back, below"),
            (Sample::Mark(stay, 7), "stays"),
        ]);
        self.key(sheet, thickest, &heaviest);

        let longest = |way: fn(usize, usize) -> bool| {
            edges.iter().filter(|(a, b, _)| way(*a, *b)).map(|(a, b, _)| a.abs_diff(*b)).max().unwrap_or(0)
        };
        let (up, down) = (longest(|a, b| a < b), longest(|a, b| a > b));
        let rise = |span: usize| height(span, up.max(down));
        let top = sheet.y + (rise(up) + thickest).max(16.0);
        let below = top + STRIP;
        for (from, to, weight) in &edges {
            let share = weight / most;
            let (thick, strength) = ((thickest * share).max(0.5), 0.3 + 0.6 * share);
            let radius = (step * 0.42).clamp(1.5, 6.0);
            if from == to {
                sheet.canvas.ring((x(*from), top - radius), radius, stay, thick.clamp(0.8, radius * 0.7));
            } else {
                let (base, way, paint) = if from < to { (top, -1.0, forward) } else { (below, 1.0, back) };
                let arc = arc(x(*from), x(*to), base, way * rise(from.abs_diff(*to)));
                sheet.canvas.path(&arc, paint.strength(strength), thick);
            }
        }
        self.names(sheet, count, step, top, x);
        sheet.y = below + rise(down).max(4.0) + thickest + 6.0;
        if weak > 0 {
            let light = format!("lighter than {} % of the heaviest", LEAST * 100.0);
            let why = if capped { format!("not among the {EDGES} heaviest") } else { light };
            sheet.remark(&format!("{} not drawn: {why}.", are(weak, "edge")));
        }
        if self.nodes.len() > count {
            let nodes = are(self.nodes.len() - count, "more node");
            sheet.remark(&format!("{nodes} left out, with {} edges.", outside.len()));
        }
    }

    /// How thick the heaviest edge is.
    fn key(&self, sheet: &mut Sheet, thickest: f64, heaviest: &str) {
        let right = WIDTH - EDGE;
        let middle = sheet.y - 16.0;
        sheet.canvas.text((right, middle), heaviest, Anchor::End, LABEL, Paint::TEXT);
        let end = right - width(heaviest, LABEL) - 4.0;
        sheet.canvas.path(&[(end - 30.0, middle), (end, middle)], Paint::MUTED, thickest);
    }

    /// A dot for each node, and as many names as fit between both halves.
    fn names(&self, sheet: &Sheet, count: usize, step: f64, top: f64, x: impl Fn(usize) -> f64) {
        let widest =
            self.nodes[..count].iter().map(|text| width(&name(text), TICK)).fold(8.0, f64::max).min(90.0);
        let every = [1, 2, 4, 5, 8, 10, 16, 20, 32, 40, 64, 80].into_iter();
        let every = every.clone().find(|every| step * *every as f64 >= widest + 6.0).unwrap_or(160);
        for at in 0..count {
            let middle = x(at);
            let named = at % every == 0;
            for y in [top, top + STRIP] {
                sheet.canvas.disc((middle, y), if named { 2.2 } else { 1.2 }, Paint::TEXT);
            }
            if named {
                let text = fit(&self.nodes[at], widest, TICK);
                let half = width(&text, TICK) / 2.0;
                let middle = middle.clamp(half, (WIDTH - half).max(half));
                sheet.canvas.text((middle, top + STRIP / 2.0), &text, Anchor::Middle, TICK, Paint::TEXT);
            }
        }
    }
}

/// Arcs rise more slowly than they stretch, so that short ones beside long ones can be seen.
fn height(span: usize, longest: usize) -> f64 {
    let highest = HIGHEST.min(30.0 * longest as f64);
    if span == 0 { 0.0 } else { highest * (span as f64 / longest.max(1) as f64).powf(0.7) }
}

/// Half an ellipse from one place of a line to another.
fn arc(from: f64, to: f64, base: f64, rise: f64) -> Vec<At> {
    let (centre, radius) = ((from + to) / 2.0, (from - to) / 2.0);
    let parts = (1.6 * (radius.abs() + rise.abs()).sqrt()).ceil().clamp(8.0, 32.0) as usize;
    let turn = |part: usize| part as f64 / parts as f64 * std::f64::consts::PI;
    (0..=parts).map(|part| (centre + radius * turn(part).cos(), base + rise * turn(part).sin())).collect()
}
