//! JSON Lines, an object for each request, with the names of the table.

use super::collect::{Collector, Row, Value, in_line};
use super::table::{Names, PRIORITY};
use crate::error::Result;
use crate::trace::json::{Field, Object};
use crate::trace::lines::{Input, Lines};

/// Reads lengths, and arrivals where there are some. All lines use the names of the first one.
pub(super) fn read(input: Input, out: &mut Collector) -> Result<()> {
    let mut known = None;
    each(input, |object| {
        let names = match &known {
            Some(names) => names,
            None => {
                let keys: Vec<&str> = object.entries().map(|(key, _)| key).collect();
                let found = Names::find(&keys)?;
                if found.arrival.is_none() {
                    out.without_arrivals("the file has no key for arrivals");
                }
                known.insert(found)
            }
        };
        let arrival = names.arrival.map(|(name, shift)| need(object, name)?.time(shift)).transpose()?;
        let priority = if names.priority { need(object, PRIORITY)?.whole(u32::MAX)? } else { 0 };
        let (prompt, output) = (need(object, names.prompt)?, need(object, names.output)?);
        out.row(Row { arrival, prompt, output, priority, prefix: Vec::new() })
    })
}

/// Shows the object of each line to `take`; blank lines are passed over.
pub(super) fn each(input: Input, mut take: impl FnMut(&Object) -> Result<()>) -> Result<()> {
    let mut lines = Lines::new(input);
    loop {
        let line = lines.count() + 1;
        let Some(text) = lines.next()? else { return Ok(()) };
        if !text.trim().is_empty() {
            Object::parse(text).and_then(|object| take(&object)).map_err(|error| in_line(error, line))?;
        }
    }
}

/// The value of `key`.
pub(super) fn need<'a>(object: &Object<'a>, key: &'a str) -> Result<Value<'a>> {
    let Field { key, raw } = object.need(key)?;
    Ok(Value { key, text: raw })
}
