//! Reports as web pages: one file that holds everything, loads nothing and runs no script.
//!
//! A [`Page`] is built from plain texts, which may hold anything: [`Page::html`] escapes them, cuts titles, captions,
//! terms and cells at 80 characters and sentences and code at 2000, and shows where it did. Only [`Figure::svg`] is
//! taken as it is.

mod parts;
#[cfg(test)]
mod tests;
mod text;

/// A report that answers one question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// What the report is about, in a few words.
    pub title: String,
    /// The question that it answers.
    pub lead: String,
    /// The report itself. The page lists their titles at its top when there are several.
    pub sections: Vec<Section>,
}

/// A part of a page under a heading of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What stands below it, in this order.
    pub blocks: Vec<Block>,
}

/// One thing in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Terms, each with its definition.
    Facts(Vec<(String, String)>),
    /// The findings, one sentence each, set off from the rest. Belongs at the top of the first section.
    Answer(Vec<String>),
    /// Numbers in rows and columns.
    Table(Table),
    /// A plot with the numbers behind it.
    Figure(Figure),
    /// Commands or a file, shown as written.
    Code(String),
}

/// Numbers in rows and columns. The first cell of a row names the row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// What the table shows.
    pub caption: String,
    /// Names of the columns. A column that holds numbers has its name on the right, too.
    pub header: Vec<String>,
    /// The rows from top to bottom.
    pub rows: Vec<Vec<Cell>>,
    /// How many rows exist that are not in `rows`; the page says so below the table.
    pub left_out: u64,
}

/// One cell of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// What it says, formatted.
    pub text: String,
    /// Set on the right, with digits of equal width.
    pub number: bool,
    /// How to take it.
    pub mark: Mark,
}

/// How to take a cell. Every mark but `None` shows as a sign or a style besides its colour, and as a word to those who listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// As it is.
    #[default]
    None,
    /// Better than what it is held against.
    Good,
    /// Worse than what it is held against.
    Bad,
    /// Less important than its neighbours.
    Muted,
}

/// A plot, what it shows in words, and the numbers behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figure {
    /// What is plotted.
    pub title: String,
    /// What there is to see, for those who cannot see it.
    pub summary: String,
    /// An `<svg>` element of our own making, put into the page **unescaped**: with `viewBox`, `role="img"`, `aria-label`,
    /// and no `id` that another figure has.
    ///
    /// Texts and shapes without a fill have the colour of the page's text. These follow the reader's light or dark
    /// theme: `var(--line)` for grids, `var(--s1)` to `var(--s8)` for series, `var(--good)`, `var(--bad)`, `var(--heat)`.
    pub svg: String,
    /// Names of the columns of `rows`.
    pub header: Vec<String>,
    /// The numbers behind the plot, folded away below it; cells that start like a number are set on the right.
    pub rows: Vec<Vec<String>>,
}

impl Cell {
    /// A cell of words.
    pub fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// A cell that holds a number.
    pub fn number(text: impl Into<String>) -> Cell {
        Cell { number: true, ..Cell::text(text) }
    }

    /// The same cell with this mark.
    pub fn mark(self, mark: Mark) -> Cell {
        Cell { mark, ..self }
    }
}

impl Page {
    /// The whole page: the same bytes for the same page.
    pub fn html(&self) -> String {
        parts::page(self).into_string()
    }
}

impl Block {
    /// The block alone, as a piece of some other page; `id` is its own there.
    pub fn html(&self, id: &str) -> String {
        parts::block(id, self).into_string()
    }
}
