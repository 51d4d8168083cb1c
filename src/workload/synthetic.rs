//! Requests that nobody recorded: how many, how long, when, how urgent.

use super::arrivals::{Arrivals, Times};
use super::lengths::Lengths;
use super::{MOST_REQUESTS, RequestSet};
use crate::error::{Result, demand};
use crate::rng::Stream;
use crate::trace::Request;
use serde::{Deserialize, Serialize};

/// The key `workload.requests` of a scenario: requests that are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestsSpec {
    /// How many, 1 to [`MOST_REQUESTS`].
    pub count: u32,
    /// Their lengths.
    pub lengths: Lengths,
    /// When they come.
    pub arrivals: Arrivals,
    /// How urgent they are. Absent or empty: all 0.
    #[serde(default)]
    pub priorities: Vec<PriorityShare>,
}

/// A priority, and how many of the requests have it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorityShare {
    /// Lower is served first.
    pub priority: u32,
    /// Probability that a request has it. All shares add up to 1 (within 1e-6).
    pub share: f64,
}

impl RequestsSpec {
    /// Draws the requests.
    ///
    /// # Errors
    /// A parameter out of range, or arrivals that go beyond simulated time (213 days).
    pub fn load(&self, seed: u64) -> Result<RequestSet> {
        demand(self.count > 0, "count", self.count, "at least 1 request")?;
        let drawn = requests(self.count, &self.lengths, &self.arrivals, seed)?;
        let mut load = RequestSet { requests: drawn, ..RequestSet::default() };
        prioritize(&mut load.requests, &self.priorities, seed)?;
        load.clients = self.arrivals.clients(load.requests.len(), seed)?;
        Ok(load)
    }
}

/// `count` requests with ids from 0, in order of arrival, without routes and without shared prefixes.
///
/// Lengths come from the stream `lengths`, arrivals from `arrivals`: changing one leaves the other as it was. With
/// [`Arrivals::Clients`] all arrivals are 0.
///
/// # Errors
/// More than [`MOST_REQUESTS`], a parameter out of range, or arrivals that go beyond simulated time (213 days).
pub fn requests(count: u32, lengths: &Lengths, arrivals: &Arrivals, seed: u64) -> Result<Vec<Request>> {
    demand(count <= MOST_REQUESTS, "count", count, &format!("at most {MOST_REQUESTS} requests"))?;
    lengths.prompt.check("lengths.prompt")?;
    lengths.output.check("lengths.output")?;
    arrivals.check()?;
    let mut draw_length = Stream::new(seed, "lengths");
    let mut times = Times::new(arrivals, seed);
    let request = |id: u32| {
        Ok(Request {
            id: u64::from(id),
            arrival: times.next()?,
            prompt_tokens: lengths.prompt.draw(&mut draw_length),
            output_tokens: lengths.output.draw(&mut draw_length),
            priority: 0,
            prefix: Vec::new(),
            runs: Vec::new(),
        })
    };
    (0..count).map(request).collect()
}

/// Draws a priority for each request, in their order, from the stream `priorities`. Without shares they stay as they are.
///
/// # Errors
/// Shares that are no probabilities or do not add up to 1.
pub(super) fn prioritize(requests: &mut [Request], shares: &[PriorityShare], seed: u64) -> Result<()> {
    if shares.is_empty() {
        return Ok(());
    }
    let weights: Vec<f64> = shares.iter().map(|share| share.share).collect();
    for (index, &share) in weights.iter().enumerate() {
        let key = format!("priorities[{index}].share");
        demand((0.0..=1.0).contains(&share), &key, share, "a probability from 0 to 1")?;
    }
    let total: f64 = weights.iter().sum();
    demand((total - 1.0).abs() <= 1e-6, "priorities", total, "shares that add up to 1")?;
    let mut stream = Stream::new(seed, "priorities");
    for request in requests {
        let index = stream.weighted(&weights).expect("checked: the shares add up to 1");
        request.priority = shares[index].priority;
    }
    Ok(())
}
