//! Which layer follows which, as a graph.

use super::RouteTable;
use petgraph::graph::DiGraph;
use std::collections::BTreeMap;

/// A node for each layer that a token visits, in ascending order, and an edge from `a` to `b` for tokens that take `b`
/// right after `a`, with their number. `uses` says how many tokens take each route ([`super::Stats::uses`]).
pub fn transitions(routes: &RouteTable, uses: &[u64]) -> DiGraph<u32, u64> {
    let mut layers = BTreeMap::new();
    let mut edges = BTreeMap::<(u32, u32), u64>::new();
    for (route, &uses) in routes.iter().zip(uses).filter(|(_, uses)| **uses > 0) {
        layers.extend(route.0.iter().map(|step| (step.layer, ())));
        for pair in route.0.windows(2) {
            *edges.entry((pair[0].layer, pair[1].layer)).or_default() += uses;
        }
    }
    let mut graph = DiGraph::with_capacity(layers.len(), edges.len());
    let nodes: BTreeMap<u32, _> = layers.into_keys().map(|layer| (layer, graph.add_node(layer))).collect();
    for ((from, to), uses) in edges {
        graph.add_edge(nodes[&from], nodes[&to], uses);
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Route;

    #[test]
    fn edges_count_tokens() {
        let mut routes = RouteTable::default();
        routes.intern(Route::of_layers([0, 2, 2, 5]));
        routes.intern(Route::of_layers([0, 2]));
        routes.intern(Route::of_layers([7, 8]));
        let graph = transitions(&routes, &[3, 10, 0]);
        let layers: Vec<u32> = graph.node_weights().copied().collect();
        assert_eq!(layers, [0, 2, 5]);
        let mut edges: Vec<_> = graph
            .edge_indices()
            .map(|edge| {
                let (from, to) = graph.edge_endpoints(edge).unwrap();
                (graph[from], graph[to], graph[edge])
            })
            .collect();
        edges.sort_unstable();
        assert_eq!(edges, [(0, 2, 13), (2, 2, 3), (2, 5, 3)]);
    }
}
