//! Early exit, and the recompute runs that fill what exits left open.

use super::Count;
use super::tokens::{plain, run};
use crate::rng::Stream;
use crate::trace::{Phase, Request, Role, Route, RouteTable, Run, Step};
use std::collections::HashMap;

pub(super) struct Exits {
    depths: Count,
    layers: u32,
    dense_prefill: bool,
    deferred: bool,
    /// Of each layer, whether the confidence is looked at after it.
    looks: Vec<bool>,
    /// Prefixes used so far, by length.
    prefixes: HashMap<u32, u32>,
    /// Remainders used so far, by their first layer.
    rests: HashMap<u32, u32>,
}

impl Exits {
    pub(super) fn new(depths: &Count, layers: u32, dense_prefill: bool, deferred: bool) -> Self {
        let mut looks = vec![false; layers as usize];
        for depth in depths.values().into_iter().filter(|&depth| depth < layers) {
            looks[depth as usize - 1] = true;
        }
        let (prefixes, rests) = (HashMap::new(), HashMap::new());
        Exits { depths: depths.clone(), layers, dense_prefill, deferred, looks, prefixes, rests }
    }

    pub(super) fn request(
        &mut self,
        request: &Request,
        table: &mut RouteTable,
        own: &mut Stream,
    ) -> Vec<Run> {
        let dense = self.dense_prefill.then(|| table.intern(Route::dense(self.layers)));
        let mut depths = Vec::new();
        let mut runs = plain(request, |place| {
            if let Some(dense) = dense.filter(|_| place.phase == Phase::Prefill) {
                return dense;
            }
            let depth = self.depths.draw(own);
            depths.push(depth);
            self.prefix(depth, table)
        });
        if self.deferred && runs.len() > 1 {
            let decode = runs.pop().expect("a request of two runs");
            runs.extend(self.filled(decode, &depths, table));
        }
        runs
    }

    fn prefix(&mut self, depth: u32, table: &mut RouteTable) -> u32 {
        let step = |layer: u32| Step { routed: self.looks[layer as usize], ..Step::block(layer) };
        *self.prefixes.entry(depth).or_insert_with(|| table.intern(Route((0..depth).map(step).collect())))
    }

    fn rest(&mut self, from: u32, table: &mut RouteTable) -> u32 {
        let layers = self.layers;
        *self.rests.entry(from).or_insert_with(|| table.intern(Route::of_layers(from..layers)))
    }

    /// The decode run, cut wherever a token needs layers that tokens before it left open, with a recompute run there.
    fn filled(&mut self, decode: Run, depths: &[u32], table: &mut RouteTable) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut part = run(decode.start, Phase::Decode, Role::Plain);
        let mut ids = Vec::new();
        // Depths of the tokens that wait, which are always the last ones.
        let mut waiting: Vec<u32> = Vec::new();
        for ((position, route), &depth) in (decode.start..).zip(&decode.routes).zip(depths) {
            if waiting.iter().any(|&left_at| left_at < depth) {
                let mut fill = run(position - waiting.len() as u32, Phase::Decode, Role::Recompute);
                fill.routes = waiting.drain(..).map(|left_at| self.rest(left_at, table)).collect();
                part.routes = std::mem::take(&mut ids).into();
                runs.push(std::mem::replace(&mut part, run(position, Phase::Decode, Role::Plain)));
                runs.push(fill);
            }
            ids.push(route);
            if depth < self.layers {
                waiting.push(depth);
            }
        }
        part.routes = ids.into();
        runs.push(part);
        runs
    }
}
