//! From one route a token to the runs of a request.

use crate::trace::{Phase, Request, Role, RouteIds, Run};

/// Where a token stands in its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Part of the request.
    pub phase: Phase,
    /// Tokens of the request before it.
    pub position: u32,
}

/// An empty run.
pub(super) fn run(start: u32, phase: Phase, role: Role) -> Run {
    Run { start, phase, role, routes: RouteIds::default(), accepted: Vec::new() }
}

/// A prefill run of P tokens and a decode run of G - 1, which is absent where it would be empty.
pub(super) fn plain(request: &Request, mut route: impl FnMut(Place) -> u32) -> Vec<Run> {
    phases(request, |phase, start, count| {
        let place = |offset| Place { phase, position: start + offset };
        (0..count).map(|offset| route(place(offset))).collect()
    })
}

/// The same runs with one route for all tokens.
pub(super) fn same(request: &Request, route: u32) -> Vec<Run> {
    phases(request, |_, _, count| RouteIds::same(route, count))
}

/// Both runs; `routes` gives those of a phase from the position and the count of its tokens.
fn phases(request: &Request, mut routes: impl FnMut(Phase, u32, u32) -> RouteIds) -> Vec<Run> {
    let prompt = request.prompt_tokens;
    let mut phase = |phase: Phase, start: u32, count: u32| {
        let routes = routes(phase, start, count);
        Run { routes, ..run(start, phase, Role::Plain) }
    };
    let mut runs = vec![phase(Phase::Prefill, 0, prompt)];
    if request.output_tokens > 1 {
        runs.push(phase(Phase::Decode, prompt, request.output_tokens - 1));
    }
    runs
}
