//! Traces with hashes of the blocks of each prompt: Mooncake's and Bailian's.

use super::super::Reading;
use super::super::sessions::{Name, Turn};
use super::blocks::{BAILIAN_BLOCK, Blocks, MOONCAKE_BLOCK};
use super::collect::{Collector, Row};
use super::detect::Shape;
use super::records::{find, need};
use super::rows::each;
use super::time::{Clock, TimeUnit, Told};
use crate::error::{InputError, Result};
use crate::trace::json::Object;
use crate::trace::lines::Input;

const TIME: &str = "timestamp";

/// Reads Mooncake's traces: lengths, arrivals in whole milliseconds, mostly hashes. Files for AIPerf in this form may have `session_id`, and
/// for later turns a `delay` after the end of the turn before in place of an arrival. Keys that it does not know are passed over.
pub(super) fn mooncake(input: Input, shape: &Shape, reading: &Reading, out: &mut Collector) -> Result<()> {
    if shape.has("chat_id") || shape.has("parent_chat_id") {
        let what = "the format bailian for a file with chat_id and parent_chat_id: its times are seconds, its blocks 16 tokens";
        return Err(InputError::expected(what).key("format").found("mooncake").line(1).into());
    }
    let timed = !reading.without_arrivals;
    begin(Told::Mooncake { hashes: shape.has("hash_ids") }, MOONCAKE_BLOCK, timed, reading, out);
    each(input, shape, |object, line| {
        out.at(line);
        let said = |key| find(object, key).filter(|value| value.text != "null");
        let delay = said("delay").map(|delay| delay.milliseconds()).transpose()?;
        let follows = delay.is_some() && said(TIME).is_none();
        // A file may have no arrivals at all; with some, who has none must follow another request.
        let mut row = row(object, timed && !follows && (shape.has(TIME) || said(TIME).is_some()))?;
        row.turn = said("session_id").map(|session| Turn {
            session: Some(Name::of(session.text)),
            think: delay,
            follows,
            ..Turn::default()
        });
        out.row(row).map(drop)
    })?;
    if out.clock.take_if(|clock| !clock.has_read()).is_some() {
        out.without_arrivals(format!("the file has no {TIME}"));
    }
    Ok(())
}

/// Reads Bailian's traces: the same with arrivals in seconds, and for each request the one that it follows in a conversation.
pub(super) fn bailian(input: Input, shape: &Shape, reading: &Reading, out: &mut Collector) -> Result<()> {
    let timed = !reading.without_arrivals;
    begin(Told::Name(TimeUnit::S), BAILIAN_BLOCK, timed, reading, out);
    each(input, shape, |object, line| {
        out.at(line);
        let mut row = row(object, timed)?;
        // The root of a conversation has the parent -1.
        let name = |key| {
            find(object, key).filter(|id| !matches!(id.text, "-1" | "null")).map(|id| Name::of(id.text))
        };
        row.turn = Some(Turn { name: name("chat_id"), after: name("parent_chat_id"), ..Turn::default() });
        out.row(row).map(drop)
    })
}

fn begin(told: Told, usual_block: u32, timed: bool, reading: &Reading, out: &mut Collector) {
    out.blocks = Some(Blocks::new(reading.block_tokens, usual_block));
    match timed {
        true => out.clock = Some(Clock::new(TIME, reading.time_unit.map_or(told, Told::Option))),
        false => out.without_arrivals("they are replaced"),
    }
}

fn row<'a>(object: &Object<'a>, timed: bool) -> Result<Row<'a>> {
    let mut row = Row::new(need(object, "input_length")?, need(object, "output_length")?);
    if timed {
        row.arrival = Some(need(object, TIME)?);
    }
    if let Some(hashes) = object.get("hash_ids").filter(|hashes| hashes.raw != "null") {
        hashes.wholes(&mut row.prefix)?;
    }
    Ok(row)
}
