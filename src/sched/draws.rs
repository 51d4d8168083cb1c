//! What is known of the tokens of a request when it begins, and forgotten when it is over: their routes, or what they take of their paths.

use super::Scheduler;
use crate::batch::Paths;
use crate::trace::synth::Later;
use crate::trace::{Header, Phase, Request, RouteIds, RouteTable, Run, Taken, Trace};
use std::ops::Deref;
use std::sync::Arc;

/// Who says which routes or branches tokens take.
#[derive(Clone, Debug)]
pub enum Takes<'a> {
    /// Branches are drawn: all paths leave the same at every layer.
    Branches(Box<Later>),
    /// What each route takes, by its number: the same.
    OfRoutes(Vec<Taken>),
    /// Routes are drawn.
    Routes(Box<Later>),
    /// Routes of a trace. Their paths are compiled while somebody takes them, unless all are there.
    Listed(&'a RouteTable),
}

/// A request that begins: one of the trace, or with routes of its own.
#[derive(Clone, Debug)]
pub enum Begun<'a> {
    /// Of the trace.
    Listed(&'a Request),
    /// Its runs were drawn.
    Drawn(Arc<Request>),
}

impl Deref for Begun<'_> {
    type Target = Request;

    #[inline]
    fn deref(&self) -> &Request {
        match self {
            Begun::Listed(request) => request,
            Begun::Drawn(request) => request,
        }
    }
}

/// What a request begins with.
#[derive(Clone, Debug)]
pub(super) struct Start<'a> {
    pub request: Begun<'a>,
    /// What each token takes, by position; `None` where its path says it.
    pub taken: Option<Arc<[Taken]>>,
}

/// Who says what requests begin with, and what the one begins with that was first in line and did not fit.
#[derive(Debug)]
pub(super) struct Draws<'a> {
    takes: Takes<'a>,
    /// Whether requests end with their first token.
    prompts_alone: bool,
    kept: Option<(u32, Start<'a>)>,
}

impl<'a> Scheduler<'a> {
    /// Requests begin as `takes` says.
    pub fn with_takes(self, takes: Takes<'a>) -> Self {
        Scheduler { draws: Some(Draws { takes, prompts_alone: false, kept: None }), ..self }
    }

    /// Every request ends with its first token: what its prompt takes is drawn as if it went on.
    pub fn with_prompts_alone(mut self) -> Self {
        if let Some(draws) = &mut self.draws {
            draws.prompts_alone = true;
        }
        self
    }
}

impl<'a> Draws<'a> {
    /// What request number `index` begins with. Its paths are held until [`Draws::over`].
    pub fn begin(&mut self, index: u32, request: &'a Request, paths: &mut Paths) -> Start<'a> {
        if let Some((known, start)) = &self.kept {
            if *known == index {
                return start.clone();
            }
            let before = start.request.clone();
            self.over(&before, paths);
        }
        let start = self.takes.begin(request, self.prompts_alone, paths);
        self.kept = Some((index, start.clone()));
        start
    }

    /// The request that was asked for last fits: it runs.
    pub fn fits(&mut self) {
        self.kept = None;
    }

    /// A request is over.
    pub fn over(&self, request: &Request, paths: &mut Paths) {
        match self.takes {
            Takes::Branches(_) | Takes::OfRoutes(_) => {}
            Takes::Routes(_) => paths.let_go(&request.runs, true),
            Takes::Listed(_) => paths.let_go(&request.runs, false),
        }
    }
}

impl<'a> Takes<'a> {
    fn begin(&mut self, request: &'a Request, prompt_alone: bool, paths: &mut Paths) -> Start<'a> {
        let whole = || match prompt_alone {
            true => Begun::Drawn(Arc::new(prompt(request.clone()))),
            false => Begun::Listed(request),
        };
        match self {
            Takes::Branches(later) => {
                let mut taken = Vec::new();
                later.draw(request, &mut taken);
                Start { request: whole(), taken: Some(taken.into()) }
            }
            Takes::OfRoutes(routes) => {
                let ids = request.runs.iter().flat_map(|run| &run.routes);
                let taken = ids.map(|id| routes[id as usize]).collect();
                Start { request: whole(), taken: Some(taken) }
            }
            Takes::Routes(later) => {
                let request = Begun::Drawn(Arc::new(drawn(later, request, prompt_alone, paths)));
                Start { request, taken: None }
            }
            Takes::Listed(routes) => {
                let request = whole();
                paths.hold(&request.runs, |number| routes.get(number));
                Start { request, taken: None }
            }
        }
    }
}

impl Takes<'_> {
    /// Paths for the routes of a trace: all of them, where they are at most `stay`; otherwise of those that somebody takes.
    pub fn paths(&self, trace: &Trace, stay: usize) -> Paths {
        let header = &trace.header;
        let mut runs = trace.requests.iter().flat_map(|request| &request.runs);
        let again = runs.any(|run| Paths::passes_again(run.role));
        match self {
            Takes::Branches(_) | Takes::OfRoutes(_) => {
                let mut one = RouteTable::default();
                one.intern(trace.routes.get(0).clone());
                Paths::new(header, &one, again)
            }
            Takes::Routes(_) => Paths::of_none(header, 0, again),
            Takes::Listed(routes) if routes.len() <= stay => Paths::new(header, routes, again),
            Takes::Listed(routes) => Paths::of_none(header, routes.len(), again),
        }
    }

    /// What `seen` says of a request with its routes, none of which need be there.
    pub fn look<R>(
        &mut self,
        request: &Request,
        paths: &mut Paths,
        seen: impl FnOnce(&Request, &Paths) -> R,
    ) -> R {
        match self {
            Takes::Branches(_) | Takes::OfRoutes(_) => {
                let one = |run: &Run| Run { routes: RouteIds::same(0, run.routes.len()), ..run.clone() };
                let runs = request.runs.iter().map(one).collect();
                seen(&Request { runs, ..request.clone() }, paths)
            }
            Takes::Routes(later) => {
                let request = drawn(later, request, false, paths);
                let result = seen(&request, paths);
                paths.let_go(&request.runs, true);
                result
            }
            Takes::Listed(routes) => {
                paths.hold(&request.runs, |number| routes.get(number));
                let result = seen(request, paths);
                paths.let_go(&request.runs, false);
                result
            }
        }
    }

    /// A bound on the KV entries that a token leaves at one layer.
    pub fn most_at_a_layer(&self, header: &Header, paths: &Paths) -> u64 {
        match self {
            _ if paths.all_stay() => paths.most_at_a_layer(),
            Takes::Routes(later) => later.most_at_a_layer().into(),
            Takes::Listed(routes) if header.reuse => routes.most_visits(header.layers).into(),
            Takes::Branches(_) | Takes::OfRoutes(_) | Takes::Listed(_) => 1,
        }
    }
}

/// The request up to its first token.
fn prompt(mut request: Request) -> Request {
    request.runs.retain(|run| run.phase == Phase::Prefill);
    Request { output_tokens: 1, ..request }
}

/// A request with routes that are drawn for it, whose paths it holds; of its prompt alone, where that is asked for.
fn drawn(later: &mut Later, request: &Request, prompt_alone: bool, paths: &mut Paths) -> Request {
    let mut routes = RouteTable::default();
    let runs = later.runs(request, &mut routes);
    let mut request = Request { runs, ..request.clone() };
    if prompt_alone {
        request = prompt(request);
    }
    let numbers: Vec<u32> = routes.iter().map(|route| paths.number(route)).collect();
    for run in &mut request.runs {
        run.routes = run.routes.iter().map(|id| numbers[id as usize]).collect();
    }
    paths.hold(&request.runs, |_| unreachable!("a path that has just got its number is compiled"));
    request
}
