//! JSON as programs write it: behind a byte order mark, and with numbers that JSON has no words for.
//!
//! Python's `json` writes `NaN`, `Infinity` and `-Infinity`. Here each of them becomes the string of the same letters, because
//! JSON's values know no such number and because `null` would say that the key is absent: who needs a number there refuses the
//! value by its name, and who does not need the key passes over it. The inside of strings is never touched.

use crate::error::InputError;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::io::{BufRead, Read};
use std::marker::PhantomData;

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What Python writes for numbers that are not finite.
const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// The text without the byte order mark of UTF-8 that some editors put before it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Reads one value, of any type that serde can make of JSON. `what` is what the text should be, for errors.
///
/// # Errors
/// What is no such JSON, with its line, the key before it, and the text from there on.
pub fn from_slice<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T, InputError> {
    let text = standard(without_mark(text));
    serde_json::from_slice(&text).map_err(|error| fault(&text, what, &error).line(error.line().max(1) as u64))
}

/// What is wrong with `text`, as `serde_json` says it of the same bytes: the key that was last seen on the line, and the text from
/// the fault on. Without the line.
pub fn fault(text: &[u8], what: &str, error: &serde_json::Error) -> InputError {
    let message = error.to_string();
    let cause = message.rfind(" at line ").map_or(&*message, |end| &message[..end]);
    let line = text.split(|&byte| byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = error.column().saturating_sub(1).min(line.len());
    let bad = InputError::expected(format!("{what} ({cause} at column {})", error.column()));
    let bad = if error.is_eof() {
        bad.found(if text.contains(&b'\n') { "the end of the text" } else { "the end of the line" })
    } else {
        bad.found(String::from_utf8_lossy(&line[at..line.len().min(at + 400)]))
    };
    let before = String::from_utf8_lossy(&line[..at]);
    let key = before.rfind("\":").and_then(|end| {
        let start = before[..end].rfind('"')?;
        Some(&before[start + 1..end])
    });
    match key {
        Some(key) => bad.key(key),
        None => bad,
    }
}

/// The same JSON with `NaN`, `Infinity` and `-Infinity` as strings; the text itself where it has none.
pub fn standard(text: &[u8]) -> Cow<'_, [u8]> {
    let starts = |first: u8, word: &[u8]| {
        let mut at = (0..text.len()).filter(|&at| text[at] == first);
        at.any(|at| text[at..].starts_with(word))
    };
    if !starts(b'N', b"NaN") && !starts(b'I', b"Infinity") {
        return Cow::Borrowed(text);
    }
    let (mut filter, mut out) = (Filter::default(), Vec::with_capacity(text.len() + 16));
    filter.take(text, &mut out);
    filter.end(&mut out);
    Cow::Owned(out)
}

/// An object as the list of its entries, in the order of the text. A map would keep the last of those that have the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntries<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ObjectEntries<T> {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = ObjectEntries<T>;
            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectEntries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(ObjectEntries(entries))
            }
        }
        text.deserialize_map(Object(PhantomData))
    }
}

impl<T> ObjectEntries<T> {
    /// A key that is there more than once.
    pub fn repeated(&self) -> Option<&str> {
        repeated(self.0.iter().map(|(key, _)| key.as_str()))
    }
}

/// The first of `items` that is there already.
pub fn repeated<T: Copy + Eq + Hash>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    items.into_iter().find(|&item| !seen.insert(item))
}

/// A stream of JSON, read as [`standard`] says, without the byte order mark. Holds one piece of the source at a time.
pub struct Standard<R> {
    source: R,
    filter: Filter,
    ready: Vec<u8>,
    given: usize,
    begun: bool,
    ended: bool,
}

impl<R: BufRead> Standard<R> {
    /// Reads on from where `source` is, which should be the start of the text.
    pub fn new(source: R) -> Self {
        let (filter, ready) = Default::default();
        Standard { source, filter, ready, given: 0, begun: false, ended: false }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        while self.given == self.ready.len() && !self.ended {
            self.ready.clear();
            self.given = 0;
            let piece = self.source.fill_buf()?;
            let taken = piece.len();
            let text = if self.begun { piece } else { without_mark(piece) };
            if taken == 0 {
                self.ended = true;
                self.filter.end(&mut self.ready);
            }
            self.filter.take(text, &mut self.ready);
            self.begun = true;
            self.source.consume(taken);
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Standard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.fill()?;
        let count = buffer.len().min(self.ready.len() - self.given);
        buffer[..count].copy_from_slice(&self.ready[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// Where in a text the filter is.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// Between words.
    #[default]
    Between,
    /// In a string; whether a backslash is before.
    Text { escaped: bool },
    /// In a word that is none of [`WORDS`]: a number, `true`.
    Other,
    /// In a word that has begun like one of [`WORDS`]: which, and how many bytes of it.
    Word { which: usize, seen: usize },
}

/// Puts quotes around [`WORDS`], piece by piece.
#[derive(Default)]
struct Filter {
    place: Place,
}

impl Filter {
    fn take(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for &byte in text {
            self.place = self.step(byte, out);
        }
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> Place {
        match self.place {
            Place::Text { escaped } => {
                out.push(byte);
                return if byte == b'"' && !escaped {
                    Place::Between
                } else {
                    Place::Text { escaped: byte == b'\\' && !escaped }
                };
            }
            Place::Word { which, seen } if WORDS[which].get(seen) == Some(&byte) => {
                return Place::Word { which, seen: seen + 1 };
            }
            Place::Word { .. } => {
                let whole = self.end_word(!is_word(byte), out);
                if !whole && is_word(byte) {
                    out.push(byte);
                    return Place::Other;
                }
            }
            Place::Other if is_word(byte) => {
                out.push(byte);
                return Place::Other;
            }
            Place::Other | Place::Between => {}
        }
        if let Some(which) = WORDS.iter().position(|word| word[0] == byte) {
            return Place::Word { which, seen: 1 };
        }
        out.push(byte);
        match byte {
            b'"' => Place::Text { escaped: false },
            byte if is_word(byte) => Place::Other,
            _ => Place::Between,
        }
    }

    /// Puts out the word that has begun, quoted where it is whole and `ends` here. Whether it was.
    fn end_word(&mut self, ends: bool, out: &mut Vec<u8>) -> bool {
        let Place::Word { which, seen } = self.place else { return false };
        let whole = ends && seen == WORDS[which].len();
        out.extend(whole.then_some(b'"'));
        out.extend_from_slice(&WORDS[which][..seen]);
        out.extend(whole.then_some(b'"'));
        whole
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.end_word(true, out);
        self.place = Place::Between;
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::io::BufReader;

    #[test]
    fn words_become_strings_and_strings_stay() {
        for (text, read) in [
            (r#"[NaN, Infinity,-Infinity]"#, json!(["NaN", "Infinity", "-Infinity"])),
            (r#"{"NaN":"-Infinity NaN","a\"NaN":NaN}"#, json!({"NaN": "-Infinity NaN", "a\"NaN": "NaN"})),
            (r#"["\\",NaN,"\"",Infinity,"\\\"NaN"]"#, json!(["\\", "NaN", "\"", "Infinity", "\\\"NaN"])),
            ("\u{feff}[-1, -0.5,1e-3 ]", json!([-1, -0.5, 1e-3])),
            ("NaN", json!("NaN")),
            ("\u{feff}-Infinity\n", json!("-Infinity")),
            ("[\"\u{feff}Infinity\"]", json!(["\u{feff}Infinity"])),
        ] {
            assert_eq!(from_slice::<Value>(text.as_bytes(), "JSON").unwrap(), read, "{text}");
        }
        for wrong in [
            "[nan]",
            "[NaNN]",
            "[+Infinity]",
            "[--Infinity]",
            "[Infinity1]",
            "[-NaN]",
            "[1NaN]",
            "[-]",
            "[In",
        ] {
            assert!(from_slice::<Value>(wrong.as_bytes(), "JSON").is_err(), "{wrong}");
        }
        assert!(matches!(standard(b"{\"a\": [1, -2], \"N\": \"I\"}"), Cow::Borrowed(_)));
    }

    #[test]
    fn faults_have_line_key_and_text() {
        let error =
            from_slice::<Value>(b"\xef\xbb\xbf{\"a\": NaN,\n \"b\": x}\n", "a JSON object").unwrap_err();
        let said = "line 2: b: found x}, expected a JSON object (expected value at column 7)";
        assert_eq!(error.to_string(), said);
        let error = from_slice::<Value>(b"{\"a\": ", "a JSON object").unwrap_err();
        assert_eq!((error.line, error.found.as_deref()), (Some(1), Some("the end of the line")));
    }

    #[test]
    fn entries_keep_keys_that_are_there_twice() {
        let read = |text: &str| from_slice::<ObjectEntries<u32>>(text.as_bytes(), "an object of numbers");
        let entries = read(r#"{"b": 1, "a": 2, "b": 3}"#).unwrap();
        assert_eq!(entries.0, [("b".to_owned(), 1), ("a".to_owned(), 2), ("b".to_owned(), 3)]);
        assert_eq!(entries.repeated(), Some("b"));
        assert_eq!(read(r#"{"b": 1, "a": 1}"#).unwrap().repeated(), None);
        assert!(read("[1]").is_err());
    }

    /// A value written as Python writes it, with words where the value has them.
    fn python(value: &Value) -> String {
        match value {
            Value::String(text) if WORDS.contains(&text.as_bytes()) => text.clone(),
            Value::Array(list) => format!("[{}]", list.iter().map(python).collect::<Vec<_>>().join(", ")),
            Value::Object(keys) => {
                let entry = |(key, value)| format!("{}: {}", json!(key), python(value));
                format!("{{{}}}", keys.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            other => other.to_string(),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let texts = prop_oneof![
            Just("NaN".to_owned()),
            Just("-Infinity".to_owned()),
            Just("Infinity".to_owned()),
            "[\"\\\\NaIn, -]{0,6}",
        ];
        let leaf = prop_oneof![
            any::<i64>().prop_map(|n| json!(n)),
            Just(Value::Null),
            texts.prop_map(Value::String)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::hash_map("[\"\\\\NaIn ]{0,4}", inner, 0..4)
                    .prop_map(|keys| Value::Object(keys.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The slice and the stream, in pieces of any size, read what Python wrote.
        #[test]
        fn what_python_writes_is_read(value in values(), piece in 1..9_usize, mark in any::<bool>()) {
            let text = format!("{}{}", if mark { "\u{feff}" } else { "" }, python(&value));
            prop_assert_eq!(&from_slice::<Value>(text.as_bytes(), "JSON").unwrap(), &value);
            // The mark comes in one piece: files are read in larger ones.
            let stream = BufReader::with_capacity(piece.max(3), text.as_bytes());
            let mut out = Vec::new();
            Standard::new(stream).read_to_end(&mut out).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Value>(&out).unwrap(), &value);
        }

        /// Valid JSON is not changed, and no text whatever makes it panic.
        #[test]
        fn other_text_stays(text in "[NaInfity\"\\\\ :,\\[\\]{}0-9.-]{0,40}") {
            let read = standard(text.as_bytes());
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), value);
                prop_assert_eq!(&*read, text.as_bytes());
            }
        }
    }
}
