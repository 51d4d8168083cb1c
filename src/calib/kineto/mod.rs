//! Profiles of PyTorch (Kineto) as measured tables: how long products and attention took on the device of whoever recorded them.
//!
//! A call's time is that of the kernels that it started; where the profile has no kernels, all ran on the processor, and it is that of the
//! operator. Of calls of one shape the median counts.

mod calls;
mod events;

use super::fit::{self, Fit, OperatorFit};
use super::rounded;
use super::rows::{CallTable, MeasuredCall, Operator, TableFormat};
use crate::error::{InputError, Result};
use crate::hw::{Hardware, Source, Sourced};
use crate::kernel::Kernel;
use crate::units::Dtype;
use calls::{Call, call, looked_at};
use events::Events;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A profile as tables.
#[derive(Clone, Debug, PartialEq)]
pub struct TorchProfile {
    /// The file.
    pub path: PathBuf,
    /// The device that it names; nothing where all ran on the processor.
    pub device: Option<String>,
    /// One for each operator of which there are calls, each of one format.
    pub tables: Vec<CallTable>,
    /// Calls that are in the tables.
    pub calls: usize,
    /// Calls of products and attention that are not, by why.
    pub left: BTreeMap<String, usize>,
}

/// What a profile taught.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Of each operator that could be fitted.
    pub reports: Vec<OperatorFit>,
    /// What was set to what was measured, and what could not be fitted, a sentence each.
    pub remarks: Vec<String>,
}

/// Reads what `torch.profiler.profile(record_shapes=True)` and `export_chrome_trace` write, plain or `.gz`.
///
/// # Errors
/// A file that is no such profile, was recorded without shapes, or has no call of a product or of attention that is one of a decoder.
pub fn read(path: &Path) -> Result<TorchProfile> {
    let events = events::read(path, looked_at)?;
    let wrong = |expected: &str| InputError::expected(expected).file(path);
    let asked = |operator: &&events::Operator| looked_at(&operator.name);
    if events.operators.iter().filter(asked).all(|operator| !has_shapes(operator)) {
        let found =
            format!("{} operators, none of them a product or attention with shapes", events.operators.len());
        let expected = "calls of aten::mm, aten::addmm or aten::scaled_dot_product_attention, recorded with record_shapes=True";
        return Err(wrong(expected).key("traceEvents").found(found).into());
    }
    let (times, left) = times(&events);
    let calls = times.values().map(Vec::len).sum();
    let mut profile = TorchProfile { path: path.to_owned(), device: None, tables: Vec::new(), calls, left };
    if !events.kernels.is_empty() {
        profile.device = Some(events.device.unwrap_or_else(|| "a device without a name".into()));
    }
    for (operator, _) in Operator::ALL {
        profile.tables.extend(table(operator, &times, &events.sha256, &mut profile.left));
    }
    profile.calls = profile.calls.saturating_sub(profile.left.get(FEWER).copied().unwrap_or(0));
    if profile.tables.is_empty() {
        let found =
            profile.left.iter().map(|(why, count)| format!("{count}: {why}")).collect::<Vec<_>>().join("; ");
        return Err(wrong("a call of a product or of attention that is one of a decoder")
            .found(found)
            .into());
    }
    Ok(profile)
}

/// Why calls of one format stand aside.
const FEWER: &str = "in a format of which there are fewer shapes";

fn has_shapes(operator: &events::Operator) -> bool {
    operator.inputs.as_ref().is_some_and(|inputs| inputs.dims.is_some())
}

type Times = BTreeMap<Call, Vec<f64>>;

/// Microseconds of each call, by its shape; and how many calls are none, by why.
fn times(events: &Events) -> (Times, BTreeMap<String, usize>) {
    let within = within(&events.operators);
    let mut on_device: HashMap<usize, f64> = HashMap::new();
    let of_id: HashMap<u64, usize> = events
        .operators
        .iter()
        .enumerate()
        .filter_map(|(place, operator)| Some((operator.id?, place)))
        .collect();
    for (id, us) in &events.kernels {
        let mut place = id.and_then(|id| of_id.get(&id).copied());
        while let Some(here) = place {
            *on_device.entry(here).or_default() += us;
            place = within[here];
        }
    }
    let (mut times, mut left) = (Times::new(), BTreeMap::<String, usize>::new());
    for (place, operator) in events.operators.iter().enumerate() {
        let Some(inputs) = operator.inputs.as_ref().filter(|_| looked_at(&operator.name)) else { continue };
        // What attention calls is a part of it.
        if outer(place, &within).any(|outer| looked_at(&events.operators[outer].name)) {
            continue;
        }
        let us = match events.kernels.is_empty() {
            true => operator.time.1,
            false => on_device.get(&place).copied().unwrap_or(0.0),
        };
        let found = match call(&operator.name, inputs) {
            Ok(_) if us <= 0.0 && events.kernels.is_empty() => Err("no time at all"),
            Ok(_) if us <= 0.0 => Err("no kernel on the device"),
            Ok(call) if call.kernel().is_none() => Err("a size that cannot be"),
            other => other,
        };
        match found {
            Ok(call) => times.entry(call).or_default().push(us),
            Err(why) => *left.entry(why.to_owned()).or_default() += 1,
        }
    }
    (times, left)
}

/// The operator that called each, by its place: the innermost one of its thread that lasts as long.
fn within(operators: &[events::Operator]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..operators.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&operators[a], &operators[b]);
        let by_begin = a.thread.cmp(&b.thread).then(a.time.0.total_cmp(&b.time.0));
        by_begin.then(b.time.1.total_cmp(&a.time.1)).then(a.place.cmp(&b.place))
    });
    let mut out = vec![None; operators.len()];
    let mut open: Vec<usize> = Vec::new();
    for place in order {
        let operator = &operators[place];
        let holds = |outer: &events::Operator| {
            outer.thread == operator.thread
                && outer.time.0 + outer.time.1 >= operator.time.0 + operator.time.1
        };
        while open.last().is_some_and(|&outer| !holds(&operators[outer])) {
            open.pop();
        }
        out[place] = open.last().copied();
        open.push(place);
    }
    out
}

/// All that called an operator, from the inside.
fn outer(place: usize, within: &[Option<usize>]) -> impl Iterator<Item = usize> {
    std::iter::successors(within[place], |&place| within[place])
}

/// The table of an operator, of the format of which there are most shapes; nothing where it was not called.
fn table(
    operator: Operator,
    times: &Times,
    sha256: &str,
    left: &mut BTreeMap<String, usize>,
) -> Option<CallTable> {
    let of: Vec<(&Call, &Vec<f64>)> = times.iter().filter(|(call, _)| call.operator() == operator).collect();
    let mut shapes: BTreeMap<Dtype, usize> = BTreeMap::new();
    of.iter().for_each(|(call, _)| *shapes.entry(call.dtype).or_default() += 1);
    let (&dtype, _) = shapes.iter().max_by_key(|&(_, count)| *count)?;
    let others: usize = of.iter().filter(|(call, _)| call.dtype != dtype).map(|(_, us)| us.len()).sum();
    if others > 0 {
        *left.entry(FEWER.into()).or_default() += others;
    }
    let row = |(call, us): (&Call, &Vec<f64>)| {
        let numbers = &call.numbers;
        let family = match operator {
            Operator::Gemm => [numbers[1], numbers[2], 0],
            _ => [numbers[3], numbers[4], numbers[5]],
        };
        Some(MeasuredCall { kernel: call.kernel()?, family, seconds: median(us) * 1e-6 })
    };
    let rows = of.into_iter().filter(|(call, _)| call.dtype == dtype).filter_map(row).collect();
    let (format, text) = (TableFormat::Sixteen, Default::default());
    Some(CallTable { operator, format, rows, text, sha256: sha256.to_owned() })
}

/// The middle one, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 }
}

/// Fits the profile `hw` to what was measured. Where products were quicker than its peaks allow, the peaks become what was reached, on rows
/// that are not kept aside. An operator with too few shapes stays as it is, and a remark says so.
///
/// # Errors
/// No operator with enough shapes; those of [`fit::fit`].
pub fn fit(hw: &mut Hardware, profile: &TorchProfile, how: &Fit) -> Result<Learned> {
    let mut learned = Learned { reports: Vec::new(), remarks: reached(hw, profile, how)? };
    let mut refused = None;
    for table in &profile.tables {
        match fit::fit(hw, table, how) {
            Ok(report) => learned.reports.push(report),
            Err(error) => {
                learned.remarks.push(format!("Not fitted: {error}."));
                refused.get_or_insert(error);
            }
        }
    }
    match refused {
        Some(error) if learned.reports.is_empty() => Err(error.in_file(&profile.path)),
        _ => {
            hw.check()?;
            Ok(learned)
        }
    }
}

/// Lifts the peak of arithmetic to what fitted products reached.
fn reached(hw: &mut Hardware, profile: &TorchProfile, how: &Fit) -> Result<Vec<String>> {
    let Some(table) = profile.tables.iter().find(|table| table.operator == Operator::Gemm) else {
        return Ok(Vec::new());
    };
    let name = profile.path.file_name().unwrap_or_default().to_string_lossy();
    let mut remarks = Vec::new();
    let fitted = table.rows.iter().filter(|row| !how.holds(table.operator, row.family));
    let rates = fitted.map(|row| row.kernel.work().flops as f64 / row.seconds * 1e-12);
    let best = rounded(rates.fold(0.0, f64::max));
    let narrow =
        matches!(table.rows.first().map(|row| row.kernel), Some(Kernel::MatMul { inputs: Dtype::Bf16, .. }));
    let (key, peak) = match narrow {
        true => ("compute.matrix_f16_tflops", &mut hw.compute.matrix_f16_tflops),
        false => ("compute.matrix_f32_tflops", &mut hw.compute.matrix_f32_tflops),
    };
    if best > peak.value {
        remarks.push(format!("{key}: {} said, {best} reached, which it becomes.", peak.value));
        let source = Source::Measured(format!("the quickest fitted product of {name}"));
        *peak = Sourced { value: best, source };
    }
    Ok(remarks)
}
