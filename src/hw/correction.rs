//! What measured tables add to the constants of a profile: a correction of one operator, small enough to ship, with what
//! it rests on and how wrong it is.

use super::evidence::Evidence;
use super::experts::ExpertTimes;
use super::forest::Forest;
use super::shared::Shared;
use super::{MOST_PERCENT, Uneven};
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
    /// Corrections by name that were measured on this device all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<String>,
    /// Matrix products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gemm: Option<Correction>,
    /// Attention of prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_attention: Option<Correction>,
    /// Attention of generated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_attention: Option<Correction>,
    /// Products and attention in other formats, by the names of their tables: `gemm_fp8`, `gemm_fp8_block`, `gemm_nvfp4`,
    /// `context_attention_fp8kv`, `generation_attention_fp8kv`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_format: BTreeMap<String, Correction>,
    /// Operators in 16 bits that nobody measured on this device, by name, and which of `by_format` stands for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub within: BTreeMap<String, Within>,
    /// Whole expert layers, by the names of their formats: `experts`, `experts_fp8`, `experts_fp8_block`, `experts_nvfp4`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub experts: BTreeMap<String, ExpertTimes>,
    /// Attention of a chunk of one prompt: over rows of the chunk, and over its older entries and one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_attention: Option<Correction>,
    /// Attention of generated tokens in one call with rows of prompts, beyond what the prompts take alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixed_attention: Option<Correction>,
    /// What calls of generated tokens wait for where their contexts are not equally long; absent: nobody measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uneven: Option<Uneven>,
    /// Kernels over their rows, by name; products with their inner width and columns: `matmul_4096x6144`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_rows: BTreeMap<String, Correction>,
    /// Attention and kernels over their rows of layers of other shapes than those that were measured first, by name and shape:
    /// `generation_attention_64x8x128` (heads of queries, heads of the cache, their width), `rope_72x128`, `rms_norm_5120`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub of_shape: BTreeMap<String, Correction>,
    /// Kernels that the measured software runs inside others, whose measured times hold theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fused: Vec<String>,
}

/// A loan within a device: what it learned in one format, asked of 16 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Within {
    /// Name of the correction.
    pub from: String,
    /// Share of what its trees say that is taken over.
    pub share: f64,
    /// Mean absolute percentage error that one expects of it, and its 90th percentile.
    pub error: (f64, f64),
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
    /// Rows of prompts in the same call at which it is evaluated; only for mixed attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<u32>,
    /// The logarithm of measured over computed time at each of `beside`, `rows`, `context`, the last one fastest, in ten-thousandths,
    /// where shapes were measured on a grid; empty where the forest says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grid: Vec<i32>,
    /// Constants of the waves of tiles that computed times begin with; without them, the four of the kernel's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// The logarithm of measured over computed time.
    pub forest: Shared<Forest>,
    /// What the host took for a call, where the table was measured without captured graphs: the logarithm of microseconds. Times below it
    /// are not in the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Shared<Forest>>,
}

/// How products fall into waves of tiles and what those wait for (`docs/COST_MODEL.md`, "Waves"). All in cycles or without a unit, so
/// that another device can borrow them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waves {
    /// Cycles of every call beyond its waves.
    pub start_cycles: f64,
    /// Reached share of the flops a cycle.
    pub flops: f64,
    /// Reached share of the bandwidth of device memory.
    pub dram: f64,
    /// Reached share of the bandwidth of the last cache.
    pub l2: f64,
    /// Bytes a cycle that one unit takes from the last cache.
    pub unit_bytes: f64,
    /// Cycles that 64 values of the inner width take at least.
    pub step_cycles: f64,
    /// Cycles of a wave beyond its steps.
    pub wave_cycles: f64,
    /// Cycles of adding up what a split of the inner width left.
    pub split_cycles: f64,
    /// Share of the shorter of tiles and memory that hides behind the longer.
    pub overlap: f64,
    /// Share of the last cache that keeps what was read.
    pub kept: f64,
    /// Share of what later waves read again that comes from device memory.
    pub again: f64,
    /// Bringing rows into the format of the product, where the measured times hold that too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantise: Option<Quantising>,
}

/// A kernel that brings rows into the format of a product before it: a block a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantising {
    /// Cycles of every call.
    pub start_cycles: f64,
    /// Cycles of a row, all units together: blocks are handed out one after another.
    pub row_cycles: f64,
    /// Reached share of the bandwidth of device memory.
    pub dram: f64,
}

impl Waves {
    /// The constants in the order of the fields.
    pub fn numbers(&mut self) -> Vec<&mut f64> {
        let mut all = vec![
            &mut self.start_cycles,
            &mut self.flops,
            &mut self.dram,
            &mut self.l2,
            &mut self.unit_bytes,
            &mut self.step_cycles,
            &mut self.wave_cycles,
            &mut self.split_cycles,
            &mut self.overlap,
            &mut self.kept,
            &mut self.again,
        ];
        if let Some(Quantising { start_cycles, row_cycles, dram }) = &mut self.quantise {
            all.extend([start_cycles, row_cycles, dram]);
        }
        all
    }
}

fn sixteen_bits() -> Vec<(Dtype, Dtype)> {
    vec![(Dtype::Bf16, Dtype::Bf16)]
}

/// Logarithm of a cell of a grid at most, in ten-thousandths: a factor of e^10.
const LARGEST_CELL: i32 = 100_000;
impl Corrections {
    /// The corrections there are, with their names.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Correction)> {
        let all = [
            ("gemm", &self.gemm),
            ("context_attention", &self.context_attention),
            ("generation_attention", &self.generation_attention),
            ("chunk_attention", &self.chunk_attention),
            ("mixed_attention", &self.mixed_attention),
        ];
        let all = all.into_iter().filter_map(|(name, correction)| Some((name, correction.as_ref()?)));
        let by_name = self.by_format.iter().chain(&self.by_rows).chain(&self.of_shape);
        all.chain(by_name.map(|(name, correction)| (name.as_str(), correction)))
    }

    /// What stands for an operator in 16 bits that nobody measured here: what was learned in another format, its trees in part, as wrong
    /// as one expects of that.
    pub fn lent_within(&self, name: &str) -> Option<Correction> {
        let within = self.within.get(name)?;
        let mut lent = self.by_format.get(&within.from)?.clone();
        lent.forest.scale(within.share);
        lent.formats = sixteen_bits();
        (lent.evidence.held_error, lent.evidence.held_p90) = within.error;
        lent.evidence.held_interval = None;
        Some(Correction { host: None, ..lent })
    }

    /// Refuses what no fit writes; `features` are those of each operator.
    pub(super) fn check(&self) -> Result<(), InputError> {
        for (name, within) in &self.within {
            let Within { from, share, error: (mean, p90) } = within;
            let sound =
                (0.0..=1.0).contains(share) && [mean, p90].iter().all(|e| (0.0..=MOST_PERCENT).contains(*e));
            if !self.by_format.contains_key(from) || !sound {
                let expected = "from: one of by_format, a share from 0 to 1, errors in percent";
                return Err(InputError::expected(expected).key(format!("corrections.within.{name}")));
            }
        }
        if !self.uneven.as_ref().is_none_or(Uneven::is_sound) {
            let expected = "finite errors, blocks above 0 and at most 64 a unit";
            return Err(InputError::expected(expected).key("corrections.uneven"));
        }
        for (name, times) in &self.experts {
            times.check().map_err(|(key, expected)| {
                InputError::expected(expected).key(format!("corrections.experts.{name}.{key}"))
            })?;
        }
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
        if !evidence.is_sound() {
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
        let beside = &self.beside;
        if beside.len() == 1 || beside.first() == Some(&0) || !beside.windows(2).all(|pair| pair[0] < pair[1])
        {
            return Err(("beside", "none, or at least 2 rising numbers above 0"));
        }
        let cells = beside.len().max(1) * rows.len() * context.len().max(1);
        let small = self.grid.iter().all(|value| value.abs() <= LARGEST_CELL);
        if !(self.grid.is_empty() || self.grid.len() == cells && small) {
            return Err(("grid", "none, or a number for each of beside, rows and context"));
        }
        if let Some(mut waves) = self.waves.clone() {
            let sound = |number: &mut &mut f64| number.is_finite() && **number > 0.0 && **number < 1e6;
            if !waves.numbers().iter_mut().all(sound) || waves.overlap > 1.0 {
                return Err(("waves", "numbers above 0, below 1e6, an overlap of at most 1"));
            }
        }
        if let Some(host) = &self.host {
            host.check().map_err(|expected| ("host", expected))?;
        }
        self.forest.check().map_err(|expected| ("forest", expected))
    }
}
