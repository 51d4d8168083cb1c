//! Lengths in JSON, an object for each request or session, with the names of the table.

use super::super::Reading;
use super::super::sessions::{Name, Turn};
use super::blocks::Blocks;
use super::collect::{Collector, Row, in_key};
use super::detect::Shape;
use super::records::{Step, each_at, each_line, find, need, paths};
use super::table::{Names, PRIORITY};
use super::time::{Clock, TimeUnit, Told};
use crate::error::{InputError, Result};
use crate::rng::first_word;
use crate::trace::json::Object;
use crate::trace::lines::Input;
use crate::units::SimTime;
use sha2::{Digest, Sha256};

/// Shows each object of a file, and its line: a line each, the elements of a list, or one object.
pub(super) fn each(
    input: Input,
    shape: &Shape,
    mut take: impl FnMut(&Object, u64) -> Result<()>,
) -> Result<()> {
    if shape.is_lines() {
        return each_line(input, take);
    }
    let path: &[Step] = if shape.is_list() { &[Step::Each] } else { &[] };
    each_at(input, path, |object, place| take(object, place.line))
}

/// Reads lengths, and arrivals where there are some. All objects use the names of the first one.
pub(super) fn read(input: Input, shape: &Shape, reading: &Reading, out: &mut Collector) -> Result<()> {
    let (mut known, mut chains): (Option<Names>, u64) = (None, 0);
    each(input, shape, |object, line| {
        out.at(line);
        if object.get("sub_requests").is_some() {
            chains += 1;
            return chain(object, chains, reading, out);
        }
        let names = match &known {
            Some(names) => {
                if names.arrival.is_none() {
                    without_arrival(object, reading)?;
                }
                names
            }
            None => {
                let paths = paths(object);
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                let found = Names::find(&paths, reading)?;
                out.clock = found.clock(reading).or_else(|| out.clock.take());
                out.at(line);
                if found.arrival.is_none() {
                    out.without_arrivals("the file has no key for arrivals");
                }
                known.insert(found)
            }
        };
        let mut row = Row::new(need(object, &names.prompt)?, need(object, &names.output)?);
        row.arrival = names.arrival.as_ref().map(|(name, _)| need(object, name)).transpose()?;
        row.priority = names.priority.as_ref().map_or(Ok(0), |name| need(object, name)?.whole(u32::MAX))?;
        let session = names.session.as_ref().and_then(|name| find(object, name));
        row.turn = session
            .filter(|session| session.text != "null")
            .map(|session| Turn { session: Some(Name::of(session.text)), ..Turn::default() });
        row.prefix = hashes(object, row.prompt.tokens()?, reading, out)?;
        out.row(row).map(drop)
    })
}

/// Refuses an arrival where the first object has none.
fn without_arrival(object: &Object, reading: &Reading) -> Result<()> {
    let paths = paths(object);
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    match Names::find(&paths, reading)?.arrival {
        None => Ok(()),
        Some((name, _)) => {
            let what = "arrivals in all objects or in none; the first has none";
            Err(InputError::expected(what).key(&name).found("one").into())
        }
    }
}

/// Hashes of the blocks of a prompt whose tokens LLMServingSim wrote down, where their size is said: each of the block and all before it.
fn hashes(object: &Object, tokens: u32, reading: &Reading, out: &mut Collector) -> Result<Vec<u64>> {
    const IDS: &str = "input_tok_ids";
    let Some(list) = object.get(IDS).filter(|list| list.raw != "null") else { return Ok(Vec::new()) };
    let Some(block) = reading.block_tokens else {
        out.unused = Some(IDS);
        return Ok(Vec::new());
    };
    out.blocks.get_or_insert(Blocks::new(Some(block), block));
    let mut ids = Vec::new();
    list.wholes(&mut ids)?;
    if ids.len() != tokens as usize {
        let what = format!("{tokens} tokens, as many as the prompt has");
        return Err(InputError::expected(what).key(IDS).found(format!("{} tokens", ids.len())).into());
    }
    let mut before = Sha256::new();
    Ok(ids
        .chunks(block as usize)
        .map(|block| {
            block.iter().for_each(|id| before.update(id.to_le_bytes()));
            first_word(before.clone())
        })
        .collect())
}

/// A session of LLMServingSim: calls in a row, each sent when the one before has ended and a tool has run.
fn chain(object: &Object, number: u64, reading: &Reading, out: &mut Collector) -> Result<()> {
    const ARRIVAL: &str = "arrival_time_ns";
    if out.clock.is_none() {
        out.clock =
            Some(Clock::new(ARRIVAL, reading.time_unit.map_or(Told::Name(TimeUnit::Ns), Told::Option)));
    }
    let arrival = need(object, ARRIVAL)?;
    let mut think = None;
    for (index, call) in object.need("sub_requests")?.list()?.iter().enumerate() {
        let within = |error| in_key(error, &format!("sub_requests[{index}]"));
        let call = Object::parse(call).map_err(within)?;
        let mut read = || -> Result<()> {
            let mut row = Row::new(need(&call, "input_toks")?, need(&call, "output_toks")?);
            row.arrival = Some(arrival);
            row.priority = find(object, PRIORITY).map_or(Ok(0), |priority| priority.whole(u32::MAX))?;
            let follows = index > 0;
            row.turn = Some(Turn {
                session: Some(Name::of(&format!("sub_requests {number}"))),
                number: Some(index as u64),
                think: think.take(),
                follows,
                ..Turn::default()
            });
            row.prefix = hashes(&call, row.prompt.tokens()?, reading, out)?;
            out.row(row)?;
            let pause = find(&call, "tool_duration_ns").map(|pause| {
                let ns = pause.text.parse().ok().and_then(|ns: u64| ns.checked_mul(1000));
                ns.map(SimTime::from_ps).ok_or_else(|| pause.bad("whole nanoseconds, within 213 days"))
            });
            think = Some(pause.transpose()?.unwrap_or(SimTime::ZERO));
            Ok(())
        };
        read().map_err(within)?;
    }
    if think.is_none() {
        return Err(InputError::expected("at least one call").key("sub_requests").found("[]").into());
    }
    Ok(())
}
