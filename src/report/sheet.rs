//! Columns of text for a terminal.

use crate::error::shorten;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width};

/// Columns of the terminal that all reports fit.
pub const WIDTH: u16 = 120;

/// A rule above, below and under the header; nothing between columns.
const RULES: TableStyle = {
    let thin = LineStyle::none().fill('─').junction('─');
    TableStyle::new().top_border(thin).header_separator(thin).bottom_border(thin)
};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// At most this wide; longer ones are broken, so that prose has room.
    Words(u16),
    Prose,
    Numbers,
}

/// A table made column by column.
#[derive(Debug, Default)]
pub struct Sheet {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    header: String,
    kind: Kind,
    cells: Vec<String>,
}

impl Sheet {
    /// An empty sheet.
    pub fn new() -> Self {
        Sheet::default()
    }

    /// Adds a column of words, aligned left; what a terminal would obey rather than show is escaped.
    pub fn words<T: AsRef<str>>(self, header: &str, cells: impl IntoIterator<Item = T>) -> Self {
        self.column(header, Kind::Words(36), cells)
    }

    /// Adds a narrow column of words.
    pub fn narrow<T: AsRef<str>>(self, header: &str, cells: impl IntoIterator<Item = T>) -> Self {
        self.column(header, Kind::Words(22), cells)
    }

    /// Adds a column of words that is at most `most` wide.
    pub fn narrow_to<T: AsRef<str>>(
        self,
        header: &str,
        most: u16,
        cells: impl IntoIterator<Item = T>,
    ) -> Self {
        self.column(header, Kind::Words(most), cells)
    }

    /// Adds a column of text that takes the width that is left.
    pub fn prose<T: AsRef<str>>(self, header: &str, cells: impl IntoIterator<Item = T>) -> Self {
        self.column(header, Kind::Prose, cells)
    }

    /// Adds a column of numbers, aligned right.
    pub fn numbers<T: AsRef<str>>(self, header: &str, cells: impl IntoIterator<Item = T>) -> Self {
        self.column(header, Kind::Numbers, cells)
    }

    fn column<T: AsRef<str>>(mut self, header: &str, kind: Kind, cells: impl IntoIterator<Item = T>) -> Self {
        let cells = cells.into_iter().map(|cell| safe(cell.as_ref())).collect();
        self.columns.push(Column { header: header.into(), kind, cells });
        self
    }

    /// The table, each line ended, at most [`WIDTH`] wide unless a word is longer.
    pub fn render(&self) -> String {
        self.within(WIDTH)
    }

    /// The table, each line ended, at most `width` wide unless a word is longer.
    pub fn within(&self, width: u16) -> String {
        let mut table = Table::new();
        table.load_style(RULES).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        let lines = |column: &Column| column.header.matches('\n').count();
        let height = self.columns.iter().map(lines).max().unwrap_or(0);
        // Headers stand on the rule, whatever their height.
        table.set_header(
            self.columns.iter().map(|column| "\n".repeat(height - lines(column)) + &column.header),
        );
        let rows = self.columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
        for row in 0..rows {
            table.add_row(self.columns.iter().map(|column| column.cells.get(row).map_or("", String::as_str)));
        }
        for (shown, column) in table.column_iter_mut().zip(&self.columns) {
            shown.set_cell_alignment(match column.kind {
                Kind::Numbers => CellAlignment::Right,
                Kind::Words(_) | Kind::Prose => CellAlignment::Left,
            });
            match column.kind {
                Kind::Words(most) => {
                    shown.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(most)))
                }
                Kind::Numbers => shown.set_constraint(ColumnConstraint::ContentWidth),
                Kind::Prose => shown,
            };
            shown.set_padding((0, 2));
        }
        let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
        lines.collect()
    }
}

/// The text without anything that a terminal would obey; words that people wrote may be long, so each line is kept.
pub(super) fn safe(text: &str) -> String {
    const LONGEST: usize = 2000;
    text.chars()
        .take(LONGEST)
        .collect::<Vec<_>>()
        .chunks(80)
        .map(|part| shorten(&String::from_iter(part)))
        .collect()
}

/// `number` with `digits` significant digits, never in powers of ten: `0.01234`, `123.4`, `12345`.
pub(super) fn digits(number: f64, digits: i32) -> String {
    if number.is_nan() {
        return NONE.into();
    }
    if number == 0.0 || !number.is_finite() {
        return if number == 0.0 { "0".into() } else { number.to_string() };
    }
    // One more where rounding carries: 9.996 is 10.00, not 9.996.
    let magnitude = number.abs().log10().floor() as i32;
    let places = (digits - 1 - magnitude).clamp(0, 12) as usize;
    format!("{number:.places$}")
}

/// Seconds in the unit that suits the largest of them: the unit, and each as text.
pub(super) fn times(seconds: &[f64]) -> (&'static str, Vec<String>) {
    let largest = seconds.iter().copied().fold(0.0, f64::max);
    let (unit, factor) = match largest {
        s if s >= 1.0 => ("s", 1.0),
        s if s >= 1e-3 => ("ms", 1e3),
        _ => ("us", 1e6),
    };
    let places = places(largest * factor);
    (unit, seconds.iter().map(|s| fixed(s * factor, places)).collect())
}

/// Numbers with as many places each as give the largest four digits.
pub(super) fn alike(numbers: &[f64]) -> Vec<String> {
    let places = places(numbers.iter().copied().fold(0.0, f64::max));
    numbers.iter().map(|number| fixed(*number, places)).collect()
}

/// What stands where there is no number.
pub(super) const NONE: &str = "-";

fn fixed(number: f64, places: usize) -> String {
    if number.is_nan() { NONE.into() } else { format!("{number:.places$}") }
}

fn places(largest: f64) -> usize {
    match largest {
        n if n <= 0.0 => 0,
        n => (3 - n.log10().floor() as i32).clamp(0, 6) as usize,
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    if share.is_nan() {
        return NONE.into();
    }
    // No minus sign before a zero.
    let shown = format!("{:.1}", share * 100.0);
    if shown == "-0.0" { "0.0".into() } else { shown }
}
