//! Regression trees: as a profile keeps them, and laid out to be walked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

/// Thresholds of a feature at most.
pub const MOST_EDGES: usize = 256;
/// Trees and nodes of a tree at most.
const MOST_TREES: usize = 4096;
/// What a leaf adds at most, in ten-thousandths.
pub const LARGEST_LEAF: i32 = (1 << 14) - 1;

/// A sum of regression trees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forest {
    /// Thresholds of each feature, rising.
    pub edges: Vec<Vec<f32>>,
    /// The trees.
    pub trees: Vec<Tree>,
    #[serde(skip)]
    laid: Laid,
}

/// The same laid out to be walked, once somebody has asked for it.
#[derive(Clone, Debug, Default)]
struct Laid(OnceLock<Arc<Nodes>>);

/// It follows from the rest.
impl PartialEq for Laid {
    fn eq(&self, _: &Laid) -> bool {
        true
    }
}

/// A regression tree, its nodes in the order root, left, right. In a file it is a string: a number of 16 bits for each node, the lower byte
/// first, in Base64 without padding (RFC 4648, section 4). An inner node is 256 x feature + threshold, a leaf 2^15 + 2^14 + its value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tree {
    /// 256 x feature + threshold of an inner node, whose left side is at most the threshold; -1 for a leaf.
    pub nodes: Vec<i32>,
    /// What each leaf adds, in ten-thousandths.
    pub leaves: Vec<i32>,
}

const LEAF: u16 = 1 << 15;

impl From<Tree> for String {
    fn from(tree: Tree) -> String {
        let mut leaves = tree.leaves.iter();
        let code = |&node: &i32| match u16::try_from(node) {
            Ok(split) => split,
            Err(_) => LEAF + (LARGEST_LEAF + 1 + leaves.next().unwrap_or(&0)) as u16,
        };
        let bytes: Vec<u8> = tree.nodes.iter().map(code).flat_map(u16::to_le_bytes).collect();
        STANDARD_NO_PAD.encode(bytes)
    }
}

impl TryFrom<String> for Tree {
    type Error = String;

    fn try_from(text: String) -> Result<Tree, String> {
        let bytes = STANDARD_NO_PAD.decode(&text).map_err(|error| format!("a tree in Base64 ({error})"))?;
        let mut tree = Tree { nodes: Vec::new(), leaves: Vec::new() };
        for pair in bytes.chunks(2) {
            let code =
                u16::from_le_bytes([pair[0], *pair.get(1).ok_or("two bytes for each node of a tree")?]);
            if code < LEAF {
                tree.nodes.push(code.into());
            } else {
                tree.nodes.push(-1);
                tree.leaves.push(i32::from(code - LEAF) - LARGEST_LEAF - 1);
            }
        }
        Ok(tree)
    }
}

impl Forest {
    /// These trees over these thresholds.
    pub fn new(edges: Vec<Vec<f32>>, trees: Vec<Tree>) -> Forest {
        Forest { edges, trees, laid: Laid::default() }
    }

    /// Laid out to be walked; for a checked forest.
    pub fn nodes(&self) -> Arc<Nodes> {
        self.laid.0.get_or_init(|| Arc::new(Nodes::new(self))).clone()
    }

    /// Takes this share of what every tree says.
    pub fn scale(&mut self, share: f64) {
        let leaves = self.trees.iter_mut().flat_map(|tree| &mut tree.leaves);
        leaves.for_each(|leaf| *leaf = (f64::from(*leaf) * share).round() as i32);
        self.laid = Laid::default();
    }

    /// Refuses what no fit writes.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        // What is laid out was checked before.
        if self.laid.0.get().is_some() {
            return Ok(());
        }
        let edges = &self.edges;
        let rising = |list: &Vec<f32>| list.windows(2).all(|pair| pair[0] < pair[1]);
        let finite = |list: &Vec<f32>| list.iter().all(|edge| edge.is_finite());
        if edges.len() > 64
            || !edges.iter().all(|list| list.len() <= MOST_EDGES && rising(list) && finite(list))
        {
            return Err("at most 64 lists of at most 256 rising thresholds");
        }
        if self.trees.len() > MOST_TREES {
            return Err("at most 4096 trees");
        }
        let sound = |tree: &Tree| tree.check(edges);
        if self.trees.iter().all(sound) {
            Ok(())
        } else {
            Err("trees whose nodes and leaves belong together")
        }
    }
}

impl Tree {
    /// Whether the nodes make one whole tree over known thresholds.
    fn check(&self, edges: &[Vec<f32>]) -> bool {
        let (mut open, mut leaves) = (1u64, 0);
        for &node in &self.nodes {
            if open == 0 {
                return false;
            }
            match usize::try_from(node) {
                Ok(split) => {
                    let (feature, edge) = (split / MOST_EDGES, split % MOST_EDGES);
                    if edges.get(feature).is_none_or(|list| edge >= list.len()) {
                        return false;
                    }
                    open += 1;
                }
                Err(_) if node == -1 => {
                    open -= 1;
                    leaves += 1;
                }
                Err(_) => return false,
            }
        }
        let small = self.leaves.iter().all(|leaf| leaf.abs() <= LARGEST_LEAF);
        open == 0 && leaves == self.leaves.len() && self.nodes.len() < 1024 && small
    }
}

/// All trees in one list.
#[derive(Debug)]
pub struct Nodes {
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

/// The feature of a leaf.
const NO_FEATURE: u16 = u16::MAX;

impl Nodes {
    /// Of a checked forest.
    fn new(forest: &Forest) -> Nodes {
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
                        out.nodes.push(Node { feature: NO_FEATURE, right: 0, value });
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
    pub fn predict(&self, features: &[f32]) -> f64 {
        self.roots.iter().map(|&root| self.walk(root, features)).fold(0.0, |sum, value| sum + value)
    }

    /// The same of many. Each tree is walked for all before the next, and for some side by side, so that one step does not wait for another's.
    pub fn predict_all(&self, all: &[Vec<f32>]) -> Vec<f64> {
        const BESIDE: usize = 8;
        let mut sums = vec![0.0; all.len()];
        for &root in &self.roots {
            for (sums, features) in sums.chunks_mut(BESIDE).zip(all.chunks(BESIDE)) {
                let mut places = [root as usize; BESIDE];
                let mut walking = true;
                while walking {
                    walking = false;
                    for (place, features) in places.iter_mut().zip(features) {
                        let next = self.next(*place, features);
                        walking |= next != *place;
                        *place = next;
                    }
                }
                let leaves = places.iter().map(|&place| f64::from(self.nodes[place].value));
                sums.iter_mut().zip(leaves).for_each(|(sum, leaf)| *sum += leaf);
            }
        }
        sums
    }

    /// What one tree says.
    fn walk(&self, root: u32, features: &[f32]) -> f64 {
        let mut place = root as usize;
        loop {
            let next = self.next(place, features);
            if next == place {
                return f64::from(self.nodes[place].value);
            }
            place = next;
        }
    }

    /// The place behind this one; a leaf stays.
    #[inline]
    fn next(&self, place: usize, features: &[f32]) -> usize {
        let node = self.nodes[place];
        let left = features.get(node.feature as usize).copied().unwrap_or(0.0) <= node.value;
        let inner = if left { place + 1 } else { node.right as usize };
        if node.feature == NO_FEATURE { place } else { inner }
    }
}
