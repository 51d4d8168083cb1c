//! When drawn requests arrive, and clients that wait for an answer before they ask again.

use crate::error::{Result, demand};
use crate::rng::Stream;
use crate::units::{PS_PER_S, SimTime};
use serde::{Deserialize, Serialize};

/// When requests arrive, counted from the start of the trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Arrivals {
    /// All at the start: a closed batch.
    Closed,
    /// One after the other, the first at the start.
    Every {
        /// Gap in seconds.
        gap_s: f64,
    },
    /// A Poisson process: exponential gaps, the first one before the first request.
    Poisson {
        /// Mean rate in requests per second, above 0.
        rate_per_s: f64,
    },
    /// Gaps with a gamma distribution of shape 1/cv^2 and mean 1/rate, the first one before the first request. A `cv` of 1 is
    /// a Poisson process; above 1, requests bunch together.
    Gamma {
        /// Mean rate in requests per second, above 0.
        rate_per_s: f64,
        /// Coefficient of variation of the gaps (standard deviation over mean), 0.01 to 100.
        cv: f64,
    },
    /// Gaps with a Weibull distribution of this shape k and scale 1 / (rate * G(1 + 1/k)), G being the gamma function; the
    /// first one before the first request. A `shape` of 1 is a Poisson process; below 1, requests bunch together.
    Weibull {
        /// Mean rate in requests per second, above 0.
        rate_per_s: f64,
        /// Shape, 0.1 to 100.
        shape: f64,
    },
    /// Bursts at equal distances, the first at the start: request i comes at floor(i / size) gap_s + (i mod size) within_s / size.
    Bursts {
        /// Requests of a burst, at least 1.
        size: u32,
        /// From the start of a burst to the start of the next, in seconds.
        gap_s: f64,
        /// Time over which the requests of a burst are spread evenly, at most `gap_s`. Absent: 0, all at once.
        #[serde(default)]
        within_s: f64,
    },
    /// A closed loop: each client sends its next request when its last one has finished and it has thought. Requests have no
    /// arrivals of their own then (they say 0); [`Clients`] says who waits for what.
    Clients {
        /// How many, at least 1.
        count: u32,
        /// Pause between the end of a request and the next one of the same client, in seconds.
        think_s: Think,
    },
}

/// How long clients think, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Think {
    /// Always this long.
    Fixed(f64),
    /// Exponential with this mean.
    Exponential(f64),
}

/// Closed-loop clients: requests 0 to `count - 1` are sent at the start, each later one, in order, by the client whose
/// request finishes next, after `think[index]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// How many clients there are, so how many requests are at most unfinished at a time.
    pub count: u32,
    /// For each request, by its place in the list of requests: the pause before it is sent. Those of the first `count`
    /// requests are not used. Drawn one by one from the stream `think`, so that each depends on its place and the seed only.
    pub think: Vec<SimTime>,
}

impl Arrivals {
    /// The clients that send `requests` requests, where these arrivals are a closed loop.
    ///
    /// # Errors
    /// A parameter out of range.
    pub fn clients(&self, requests: usize, seed: u64) -> Result<Option<Clients>> {
        self.check()?;
        let Arrivals::Clients { count, think_s } = *self else { return Ok(None) };
        let mut stream = Stream::new(seed, "think");
        let pause = |_| match think_s {
            Think::Fixed(s) => SimTime::from_s(s),
            Think::Exponential(mean) => SimTime::from_s(stream.exponential(mean)),
        };
        Ok(Some(Clients { count, think: (0..requests).map(pause).collect() }))
    }

    pub(super) fn check(&self) -> Result<()> {
        let rate = |rate: f64| {
            let right = rate.is_finite() && rate > 0.0;
            demand(right, "arrivals.rate_per_s", rate, "a finite rate above 0")
        };
        let seconds = |key: &str, s: f64| {
            let what = "a finite number of seconds, at least 0";
            demand(s.is_finite() && s >= 0.0, &format!("arrivals.{key}"), s, what)
        };
        match *self {
            Arrivals::Closed => Ok(()),
            Arrivals::Every { gap_s } => seconds("gap_s", gap_s),
            Arrivals::Poisson { rate_per_s } => rate(rate_per_s),
            Arrivals::Gamma { rate_per_s, cv } => {
                rate(rate_per_s)?;
                demand((0.01..=100.0).contains(&cv), "arrivals.cv", cv, "a number from 0.01 to 100")
            }
            Arrivals::Weibull { rate_per_s, shape } => {
                rate(rate_per_s)?;
                demand((0.1..=100.0).contains(&shape), "arrivals.shape", shape, "a number from 0.1 to 100")
            }
            Arrivals::Bursts { size, gap_s, within_s } => {
                demand(size > 0, "arrivals.size", size, "at least 1 request")?;
                seconds("gap_s", gap_s)?;
                seconds("within_s", within_s)?;
                demand(within_s <= gap_s, "arrivals.within_s", within_s, "at most gap_s")
            }
            Arrivals::Clients { count, think_s: Think::Fixed(s) | Think::Exponential(s) } => {
                demand(count > 0, "arrivals.count", count, "at least 1 client")?;
                seconds("think_s", s)
            }
        }
    }
}

/// Draws arrivals one after the other, from the stream `arrivals`.
pub(super) struct Times<'a> {
    arrivals: &'a Arrivals,
    stream: Stream,
    drawn: u32,
    now_s: f64,
}

impl<'a> Times<'a> {
    /// Arrivals that were checked.
    pub fn new(arrivals: &'a Arrivals, seed: u64) -> Self {
        Times { arrivals, stream: Stream::new(seed, "arrivals"), drawn: 0, now_s: 0.0 }
    }

    /// The next arrival, not before the last.
    ///
    /// # Errors
    /// A time beyond simulated time.
    pub fn next(&mut self) -> Result<SimTime> {
        let id = self.drawn;
        self.drawn += 1;
        self.now_s = match *self.arrivals {
            Arrivals::Poisson { rate_per_s } => self.now_s + self.stream.exponential(1.0 / rate_per_s),
            Arrivals::Gamma { rate_per_s, cv } => {
                let variance = cv * cv;
                self.now_s + self.stream.gamma(1.0 / variance) * variance / rate_per_s
            }
            Arrivals::Weibull { rate_per_s, shape } => {
                let scale = 1.0 / (rate_per_s * libm::tgamma(1.0 + 1.0 / shape));
                self.now_s + scale * libm::pow(self.stream.exponential(1.0), 1.0 / shape)
            }
            Arrivals::Bursts { size, gap_s, within_s } => {
                let (burst, place) = (f64::from(id / size), f64::from(id % size));
                burst * gap_s + place * within_s / f64::from(size)
            }
            Arrivals::Every { gap_s } if id > 0 => self.now_s + gap_s,
            Arrivals::Every { .. } | Arrivals::Closed | Arrivals::Clients { .. } => self.now_s,
        };
        let what = "arrivals within the 213 days of simulated time";
        let within = self.now_s * PS_PER_S as f64 <= u64::MAX as f64;
        demand(within, "arrivals", format_args!("{} s", self.now_s), what)?;
        Ok(SimTime::from_s(self.now_s))
    }
}
