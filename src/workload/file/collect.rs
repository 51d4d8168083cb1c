//! What all formats share: values with their keys, requests in file order, and arrivals counted from the first.

use super::super::sessions::{Turn, Turns, begin_together};
use super::super::{MOST_REQUESTS, Reading, Remark, RequestSet, Told};
use super::blocks::Blocks;
use super::time::{Clock, Settled};
use super::value::Value;
use crate::error::{Error, InputError, Result};
use crate::trace::Request;
use crate::trace::synth::MOST_TOKENS;
use crate::units::SimTime;

/// One request as a file says it.
pub(super) struct Row<'a> {
    /// As the collector's clock reads it; `None` where the file does not say.
    pub arrival: Option<Value<'a>>,
    pub prompt: Value<'a>,
    pub output: Value<'a>,
    pub priority: u32,
    pub prefix: Vec<u64>,
    /// Its place in a conversation.
    pub turn: Option<Turn>,
}

impl<'a> Row<'a> {
    /// A request with lengths alone.
    pub fn new(prompt: Value<'a>, output: Value<'a>) -> Self {
        Row { arrival: None, prompt, output, priority: 0, prefix: Vec::new(), turn: None }
    }
}

/// Requests of a file, in its order.
pub(super) struct Collector {
    requests: Vec<Request>,
    /// As the clock gave them, and those of requests without one among others.
    arrivals: Vec<i128>,
    unsaid: Vec<usize>,
    skip_empty: bool,
    /// Whether `time_unit` is said and counts.
    time_unit: bool,
    block_tokens: Option<u32>,
    empty: u64,
    failed: u64,
    remarks: Vec<Remark>,
    /// Reads the arrivals.
    pub clock: Option<Clock>,
    /// Tells how many tokens a hash stands for.
    pub blocks: Option<Blocks>,
    pub turns: Turns,
    /// A key that says what prompts share, and is passed over.
    pub unused: Option<&'static str>,
    /// What was told of the file.
    pub told: Told,
}

impl Collector {
    pub fn new(reading: &Reading) -> Self {
        Collector {
            requests: Vec::new(),
            arrivals: Vec::new(),
            unsaid: Vec::new(),
            skip_empty: reading.skip_empty,
            block_tokens: reading.block_tokens,
            time_unit: reading.time_unit.is_some() && !reading.without_arrivals,
            empty: 0,
            failed: 0,
            remarks: Vec::new(),
            clock: None,
            blocks: None,
            turns: Turns::default(),
            unused: None,
            told: Told::default(),
        }
    }

    /// Takes a row of the file. Returns its id; `None` where it is left out.
    pub fn row(&mut self, row: Row) -> Result<Option<u64>> {
        let (prompt_tokens, output_tokens) = (row.prompt.tokens()?, row.output.tokens()?);
        for (value, tokens) in [(row.prompt, prompt_tokens), (row.output, output_tokens)] {
            if tokens == 0 && !self.skip_empty {
                let what = format!("1 to {MOST_TOKENS} tokens, or skip_empty to leave such requests out");
                return Err(value.bad(what).into());
            }
        }
        let arrival = match (row.arrival, &mut self.clock) {
            (Some(arrival), Some(clock)) => Some(clock.read(arrival)?),
            _ => None,
        };
        if prompt_tokens == 0 || output_tokens == 0 {
            self.empty += 1;
            return Ok(None);
        }
        if let Some(blocks) = self.blocks.as_mut().filter(|_| !row.prefix.is_empty()) {
            blocks.take(prompt_tokens, row.prefix.len())?;
        }
        room(self.requests.len())?;
        let mut prefix = row.prefix;
        prefix.shrink_to_fit();
        let request = Request {
            id: 0,
            arrival: SimTime::ZERO,
            prompt_tokens,
            output_tokens,
            priority: row.priority,
            prefix,
            runs: Vec::new(),
        };
        if arrival.is_none() && self.clock.is_some() {
            self.unsaid.push(self.requests.len());
        }
        let id = self.add(arrival.unwrap_or(0), request);
        if let Some(turn) = row.turn {
            self.turns.add(id, turn);
        }
        Ok(Some(id))
    }

    /// Takes a request that came at this time, in picoseconds from any zero or as the clock gave it. Returns its id.
    pub fn add(&mut self, arrival: i128, request: Request) -> u64 {
        let id = self.requests.len() as u64;
        self.requests.push(Request { id, ..request });
        self.arrivals.push(arrival);
        id
    }

    /// Leaves out a request of which the file says that it failed.
    pub fn failed(&mut self) {
        self.failed += 1;
    }

    /// What comes next stands on this line.
    pub fn at(&mut self, line: u64) {
        if let Some(clock) = &mut self.clock {
            clock.line = line;
        }
    }

    /// Something to say about the requests.
    pub fn remark(&mut self, key: &'static str, value: impl ToString, why: impl Into<String>) {
        self.remarks.push(Remark::new(key, value, why));
    }

    /// Says that the file has no arrivals.
    pub fn without_arrivals(&mut self, why: impl Into<String>) {
        self.remark("arrivals", "all at the start", why);
    }

    /// All requests by arrival, from the first one on.
    pub fn finish(mut self) -> Result<RequestSet> {
        if self.requests.is_empty() {
            let found = match (self.empty, self.failed) {
                (0, 0) => "none",
                (0, _) => "requests that failed only",
                _ => "requests without tokens only",
            };
            return Err(InputError::expected("at least one request").found(found).into());
        }
        let settled = match &self.clock {
            Some(clock) => clock.settle()?,
            None => Settled::default(),
        };
        if self.time_unit && !settled.numbers {
            let what = "a file with arrivals that are numbers";
            return Err(InputError::expected(what)
                .key("time_unit")
                .found(format!("arrivals: {}", settled.how))
                .into());
        }
        self.told.times = settled.how.clone();
        self.remarks.extend(settled.remark.clone());
        if self.clock.is_none() {
            self.unsaid.clear();
        }
        // Who says no arrival follows another request, and takes no part in what is first.
        self.unsaid.iter().for_each(|&index| self.arrivals[index] = i128::MAX);
        let first = self.arrivals.iter().copied().min().filter(|first| *first < i128::MAX).unwrap_or(0);
        self.unsaid.iter().for_each(|&index| self.arrivals[index] = first);
        let first = settled.ps(first);
        for (request, &arrival) in self.requests.iter_mut().zip(&self.arrivals) {
            let after = settled.ps(arrival) - first;
            let ps = u64::try_from(after).map_err(|_| {
                let found = format!("request {} at {:e} s after the first", request.id, after as f64 / 1e12);
                Error::from(InputError::expected("arrivals within 213 days").key("arrivals").found(found))
            })?;
            request.arrival = SimTime::from_ps(ps);
        }
        let turns = self.turns.settle(&self.requests, |end| settled.ps(end) - first)?;
        if let Some(index) = self.unsaid.iter().find(|&&index| !turns.contains_key(&(index as u64))) {
            let what = "an arrival of the first turn of each conversation";
            let found = format!("request {index} without one");
            return Err(InputError::expected(what).key("arrivals").found(found).into());
        }
        begin_together(&mut self.requests, &turns, |id| turns.get(&id).is_some_and(|link| link.follows));
        self.requests.sort_by_key(|request| request.arrival);
        if self.empty > 0 {
            let why = "requests without prompt or output tokens are left out";
            self.remarks.insert(0, Remark::new("skip_empty", self.empty, why));
        }
        if let Some(key) = self.unused {
            let why = "are not read, so prompts share nothing; of JSON, `hash_ids` are, and `input_tok_ids` with block_tokens";
            self.remarks.push(Remark::new("prefixes", key, why));
        }
        if self.failed > 0 {
            let why = "requests that failed, as the file says, are left out";
            self.remarks.push(Remark::new("failed", self.failed, why));
        }
        let hashed = self.requests.iter().any(|request| !request.prefix.is_empty());
        let blocks = self.blocks.filter(|_| hashed).map(|blocks| blocks.settle()).transpose()?;
        if let Some(block) = self.block_tokens.filter(|_| !hashed && turns.is_empty()) {
            let what = "a file with hashes of prompt blocks, or with conversations";
            return Err(InputError::expected(what).key("block_tokens").found(block).into());
        }
        let prefix_block = blocks.as_ref().map(|(block, _)| *block);
        self.remarks.extend(blocks.and_then(|(_, remark)| remark));
        let (requests, remarks, told) = (self.requests, self.remarks, self.told);
        Ok(RequestSet { requests, clients: None, turns, sessions: None, prefix_block, told, remarks })
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

/// Puts the key around it before the key of an error.
pub(super) fn in_key(error: Error, around: &str) -> Error {
    match error {
        Error::Input(mut bad) => {
            let key = bad.key.map_or(around.to_owned(), |key| format!("{around}.{key}"));
            bad.key = Some(key);
            Error::Input(bad)
        }
        other => other,
    }
}
