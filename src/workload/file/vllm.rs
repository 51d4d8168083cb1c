//! The result file of vLLM's or SGLang's serving benchmark: one JSON object with a list for each property of the requests.

use super::super::Reading;
use super::collect::{Collector, Row, room};
use super::records::Metered;
use super::time::{Clock, TimeUnit, Told};
use super::value::Value;
use crate::error::{Error, InputError, Result};
use crate::json_text::Standard;
use crate::trace::limits::LINE_BYTES;
use crate::trace::lines::{Input, Origin};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

const PROMPTS: &str = "input_lens";
const OUTPUTS: &str = "output_lens";
const STARTS: &str = "start_times";
const ERRORS: &str = "errors";

/// Reads it: `input_lens`, `output_lens`, and `start_times` (seconds) where this version writes them. Everything else, generated texts
/// included, is passed over.
pub(super) fn read(input: Input, reading: &Reading, out: &mut Collector) -> Result<()> {
    let Input { bytes, origin } = input;
    let metered = Metered::new(Standard::new(bytes));
    let mut lists = Lists { left: metered.left(), ..Lists::default() };
    let mut json = serde_json::Deserializer::from_reader(metered);
    let read = lists.deserialize(&mut json).and_then(|()| json.end());
    if let Err(error) = read {
        let out_of_bytes = lists.left.get() == 0;
        return Err(explain(error, lists.wrong, out_of_bytes, &origin));
    }
    let need = |key: &str, list: Option<Vec<String>>| {
        let what = "this key, which --save-detailed (vLLM, beside --save-result) and --output-details (SGLang) write";
        list.ok_or_else(|| Error::from(InputError::expected(what).key(key).found("nothing")))
    };
    let (prompts, outputs) = (need(PROMPTS, lists.prompts)?, need(OUTPUTS, lists.outputs)?);
    let mut starts = lists.starts;
    for (key, length) in [(OUTPUTS, outputs.len()), (STARTS, starts.as_ref().map_or(prompts.len(), Vec::len))]
    {
        if length != prompts.len() {
            let what = format!("{} values, as in {PROMPTS}", prompts.len());
            return Err(InputError::expected(what).key(key).found(format!("{length} values")).into());
        }
    }
    if reading.without_arrivals {
        starts = None;
    } else {
        let told = reading.time_unit.map_or(Told::Name(TimeUnit::S), Told::Option);
        out.clock = starts.is_some().then(|| Clock::new(STARTS, told));
    }
    if starts.is_none() {
        let rate = lists.rate.map_or(String::new(), |rate| format!(" (its request_rate is {rate})"));
        out.without_arrivals(format!("the file has no start_times{rate}"));
    }
    for (index, (prompt, output)) in prompts.iter().zip(&outputs).enumerate() {
        let keys = [PROMPTS, OUTPUTS, STARTS].map(|key| format!("{key}[{index}]"));
        let value = |key: usize, text| Value { key: &keys[key], text };
        let mut row = Row::new(value(0, prompt), value(1, output));
        row.arrival = starts.as_ref().map(|starts| value(2, &starts[index]));
        // An error is a text; `""` and `null` are none.
        let error = lists.errors.as_ref().and_then(|errors| errors.get(index));
        let failed = error.is_some_and(|error| error.len() > 2 && error.starts_with('"'));
        if failed && row.output.text == "0" {
            out.failed();
        } else {
            out.row(row)?;
        }
    }
    Ok(())
}

/// A failed read in this crate's words.
fn explain(
    error: serde_json::Error,
    wrong: Option<InputError>,
    out_of_bytes: bool,
    origin: &Origin,
) -> Error {
    let line = error.line() as u64;
    match wrong {
        Some(wrong) => wrong.line(line).into(),
        None if out_of_bytes => {
            let what = format!("keys, numbers and the texts of errors of at most {LINE_BYTES} bytes");
            InputError::expected(what).found("a longer one").line(line).into()
        }
        None if error.is_io() => origin.error(line, error.into()),
        None => {
            let message = error.to_string();
            let cause = message.split(" at line ").next().unwrap_or_default();
            let what = "one JSON object, the result of one benchmark (of several, keep the line of one)";
            InputError::expected(what).found(cause).line(line).into()
        }
    }
}

/// The lists that are of use, their elements as written.
#[derive(Default)]
struct Lists {
    prompts: Option<Vec<String>>,
    outputs: Option<Vec<String>>,
    starts: Option<Vec<String>>,
    errors: Option<Vec<String>>,
    rate: Option<String>,
    /// What is wrong, where that is not a matter of JSON.
    wrong: Option<InputError>,
    /// How many more bytes are read: bounded where the parser holds what it reads, and not for texts that are passed over.
    left: Rc<Cell<usize>>,
}

impl<'de> DeserializeSeed<'de> for &mut Lists {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Lists {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        loop {
            self.left.set(LINE_BYTES);
            let key = map.next_key::<String>()?;
            self.left.set(usize::MAX);
            let Some(key) = key else { return Ok(()) };
            let slot = match key.as_str() {
                PROMPTS => &mut self.prompts,
                OUTPUTS => &mut self.outputs,
                STARTS => &mut self.starts,
                ERRORS => &mut self.errors,
                "request_rate" => {
                    self.left.set(LINE_BYTES);
                    self.rate = Some(map.next_value_seed(Written)?);
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let list = map.next_value_seed(List { key: &key, wrong: &mut self.wrong, left: &self.left })?;
            if slot.replace(list).is_some() {
                self.wrong = Some(InputError::expected("each key once").key(key).found("it twice"));
                return Err(A::Error::custom("a key twice"));
            }
        }
    }
}

/// A list of numbers.
struct List<'a> {
    key: &'a str,
    wrong: &'a mut Option<InputError>,
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<String>;
    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Vec<String>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list in {}", self.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<String>, A::Error> {
        let mut out = Vec::new();
        loop {
            self.left.set(LINE_BYTES);
            let element = list.next_element_seed(Written)?;
            self.left.set(usize::MAX);
            let Some(element) = element else { return Ok(out) };
            if let Err(Error::Input(error)) = room(out.len()) {
                *self.wrong = Some(error.key(self.key));
                return Err(A::Error::custom("too many"));
            }
            out.push(element);
        }
    }
}

/// A number as a decimal; anything else as a few words that are no number.
struct Written;

impl<'de> DeserializeSeed<'de> for Written {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Written {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<String, E> {
        // Those of Python's `json` come as strings.
        let is_word = matches!(text, "NaN" | "Infinity" | "-Infinity");
        Ok(if is_word { text.to_owned() } else { format!("{:?}", crate::error::shorten(text)) })
    }

    fn visit_bool<E>(self, yes: bool) -> std::result::Result<String, E> {
        Ok(yes.to_string())
    }

    fn visit_unit<E>(self) -> std::result::Result<String, E> {
        Ok("null".into())
    }
}
