//! Every method is a trace: requests get routes as a published method would choose them.
//!
//! The generators know nothing of text. They give each method the pattern that its paper describes, at the mean depth
//! that is asked for, so that methods can be compared where nobody recorded a router. A seed gives the same trace on
//! every machine; each request draws from a stream of its own, named after its id, so that adding a request leaves the
//! routes of the others as they were.

use crate::error::{InputError, Result};
use crate::rng::Stream;
use crate::trace::{
    Granularity, Header, KvAction, Request, Route, RouteTable, Router, RouterKind, RouterWhen, Run, Trace,
};

mod check;
mod count;
mod depths;
mod draft;
mod exits;
mod fixed;
mod later;
mod method;
mod parts;
mod skips;
mod tokens;
mod walks;

pub use count::Count;
pub use later::Later;
pub use method::Method;
pub use parts::{Branches, Keep, Loops, MethodRouter, Routed, Share, Start, Transitions};

use count::demand;
use skips::SkipDraws;
use tokens::plain;

/// Longest prompt and longest output that may be asked for, in tokens: 2^28. P + G - 1 stays a `u32`.
pub const MOST_TOKENS: u32 = 1 << 28;

/// Tokens of all requests together: 2^29, whose route numbers take 2 GB in memory.
const MOST_TOKENS_IN_ALL: u64 = 1 << 29;

/// Gives every request the routes of `method` in a pool of `layers`: P + G - 1 for P prompt and G generated tokens.
/// Runs that a request brings are replaced. Requests come out by arrival, equal arrivals as given.
///
/// The header names the model `synthetic` and, as its source, the method as written and the seed.
///
/// # Errors
/// A parameter of the method out of range, a request without prompt or output tokens or with more than [`MOST_TOKENS`], or more than
/// 2^29 tokens in all requests together.
pub fn generate(method: &Method, layers: u32, mut requests: Vec<Request>, seed: u64) -> Result<Trace> {
    method.check(layers)?;
    check_lengths(&requests)?;
    requests.sort_by_key(|request| request.arrival);
    let mut routes = RouteTable::default();
    if let Some(route) = one_route(method, layers) {
        let route = routes.intern(route);
        requests.iter_mut().for_each(|request| request.runs = tokens::same(request, route));
        return Ok(Trace { header: header(method, layers, seed), routes, requests });
    }
    let mut of_request = generator(method, layers, seed);
    for request in &mut requests {
        let mut own = own_stream(seed, request);
        request.runs = of_request(request, &mut routes, &mut own);
    }
    Ok(Trace { header: header(method, layers, seed), routes, requests })
}

/// The random stream of one request.
fn own_stream(seed: u64, request: &Request) -> Stream {
    Stream::new(seed, &format!("routes of request {}", request.id))
}

/// Each request has 1 to [`MOST_TOKENS`] prompt tokens, and as many generated ones.
pub(super) fn check_lengths(requests: &[Request]) -> Result<()> {
    let what = format!("1 to {MOST_TOKENS} tokens");
    for (index, request) in requests.iter().enumerate() {
        for (name, tokens) in
            [("prompt_tokens", request.prompt_tokens), ("output_tokens", request.output_tokens)]
        {
            if !(1..=MOST_TOKENS).contains(&tokens) {
                let key = format!("requests[{index}].{name}");
                return Err(InputError::expected(&*what).key(key).found(tokens).into());
            }
        }
    }
    let of_one = |request: &Request| u64::from(request.prompt_tokens) + u64::from(request.output_tokens);
    let all: u64 = requests.iter().map(of_one).sum();
    let what = format!("at most {MOST_TOKENS_IN_ALL} tokens in all requests together");
    demand(all <= MOST_TOKENS_IN_ALL, "workload", format!("{all} tokens"), &what)
}

/// The route of all tokens, where the method has but one.
fn one_route(method: &Method, layers: u32) -> Option<Route> {
    match method {
        Method::Dense => Some(Route::dense(layers)),
        Method::StaticDepth { keep } => Some(fixed::kept(keep, layers)),
        Method::StaticWidth { keep } => Some(fixed::narrow(*keep, layers)),
        _ => None,
    }
}

/// What makes the runs of one request from its own random stream.
type Generator<'a> = Box<dyn FnMut(&Request, &mut RouteTable, &mut Stream) -> Vec<Run> + 'a>;

fn generator(method: &Method, layers: u32, seed: u64) -> Generator<'_> {
    match method {
        Method::Dense | Method::StaticDepth { .. } | Method::StaticWidth { .. } => {
            unreachable!("methods of one route draw nothing")
        }
        Method::EarlyExit { exits, kv, dense_prefill, .. } => {
            let deferred = *kv == KvAction::Deferred;
            let mut exits = exits::Exits::new(exits, layers, *dense_prefill, deferred);
            Box::new(move |request, table, own| exits.request(request, table, own))
        }
        Method::MixtureOfDepths { capacity, routed, window } => {
            let depths = depths::Depths::new(*capacity, routed, *window, layers);
            Box::new(move |request, table, own| depths.request(request, table, own))
        }
        Method::IndependentSkips { .. } | Method::CorrelatedSkips { .. } => {
            let mut skips = SkipDraws::new(method, layers, seed).expect("a method of skips");
            Box::new(move |request, table, own| skips.runs(request, table, own))
        }
        Method::Recursion { prefix, suffix, times, kv, .. } => Box::new(move |request, table, own| {
            plain(request, |_| table.intern(walks::recursion(*prefix, *suffix, times.draw(own), *kv, layers)))
        }),
        Method::Radial { transitions, start, hops, max_hops, reuse, .. } => {
            let (max_hops, reuse) = (*max_hops, *reuse);
            let walk = walks::Walk { transitions, start, hops, max_hops, reuse, layers };
            Box::new(move |request, table, own| walk.request(request, table, own))
        }
        Method::DraftVerify { exit_layer, drafts, acceptance } => {
            let rounds = draft::Rounds::new(*exit_layer, *drafts, *acceptance);
            Box::new(move |request, table, own| rounds.request(request, layers, table, own))
        }
    }
}

fn header(method: &Method, layers: u32, seed: u64) -> Header {
    use RouterKind::{ExpertChoice, Fixed, None as NoRouter, OracleThreshold, Threshold};
    let one_for_all = matches!(
        method,
        Method::Dense
            | Method::StaticDepth { .. }
            | Method::StaticWidth { .. }
            | Method::DraftVerify { .. }
            | Method::Recursion { times: Count::Fixed(_), .. }
    );
    let (kv, router) = match method {
        Method::Dense => (KvAction::Write, Router::costless(NoRouter)),
        Method::StaticDepth { .. }
        | Method::StaticWidth { .. }
        | Method::DraftVerify { .. }
        | Method::Recursion { times: Count::Fixed(_), .. } => (KvAction::Write, Router::costless(Fixed)),
        Method::EarlyExit { kv, router, .. } => {
            // The marks of the steps say when it decides.
            (*kv, Router { kind: Threshold, ..router.router(Threshold, None) })
        }
        Method::MixtureOfDepths { routed, .. } => {
            let mut router = MethodRouter::default().router(ExpertChoice, Some(RouterWhen::PerLayer));
            router.extra.insert("routed_layers".to_owned(), routed.ids(layers).into());
            (KvAction::None, router)
        }
        Method::IndependentSkips { kv, router, .. } | Method::CorrelatedSkips { kv, router, .. } => {
            (*kv, router.router(OracleThreshold, Some(RouterWhen::PerLayer)))
        }
        Method::Recursion { router, .. } => {
            (KvAction::Write, router.router(OracleThreshold, Some(RouterWhen::Upfront)))
        }
        Method::Radial { kv, router, .. } => (*kv, router.router(OracleThreshold, Some(RouterWhen::PerHop))),
    };
    let (order, reuse) = method.order();
    let max_hops = if let Method::Radial { max_hops, .. } = method { *max_hops } else { None };
    let written = ron::to_string(method).unwrap_or_else(|_| method.name().to_owned());
    Header {
        model: "synthetic".to_owned(),
        layers,
        order,
        reuse,
        granularity: if one_for_all { Granularity::Batch } else { Granularity::Token },
        kv,
        router,
        max_hops,
        source: format!("synthetic routes, seed {seed}: {}", crate::error::shorten(&written)),
    }
}
