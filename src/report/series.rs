//! What a server did over time: load, memory, power and tokens of equal intervals, as CSV.
//!
//! Passes are spread over the intervals that they touch: their counts and KV bytes hold, and their energy flows evenly, from
//! their start to their end. Between passes nothing waits or runs and the device draws idle power, so that the rows add up
//! to the energy of the run. Tokens and passes count where the pass ends; an interval has its end and not its start.

use crate::cost::Device;
use crate::error::{InputError, Result};
use crate::sim::{Observer, PassInfo, Setup};
use crate::units::{PS_PER_S, SimTime};
use serde::Serialize;
use std::io::{self, Write};

/// Rows that a file holds, shared evenly between the variants.
pub const MOST_ROWS: u64 = 10_000_000;

/// Interval where none is asked for, in seconds.
pub const INTERVAL_S: f64 = 1.0;

/// Interval of a series in whole picoseconds.
///
/// # Errors
/// A number that is not finite, below a picosecond or beyond simulated time.
pub fn interval(seconds: f64) -> Result<SimTime> {
    let most = u64::MAX as f64 / PS_PER_S as f64;
    if !(1.0 / PS_PER_S as f64..most).contains(&seconds) {
        let expected = "seconds from 1e-12 to the 213 days of simulated time";
        return Err(InputError::expected(expected).key("--interval").found(seconds).into());
    }
    Ok(SimTime::from_s(seconds))
}

/// Sums over one interval; times in picoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    pass_ps: u64,
    waiting_ps: f64,
    running_ps: f64,
    kv_byte_ps: f64,
    pass_pj: f64,
    output_tokens: u64,
    passes: u64,
}

impl Bin {
    fn add(&mut self, other: &Bin) {
        self.pass_ps += other.pass_ps;
        self.waiting_ps += other.waiting_ps;
        self.running_ps += other.running_ps;
        self.kv_byte_ps += other.kv_byte_ps;
        self.pass_pj += other.pass_pj;
        self.output_tokens += other.output_tokens;
        self.passes += other.passes;
    }
}

/// The series of one variant. Its memory is bounded: a series that would grow beyond its rows doubles its interval.
#[derive(Debug)]
pub struct Series {
    asked: SimTime,
    interval: SimTime,
    most: usize,
    device: Option<Device>,
    /// Devices that have layers of their own.
    places: u128,
    bins: Vec<Bin>,
    end: SimTime,
}

/// A row of the file.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/METRICS.md defines each column")]
pub struct SeriesRow<'a> {
    pub variant: &'a str,
    pub time_s: f64,
    pub length_s: f64,
    pub waiting: f64,
    pub running: f64,
    pub kv_bytes: f64,
    pub power_w: f64,
    pub output_tokens: u64,
    pub passes: u64,
}

impl Series {
    /// Rows of `interval`, at most `most` (at least 2) of them.
    pub fn new(setup: &Setup, interval: SimTime, most: u64) -> Series {
        assert!(interval > SimTime::ZERO, "an interval has a length");
        Series {
            asked: interval,
            interval,
            most: most.clamp(2, MOST_ROWS) as usize,
            // A run whose limits the device refuses never begins, and is reported by whoever begins it.
            device: setup.device().ok(),
            places: setup.places().into(),
            bins: Vec::new(),
            end: SimTime::ZERO,
        }
    }

    /// The interval that it came to, where that is not the one asked for.
    pub fn coarsened(&self) -> Option<SimTime> {
        (self.interval != self.asked).then_some(self.interval)
    }

    /// Index of the interval that has `time` behind its start: the first has 0, too.
    fn index(&self, time: SimTime) -> u64 {
        time.ps().saturating_sub(1) / self.interval.ps()
    }

    /// Makes room up to `time`.
    fn reach(&mut self, time: SimTime) {
        while self.index(time) >= self.most as u64 {
            let merged = |pair: &[Bin]| {
                let mut sum = pair[0];
                pair[1..].iter().for_each(|bin| sum.add(bin));
                sum
            };
            self.bins = self.bins.chunks(2).map(merged).collect();
            self.interval = SimTime::from_ps(self.interval.ps().saturating_mul(2));
        }
        let needed = self.index(time) as usize + 1;
        if self.bins.len() < needed {
            self.bins.resize(needed, Bin::default());
        }
    }

    /// The rows, under the name of a variant.
    pub fn rows<'a>(&'a self, variant: &'a str) -> impl Iterator<Item = SeriesRow<'a>> {
        let interval = self.interval.ps();
        self.bins.iter().enumerate().map(move |(index, bin)| {
            let start = index as u64 * interval;
            let length = interval.min(self.end.ps() - start);
            let idle_ps = self.places * u128::from(length - bin.pass_ps);
            let idle_pj = self.device.as_ref().map_or(0.0, |device| device.energy_pj(0, idle_ps, 0));
            let mean = |sum: f64| sum / length.max(1) as f64;
            SeriesRow {
                variant,
                time_s: SimTime::from_ps(start).s(),
                length_s: SimTime::from_ps(length).s(),
                waiting: mean(bin.waiting_ps),
                running: mean(bin.running_ps),
                kv_bytes: mean(bin.kv_byte_ps),
                power_w: mean(bin.pass_pj + idle_pj),
                output_tokens: bin.output_tokens,
                passes: bin.passes,
            }
        })
    }
}

impl Observer for Series {
    fn pass(&mut self, info: &PassInfo) {
        let PassInfo { begin, end, waiting, running, kv_bytes, busy, dynamic_pj, .. } = *info;
        self.reach(end);
        self.end = end;
        let length = end - begin;
        let (busy_ps, all_ps) = (u128::from(busy.ps()), self.places * u128::from(length.ps()));
        let energy = |device: &Device| device.energy_within_pj(busy_ps, all_ps, dynamic_pj.into());
        let pass_pj = self.device.as_ref().map_or(0.0, energy);
        let interval = self.interval.ps();
        let last = self.index(end);
        self.bins[last as usize].passes += 1;
        let mut from = begin.ps();
        while from < end.ps() {
            let index = from / interval;
            let to = end.ps().min((index + 1).saturating_mul(interval));
            let (bin, ps) = (&mut self.bins[index as usize], to - from);
            bin.pass_ps += ps;
            bin.waiting_ps += f64::from(waiting) * ps as f64;
            bin.running_ps += f64::from(running) * ps as f64;
            bin.kv_byte_ps += kv_bytes as f64 * ps as f64;
            bin.pass_pj += pass_pj * (ps as f64 / length.ps() as f64);
            from = to;
        }
    }

    /// They came out at the end of the pass before.
    fn output(&mut self, tokens: u32) {
        let last = self.index(self.end) as usize;
        self.bins[last].output_tokens += u64::from(tokens);
    }

    /// Idle to the end of the run.
    fn over(&mut self, end: SimTime) {
        self.reach(end);
        self.end = end;
    }
}

/// Writes the series under these names as one CSV file with a header.
///
/// # Errors
/// What `out` refuses.
pub fn write(out: &mut dyn Write, series: &[(String, &Series)]) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    for (name, series) in series {
        for row in series.rows(name) {
            csv.serialize(row).map_err(into_io)?;
        }
    }
    csv.flush()
}

/// The system's own error where there is one.
fn into_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
