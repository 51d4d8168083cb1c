//! Service level objectives, and how much of the work met them.

use super::{Ledger, RequestTimes};
use crate::units::SimTime;
use serde::{Deserialize, Serialize};

/// Bounds on the times of a request, in seconds; each may be absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Most time to the first output token.
    #[serde(default)]
    pub ttft_s: Option<f64>,
    /// Most time per output token behind the first.
    #[serde(default)]
    pub tpot_s: Option<f64>,
    /// Most time to the last output token.
    #[serde(default)]
    pub e2e_s: Option<f64>,
}

impl Slo {
    /// The bounds with their keys.
    pub fn bounds(&self) -> [(&'static str, Option<f64>); 3] {
        [("ttft_s", self.ttft_s), ("tpot_s", self.tpot_s), ("e2e_s", self.e2e_s)]
    }

    /// Whether a bound is stated.
    pub fn is_stated(&self) -> bool {
        self.bounds().iter().any(|(_, bound)| bound.is_some())
    }

    /// Whether the request met every bound. One output token has no time per output token and meets that bound.
    pub fn is_met(&self, request: &RequestTimes) -> bool {
        // Both sides in whole picoseconds: the sum of the gaps against bound x gaps.
        let within = |time: SimTime, bound_s: Option<f64>, times: u32| {
            bound_s.is_none_or(|bound_s| {
                u128::from(time.ps()) <= u128::from(SimTime::from_s(bound_s).ps()) * u128::from(times)
            })
        };
        let RequestTimes { arrival, first, last, output_tokens, .. } = *request;
        within(first - arrival, self.ttft_s, 1)
            && (output_tokens < 2 || within(last - first, self.tpot_s, output_tokens - 1))
            && within(last - arrival, self.e2e_s, 1)
    }
}

/// What was served within the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goodput {
    /// The bound on the time to the first token, where it was stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_s: Option<f64>,
    /// The bound on the time per output token, where it was stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_s: Option<f64>,
    /// The bound on the time to the last token, where it was stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2e_s: Option<f64>,
    /// Share of the requests that met all of them.
    pub attained: f64,
    /// Such requests a second of the makespan.
    pub requests_per_s: f64,
    /// Output tokens of such requests, a second of the makespan.
    pub output_tokens_per_s: f64,
}

impl Goodput {
    /// Of a run; none where no bound is stated.
    pub fn of(slo: &Slo, ledger: &Ledger) -> Option<Self> {
        Goodput::since(slo, ledger, SimTime::ZERO)
    }

    /// Of the requests of a run that arrive from a time on, over the time from there to the end of the run.
    pub fn since(slo: &Slo, ledger: &Ledger, since: SimTime) -> Option<Self> {
        if !slo.is_stated() {
            return None;
        }
        let counted = || ledger.requests.iter().filter(|request| request.arrival >= since);
        let met = || counted().filter(|request| slo.is_met(request));
        let tokens: u64 = met().map(|request| u64::from(request.output_tokens)).sum();
        let count = met().count() as f64;
        let time_s = (ledger.makespan - since).s();
        let Slo { ttft_s, tpot_s, e2e_s } = *slo;
        Some(Goodput {
            ttft_s,
            tpot_s,
            e2e_s,
            attained: super::ratio(count, counted().count() as f64),
            requests_per_s: super::ratio(count, time_s),
            output_tokens_per_s: super::ratio(tokens as f64, time_s),
        })
    }
}
