//! The events of a profile of PyTorch: operators called on the host, and kernels that they started on a device.

use crate::error::{Error, InputError, Result};
use crate::json_text;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// Larger files are refused, before and after they are unpacked.
const MOST_BYTES: u64 = 1 << 30;

/// What a file holds of use.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Name of the first device, where the profiler saw one.
    pub device: Option<String>,
    /// Operators, in the order of the file.
    pub operators: Vec<Operator>,
    /// Kernels: the id of the operator that started each, and its microseconds.
    pub kernels: Vec<(Option<u64>, f64)>,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// A call of an operator.
#[derive(Debug)]
pub(super) struct Operator {
    /// Its place in the list of the file.
    pub place: usize,
    /// Its name: `aten::mm`.
    pub name: String,
    /// Process and thread.
    pub thread: (String, String),
    /// When it began, in microseconds, and how long it took.
    pub time: (f64, f64),
    /// What kernels call it.
    pub id: Option<u64>,
    /// Shapes, types and values of its inputs, as JSON, where it is one that is looked at.
    pub inputs: Option<Inputs>,
}

/// What the profiler noted of the inputs of a call.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Inputs {
    /// Sizes of each; lists of tensors have lists of sizes.
    #[serde(default, rename = "Input Dims")]
    pub dims: Option<Vec<serde_json::Value>>,
    /// Types of each: `float`, `c10::BFloat16`.
    #[serde(default, rename = "Input type")]
    pub types: Vec<serde_json::Value>,
    /// Values of each that is a number, a truth value or a list of them.
    #[serde(default, rename = "Concrete Inputs")]
    pub values: Vec<serde_json::Value>,
}

/// An event, as it stands in the file.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    ph: String,
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    pid: serde_json::Value,
    #[serde(default)]
    tid: serde_json::Value,
    ts: Option<f64>,
    dur: Option<f64>,
    args: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Started {
    #[serde(default, rename = "External id")]
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(default)]
    name: String,
}

/// Reads a file, plain or `.gz`. `looked_at` says of which operators the inputs are kept.
///
/// # Errors
/// A file that is no such profile, or too large.
pub(super) fn read(path: &Path, looked_at: fn(&str) -> bool) -> Result<Events> {
    let bytes = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    let too_large = |found: String| -> Error {
        InputError::expected("a profile of at most 1 GiB, also unpacked").found(found).file(path).into()
    };
    if bytes > MOST_BYTES {
        return Err(too_large(format!("{bytes} bytes")));
    }
    let packed = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let sha256 = Sha256::digest(&packed).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = if packed.starts_with(&[0x1f, 0x8b]) {
        let mut text = Vec::new();
        let unpacked = MultiGzDecoder::new(packed.as_slice()).take(MOST_BYTES + 1).read_to_end(&mut text);
        unpacked.map_err(Error::io(path, "unpack"))?;
        text
    } else {
        packed
    };
    if text.len() as u64 > MOST_BYTES {
        return Err(too_large("more".into()));
    }
    let File(mut events) =
        json_text::from_slice(&text, "a profile that PyTorch's `export_chrome_trace` wrote")
            .map_err(|error| error.file(path))?;
    events.keep(looked_at).map_err(|error| error.file(path))?;
    Ok(Events { sha256, ..events.found })
}

/// The file: events are sorted out as they are read.
struct File(Sorted);

#[derive(Default)]
struct Sorted {
    found: Events,
    /// What stood in each operator's event beside its times.
    args: Vec<Option<Box<RawValue>>>,
    has_events: bool,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> std::result::Result<File, D::Error> {
        let mut sorted = Sorted::default();
        reader.deserialize_map(Whole(&mut sorted))?;
        Ok(File(sorted))
    }
}

struct Whole<'a>(&'a mut Sorted);

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object with traceEvents")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "traceEvents" => {
                    self.0.has_events = true;
                    map.next_value_seed(List(self.0))?;
                }
                "deviceProperties" => {
                    let all: Vec<Properties> = map.next_value()?;
                    let first = all.into_iter().map(|one| one.name).find(|name| !name.is_empty());
                    self.0.found.device = first;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct List<'a>(&'a mut Sorted);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> std::result::Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a list of events")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> std::result::Result<(), S::Error> {
        let mut place = 0;
        while let Some(event) = list.next_element::<Event>()? {
            self.0.take(place, event);
            place += 1;
        }
        Ok(())
    }
}

impl Sorted {
    fn take(&mut self, place: usize, event: Event) {
        let Event { ph, cat, name, pid, tid, ts: Some(ts), dur: Some(dur), args } = event else { return };
        match (ph.as_str(), cat.as_str()) {
            ("X", "cpu_op") => {
                let thread = (pid.to_string(), tid.to_string());
                self.found.operators.push(Operator {
                    place,
                    name,
                    thread,
                    time: (ts, dur),
                    id: None,
                    inputs: None,
                });
                self.args.push(args);
            }
            ("X", "kernel") => {
                let started = args.and_then(|args| serde_json::from_str::<Started>(args.get()).ok());
                self.found.kernels.push((started.and_then(|started| started.id), dur));
            }
            _ => {}
        }
    }

    /// Keeps of the operators what is needed: the inputs of some, the ids where there are kernels.
    fn keep(&mut self, looked_at: fn(&str) -> bool) -> std::result::Result<(), InputError> {
        if !self.has_events {
            return Err(InputError::expected("the events of a profile of PyTorch")
                .key("traceEvents")
                .found("none"));
        }
        for (operator, args) in self.found.operators.iter_mut().zip(self.args.drain(..)) {
            let Some(args) = args else { continue };
            let key = |name: &str| format!("traceEvents[{}].{name}", operator.place);
            if !self.found.kernels.is_empty() {
                operator.id = serde_json::from_str::<Started>(args.get()).ok().and_then(|started| started.id);
            }
            if looked_at(&operator.name) {
                let inputs = serde_json::from_str(args.get()).map_err(|error| {
                    InputError::expected(format!("shapes as PyTorch's profiler writes them ({error})"))
                        .key(key("args"))
                })?;
                operator.inputs = Some(inputs);
            }
            let (_, dur) = operator.time;
            if !(0.0..1e12).contains(&dur) {
                return Err(InputError::expected("microseconds").key(key("dur")).found(dur));
            }
        }
        Ok(())
    }
}
