//! Rows in, a profile and its errors out.

use super::boost::{Settings, grow};
use super::constants;
use super::error::Errors;
use super::interval::halves_covered;
use super::rows::{Operator, Row, Table};
use crate::cost::{Device, Limits, Price, formats, length, numbers};
use crate::error::{Error, InputError, Result};
use crate::hw::{Correction, Corrections, Evidence, Hardware, Source, Waves};
use crate::kernel::{Class, Kernel};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What to keep aside, and how much of the rest to look at.
#[derive(Clone, Debug)]
pub struct Fit {
    /// One of so many families is kept aside.
    pub hold_one_in: u64,
    /// Chooses which.
    pub seed: u64,
    /// Share of the other rows that is fitted, by rows; 1 but for curves of the error over the number of rows.
    pub share: f64,
}

impl Default for Fit {
    fn default() -> Self {
        Fit { hold_one_in: 4, seed: 0, share: 1.0 }
    }
}

/// What came of one operator.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of which.
    pub operator: Operator,
    /// Rows fitted, and families they belong to.
    pub fitted: (usize, usize),
    /// Families kept aside.
    pub held_families: usize,
    /// Errors on the rows kept aside, by the four constants alone.
    pub constants: Errors,
    /// By the waves of tiles, where they fit better than the four constants.
    pub waved: Option<Errors>,
    /// With the correction.
    pub corrected: Errors,
    /// Share of the rows kept aside within intervals that the other half of their families gives ([`super::halves_covered`]).
    pub covered: Option<f64>,
    /// On the rows fitted.
    pub seen: Errors,
}

/// How trees are grown, settled under the seeds 1 and 2 of the split; sized so that three operators fit in a profile of 256 KB.
fn settings(operator: Operator) -> Settings {
    let (trees, rate, clip) = match operator {
        Operator::Gemm => (500, 0.1, 0.2),
        Operator::ContextAttention => (350, 0.2, 0.2),
        Operator::GenerationAttention => (250, 0.2, 1.0),
    };
    Settings { trees, leaves: 32, rate, least_rows: 10, edges: 128, clip }
}

/// A number from 0 to 2^64 that only the words decide.
fn hash(words: &str) -> u64 {
    let digest = Sha256::digest(words.as_bytes());
    digest.iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

impl Fit {
    /// Whether a family is kept aside.
    pub fn holds(&self, operator: Operator, family: [u32; 3]) -> bool {
        let [a, b, c] = family;
        hash(&format!("{} {a} {b} {c} {}", operator.name(), self.seed))
            .is_multiple_of(self.hold_one_in.max(1))
    }

    fn takes(&self, row: &Row) -> bool {
        self.share >= 1.0
            || (hash(&format!("{:?} {}", row.kernel, self.seed)) as f64) < self.share * 2f64.powi(64)
    }
}

/// Fits the constants and the correction of one operator in the profile `hw`.
///
/// # Errors
/// Too few rows or families; rows whose times nothing explains.
pub fn fit(hw: &mut Hardware, table: &Table, how: &Fit) -> Result<Report> {
    let operator = table.operator;
    let (held, rest): (Vec<&Row>, Vec<&Row>) =
        table.rows.iter().partition(|row| how.holds(operator, row.family));
    let fitted: Vec<&Row> = rest.into_iter().filter(|row| how.takes(row)).collect();
    let families = |rows: &[&Row]| rows.iter().map(|row| row.family).collect::<BTreeSet<_>>().len();
    if fitted.len() < 50 || held.len() < 10 || families(&fitted) < 4 {
        let found =
            format!("{} rows of {} families, {} kept aside", fitted.len(), families(&fitted), held.len());
        let expected = "at least 50 rows of 4 families to fit and 10 rows kept aside, in 16 bits";
        let wrong = InputError::expected(expected);
        return Err(wrong.key(operator.name()).found(found).into());
    }
    let split = format!(
        "by family, one in {} kept aside: SHA-256 of '{} family seed' mod {}, seed {}",
        how.hold_one_in,
        operator.name(),
        how.hold_one_in,
        how.seed
    );
    let words = format!(
        "`radialsim fit` on {} rows of {} families, table {}; {split}",
        fitted.len(),
        families(&fitted),
        &table.sha256[..16]
    );
    constants::search(hw, class(operator), &fitted, &Source::Fitted(words))?;
    *slot(hw.corrections.get_or_insert_default(), operator) = None;

    let device = Device::new(hw, Limits::default())?;
    let constants = errors(&device, &held, operator)?;
    let waves = waves_if_better(hw, &device, operator, &fitted)?;
    let base = |row: &&Row| (device.base(&row.kernel, waves.as_ref()).s(), row.seconds);
    let waved = waves.as_ref().and_then(|_| Errors::of(held.iter().map(base)));
    let (features, targets): (Vec<Vec<f32>>, Vec<f64>) = fitted
        .iter()
        .map(|row| {
            let (time, features) = device.features(&row.kernel, waves.as_ref());
            (features, libm::log(row.seconds / time.s()))
        })
        .unzip();
    let forest = grow(&features, &targets, settings(operator));
    let evidence = Evidence {
        sha256: table.sha256.clone(),
        fitted_rows: fitted.len() as u64,
        held_rows: held.len() as u64,
        split,
        held_error: 0.0,
        held_bias: 0.0,
        held_p90: 0.0,
        held_interval: None,
        explained: 0.0,
    };
    let (rows, context) = anchors(&fitted);
    let range = range(&fitted);
    let formats: BTreeSet<_> = fitted.iter().filter_map(|row| formats(&row.kernel)).collect();
    let formats = formats.into_iter().collect();
    let (beside, grid) = (Vec::new(), Vec::new());
    *slot(hw.corrections.get_or_insert_default(), operator) =
        Some(Correction { evidence, range, formats, rows, context, beside, grid, waves, forest });

    let with = Device::new(hw, Limits::default())?;
    let corrected = errors(&with, &held, operator)?;
    let seen = errors(&with, &fitted, operator)?;
    let said = |row: &&Row| (row.family, with.price(&row.kernel).time.s(), row.seconds);
    let covered = halves_covered(&held.iter().map(said).collect::<Vec<_>>());
    corrected.check_explained(operator.name(), "times that depend on shapes")?;
    if let Some(correction) = slot(hw.corrections.get_or_insert_default(), operator) {
        corrected.state(&mut correction.evidence);
    }
    let (fitted, held_families) = ((fitted.len(), families(&fitted)), families(&held));
    Ok(Report { operator, fitted, held_families, constants, waved, corrected, covered, seen })
}

/// Constants of waves for products, where they leave less of the fitted rows than the four constants of the class do.
fn waves_if_better(
    hw: &Hardware,
    device: &Device,
    operator: Operator,
    rows: &[&Row],
) -> Result<Option<Waves>> {
    if operator != Operator::Gemm {
        return Ok(None);
    }
    let (waves, left) = super::waves::search(hw, rows)?;
    let four = |row: &&Row| libm::log(device.physical(&row.kernel).time.s() / row.seconds).abs();
    let four = rows.iter().map(four).sum::<f64>() / rows.len().max(1) as f64;
    // More constants follow any rows a little better.
    Ok((left < 0.95 * four).then_some(waves))
}

/// What a profile says of each row.
pub fn predict(device: &Device, table: &Table) -> Vec<Price> {
    table.rows.iter().map(|row| device.price(&row.kernel)).collect()
}

/// Lends the constants and corrections of `from` to `to`, a device whose kernels nobody measured. `error` is the mean error in
/// percent that one expects of it. Fixed times are lent in cycles.
///
/// # Errors
/// A profile without corrections.
pub fn transfer(from: &Hardware, to: &mut Hardware, error: impl Fn(Operator) -> f64) -> Result<()> {
    let Some(mut corrections) = from.corrections.clone() else {
        let wrong = InputError::expected("a fitted profile, which has corrections");
        return Err(wrong.key("corrections").found("none").into());
    };
    corrections.transferred_from = Some(from.name.clone());
    // What was measured of one model's layers on a grid says nothing about another device.
    let lent = Corrections { chunk_attention: None, mixed_attention: None, ..corrections };
    corrections = Corrections { by_rows: BTreeMap::new(), fused: Vec::new(), ..lent };
    let strength = if same_chip(from, to) { 1.0 } else { ABROAD };
    let clock =
        |hw: &Hardware| hw.compute.top_clock_mhz.as_ref().unwrap_or(&hw.compute.boost_clock_mhz).value;
    let cycle = clock(from) / clock(to);
    for (operator, _) in Operator::ALL {
        let class = class(operator);
        let lent = constants::of_class(&mut from.clone(), class).clone();
        let constants = constants::of_class(to, class);
        *constants = lent;
        constants.fixed_us.value *= cycle;
        for number in
            [&mut constants.flops, &mut constants.bytes, &mut constants.fixed_us, &mut constants.overlap]
        {
            let words = format!("transferred from {}: {}", from.name, number.source.text());
            number.source = Source::Assumed(words);
        }
        if let Some(correction) = slot(&mut corrections, operator) {
            let (evidence, error) = (&mut correction.evidence, error(operator));
            let wider = (error / evidence.held_error.max(1e-9)).max(1.0);
            evidence.held_p90 *= wider;
            evidence.held_interval = evidence.held_interval.map(|interval| interval * wider);
            evidence.held_error = evidence.held_error.max(error);
            correction.forest.scale(strength);
        }
    }
    to.corrections = Some(corrections);
    Ok(())
}

/// What is left of learned corrections on another chip, in logarithms: part of them belongs to kernels written for the lender's. Of all
/// loans among H100, A100 and L40S, half does best or nearly so.
const ABROAD: f64 = 0.5;

/// Whether two devices differ in nothing that kernels are written for: memory beyond the last cache may.
fn same_chip(a: &Hardware, b: &Hardware) -> bool {
    let numbers = |hw: &Hardware| {
        let (compute, memory) = (&hw.compute, &hw.memory);
        [&compute.units, &compute.boost_clock_mhz, &compute.matrix_f16_tflops, &memory.l2_mb]
            .map(|number| number.value)
    };
    numbers(a) == numbers(b)
}

fn class(operator: Operator) -> Class {
    match operator {
        Operator::Gemm => Class::MatMul,
        Operator::ContextAttention => Class::PrefillAttention,
        Operator::GenerationAttention => Class::DecodeAttention,
    }
}

fn slot(all: &mut Corrections, operator: Operator) -> &mut Option<Correction> {
    match operator {
        Operator::Gemm => &mut all.gemm,
        Operator::ContextAttention => &mut all.context_attention,
        Operator::GenerationAttention => &mut all.generation_attention,
    }
}

fn errors(device: &Device, rows: &[&Row], operator: Operator) -> Result<Errors> {
    let said = |row: &&Row| (row.family, device.price(&row.kernel).time.s(), row.seconds);
    Errors::of_families(rows.iter().map(said))
        .ok_or_else(|| -> Error { InputError::expected("rows").key(operator.name()).into() })
}

/// Rows and contexts at which the correction is evaluated: those measured, thinned evenly where there are many.
fn anchors(rows: &[&Row]) -> (Vec<u32>, Vec<f64>) {
    const MOST: usize = 96;
    let mut counts = BTreeSet::new();
    let mut contexts = BTreeSet::new();
    for row in rows {
        match row.kernel {
            Kernel::MatMul { rows, .. } => {
                counts.insert(rows);
            }
            Kernel::Attention(shape) => {
                let context = shape.seen();
                counts.insert((f64::from(shape.rows) / length(shape.decode, context)).round() as u32);
                contexts.insert((context * 2.0).round() as u64);
            }
            _ => {}
        }
    }
    let counts: Vec<u32> = thin(counts.into_iter().collect(), MOST);
    let contexts = thin(contexts.into_iter().collect::<Vec<u64>>(), MOST);
    (counts, contexts.into_iter().map(|twice| twice as f64 / 2.0).collect())
}

pub(super) fn thin<T: Copy>(all: Vec<T>, most: usize) -> Vec<T> {
    if all.len() <= most {
        return all;
    }
    (0..most).map(|index| all[index * (all.len() - 1) / (most - 1)]).collect()
}

pub(super) fn range(rows: &[&Row]) -> BTreeMap<String, (f64, f64)> {
    let mut out: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for row in rows {
        for (name, value) in numbers(&row.kernel) {
            let range = out.entry(name.to_owned()).or_insert((value, value));
            *range = (range.0.min(value), range.1.max(value));
        }
    }
    out
}
