//! Routes that visit layers again: recursion, and radial walks.

use super::tokens::plain;
use super::{Count, Loops, Method, MethodRouter, Start, Transitions};
use crate::error::{InputError, Result};
use crate::rng::Stream;
use crate::trace::{KvAction, Request, Role, Route, RouteTable, Run, Step, Trace};
use std::collections::BTreeMap;

/// `0 1 2 1 2 3` for a prefix of 1, a suffix of 1, twice, in a pool of 4.
pub(super) fn recursion(prefix: u32, suffix: u32, times: u32, kv: Loops, layers: u32) -> Route {
    let mut route = Route::of_layers(0..prefix);
    for time in 0..times {
        let kv = (time > 0 && kv == Loops::Shared).then_some(KvAction::Share);
        route.0.extend((prefix..layers - suffix).map(|layer| Step { kv, ..Step::block(layer) }));
    }
    route.0.extend((layers - suffix..layers).map(Step::block));
    route
}

pub(super) struct Walk<'a> {
    pub transitions: &'a Transitions,
    pub start: &'a Start,
    pub hops: &'a Count,
    pub max_hops: Option<u32>,
    pub reuse: bool,
    pub layers: u32,
}

impl Walk<'_> {
    pub(super) fn request(&self, request: &Request, table: &mut RouteTable, own: &mut Stream) -> Vec<Run> {
        plain(request, |_| table.intern(self.draw(own)))
    }

    fn draw(&self, own: &mut Stream) -> Route {
        let hops = self.hops.draw(own).min(self.max_hops.unwrap_or(u32::MAX));
        let mut visited = if self.reuse { Vec::new() } else { vec![false; self.layers as usize] };
        let mut route = Route::default();
        for _ in 0..hops {
            let (first, count, weights) = self.next(route.0.last().map(|step| step.layer));
            let Some(layer) = pick(first, count, weights, &visited, own) else { break };
            if let Some(visited) = visited.get_mut(layer as usize) {
                *visited = true;
            }
            route.0.push(Step::block(layer));
        }
        route
    }

    /// The layers that may come next: the first, how many, and their weights where they are not equal.
    fn next(&self, here: Option<u32>) -> (u32, u32, Option<&[f64]>) {
        let Some(here) = here else {
            return match self.start {
                Start::Layer(layer) => (*layer, 1, None),
                Start::Uniform => (0, self.layers, None),
                Start::Weights(weights) => (0, self.layers, Some(weights)),
            };
        };
        match self.transitions {
            Transitions::Uniform => (0, self.layers, None),
            Transitions::Banded { back, ahead } => {
                let first = here.saturating_sub(*back);
                (first, here.saturating_add(*ahead).min(self.layers - 1) - first + 1, None)
            }
            Transitions::Matrix(rows) => (0, self.layers, Some(&rows[here as usize])),
        }
    }
}

/// One of `count` layers from `first` on, by weight, but none that was visited. None where nothing is left.
fn pick(first: u32, count: u32, weights: Option<&[f64]>, visited: &[bool], own: &mut Stream) -> Option<u32> {
    let index = match (weights, visited.is_empty()) {
        (None, true) => own.below(u64::from(count)) as u32,
        (Some(weights), true) => own.weighted(weights)? as u32,
        (weights, false) => {
            let free = |index: u32| !visited[(first + index) as usize];
            let weight = |index: u32| weights.map_or(1.0, |weights| weights[index as usize]);
            let left: Vec<f64> = (0..count).map(|i| if free(i) { weight(i) } else { 0.0 }).collect();
            own.weighted(&left)? as u32
        }
    };
    Some(first + index)
}

impl Method {
    /// A [`Method::Radial`] with the statistics of a recorded trace: where routes start, which layer follows which, and how
    /// many steps they have. Each token that has a plain route counts once; modules and widths are left behind.
    ///
    /// `reuse` and `kv` are those of the trace, but `deferred` becomes `unified`. Where a walk reaches a layer that nothing
    /// ever followed, it ends, so that walks may be shorter than the recorded routes.
    ///
    /// # Errors
    /// A trace without routes, or without a route that has a step.
    pub fn radial_like(trace: &Trace, router: MethodRouter) -> Result<Method> {
        let layers = trace.header.layers as usize;
        let mut start = vec![0.0; layers];
        let mut rows = vec![vec![0.0; layers]; layers];
        let mut hops: BTreeMap<u32, u64> = BTreeMap::new();
        let plain = trace.requests.iter().flat_map(|r| &r.runs).filter(|run| run.role == Role::Plain);
        for (id, times) in plain.flat_map(|run| run.routes.counted()) {
            let steps = &trace.routes.get(id).0;
            *hops.entry(steps.len() as u32).or_default() += u64::from(times);
            if let Some(first) = steps.first() {
                start[first.layer as usize] += f64::from(times);
            }
            for pair in steps.windows(2) {
                rows[pair[0].layer as usize][pair[1].layer as usize] += f64::from(times);
            }
        }
        if hops.keys().all(|&steps| steps == 0) {
            let what = "a trace with plain routes of at least one step, to take transitions from";
            return Err(InputError::expected(what).key("transitions").found("none").into());
        }
        let tokens = hops.values().sum::<u64>() as f64;
        let hops = hops.into_iter().map(|(steps, count)| (steps, count as f64 / tokens)).collect();
        let kv = if trace.header.kv == KvAction::Deferred { KvAction::Unified } else { trace.header.kv };
        Ok(Method::Radial {
            transitions: Transitions::Matrix(rows),
            start: Start::Weights(start),
            hops: Count::Each(hops),
            max_hops: trace.header.max_hops,
            reuse: trace.header.reuse,
            kv,
            router,
        })
    }
}
