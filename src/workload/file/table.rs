//! Under which names files say arrivals, lengths, priorities and sessions, and in which units.

use super::super::Reading;
use super::time::{Clock, TimeUnit, Told};
use crate::error::{Error, InputError, Result};

const fn unit(name: &'static str, unit: TimeUnit) -> (&'static str, Told) {
    (name, Told::Name(unit))
}

/// Names of arrivals in groups; a group counts only where no name of those before it is there. Within a group, one name may be there.
pub(super) const ARRIVAL: [&[(&str, Told)]; 3] = [
    &[
        unit("arrival_time_ns", TimeUnit::Ns),
        unit("arrival_time_us", TimeUnit::Us),
        unit("arrival_time_ms", TimeUnit::Ms),
        unit("arrival_time_s", TimeUnit::S),
        unit("arrival_ns", TimeUnit::Ns),
        unit("arrival_us", TimeUnit::Us),
        unit("arrival_ms", TimeUnit::Ms),
        unit("arrival_s", TimeUnit::S),
        unit("arrival_time", TimeUnit::S),
        unit("arrival_timestamp", TimeUnit::S),
        unit("arrived_at", TimeUnit::S),
        ("arrival", Told::No),
        ("arrival_ts", Told::No),
    ],
    &[
        unit("timestamp_ns", TimeUnit::Ns),
        unit("timestamp_us", TimeUnit::Us),
        unit("timestamp_ms", TimeUnit::Ms),
        unit("timestamp_s", TimeUnit::S),
        unit("time_ns", TimeUnit::Ns),
        unit("time_us", TimeUnit::Us),
        unit("time_ms", TimeUnit::Ms),
        unit("time_s", TimeUnit::S),
        // BurstGPT's, which are seconds.
        unit("Timestamp", TimeUnit::S),
        ("timestamp", Told::No),
        ("time", Told::No),
        ("ts", Told::No),
        ("datetime", Told::No),
        ("date", Told::No),
    ],
    &[
        unit("start_time_ns", TimeUnit::Ns),
        unit("start_time_us", TimeUnit::Us),
        unit("start_time_ms", TimeUnit::Ms),
        unit("start_time_s", TimeUnit::S),
        unit("start_time_unix_nano", TimeUnit::Ns),
        unit("start_time", TimeUnit::S),
        unit("request_start_ns", TimeUnit::Ns),
        ("start_timestamp", Told::No),
        ("start_ts", Told::No),
        ("request_time", Told::No),
        ("request_timestamp", Told::No),
        ("created_at", Told::No),
        ("created", Told::No),
        ("sent_at", Told::No),
        ("send_time", Told::No),
        ("submit_time", Told::No),
    ],
];

/// Names of prompt lengths.
pub(super) const PROMPT: [&str; 19] = [
    "input_toks",
    "input_tokens",
    "input_length",
    "input_len",
    "input_sequence_length",
    "isl",
    "num_input_tokens",
    "prompt_tokens",
    "prompt_length",
    "prompt_len",
    "prompt_size",
    "num_prompt_tokens",
    "num_prefill_tokens",
    "context_tokens",
    "request_tokens",
    "usage.prompt_tokens",
    "usage.input_tokens",
    "gen_ai.usage.input_tokens",
    // As the console exporter of OpenTelemetry for Python writes spans.
    "attributes.gen_ai.usage.input_tokens",
];

/// Names of output lengths.
pub(super) const OUTPUT: [&str; 20] = [
    "output_toks",
    "output_tokens",
    "output_length",
    "output_len",
    "output_sequence_length",
    "osl",
    "completion_tokens",
    "completion_length",
    "generated_tokens",
    "generation_tokens",
    "decode_tokens",
    "num_decode_tokens",
    "num_output_tokens",
    "num_generated_tokens",
    // Splitwise-sim's.
    "token_size",
    "response_tokens",
    "usage.completion_tokens",
    "usage.output_tokens",
    "gen_ai.usage.output_tokens",
    "attributes.gen_ai.usage.output_tokens",
];

/// The name of priorities, whole numbers; lower is served first.
pub(super) const PRIORITY: &str = "priority";
/// Names of the conversation that a request is a turn of.
pub(super) const SESSION: [&str; 5] = [
    "session_id",
    "conversation_id",
    "gen_ai.conversation.id",
    "attributes.gen_ai.conversation.id",
    "x_correlation_id",
];

/// Which names a file uses, as it writes them.
pub(super) struct Names {
    pub arrival: Option<(String, Told)>,
    pub prompt: String,
    pub output: String,
    pub priority: Option<String>,
    pub session: Option<String>,
}

impl Names {
    /// Finds what the columns or keys called `names` say.
    ///
    /// # Errors
    /// No name for a length, two for one thing, and a time that is not known to be the arrival.
    pub fn find(names: &[&str], reading: &Reading) -> Result<Names> {
        let need = |what, known: &[&'static str]| {
            one(names, what, known)?.ok_or_else(|| {
                let expected = format!("a {what} length under one of the names {}", known.join(", "));
                Error::from(InputError::expected(expected).found(names.join(", ")))
            })
        };
        Ok(Names {
            prompt: need("prompt", &PROMPT)?.1,
            output: need("output", &OUTPUT)?.1,
            arrival: arrival(names, reading)?,
            priority: one(names, "priority", &[PRIORITY])?.map(|(_, name)| name),
            session: one(names, "session", &SESSION)?.map(|(_, name)| name),
        })
    }

    /// A clock for the arrivals, where there are some.
    pub fn clock(&self, reading: &Reading) -> Option<Clock> {
        let (name, told) = self.arrival.as_ref()?;
        Some(Clock::new(name.as_str(), reading.time_unit.map_or(*told, Told::Option)))
    }
}

/// The name of the arrivals.
fn arrival(names: &[&str], reading: &Reading) -> Result<Option<(String, Told)>> {
    if reading.without_arrivals {
        return Ok(None);
    }
    if let Some(wanted) = &reading.time_column {
        let told = ARRIVAL.iter().copied().flatten().find(|(known, _)| known == wanted);
        let told = told.map_or(Told::No, |(_, told)| *told);
        return match names.contains(&wanted.as_str()) {
            true => Ok(Some((wanted.clone(), told))),
            false => {
                let what = format!("one of {}", names.join(", "));
                Err(InputError::expected(what).key("time_column").found(wanted).into())
            }
        };
    }
    for group in ARRIVAL {
        let known: Vec<&str> = group.iter().map(|(name, _)| *name).collect();
        let found = one(names, "arrival", &known).map_err(|error| match error {
            Error::Input(bad) => {
                let expected = format!("{}: say which with time_column", bad.expected);
                InputError { expected, ..*bad }.into()
            }
            other => other,
        })?;
        if let Some((known, name)) = found {
            let told = group.iter().find(|(name, _)| *name == known);
            return Ok(Some((name, told.map_or(Told::No, |(_, told)| *told))));
        }
    }
    match names.iter().find(|name| is_time(name)) {
        None => Ok(None),
        Some(time) => {
            let what = "arrivals under a known name (arrival_time, timestamp, start_time and the like), or time_column with the name \
                of the column that has them, or `arrivals` in a scenario";
            Err(InputError::expected(what).key(*time).found("a time that may not be the arrival").into())
        }
    }
}

/// Whether a name says a moment rather than how long something took.
fn is_time(name: &str) -> bool {
    const MOMENTS: [&str; 13] = [
        "time",
        "timestamp",
        "timestamps",
        "date",
        "datetime",
        "ts",
        "at",
        "arrival",
        "arrived",
        "created",
        "submitted",
        "sent",
        "received",
    ];
    const SPANS: [&str; 20] = [
        "to",
        "per",
        "latency",
        "duration",
        "elapsed",
        "inter",
        "between",
        "wait",
        "waiting",
        "queue",
        "queueing",
        "prefill",
        "decode",
        "decoding",
        "generation",
        "processing",
        "execution",
        "inference",
        "service",
        "response",
    ];
    let mut words = vec![String::new()];
    let mut small = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && small) {
            words.push(String::new());
        }
        small = c.is_lowercase();
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    has(&MOMENTS) && !has(&SPANS)
}

/// A name in one spelling: small letters, `_` for spaces and hyphens and between the words of `startTime`.
fn plain(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut small = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && small {
            out.push('_');
        }
        small = c.is_ascii_lowercase();
        out.push(if matches!(c, ' ' | '-') { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

/// Whether one of `known` is among `names`.
pub(super) fn has_one(names: &[String], known: &[&str]) -> bool {
    names.iter().any(|name| known.iter().any(|known| plain(known) == plain(name)))
}

/// The name of `known` that is among `names`, and how it is written there. A name that is written as it is known goes before others.
fn one(names: &[&str], what: &str, known: &[&'static str]) -> Result<Option<(&'static str, String)>> {
    let exact = |name: &str| known.iter().find(|known| **known == name).copied();
    let alike = |name: &str| known.iter().find(|known| plain(known) == plain(name)).copied();
    let mut found: Option<(&'static str, &str)> = None;
    for name in names {
        let Some(known) = exact(name).or_else(|| alike(name)) else { continue };
        if let Some((_, first)) = found.replace((known, name)) {
            let both = format!("{first} and {name}");
            return Err(InputError::expected(format!("one name for the {what}")).found(both).into());
        }
    }
    Ok(found.map(|(known, name)| (known, name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_spelling() {
        let names = |names: &[&str]| Names::find(names, &Reading::default());
        let found =
            names(&["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens"]).unwrap();
        assert_eq!((&*found.prompt, &*found.output), ("Request tokens", "Response tokens"));
        assert_eq!(found.arrival, Some(("Timestamp".into(), Told::Name(TimeUnit::S))));
        let found = names(&["TIMESTAMP", "Input-Tokens", "output tokens", "arrival_time_ms"]).unwrap();
        assert_eq!(
            found.arrival,
            Some(("arrival_time_ms".into(), Told::Name(TimeUnit::Ms))),
            "arrivals first"
        );
        let found = names(&["promptTokens", "completionTokens", "startTime"]).unwrap();
        assert_eq!(found.arrival, Some(("startTime".into(), Told::Name(TimeUnit::S))));
        assert!(names(&["isl", "osl", "timestamp", "time"]).is_err(), "two names");
        assert!(names(&["isl", "input_tokens", "osl"]).is_err(), "two names");
        assert!(
            names(&["isl", "osl", "ttft", "latency", "time_to_first_token", "queue_time"])
                .unwrap()
                .arrival
                .is_none()
        );
        for time in ["end_time", "when_sent_at", "FinishTime", "first-token-ts", "Date of use"] {
            let Err(Error::Input(error)) = names(&["isl", "osl", time]) else { panic!("{time}") };
            assert_eq!(error.key.as_deref(), Some(time));
        }
        let column = Reading { time_column: Some("end_time".into()), ..Reading::default() };
        let found = Names::find(&["isl", "osl", "end_time"], &column).unwrap();
        assert_eq!(found.arrival, Some(("end_time".into(), Told::No)));
        assert!(Names::find(&["isl", "osl"], &column).is_err());
        let without = Reading { without_arrivals: true, ..Reading::default() };
        assert!(Names::find(&["isl", "osl", "end_time"], &without).unwrap().arrival.is_none());
    }
}
