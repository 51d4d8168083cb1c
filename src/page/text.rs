//! Texts from inputs, made fit to be seen: escaped by the rules of [`shorten`], and not endless.

use crate::error::shorten;
use maud::{Markup, html};

/// How many characters of a prose text are shown.
const MOST: usize = 2000;

/// A name, a cell or a title: 80 characters at most, apart from its surroundings in the direction of writing.
pub fn short(text: &str) -> Markup {
    html! { bdi { (shorten(text)) } }
}

/// A sentence or more, on one line.
pub fn prose(text: &str) -> Markup {
    cut(text, |_| false)
}

/// A text with line breaks.
pub fn lines(text: &str) -> Markup {
    cut(text, |c| c == '\n')
}

/// The first [`MOST`] characters, escaped unless `kept`, and how many more there are.
fn cut(text: &str, kept: impl Fn(char) -> bool) -> Markup {
    let escape = |c: char| if kept(c) { c.to_string() } else { shorten(c.encode_utf8(&mut [0; 4])) };
    let shown: String = text.chars().take(MOST).map(escape).collect();
    let more = text.chars().count().saturating_sub(MOST);
    html! {
        bdi { (shown) }
        @if more > 0 { em.note { " … " (more) " more characters" } }
    }
}
