//! Whole passes from tables of a model's layers: the sum of the operators of all layers, embedding, head and sampler, as measured and as a profile
//! says. Nothing between the operators is in it: no launches, no host, no collectives.

use super::grid::{Point, Slot, by_rows};
use super::layers::{AttentionRow, Layers};
use super::more_layers::{put, slots};
use crate::cost::{Device, Limits};
use crate::error::Result;
use crate::hw::Hardware;
use crate::kernel::Kernel;
use crate::model::Model;
use std::collections::BTreeSet;

/// What is in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PassKind {
    /// Generated tokens, one of each sequence.
    Decode,
    /// A chunk of one prompt.
    Prefill,
    /// Both.
    Mixed,
}

/// A pass, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassSum {
    /// What is in it.
    pub kind: PassKind,
    /// Rows of the chunk and entries before it; generated tokens, and entries that each sees.
    pub call: AttentionRow,
    /// Seconds by the profile.
    pub said: f64,
    /// Seconds by the tables.
    pub was: f64,
}

/// Kernels that go by rows: how often a pass makes them, whether the last token of each sequence alone takes them, and their rows with seconds, rising.
struct ByRows {
    calls: f64,
    of_sequences: bool,
    /// Rows of the kernel for each token.
    each: u32,
    kernel: Kernel,
    rows: Vec<(u32, f64)>,
}

fn tables(layers: &Layers) -> Vec<ByRows> {
    let model = &layers.model;
    let count = f64::from(model.layers);
    let of = |points: Vec<Point>| {
        let kernel = points[0].kernel;
        let (calls, of_sequences) = match kernel {
            Kernel::MatMul { columns, .. } if u64::from(columns) == model.own_outputs() => (1.0, true),
            Kernel::Sample { .. } => (1.0, true),
            Kernel::Embed { .. } => (1.0, false),
            // Two in a layer, and the last one.
            Kernel::Norm { width, .. } if u64::from(width) == model.hidden => (2.0 * count + 1.0, false),
            _ => (count, false),
        };
        let each = rows_of_a_token(&kernel, model);
        let mut rows: Vec<(u32, f64)> = points.iter().map(|point| (point.rows, point.seconds)).collect();
        rows.sort_by_key(|row| row.0);
        ByRows { calls, of_sequences, each, kernel, rows }
    };
    by_rows(layers, true).into_values().map(of).collect()
}

impl ByRows {
    /// On the line between two measured numbers of rows; nothing beyond them.
    fn seconds(&self, rows: u32) -> Option<f64> {
        let after = self.rows.partition_point(|row| row.0 < rows);
        let high = self.rows.get(after)?;
        if high.0 == rows {
            return Some(high.1);
        }
        let low = self.rows.get(after.checked_sub(1)?)?;
        let share = f64::from(rows - low.0) / f64::from(high.0 - low.0);
        Some(low.1 + share * (high.1 - low.1))
    }

    fn at(&self, rows: u32) -> Kernel {
        crate::cost::with_rows(&self.kernel, rows)
    }
}

/// A pass by tables and by a device; nothing where its rows lie beyond the tables.
fn sum(device: &Device, tables: &[ByRows], layers: &Layers, call: &AttentionRow) -> Option<PassSum> {
    let tokens = call.chunk.0 + call.decode.0;
    let sequences = call.decode.0 + u32::from(call.chunk.0 > 0);
    let count = f64::from(layers.model.layers);
    let (kind, scores) = match (call.chunk.0, call.decode.0) {
        (0, _) => (PassKind::Decode, vec![call.generation()]),
        (_, 0) => (PassKind::Prefill, vec![call.prefill()]),
        _ => (PassKind::Mixed, vec![call.prefill(), call.generation()]),
    };
    let price = |kernel: &Kernel| device.price(kernel).time.s();
    let mut said = count * scores.iter().map(price).sum::<f64>();
    let mut was = count * call.seconds;
    for table in tables {
        let rows = if table.of_sequences { sequences } else { tokens * table.each };
        was += table.calls * table.seconds(rows)?;
        said += table.calls * price(&table.at(rows));
    }
    Some(PassSum { kind, call: *call, said, was })
}

/// Every pass of the tables whose rows they have, by the profile as it is.
///
/// # Errors
/// A profile that no device can be made of.
pub fn passes(hw: &Hardware, layers: &Layers) -> Result<Vec<PassSum>> {
    let (device, tables) = (Device::new(hw, Limits::default())?, tables(layers));
    Ok(layers.attention.iter().filter_map(|call| sum(&device, &tables, layers, call)).collect())
}

/// The same by the profile with grids of the tables, where each number of generated tokens and each number of rows of a chunk but the least and the most is
/// left out in turn: attention with it, and all rows of other operators that its passes would look up. What the profile has of these
/// shapes is not used.
///
/// # Errors
/// Those of [`super::add_layers`].
pub fn passes_left_out(hw: &Hardware, layers: &Layers) -> Result<Vec<PassSum>> {
    let (tables, all) = (tables(layers), slots(layers)?);
    let mut bare = hw.clone();
    if let Some(corrections) = &mut bare.corrections {
        for (slot, _) in &all {
            corrections.of_shape.remove(slot.name());
            corrections.by_rows.remove(slot.name());
        }
    }
    let mut out = Vec::new();
    let axes: [fn(&AttentionRow) -> u32; 2] = [|call| call.decode.0, |call| call.chunk.0];
    for (axis, of) in axes.into_iter().enumerate() {
        // Passes of generated tokens alone are tried by their number, all others by the rows of their chunk.
        let tried = |call: &&AttentionRow| (call.chunk.0 == 0) == (axis == 0) && of(call) > 0;
        let numbers: BTreeSet<u32> = layers.attention.iter().filter(tried).map(of).collect();
        let inner = numbers.iter().skip(1).take(numbers.len().saturating_sub(2));
        for &number in inner {
            let calls: Vec<&AttentionRow> =
                layers.attention.iter().filter(tried).filter(|call| of(call) == number).collect();
            let tokens: BTreeSet<u32> = calls.iter().map(|call| call.chunk.0 + call.decode.0).collect();
            let rest: Vec<(Slot, Vec<Point>)> = all
                .iter()
                .map(|(slot, points)| (slot.clone(), without(points, &layers.model, (axis, number), &tokens)))
                .collect();
            let mut fitted = bare.clone();
            put(&mut fitted, &rest, layers)?;
            let device = Device::new(&fitted, Limits::default())?;
            out.extend(calls.into_iter().filter_map(|call| sum(&device, &tables, layers, call)));
        }
    }
    Ok(out)
}

/// Points without those that passes of this number, with so many tokens, would look up.
fn without(
    points: &[Point],
    model: &Model,
    (axis, number): (usize, u32),
    tokens: &BTreeSet<u32>,
) -> Vec<Point> {
    let keep = |point: &&Point| match point.kernel {
        Kernel::Attention(shape) => match (axis, shape.decode) {
            (0, true) => point.rows != number,
            (0, false) => true,
            (_, true) => point.beside != number,
            (_, false) => point.rows != number,
        },
        kernel => !tokens.contains(&(point.rows / rows_of_a_token(&kernel, model))),
    };
    points.iter().filter(keep).copied().collect()
}

/// Rows of a kernel for each token: a norm of heads has one for each head.
fn rows_of_a_token(kernel: &Kernel, model: &Model) -> u32 {
    match *kernel {
        Kernel::Norm { width, .. } if u64::from(width) != model.hidden => {
            (model.heads + model.kv_heads) as u32
        }
        _ => 1,
    }
}
