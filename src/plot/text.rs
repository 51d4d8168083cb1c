//! Texts and numbers as a picture shows them: safe, short enough for their room, without needless digits.

/// A name as it may be shown: one line, at most 80 characters, nothing invisible, nothing that XML forbids.
pub(super) use crate::error::shorten as name;

/// A sentence as it may be shown: words of at most 80 characters, about `most` characters in all.
pub(super) fn long(text: &str, most: usize) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        if out.chars().count() > most {
            out.push('…');
            break;
        }
        out.push_str(&name(word));
    }
    out
}

/// For an attribute or a text of XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

/// Width of a text in pixels, from a rough class of each letter: the font of a page is not known here. Rather too wide.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.3,
        ' ' | 'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' => 0.4,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.92,
        'A'..='Z' => 0.68,
        '0'..='9' | '<' | '>' | '=' | '+' | '−' => 0.58,
        '\u{1100}'.. if c != '…' && c != '−' => 1.05,
        _ => 0.58,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// A name cut so that it fits into `room` pixels.
pub(super) fn fit(text: &str, room: f64, size: f64) -> String {
    let mut text = name(text);
    if width(&text, size) <= room {
        return text;
    }
    while text.pop().is_some() {
        if width(&text, size) + size * 0.6 <= room {
            return text.trim_end().to_owned() + "…";
        }
    }
    text
}

/// Lines of at most `room` pixels, broken between words.
pub(super) fn wrap(text: &str, room: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + size * 0.4 <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, room, size)),
        }
    }
    lines
}

/// The same number of lines, but of about the same length.
pub(super) fn balance(text: &str, room: f64, size: f64) -> Vec<String> {
    let widest = wrap(text, room, size);
    let narrower = (5..10).map(|tenths| wrap(text, room * f64::from(tenths) / 10.0, size));
    narrower.into_iter().find(|lines| lines.len() == widest.len()).unwrap_or(widest)
}

/// A number with 4 significant digits.
pub(super) fn number(value: f64) -> String {
    rounded(value, 4)
}

/// A number to so many significant digits, as short as it can be written.
pub(super) fn rounded(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    // Adding 0 turns -0 into 0.
    let value = format!("{:.*e}", digits.saturating_sub(1), value).parse().unwrap_or(value) + 0.0;
    if value == 0.0 || (1e-3..1e9).contains(&value.abs()) { value.to_string() } else { format!("{value:e}") }
}

/// A number beside a bar or an axis: thousands as `k`, a true minus.
pub(super) fn shown(value: f64, digits: usize) -> String {
    let (unit, suffix) = match value.abs() {
        1e4..1e6 => (1e3, " k"),
        1e6..1e9 => (1e6, " M"),
        1e9..1e12 => (1e9, " G"),
        1e12..1e15 => (1e12, " T"),
        _ => (1.0, ""),
    };
    (rounded(value / unit, digits) + suffix).replace('-', "−")
}

/// The same with its sign, for a change.
pub(super) fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", shown(value, 3)) } else { shown(value, 3) }
}

/// `1 line is`, `2 lines are`.
pub(super) fn are(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing} is") } else { format!("{count} {thing}s are") }
}
