//! The page and its blocks as HTML. Only void elements keep it from being XML, so that the tests can parse it.

use super::text::{lines, prose, short};
use super::{Block, Cell, Figure, Mark, Page, Section, Table};
use crate::error::shorten;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub fn page(page: &Page) -> Markup {
    let numbered = || (1..).zip(&page.sections);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="referrer" content="no-referrer";
                title { (shorten(&page.title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the report" }
                header {
                    h1 { (short(&page.title)) }
                    p.lead { (prose(&page.lead)) }
                }
                @if page.sections.len() > 1 {
                    nav aria-label="Sections" {
                        ol { @for (number, section) in numbered() {
                            li { a href={ "#s" (number) } { (short(&section.title)) } }
                        } }
                    }
                }
                main #main tabindex="-1" {
                    @for (number, section) in numbered() { (part(number, section)) }
                }
                footer {
                    p {
                        "Made by radialsim " (env!("CARGO_PKG_VERSION")) ". "
                        "This file is all there is: it loads nothing and runs no script."
                    }
                }
            }
        }
    }
}

fn part(number: usize, section: &Section) -> Markup {
    html! {
        section #{ "s" (number) } aria-labelledby={ "s" (number) "-title" } {
            h2 #{ "s" (number) "-title" } { (short(&section.title)) }
            @for (place, block) in (1..).zip(&section.blocks) {
                (self::block(&format!("s{number}-{place}"), block))
            }
        }
    }
}

/// A block; `id` is its own on the page.
pub fn block(id: &str, block: &Block) -> Markup {
    match block {
        Block::Text(text) => html! { p { (prose(text)) } },
        Block::Facts(facts) => html! {
            dl { @for (term, definition) in facts {
                div { dt { (short(term)) } dd { (prose(definition)) } }
            } }
        },
        Block::Answer(findings) => html! {
            ul.answer { @for finding in findings { li { (prose(finding)) } } }
        },
        Block::Table(table) => self::table(id, table),
        Block::Figure(figure) => self::figure(id, figure),
        Block::Code(code) => html! {
            pre role="region" tabindex="0" aria-label={ "Code " (id) } { code { (lines(code)) } }
        },
    }
}

fn table(id: &str, table: &Table) -> Markup {
    let cells = |column: usize| table.rows.iter().filter_map(move |row| row.get(column));
    let number = |column: usize| cells(column).any(|cell| cell.number);
    html! {
        div.scroll role="region" tabindex="0" aria-labelledby={ (id) "-caption" } {
            table {
                caption #{ (id) "-caption" } { (short(&table.caption)) }
                thead { tr { @for (column, name) in table.header.iter().enumerate() {
                    th.number[number(column)] scope="col" { (short(name)) }
                } } }
                tbody { @for row in &table.rows {
                    tr { @for (column, cell) in row.iter().enumerate() {
                        @if column == 0 {
                            th.number[cell.number] scope="row" { (marked(cell)) }
                        } @else {
                            td.number[cell.number] { (marked(cell)) }
                        }
                    } }
                } }
            }
        }
        @match table.left_out {
            0 => {},
            1 => p.note { "1 more row is not shown." },
            more => p.note { (more) " more rows are not shown." },
        }
    }
}

/// What a cell says, after the sign and the word of its mark.
fn marked(cell: &Cell) -> Markup {
    let (class, sign, word) = match cell.mark {
        Mark::None => return short(&cell.text),
        Mark::Good => ("good", "✓ ", "good: "),
        Mark::Bad => ("bad", "✗ ", "bad: "),
        Mark::Muted => ("muted", "", "minor: "),
    };
    html! {
        span class=(class) {
            span aria-hidden="true" { (sign) }
            span.unseen { (word) }
            (short(&cell.text))
        }
    }
}

fn figure(id: &str, figure: &Figure) -> Markup {
    html! {
        figure {
            figcaption {
                p.title #{ (id) "-title" } { (short(&figure.title)) }
                p { (prose(&figure.summary)) }
            }
            div.scroll.plot role="region" tabindex="0" aria-labelledby={ (id) "-title" } { (PreEscaped(&figure.svg)) }
            @if !figure.rows.is_empty() {
                details {
                    summary { "Numbers" span.unseen { " of " (short(&figure.title)) } }
                    (table(id, &numbers(figure)))
                }
            }
        }
    }
}

/// The numbers behind a figure as a table.
fn numbers(figure: &Figure) -> Table {
    let starts =
        |text: &str| text.trim_start_matches(['-', '−', '+', '.']).starts_with(|c: char| c.is_ascii_digit());
    let cell = |text: &String| Cell { number: starts(text), ..Cell::text(text) };
    Table {
        caption: format!("Numbers: {}", figure.title),
        header: figure.header.clone(),
        rows: figure.rows.iter().map(|row| row.iter().map(cell).collect()).collect(),
        left_out: 0,
    }
}
