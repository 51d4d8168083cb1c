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

/// All trees in one list, over features as numbers of thresholds: a comparison with a threshold is one of two small numbers.
#[derive(Debug)]
pub struct Nodes {
    edges: Vec<Vec<f32>>,
    nodes: Vec<Node>,
    roots: Vec<u32>,
}

/// A node; the left side of an inner one follows it.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Of an inner node; [`NO_FEATURE`] of a leaf.
    feature: u8,
    /// Threshold of an inner node.
    edge: u8,
    /// How far the right side is behind an inner node; what a leaf adds, in ten-thousandths.
    value: i16,
}

/// The feature of a leaf: forests have at most 64.
const NO_FEATURE: u8 = MOST_FEATURES as u8 - 1;
/// Places for the codes of features, of which the last one stands for none.
const MOST_FEATURES: usize = 128;

/// How many thresholds of each feature lie below it. It is at most threshold t if that is at most t.
type Codes = [u16; MOST_FEATURES];

impl Nodes {
    /// Of a checked forest.
    fn new(forest: &Forest) -> Nodes {
        let (mut nodes, mut roots): (Vec<Node>, Vec<u32>) = (Vec::new(), Vec::new());
        for tree in &forest.trees {
            roots.push(nodes.len() as u32);
            let mut leaves = tree.leaves.iter();
            // Inner nodes whose right side has not begun.
            let mut open: Vec<usize> = Vec::new();
            for &node in &tree.nodes {
                let at = nodes.len();
                match usize::try_from(node) {
                    Ok(split) => {
                        let (feature, edge) = (split / MOST_EDGES, split % MOST_EDGES);
                        nodes.push(Node { feature: feature as u8, edge: edge as u8, value: 0 });
                        open.push(at);
                    }
                    Err(_) => {
                        let value = leaves.next().map_or(0, |&leaf| leaf as i16);
                        nodes.push(Node { feature: NO_FEATURE, edge: 0, value });
                        if let Some(parent) = open.pop() {
                            nodes[parent].value = (at + 1 - parent) as i16;
                        }
                    }
                }
            }
        }
        Nodes { edges: forest.edges.clone(), nodes, roots }
    }

    /// Features that are not there count as 0; one that is no number lies above all thresholds.
    fn codes(&self, features: &[f32]) -> Codes {
        let mut codes = [0; MOST_FEATURES];
        for (place, (code, edges)) in codes.iter_mut().zip(&self.edges).enumerate() {
            let value = features.get(place).copied().unwrap_or(0.0);
            let below = |&edge: &f32| edge < value || value.is_nan();
            *code = edges.partition_point(below) as u16;
        }
        codes
    }

    /// The sum over the trees. Features that are not there count as 0.
    pub fn predict(&self, features: &[f32]) -> f64 {
        let codes = self.codes(features);
        self.roots.iter().map(|&root| self.walk(root, &codes)).fold(0.0, |sum, value| sum + value)
    }

    /// The same of many. Each tree is walked for all before the next, and for some side by side, so that one step does not wait for another's.
    pub fn predict_all(&self, all: &[Vec<f32>]) -> Vec<f64> {
        const BESIDE: usize = 8;
        // Whole groups, so that the loops over them have no end to look for; what fills the last one is thrown away.
        let mut codes: Vec<[Codes; BESIDE]> = vec![[[0; MOST_FEATURES]; BESIDE]; all.len().div_ceil(BESIDE)];
        let each = codes.iter_mut().flatten();
        each.zip(all).for_each(|(codes, features)| *codes = self.codes(features));
        let mut sums = vec![[0.0; BESIDE]; codes.len()];
        for &root in &self.roots {
            for (sums, codes) in sums.iter_mut().zip(&codes) {
                let mut places = [root as usize; BESIDE];
                let mut walking = true;
                while walking {
                    let before = places;
                    for lane in 0..BESIDE {
                        places[lane] = self.next(places[lane], &codes[lane]);
                    }
                    walking = places != before;
                }
                for lane in 0..BESIDE {
                    sums[lane] += self.leaf(places[lane]);
                }
            }
        }
        sums.into_iter().flatten().take(all.len()).collect()
    }

    /// What one tree says.
    fn walk(&self, root: u32, codes: &Codes) -> f64 {
        let mut place = root as usize;
        loop {
            let next = self.next(place, codes);
            if next == place {
                return self.leaf(place);
            }
            place = next;
        }
    }

    /// What a leaf adds.
    fn leaf(&self, place: usize) -> f64 {
        f64::from(f32::from(self.nodes[place].value) * 1e-4)
    }

    /// The place behind this one; a leaf stays. In numbers, not branches: which side it is nobody can guess.
    #[inline]
    fn next(&self, place: usize, codes: &Codes) -> usize {
        let Node { feature, edge, value } = self.nodes[place];
        let inner = usize::from(feature != NO_FEATURE).wrapping_neg();
        let right = usize::from(codes[usize::from(feature) % MOST_FEATURES] > u16::from(edge)).wrapping_neg();
        let behind = (right & (value as usize).wrapping_sub(1)).wrapping_add(1);
        place + (inner & behind)
    }
}

#[cfg(test)]
mod tests {
    use super::{Forest, LARGEST_LEAF, Tree};
    use proptest::prelude::*;

    /// A tree of this depth whose splits and leaves come from `numbers` in turn.
    fn tree(
        depth: u32,
        numbers: &mut impl Iterator<Item = u32>,
        features: usize,
        edges: usize,
        out: &mut Tree,
    ) {
        let drawn = numbers.next().unwrap_or(0);
        if depth == 0 || drawn.is_multiple_of(5) {
            out.nodes.push(-1);
            out.leaves.push((drawn % (2 * LARGEST_LEAF as u32)) as i32 - LARGEST_LEAF);
            return;
        }
        let (feature, edge) = (drawn as usize / 7 % features, drawn as usize / 91 % edges);
        out.nodes.push((feature * super::MOST_EDGES + edge) as i32);
        tree(depth - 1, numbers, features, edges, out);
        tree(depth - 1, numbers, features, edges, out);
    }

    /// As the text of [`Tree`] says: left where the feature is at most the threshold.
    fn naive(forest: &Forest, features: &[f32]) -> f64 {
        fn inside(
            tree: &Tree,
            at: &mut (usize, usize),
            edges: &[Vec<f32>],
            features: &[f32],
            takes: bool,
        ) -> f64 {
            let node = tree.nodes[at.0];
            at.0 += 1;
            let Ok(split) = usize::try_from(node) else {
                at.1 += 1;
                return if takes { f64::from(tree.leaves[at.1 - 1] as f32 * 1e-4) } else { 0.0 };
            };
            let value = features.get(split / super::MOST_EDGES).copied().unwrap_or(0.0);
            let left = value <= edges[split / super::MOST_EDGES][split % super::MOST_EDGES];
            let sum = inside(tree, at, edges, features, takes && left);
            sum + inside(tree, at, edges, features, takes && !left)
        }
        forest
            .trees
            .iter()
            .fold(0.0, |sum, tree| sum + inside(tree, &mut (0, 0), &forest.edges, features, true))
    }

    proptest! {
        /// At thresholds, beside them, at what is no number and where features are missing.
        #[test]
        fn trees_are_walked_as_they_are_written(
            numbers in prop::collection::vec(any::<u32>(), 1..400),
            features in prop::collection::vec(prop::collection::vec(-3_i32..12, 0..4), 1..20),
            edges in 1_usize..10,
        ) {
            let thresholds: Vec<f32> = (0..edges).map(|edge| edge as f32).collect();
            let mut numbers = numbers.into_iter();
            let mut trees = Vec::new();
            for _ in 0..5 {
                let mut one = Tree { nodes: Vec::new(), leaves: Vec::new() };
                tree(6, &mut numbers, 3, edges, &mut one);
                trees.push(one);
            }
            let forest = Forest::new(vec![thresholds; 3], trees);
            prop_assert!(forest.check().is_ok());
            let value = |&half: &i32| match half {
                11 => f32::NAN,
                10 => f32::INFINITY,
                half => half as f32 / 2.0,
            };
            let features: Vec<Vec<f32>> = features.iter().map(|row| row.iter().map(value).collect()).collect();
            let expected: Vec<f64> = features.iter().map(|row| naive(&forest, row)).collect();
            prop_assert_eq!(forest.nodes().predict_all(&features), expected.clone());
            let one_by_one: Vec<f64> = features.iter().map(|row| forest.nodes().predict(row)).collect();
            prop_assert_eq!(one_by_one, expected);
        }
    }
}
