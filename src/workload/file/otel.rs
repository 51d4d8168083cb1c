//! OpenTelemetry's spans of calls of language models, in OTLP's JSON (`resourceSpans`), one object or one a line.

use super::super::Reading;
use super::super::sessions::{Name, Turn};
use super::collect::{Collector, Row, in_key, in_line, room};
use super::detect::Shape;
use super::records::{Step, each_at, find, need};
use super::results::clock;
use super::time::TimeUnit;
use super::value::Value;
use crate::error::Result;
use crate::trace::json::Object;
use crate::trace::lines::Input;
use std::collections::{HashMap, HashSet};

/// Attributes that say lengths: those of the semantic conventions of OpenTelemetry (`gen_ai.usage.*`, and their names before 1.27), of
/// OpenLLMetry and of OpenInference. The first that is there counts.
const PROMPT: [&str; 4] = [
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
];
const OUTPUT: [&str; 4] = [
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
];
const SESSION: [&str; 2] = ["gen_ai.conversation.id", "session.id"];
const START: &str = "startTimeUnixNano";

/// A span with both lengths.
struct Span {
    line: u64,
    id: Option<Name>,
    parent: Option<Name>,
    start: String,
    prompt: (&'static str, String),
    output: (&'static str, String),
    turn: Option<Turn>,
}

/// Reads it. Spans without token counts are passed over; so are those around others with counts (an agent's run, a chain), which sum
/// up what is in them.
pub(super) fn read(input: Input, shape: &Shape, reading: &Reading, out: &mut Collector) -> Result<()> {
    // One object, objects one after another, or a list of them.
    let path = [
        Step::Each,
        Step::Key(&["resourceSpans", "resource_spans"]),
        Step::Each,
        Step::Key(&["scopeSpans", "scope_spans", "instrumentationLibrarySpans"]),
        Step::Each,
        Step::Key(&["spans"]),
        Step::Each,
    ];
    out.clock = clock(START, TimeUnit::Ns, reading, out);
    if let Some(clock) = &mut out.clock {
        clock.quoted = true;
    }
    let (mut spans, mut without) = (Vec::new(), 0_u64);
    each_at(input, &path[usize::from(!shape.is_list())..], |object, place| {
        out.at(place.line);
        match span(object, place.line, out)? {
            Some(span) => {
                room(spans.len())?;
                spans.push(span);
            }
            None => without += 1,
        }
        Ok(())
    })?;
    let around: HashSet<Name> = spans.iter().filter_map(|span| span.parent).collect();
    let mut sums = 0_u64;
    for span in spans {
        if span.id.is_some_and(|id| around.contains(&id)) {
            sums += 1;
            continue;
        }
        let (prompt, output) = (&span.prompt, &span.output);
        let mut row =
            Row::new(Value { key: prompt.0, text: &prompt.1 }, Value { key: output.0, text: &output.1 });
        row.arrival = (!reading.without_arrivals).then_some(Value { key: START, text: &span.start });
        row.turn = span.turn;
        out.at(span.line);
        out.row(row).map_err(|error| in_line(error, span.line))?;
    }
    for (count, what) in [(without, "without both token counts"), (sums, "around others with token counts")] {
        if count > 0 {
            out.remark("spans", count, format!("spans {what} are passed over"));
        }
    }
    Ok(())
}

/// The span, where it has both counts.
fn span(object: &Object, line: u64, out: &mut Collector) -> Result<Option<Span>> {
    let attributes = match object.get("attributes").filter(|list| list.raw != "null") {
        Some(list) => list.list()?,
        None => Vec::new(),
    };
    let mut known = HashMap::new();
    for attribute in attributes {
        let attribute = Object::parse(attribute).map_err(|error| in_key(error, "attributes"))?;
        let (Some(key), Some(value)) = (attribute.get("key"), find(&attribute, "value")) else { continue };
        let value = Object::parse(value.text).map_err(|error| in_key(error, "attributes.value"))?;
        // A value has one key that says its type: {"intValue": "182"}.
        if let Some((_, value)) = value.entries().next() {
            known.insert(key.text()?.into_owned(), value.trim_matches('"').to_owned());
        }
    }
    let first = |names: &[&'static str]| {
        names.iter().find_map(|name| known.get(*name).map(|value| (*name, value.clone())))
    };
    let (Some(prompt), Some(output)) = (first(&PROMPT), first(&OUTPUT)) else { return Ok(None) };
    let tokens = |(key, text): (&'static str, String)| -> Result<(&'static str, String)> {
        Ok((key, Value { key, text: &text }.tokens()?.to_string()))
    };
    let (prompt, output) = (tokens(prompt)?, tokens(output)?);
    // A root has no parent, or an empty one.
    let id =
        |key| find(object, key).filter(|id| !matches!(id.text, "\"\"" | "null")).map(|id| Name::of(id.text));
    let end = match (find(object, "endTimeUnixNano"), &mut out.clock) {
        (Some(end), Some(clock)) => Some(clock.read(end)?),
        _ => None,
    };
    let turn = first(&SESSION).map(|(_, session)| Turn {
        session: Some(Name::of(&session)),
        end,
        ..Turn::default()
    });
    let start = match out.clock {
        Some(_) => need(object, START)?.short()?.to_owned(),
        None => String::new(),
    };
    Ok(Some(Span { line, id: id("spanId"), parent: id("parentSpanId"), start, prompt, output, turn }))
}
