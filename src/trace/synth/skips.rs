//! Tokens that skip layers at random: each on its own, or alike.

use super::tokens::plain;
use super::{Branches, Share};
use crate::rng::Stream;
use crate::trace::{Modules, Phase, Request, Route, RouteTable, Run, Step};
use std::collections::HashMap;

/// Which branches a token skips.
pub(super) struct Skips {
    skip: f64,
    branches: Branches,
    always: Vec<bool>,
    dense_prefill: bool,
}

impl Skips {
    pub(super) fn new(skip: f64, branches: Branches, keep: &[u32], layers: u32, dense_prefill: bool) -> Self {
        let mut always = vec![false; layers as usize];
        keep.iter().for_each(|&layer| always[layer as usize] = true);
        Skips { skip, branches, always, dense_prefill }
    }

    fn draw(&self, stream: &mut Stream) -> Route {
        let step = |(layer, &always): (usize, &bool)| {
            let mut runs = || always || !stream.chance(self.skip);
            let attention = runs();
            let feed_forward = match self.branches {
                Branches::Jointly => attention,
                Branches::Separately => runs(),
            };
            let modules = match (attention, feed_forward) {
                (true, true) => Modules::Block,
                (true, false) => Modules::Attention,
                (false, true) => Modules::FeedForward,
                (false, false) => return None,
            };
            Some(Step { modules, ..Step::block(layer as u32) })
        };
        Route(self.always.iter().enumerate().filter_map(step).collect())
    }

    /// The route of prompt tokens, where they do not skip.
    fn dense_route(&self, table: &mut RouteTable) -> Option<u32> {
        self.dense_prefill.then(|| table.intern(Route::dense(self.always.len() as u32)))
    }

    /// Each token on its own.
    pub(super) fn independent(
        &self,
        request: &Request,
        table: &mut RouteTable,
        own: &mut Stream,
    ) -> Vec<Run> {
        let dense = self.dense_route(table);
        plain(request, |place| match dense {
            Some(dense) if place.phase == Phase::Prefill => dense,
            _ => table.intern(self.draw(own)),
        })
    }
}

/// Skips of which some tokens share one draw.
pub(super) struct Correlated {
    skips: Skips,
    share: Share,
    /// Probability that a token takes the shared route.
    reuse: f64,
    seed: u64,
    /// Routes shared so far, by what the sharing tokens have in common.
    shared: HashMap<(Option<Phase>, u32), u32>,
}

impl Correlated {
    pub(super) fn new(skips: Skips, correlation: f64, share: Share, seed: u64) -> Self {
        // Two tokens are alike where both take the shared route: with the square of this probability.
        let reuse = if share == Share::Predecessor { correlation } else { correlation.sqrt() };
        Correlated { skips, share, reuse, seed, shared: HashMap::new() }
    }

    pub(super) fn request(
        &mut self,
        request: &Request,
        table: &mut RouteTable,
        own: &mut Stream,
    ) -> Vec<Run> {
        let dense = self.skips.dense_route(table);
        let mut before = None;
        plain(request, |place| {
            if let Some(dense) = dense.filter(|_| place.phase == Phase::Prefill) {
                return dense;
            }
            let reuses = own.chance(self.reuse);
            let route = match (reuses, self.share, before) {
                (false, ..) | (true, Share::Predecessor, None) => table.intern(self.skips.draw(own)),
                (true, Share::Predecessor, Some(before)) => before,
                (true, Share::Step, _) => self.shared((Some(place.phase), place.offset), table),
                (true, Share::Position, _) => self.shared((None, place.position), table),
                (true, Share::All, _) => self.shared((None, 0), table),
            };
            before = Some(route);
            route
        })
    }

    /// The shared route of this key. It has a stream of its own, so that it does not depend on who asks first.
    fn shared(&mut self, key: (Option<Phase>, u32), table: &mut RouteTable) -> u32 {
        let Correlated { skips, seed, shared, .. } = self;
        *shared.entry(key).or_insert_with(|| {
            let mut stream = Stream::new(*seed, &format!("shared route {key:?}"));
            table.intern(skips.draw(&mut stream))
        })
    }
}
