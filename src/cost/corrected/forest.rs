//! The trees of a correction, laid out to be walked.

use crate::hw::{Forest, MOST_EDGES};

/// All trees in one list.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    roots: Vec<u32>,
}

/// A node; the left side of an inner one follows it.
#[derive(Clone, Copy, Debug)]
struct Node {
    feature: u16,
    right: u32,
    /// Threshold of an inner node, value of a leaf.
    value: f32,
}

const LEAF: u16 = u16::MAX;

impl Nodes {
    /// Of a checked forest.
    pub(crate) fn new(forest: &Forest) -> Nodes {
        let mut out = Nodes { nodes: Vec::new(), roots: Vec::new() };
        for tree in &forest.trees {
            out.roots.push(out.nodes.len() as u32);
            let mut leaves = tree.leaves.iter();
            // Inner nodes whose right side has not begun.
            let mut open: Vec<usize> = Vec::new();
            for &node in &tree.nodes {
                let at = out.nodes.len();
                match usize::try_from(node) {
                    Ok(split) => {
                        let (feature, edge) = (split / MOST_EDGES, split % MOST_EDGES);
                        let value = forest.edges[feature][edge];
                        out.nodes.push(Node { feature: feature as u16, right: 0, value });
                        open.push(at);
                    }
                    Err(_) => {
                        let value = leaves.next().map_or(0.0, |&leaf| leaf as f32 * 1e-4);
                        out.nodes.push(Node { feature: LEAF, right: 0, value });
                        if let Some(parent) = open.pop() {
                            out.nodes[parent].right = at as u32 + 1;
                        }
                    }
                }
            }
        }
        out
    }

    /// The sum over the trees. Features that are not there count as 0.
    pub(crate) fn predict(&self, features: &[f32]) -> f64 {
        let mut sum = 0.0;
        for &root in &self.roots {
            let mut at = root as usize;
            loop {
                let node = self.nodes[at];
                if node.feature == LEAF {
                    sum += f64::from(node.value);
                    break;
                }
                let left = features.get(node.feature as usize).copied().unwrap_or(0.0) <= node.value;
                at = if left { at + 1 } else { node.right as usize };
            }
        }
        sum
    }
}
