//! What a served run measured: when each request came, began, put out its first token and its last; and who ran and waited over time.

use super::MOST_REQUESTS;
use crate::error::{Error, InputError, Result};
use crate::{json_text, ron_text};
use serde::Deserialize;
use std::path::Path;

/// What a file is, for errors.
const WHAT: &str = "a file of a measured run";
/// Larger files are refused.
const MOST_BYTES: u64 = 1 << 30;
/// Clocks whose times lie further apart than this began at different times: seconds since 1970 beside seconds since the machine began.
const SAME_CLOCK_S: f64 = 1e6;

/// A request as a line of `requests.jsonl` says it, times in seconds. LLMServingSim writes these keys from vLLM's request states.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct ServedRequest {
    /// Prompt tokens.
    pub input_toks: u32,
    /// Output tokens.
    pub output_toks: u32,
    /// When it came, on the clock of the front end.
    pub arrival_time: f64,
    /// When the engine took it into its queue, on the clock of the engine.
    pub queued_ts: f64,
    /// When it was first scheduled.
    pub scheduled_ts: f64,
    /// When its first token was there.
    pub first_token_ts: f64,
    /// When its last token was there.
    pub last_token_ts: f64,
}

/// A second of `timeseries.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Tick {
    /// Seconds from the start of the run.
    pub t: f64,
    /// Requests that run.
    pub running: f64,
    /// Requests that wait.
    pub waiting: f64,
}

/// Reads the requests. Where arrivals are on another clock than the rest, they are moved onto it such that the request that was queued
/// soonest was queued at once.
///
/// # Errors
/// A line that is no such request, with what is wrong.
pub fn measured(path: &Path) -> Result<Vec<ServedRequest>> {
    let mut out: Vec<ServedRequest> = Vec::new();
    for (line, text) in
        (1..).zip(ron_text::read(path, WHAT, MOST_BYTES)?.lines()).filter(|(_, text)| !text.trim().is_empty())
    {
        let wrong = |what: String| Error::from(InputError::expected(what).line(line).file(path));
        let what = "a request with its times in seconds and its tokens";
        let request: ServedRequest =
            json_text::from_slice(text.as_bytes(), what).map_err(|error| error.line(line).file(path))?;
        let ServedRequest { arrival_time, queued_ts, scheduled_ts, first_token_ts, last_token_ts, .. } =
            request;
        let rising =
            queued_ts <= scheduled_ts && scheduled_ts < first_token_ts && first_token_ts <= last_token_ts;
        if !(rising && arrival_time.abs() < 1e12 && queued_ts.abs() < 1e12 && last_token_ts.abs() < 1e12) {
            return Err(wrong(
                "queued_ts, scheduled_ts, first_token_ts and last_token_ts in this order".into(),
            ));
        }
        if request.input_toks == 0 || request.output_toks == 0 {
            return Err(wrong("at least one token in and one out".into()));
        }
        out.push(request);
        if out.len() > MOST_REQUESTS as usize {
            return Err(wrong(format!("at most {MOST_REQUESTS} requests")));
        }
    }
    let ahead = out.iter().map(|request| request.arrival_time - request.queued_ts).reduce(f64::max);
    let ahead = ahead.ok_or_else(|| InputError::expected("at least one request").file(path))?;
    if ahead.abs() > SAME_CLOCK_S {
        out.iter_mut().for_each(|request| request.arrival_time -= ahead);
    } else if ahead > 0.0 {
        return Err(InputError::expected("requests that arrive before they are queued").file(path).into());
    }
    Ok(out)
}

/// Reads a time series with columns `t`, `running`, `waiting`; others are passed over.
///
/// # Errors
/// A file that is no such series, with what is wrong.
pub fn ticks(path: &Path) -> Result<Vec<Tick>> {
    let text = ron_text::read(path, WHAT, MOST_BYTES)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let ticks = reader.deserialize().collect::<std::result::Result<Vec<Tick>, _>>().map_err(|error| {
        let line = error.position().map_or(1, csv::Position::line);
        InputError::expected(format!("CSV with columns t, running, waiting ({error})")).line(line).file(path)
    })?;
    let sound =
        |tick: &Tick| [tick.t, tick.running, tick.waiting].iter().all(|number| (0.0..1e9).contains(number));
    match ticks.iter().position(|tick| !sound(tick)) {
        None => Ok(ticks),
        Some(bad) => {
            let wrong = InputError::expected("t, running and waiting from 0 to 1e9").line(bad as u64 + 2);
            Err(wrong.file(path).into())
        }
    }
}
