//! What all formats share: values with their keys, requests in file order, and arrivals counted from the first.

use super::super::{Load, MOST_REQUESTS, Remark};
use crate::error::{Error, InputError, Result};
use crate::trace::Request;
use crate::trace::json::decimal;
use crate::trace::synth::MOST_TOKENS;
use crate::units::SimTime;

/// Largest time that is read, either way from its zero: 10^30 ps, so that differences fit.
const FARTHEST_PS: u128 = 10_u128.pow(30);

/// A value as written, with its key.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub key: &'a str,
    pub text: &'a str,
}

impl Value<'_> {
    /// The error for this value.
    pub fn bad(&self, expected: impl Into<String>) -> InputError {
        InputError::expected(expected).key(self.key).found(if self.text.is_empty() {
            "nothing"
        } else {
            self.text
        })
    }

    /// A number of tokens, 0 included.
    pub fn tokens(&self) -> Result<u32> {
        self.whole(MOST_TOKENS)
    }

    /// A whole number up to `most`.
    pub fn whole(&self, most: u32) -> Result<u32> {
        let digits = !self.text.is_empty() && self.text.bytes().all(|byte| byte.is_ascii_digit());
        let number = self.text.parse().ok().filter(|number| digits && *number <= most);
        number.ok_or_else(|| self.bad(format!("a whole number from 0 to {most}")).into())
    }

    /// Picoseconds of a time in units of 10^(`shift` - 12) seconds, exact, a rest below a picosecond rounded.
    pub fn time(&self, shift: i64) -> Result<i128> {
        let unit = match shift {
            12 => "seconds",
            9 => "milliseconds",
            6 => "microseconds",
            _ => "nanoseconds",
        };
        match decimal(self.text, shift) {
            Some((negative, size)) if size <= FARTHEST_PS => {
                let size = size as i128;
                Ok(if negative { -size } else { size })
            }
            _ => Err(self.bad(format!("a number of {unit} of at most 10^18 seconds")).into()),
        }
    }
}

/// One request as a file says it.
pub(super) struct Row<'a> {
    /// Picoseconds from any zero; `None` where the file does not say.
    pub arrival: Option<i128>,
    pub prompt: Value<'a>,
    pub output: Value<'a>,
    pub priority: u32,
    pub prefix: Vec<u64>,
}

/// Requests of a file, in its order.
pub(super) struct Collector {
    requests: Vec<Request>,
    arrivals: Vec<i128>,
    skip_empty: bool,
    empty: u64,
    remarks: Vec<Remark>,
    pub prefix_block: Option<u32>,
}

impl Collector {
    pub fn new(skip_empty: bool) -> Self {
        let (requests, arrivals, remarks) = Default::default();
        Collector { requests, arrivals, skip_empty, empty: 0, remarks, prefix_block: None }
    }

    /// Takes a row of the file.
    pub fn row(&mut self, row: Row) -> Result<()> {
        let (prompt_tokens, output_tokens) = (row.prompt.tokens()?, row.output.tokens()?);
        for (value, tokens) in [(row.prompt, prompt_tokens), (row.output, output_tokens)] {
            if tokens == 0 && !self.skip_empty {
                let what = format!("1 to {MOST_TOKENS} tokens, or skip_empty to leave such requests out");
                return Err(value.bad(what).into());
            }
        }
        if prompt_tokens == 0 || output_tokens == 0 {
            self.empty += 1;
            return Ok(());
        }
        room(self.requests.len())?;
        let request = Request {
            id: 0,
            arrival: SimTime::ZERO,
            prompt_tokens,
            output_tokens,
            priority: row.priority,
            prefix: row.prefix,
            runs: Vec::new(),
        };
        self.add(row.arrival.unwrap_or(0), request);
        Ok(())
    }

    /// Takes a request that came at this time, counted from any zero.
    pub fn add(&mut self, arrival: i128, request: Request) {
        let id = self.requests.len() as u64;
        self.requests.push(Request { id, ..request });
        self.arrivals.push(arrival);
    }

    /// Says that the file has no arrivals.
    pub fn without_arrivals(&mut self, why: impl Into<String>) {
        self.remarks.push(Remark::new("arrivals", "all at the start", why));
    }

    /// All requests by arrival, from the first one on.
    pub fn finish(mut self) -> Result<Load> {
        if self.requests.is_empty() {
            let found = if self.empty > 0 { "requests without tokens only" } else { "none" };
            return Err(InputError::expected("at least one request").found(found).into());
        }
        let first = self.arrivals.iter().copied().min().unwrap_or(0);
        for (request, &arrival) in self.requests.iter_mut().zip(&self.arrivals) {
            let ps = u64::try_from(arrival - first).map_err(|_| {
                let found = format!(
                    "request {} at {:e} s after the first",
                    request.id,
                    (arrival - first) as f64 / 1e12
                );
                Error::from(InputError::expected("arrivals within 213 days").key("arrivals").found(found))
            })?;
            request.arrival = SimTime::from_ps(ps);
        }
        self.requests.sort_by_key(|request| request.arrival);
        if self.empty > 0 {
            let why = "requests without prompt or output tokens are left out";
            self.remarks.insert(0, Remark::new("skip_empty", self.empty, why));
        }
        let (requests, prefix_block, remarks) = (self.requests, self.prefix_block, self.remarks);
        Ok(Load { requests, clients: None, prefix_block, remarks })
    }
}

/// Whether another request fits behind `taken`.
pub(super) fn room(taken: usize) -> Result<()> {
    if taken < MOST_REQUESTS as usize {
        return Ok(());
    }
    Err(InputError::expected(format!("at most {MOST_REQUESTS} requests")).found("more").into())
}

/// Adds the line to an error that does not name one yet.
pub(super) fn in_line(error: Error, line: u64) -> Error {
    match error {
        Error::Input(mut bad) => {
            bad.line.get_or_insert(line);
            Error::Input(bad)
        }
        other => other,
    }
}
