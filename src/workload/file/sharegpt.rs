//! Conversations as texts: ShareGPT's `conversations` of `from` and `value`, or lists of messages with `role` and `content`.

use super::super::Reading;
use super::super::sessions::{Name, Turn};
use super::collect::{Collector, Row, Value, in_key};
use super::detect::Shape;
use super::rows::each;
use crate::error::{InputError, Result, demand};
use crate::trace::json::{Field, Object};
use crate::trace::lines::Input;
use crate::trace::synth::MOST_TOKENS;

/// Who writes what a model answers; everybody else is read by it.
const MODEL: [&str; 6] = ["gpt", "assistant", "bing", "bard", "chatgpt", "model"];

/// Reads it. Each answer of the model is a request: its prompt is all that was said before, its output the answer. Answers of one
/// conversation follow each other. The files have no arrivals, and no token counts: `characters_per_token` estimates them.
pub(super) fn read(input: Input, shape: &Shape, reading: &Reading, out: &mut Collector) -> Result<()> {
    let Some(per_token) = reading.characters_per_token else {
        let what = "characters_per_token, as the file has texts and no token counts (4 is usual for English)";
        return Err(InputError::expected(what).key("characters_per_token").found("nothing").into());
    };
    let right = per_token.is_finite() && (0.1..=1000.0).contains(&per_token);
    demand(right, "characters_per_token", per_token, "a number from 0.1 to 1000")?;
    out.remark(
        "characters_per_token",
        per_token,
        "lengths in tokens are estimated from texts; a part of a token counts whole",
    );
    out.without_arrivals("the file has no arrivals; an answer is asked for when the one before it has ended");
    let mut number = 0_u64;
    each(input, shape, |object, _| {
        number += 1;
        conversation(object, number, per_token, out)
    })
}

fn conversation(object: &Object, number: u64, per_token: f64, out: &mut Collector) -> Result<()> {
    let list = ["conversations", "conversation", "messages"].into_iter().find_map(|key| object.get(key));
    let Some(list) = list else {
        return Err(InputError::expected("this key, or messages")
            .key("conversations")
            .found("nothing")
            .into());
    };
    let tokens =
        |characters: u64| ((characters as f64 / per_token).ceil() as u64).min(u64::from(MOST_TOKENS) + 1);
    let (mut before, mut answers) = (0, 0);
    for (index, message) in list.list()?.into_iter().enumerate() {
        let key = format!("{}[{index}]", list.key);
        let (who, characters) = said(message).map_err(|error| in_key(error, &key))?;
        // What a conversation cut from another begins with is no answer to anything.
        if MODEL.contains(&who.as_str()) && before > 0 {
            let (prompt, output) = (tokens(before).to_string(), tokens(characters).to_string());
            let mut row = Row::new(Value { key: &key, text: &prompt }, Value { key: &key, text: &output });
            let session = Some(Name::of(&format!("conversation {number}")));
            row.turn =
                Some(Turn { session, number: Some(index as u64), follows: answers > 0, ..Turn::default() });
            answers += u64::from(out.row(row)?.is_some());
        }
        before += characters;
    }
    Ok(())
}

/// Who says a message, in small letters, and how many characters it has.
fn said(message: &str) -> Result<(String, u64)> {
    let message = Object::parse(message)?;
    let first = |keys: [&'static str; 2]| keys.into_iter().find_map(|key| message.get(key));
    let who = first(["from", "role"]).map_or_else(|| message.need("from"), Ok)?;
    let text = first(["value", "content"]).map_or_else(|| message.need("value"), Ok)?;
    Ok((who.text()?.to_lowercase(), characters(text)?))
}

/// Characters of a text; of a list of parts, those of its texts; of `null` (a call of a tool), none.
fn characters(text: Field) -> Result<u64> {
    if text.raw == "null" {
        return Ok(0);
    }
    if !text.raw.starts_with('[') {
        return Ok(text.text()?.chars().count() as u64);
    }
    let mut sum = 0;
    for part in text.list()? {
        if let Some(text) = Object::parse(part)?.get("text") {
            sum += text.text()?.chars().count() as u64;
        }
    }
    Ok(sum)
}
