//! How much memory the runs of a scenario may take, known before they run.
//!
//! Each term counts what is there at the worst moment: all sequences with the longest request, no two tokens on one route, no two sequences
//! in one pass. `tests/it/sim/footprint.rs` runs scenarios of every kind and holds their peak memory against the sum.

use super::{Built, Scenario};
use crate::batch::{Hop, Path, Skip};
use crate::lower::Lowering;
use crate::metrics::{Gap, RequestTimes};
use crate::sim::Fidelity;
use crate::trace::{Request, RouteIds, Run, Step, Taken};
use std::collections::HashSet;

/// The program with a profile and a model, before anything runs: 19 MB of `simulate` for one request on each of the largest profiles (B200, L40S, H100, fitted).
const PROGRAM: u64 = 32 << 20;
/// Prices of an engine at one clock: at most 2^14 stretches of kernels of about a kilobyte, and as many shapes of 200 bytes.
const PRICES: u64 = 24 << 20;
/// Clocks whose prices are kept under a power cap.
const CLOCKS: u64 = 8;
/// A sequence that runs, and what of it there is for each layer: its KV blocks, its context.
const SEQUENCE: (u64, u64) = (2048, 64);
/// A request in the queues, and a block of a prompt that is kept for others.
const QUEUED: u64 = 64;
const PREFIX: u64 = 128;
/// A call of a kernel in a graph that is run event by event: the call, its price, its task and what it waits for.
const CALL: u64 = 512;
/// Calls for a visit of a layer by one group, at most: those of a block with experts.
const CALLS: u64 = 32;
/// A compiled path beside its hops: entries by layer, its place among those that are known.
const PATH: u64 = 256;
/// A vector grows to twice its length; what a summary sorts is a copy of some numbers of each request.
const GROWTH: u64 = 2;
const SORTED: u64 = 160;
/// What an allocation takes beside its bytes.
const ALLOCATION: u64 = 32;

/// Most bytes of memory of a scenario's runs, by what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// What is held, and its bytes.
    pub parts: Vec<(&'static str, u64)>,
}

impl Footprint {
    /// Of a scenario that was built, run on so many threads.
    pub fn of(scenario: &Scenario, built: &[Built], threads: usize) -> Footprint {
        let sum = |of: &dyn Fn(&Built) -> u64| built.iter().map(of).fold(0, u64::saturating_add);
        let seeds = u64::from(scenario.seeds.max(1));
        let threads = threads.max(1) as u64;
        // The requests of the first seed stay; others are drawn where they run. A build has those of all variants and its own.
        let draws = 1 + threads.min(seeds - 1);
        let most = |of: &dyn Fn(&Built) -> u64| {
            let mut all: Vec<u64> = built.iter().map(of).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            let at_once = threads.min(all.len() as u64 * seeds) as usize;
            all.iter().cycle().take(at_once).fold(0, |sum: u64, &bytes| sum.saturating_add(bytes))
        };
        let own = built.iter().map(requests).max().unwrap_or(0);
        Footprint {
            parts: vec![
                ("program and profile", PROGRAM),
                ("requests", draws.saturating_mul(sum(&requests).saturating_add(GROWTH * own))),
                ("results of requests", seeds.saturating_mul(sum(&results))),
                ("times between tokens, if no two sequences share a pass", seeds.saturating_mul(sum(&gaps))),
                ("prices", most(&prices)),
                ("sequences that run", most(&sequences)),
                ("routes of what runs", most(&routes)),
                ("kernels of one pass", most(&kernels)),
            ],
        }
    }

    /// The sum.
    pub fn at_most(&self) -> u64 {
        self.parts.iter().map(|&(_, bytes)| bytes).fold(0, u64::saturating_add)
    }
}

/// Bytes of so many values of a type.
fn of<T>(count: usize) -> u64 {
    (count as u64).saturating_mul(size_of::<T>() as u64)
}

fn requests(built: &Built) -> u64 {
    let trace = &built.trace;
    let own = |request: &Request| {
        of::<Run>(request.runs.capacity()) + of::<u64>(request.prefix.capacity()) + 2 * ALLOCATION
    };
    let mut cycles = HashSet::new();
    let ids = trace.requests.iter().flat_map(|request| &request.runs).map(|run| &run.routes);
    let ids: u64 = ids
        .map(RouteIds::cycle_bytes)
        .filter(|&(place, _)| cycles.insert(place))
        .map(|(_, bytes)| bytes + ALLOCATION)
        .sum();
    let steps: u64 = trace.routes.iter().map(|route| of::<Step>(route.0.len()) + 3 * ALLOCATION).sum();
    of::<Request>(trace.requests.len()) + trace.requests.iter().map(own).sum::<u64>() + ids + steps
}

fn results(built: &Built) -> u64 {
    let count = built.trace.requests.len();
    (GROWTH * of::<RequestTimes>(count)).saturating_add(SORTED * count as u64)
}

fn gaps(built: &Built) -> u64 {
    let tokens: u64 = built.trace.requests.iter().map(|request| u64::from(request.output_tokens)).sum();
    tokens.saturating_mul(GROWTH * size_of::<Gap>() as u64 + 16)
}

fn prices(built: &Built) -> u64 {
    let capped = built.setup.limits.power_w.is_some() || built.setup.limits.board;
    // A pass is priced as it runs and as the first variant would run it, on each engine.
    let forms = if built.setup.explain { 2 } else { 1 } * if capped { CLOCKS } else { 1 };
    PRICES * forms * u64::from(built.fleet.engines())
}

/// Requests that run at once on all engines, at most, and one that was drawn and did not fit.
fn running(built: &Built) -> u64 {
    let each = u64::from(built.setup.serving.max_sequences) + 1;
    let engines = u64::from(built.fleet.engines());
    each.saturating_mul(engines).min(built.trace.requests.len() as u64)
}

fn sequences(built: &Built) -> u64 {
    let (own, by_layer) = SEQUENCE;
    let each = own + by_layer * u64::from(built.setup.model.layers);
    let prefixes: u64 = built.trace.requests.iter().map(|request| request.prefix.len() as u64).sum();
    let queued = QUEUED * built.trace.requests.len() as u64 + PREFIX * prefixes;
    running(built).saturating_mul(each).saturating_add(queued)
}

fn tokens_of(request: &Request) -> u64 {
    u64::from(request.prompt_tokens) + u64::from(request.output_tokens)
}

/// Tokens of the requests that run at once, at most.
fn tokens_at_once(built: &Built) -> u64 {
    let mut all: Vec<u64> = built.trace.requests.iter().map(tokens_of).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.iter().take(running(built) as usize).sum()
}

fn routes(built: &Built) -> u64 {
    let layers = built.setup.model.layers as usize;
    let path = |hops: usize| {
        // Of a route: its steps, which were drawn, its hops, what it skips, and what it leaves by layer.
        let by_layer = of::<Skip>(layers) + of::<[u64; 2]>(layers) + of::<u32>(layers);
        of::<Step>(hops) + of::<Hop>(hops) + by_layer + size_of::<Path>() as u64 + PATH
    };
    let tokens = tokens_at_once(built);
    let sets = of::<Taken>(layers.div_ceil(64)) + size_of::<u32>() as u64;
    match &built.later {
        Some(later)
            if later.draws_sets()
                && Lowering::new(&built.setup.model, built.setup.dispatch.clone()).takes_sets() =>
        {
            // What is drawn grows to twice its length before it is kept.
            let longest = built.trace.requests.iter().map(tokens_of).max();
            tokens.saturating_add(GROWTH * 4 * longest.unwrap_or(0)).saturating_mul(sets)
        }
        Some(later) => tokens.saturating_mul(path(later.longest() as usize) + 2 * sets),
        None => {
            let all: u64 = built.trace.routes.iter().map(|route| 2 * path(route.0.len())).sum();
            all.saturating_add(tokens.saturating_mul(sets))
        }
    }
}

fn kernels(built: &Built) -> u64 {
    if built.setup.fidelity == Fidelity::Step {
        return 0;
    }
    let hops = built.later.as_ref().map(|later| later.longest() as usize);
    let hops = hops.or_else(|| built.trace.routes.iter().map(|route| route.0.len()).max()).unwrap_or(0);
    let (layers, hops) = (u64::from(built.setup.model.layers), (hops as u64).max(1));
    // At each hop no more groups than tokens or layers.
    let tokens = u64::from(built.setup.serving.max_batched_tokens).max(running(built));
    let groups = layers.min(tokens).saturating_mul(hops).max(layers);
    groups.saturating_mul(CALLS * CALL)
}
