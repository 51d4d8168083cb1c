//! A timeline for <https://ui.perfetto.dev>: Chrome's trace event format, one process a variant, one track a resource.
//!
//! The counter `power` is a step function whose integral is the energy of the run: static power and what the kernel adds
//! while one runs, idle power otherwise, zero from the end on.

use crate::cost::{Bound, Device, Price, percent};
use crate::engine::Ended;
use crate::error::shorten;
use crate::lower::{Call, Cause, Node};
use crate::sim::{Observer, PassInfo, Setup};
use crate::units::{SimTime, SourceKind};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Kernels that a timeline file holds unless told otherwise: about 100 MB.
pub const MOST_KERNELS: u64 = 200_000;

/// Tracks of a process, in the order shown.
const TRACKS: [&str; 5] = ["passes", "host", "compute", "copy", "link"];

/// Records the calls of one variant, up to a number of kernels. Then it stops, and says so in the file.
#[derive(Debug)]
pub struct Timeline {
    /// Kernels that are still recorded.
    left: u64,
    step: SimTime,
    static_w: f64,
    idle_w: f64,
    slices: Vec<Slice>,
    power: Steps<f64>,
    memory: Steps<u64>,
    tokens: Steps<u64>,
    /// When recording stopped for want of room.
    stopped: Option<SimTime>,
    end: SimTime,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    start: SimTime,
    end: SimTime,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Call(Call, Option<Price>),
    /// The host's own work for a step.
    Step,
    Pass {
        tokens: u32,
        sequences: u32,
    },
}

/// A step function of time.
#[derive(Debug)]
struct Steps<T>(Vec<(SimTime, T)>);

impl<T: PartialEq> Steps<T> {
    /// From `time` on, the value is this; a value set for the same time before is forgotten.
    fn set(&mut self, time: SimTime, value: T) {
        if self.0.last().is_some_and(|(last, _)| *last == time) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != value) {
            self.0.push((time, value));
        }
    }
}

impl Timeline {
    /// Records at most `kernels` kernels of this run.
    pub fn new(setup: &Setup, kernels: u64) -> Timeline {
        // A run whose limits the device refuses never begins, and is reported by whoever begins it.
        let device = setup.device().ok();
        let (static_w, idle_w) = device.as_ref().map_or((0.0, 0.0), Device::static_and_idle_w);
        Timeline {
            left: kernels,
            step: device.as_ref().map_or(SimTime::ZERO, |device| device.launch().step),
            static_w,
            idle_w,
            slices: Vec::new(),
            power: Steps(vec![(SimTime::ZERO, idle_w)]),
            memory: Steps(Vec::new()),
            tokens: Steps(vec![(SimTime::ZERO, 0)]),
            stopped: None,
            end: SimTime::ZERO,
        }
    }

    /// For kernels that ran on a device rather than in the simulator: times are measured, power is unknown.
    pub fn measured(kernels: u64) -> Timeline {
        Timeline {
            left: kernels,
            step: SimTime::ZERO,
            static_w: 0.0,
            idle_w: 0.0,
            slices: Vec::new(),
            power: Steps(Vec::new()),
            memory: Steps(Vec::new()),
            tokens: Steps(vec![(SimTime::ZERO, 0)]),
            stopped: None,
            end: SimTime::ZERO,
        }
    }

    /// Adds a kernel that ran from `start` to `end`.
    pub fn ran(&mut self, call: Call, start: SimTime, end: SimTime) {
        if self.left == 0 {
            self.stopped.get_or_insert(self.end);
            return;
        }
        self.left -= 1;
        self.end = self.end.max(end);
        self.slices.push(Slice { start, end, what: What::Call(call, None) });
    }

    /// Adds a pass of `tokens` tokens of `sequences` sequences that took from `begin` to `end`.
    pub fn passed(&mut self, [begin, end]: [SimTime; 2], tokens: u32, sequences: u32, memory_bytes: u64) {
        if self.stopped.is_some() {
            return;
        }
        self.slices.push(Slice { start: begin, end, what: What::Pass { tokens, sequences } });
        self.memory.set(begin, memory_bytes);
        self.tokens.set(begin, tokens.into());
        self.tokens.set(end, 0);
        self.end = self.end.max(end);
    }

    /// When it stopped recording because it was full.
    pub fn stopped(&self) -> Option<SimTime> {
        self.stopped
    }

    fn kernel(&mut self, price: &Price, ended: &Ended) {
        let time = (ended.end - ended.start).ps().max(1);
        self.power.set(ended.start, self.static_w + price.dynamic_pj as f64 / time as f64);
        self.power.set(ended.end, self.idle_w);
        self.left -= 1;
    }
}

impl Observer for Timeline {
    fn call(&mut self, call: &Call, price: Option<&Price>, ended: &Ended) {
        if self.stopped.is_some() || (price.is_none() && ended.start == ended.end) {
            return;
        }
        if let Some(price) = price {
            if self.left == 0 {
                self.stopped = Some(self.end);
                return;
            }
            self.kernel(price, ended);
        }
        self.end = self.end.max(ended.end);
        self.slices.push(Slice {
            start: ended.start,
            end: ended.end,
            what: What::Call(*call, price.copied()),
        });
    }

    fn pass(&mut self, info: &PassInfo) {
        if self.stopped.is_some() {
            return;
        }
        let PassInfo { begin, end, batch, memory_bytes, .. } = *info;
        if batch.ends() && self.step > SimTime::ZERO {
            self.slices.push(Slice { start: begin, end: begin + self.step, what: What::Step });
        }
        let what = What::Pass { tokens: batch.tokens(), sequences: batch.sequences() };
        self.slices.push(Slice { start: begin, end, what });
        self.memory.set(begin, memory_bytes);
        self.tokens.set(begin, batch.tokens().into());
        self.tokens.set(end, 0);
        self.end = self.end.max(end);
    }

    fn over(&mut self, end: SimTime) {
        if self.stopped.is_none() {
            self.end = end;
        }
    }
}

/// Writes the timelines under these names as one file.
///
/// # Errors
/// What `out` refuses.
pub fn write(out: &mut dyn Write, timelines: &[(String, &Timeline)]) -> io::Result<()> {
    let stops = timelines.iter().filter_map(|(name, timeline)| {
        let stopped = timeline.stopped?;
        Some(json!({ "variant": name, "recorded_s": stopped.s() }))
    });
    let stops: Vec<Value> = stops.collect();
    let said =
        json!({ "program": "radialsim", "complete": stops.is_empty(), "stopped_for_want_of_room": stops });
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{said},\"traceEvents\":[")?;
    let mut events = Events { out, first: true };
    for (index, (name, timeline)) in timelines.iter().enumerate() {
        events.process(index + 1, name, timeline)?;
    }
    writeln!(events.out, "\n]}}")
}

struct Events<'a> {
    out: &'a mut dyn Write,
    first: bool,
}

impl Events<'_> {
    /// One event a line. `head` is what precedes the arguments.
    fn event(&mut self, head: &str, args: &Value) -> io::Result<()> {
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        write!(self.out, "{comma}\n{{{head},\"args\":{args}}}")
    }

    fn process(&mut self, pid: usize, name: &str, timeline: &Timeline) -> io::Result<()> {
        let meta = |what: &str| format!("\"ph\":\"M\",\"pid\":{pid},\"name\":\"{what}\"");
        self.event(&meta("process_name"), &json!({ "name": shorten(name) }))?;
        for (tid, track) in TRACKS.iter().enumerate() {
            let head = |what: &str| format!("{},\"tid\":{}", meta(what), tid + 1);
            self.event(&head("thread_name"), &json!({ "name": track }))?;
            self.event(&head("thread_sort_index"), &json!({ "sort_index": tid }))?;
        }
        // A pass is heard of when it is over, so what it recorded is put in order here.
        let mut slices: Vec<&Slice> = timeline.slices.iter().collect();
        slices.sort_by_key(|slice| slice.start);
        for slice in slices {
            self.slice(pid, slice)?;
        }
        let end = timeline.stopped.unwrap_or(timeline.end);
        if !timeline.power.0.is_empty() {
            self.counter(pid, "power", "W", &timeline.power.0, (end, 0.0))?;
        }
        self.counter(pid, "memory", "bytes", &timeline.memory.0, (end, 0))?;
        self.counter(pid, "batch", "tokens", &timeline.tokens.0, (end, 0))
    }

    fn slice(&mut self, pid: usize, slice: &Slice) -> io::Result<()> {
        let Slice { start, end, what } = slice;
        let (tid, name, category, args) = match what {
            What::Pass { tokens, sequences } => {
                (1, format!("pass of {tokens}"), "pass", json!({ "tokens": tokens, "sequences": sequences }))
            }
            What::Step => (2, "step".into(), "step", json!({})),
            What::Call(call, price) => {
                let (tid, name) = match call.node {
                    Node::Kernel { ref kernel, .. } => (3, kernel.name()),
                    Node::Collective { operation, .. } => (3, operation.name()),
                    Node::Exchange { part, .. } => (3, part.name()),
                    Node::Join => (3, "join"),
                    Node::Await => (3, "await link"),
                    Node::Fetch { .. } => (5, "fetch layer"),
                    Node::Swap { .. } => (5, "swap KV"),
                    Node::Launch => (2, "launch"),
                    Node::LaunchGraph => (2, "launch graph"),
                    Node::Decide => (2, "decide"),
                    Node::Learn => (2, "learn"),
                    Node::Conditions { .. } => (3, "conditional nodes"),
                    Node::Readback { .. } => (4, "read back"),
                };
                let layer = (call.layer != Call::NO_LAYER).then_some(call.layer);
                let name = layer.map_or(name.to_owned(), |layer| format!("{name} L{layer}"));
                (tid, name, Cause::ALL[call.cause as usize].1, arguments(call, price.as_ref()))
            }
        };
        let (ts, dur) = (Microseconds(*start), Microseconds(*end - *start));
        let head = format!(
            "\"ph\":\"X\",\"pid\":{pid},\"tid\":{tid},\"ts\":{ts},\"dur\":{dur},\"name\":\"{name}\",\"cat\":\"{category}\""
        );
        self.event(&head, &args)
    }

    fn counter<T: Copy + PartialEq + serde::Serialize>(
        &mut self,
        pid: usize,
        name: &str,
        unit: &str,
        steps: &[(SimTime, T)],
        end: (SimTime, T),
    ) -> io::Result<()> {
        let before = steps.iter().copied().filter(|(time, _)| *time < end.0);
        for (time, value) in before.chain([end]) {
            let ts = Microseconds(time);
            self.event(
                &format!("\"ph\":\"C\",\"pid\":{pid},\"ts\":{ts},\"name\":\"{name}\""),
                &json!({ unit: value }),
            )?;
        }
        Ok(())
    }
}

fn arguments(call: &Call, price: Option<&Price>) -> Value {
    let Node::Kernel { kernel, captured } = &call.node else { return json!({}) };
    let (cause, shape) = (Cause::ALL[call.cause as usize].1, format!("{kernel:?}"));
    let Some(price) = price else {
        return json!({ "cause": cause, "shape": shape, "source": SourceKind::Measured.to_string() });
    };
    let mut arguments = json!({
        "cause": cause,
        "shape": shape,
        "bound": Bound::ALL[price.bound as usize].1,
        "source": price.source.to_string(),
        "flops": price.flops,
        "dram_bytes": price.dram_bytes,
        "dynamic_uj": price.dynamic_pj as f64 / 1e6,
        "captured": captured,
    });
    if let Some(error) = price.error {
        arguments["error_percent"] = percent(error.mean).into();
        arguments["interval_percent"] = percent(error.any_source).into();
    }
    arguments
}

/// A time in microseconds, to the picosecond.
struct Microseconds(SimTime);

impl std::fmt::Display for Microseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let ps = self.0.ps();
        write!(f, "{}.{:06}", ps / 1_000_000, ps % 1_000_000)
    }
}
