//! From the records of an adapter to its profile: probes as they are, and for each kernel the constants of its terms.

use super::error::PercentErrors;
use super::least::nonnegative;
use super::record::{Record, Records};
use super::rounded;
use crate::cost::{Device, Limits};
use crate::error::{InputError, Result};
use crate::hw::{AdapterKernel, AdapterKernels, Evidence, Hardware, Source, Sourced, Submit};
use crate::kernel::{KINDS, Kernel, Terms, kind, terms};
use crate::units::Dtype;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What came of one kernel, of products in one format and one tile.
#[derive(Clone, Debug)]
pub struct FittedKernel {
    /// Its name.
    pub name: String,
    /// Format of the weights of products.
    pub weights: Option<Dtype>,
    /// Rows and columns of the tiles of products.
    pub tile: Option<(u32, u32)>,
    /// Rows fitted.
    pub fitted: usize,
    /// Errors on rows of families kept aside.
    pub held: PercentErrors,
}

/// One of so many families is kept aside.
const HOLD_ONE_IN: usize = 4;
/// Fewer fitted rows than this say nothing about a kernel.
const LEAST_ROWS: usize = 4;
/// A base with more units than this is a GPU, or a machine on which every number of threads need not be tried.
const MOST_UNITS: u64 = 64;

type Group = (usize, Option<Dtype>, Option<(u32, u32)>);

/// The rows of one kernel, of products in one format and one tile.
struct Rows<'a> {
    kind: usize,
    weights: Option<Dtype>,
    tile: Option<(u32, u32)>,
    fitted: Vec<&'a Record>,
    aside: Vec<&'a Record>,
}

impl Rows<'_> {
    fn terms(&self, row: &Record, units: u64) -> Terms {
        terms(&row.kernel, self.tile.unwrap_or((1, 1)), units)
    }

    /// Microseconds of each term, by the rows that are fitted.
    fn constants(&self, units: u64) -> Terms {
        let x: Vec<Terms> = self.fitted.iter().map(|row| self.terms(row, units)).collect();
        let us: Vec<f64> = self.fitted.iter().map(|row| row.us.1).collect();
        nonnegative(&x, &us)
    }

    /// What constants say of rows, with what was measured.
    fn pairs(&self, of: &[&Record], constants: &Terms, units: u64) -> Vec<(f64, f64)> {
        let said =
            |row: &Record| self.terms(row, units).iter().zip(constants).map(|(term, us)| term * us).sum();
        of.iter().map(|row| (said(row), row.us.1)).collect()
    }
}

/// Fits the profile `base` to the records: whole families are kept aside first. `share`: share of the other rows that is fitted, for
/// curves of the error over the number of rows.
///
/// # Errors
/// Records of too few rows.
pub fn fit_adapter(
    base: &Hardware,
    records: &Records,
    name: &str,
    share: f64,
) -> Result<(Hardware, Vec<FittedKernel>)> {
    let mut hw = base.clone();
    hw.name = name.to_owned();
    hw.title = records.environment.adapter.clone();
    hw.corrections = None;
    probes(&mut hw, records);

    let all = split(records, share);
    if let Some(units) = units(&all, base.compute.units.value as u64) {
        hw.compute.units =
            measured(records, units as f64, "tiles of products at once that fit their times best");
    }
    let units = hw.compute.units.value as u64;
    power(&mut hw, records);

    let (sha256, mut kernels, mut reports) = (records.sha256(), Vec::new(), Vec::new());
    let mut all_held = Vec::new();
    for rows in all {
        let constants = rows.constants(units);
        let held = rows.pairs(&rows.aside, &constants, units);
        let families = rows.aside.iter().map(|row| row.probe().family());
        let of_families = families.zip(&held).map(|(family, &(said, was))| (family, said, was));
        let Some(errors) = PercentErrors::of_families(of_families) else { continue };
        all_held.extend(held);
        let (name, _, names) = KINDS[rows.kind];
        let named = |index: usize| names[index].to_owned();
        let bounds = |index: usize| {
            let column = rows.fitted.iter().map(|row| rows.terms(row, units)[index]);
            column.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)))
        };
        let Rows { weights, tile, .. } = rows;
        let fitted = rows.fitted.len();
        kernels.push(AdapterKernel {
            name: name.to_owned(),
            weights,
            tile,
            ns: (0..names.len()).map(|index| (named(index), rounded(constants[index] * 1e3))).collect(),
            range: (0..names.len()).map(|index| (named(index), bounds(index))).collect(),
            evidence: evidence(&sha256, fitted, &errors),
        });
        reports.push(FittedKernel { name: name.to_owned(), weights, tile, fitted, held: errors });
    }
    let Some(held) = PercentErrors::of(all_held) else {
        let found = format!("{} rows", records.rows.len());
        return Err(InputError::expected("records of kernels").found(found).into());
    };
    held.check_explained("us", "times that depend on shapes")?;
    let env = &records.environment;
    let environment = format!(
        "{}; {}; {}; radialsim {}; {}",
        env.adapter, env.processor, env.settings, env.version, env.date
    );
    hw.measured =
        Some(AdapterKernels { environment, noise_percent: rounded(records.drift_percent()), kernels });
    launches(&mut hw, records)?;
    hw.check()?;
    Ok((hw, reports))
}

/// The rows of each kernel, some families kept aside; kernels with too few rows are left out.
fn split(records: &Records, share: f64) -> Vec<Rows<'_>> {
    let mut groups: BTreeMap<Group, Vec<&Record>> = BTreeMap::new();
    let mut families: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for row in &records.rows {
        let (kind, weights) = kind(&row.kernel);
        groups.entry((kind, weights, row.tile)).or_default().push(row);
        families.entry(kind).or_default().insert(row.probe().family());
    }
    let held: BTreeMap<usize, BTreeSet<String>> =
        families.into_iter().map(|(kind, all)| (kind, kept_aside(KINDS[kind].0, all))).collect();
    let rows = groups.into_iter().map(|((kind, weights, tile), rows)| {
        let (aside, mut fitted): (Vec<&Record>, Vec<&Record>) =
            rows.into_iter().partition(|row| held[&kind].contains(&row.probe().family()));
        fitted.retain(|row| {
            share >= 1.0 || (hash(&format!("{:?}", row.kernel)) as f64) < share * 2f64.powi(64)
        });
        Rows { kind, weights, tile, fitted, aside }
    });
    rows.filter(|rows| rows.fitted.len() >= LEAST_ROWS && !rows.aside.is_empty()).collect()
}

/// How many tiles run at once: of one to as many as `base` says, what fits the fitted rows of products best. A software adapter
/// has the threads that its settings leave it. Nothing where there are no products, or where the base has many units: those of a
/// GPU are known.
fn units(all: &[Rows], base: u64) -> Option<u64> {
    let products: Vec<&Rows> = all.iter().filter(|rows| KINDS[rows.kind].0 == "matmul").collect();
    if products.is_empty() || base > MOST_UNITS {
        return None;
    }
    let error = |units: u64| -> f64 {
        let of = |rows: &&Rows| rows.pairs(&rows.fitted, &rows.constants(units), units);
        products.iter().flat_map(of).map(|(said, was)| (said / was - 1.0).abs()).sum()
    };
    let errors = (1..=base).map(|units| (error(units), units));
    errors.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, units)| units)
}

/// The families that no fit sees: the first quarter in the order of their hashes, at least one where there are two.
fn kept_aside(name: &str, all: BTreeSet<String>) -> BTreeSet<String> {
    let mut all: Vec<String> = all.into_iter().collect();
    all.sort_by_key(|family| hash(&format!("{name} {family}")));
    let count = all.len().div_ceil(HOLD_ONE_IN).min(all.len().saturating_sub(1));
    all.into_iter().take(count).collect()
}

fn hash(words: &str) -> u64 {
    Sha256::digest(words.as_bytes()).iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

fn evidence(sha256: &str, fitted: usize, errors: &PercentErrors) -> Evidence {
    let split =
        format!("by family, one in {HOLD_ONE_IN} kept aside, in the order of SHA-256 of 'kernel family'");
    let mut evidence = Evidence::new(sha256, fitted, 0, split);
    errors.state(&mut evidence);
    evidence
}

fn measured(records: &Records, value: f64, what: &str) -> Sourced {
    let env = &records.environment;
    Sourced {
        value: rounded(value),
        source: Source::Measured(format!("{what}; {}, {}", env.adapter, env.date)),
    }
}

/// What the probes say of the device itself.
fn probes(hw: &mut Hardware, records: &Records) {
    let env = &records.environment;
    let measured = |value: f64, what: &str| measured(records, value, what);
    let flops = measured(env.fma_gflops / 1e3, "multiply-adds in registers");
    hw.compute.vector_f32_tflops = flops.clone();
    hw.compute.matrix_f32_tflops = flops.clone();
    hw.compute.matrix_f16_tflops = flops;
    (hw.compute.matrix_fp8_tflops, hw.compute.matrix_int8_tops, hw.compute.matrix_fp4_tflops) =
        (None, None, None);
    // A kernel may move its weights faster than a probe moves its buffers: the device can do what it has done.
    let moved = records.rows.iter().map(|row| {
        let work = row.kernel.work();
        (work.weight_bytes + work.kv_bytes) as f64 / row.us.1 * 1e-3
    });
    let dram = moved.fold(env.copy_gb_per_s.max(env.read_gb_per_s), f64::max);
    let cached = env.read_by_bytes.iter().map(|&(_, rate)| rate).fold(dram, f64::max);
    hw.memory.dram_gb_per_s = measured(
        dram,
        "the best of a copy (read and written), a read of a large buffer, and all kernels on their weights",
    );
    hw.memory.l2_gb_per_s = measured(cached, "the best read of buffers of any size");
}

/// What a counter of energy saw: on top of a device that is awake, bytes and flops cost what reading and computing drew more.
/// Without a counter the constants stay those of the base, and under its sources.
fn power(hw: &mut Hardware, records: &Records) {
    let Some(drawn) = &records.environment.drawn else { return };
    let measured =
        |value: f64, what: &str| measured(records, value.max(0.0), &format!("{what}, by {}", drawn.counter));
    let power = &mut hw.power;
    power.metered = None;
    power.idle_w = measured(drawn.idle_w, "mean of a device that does nothing");
    power.static_w = measured(drawn.empty_w.max(drawn.idle_w), "mean over dispatches that do nothing");
    // W / (GB/s) = nJ/B; W / GFLOP/s = nJ.
    let more = |watts: f64, rate: f64| if rate > 0.0 { (watts - drawn.empty_w) / rate * 1e3 } else { 0.0 };
    power.pj_per_byte = measured(
        more(drawn.read_w, drawn.read_gb_per_s),
        "reads of a large buffer beyond dispatches that do nothing",
    );
    // A 32-bit flop counts as two of 16 bits: `cost::Device::dynamic_pj`.
    power.pj_per_flop = measured(
        more(drawn.fma_w, drawn.fma_gflops) / 2.0,
        "multiply-adds in registers beyond dispatches that do nothing",
    );
    let most = [drawn.empty_w, drawn.read_w, drawn.fma_w].into_iter().fold(power.limit_w.value, f64::max);
    if most > power.limit_w.value {
        power.limit_w = measured(most, "the most that was drawn, more than the base's limit");
    }
}

/// Host times: a chain of small kernels costs a step and, for each kernel, its recording and its device time.
fn launches(hw: &mut Hardware, records: &Records) -> Result<()> {
    let env = &records.environment;
    let (x, us): (Vec<[f64; 2]>, Vec<f64>) =
        env.chains.iter().map(|&(kernels, us)| ([1.0, f64::from(kernels)], us)).unzip();
    if us.len() < 2 {
        return Err(InputError::expected("at least two chains of kernels")
            .key("chains")
            .found(us.len())
            .into());
    }
    let line = nonnegative(&x, &us);
    let small = Kernel::ResidualAdd { rows: 1, width: 64, activations: Dtype::F32 };
    let device = Device::new(hw, Limits::default())?.price(&small).time.us();
    let measured = |value: f64, what: &str| measured(records, value.max(0.0), what);
    hw.launch.submit = Submit::Recorded;
    hw.launch.kernel_us = measured(
        line[1] - device,
        "slope of host time over the length of chains of small kernels, less their device time",
    );
    hw.launch.step_us =
        measured(line[0], "intercept of the same line: lists, submission, wait and read-back");
    Ok(())
}
