//! What measured tables add to the constants of a profile: a correction of one operator, small enough to ship, with what
//! it rests on and how wrong it is.

use crate::error::InputError;
use crate::units::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Corrections of a profile, by operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corrections {
    /// The device whose measurements these are, if not of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transferred_from: Option<String>,
    /// Matrix products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gemm: Option<Correction>,
    /// Attention of prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_attention: Option<Correction>,
    /// Attention of generated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_attention: Option<Correction>,
}

/// How far the times of an operator lie from the formulas of [`crate::cost`], learned from measured rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// What was fitted and what kept aside.
    pub evidence: Evidence,
    /// Least and largest value of each number of a shape among the fitted rows; beyond, a price is extrapolated.
    pub range: BTreeMap<String, (f64, f64)>,
    /// Pairs of formats that were fitted: activations, and weights or KV entries; float16 counts as bfloat16.
    #[serde(default = "sixteen_bits")]
    pub formats: Vec<(Dtype, Dtype)>,
    /// Rows (tokens) of products, sequences of attention, at which the correction is evaluated; in between the formulas say how time grows.
    pub rows: Vec<u32>,
    /// Entries that a row sees, on average, at which it is evaluated; empty for matrix products.
    pub context: Vec<f64>,
    /// The logarithm of measured over computed time.
    pub forest: Forest,
}

fn sixteen_bits() -> Vec<(Dtype, Dtype)> {
    vec![(Dtype::Bf16, Dtype::Bf16)]
}

/// What a correction rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// SHA-256 of the table's bytes.
    pub sha256: String,
    /// Rows fitted.
    pub fitted_rows: u64,
    /// Rows kept aside, by whole families.
    pub held_rows: u64,
    /// How families were kept aside.
    pub split: String,
    /// Mean absolute percentage error on the rows kept aside.
    pub held_error: f64,
    /// Mean signed percentage error there.
    pub held_bias: f64,
    /// Its 90th percentile without sign.
    pub held_p90: f64,
    /// Share of the variance of log time that the profile explains there; near or below 0: it explains nothing.
    pub explained: f64,
}

/// A sum of regression trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forest {
    /// Thresholds of each feature, rising.
    pub edges: Vec<Vec<f32>>,
    /// The trees.
    pub trees: Vec<Tree>,
}

/// A regression tree, its nodes in the order root, left, right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// 256 x feature + threshold of an inner node, whose left side is at most the threshold; -1 for a leaf.
    pub nodes: Vec<i32>,
    /// What each leaf adds, in ten-thousandths.
    pub leaves: Vec<i32>,
}

/// Thresholds of a feature at most.
pub const MOST_EDGES: usize = 256;
/// Trees and nodes of a tree at most.
const MOST_TREES: usize = 4096;
/// Logarithm of a correction at most, in ten-thousandths: a factor of e^10.
const LARGEST_LEAF: i32 = 100_000;

impl Corrections {
    /// The corrections there are, with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Correction)> {
        let all = [
            ("gemm", &self.gemm),
            ("context_attention", &self.context_attention),
            ("generation_attention", &self.generation_attention),
        ];
        all.into_iter().filter_map(|(name, correction)| Some((name, correction.as_ref()?)))
    }

    /// Refuses what no fit writes; `features` are those of each operator.
    pub(super) fn check(&self) -> Result<(), InputError> {
        self.named().try_for_each(|(name, correction)| {
            correction.check().map_err(|(key, expected)| {
                InputError::expected(expected).key(format!("corrections.{name}.{key}"))
            })
        })
    }
}

impl Correction {
    /// Each table of prices has this many points at most.
    const MOST_ANCHORS: usize = 128;

    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let evidence = &self.evidence;
        let numbers = [evidence.held_error, evidence.held_bias, evidence.held_p90, evidence.explained];
        if !numbers.iter().all(|number| number.is_finite()) || evidence.held_error < 0.0 {
            return Err(("evidence", "finite errors"));
        }
        if !self.range.values().all(|&(least, most)| least.is_finite() && least <= most && most.is_finite()) {
            return Err(("range", "finite bounds, the lower first"));
        }
        let rows = &self.rows;
        let fits = (2..=Self::MOST_ANCHORS).contains(&rows.len()) && rows[0] > 0;
        if !fits || !rows.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(("rows", "2 to 128 rising numbers above 0"));
        }
        let context = &self.context;
        let rising = context.windows(2).all(|pair| pair[0] < pair[1]);
        let finite = context.iter().all(|value| value.is_finite() && *value > 0.0);
        if context.len() == 1 || context.len() > Self::MOST_ANCHORS || !rising || !finite {
            return Err(("context", "none, or 2 to 128 rising numbers above 0"));
        }
        self.forest.check().map_err(|expected| ("forest", expected))
    }
}

impl Forest {
    fn check(&self) -> Result<(), &'static str> {
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
