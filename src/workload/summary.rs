//! What requests look like as a whole.

use super::RequestSet;
use crate::units::{PS_PER_S, SimTime};
use std::collections::HashSet;

/// Counts of the requests of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSummary {
    /// How many.
    pub requests: usize,
    /// From the first arrival to the last.
    pub span: SimTime,
    /// Requests per second: gaps over their sum. `None` where all come at once.
    pub rate_per_s: Option<f64>,
    /// Coefficient of variation of the gaps: their standard deviation (of all gaps, not of a sample) over their mean. 1 for a
    /// Poisson process. `None` where all come at once.
    pub gap_cv: Option<f64>,
    /// Prompt tokens.
    pub prompt: LengthSummary,
    /// Output tokens.
    pub output: LengthSummary,
    /// Prompt blocks with a hash, and how many of those had been seen in an earlier request (by arrival). `None` where
    /// requests have no hashes.
    pub blocks: Option<(u64, u64)>,
}

/// Counts of lengths, in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LengthSummary {
    /// Sum.
    pub total: u64,
    /// Smallest.
    pub least: u32,
    /// Smallest length that at least half of the requests do not exceed.
    pub p50: u32,
    /// Smallest length that at least 99 of 100 requests do not exceed.
    pub p99: u32,
    /// Largest.
    pub most: u32,
}

impl RequestSummary {
    /// Counts. Nothing is left out, so it takes memory for the lengths and the distinct hashes.
    pub fn of(load: &RequestSet) -> Self {
        let requests = &load.requests;
        let first = requests.first().map_or(SimTime::ZERO, |request| request.arrival);
        let last = requests.last().map_or(SimTime::ZERO, |request| request.arrival);
        let span = last.saturating_sub(first);
        let gaps = requests.len().saturating_sub(1) as f64;
        let mean = span.s() / gaps;
        let squares = requests.windows(2).map(|pair| {
            let off = (pair[1].arrival.saturating_sub(pair[0].arrival)).s() - mean;
            off * off
        });
        let some = span > SimTime::ZERO;
        let gap_cv = some.then(|| libm::sqrt(squares.sum::<f64>() / gaps) / mean);
        let mut seen = HashSet::new();
        let (mut blocks, mut again) = (0, 0);
        for request in requests {
            let known = request.prefix.iter().filter(|hash| seen.contains(*hash)).count();
            (blocks, again) = (blocks + request.prefix.len() as u64, again + known as u64);
            seen.extend(request.prefix.iter().copied());
        }
        RequestSummary {
            requests: requests.len(),
            span,
            rate_per_s: some.then(|| gaps * PS_PER_S as f64 / span.ps() as f64),
            gap_cv,
            prompt: LengthSummary::of(requests.iter().map(|request| request.prompt_tokens)),
            output: LengthSummary::of(requests.iter().map(|request| request.output_tokens)),
            blocks: (blocks > 0).then_some((blocks, again)),
        }
    }
}

impl LengthSummary {
    fn of(lengths: impl Iterator<Item = u32>) -> Self {
        let mut lengths: Vec<u32> = lengths.collect();
        lengths.sort_unstable();
        let quantile = |percent: usize| {
            let rank = (lengths.len() * percent).div_ceil(100).max(1);
            lengths.get(rank - 1).copied().unwrap_or(0)
        };
        LengthSummary {
            total: lengths.iter().map(|&length| u64::from(length)).sum(),
            least: lengths.first().copied().unwrap_or(0),
            p50: quantile(50),
            p99: quantile(99),
            most: lengths.last().copied().unwrap_or(0),
        }
    }

    /// Tokens of a request on average; 0 without requests.
    pub fn mean(&self, requests: usize) -> f64 {
        if requests == 0 { 0.0 } else { self.total as f64 / requests as f64 }
    }
}
