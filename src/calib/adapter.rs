//! From the records of an adapter to its profile: probes as they are, and for each kernel the constants of its terms.

use super::error::Errors;
use super::least::nonnegative;
use super::record::{Record, Records};
use crate::cost::{Device, Limits};
use crate::error::{InputError, Result};
use crate::hw::{Evidence, Hardware, Measured, MeasuredKernel, Source, Sourced, Submit};
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
    pub held: Errors,
}

/// One of so many families is kept aside.
const HOLD_ONE_IN: usize = 4;
/// Fewer fitted rows than this say nothing about a kernel.
const LEAST_ROWS: usize = 4;

type Group = (usize, Option<Dtype>, Option<(u32, u32)>);

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
    let units = hw.compute.units.value as u64;

    let mut groups: BTreeMap<Group, Vec<&Record>> = BTreeMap::new();
    let mut families: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for row in &records.rows {
        let (kind, weights) = kind(&row.kernel);
        groups.entry((kind, weights, row.tile)).or_default().push(row);
        families.entry(kind).or_default().insert(row.probe().family());
    }
    let held: BTreeMap<usize, BTreeSet<String>> =
        families.into_iter().map(|(kind, all)| (kind, kept_aside(KINDS[kind].0, all))).collect();
    let (sha256, mut kernels, mut reports) = (records.sha256(), Vec::new(), Vec::new());
    let mut all_held = Vec::new();
    for ((kind, weights, tile), rows) in groups {
        let (name, _, names) = KINDS[kind];
        let (aside, mut rest): (Vec<&Record>, Vec<&Record>) =
            rows.into_iter().partition(|row| held[&kind].contains(&row.probe().family()));
        rest.retain(|row| {
            share >= 1.0 || (hash(&format!("{:?}", row.kernel)) as f64) < share * 2f64.powi(64)
        });
        if rest.len() < LEAST_ROWS || aside.is_empty() {
            continue;
        }
        let at = tile.unwrap_or((1, 1));
        let of = |row: &&Record| terms(&row.kernel, at, units);
        let (x, us): (Vec<Terms>, Vec<f64>) = rest.iter().map(|row| (of(row), row.us.1)).unzip();
        let constants = nonnegative(&x, &us);
        let said = |row: &&Record| of(row).iter().zip(&constants).map(|(term, us)| term * us).sum::<f64>();
        let pairs: Vec<(f64, f64)> = aside.iter().map(|row| (said(row), row.us.1)).collect();
        let Some(errors) = Errors::of(pairs.iter().copied()) else { continue };
        all_held.extend(pairs);
        let named =
            |values: &[f64]| names.iter().map(|name| (*name).to_owned()).zip(values.to_vec()).collect();
        let bounds = |index: usize| {
            let column = x.iter().map(|row| row[index]);
            column.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)))
        };
        let range =
            names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), bounds(index))).collect();
        let ns: Vec<f64> = constants.iter().map(|us| rounded(us * 1e3)).collect();
        let evidence = evidence(&sha256, rest.len(), &errors);
        kernels.push(MeasuredKernel {
            name: name.to_owned(),
            weights,
            tile,
            ns: named(&ns),
            range,
            evidence,
        });
        reports.push(FittedKernel { name: name.to_owned(), weights, tile, fitted: rest.len(), held: errors });
    }
    let Some(held) = Errors::of(all_held) else {
        let found = format!("{} rows", records.rows.len());
        return Err(InputError::expected("records of kernels").found(found).into());
    };
    held.check_explained("us", "times that depend on shapes")?;
    let env = &records.environment;
    let environment = format!(
        "{}; {}; {}; radialsim {}; {}",
        env.adapter, env.processor, env.settings, env.version, env.date
    );
    hw.measured = Some(Measured { environment, noise_percent: rounded(records.drift_percent()), kernels });
    launches(&mut hw, records)?;
    hw.check()?;
    Ok((hw, reports))
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

fn evidence(sha256: &str, fitted: usize, errors: &Errors) -> Evidence {
    let mut evidence = Evidence {
        sha256: sha256.to_owned(),
        fitted_rows: fitted as u64,
        held_rows: 0,
        split: format!(
            "by family, one in {HOLD_ONE_IN} kept aside, in the order of SHA-256 of 'kernel family'"
        ),
        held_error: 0.0,
        held_bias: 0.0,
        held_p90: 0.0,
        explained: 0.0,
    };
    errors.state(&mut evidence);
    evidence
}

/// Four digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// What the probes say of the device itself.
fn probes(hw: &mut Hardware, records: &Records) {
    let env = &records.environment;
    let measured = |value: f64, what: &str| {
        let source = Source::Measured(format!("{what}; {}, {}", env.adapter, env.date));
        Sourced { value: rounded(value), source }
    };
    let flops = measured(env.fma_gflops / 1e3, "multiply-adds in registers");
    hw.compute.vector_f32_tflops = flops.clone();
    hw.compute.matrix_f32_tflops = flops.clone();
    hw.compute.matrix_f16_tflops = flops;
    (hw.compute.matrix_fp8_tflops, hw.compute.matrix_int8_tops, hw.compute.matrix_fp4_tflops) =
        (None, None, None);
    let dram = env.copy_gb_per_s.max(env.read_gb_per_s);
    let cached = env.read_by_bytes.iter().map(|&(_, rate)| rate).fold(dram, f64::max);
    hw.memory.dram_gb_per_s =
        measured(dram, "the better of a copy (read and written) and a read of a large buffer");
    hw.memory.l2_gb_per_s = measured(cached, "the best read of buffers of any size");
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
    let measured = |value: f64, what: &str| {
        let source = Source::Measured(format!("{what}; {}, {}", env.adapter, env.date));
        Sourced { value: rounded(value.max(0.0)), source }
    };
    hw.launch.submit = Submit::Recorded;
    hw.launch.kernel_us = measured(
        line[1] - device,
        "slope of host time over the length of chains of small kernels, less their device time",
    );
    hw.launch.step_us =
        measured(line[0], "intercept of the same line: lists, submission, wait and read-back");
    Ok(())
}
