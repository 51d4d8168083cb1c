//! Rows in, a profile and its errors out.

use super::boost::{TreeSettings, grow};
use super::constants;
use super::error::PercentErrors;
use super::host;
use super::interval::halves_covered;
use super::rows::{CallTable, MeasuredCall, Operator, TableFormat};
use crate::cost::{Device, Limits, Price, formats, length, numbers};
use crate::error::{Error, InputError, Result};
use crate::hw::{Correction, Corrections, Evidence, Hardware, Source, Waves, Within};
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
pub struct OperatorFit {
    /// Of which, with its format: `gemm_fp8`.
    pub name: String,
    /// Rows fitted, and families they belong to.
    pub fitted: (usize, usize),
    /// Families kept aside.
    pub held_families: usize,
    /// Errors on the rows kept aside, by the four constants alone.
    pub constants: PercentErrors,
    /// By the waves of tiles, where they fit better than the four constants.
    pub waved: Option<PercentErrors>,
    /// With the correction.
    pub corrected: PercentErrors,
    /// Share of the rows kept aside within intervals that the other half of their families gives ([`super::halves_covered`]).
    pub covered: Option<f64>,
    /// On the rows fitted.
    pub seen: PercentErrors,
    /// On all rows kept aside, those included that the host hides where the table was measured without captured graphs: such a row is
    /// predicted to take what the host takes.
    pub in_table: PercentErrors,
}

/// How trees are grown, settled under the seeds 1 and 2 of the split; sized so that three operators take at most 256 KB of a profile.
fn settings(operator: Operator, format: TableFormat) -> TreeSettings {
    let sixteen = format == TableFormat::Sixteen;
    let (trees, rate, clip) = match operator {
        // Tables in fewer bits have more odd rows: on B200 one in twenty takes twice as long as its neighbours.
        Operator::Gemm => (500, 0.1, if sixteen { 0.2 } else { 0.1 }),
        // Caches in 8 bits have widths of heads that fall back to kernels ten times as slow.
        Operator::ContextAttention => (350, 0.2, if sixteen { 0.2 } else { 1.0 }),
        Operator::GenerationAttention => (250, 0.2, 1.0),
    };
    TreeSettings { trees, leaves: 32, rate, least_rows: 10, edges: 128, clip, middle: !sixteen }
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

    fn takes(&self, row: &MeasuredCall) -> bool {
        self.share >= 1.0
            || (hash(&format!("{:?} {}", row.kernel, self.seed)) as f64) < self.share * 2f64.powi(64)
    }
}

/// Fits the constants and the correction of one operator, in the format of its table, in the profile `hw`. The four constants of the class
/// are those of 16 bits; those of another format are taken where nobody says what they are.
///
/// # Errors
/// Too few rows or families; rows whose times nothing explains.
pub fn fit(hw: &mut Hardware, table: &CallTable, how: &Fit) -> Result<OperatorFit> {
    let (operator, sixteen) = (table.operator, table.format == TableFormat::Sixteen);
    let name = operator.in_format(table.format).unwrap_or_default();
    let (held, rest): (Vec<&MeasuredCall>, Vec<&MeasuredCall>) =
        table.rows.iter().partition(|row| how.holds(operator, row.family));
    let fitted: Vec<&MeasuredCall> = rest.into_iter().filter(|row| how.takes(row)).collect();
    let families = |rows: &[&MeasuredCall]| rows.iter().map(|row| row.family).collect::<BTreeSet<_>>().len();
    if fitted.len() < 50 || held.len() < 10 || families(&fitted) < 4 {
        let found =
            format!("{} rows of {} families, {} kept aside", fitted.len(), families(&fitted), held.len());
        let expected = "at least 50 rows of 4 families to fit and 10 rows kept aside, in the table's format";
        let wrong = InputError::expected(expected);
        return Err(wrong.key(name).found(found).into());
    }
    let split = format!(
        "by family, one in {} kept aside: SHA-256 of '{} family seed' mod {}, seed {}",
        how.hold_one_in,
        operator.name(),
        how.hold_one_in,
        how.seed
    );
    let words = format!(
        "`radialsim fit` on {} rows of {} families{}, table {}; {split}",
        fitted.len(),
        families(&fitted),
        if sixteen { String::new() } else { format!(" of {name}") },
        &table.sha256[..16]
    );
    set(hw.corrections.get_or_insert_default(), operator, table.format, None);
    let unknown = sixteen || nobody_says(hw, operator);
    let mut own = hw.clone();
    constants::search(&mut own, class(operator), &fitted, &Source::Fitted(words))?;
    let constants = errors(&Device::new(&own, Limits::default())?, &held, &name)?;
    if unknown {
        hw.kernels = own.kernels;
    }

    let device = Device::new(hw, Limits::default())?;
    let host = (table.format == TableFormat::Fp8Block).then(|| host::learn(&device, &fitted));
    // What hides behind the host says nothing about the device.
    let shows = |row: &&MeasuredCall| host.as_ref().is_none_or(|host| host.shows(row));
    let shown: Vec<&MeasuredCall> = fitted.iter().copied().filter(shows).collect();
    let held_shown: Vec<&MeasuredCall> = held.iter().copied().filter(shows).collect();
    // Else a row takes what one scale a tensor takes, as far as the host lets that be: without these, trees would ask of short calls what
    // they learned of long ones.
    let supposed: Vec<MeasuredCall> = match &host {
        Some(host) => fitted.iter().map(|row| host.supposed(&device, row)).collect(),
        None => Vec::new(),
    };
    let learned: Vec<&MeasuredCall> = if host.is_some() { supposed.iter().collect() } else { shown.clone() };
    let waves = waves_if_better(hw, &device, table, &learned)?;
    let base = |row: &&MeasuredCall| (device.base(&row.kernel, waves.as_ref()).s(), row.seconds);
    let waved = waves.as_ref().and_then(|_| PercentErrors::of(held_shown.iter().map(base)));
    let (features, targets): (Vec<Vec<f32>>, Vec<f64>) = learned
        .iter()
        .map(|row| {
            let (time, features) = device.features(&row.kernel, waves.as_ref());
            (features, libm::log(row.seconds / time.s()))
        })
        .unzip();
    let forest = grow(&features, &targets, settings(operator, table.format)).into();
    let evidence = Evidence::new(&table.sha256, shown.len(), held_shown.len(), split);
    let (rows, context) = anchors(&fitted);
    let range = range(&shown);
    let formats: BTreeSet<_> = fitted.iter().filter_map(|row| formats(&row.kernel)).collect();
    let formats = formats.into_iter().collect();
    let (beside, grid, host) = (Vec::new(), Vec::new(), host.map(|host| host.forest));
    let correction =
        Correction { evidence, range, formats, rows, context, beside, grid, waves, forest, host };
    let all = hw.corrections.get_or_insert_default();
    set(all, operator, table.format, Some(correction));
    if all.transferred_from.is_some() && !all.own.contains(&name) {
        all.own.push(name.clone());
    }

    let with = Device::new(hw, Limits::default())?;
    let corrected = errors(&with, &held_shown, &name)?;
    let seen = errors(&with, &shown, &name)?;
    let in_table = errors(&with, &held, &name)?;
    let said = |row: &&MeasuredCall| (row.family, with.price(&row.kernel).time.s(), row.seconds);
    let covered = halves_covered(&held_shown.iter().map(said).collect::<Vec<_>>());
    corrected.check_explained(&name, "times that depend on shapes")?;
    if let Some(correction) = slot(hw.corrections.get_or_insert_default(), operator, table.format) {
        corrected.state(&mut correction.evidence);
    }
    let fitted = (shown.len(), families(&shown));
    let held_families = families(&held);
    Ok(OperatorFit { name, fitted, held_families, constants, waved, corrected, covered, seen, in_table })
}

/// Whether no table and no lender says what the constants of an operator's class are.
fn nobody_says(hw: &Hardware, operator: Operator) -> bool {
    hw.corrections.as_ref().is_none_or(|all| {
        let known = all.named().any(|(name, _)| name.starts_with(operator.name()));
        !known && all.transferred_from.is_none()
    })
}

/// Constants of waves for products, where they leave less of the fitted rows than the four constants of the class do.
fn waves_if_better(
    hw: &Hardware,
    device: &Device,
    table: &CallTable,
    rows: &[&MeasuredCall],
) -> Result<Option<Waves>> {
    if table.operator != Operator::Gemm {
        return Ok(None);
    }
    let (waves, left) = super::waves::search(hw, rows)?;
    let four = |row: &&MeasuredCall| libm::log(device.physical(&row.kernel).time.s() / row.seconds).abs();
    let four = rows.iter().map(four).sum::<f64>() / rows.len().max(1) as f64;
    // More constants follow any rows a little better. In other formats the four are not those of this table.
    Ok((left < 0.95 * four || table.format != TableFormat::Sixteen).then_some(waves))
}

/// What a profile says of each row, as the table that it was fitted to would have it: with what the host takes where that was measured
/// without captured graphs.
pub fn predict(device: &Device, table: &CallTable) -> Vec<Price> {
    table.rows.iter().map(|row| device.price_in_table(&row.kernel)).collect()
}

/// Lends what the device learned of an operator in another format to 16 bits, of which it has no table: constants whole, trees at the
/// strength of loans to another chip; in place of what another device lent. Returns the name of what is lent; nothing where there is nothing
/// to lend, or a table in 16 bits. `error` is the mean error in percent that one expects of it.
pub fn lend_within(hw: &mut Hardware, operator: Operator, error: f64) -> Option<String> {
    let all = hw.corrections.as_mut()?;
    let lent = all.transferred_from.is_some() && !all.own.iter().any(|own| own == operator.name());
    if slot(all, operator, TableFormat::Sixteen).is_some() && !lent {
        return None;
    }
    let mut names = TableFormat::ALL.iter().filter_map(|&format| operator.in_format(format));
    let from = names.find(|name| all.by_format.contains_key(name))?;
    set(all, operator, TableFormat::Sixteen, None);
    let mut expected = all.by_format[&from].evidence.clone();
    expected.expect(error);
    let p90 = (expected.held_p90 * 1e3).round() / 1e3;
    let within = Within { from: from.clone(), share: ABROAD, error: (error, p90) };
    all.within.insert(operator.name().into(), within);
    Some(from)
}

/// Lends the constants and corrections of `from` to `to`, a device whose kernels nobody measured. `error` is the mean error in
/// percent that one expects of it. Fixed times are lent in cycles.
///
/// # Errors
/// A profile without corrections.
pub fn transfer(from: &Hardware, to: &mut Hardware, error: impl Fn(Operator) -> f64) -> Result<()> {
    let Some(mut corrections) = from.corrections.as_deref().cloned() else {
        let wrong = InputError::expected("a fitted profile, which has corrections");
        return Err(wrong.key("corrections").found("none").into());
    };
    corrections.transferred_from = Some(from.name.clone());
    corrections.own.clear();
    // What was measured of one model's layers on a grid says nothing about another device.
    let lent = Corrections { chunk_attention: None, mixed_attention: None, uneven: None, ..corrections };
    corrections =
        Corrections { by_rows: BTreeMap::new(), of_shape: BTreeMap::new(), fused: Vec::new(), ..lent };
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
        for format in TableFormat::ALL {
            if let Some(correction) = slot(&mut corrections, operator, format) {
                correction.evidence.expect(error(operator));
                correction.forest.scale(strength);
            }
        }
    }
    // Nothing is lent for arithmetic that the borrower has not.
    let has = |name: &str| match name {
        "gemm_fp8" | "gemm_fp8_block" => to.compute.matrix_fp8_tflops.is_some(),
        "gemm_nvfp4" => to.compute.matrix_fp4_tflops.is_some(),
        _ => true,
    };
    corrections.by_format.retain(|name, _| has(name));
    // Layers of experts are products, mostly.
    corrections.experts.retain(|name, _| has(&name.replace("experts", "gemm")));
    for times in corrections.experts.values_mut() {
        times.evidence.expect(error(Operator::Gemm));
        times.forest.scale(strength);
    }
    let left: BTreeSet<String> = corrections.by_format.keys().cloned().collect();
    corrections.within.retain(|_, within| left.contains(&within.from));
    to.corrections = Some(corrections.into());
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

/// The correction of an operator in a format, if there is one.
fn slot(all: &mut Corrections, operator: Operator, format: TableFormat) -> Option<&mut Correction> {
    match (operator, format) {
        (Operator::Gemm, TableFormat::Sixteen) => all.gemm.as_mut(),
        (Operator::ContextAttention, TableFormat::Sixteen) => all.context_attention.as_mut(),
        (Operator::GenerationAttention, TableFormat::Sixteen) => all.generation_attention.as_mut(),
        _ => operator.in_format(format).and_then(|name| all.by_format.get_mut(&name)),
    }
}

/// Sets it.
fn set(all: &mut Corrections, operator: Operator, format: TableFormat, correction: Option<Correction>) {
    match (operator, format, operator.in_format(format)) {
        (Operator::Gemm, TableFormat::Sixteen, _) => all.gemm = correction,
        (Operator::ContextAttention, TableFormat::Sixteen, _) => all.context_attention = correction,
        (Operator::GenerationAttention, TableFormat::Sixteen, _) => all.generation_attention = correction,
        (.., Some(name)) => match correction {
            Some(correction) => drop(all.by_format.insert(name, correction)),
            None => drop(all.by_format.remove(&name)),
        },
        (.., None) => {}
    }
}

fn errors(device: &Device, rows: &[&MeasuredCall], name: &str) -> Result<PercentErrors> {
    let said = |row: &&MeasuredCall| (row.family, device.price_in_table(&row.kernel).time.s(), row.seconds);
    PercentErrors::of_families(rows.iter().map(said))
        .ok_or_else(|| -> Error { InputError::expected("rows").key(name).into() })
}

/// Rows and contexts at which the correction is evaluated: those measured, thinned evenly where there are many.
fn anchors(rows: &[&MeasuredCall]) -> (Vec<u32>, Vec<f64>) {
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

pub(super) fn range(rows: &[&MeasuredCall]) -> BTreeMap<String, (f64, f64)> {
    let mut out: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for row in rows {
        for (name, value) in numbers(&row.kernel) {
            let range = out.entry(name.to_owned()).or_insert((value, value));
            *range = (range.0.min(value), range.1.max(value));
        }
    }
    out
}
