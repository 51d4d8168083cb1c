//! What a trace holds, in a few numbers.

use super::{Header, KvAction, Phase, Reader, Request, RouteTable, Trace};
use crate::error::Result;
use crate::units::SimTime;
use serde::Serialize;
use std::collections::HashSet;

/// Counts over a trace. Serialized, it has exactly the keys `requests`, `tokens`, `routes`, `mean_depth` and
/// `layer_visits`; the rest is for people.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Requests.
    pub requests: u64,
    /// Tokens with a route: drafted, verified and recomputed ones count each time they run.
    pub tokens: u64,
    /// Route definitions.
    pub routes: u64,
    /// Mean over those tokens of the depth in whole blocks: a branch counts half, an adapter nothing. 0 without tokens.
    pub mean_depth: f64,
    /// For each layer of the pool, how many steps of those tokens name it.
    pub layer_visits: Vec<u64>,
    #[serde(skip)]
    more: More,
}

#[derive(Clone, Debug, Default)]
struct More {
    uses: Vec<u64>,
    prompt_tokens: u64,
    output_tokens: u64,
    prefill: u64,
    span: Option<(SimTime, SimTime)>,
    kv: Option<KvAction>,
    skips: f64,
}

impl Stats {
    /// Counts what `reader` has left. Memory is the reader's, and eight bytes a route.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read(reader: &mut Reader) -> Result<Self> {
        let mut stats = Stats::default();
        for request in reader.by_ref() {
            stats.add(&request?);
        }
        stats.finish(reader.header(), reader.routes());
        Ok(stats)
    }

    /// Counts a trace in memory.
    pub fn of(trace: &Trace) -> Self {
        let mut stats = Stats::default();
        trace.requests.iter().for_each(|request| stats.add(request));
        stats.finish(&trace.header, &trace.routes);
        stats
    }

    fn add(&mut self, request: &Request) {
        let more = &mut self.more;
        self.requests += 1;
        more.prompt_tokens += u64::from(request.prompt_tokens);
        more.output_tokens += u64::from(request.output_tokens);
        let (first, last) = more.span.unwrap_or((request.arrival, request.arrival));
        more.span = Some((first.min(request.arrival), last.max(request.arrival)));
        for run in &request.runs {
            self.tokens += u64::from(run.routes.len());
            if run.phase == Phase::Prefill {
                more.prefill += u64::from(run.routes.len());
            }
            for (route, times) in run.routes.counted() {
                let route = route as usize;
                if more.uses.len() <= route {
                    more.uses.resize(route + 1, 0);
                }
                more.uses[route] += u64::from(times);
            }
        }
    }

    fn finish(&mut self, header: &Header, routes: &RouteTable) {
        self.routes = routes.len() as u64;
        self.layer_visits = vec![0; header.layers as usize];
        self.more.uses.resize(routes.len(), 0);
        self.more.kv = Some(header.kv);
        let (mut depth, mut skips, mut named) = (0.0, 0.0, HashSet::new());
        for (route, &uses) in routes.iter().zip(&self.more.uses) {
            if uses == 0 {
                continue;
            }
            depth += route.depth() * uses as f64;
            named.clear();
            for step in &route.0 {
                self.layer_visits[step.layer as usize] += uses;
                named.insert(step.layer);
            }
            skips += f64::from(header.layers - named.len() as u32) * uses as f64;
        }
        self.mean_depth = depth / self.tokens.max(1) as f64;
        self.more.skips = skips / (self.tokens.max(1) as f64 * f64::from(header.layers));
    }

    /// How many tokens take each route, by index of the route table.
    pub fn uses(&self) -> &[u64] {
        &self.more.uses
    }

    /// Mean prompt length in tokens; 0 without requests.
    pub fn mean_prompt_tokens(&self) -> f64 {
        self.more.prompt_tokens as f64 / self.requests.max(1) as f64
    }

    /// Mean output length in tokens; 0 without requests.
    pub fn mean_output_tokens(&self) -> f64 {
        self.more.output_tokens as f64 / self.requests.max(1) as f64
    }

    /// First and last arrival.
    pub fn arrivals(&self) -> Option<(SimTime, SimTime)> {
        self.more.span
    }

    /// Tokens with a route in prefill, and in decode.
    pub fn phases(&self) -> (u64, u64) {
        (self.more.prefill, self.tokens - self.more.prefill)
    }

    /// The trace's KV action for skipped layers.
    pub fn kv(&self) -> KvAction {
        self.more.kv.unwrap_or(KvAction::Write)
    }

    /// Fraction of (token, layer of the pool) pairs in which the token's route does not name the layer at all.
    pub fn skipped(&self) -> f64 {
        self.more.skips
    }
}
