//! `radialsim trace`: look at, convert and make router traces.

use super::print;
use radialsim::error::{InputError, Result};
use radialsim::report::{PlacementFares, Staged, placed, placed_json};
use radialsim::ron_text;
use radialsim::trace::synth::{Method, generate};
use radialsim::trace::{Hops, Joining, Placement, Prefixes, Stats, Writer, join, open, write};
use radialsim::units::SimTime;
use radialsim::workload::{Arrivals, Length, Lengths, requests};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Simulated time ends after 213 days.
const MOST_OFFSET_S: f64 = 213.0 * 86_400.0;

/// What to do with traces.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Counts requests, tokens, routes and visits of layers.
    Stats {
        /// The trace: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.
        file: PathBuf,
        /// Writes the counts as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Reads a trace and writes it in the encoding of OUT's file ending.
    Convert {
        /// The trace to read.
        from: PathBuf,
        /// The trace to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.
        out: PathBuf,
    },
    /// Joins traces of several runs on the same pool into one.
    Join(Join),
    /// Places the layers of the pool on several devices, and counts how often tokens cross from one to another.
    Place(Place),
    /// Writes a trace with the routes of a published method.
    Synth(Synth),
}

/// A pool over devices.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The trace.
    file: PathBuf,
    /// Devices.
    #[arg(long, value_name = "N")]
    devices: u32,
    /// Layers that a device may have, as a multiple of its even share: 1 for as many as the others, give or take one.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    balance: f64,
    /// Share of the requests, the first to arrive, from which the cut is learned; it is counted on the others.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    learn: f64,
    /// Seed of the search.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Writes the placements and their counts as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Traces to join.
#[derive(Debug, clap::Args)]
pub struct Join {
    /// The traces, in the order in which they follow each other. Requests get new ids.
    #[arg(required = true, num_args = 1.., value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// The trace to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seconds from the begin of each trace to the begin of the next; 0: all begin together.
    #[arg(long, value_name = "S")]
    offset_s: f64,
    /// Needed if several traces have prefix hashes: whether equal hashes are the same prompt blocks (same) or different ones (apart).
    #[arg(long, value_name = "HOW")]
    prefixes: Option<How>,
}

/// What equal prefix hashes of different traces are.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum How {
    /// The same prompt blocks.
    Same,
    /// Different prompt blocks.
    Apart,
}

/// A synthetic trace.
#[derive(Debug, clap::Args)]
pub struct Synth {
    /// File with the method in RON, unless --method says it; then the trace to write.
    #[arg(required = true, num_args = 1..=2, value_name = "METHOD.ron> <OUT")]
    files: Vec<PathBuf>,
    /// The method in RON: 'Dense', 'StaticDepth(keep: DropLast(depth: 24))'.
    #[arg(long, value_name = "RON")]
    method: Option<String>,
    /// Layers of the pool.
    #[arg(long, value_name = "N")]
    layers: u32,
    /// Requests.
    #[arg(long, value_name = "N")]
    requests: u32,
    /// Tokens of a prompt: 'Fixed(100)', 'Uniform(low: 1, high: 9)', 'LogNormal(median: 500, sigma: 0.8)',
    /// 'Geometric(mean: 200)'.
    #[arg(long, value_name = "RON")]
    prompt: String,
    /// Tokens of an output, as --prompt.
    #[arg(long, value_name = "RON")]
    output: String,
    /// When requests come: 'Closed', 'Every(gap_s: 0.1)', 'Poisson(rate_per_s: 5)', 'Gamma(rate_per_s: 5, cv: 2)',
    /// 'Weibull(rate_per_s: 5, shape: 0.7)', 'Bursts(size: 8, gap_s: 2)'.
    #[arg(long, value_name = "RON")]
    arrivals: String,
    /// Seed of everything that is drawn.
    #[arg(long, value_name = "N")]
    seed: u64,
}

/// Does it.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::Stats { file, json } => stats(file, json.as_deref()),
        What::Convert { from, out } => convert(from, out),
        What::Join(join) => join.run(),
        What::Place(place) => place.run(),
        What::Synth(synth) => synth.run(),
    }
}

fn stats(file: &Path, json: Option<&Path>) -> Result<()> {
    let json = json.map(Staged::create).transpose()?;
    let stats = Stats::read(&mut open(file)?)?;
    if let Some(json) = json {
        let text = serde_json::to_string_pretty(&stats).expect("counts are JSON") + "\n";
        json.finish(|out| out.write_all(text.as_bytes()))?;
    }
    print(&radialsim::report::inspect::counts(&stats))
}

/// Request by request, so that memory does not grow with the trace. Requests come in the order in which they complete;
/// readers sort them by arrival.
fn convert(from: &Path, out: &Path) -> Result<()> {
    Staged::check(out)?;
    let mut reader = open(from)?;
    reader.keep_experts();
    let mut writer = Writer::create(out, reader.header())?;
    while let Some(request) = reader.next() {
        writer.request_with(&request?, reader.routes(), reader.experts())?;
    }
    writer.finish(reader.routes())
}

impl Place {
    fn run(&self) -> Result<()> {
        let wrong = |key: &str, found: f64, expected: &str| -> Result<()> {
            Err(InputError::expected(expected).key(key).found(found).into())
        };
        if !(self.balance >= 1.0 && self.balance <= f64::from(u16::MAX)) {
            return wrong("--balance", self.balance, "a factor of at least 1");
        }
        if !(self.learn > 0.0 && self.learn <= 1.0) {
            return wrong("--learn", self.learn, "a share above 0, at most 1");
        }
        let json = self.json.as_deref().map(Staged::create).transpose()?;
        let trace = radialsim::trace::read(&self.file)?;
        let (layers, requests) = (trace.header.layers, trace.requests.len());
        let learned = ((requests as f64 * self.learn).ceil() as usize).min(requests);
        let known = Hops::of(&trace, 0..learned);
        let rest = Hops::of(&trace, if learned < requests { learned..requests } else { 0..requests });
        let most = Placement::most(layers, self.devices, self.balance);
        let placements = [
            ("contiguous", Placement::contiguous(layers, self.devices)?),
            ("round robin", Placement::round_robin(layers, self.devices)?),
            ("cut", Placement::cut(&known, self.devices, most, self.seed)?),
        ];
        let rows = placements.map(|(name, placement)| {
            let (learned, kept) = (known.fares(&placement), rest.fares(&placement));
            PlacementFares { name, placement, learned, kept }
        });
        if let Some(json) = json {
            let text = serde_json::to_string_pretty(&placed_json(&rows)).expect("counts are JSON") + "\n";
            json.finish(|out| out.write_all(text.as_bytes()))?;
        }
        print(&placed(&rows, learned == requests))
    }
}

impl Join {
    fn run(&self) -> Result<()> {
        Staged::check(&self.out)?;
        let s = self.offset_s;
        if !(0.0..MOST_OFFSET_S).contains(&s) {
            let what = format!("seconds from 0 to {MOST_OFFSET_S}");
            return Err(InputError::expected(what).key("--offset-s").found(s).into());
        }
        let prefixes = self.prefixes.map(|how| match how {
            How::Same => Prefixes::Same,
            How::Apart => Prefixes::Apart,
        });
        join(&self.traces, Joining { offset: SimTime::from_s(s), prefixes }, &self.out)
    }
}

impl Synth {
    fn run(&self) -> Result<()> {
        let (method, out): (Method, _) = match (self.files.as_slice(), &self.method) {
            ([out], Some(text)) => (argument("--method", text)?, out),
            ([file, out], None) => {
                let text = ron_text::read(file, "a method", 1 << 20)?;
                (ron_text::parse(&text, "a method in RON").map_err(|error| error.file(file))?, out)
            }
            (files, _) => {
                let error =
                    InputError::expected("METHOD.ron OUT, or --method TEXT and OUT").key("trace synth");
                return Err(error.found(format!("{} files", files.len())).into());
            }
        };
        Staged::check(out)?;
        let prompt: Length = argument("--prompt", &self.prompt)?;
        let output: Length = argument("--output", &self.output)?;
        let arrivals: Arrivals = argument("--arrivals", &self.arrivals)?;
        if self.layers == 0 || self.requests == 0 {
            return Err(InputError::expected("at least one layer and one request").found(0).into());
        }
        if let Arrivals::Clients { .. } = arrivals {
            let what = "arrivals that a trace can hold: it cannot say that clients wait for an end";
            return Err(InputError::expected(what).key("--arrivals").found(&self.arrivals).into());
        }
        let requests = requests(self.requests, &Lengths { prompt, output }, &arrivals, self.seed)?;
        write(out, &generate(&method, self.layers, requests, self.seed)?)
    }
}

/// A value in RON from the command line.
fn argument<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    ron_text::parse(text, "a value in RON").map_err(|error| {
        let key = error.key.as_ref().map_or(name.to_owned(), |key| format!("{name} {key}"));
        InputError { line: None, ..error }.key(key).into()
    })
}
