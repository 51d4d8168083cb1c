//! Whether a run shows a steady state: where its warm-up ends, and whether the requests in the system still grow.
//! Both look at requests in the order of their arrivals. The formulas stand in `docs/ERRORS.md`, "Steady state".

use super::RequestTimes;
use crate::units::SimTime;
use serde::{Deserialize, Serialize};

/// How the requests of the warm-up are told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmUp {
    /// MSER-5 (K. P. White, An effective truncation heuristic for bias reduction in simulation output, Simulation 69(6), 1997; on means of
    /// five: K. P. White, M. J. Cobb, S. C. Spratt, Winter Simulation Conference 2000) on the times to first token and per output token;
    /// the later end counts.
    Mser5,
}

impl WarmUp {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            WarmUp::Mser5 => "MSER-5",
        }
    }
}

/// Which requests a warm-up leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// By which method.
    pub method: WarmUp,
    /// Whether the method found an end; if not, nothing is left out: the run is too short, or has no steady state.
    pub found: bool,
    /// Requests left out.
    pub requests: u64,
    /// Arrival of the first request that counts, in seconds from the start of the trace.
    pub until_s: f64,
}

/// Requests whose values are averaged before the cut is looked for.
const BATCH: usize = 5;

/// Means at the end behind which no cut is looked for: a variance of few means little.
const LAST: usize = 5;

/// How many of `values` to leave out at the start so that the standard error of the mean of the rest is the least, by means of five:
/// the d that minimises the sum over j > d of (Z_j - mean)^2, over (m - d)^2. None where that is more than half of them, or where
/// there are not ten means.
pub fn mser5(values: &[f64]) -> Option<usize> {
    let means: Vec<f64> =
        values.chunks_exact(BATCH).map(|batch| batch.iter().sum::<f64>() / BATCH as f64).collect();
    if means.len() < 2 * LAST {
        return None;
    }
    let error = |from: usize| {
        let rest = &means[from..];
        let count = rest.len() as f64;
        let mean = rest.iter().sum::<f64>() / count;
        rest.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (count * count)
    };
    let errors: Vec<f64> = (0..=means.len() - LAST).map(error).collect();
    let least = (0..errors.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b]))?;
    (least <= means.len() / 2).then_some(least * BATCH)
}

fn by_arrival(requests: &[RequestTimes]) -> Vec<&RequestTimes> {
    let mut sorted: Vec<&RequestTimes> = requests.iter().collect();
    sorted.sort_by_key(|request| (request.arrival, request.id));
    sorted
}

impl Cut {
    /// Of these requests.
    pub fn of(method: WarmUp, requests: &[RequestTimes]) -> Cut {
        let sorted = by_arrival(requests);
        // Who is not over when the last request comes has the device more and more to itself, which is no matter of the start.
        let end = sorted.last().map_or(SimTime::ZERO, |request| request.arrival);
        let whole: Vec<&&RequestTimes> = sorted.iter().filter(|request| request.last <= end).collect();
        let until = |of: &dyn Fn(&RequestTimes) -> Option<f64>| -> Option<SimTime> {
            let series: Vec<(SimTime, f64)> =
                whole.iter().filter_map(|request| Some((request.arrival, of(request)?))).collect();
            let values: Vec<f64> = series.iter().map(|(_, value)| *value).collect();
            match method {
                WarmUp::Mser5 => Some(series[mser5(&values)?].0),
            }
        };
        let ttft = until(&|request| Some((request.first - request.arrival).s()));
        // Where no request has two tokens there is no second series.
        let tpot = match sorted.iter().any(|request| request.tpot_s().is_some()) {
            true => until(&RequestTimes::tpot_s),
            false => ttft,
        };
        let found = ttft.is_some() && tpot.is_some();
        let until = ttft.max(tpot).filter(|_| found).unwrap_or(SimTime::ZERO);
        let left_out = sorted.iter().filter(|request| request.arrival < until).count() as u64;
        Cut { method, found, requests: left_out, until_s: until.s() }
    }
}

/// Whether the requests in the system still grow while requests come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// By how many requests the system fills over the later half of the arrivals, along the line of least squares.
    pub requests: f64,
    /// Kendall's S of the ten means: pairs that rise, less pairs that fall; 45 at most.
    pub kendall_s: f64,
    /// Whether that is growth: not stable at this rate, or a run too short to tell.
    pub grows: bool,
}

/// Means that are compared.
const MEANS: usize = 10;

/// Kendall's S of ten values in any order is this or more once in 120 cases (exact: 0.0083; M. Kendall, Rank correlation methods).
const GROWS: f64 = 27.0;

/// Growth that counts: a share of the mean, and requests.
const SHARE: f64 = 0.1;
const REQUESTS: f64 = 1.0;

impl Growth {
    /// Of requests that come by times of their own. None for fewer than forty, or where the later half comes at once.
    pub fn of(requests: &[RequestTimes]) -> Option<Growth> {
        let sorted = by_arrival(requests);
        let half = sorted.len() / 2;
        if half < 2 * MEANS || sorted[half].arrival == sorted[sorted.len() - 1].arrival {
            return None;
        }
        let mut ends: Vec<SimTime> = sorted.iter().map(|request| request.last).collect();
        ends.sort_unstable();
        // Whom a request finds: those who came before it less those who have gone.
        let found = |place: usize| {
            let gone = ends.partition_point(|end| *end <= sorted[place].arrival);
            (place - gone) as f64
        };
        let later = sorted.len() - half;
        let mean = |batch: usize| {
            let places = half + later * batch / MEANS..half + later * (batch + 1) / MEANS;
            places.clone().map(found).sum::<f64>() / places.len() as f64
        };
        let means: Vec<f64> = (0..MEANS).map(mean).collect();
        let pairs = (0..MEANS).flat_map(|a| (a + 1..MEANS).map(move |b| (a, b)));
        let kendall_s: f64 =
            pairs.map(|(a, b)| if means[b] == means[a] { 0.0 } else { (means[b] - means[a]).signum() }).sum();
        let (middle, all) = ((MEANS - 1) as f64 / 2.0, means.iter().sum::<f64>() / MEANS as f64);
        let (mut over, mut under) = (0.0, 0.0);
        for (batch, mean) in means.iter().enumerate() {
            over += (batch as f64 - middle) * (mean - all);
            under += (batch as f64 - middle) * (batch as f64 - middle);
        }
        let requests = over / under * MEANS as f64;
        let grows = kendall_s >= GROWS && requests >= REQUESTS.max(SHARE * all);
        Some(Growth { requests, kendall_s, grows })
    }
}
