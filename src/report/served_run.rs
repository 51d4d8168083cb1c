//! A served run as it was measured and as it was simulated, side by side.

use super::sheet::{Sheet, digits};
use crate::calib::covered;
use crate::error::{InputError, Result};
use crate::metrics::{ErrorBar, ErrorKind, Ledger, RequestTimes, Spread};
use crate::sim::{Observer, PassInfo};
use crate::units::SourceKind;
use crate::workload::{ServedRequest, Tick};

/// What is compared, with the names that gates use.
const METRICS: [&str; 4] = ["ttft", "tpot", "e2e", "queue"];
/// Statistics over requests.
const STATISTICS: [&str; 4] = ["mean", "p50", "p90", "p99"];

/// Seconds of each request by metric: measured and simulated.
type Pairs = [Vec<(f64, f64)>; METRICS.len()];

/// How many wait and run in the simulation: from which second on.
#[derive(Clone, Debug, Default)]
pub struct Queue(Vec<(f64, u32, u32)>);

impl Observer for Queue {
    fn pass(&mut self, info: &PassInfo) {
        self.0.push((info.begin.s(), info.waiting, info.running));
    }
}

impl Queue {
    /// Those that wait and run at this second.
    fn at(&self, second: f64) -> (f64, f64) {
        let after = self.0.partition_point(|&(begin, ..)| begin <= second);
        after.checked_sub(1).map_or((0.0, 0.0), |index| (self.0[index].1.into(), self.0[index].2.into()))
    }
}

/// Both runs.
#[derive(Clone, Debug)]
pub struct Served {
    pairs: Pairs,
    /// Seconds from the first arrival to the last token: measured, simulated.
    makespan: (f64, f64),
    output_tokens: u64,
    /// Mean of those that run and those that wait: measured, simulated, and the mean difference without sign.
    queue: Option<[(f64, f64, f64); 2]>,
    extrapolated: f64,
    preemptions: u64,
    error: ErrorBar,
}

impl Served {
    /// Lines requests up by their place in the file.
    ///
    /// # Errors
    /// Requests of the simulation that are not those measured.
    pub fn new(
        measured: &[ServedRequest],
        (ledger, error): (&Ledger, ErrorBar),
        series: Option<(&[Tick], &Queue)>,
    ) -> Result<Served> {
        if measured.len() != ledger.requests.len() {
            let what = format!("as many requests as were measured: {}", measured.len());
            return Err(InputError::expected(what).key("workload").found(ledger.requests.len()).into());
        }
        let mut pairs: Pairs = Default::default();
        for said in &ledger.requests {
            let was = usize::try_from(said.id).ok().and_then(|id| measured.get(id));
            let same = |was: &&ServedRequest| {
                (was.input_toks, was.output_toks) == (said.prompt_tokens, said.output_tokens)
            };
            let was = was.filter(same).ok_or_else(|| {
                let found = format!("{} and {} tokens", said.prompt_tokens, said.output_tokens);
                let what = "the tokens of the same request as measured";
                InputError::expected(what).key(format!("request {}", said.id)).found(found)
            })?;
            for (pairs, (was, said)) in
                pairs.iter_mut().zip(of_measured(was).into_iter().zip(of_simulated(said)))
            {
                if let (Some(was), Some(said)) = (was, said) {
                    pairs.push((was, said));
                }
            }
        }
        let first = measured.iter().map(|request| request.arrival_time).fold(f64::INFINITY, f64::min);
        let last = measured.iter().map(|request| request.last_token_ts).fold(f64::NEG_INFINITY, f64::max);
        Ok(Served {
            pairs,
            makespan: (last - first, ledger.makespan.s()),
            output_tokens: ledger.output_tokens,
            queue: series
                .filter(|(ticks, _)| !ticks.is_empty())
                .map(|(ticks, queue)| over_time(ticks, queue)),
            extrapolated: ledger.source_share(SourceKind::Extrapolated),
            preemptions: ledger.preemptions,
            error,
        })
    }

    /// Measured and simulated value of a statistic of a metric, in seconds.
    fn value(&self, metric: usize, statistic: usize) -> (f64, f64) {
        let spread = |of: fn(&(f64, f64)) -> f64| {
            let spread = Spread::of(self.pairs[metric].iter().map(of).collect());
            spread.map_or(f64::NAN, |Spread { mean, p50, p90, p99, .. }| [mean, p50, p90, p99][statistic])
        };
        (spread(|pair| pair.0), spread(|pair| pair.1))
    }

    /// The gates that are not met, each in words.
    pub fn missed(&self, gates: &[Gate]) -> Vec<String> {
        let miss = |gate: &Gate| {
            let error = error_percent(self.value(gate.metric, gate.statistic));
            // Whatever is no number misses.
            let met = error.abs() <= gate.percent;
            (!met).then(|| {
                let (metric, statistic) = (METRICS[gate.metric], STATISTICS[gate.statistic]);
                format!("{metric}.{statistic} is off by {error:+.2} %, more than {} %", gate.percent)
            })
        };
        gates.iter().filter_map(miss).collect()
    }

    /// The tables.
    pub fn render(&self) -> String {
        let mut columns: [Vec<String>; 7] = Default::default();
        let (mut within, mut known) = (0, 0);
        let mut interval = |name: &str, (was, said): (f64, f64)| {
            let Some(percent) = ErrorKind::of(name).and_then(|kind| kind.percent(&self.error)) else {
                return "-".to_owned();
            };
            known += 1;
            within += usize::from(covered([(said, was, percent)]) == Some(1.0));
            format!("± {percent:.1}")
        };
        for (metric, name) in METRICS.iter().enumerate() {
            let pairs = &self.pairs[metric];
            let differences: f64 = pairs.iter().map(|(was, said)| (said - was).abs()).sum();
            for (statistic, of) in STATISTICS.iter().enumerate() {
                let (was, said) = self.value(metric, statistic);
                let of_each = if statistic == 0 && !pairs.is_empty() {
                    format!("{:.2}", 100.0 * differences / pairs.len() as f64 / was.max(1e-12))
                } else {
                    String::new()
                };
                let cells = [
                    format!("{name}_s"),
                    (*of).to_owned(),
                    digits(was, 5),
                    digits(said, 5),
                    format!("{:+.2}", error_percent((was, said))),
                    interval(&format!("{name}_s"), (was, said)),
                    of_each,
                ];
                columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
            }
        }
        let tokens = self.output_tokens as f64;
        let mut whole = vec![
            ("makespan_s", self.makespan),
            ("output_tokens_per_s", (tokens / self.makespan.0, tokens / self.makespan.1)),
        ];
        if let Some([running, waiting]) = self.queue {
            whole
                .extend([("mean_running", (running.0, running.1)), ("mean_waiting", (waiting.0, waiting.1))]);
        }
        for (name, (was, said)) in whole {
            let cells = [
                name.to_owned(),
                "run".into(),
                digits(was, 5),
                digits(said, 5),
                format!("{:+.2}", error_percent((was, said))),
                interval(name, (was, said)),
                String::new(),
            ];
            columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
        }
        let [metric, of, was, said, error, interval, of_each] = columns;
        let table = Sheet::new()
            .words("metric", metric)
            .words("of", of)
            .numbers("measured", was)
            .numbers("simulated", said)
            .numbers("error\n%", error)
            .numbers("90 %\ninterval", interval)
            .numbers("each request\n%", of_each)
            .render();
        let mut out = table
            + "error: simulated over measured, less one. each request: mean of the differences without sign over the measured mean.\n"
            + &format!(
                "{within} of {known} measured values lie within the nominal 90 % interval (of any source).\n"
            );
        if let Some([running, waiting]) = self.queue {
            out += &format!(
                "At each measured second, running differs by {:.2} requests and waiting by {:.2} on average.\n",
                running.2, waiting.2
            );
        }
        out + &format!(
            "{} preemptions; {:.2} % of the kernel time is extrapolated.\n",
            self.preemptions,
            100.0 * self.extrapolated
        )
    }
}

fn error_percent((was, said): (f64, f64)) -> f64 {
    100.0 * (said / was - 1.0)
}

/// Time to the first token, time for each token after it, time to the last, time until scheduled.
fn of_measured(request: &ServedRequest) -> [Option<f64>; METRICS.len()] {
    let ServedRequest { output_toks, arrival_time, scheduled_ts, first_token_ts, last_token_ts, .. } =
        *request;
    let tpot = (output_toks > 1).then(|| (last_token_ts - first_token_ts) / f64::from(output_toks - 1));
    [
        Some(first_token_ts - arrival_time),
        tpot,
        Some(last_token_ts - arrival_time),
        Some(scheduled_ts - arrival_time),
    ]
}

fn of_simulated(request: &RequestTimes) -> [Option<f64>; METRICS.len()] {
    let RequestTimes { arrival, scheduled, first, last, .. } = *request;
    [
        Some((first - arrival).s()),
        request.tpot_s(),
        Some((last - arrival).s()),
        Some((scheduled - arrival).s()),
    ]
}

fn over_time(ticks: &[Tick], queue: &Queue) -> [(f64, f64, f64); 2] {
    let count = ticks.len() as f64;
    let of = |was: fn(&Tick) -> f64, said: fn((f64, f64)) -> f64| {
        let pairs = ticks.iter().map(|tick| (was(tick), said(queue.at(tick.t))));
        let add = |sum: (f64, f64, f64), (was, said): (f64, f64)| {
            (sum.0 + was, sum.1 + said, sum.2 + (said - was).abs())
        };
        let sum = pairs.fold((0.0, 0.0, 0.0), add);
        (sum.0 / count, sum.1 / count, sum.2 / count)
    };
    [of(|tick| tick.running, |(_, running)| running), of(|tick| tick.waiting, |(waiting, _)| waiting)]
}

/// How far a statistic may lie from what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    metric: usize,
    statistic: usize,
    percent: f64,
}

impl std::str::FromStr for Gate {
    type Err = String;

    /// `tpot.mean=2`: percent.
    fn from_str(text: &str) -> std::result::Result<Gate, String> {
        let parts = text.split_once('=').and_then(|(key, percent)| Some((key.split_once('.')?, percent)));
        let gate = parts.and_then(|((metric, statistic), percent)| {
            Some(Gate {
                metric: METRICS.iter().position(|name| *name == metric)?,
                statistic: STATISTICS.iter().position(|name| *name == statistic)?,
                percent: percent.parse().ok().filter(|&percent: &f64| (0.0..=1000.0).contains(&percent))?,
            })
        });
        let expected = || {
            format!(
                "METRIC.STATISTIC=PERCENT, one of {}, a dot, one of {}, and 0 to 1000",
                METRICS.join(", "),
                STATISTICS.join(", ")
            )
        };
        gate.ok_or_else(expected)
    }
}
