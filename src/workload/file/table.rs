//! Under which names files say arrivals, lengths and priorities, and in which units.

use crate::error::{Error, InputError, Result};

/// Names of arrivals, each with the power of ten that makes picoseconds of it.
pub(super) const ARRIVAL: [(&str, i64); 12] = [
    ("arrival_time_ns", 3),
    ("arrival_time_us", 6),
    ("arrival_time_ms", 9),
    ("arrival_time_s", 12),
    ("arrival_time", 12),
    ("arrival_s", 12),
    ("arrived_at", 12),
    ("start_time", 12),
    ("timestamp_ns", 3),
    ("timestamp_ms", 9),
    ("timestamp_s", 12),
    ("Timestamp", 12),
];

/// Names of prompt lengths.
pub(super) const PROMPT: [&str; 10] = [
    "input_toks",
    "input_tokens",
    "input_length",
    "input_len",
    "prompt_tokens",
    "prompt_length",
    "prompt_len",
    "num_prefill_tokens",
    "ContextTokens",
    "Request tokens",
];

/// Names of output lengths.
pub(super) const OUTPUT: [&str; 11] = [
    "output_toks",
    "output_tokens",
    "output_length",
    "output_len",
    "completion_tokens",
    "generated_tokens",
    "decode_tokens",
    "num_decode_tokens",
    "num_output_tokens",
    "GeneratedTokens",
    "Response tokens",
];

/// The name of priorities, whole numbers; lower is served first.
pub(super) const PRIORITY: &str = "priority";

/// Which names a file uses.
pub(super) struct Names {
    pub arrival: Option<(&'static str, i64)>,
    pub prompt: &'static str,
    pub output: &'static str,
    pub priority: bool,
}

impl Names {
    /// Finds what the columns or keys called `names` say.
    ///
    /// # Errors
    /// No name for a length, or two for one thing.
    pub fn find(names: &[&str]) -> Result<Names> {
        let arrival = one(names, "arrival", &ARRIVAL.map(|(name, _)| name))?;
        let need = |what, known: &[&'static str]| {
            one(names, what, known)?.ok_or_else(|| {
                let expected = format!("a {what} length under one of the names {}", known.join(", "));
                Error::from(InputError::expected(expected).found(names.join(", ")))
            })
        };
        Ok(Names {
            arrival: arrival.and_then(|name| ARRIVAL.into_iter().find(|(known, _)| *known == name)),
            prompt: need("prompt", &PROMPT)?,
            output: need("output", &OUTPUT)?,
            priority: names.contains(&PRIORITY),
        })
    }
}

/// The name of `known` that is among `names`.
fn one(names: &[&str], what: &str, known: &[&'static str]) -> Result<Option<&'static str>> {
    let mut found = None;
    for name in names {
        let Some(&name) = known.iter().find(|known| *known == name) else { continue };
        if let Some(first) = found.replace(name) {
            let both = format!("{first} and {name}");
            return Err(InputError::expected(format!("one name for the {what}")).found(both).into());
        }
    }
    Ok(found)
}
