//! Axes as points: each by its number, without a list of all of them.

use super::axis::{Axis, AxisValue, Leaf};
use crate::error::{InputError, Result};
use crate::rng::Stream;
use std::collections::HashSet;

/// Most points of a study.
pub const MOST_POINTS: u64 = 100_000_000;

/// Most values that the axes of a study list together: some 200 MB.
const MOST_LISTED: u64 = 2_000_000;

/// All combinations of the axes, the last one fastest.
#[derive(Clone, Debug)]
pub struct Grid {
    axes: Vec<Node>,
    count: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Leaf),
    Zip(Vec<Node>),
    Product(Vec<Node>),
    Sample(Sample),
}

#[derive(Clone, Debug)]
struct Sample {
    count: u64,
    seed: u32,
    sobol: bool,
    /// In samples each dimension is a leaf, or several that move together.
    dimensions: Vec<Vec<Leaf>>,
}

impl Grid {
    /// Of these axes; without any, one point.
    ///
    /// # Errors
    /// Axes that make no sense, two of the same name, two that set one key, or too many points.
    pub fn new(axes: &[Axis]) -> Result<Grid> {
        let listed: u64 = axes.iter().map(Axis::listed).sum();
        if listed > MOST_LISTED {
            let expected = format!("axes that list at most {MOST_LISTED} values together");
            return Err(InputError::expected(expected).key("axes").found(listed).into());
        }
        let axes = axes.iter().map(Node::new).collect::<Result<Vec<_>>>()?;
        let count = product(&axes)?;
        let grid = Grid { axes, count };
        let (mut names, mut keys) = (HashSet::new(), HashSet::new());
        for leaf in grid.leaves() {
            if !names.insert(&leaf.name) {
                return Err(bad(&leaf.name, "two axes of this name", "names that differ").into());
            }
            if let Some(key) = leaf.keys.iter().find(|key| !keys.insert(*key)) {
                let found = format!("the key {key} in two axes");
                return Err(bad(&leaf.name, found, "each key once").into());
            }
        }
        Ok(grid)
    }

    /// How many points there are, variants not counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The axes that set keys, in their order.
    pub fn leaves(&self) -> Vec<&Leaf> {
        let mut leaves = Vec::new();
        self.axes.iter().for_each(|node| node.leaves(&mut leaves));
        leaves
    }

    /// The names of the axes that move together with this one, its own included: those of its zip or sample.
    pub fn together(&self, name: &str) -> Vec<&str> {
        self.group(name).map(|(_, names)| names).unwrap_or_default()
    }

    /// Whether an axis is drawn from: its values then belong to no line.
    pub fn is_sampled(&self, name: &str) -> bool {
        self.group(name).is_some_and(|(node, _)| matches!(node, Node::Sample(_)))
    }

    /// The node of the axis of this name, and the names of all axes in it.
    fn group(&self, name: &str) -> Option<(&Node, Vec<&str>)> {
        self.axes.iter().map(|node| (node, node.names())).find(|(_, names)| names.contains(&name))
    }

    /// What every leaf has at the point of this number.
    pub fn at(&self, index: u64) -> Vec<AxisValue<'_>> {
        let mut choices = Vec::new();
        at_product(&self.axes.iter().collect::<Vec<_>>(), index, &mut choices);
        choices
    }

    /// What is left without the axes of these names.
    ///
    /// # Errors
    /// No axis of such a name that stands for itself (not in a zip, product or sample).
    pub fn without(&self, names: &[&str]) -> Result<Without<'_>> {
        let alone = |node: &'_ Node| match node {
            Node::Leaf(leaf) => Some(leaf.name.clone()),
            _ => None,
        };
        if let Some(lost) =
            names.iter().find(|name| !self.axes.iter().any(|node| alone(node).as_deref() == Some(**name)))
        {
            let known: Vec<String> = self.axes.iter().filter_map(alone).collect();
            let expected = match known.join(", ") {
                none if none.is_empty() => {
                    "an axis outside zips and samples, of which there is none".to_owned()
                }
                known => format!("an axis outside zips and samples: one of {known}"),
            };
            return Err(InputError::expected(expected).key("searches, axis").found(lost).into());
        }
        let is_out = |node: &Node| alone(node).is_some_and(|name| names.contains(&name.as_str()));
        let mut out = Vec::new();
        let mut kept = Vec::new();
        for node in &self.axes {
            match node {
                Node::Leaf(leaf) if is_out(node) => out.push(leaf),
                node => kept.push(node),
            }
        }
        Ok(Without { all: &self.axes, out, kept })
    }
}

/// A grid without some of its axes.
#[derive(Clone, Debug)]
pub struct Without<'a> {
    all: &'a [Node],
    /// The axes that were taken out, in their order.
    pub out: Vec<&'a Leaf>,
    kept: Vec<&'a Node>,
}

impl<'a> Without<'a> {
    /// How many points are left.
    pub fn count(&self) -> u64 {
        self.kept.iter().map(|node| node.count()).product()
    }

    /// What the other axes have at the point of this number.
    pub fn at(&self, index: u64) -> Vec<AxisValue<'a>> {
        let mut choices = Vec::new();
        at_product(&self.kept, index, &mut choices);
        choices
    }

    /// The number here of a point of the whole grid.
    pub fn index_of(&self, point: u64) -> u64 {
        let (mut rest, mut scale, mut index) = (point, 1, 0);
        for node in self.all.iter().rev() {
            let place = rest % node.count();
            rest /= node.count();
            if self.kept.iter().any(|kept| std::ptr::eq(*kept, node)) {
                index += place * scale;
                scale *= node.count();
            }
        }
        index
    }
}

fn bad(name: &str, found: impl std::fmt::Display, expected: &str) -> InputError {
    InputError::expected(expected).key(format!("axes, {name}")).found(found)
}

/// Points of all combinations.
fn product(nodes: &[Node]) -> Result<u64> {
    let count = nodes.iter().try_fold(1_u64, |count, node| count.checked_mul(node.count()));
    count.filter(|count| *count <= MOST_POINTS).ok_or_else(|| {
        InputError::expected(format!("axes of at most {MOST_POINTS} points together"))
            .key("axes")
            .found("more")
            .into()
    })
}

fn at_product<'a>(nodes: &[&'a Node], index: u64, choices: &mut Vec<AxisValue<'a>>) {
    let mut stride: u64 = nodes.iter().map(|node| node.count()).product();
    let mut rest = index;
    for node in nodes {
        stride /= node.count();
        node.at(rest / stride, choices);
        rest %= stride;
    }
}

impl Node {
    fn new(axis: &Axis) -> Result<Node> {
        if let Some(leaf) = Leaf::new(axis)? {
            if leaf.count().is_none() {
                return Err(bad(&leaf.name, "no count", "a count, as outside samples").into());
            }
            return Ok(Node::Leaf(leaf));
        }
        let nodes = |axes: &[Axis]| axes.iter().map(Node::new).collect::<Result<Vec<_>>>();
        Ok(match axis {
            Axis::Zip(axes) => {
                let nodes = nodes(axes)?;
                let counts: Vec<u64> = nodes.iter().map(Node::count).collect();
                if counts.is_empty() || counts.iter().any(|count| *count != counts[0]) {
                    return Err(
                        bad("Zip", format!("{counts:?} values"), "axes of equally many values").into()
                    );
                }
                Node::Zip(nodes)
            }
            Axis::Product(axes) => {
                let nodes = nodes(axes)?;
                product(&nodes)?;
                Node::Product(nodes)
            }
            Axis::Random { count, seed, over } => Node::Sample(Sample::new(*count, *seed, false, over)?),
            Axis::Sobol { count, seed, over } => Node::Sample(Sample::new(*count, *seed, true, over)?),
            Axis::Values { .. } | Axis::Range { .. } | Axis::LogRange { .. } => {
                unreachable!("these are leaves")
            }
        })
    }

    fn count(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.count().expect("checked when it was made"),
            Node::Zip(nodes) => nodes[0].count(),
            Node::Product(nodes) => nodes.iter().map(Node::count).product(),
            Node::Sample(sample) => sample.count,
        }
    }

    fn names(&self) -> Vec<&str> {
        let mut leaves = Vec::new();
        self.leaves(&mut leaves);
        leaves.into_iter().map(|leaf| leaf.name.as_str()).collect()
    }

    fn leaves<'a>(&'a self, leaves: &mut Vec<&'a Leaf>) {
        match self {
            Node::Leaf(leaf) => leaves.push(leaf),
            Node::Zip(nodes) | Node::Product(nodes) => nodes.iter().for_each(|node| node.leaves(leaves)),
            Node::Sample(sample) => leaves.extend(sample.dimensions.iter().flatten()),
        }
    }

    fn at<'a>(&'a self, index: u64, choices: &mut Vec<AxisValue<'a>>) {
        match self {
            Node::Leaf(leaf) => choices.push(leaf.at(index)),
            Node::Zip(nodes) => nodes.iter().for_each(|node| node.at(index, choices)),
            Node::Product(nodes) => at_product(&nodes.iter().collect::<Vec<_>>(), index, choices),
            Node::Sample(sample) => sample.at(index, choices),
        }
    }
}

impl Sample {
    fn new(count: u32, seed: u32, sobol: bool, over: &[Axis]) -> Result<Sample> {
        let name = if sobol { "Sobol" } else { "Random" };
        let most = if sobol { 1 << 16 } else { MOST_POINTS as u32 };
        if !(1..=most).contains(&count) {
            return Err(bad(name, format!("count {count}"), &format!("a count from 1 to {most}")).into());
        }
        let dimension = |axis: &Axis| -> Result<Vec<Leaf>> {
            let leaves = match axis {
                Axis::Zip(axes) => axes.iter().map(Leaf::new).collect::<Result<Option<Vec<_>>>>()?,
                axis => Leaf::new(axis)?.map(|leaf| vec![leaf]),
            };
            let leaves = leaves
                .filter(|leaves| !leaves.is_empty())
                .ok_or_else(|| bad(name, "another", "Values, Range, LogRange, or a Zip of these"))?;
            if leaves.iter().any(|leaf| leaf.count() != leaves[0].count()) {
                return Err(bad("Zip", "axes of different sizes", "axes of equally many values").into());
            }
            Ok(leaves)
        };
        let dimensions = over.iter().map(dimension).collect::<Result<Vec<_>>>()?;
        if dimensions.is_empty() || dimensions.len() > 256 {
            return Err(bad(name, format!("{} axes", dimensions.len()), "1 to 256 axes").into());
        }
        Ok(Sample { count: count.into(), seed, sobol, dimensions })
    }

    fn at<'a>(&'a self, index: u64, choices: &mut Vec<AxisValue<'a>>) {
        for (dimension, leaves) in self.dimensions.iter().enumerate() {
            let unit = if self.sobol {
                f64::from(sobol_burley::sample(index as u32, dimension as u32, self.seed))
            } else {
                Stream::new(self.seed.into(), &format!("study, {dimension}, {index}")).uniform()
            };
            choices.extend(leaves.iter().map(|leaf| leaf.draw(unit)));
        }
    }
}
