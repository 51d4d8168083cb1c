//! Who takes which experts: how the rows of a layer are spread over its experts, and what falls to the device that has most of them.
//!
//! A layer has a share for each of its experts: the chance that a token takes it. Tokens take theirs independently, so that of r rows an expert
//! of share p has r p on average, is needed with chance 1 - (1 - p)^r, and its rows fill E[ceil(X / b)] blocks of b rows, X being
//! binomial. All of it is an expectation: the same rows of the same layer have the same load.

use super::ExpertIds;
use crate::kernel::{EXPERT_BLOCKS, ExpertLoad, LOAD_UNIT};
use crate::rng::Stream;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Where the shares of a layer's experts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ExpertLoads {
    /// All experts are equally likely.
    #[default]
    Independent,
    /// A router that deals rows out evenly: no chance in it.
    Balanced,
    /// Shares drawn for each layer with a density that falls as x^-alpha between 1 and 0.8 times as many as tokens of a large batch (1,024), as NVIDIA's
    /// aiconfigurator draws loads. It sees 1.01 in DeepSeek-V3 and 1.2 in Qwen3-235B.
    PowerLaw(f64),
    /// This share of the tokens takes the same experts, others for each layer; the rest is independent.
    Correlated(f64),
    /// As the tokens of the trace took them, layer by layer.
    Recorded,
    /// Each token takes those that the trace says it took: rows are counted, not expected.
    ByToken,
}

/// Which of DeepEP's kernels bring tokens to their experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeChoice {
    /// The low-latency ones in passes of generated tokens alone, the normal ones in others: SGLang's `--deepep-mode auto`.
    #[default]
    Auto,
    /// Always the low-latency ones.
    LowLatency,
    /// Always the normal ones.
    Normal,
}

impl ExpertLoads {
    /// Whether layers differ.
    pub fn differs_by_layer(self) -> bool {
        !matches!(self, ExpertLoads::Independent | ExpertLoads::Balanced)
    }
}

/// How often tokens took each expert of each layer: a list of layers, empty where nobody took any.
pub type ExpertCounts = Vec<Vec<u64>>;

/// Tokens of the batch whose power law aiconfigurator measured most often.
const POWER_LAW_TOKENS: f64 = 1024.0;

/// The experts of a run: who takes them, and how many devices share them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpertUse {
    /// Where shares come from.
    pub loads: ExpertLoads,
    /// Seed of shares that are drawn.
    pub seed: u64,
    /// What the trace says, where it is asked.
    pub recorded: Option<Arc<ExpertCounts>>,
    /// What it says of each token, where that is asked.
    pub ids: Option<Arc<ExpertIds>>,
    /// How tokens come to the devices of their experts, where there are several.
    pub exchange: ExchangeChoice,
}

/// Loads of the layers of one model, kept once they are known.
#[derive(Clone, Debug)]
pub struct LayerLoads {
    of: ExpertUse,
    /// Experts of a layer, those that a token takes, devices that share them.
    count: u32,
    top: u32,
    devices: u32,
    shares: HashMap<u16, Arc<[f64]>>,
    known: HashMap<(u16, u32), ExpertLoad>,
    /// Of each layer in the next pass, where its tokens are known.
    counted: Vec<ExpertLoad>,
}

/// Loads that are kept at a time.
const MOST_KNOWN: usize = 1 << 16;

impl LayerLoads {
    /// Of layers with `count` experts of which a token takes `top`, spread over `devices` evenly: each has neighbours.
    pub fn new(of: ExpertUse, count: u32, top: u32, devices: u32) -> LayerLoads {
        assert!(devices > 0 && count.is_multiple_of(devices), "{count} experts on {devices} devices");
        LayerLoads {
            of,
            count,
            top,
            devices,
            shares: HashMap::new(),
            known: HashMap::new(),
            counted: Vec::new(),
        }
    }

    /// Whether rows are dealt out evenly.
    pub fn is_balanced(&self) -> bool {
        self.of.loads == ExpertLoads::Balanced
    }

    /// Whether layers differ.
    pub fn differs_by_layer(&self) -> bool {
        self.of.loads.differs_by_layer()
    }

    /// What is known of each token, and the devices that share the experts.
    pub fn ids(&self) -> Option<(Arc<ExpertIds>, u32)> {
        Some((self.of.ids.clone()?, self.devices))
    }

    /// What the tokens of the next pass ask for at each layer.
    pub fn set_counted(&mut self, loads: Vec<ExpertLoad>) {
        self.counted = loads;
    }

    /// The load of the device with most rows, of so many rows on all devices together.
    pub fn load(&mut self, layer: u16, rows: u32) -> ExpertLoad {
        if let Some(counted) = self.counted.get(usize::from(layer)) {
            return *counted;
        }
        let key = (if self.differs_by_layer() { layer } else { 0 }, rows);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let load = self.worked_out(key.0, rows);
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(key, load);
        load
    }

    fn worked_out(&mut self, layer: u16, rows: u32) -> ExpertLoad {
        let own = (self.count / self.devices) as usize;
        match self.of.loads {
            ExpertLoads::Balanced => {
                let copies = u64::from(rows) * u64::from(self.top);
                let count = u64::from(self.count);
                // What is left over lies evenly among the experts.
                let more =
                    |expert: u64| (expert + 1) * (copies % count) / count - expert * (copies % count) / count;
                let rows: Vec<u32> =
                    (0..count).map(|expert| (copies / count + more(expert)) as u32).collect();
                let of_device = |device: &&[u32]| device.iter().copied().map(u64::from).sum::<u64>();
                ExpertLoad::of(rows.chunks(own).max_by_key(of_device).unwrap_or(&[]))
            }
            ExpertLoads::Independent => {
                let each = expected(f64::from(self.top) / f64::from(self.count), rows);
                total(std::iter::repeat_n(each, own), rows)
            }
            ExpertLoads::PowerLaw(_)
            | ExpertLoads::Correlated(_)
            | ExpertLoads::Recorded
            | ExpertLoads::ByToken => {
                let shares = self.shares_of(layer);
                let hot = shares
                    .chunks(own)
                    .max_by(|a, b| a.iter().sum::<f64>().total_cmp(&b.iter().sum()))
                    .unwrap_or(&[]);
                total(hot.iter().map(|&share| expected(share, rows)), rows)
            }
        }
    }

    /// The chance that a token takes each expert of a layer; their sum is how many it takes.
    pub fn shares_of(&mut self, layer: u16) -> Arc<[f64]> {
        if let Some(shares) = self.shares.get(&layer) {
            return shares.clone();
        }
        let (count, top) = (self.count as usize, f64::from(self.top));
        let mut random = Stream::new(self.of.seed, &format!("experts {layer}"));
        let shares: Arc<[f64]> = match self.of.loads {
            ExpertLoads::PowerLaw(alpha) => {
                let power = |x: f64| libm::pow(x, 1.0 - alpha);
                let high = power(0.8 * POWER_LAW_TOKENS);
                let number = |random: &mut Stream| {
                    libm::pow((high - 1.0) * random.uniform() + 1.0, 1.0 / (1.0 - alpha))
                };
                scaled((0..count).map(|_| number(&mut random)).collect(), top).into()
            }
            ExpertLoads::Correlated(share) => {
                let mut order: Vec<usize> = (0..count).collect();
                random.shuffle(&mut order);
                let mut shares = vec![(1.0 - share) * top / count as f64; count];
                order[..self.top as usize].iter().for_each(|&expert| shares[expert] += share);
                shares.into()
            }
            ExpertLoads::Recorded | ExpertLoads::ByToken => {
                let counts = self.of.recorded.as_ref().and_then(|all| all.get(usize::from(layer)));
                let mut numbers: Vec<f64> = counts.into_iter().flatten().map(|&count| count as f64).collect();
                numbers.resize(count, 0.0);
                scaled(numbers, top).into()
            }
            _ => vec![top / count as f64; count].into(),
        };
        self.shares.insert(layer, shares.clone());
        shares
    }
}

/// Numbers in proportion, none above 1, whose sum is `top`; all alike where all are 0.
fn scaled(numbers: Vec<f64>, top: f64) -> Vec<f64> {
    let count = numbers.len();
    let mut shares = vec![0.0; count];
    let mut open: Vec<usize> = (0..count).collect();
    let mut left = top;
    // Who would have more than every token has every token, and the others share what is left.
    loop {
        let sum: f64 = open.iter().map(|&expert| numbers[expert]).sum();
        let share =
            |expert: usize| if sum > 0.0 { left * numbers[expert] / sum } else { left / open.len() as f64 };
        let (full, rest): (Vec<usize>, Vec<usize>) = open.iter().partition(|&&expert| share(expert) > 1.0);
        if full.is_empty() {
            open.iter().for_each(|&expert| shares[expert] = share(expert));
            return shares;
        }
        full.iter().for_each(|&expert| shares[expert] = 1.0);
        left -= full.len() as f64;
        open = rest;
    }
}

/// What one expert of this share has of so many rows: copies, whether it is needed, blocks of each size.
fn expected(share: f64, rows: u32) -> [f64; 6] {
    let (n, p) = (f64::from(rows), share.clamp(0.0, 1.0));
    let mean = n * p;
    if p == 0.0 || rows == 0 {
        return [0.0; 6];
    }
    if p == 1.0 {
        let blocks = EXPERT_BLOCKS.map(|block| rows.div_ceil(block).into());
        let [a, b, c, d] = blocks;
        return [mean, 1.0, a, b, c, d];
    }
    let none = libm::exp(n * libm::log1p(-p));
    let needed = 1.0 - none;
    // Of some hundreds of rows the number is as good as normal.
    if mean > 512.0 {
        let [a, b, c, d] =
            EXPERT_BLOCKS.map(|block| normal_blocks((mean, mean * (1.0 - p)), n, f64::from(block)));
        return [mean, needed, a, b, c, d];
    }
    let [a, b, c, d] = binomial_blocks(rows, p).map(|more| needed + more);
    [mean, needed, a, b, c, d]
}

/// Of a binomial number X of `rows` with chance `p` each, at most 512 on average: E[ceil(X / b)] - P(X > 0) for each size of blocks b, the sum over j >= 1 of
/// P(X > j b). Summed from the end at which fewer lie, whose first chance is no less than 2^-1024: the other one's may be too small for a float.
fn binomial_blocks(rows: u32, p: f64) -> [f64; 4] {
    let from_top = p > 0.5;
    let (n, p) = (f64::from(rows), if from_top { 1.0 - p } else { p });
    let mean = n * p;
    let most = (mean + 12.0 * libm::sqrt(mean) + 24.0).min(n) as u32;
    let mut blocks = [0.0; 4];
    if from_top {
        // Ends of blocks so low that X is surely above them.
        for (sum, block) in blocks.iter_mut().zip(EXPERT_BLOCKS) {
            *sum = f64::from(rows.saturating_sub(2).saturating_sub(most) / block);
        }
    }
    let mut chance = libm::exp(n * libm::log1p(-p));
    let mut below = chance;
    for k in 0..=most {
        if k > 0 {
            chance *= (n - f64::from(k) + 1.0) / f64::from(k) * p / (1.0 - p);
            below += chance;
        }
        // P(X > end), where k is X itself, or how many X is short of all.
        let (end, above) = if from_top { (rows.saturating_sub(1 + k), below) } else { (k, 1.0 - below) };
        for (sum, block) in blocks.iter_mut().zip(EXPERT_BLOCKS) {
            if end > 0 && end.is_multiple_of(block) {
                *sum += above.clamp(0.0, 1.0);
            }
        }
    }
    blocks
}

/// Expected blocks of `block` rows, the last one not full, of a number of rows with this mean and variance that is at most `most`: the sum over j
/// of P(X > j block), each from the normal law with half a row of correction for whole numbers.
fn normal_blocks((mean, variance): (f64, f64), most: f64, block: f64) -> f64 {
    let deviation = libm::sqrt(variance).max(1e-9);
    // Blocks that are surely begun: 9 deviations below the mean.
    let sure = libm::floor(((mean - 9.0 * deviation) / block).max(0.0)) as u32;
    let last = libm::ceil((mean + 9.0 * deviation).min(most) / block) as u32;
    let begun = |j: u32| {
        0.5 * libm::erfc((f64::from(j) * block + 0.5 - mean) / deviation / core::f64::consts::SQRT_2)
    };
    f64::from(sure) + (sure..last).map(begun).sum::<f64>()
}

/// The sum over the experts of a device.
fn total(each: impl Iterator<Item = [f64; 6]>, rows: u32) -> ExpertLoad {
    let (mut sum, mut largest, mut count) = ([0.0; 6], 0.0f64, 0.0f64);
    for one in each {
        sum.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        largest = largest.max(one[0]);
        count += 1.0;
    }
    // The largest of some near alike lies above their mean by some deviations (Gumbel's sqrt(2 ln count) of them at most).
    let above = libm::sqrt(
        largest * (1.0 - largest / f64::from(rows.max(1))).max(0.0) * 2.0 * libm::log(count.max(1.0)),
    );
    let largest = (largest + above).min(rows.into()).min(sum[0]);
    let fixed = |value: f64| libm::rint(value * f64::from(LOAD_UNIT)) as u64;
    let [copies, taken, a, b, c, d] = sum.map(fixed);
    ExpertLoad { copies, taken, largest: fixed(largest), blocks: [a, b, c, d] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against each term of the binomial law by itself, for shares at both ends and numbers whose first term no float holds.
    #[test]
    fn expected_blocks_are_those_of_the_binomial_law() {
        for rows in [1u32, 2, 15, 16, 17, 129, 200, 760, 820, 1000, 1023, 4096, 9000] {
            for p in [0.001, 0.01, 0.1, 0.3, 0.499, 0.5, 0.51, 0.625, 0.9, 0.99, 0.9995] {
                let gamma = |x: f64| libm::lgamma(x + 1.0);
                let n = f64::from(rows);
                let term = |k: u32| {
                    let k = f64::from(k);
                    libm::exp(
                        gamma(n) - gamma(k) - gamma(n - k) + k * libm::log(p) + (n - k) * libm::log1p(-p),
                    )
                };
                let [_, needed, blocks @ ..] = expected(p, rows);
                assert!((needed - (0..=rows).skip(1).map(term).sum::<f64>()).abs() < 1e-9);
                for (found, block) in blocks.into_iter().zip(EXPERT_BLOCKS) {
                    let naive: f64 = (0..=rows).map(|k| term(k) * f64::from(k.div_ceil(block))).sum();
                    // The normal law, of more than 512 rows on average, is an approximation; worst where hardly anybody is missing.
                    let near = if n * p > 512.0 { 0.1 } else { 1e-6 };
                    assert!((found - naive).abs() < near, "{rows} {p} {block}: {found} for {naive}");
                }
            }
        }
    }
}
