//! Who chooses the layers of a variant: nobody, somebody once and for all, or each token.

use super::Built;
use crate::kernel::Density;
use crate::trace::{Phase, Role, Run, Step, Trace};

/// Who chooses the layers that generated tokens take; of requests that generate none with a route, those of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerChoice {
    /// Every token takes every layer, whole.
    Dense,
    /// All tokens of a role take one route that is not the dense one, or weights are sparse.
    Static,
    /// Tokens take different routes.
    ByToken,
}

impl LayerChoice {
    /// That of a variant.
    pub(super) fn of(built: &Built) -> LayerChoice {
        let (trace, density) = (&built.trace, built.setup.dispatch.density);
        let routes = routes(trace);
        let one_each = |(role, route): &(Role, u32)| {
            routes.iter().all(|(other, another)| role != other || route == another)
        };
        if built.later.is_some() || !routes.iter().all(one_each) {
            LayerChoice::ByToken
        } else if density == Density::Dense && routes.iter().all(|&(_, route)| is_dense(trace, route)) {
            LayerChoice::Dense
        } else {
            LayerChoice::Static
        }
    }
}

/// Different routes that a variant may have and still be looked at further: two for a role tell all.
const ENOUGH: usize = 16;

/// The routes of generated tokens with their roles, each once, [`ENOUGH`] at most; those of prompts where no token is generated with a route.
fn routes(trace: &Trace) -> Vec<(Role, u32)> {
    let of = |is_asked: fn(&Run) -> bool| {
        let mut found: Vec<(Role, u32)> = Vec::new();
        for run in trace.requests.iter().flat_map(|request| &request.runs).filter(|run| is_asked(run)) {
            for (route, _) in run.routes.counted() {
                let pair = (run.role, route);
                if found.len() < ENOUGH && !found.contains(&pair) {
                    found.push(pair);
                }
            }
        }
        found
    };
    let generated = of(|run| run.phase == Phase::Decode);
    if generated.is_empty() { of(|_| true) } else { generated }
}

/// Whether a route takes every layer in order, whole.
fn is_dense(trace: &Trace, route: u32) -> bool {
    let steps = &trace.routes.get(route).0;
    let whole =
        |(step, layer): (&Step, u32)| step.layer == layer && step.modules.depth() == 1.0 && step.width == 1.0;
    steps.len() == trace.header.layers as usize && steps.iter().zip(0..).all(whole)
}
