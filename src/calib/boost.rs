//! Regression trees by gradient boosting (Friedman 2001) on histograms (as LightGBM, NIPS 2017): squared error, best leaf first.
//!
//! One thread decides and sums run in the order of the rows, so the same rows give the same trees on every machine.

use crate::hw::{Forest, LARGEST_LEAF, MOST_EDGES, Tree};

/// How trees are grown.
#[derive(Clone, Copy, Debug)]
pub struct TreeSettings {
    /// Trees.
    pub trees: usize,
    /// Leaves of a tree.
    pub leaves: usize,
    /// Share of the remaining error that a tree takes away.
    pub rate: f64,
    /// Rows that a leaf must have.
    pub least_rows: usize,
    /// Thresholds of a feature.
    pub edges: usize,
    /// Errors beyond this count as this (Huber 1964), so that a few odd rows do not pull.
    pub clip: f64,
    /// Where thresholds lie between two values of the rows of a leaf: in the middle of those that part them alike, or at the first. In the
    /// middle, a shape between two fitted ones goes with the nearer.
    pub middle: bool,
}

/// Added to the rows of a leaf when its value is taken: few rows are believed less.
const RIDGE: f64 = 1.0;

/// Rows by feature, as numbers of thresholds below.
struct Bins {
    edges: Vec<Vec<f32>>,
    columns: Vec<Vec<u8>>,
}

impl Bins {
    fn new(features: &[Vec<f32>], most: usize) -> Bins {
        let width = features.first().map_or(0, Vec::len);
        let mut edges = Vec::with_capacity(width);
        let mut columns = Vec::with_capacity(width);
        for feature in 0..width {
            let mut values: Vec<f32> = features.iter().map(|row| row[feature]).collect();
            values.sort_by(f32::total_cmp);
            values.dedup();
            // Thresholds between values, evenly over the distinct ones.
            let gaps = values.len() - 1;
            let count = gaps.min(most);
            let list: Vec<f32> = (0..count)
                .map(|index| {
                    let at = if gaps <= most { index } else { (index + 1) * gaps / (count + 1) };
                    short(values[at], values[at + 1])
                })
                .collect();
            let bin = |row: &Vec<f32>| list.partition_point(|&edge| edge < row[feature]) as u8;
            columns.push(features.iter().map(bin).collect());
            edges.push(list);
        }
        Bins { edges, columns }
    }
}

/// The shortest decimal number of those from `low` on that is below `high`.
fn short(low: f32, high: f32) -> f32 {
    let middle = low + (high - low) / 2.0;
    let short = (2..8).filter_map(|digits| format!("{middle:.digits$e}").parse().ok());
    short.into_iter().find(|&edge: &f32| low <= edge && edge < high).unwrap_or(low)
}

/// A leaf that may be split, and what splitting it gains.
struct Leaf {
    node: usize,
    rows: Vec<u32>,
    histogram: Vec<(f64, u32)>,
    best: Option<Split>,
}

#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    feature: usize,
    edge: usize,
}

/// A node while the tree grows.
enum Node {
    Leaf(f64),
    Split { feature: usize, edge: usize, left: usize, right: usize },
}

/// Trees that add up to `targets` for these features, one list a row.
pub fn grow(features: &[Vec<f32>], targets: &[f64], settings: TreeSettings) -> Forest {
    assert_eq!(features.len(), targets.len(), "a target a row");
    let settings = TreeSettings { edges: settings.edges.min(MOST_EDGES - 1), ..settings };
    if features.is_empty() {
        return Forest::default();
    }
    let bins = Bins::new(features, settings.edges);
    let mut errors: Vec<f64> = targets.to_vec();
    let trees = (0..settings.trees).map(|_| tree(&bins, &mut errors, settings)).collect();
    Forest::new(bins.edges, trees)
}

/// One tree; takes what it says away from `errors`.
fn tree(bins: &Bins, errors: &mut [f64], settings: TreeSettings) -> Tree {
    let clipped: Vec<f64> = errors.iter().map(|error| error.clamp(-settings.clip, settings.clip)).collect();
    let left = &clipped[..];
    let all: Vec<u32> = (0..errors.len() as u32).collect();
    let mut nodes = vec![Node::Leaf(0.0)];
    let mut leaves = vec![leaf(bins, left, 0, all, None, settings)];
    while leaves.len() < settings.leaves {
        let gain = |leaf: &Leaf| leaf.best.map_or(0.0, |split| split.gain);
        let best =
            (0..leaves.len()).max_by(|&a, &b| gain(&leaves[a]).total_cmp(&gain(&leaves[b])).then(b.cmp(&a)));
        let Some(index) = best.filter(|&index| gain(&leaves[index]) > 1e-9) else { break };
        let old = leaves.swap_remove(index);
        let Some(Split { feature, edge, .. }) = old.best else { break };
        let column = &bins.columns[feature];
        let (low, high): (Vec<u32>, Vec<u32>) =
            old.rows.iter().partition(|&&row| usize::from(column[row as usize]) <= edge);
        nodes[old.node] = Node::Split { feature, edge, left: nodes.len(), right: nodes.len() + 1 };
        let (low_node, high_node) = (nodes.len(), nodes.len() + 1);
        nodes.extend([Node::Leaf(0.0), Node::Leaf(0.0)]);
        // The larger side's histogram is what the smaller one leaves of the parent's.
        let low_smaller = low.len() <= high.len();
        let (small, large) = if low_smaller {
            ((low_node, low), (high_node, high))
        } else {
            ((high_node, high), (low_node, low))
        };
        let small = leaf(bins, left, small.0, small.1, None, settings);
        let rest = old.histogram.iter().zip(&small.histogram);
        let rest = rest.map(|(all, part)| (all.0 - part.0, all.1 - part.1)).collect();
        let large = leaf(bins, left, large.0, large.1, Some(rest), settings);
        leaves.extend([small, large]);
    }
    for leaf in &leaves {
        let sum: f64 = leaf.rows.iter().map(|&row| left[row as usize]).sum();
        // As it is kept in a profile, so that later trees see its rounding.
        let value = (1e4 * settings.rate * sum / (leaf.rows.len() as f64 + RIDGE)).round();
        let value = value.clamp(-f64::from(LARGEST_LEAF), f64::from(LARGEST_LEAF));
        nodes[leaf.node] = Node::Leaf(value);
        leaf.rows.iter().for_each(|&row| errors[row as usize] -= value * 1e-4);
    }
    listed(&nodes)
}

fn leaf(
    bins: &Bins,
    left: &[f64],
    node: usize,
    rows: Vec<u32>,
    known: Option<Vec<(f64, u32)>>,
    settings: TreeSettings,
) -> Leaf {
    let histogram = known.unwrap_or_else(|| {
        let mut histogram = vec![(0.0, 0); bins.columns.len() * MOST_EDGES];
        for (column, sums) in bins.columns.iter().zip(histogram.chunks_mut(MOST_EDGES)) {
            for &row in &rows {
                let sum = &mut sums[usize::from(column[row as usize])];
                sum.0 += left[row as usize];
                sum.1 += 1;
            }
        }
        histogram
    });
    let best = best_split(bins, &histogram, rows.len(), settings);
    Leaf { node, rows, histogram, best }
}

/// The split that takes away most of the squared error.
fn best_split(bins: &Bins, histogram: &[(f64, u32)], rows: usize, settings: TreeSettings) -> Option<Split> {
    let score = |sum: f64, count: f64| sum * sum / (count + RIDGE);
    let mut best: Option<Split> = None;
    // The last threshold that parts the rows as the best one does.
    let mut last = 0;
    for (feature, sums) in histogram.chunks(MOST_EDGES).enumerate() {
        let total: f64 = sums.iter().map(|sum| sum.0).sum();
        let (mut low, mut count) = (0.0, 0usize);
        for (edge, &(sum, rows_here)) in sums.iter().take(bins.edges[feature].len()).enumerate() {
            low += sum;
            count += rows_here as usize;
            if rows_here == 0 && edge == last + 1 && best.is_some_and(|best| best.feature == feature) {
                last = edge;
                continue;
            }
            if count < settings.least_rows || rows - count < settings.least_rows {
                continue;
            }
            let gain = score(low, count as f64) + score(total - low, (rows - count) as f64)
                - score(total, rows as f64);
            if best.is_none_or(|best| gain > best.gain) {
                best = Some(Split { gain, feature, edge });
                last = edge;
            }
        }
    }
    let middle = |split: Split| Split { edge: (split.edge + last) / 2, ..split };
    if settings.middle { best.map(middle) } else { best }
}

/// Root, left side, right side.
fn listed(nodes: &[Node]) -> Tree {
    let mut out = Tree { nodes: Vec::new(), leaves: Vec::new() };
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        match nodes[at] {
            Node::Leaf(value) => {
                out.nodes.push(-1);
                out.leaves.push(value as i32);
            }
            Node::Split { feature, edge, left, right } => {
                out.nodes.push((feature * MOST_EDGES + edge) as i32);
                open.extend([right, left]);
            }
        }
    }
    out
}
