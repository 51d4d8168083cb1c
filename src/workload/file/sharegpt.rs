//! Conversations as texts: ShareGPT's `conversations` of `from` and `value`, or lists of messages with `role` and `content`.

use super::super::Reading;
use super::super::sessions::{Name, Turn};
use super::collect::{Collector, Row, in_key};
use super::detect::Shape;
use super::rows::each;
use super::value::Value;
use crate::error::{InputError, Result, demand};
use crate::trace::json::{Field, Object};
use crate::trace::lines::Input;
use crate::trace::synth::MOST_TOKENS;

/// The size of a text: its characters or its tokens.
type Size<'a> = dyn Fn(&str) -> Result<u64> + 'a;

/// Who writes what a model answers; everybody else is read by it.
const MODEL: [&str; 6] = ["gpt", "assistant", "bing", "bard", "chatgpt", "model"];

/// Reads it. Each answer of the model is a request: its prompt is all that was said before, its output the answer. Answers of one
/// conversation follow each other. The files have no arrivals, and no token counts: `characters_per_token` estimates them, `tokenizer`
/// counts them, message by message.
pub(super) fn read(input: Input, shape: &Shape, reading: &Reading, out: &mut Collector) -> Result<()> {
    let per_token = per_token(reading, out)?;
    let size: &Size = &|text: &str| match &reading.tokenizer {
        Some(tokenizer) => tokenizer.of(text),
        None => Ok(text.chars().count() as u64),
    };
    out.without_arrivals("the file has no arrivals; an answer is asked for when the one before it has ended");
    let mut number = 0_u64;
    each(input, shape, |object, _| {
        number += 1;
        conversation(object, number, (size, per_token), out)
    })
}

/// What makes a token: so many characters, or 1 where a tokenizer counts.
fn per_token(reading: &Reading, out: &mut Collector) -> Result<f64> {
    const KEY: &str = "characters_per_token";
    let beside = "chat templates are not counted";
    match (reading.characters_per_token, &reading.tokenizer) {
        (None, None) => {
            let what = "characters_per_token (4 is usual for English) or a tokenizer, as the file has texts and no token counts";
            Err(InputError::expected(what).key(KEY).found("nothing").into())
        }
        (Some(_), Some(_)) => Err(InputError::expected("this or a tokenizer").key(KEY).found("both").into()),
        (None, Some(tokenizer)) => {
            let why = format!("counts the texts, message by message; {beside}");
            out.remark("tokenizer", tokenizer.name(), why);
            Ok(1.0)
        }
        (Some(characters), None) => {
            let right = characters.is_finite() && (0.1..=1000.0).contains(&characters);
            demand(right, KEY, characters, "a number from 0.1 to 1000")?;
            let why = format!(
                "lengths in tokens are estimated from texts; a part of a token counts whole; {beside}"
            );
            out.remark(KEY, characters, why);
            Ok(characters)
        }
    }
}

/// Reads a conversation, with the size of a text and what of it makes a token.
fn conversation(
    object: &Object,
    number: u64,
    (size, per_token): (&Size, f64),
    out: &mut Collector,
) -> Result<()> {
    let list = ["conversations", "conversation", "messages"].into_iter().find_map(|key| object.get(key));
    let Some(list) = list else {
        return Err(InputError::expected("this key, or messages")
            .key("conversations")
            .found("nothing")
            .into());
    };
    let tokens = |size: u64| ((size as f64 / per_token).ceil() as u64).min(u64::from(MOST_TOKENS) + 1);
    let (mut before, mut answers) = (0, 0);
    for (index, message) in list.list()?.into_iter().enumerate() {
        let key = format!("{}[{index}]", list.key);
        let (who, here) = said(message, size).map_err(|error| in_key(error, &key))?;
        // What a conversation cut from another begins with is no answer to anything.
        if MODEL.contains(&who.as_str()) && before > 0 {
            let (prompt, output) = (tokens(before).to_string(), tokens(here).to_string());
            let mut row = Row::new(Value { key: &key, text: &prompt }, Value { key: &key, text: &output });
            let session = Some(Name::of(&format!("conversation {number}")));
            row.turn =
                Some(Turn { session, number: Some(index as u64), follows: answers > 0, ..Turn::default() });
            answers += u64::from(out.row(row)?.is_some());
        }
        before += here;
    }
    Ok(())
}

/// Who says a message, in small letters, and the size of its text.
fn said(message: &str, size: &Size) -> Result<(String, u64)> {
    let message = Object::parse(message)?;
    let first = |keys: [&'static str; 2]| keys.into_iter().find_map(|key| message.get(key));
    let who = first(["from", "role"]).map_or_else(|| message.need("from"), Ok)?;
    let text = first(["value", "content"]).map_or_else(|| message.need("value"), Ok)?;
    Ok((who.text()?.to_lowercase(), size_of(text, size)?))
}

/// The size of a text; of a list of parts, that of its texts; of `null` (a call of a tool), none.
fn size_of(text: Field, size: &Size) -> Result<u64> {
    if text.raw == "null" {
        return Ok(0);
    }
    if !text.raw.starts_with('[') {
        return size(&text.text()?);
    }
    let mut sum = 0;
    for part in text.list()? {
        if let Some(text) = Object::parse(part)?.get("text") {
            sum += size(&text.text()?)?;
        }
    }
    Ok(sum)
}
