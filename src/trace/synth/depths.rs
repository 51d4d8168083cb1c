//! Mixture-of-Depths: a fixed count of tokens for each routed layer.

use super::Routed;
use super::tokens::plain;
use crate::rng::Stream;
use crate::trace::{Request, Route, RouteTable, Run};

impl Routed {
    /// Ids of the routed layers of a pool of `layers`, ascending.
    pub(super) fn ids(&self, layers: u32) -> Vec<u32> {
        match self {
            Routed::EveryOther => (1..layers).step_by(2).collect(),
            Routed::All => (0..layers).collect(),
            Routed::Layers(ids) => {
                let mut ids = ids.clone();
                ids.sort_unstable();
                ids
            }
        }
    }
}

/// How many of the first `positions` tokens a routed layer takes. The sum forgives a capacity such as 0.3, which binary
/// fractions only approach.
fn taken(capacity: f64, positions: u32) -> usize {
    (capacity * f64::from(positions) + 1e-9).floor() as usize
}

pub(super) struct Depths {
    capacity: f64,
    window: u32,
    /// Of each layer, whether it is routed.
    routed: Vec<bool>,
}

impl Depths {
    pub(super) fn new(capacity: f64, routed: &Routed, window: u32, layers: u32) -> Self {
        let mut by_layer = vec![false; layers as usize];
        routed.ids(layers).iter().for_each(|&id| by_layer[id as usize] = true);
        Depths { capacity, window, routed: by_layer }
    }

    pub(super) fn request(&self, request: &Request, table: &mut RouteTable, own: &mut Stream) -> Vec<Run> {
        let total = request.prompt_tokens + request.output_tokens - 1;
        let mut ids = Vec::with_capacity(total as usize);
        let mut start = 0;
        while start < total {
            let end = start + self.window.min(total - start);
            ids.extend(self.draw(start, end, own).into_iter().map(|route| table.intern(route)));
            start = end;
        }
        plain(request, |place| ids[place.position as usize])
    }

    /// The routes of one window of positions.
    fn draw(&self, start: u32, end: u32, own: &mut Stream) -> Vec<Route> {
        let tokens = (end - start) as usize;
        let count = taken(self.capacity, end) - taken(self.capacity, start);
        let mut layers = vec![Vec::new(); tokens];
        let mut order: Vec<usize> = (0..tokens).collect();
        for (layer, &routed) in self.routed.iter().enumerate() {
            let chosen = if routed { count.min(tokens) } else { tokens };
            if chosen < tokens {
                // The first steps of a Fisher-Yates shuffle: `chosen` tokens, each set as likely.
                for at in 0..chosen {
                    let other = at + own.below((tokens - at) as u64) as usize;
                    order.swap(at, other);
                }
            }
            order[..chosen].iter().for_each(|&token| layers[token].push(layer as u32));
        }
        layers.into_iter().map(Route::of_layers).collect()
    }
}
