//! Tables of a model's layers in, a profile and its errors out. One model is measured, on grids of shapes: too few shapes to learn what
//! others would take, and enough to look up these. So what is measured goes by what the grid says beside the formulas, and other
//! products by the constants alone.

use super::constants;
use super::error::PercentErrors;
use super::fit::{range, thin};
use super::fitted::{Fitted, fitted};
use super::layers::{AttentionRow, Layers};
use super::rows::MeasuredCall;
use super::uneven;
use crate::cost::{Device, Limits, by_rows_name, formats, of_shape_name};
use crate::error::{InputError, Result};
use crate::hw::{Correction, Evidence, Hardware, Shared, Source};
use crate::kernel::{Class, Kernel};
use statrs::statistics::{Data, Median};
use std::collections::{BTreeMap, BTreeSet};

/// A measured row with its place on the grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub beside: u32,
    pub rows: u32,
    /// Entries; 0 for kernels that go by rows alone.
    pub context: u32,
    pub kernel: Kernel,
    pub seconds: f64,
}

/// Where a correction stands in a profile.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    Decode,
    Chunk,
    Mixed,
    ByRows(String),
    /// Of one shape.
    OfShape(String),
}

impl Slot {
    /// Of kernels that go by their rows.
    pub fn of(name: &str, points: &[Point]) -> Slot {
        let shape = points.first().and_then(|point| of_shape_name(&point.kernel));
        match shape.as_deref() == Some(name) {
            true => Slot::OfShape(name.to_owned()),
            false => Slot::ByRows(name.to_owned()),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Slot::Decode => "generation_attention",
            Slot::Chunk => "chunk_attention",
            Slot::Mixed => "mixed_attention",
            Slot::ByRows(name) | Slot::OfShape(name) => name,
        }
    }

    pub fn put(&self, hw: &mut Hardware, correction: Correction) {
        let all = hw.corrections.get_or_insert_default();
        match self {
            Slot::Decode => all.generation_attention = Some(correction),
            Slot::Chunk => all.chunk_attention = Some(correction),
            Slot::Mixed => all.mixed_attention = Some(correction),
            Slot::ByRows(name) => {
                all.by_rows.insert(name.clone(), correction);
            }
            Slot::OfShape(name) => {
                all.of_shape.insert(name.clone(), correction);
            }
        }
    }
}

/// Fits constants and corrections of the profile `hw` to these tables. Every row is fitted in the end; errors are those on rows
/// that were kept aside in turn.
///
/// # Errors
/// Tables that lack a kind of kernel.
pub fn fit_layers(hw: &mut Hardware, layers: &Layers) -> Result<Vec<Fitted>> {
    let mut out = Vec::new();
    *hw = Hardware { corrections: Some(Shared::default()), ..hw.clone() };
    let words =
        |what: &str| Source::Fitted(format!("`radialsim fit` on {what} of tables {}", &layers.sha256[..16]));
    let by_rows = by_rows(layers, false);
    let (decode, chunk, mixed) = (decode(layers), chunk(layers), mixed(layers)?);
    let of_class = |class| -> Vec<Point> {
        by_rows.values().flatten().filter(|point| point.kernel.class() == class).copied().collect()
    };
    for (class, points) in [
        (Class::PrefillAttention, chunk.clone()),
        (Class::DecodeAttention, decode.clone()),
        (Class::Elementwise, of_class(Class::Elementwise)),
        (Class::Gather, of_class(Class::Gather)),
    ] {
        let rows = rows_of(&points);
        need(rows.len(), class_name(class))?;
        let words = words(&format!("{} rows", rows.len()));
        constants::search(hw, class, &rows.iter().collect::<Vec<_>>(), &words)?;
    }
    let product = |points: &&Vec<Point>| points.iter().all(|point| point.kernel.class() == Class::MatMul);
    let products_of: Vec<Vec<Point>> = by_rows.values().filter(product).cloned().collect();
    out.push(products(hw, &products_of, &words)?);
    out.push(grid(hw, &Slot::Chunk, &chunk, layers)?);
    out.push(grid(hw, &Slot::Decode, &decode, layers)?);
    let mixed = grid(hw, &Slot::Mixed, &mixed, layers)?;
    let whole = PercentErrors::of(whole_calls(hw, layers)?).unwrap_or(mixed.seen);
    out.push(Fitted { seen: whole, ..mixed });
    for (name, points) in &by_rows {
        out.push(grid(hw, &Slot::of(name, points), points, layers)?);
    }
    if !layers.uneven.is_empty() {
        out.push(uneven::fit(hw, &layers.uneven, &layers.uneven_sha256)?);
    }
    if let Some(corrections) = &mut hw.corrections {
        // vLLM's norm adds the residual, and its attention layer writes the cache; both are in the measured times.
        corrections.fused = vec!["kv_write".into(), "residual_add".into()];
    }
    Ok(out)
}

fn class_name(class: Class) -> &'static str {
    Class::ALL[class as usize].1
}

pub(super) fn need(rows: usize, key: &str) -> Result<()> {
    if rows < 10 {
        return Err(InputError::expected("at least 10 measured rows").key(key).found(rows).into());
    }
    Ok(())
}

pub(super) fn rows_of(points: &[Point]) -> Vec<MeasuredCall> {
    let row = |point: &Point| MeasuredCall { kernel: point.kernel, family: [0; 3], seconds: point.seconds };
    points.iter().map(row).collect()
}

/// Kernels that go by their rows, by the name of their correction: `shapes` apart, where others of the kind are known already. Norms of heads are
/// apart from norms of rows.
pub(super) fn by_rows(layers: &Layers, shapes: bool) -> BTreeMap<String, Vec<Point>> {
    let of_heads = |kernel: &Kernel| matches!(*kernel, Kernel::Norm { width, .. } if u64::from(width) != layers.model.hidden);
    let name = |kernel: &Kernel| {
        let shape = if shapes || of_heads(kernel) { of_shape_name(kernel) } else { None };
        shape.unwrap_or_else(|| by_rows_name(kernel).into_owned())
    };
    let mut out: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for (rows, kernel, seconds) in &layers.by_rows {
        let point = Point { beside: 0, rows: *rows, context: 0, kernel: *kernel, seconds: *seconds };
        out.entry(name(kernel)).or_default().push(point);
    }
    out
}

/// What the profile says of whole mixed calls, and what was measured.
pub(super) fn whole_calls(hw: &Hardware, layers: &Layers) -> Result<Vec<(f64, f64)>> {
    let device = Device::new(hw, Limits::default())?;
    let mixed = layers.attention.iter().filter(|call| call.chunk.0 > 0 && call.decode.0 > 0);
    let both =
        |call: &AttentionRow| device.price(&call.prefill()).time + device.price(&call.generation()).time;
    Ok(mixed.map(|call| (both(call).s(), call.seconds)).collect())
}

pub(super) fn decode(layers: &Layers) -> Vec<Point> {
    let alone = layers.attention.iter().filter(|call| call.chunk.0 == 0 && call.decode.0 > 0);
    alone.map(|call| point(call, call.generation(), call.seconds)).collect()
}

pub(super) fn chunk(layers: &Layers) -> Vec<Point> {
    let alone = layers.attention.iter().filter(|call| call.decode.0 == 0 && call.chunk.0 > 0);
    let place = |call: &AttentionRow| Point {
        beside: 0,
        rows: call.chunk.0,
        context: call.chunk.1 + 1,
        kernel: call.prefill(),
        seconds: call.seconds,
    };
    alone.map(place).collect()
}

fn point(call: &AttentionRow, kernel: Kernel, seconds: f64) -> Point {
    let (rows, context) = call.decode;
    Point { beside: call.chunk.0, rows, context, kernel, seconds }
}

/// What generated tokens add to a chunk in one call: the median over what lies before the chunk, which matters less. No less than
/// a hundredth of the call, so that there are logarithms.
pub(super) fn mixed(layers: &Layers) -> Result<Vec<Point>> {
    let chunks = layers.attention.iter().filter(|call| call.decode.0 == 0);
    let alone: BTreeMap<(u32, u32), f64> = chunks.map(|call| (call.chunk, call.seconds)).collect();
    let mut found: BTreeMap<(u32, u32, u32), (AttentionRow, Vec<f64>)> = BTreeMap::new();
    for call in layers.attention.iter().filter(|call| call.chunk.0 > 0 && call.decode.0 > 0) {
        let Some(before) = alone.get(&call.chunk) else { continue };
        let place = (call.chunk.0, call.decode.0, call.decode.1);
        let more = (call.seconds - before).max(0.01 * call.seconds);
        found.entry(place).or_insert_with(|| (*call, Vec::new())).1.push(more);
    }
    need(found.len(), "mixed attention")?;
    let median =
        |(call, more): (AttentionRow, Vec<f64>)| point(&call, call.generation(), Data::new(more).median());
    Ok(found.into_values().map(median).collect())
}

/// How wrong the constants are about a layer that they were not fitted to: each layer is kept aside in turn. Then they are fitted to all.
fn products(hw: &mut Hardware, points: &[Vec<Point>], words: &impl Fn(&str) -> Source) -> Result<Fitted> {
    let fit = |hw: &mut Hardware, rows: &[MeasuredCall]| {
        let rows: Vec<&MeasuredCall> = rows.iter().collect();
        need(rows.len(), "products")?;
        constants::search(hw, Class::MatMul, &rows, &words(&format!("{} rows", rows.len())))
    };
    let mut held = Vec::new();
    for (layer, kept) in points.iter().enumerate() {
        let rest = points.iter().enumerate().filter(|(other, _)| *other != layer);
        let mut without = hw.clone();
        fit(&mut without, &rest.flat_map(|(_, points)| rows_of(points)).collect::<Vec<_>>())?;
        held.extend(of_family(layer, pairs(&without, kept)?));
    }
    let all: Vec<Point> = points.concat();
    fit(hw, &rows_of(&all))?;
    let constants = held.iter().map(|&(_, said, was)| (said, was)).collect();
    fitted("matmul", all.len(), ("layer", points.len()), [constants, pairs(hw, &all)?], held)
}

/// Times that a profile says, and those measured.
pub(super) fn pairs(hw: &Hardware, points: &[Point]) -> Result<Vec<(f64, f64)>> {
    let device = Device::new(hw, Limits::default())?;
    Ok(points.iter().map(|point| (device.price(&point.kernel).time.s(), point.seconds)).collect())
}

/// Pairs of one family.
pub(super) fn of_family(family: usize, pairs: Vec<(f64, f64)>) -> impl Iterator<Item = (usize, f64, f64)> {
    pairs.into_iter().map(move |(said, was)| (family, said, was))
}

/// A grid beside the formulas. Each inner number of rows, entries and rows beside is kept aside in turn, then all are taken.
pub(super) fn grid(hw: &mut Hardware, slot: &Slot, points: &[Point], layers: &Layers) -> Result<Fitted> {
    let of: [fn(&Point) -> u32; 3] = [|point| point.beside, |point| point.rows, |point| point.context];
    let values = of.map(|axis| points.iter().map(axis).collect::<BTreeSet<u32>>());
    // A kernel that has no entries or rows beside has 0 of them.
    let enough = |values: &BTreeSet<u32>| values.len() >= 3 || values.iter().eq([&0]);
    if !values.iter().all(enough) {
        let [beside, rows, context] = values.map(|values| values.len());
        let found = format!("{rows} of rows, {context} of entries, {beside} of rows beside");
        let wrong = InputError::expected("a grid of at least 3 numbers each").key(slot.name());
        return Err(wrong.found(found).into());
    }
    let (mut constants, mut held, mut times) = (Vec::new(), Vec::new(), 0);
    let physical = Device::new(hw, Limits::default())?;
    for (axis, values) in of.into_iter().zip(&values) {
        for &value in values.iter().skip(1).take(values.len().saturating_sub(2)) {
            let (kept, rest): (Vec<Point>, Vec<Point>) =
                points.iter().partition(|point| axis(point) == value);
            let mut without = hw.clone();
            slot.put(&mut without, correction(&physical, &rest, layers));
            constants
                .extend(kept.iter().map(|point| (physical.physical(&point.kernel).time.s(), point.seconds)));
            held.extend(of_family(times, pairs(&without, &kept)?));
            times += 1;
        }
    }
    let mut correction = correction(&physical, points, layers);
    slot.put(hw, correction.clone());
    let seen = pairs(hw, points)?;
    let fitted = fitted(slot.name(), points.len(), ("number", times), [constants, seen], held)?;
    fitted.held.check_explained(slot.name(), "times that depend on shapes")?;
    let (what, times) = fitted.kept;
    correction.evidence.split = format!("each of {times} {what}s kept aside in turn, then all rows fitted");
    fitted.held.state(&mut correction.evidence);
    slot.put(hw, correction);
    Ok(fitted)
}

/// What the points say beside the formulas. A cell that nobody measured takes what the one of fewer entries, rows or rows beside says.
pub(super) fn correction(device: &Device, points: &[Point], layers: &Layers) -> Correction {
    /// As [`Correction`] allows.
    const MOST: usize = 96;
    let values = |of: fn(&Point) -> u32| points.iter().map(of).collect::<BTreeSet<u32>>();
    let rows: Vec<u32> = thin(values(|point| point.rows).into_iter().collect(), MOST);
    let some = |values: BTreeSet<u32>| -> Vec<u32> {
        thin(values.into_iter().filter(|&value| value > 0).collect(), MOST)
    };
    let (context, beside) = (some(values(|point| point.context)), some(values(|point| point.beside)));
    let left = |point: &Point| libm::log(point.seconds / device.physical(&point.kernel).time.s());
    let said: BTreeMap<[u32; 3], f64> =
        points.iter().map(|point| ([point.beside, point.rows, point.context], left(point))).collect();
    let axis = |values: &[u32]| if values.is_empty() { vec![0] } else { values.to_vec() };
    let mut grid: Vec<f64> = Vec::new();
    let (planes, columns) = (axis(&beside), axis(&context));
    for &plane in &planes {
        for (row, &count) in rows.iter().enumerate() {
            for (column, &entries) in columns.iter().enumerate() {
                let at = grid.len();
                let near = [(column > 0, 1), (row > 0, columns.len()), (true, columns.len() * rows.len())];
                let near = near
                    .iter()
                    .find(|&&(there, back)| there && back <= at)
                    .map_or(0.0, |&(_, back)| grid[at - back]);
                grid.push(said.get(&[plane, count, entries]).copied().unwrap_or(near));
            }
        }
    }
    let all: Vec<MeasuredCall> = rows_of(points);
    Correction {
        evidence: evidence(layers, points.len()),
        range: range(&all.iter().collect::<Vec<_>>()),
        formats: all
            .iter()
            .filter_map(|row| formats(&row.kernel))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        rows,
        context: context.into_iter().map(f64::from).collect(),
        beside,
        grid: grid.into_iter().map(|value| (value * 1e4).round() as i32).collect(),
        waves: None,
        host: None,
        forest: Shared::default(),
    }
}

fn evidence(layers: &Layers, rows: usize) -> Evidence {
    Evidence::new(&layers.sha256, rows, 0, String::new())
}
