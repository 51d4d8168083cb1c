//! How likely each layer is to be visited soon after another.

use crate::trace::{RouteTable, transitions};
use petgraph::visit::EdgeRef;

/// Terms of the series that are left out weigh less than this.
const LEFT_OUT: f64 = 1e-6;

/// `soon(a, b) = sum over k >= 1 of g^k P^k(a, b)`: the expected visits of `b` at the k-th hop after `a`, each hop further
/// weighing `g` times less. `P` is how often a token goes from layer to layer; from the last layer of a route the next
/// token's first layer follows. `g = 1 - 1 / horizon`, so that `horizon` hops count.
#[derive(Clone, Debug)]
pub(super) struct ExpectedVisits {
    /// By layer: where tokens go from there, with shares that add up to 1.
    next: Vec<Vec<(u32, f64)>>,
    discount: f64,
    rows: Vec<Option<Box<[f64]>>>,
}

impl ExpectedVisits {
    pub fn new(routes: &RouteTable, uses: &[u64], layers: u32, horizon: u32) -> Self {
        let layers = layers as usize;
        let (mut first, mut last, mut tokens) = (vec![0u64; layers], vec![0u64; layers], 0u64);
        for (route, &uses) in routes.iter().zip(uses) {
            if let [begin, ..] = route.0[..] {
                let end = route.0[route.0.len() - 1];
                first[begin.layer as usize] += uses;
                last[end.layer as usize] += uses;
                tokens += uses;
            }
        }
        let graph = transitions(routes, uses);
        let mut next = vec![Vec::new(); layers];
        for node in graph.node_indices() {
            let from = graph[node] as usize;
            let mut to: Vec<(u32, f64)> =
                graph.edges(node).map(|edge| (graph[edge.target()], *edge.weight() as f64)).collect();
            let share = last[from] as f64 / tokens.max(1) as f64;
            let anew = first.iter().enumerate().filter(|&(_, &count)| count > 0 && share > 0.0);
            to.extend(anew.map(|(layer, &count)| (layer as u32, count as f64 * share)));
            to.sort_by_key(|&(layer, _)| layer);
            let all: f64 = to.iter().map(|(_, weight)| weight).sum();
            to.iter_mut().for_each(|(_, weight)| *weight /= all);
            next[from] = to;
        }
        let discount = 1.0 - 1.0 / f64::from(horizon.max(2));
        ExpectedVisits { next, discount, rows: vec![None; layers] }
    }

    /// By layer: how likely it is soon after `from`.
    pub fn after(&mut self, from: u16) -> &[f64] {
        let from = usize::from(from);
        if self.rows[from].is_none() {
            self.rows[from] = Some(self.series(from));
        }
        self.rows[from].as_deref().expect("a row that was just made")
    }

    fn series(&self, from: usize) -> Box<[f64]> {
        let layers = self.next.len();
        let (mut sum, mut here, mut there) = (vec![0.0; layers], vec![0.0; layers], vec![0.0; layers]);
        here[from] = 1.0;
        let mut weight = 1.0;
        while weight > LEFT_OUT {
            there.fill(0.0);
            for (share, next) in here.iter().zip(&self.next).filter(|(share, _)| **share > 0.0) {
                for &(to, part) in next {
                    there[to as usize] += share * part * self.discount;
                }
            }
            sum.iter_mut().zip(&there).for_each(|(sum, visits)| *sum += visits);
            std::mem::swap(&mut here, &mut there);
            weight *= self.discount;
        }
        sum.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Route;

    #[test]
    fn a_cycle_is_a_geometric_series() {
        let mut routes = RouteTable::default();
        routes.intern(Route::of_layers([0, 1, 2, 3]));
        let mut soon = ExpectedVisits::new(&routes, &[5], 4, 4);
        // From 1: layer 2 at hops 1, 5, 9 ..., g = 3/4: g / (1 - g^4).
        let g: f64 = 0.75;
        for (layer, hops) in [(2, 1), (3, 2), (0, 3), (1, 4)] {
            let expected = g.powi(hops) / (1.0 - g.powi(4));
            assert!(
                (soon.after(1)[layer] - expected).abs() < 1e-5,
                "{layer}: {} {expected}",
                soon.after(1)[layer]
            );
        }
    }

    #[test]
    fn shares_are_those_of_the_tokens() {
        let mut routes = RouteTable::default();
        routes.intern(Route::of_layers([0, 1]));
        routes.intern(Route::of_layers([0, 2]));
        let mut soon = ExpectedVisits::new(&routes, &[3, 1], 3, 2);
        // g = 1/2, two hops a round: g / (1 - g^2) = 2/3 for layers 1 and 2 together.
        let after = soon.after(0);
        assert!((after[1] - 0.5).abs() < 1e-5 && (after[2] - 1.0 / 6.0).abs() < 1e-5, "{after:?}");
    }
}
