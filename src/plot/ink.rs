//! Colours: what a stroke means while a picture is drawn, and how that looks on a page or on paper.
//!
//! `plotters` knows colours and nothing else. So a [`Paint`] travels through it packed into a colour, and [`finish`]
//! unpacks it in the finished text, where it may become a CSS variable and a dash pattern.

use super::text::{escape, long};
use plotters::style::RGBAColor;
use std::fmt::Write;

/// Where a picture will be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Inside an HTML page that may be light or dark. Text takes `currentColor`; the page has to set `--line` (grid),
    /// `--s1` to `--s8` (series), `--good`, `--bad` and `--heat`. No ids, so several pictures can share a page.
    Page,
    /// On white, with fixed colours, as a file of its own.
    Paper,
}

/// Series that differ by colour alone.
pub(super) const COLOURS: usize = 8;

/// `--s1` to `--s8` on paper: Okabe and Ito's palette without black and yellow, which is too pale for a line on white,
/// with Tol's wine and a grey instead.
const SERIES: [&str; COLOURS] =
    ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#6B6B6B"];

/// Lengths of dash and gap in tenths of a pixel. The first is a line without gaps.
const DASHES: [&str; 4] = ["", "70 35", "18 30", "90 30 18 30"];

/// What a stroke or a filled shape stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Text,
    Grid,
    Series,
    Good,
    Bad,
    Heat,
}

const ROLES: [Role; 6] = [Role::Text, Role::Grid, Role::Series, Role::Good, Role::Bad, Role::Heat];

/// A role, told apart further by number and dash, and how opaque it is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Paint {
    role: Role,
    index: u8,
    dash: u8,
    strength: f64,
}

impl Paint {
    pub const TEXT: Paint = Paint::solid(Role::Text);
    pub const MUTED: Paint = Paint { strength: 0.7, ..Paint::TEXT };
    pub const GRID: Paint = Paint::solid(Role::Grid);
    pub const GOOD: Paint = Paint::solid(Role::Good);
    pub const BAD: Paint = Paint::solid(Role::Bad);
    pub const HEAT: Paint = Paint::solid(Role::Heat);

    const fn solid(role: Role) -> Paint {
        Paint { role, index: 0, dash: 0, strength: 1.0 }
    }

    /// The colour of series `at`, from 0. They repeat after [`COLOURS`].
    pub fn series(at: usize) -> Paint {
        Paint { index: (at % COLOURS) as u8, ..Paint::solid(Role::Series) }
    }

    pub fn dashed(self, at: usize) -> Paint {
        Paint { dash: (at % DASHES.len()) as u8, ..self }
    }

    /// Opacity from 0 to 1, to two digits.
    pub fn strength(self, strength: f64) -> Paint {
        Paint { strength: (strength.clamp(0.0, 1.0) * 100.0).round() / 100.0, ..self }
    }

    /// Sharp edges, so that neighbours leave no seam. For filled shapes: they have no dashes, whose place it takes.
    pub fn crisp(self) -> Paint {
        self.dashed(1)
    }

    pub fn pack(self) -> RGBAColor {
        RGBAColor(self.role as u8, self.index, self.dash, self.strength)
    }

    /// The inverse of `pack`, from the six digits that `plotters` writes; it writes the opacity beside them.
    fn unpack(digits: &str) -> Option<Paint> {
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        Some(Paint { role: *ROLES.get(byte(0)? as usize)?, index: byte(2)?, dash: byte(4)?, strength: 1.0 })
    }
}

impl Ink {
    fn colour(self, paint: Paint) -> String {
        let (name, fixed) = match paint.role {
            Role::Text => return if self == Ink::Page { "currentColor" } else { "#1F2328" }.to_owned(),
            Role::Grid => ("line", "#D5D9DE"),
            Role::Series => (
                &*format!("s{}", paint.index + 1),
                SERIES.get(paint.index as usize).copied().unwrap_or("#000"),
            ),
            Role::Good => ("good", "#009E73"),
            Role::Bad => ("bad", "#D55E00"),
            Role::Heat => ("heat", "#08306B"),
        };
        if self == Ink::Page { format!("var(--{name})") } else { fixed.to_owned() }
    }
}

/// The whole picture from what `plotters` wrote in tenths of a pixel: a new first line, and every paint as it looks.
pub(super) fn finish(ink: Ink, raw: &str, (width, height): (f64, f64), title: &str, summary: &str) -> String {
    let (title, summary) = (escape(&long(title, 160)), escape(&long(summary, 400)));
    let mut out = String::with_capacity(raw.len());
    let size = format!("{:.0} {:.0}", width * 10.0, height * 10.0);
    let common = format!("xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size}\" role=\"img\"");
    let join = "stroke-linejoin=\"round\" stroke-linecap=\"butt\"";
    // Writing to a string cannot fail.
    let _ = match ink {
        Ink::Page => writeln!(
            out,
            "<svg {common} aria-label=\"{title}. {summary}\" {join} font-family=\"inherit\" style=\"width:100%;height:auto\">"
        ),
        Ink::Paper => writeln!(
            out,
            "<svg {common} width=\"{width:.0}\" height=\"{height:.0}\" {join} font-family=\"'Noto Sans', system-ui, sans-serif\">\n\
             <title>{title}</title>\n<desc>{summary}</desc>\n<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>"
        ),
    };
    // `plotters` puts each tag and each text on a line of its own, and escapes `<` in texts.
    for line in raw.lines().skip(1) {
        if line.starts_with('<') {
            tag(ink, line, &mut out)
        } else {
            out.push_str(line)
        }
        out.push('\n');
    }
    out
}

/// A tag with its paints unpacked.
fn tag(ink: Ink, line: &str, out: &mut String) {
    let line = line.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "");
    let mut rest = &*line;
    while let Some(at) = rest.find("=\"#") {
        let (before, code) = rest.split_at(at + 3);
        out.push_str(before.trim_end_matches('#'));
        let Some(paint) = code.get(..6).and_then(Paint::unpack) else { break };
        out.push_str(&ink.colour(paint));
        if paint.role == Role::Heat && paint.dash > 0 {
            out.push_str("\" shape-rendering=\"crispEdges");
        } else if paint.dash > 0 {
            let _ = write!(out, "\" stroke-dasharray=\"{}", DASHES[paint.dash as usize % DASHES.len()]);
        }
        rest = &code[6..];
    }
    out.push_str(rest);
}
