//! Routes that are drawn when their request begins, and forgotten with it.

use super::skips::SkipDraws;
use super::{Method, check_lengths, generate, header, own_stream, tokens};
use crate::error::Result;
use crate::trace::{KvAction, Request, Route, RouteTable, TAKEN_LAYERS, Taken, Trace};

/// What draws the routes of a trace request by request: those that [`generate`] gives it all at once.
///
/// Where every token leaves an entry at every layer (`project_only`), what it leaves does not depend on what it takes. So a
/// trace with the dense route for all says everything but the branches that run.
#[derive(Clone, Debug)]
pub struct Later {
    method: Method,
    layers: u32,
    seed: u64,
    draws: SkipDraws,
}

impl Later {
    /// For requests without runs: the trace that stands for them, and what draws the rest. `None` where the method draws routes that cannot wait: of others than
    /// [`Method::IndependentSkips`] and [`Method::CorrelatedSkips`] over at most 64 layers, with another KV action than
    /// `project_only`, or where generated tokens may all take one route.
    ///
    /// # Errors
    /// Those of [`generate`].
    pub fn new(
        method: &Method,
        layers: u32,
        requests: &[Request],
        seed: u64,
    ) -> Result<Option<(Trace, Later)>> {
        let projects = match method {
            Method::IndependentSkips { kv, .. } | Method::CorrelatedSkips { kv, .. } => {
                *kv == KvAction::ProjectOnly && layers <= TAKEN_LAYERS
            }
            _ => false,
        };
        method.check(layers)?;
        let Some(draws) = SkipDraws::new(method, layers, seed).filter(|_| projects) else { return Ok(None) };
        check_lengths(requests)?;
        let mut later = Later { method: method.clone(), layers, seed, draws };
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
        let (mut first, mut taken) = (None, Vec::new());
        requests.iter().any(|request| {
            taken.clear();
            self.draw(request, &mut taken);
            let generated = &taken[request.prompt_tokens as usize..];
            generated.iter().any(|token| token != first.get_or_insert(*token))
        })
    }

    /// Adds what each token of a request takes: P + G - 1 for P prompt and G generated tokens.
    pub fn draw(&mut self, request: &Request, out: &mut Vec<Taken>) {
        self.draws.draw(request, &mut own_stream(self.seed, request), out);
    }

    /// Mean depth of the tokens of these requests in whole blocks: a branch counts half.
    pub fn mean_depth(&self, requests: &[Request]) -> f64 {
        let (mut later, mut taken) = (self.clone(), Vec::new());
        let (mut branches, mut tokens) = (0u64, 0u64);
        for request in requests {
            taken.clear();
            later.draw(request, &mut taken);
            tokens += taken.len() as u64;
            let of =
                |token: &Taken| u64::from(token.attention.count_ones() + token.feed_forward.count_ones());
            branches += taken.iter().map(of).sum::<u64>();
        }
        if tokens > 0 { branches as f64 / (2 * tokens) as f64 } else { 0.0 }
    }

    /// The trace with all routes drawn, for who wants to see them.
    ///
    /// # Errors
    /// Those of [`generate`].
    pub fn whole(&self, stands_for: &Trace) -> Result<Trace> {
        generate(&self.method, self.layers, stands_for.requests.clone(), self.seed)
    }
}
