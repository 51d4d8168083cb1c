//! Routes that are drawn when their request begins, and forgotten with it.

use super::skips::SkipDraws;
use super::{Method, check_lengths, generate, generator, header, own_stream, tokens};
use crate::error::Result;
use crate::trace::{KvAction, Phase, Request, Route, RouteTable, Run, TAKEN_LAYERS, Taken, Trace};

/// What draws the routes of a trace request by request: those that [`generate`] gives it all at once.
///
/// Where every token leaves an entry at every layer (`project_only`), what it leaves does not depend on what it takes. So a
/// trace with the dense route for all says everything but the branches that run, which are drawn as sets. Others are drawn as routes.
#[derive(Clone, Debug)]
pub struct Later {
    method: Method,
    layers: u32,
    seed: u64,
    skips: Option<SkipDraws>,
    sets: bool,
}

impl Later {
    /// For requests without runs: the trace that stands for them, and what draws the rest. `None` where there is nothing to gain: the method has few
    /// routes, or generated tokens may all take one.
    ///
    /// # Errors
    /// Those of [`generate`].
    pub fn new(
        method: &Method,
        layers: u32,
        requests: &[Request],
        seed: u64,
    ) -> Result<Option<(Trace, Later)>> {
        let sets = match method {
            Method::IndependentSkips { kv, .. } | Method::CorrelatedSkips { kv, .. } => {
                *kv == KvAction::ProjectOnly && layers <= TAKEN_LAYERS
            }
            Method::MixtureOfDepths { .. } | Method::Radial { .. } => false,
            _ => return Ok(None),
        };
        method.check(layers)?;
        check_lengths(requests)?;
        let skips = SkipDraws::new(method, layers, seed);
        let mut later = Later { method: method.clone(), layers, seed, skips, sets };
        if !later.differ(requests) {
            return Ok(None);
        }
        let mut routes = RouteTable::default();
        let dense = routes.intern(Route::dense(layers));
        let mut requests = requests.to_vec();
        requests.sort_by_key(|request| request.arrival);
        requests.iter_mut().for_each(|request| request.runs = tokens::same(request, dense));
        Ok(Some((Trace { header: header(method, layers, seed), routes, requests }, later)))
    }

    /// Whether two generated tokens take different routes.
    fn differ(&mut self, requests: &[Request]) -> bool {
        let mut first = None;
        requests.iter().any(|request| {
            let mut routes = RouteTable::default();
            let runs = self.runs(request, &mut routes);
            let generated = runs.iter().filter(|run| run.phase == Phase::Decode).flat_map(|run| &run.routes);
            let mut taken = generated.map(|route| routes.get(route));
            taken.any(|route| route != first.get_or_insert_with(|| route.clone()))
        })
    }

    /// Whether it draws sets of branches.
    pub fn draws_sets(&self) -> bool {
        self.sets
    }

    /// Adds what each token of a request takes: P + G - 1 for P prompt and G generated tokens.
    ///
    /// # Panics
    /// If it does not draw sets.
    pub fn draw(&mut self, request: &Request, out: &mut Vec<Taken>) {
        assert!(self.sets, "what tokens leave depends on what they take");
        let skips = self.skips.as_mut().expect("sets are of methods that skip");
        skips.draw(request, &mut own_stream(self.seed, request), out);
    }

    /// The runs of a request, their routes in `table`.
    pub fn runs(&mut self, request: &Request, table: &mut RouteTable) -> Vec<Run> {
        let mut own = own_stream(self.seed, request);
        match &mut self.skips {
            Some(skips) => skips.runs(request, table, &mut own),
            None => generator(&self.method, self.layers, self.seed)(request, table, &mut own),
        }
    }

    /// Steps of a route, at most.
    pub fn longest(&self) -> u32 {
        match &self.method {
            Method::Radial { hops, max_hops, .. } => {
                let most = hops.values().last().copied().unwrap_or(0);
                most.min(max_hops.unwrap_or(u32::MAX))
            }
            _ => self.layers,
        }
    }

    /// KV entries that a token leaves at one layer, at most.
    pub fn most_at_a_layer(&self) -> u32 {
        if let Method::Radial { reuse: true, .. } = self.method { self.longest().max(1) } else { 1 }
    }

    /// Mean depth of the tokens of these requests in whole blocks: a branch counts half.
    pub fn mean_depth(&self, requests: &[Request]) -> f64 {
        let mut later = self.clone();
        let (mut depth, mut tokens) = (0.0, 0u64);
        for request in requests {
            let mut routes = RouteTable::default();
            let runs = later.runs(request, &mut routes);
            for (route, times) in runs.iter().flat_map(|run| run.routes.counted()) {
                tokens += u64::from(times);
                depth += routes.get(route).depth() * f64::from(times);
            }
        }
        if tokens > 0 { depth / tokens as f64 } else { 0.0 }
    }

    /// The trace with all routes drawn, for who wants to see them.
    ///
    /// # Errors
    /// Those of [`generate`].
    pub fn drawn(&self, stands_for: &Trace) -> Result<Trace> {
        generate(&self.method, self.layers, stands_for.requests.clone(), self.seed)
    }
}
