//! Results of benchmarks that have a record for each request: AIPerf's and GuideLLM's.

use super::super::Reading;
use super::super::sessions::{Name, Turn};
use super::collect::{Collector, Row};
use super::detect::Shape;
use super::records::{Step, each_at, find, need};
use super::rows::each;
use super::time::{Clock, TimeUnit, Told};
use super::value::Value;
use crate::error::Result;
use crate::trace::json::Object;
use crate::trace::lines::Input;

/// Where a request of GuideLLM says its start, by version: from 0.4 on, in 0.3, before.
const GUIDELLM_START: [&str; 4] = [
    "request_start_time",
    "info.timings.request_start",
    "scheduler_info.request_timings.request_start",
    "start_time",
];
const GUIDELLM_END: [&str; 4] = [
    "request_end_time",
    "info.timings.request_end",
    "scheduler_info.request_timings.request_end",
    "end_time",
];

/// Reads `profile_export.jsonl`: times in nanoseconds since 1970, lengths under `metrics`.
pub(super) fn aiperf(input: Input, shape: &Shape, reading: &Reading, out: &mut Collector) -> Result<()> {
    const START: &str = "metadata.request_start_ns";
    out.clock = clock(START, TimeUnit::Ns, reading, out);
    let mut warmup = 0_u64;
    each(input, shape, |object, line| {
        out.at(line);
        if find(object, "metadata.benchmark_phase").is_some_and(|phase| phase.text == "\"warmup\"") {
            warmup += 1;
            return Ok(());
        }
        if find(object, "error").is_some_and(|error| error.text != "null") {
            out.failed();
            return Ok(());
        }
        let prompt = need(object, "metrics.input_sequence_length.value")?;
        let mut row = Row::new(prompt, need(object, "metrics.output_sequence_length.value")?);
        if !reading.without_arrivals {
            row.arrival = Some(need(object, START)?);
        }
        // A user's session; the conversation of the data may be sent by many.
        let session = ["metadata.x_correlation_id", "metadata.conversation_id"];
        let end = find(object, "metadata.request_end_ns");
        row.turn = turn(object, &session, "metadata.turn_index", end, out)?;
        out.row(row).map(drop)
    })?;
    if warmup > 0 {
        out.remark("warmup", warmup, "requests of the warm-up are left out");
    }
    Ok(())
}

/// Reads `benchmarks.json`: the requests that were answered, times in seconds since 1970.
pub(super) fn guidellm(input: Input, reading: &Reading, out: &mut Collector) -> Result<()> {
    let path = [
        Step::Key(&["benchmarks"]),
        Step::Each,
        Step::Key(&["requests"]),
        Step::Key(&["successful"]),
        Step::Each,
    ];
    out.clock = clock(GUIDELLM_START[0], TimeUnit::S, reading, out);
    let mut runs = 0;
    each_at(input, &path, |object, place| {
        runs = place.counts[0] + 1;
        out.at(place.line);
        let mut row = Row::new(need(object, "prompt_tokens")?, need(object, "output_tokens")?);
        let first = |keys: [&'static str; 4]| {
            keys.into_iter().find_map(|key| find(object, key).filter(|value| value.text != "null"))
        };
        if !reading.without_arrivals {
            row.arrival = Some(first(GUIDELLM_START).map_or_else(|| need(object, GUIDELLM_START[0]), Ok)?);
        }
        row.turn = turn(object, &["info.conversation_id"], "info.turn_index", first(GUIDELLM_END), out)?;
        out.row(row).map(drop)
    })?;
    out.remark("requests", "successful", "requests that failed or did not end are left out");
    if runs > 1 {
        let why = "benchmarks ran one after another; start_s and duration_s take the requests of one";
        out.remark("benchmarks", runs, why);
    }
    Ok(())
}

/// The clock of the arrivals, unless they are replaced.
pub(super) fn clock(key: &str, unit: TimeUnit, reading: &Reading, out: &mut Collector) -> Option<Clock> {
    if reading.without_arrivals {
        out.without_arrivals("they are replaced");
        return None;
    }
    Some(Clock::new(key, reading.time_unit.map_or(Told::Name(unit), Told::Option)))
}

/// A turn of the first of these conversations that is there.
fn turn(
    object: &Object,
    sessions: &[&str],
    number: &str,
    end: Option<Value>,
    out: &mut Collector,
) -> Result<Option<Turn>> {
    let session = sessions.iter().find_map(|key| find(object, key).filter(|id| id.text != "null"));
    let Some(session) = session else { return Ok(None) };
    let end = end.filter(|end| end.text != "null");
    let end = match (end, &mut out.clock) {
        (Some(end), Some(clock)) => Some(clock.read(end)?),
        _ => None,
    };
    let number = find(object, number).map(|number| number.whole(u32::MAX)).transpose()?;
    Ok(Some(Turn {
        session: Some(Name::of(session.text)),
        number: number.map(u64::from),
        end,
        ..Turn::default()
    }))
}
