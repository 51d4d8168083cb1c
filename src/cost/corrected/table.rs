//! Corrected times of one family of shapes at the anchors, and what lies between.

use crate::cost::Device;
use crate::hw::{Correction, Nodes, Waves};
use crate::kernel::{Attention, Class, Kernel};
use crate::units::SimTime;

/// What the anchors of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchors {
    /// Rows of a kernel.
    Rows,
    /// Sequences of attention (whole prompts, or generated tokens), and the entries that a row sees on average.
    Sequences,
    /// Rows of one chunk of a prompt, and the entries before it and one.
    Chunk,
}

impl Anchors {
    /// Of what is corrected by trees.
    pub(super) fn of(class: Class) -> Anchors {
        if class == Class::MatMul { Anchors::Rows } else { Anchors::Sequences }
    }
}

/// How far products between two anchors follow the staircase of the uncorrected time; the rest follows a straight line, since a library
/// does not climb just where the formulas do. Half comes nearest on the fitted families of H100 and L40S with every row count left out
/// that the table of A100 lacks.
const STAIRS: f64 = 0.5;

/// Times in picoseconds over rows, and over the mean context for attention.
#[derive(Debug)]
pub(super) struct Table {
    anchors: Anchors,
    /// Anchors along rows; logarithms of sequences for attention.
    rows: Vec<f64>,
    /// Logarithms of the anchors along context; one for products.
    context: Vec<f64>,
    /// Before the correction, rows first.
    physical: Vec<f64>,
    /// What that is computed by, where not by the formulas.
    waves: Option<Waves>,
    /// Corrected and monotone; logarithms for attention.
    corrected: Vec<f64>,
    /// Whether everything but rows and context lies among what was fitted.
    pub(super) covered: bool,
}

impl Table {
    /// Of the family of `kernel`.
    pub(super) fn new(
        device: &Device,
        family: &Kernel,
        correction: &Correction,
        nodes: &Nodes,
        anchors: Anchors,
        covered: bool,
    ) -> Table {
        let attention = anchors != Anchors::Rows;
        let contexts: Vec<f64> = if attention { correction.context.clone() } else { vec![1.0] };
        let anchored =
            correction.rows.iter().flat_map(|&rows| contexts.iter().map(move |&context| (rows, context)));
        let (times, features): (Vec<SimTime>, Vec<Vec<f32>>) = anchored
            .map(|(rows, context)| {
                device.features(&at(family, anchors, rows, context), correction.waves.as_ref())
            })
            .unzip();
        let learned = match correction.grid.is_empty() {
            true => nodes.predict_all(&features),
            false => (0..times.len()).map(|index| cell(correction, family, index)).collect(),
        };
        let physical: Vec<f64> = times.iter().map(|time| time.ps() as f64).collect();
        let mut corrected: Vec<f64> =
            physical.iter().zip(learned).map(|(&ps, learned)| libm::log(ps.max(1.0)) + learned).collect();
        let width = contexts.len();
        let mut rows: Vec<f64> = correction.rows.iter().map(|&rows| f64::from(rows)).collect();
        let mut context = contexts;
        if attention {
            for column in 0..width {
                rising(&mut corrected, column, width, rows.len());
            }
            for row in 0..rows.len() {
                rising(&mut corrected, row * width, 1, width);
            }
            rows.iter_mut().chain(&mut context).for_each(|value| *value = libm::log(*value));
        } else {
            corrected.iter_mut().for_each(|value| *value = libm::exp(*value));
            rising_in_percent(&mut corrected);
        }
        Table { anchors, rows, context, physical, waves: correction.waves.clone(), corrected, covered }
    }

    /// The time of a kernel of the family, which takes `physical` by the formulas.
    pub(super) fn time(&self, device: &Device, kernel: &Kernel, physical: SimTime) -> SimTime {
        let waved = self.waves.as_ref().map(|waves| device.base(kernel, Some(waves)));
        let physical = waved.unwrap_or(physical).ps() as f64;
        let ps = match kernel {
            Kernel::Attention(shape) if self.anchors == Anchors::Chunk => self.chunks(device, shape),
            Kernel::Attention(shape) => {
                let rows = f64::from(shape.rows.max(1));
                let context = shape.seen();
                let sequences = libm::log(rows / length(shape.decode, context));
                self.attention(device, shape, sequences, libm::log(context), || physical)
            }
            _ => rows(kernel).map_or(physical, |rows| self.product(f64::from(rows), physical)),
        };
        SimTime::from_ps(ps as u64)
    }

    /// Between two anchors, half on the staircase of the uncorrected time and half on a straight line; beyond them in proportion to it.
    fn product(&self, rows: f64, physical: f64) -> f64 {
        let last = self.rows.len() - 1;
        let at = self.rows.partition_point(|&anchor| anchor <= rows);
        if at == 0 {
            return self.corrected[0] * physical / self.physical[0].max(1.0);
        }
        if at > last {
            return self.corrected[last] * physical / self.physical[last].max(1.0);
        }
        let (low, high) = (self.physical[at - 1], self.physical[at]);
        let line = (rows - self.rows[at - 1]) / (self.rows[at] - self.rows[at - 1]);
        let stairs = if high > low { ((physical - low) / (high - low)).clamp(0.0, 1.0) } else { line };
        let share = STAIRS * stairs + (1.0 - STAIRS) * line;
        self.corrected[at - 1] + (self.corrected[at] - self.corrected[at - 1]) * share
    }

    /// Chunks of several prompts in one call, as if they were equal: each takes what one takes alone, but for what the smallest
    /// call takes, which the call takes once.
    fn chunks(&self, device: &Device, shape: &Attention) -> f64 {
        let count = shape.chunks();
        let (chunk, before) = shape.chunk(count);
        // Anchors are entries before the chunk, and one.
        let before = before + 1.0;
        let alone = at(&Kernel::Attention(*shape), self.anchors, (chunk + 0.5) as u32, before);
        let physical = || device.physical(&alone).time.ps() as f64;
        let one = self.attention(device, shape, libm::log(chunk), libm::log(before), physical);
        let least = libm::exp(self.corrected[0]).min(one);
        least + count * (one - least)
    }

    /// Straight lines between logarithms; beyond the anchors in proportion to the formulas.
    fn attention(
        &self,
        device: &Device,
        shape: &Attention,
        sequences: f64,
        context: f64,
        physical: impl Fn() -> f64,
    ) -> f64 {
        let (row, along) = position(&self.rows, sequences);
        let (column, across) = position(&self.context, context);
        let width = self.context.len();
        let line = |row: usize| {
            let (low, high) =
                (self.corrected[row * width + column], self.corrected[row * width + column + 1]);
            low + (high - low) * across
        };
        let inside = libm::exp(line(row) + (line(row + 1) - line(row)) * along);
        let clamped = |value: f64, anchors: &[f64]| value.clamp(anchors[0], anchors[anchors.len() - 1]);
        let (near_rows, near_context) = (clamped(sequences, &self.rows), clamped(context, &self.context));
        if near_rows == sequences && near_context == context {
            return inside;
        }
        let rows = (libm::exp(near_rows) + 0.5) as u32;
        let edge = at(&Kernel::Attention(*shape), self.anchors, rows, libm::exp(near_context));
        inside * physical() / (device.physical(&edge).time.ps() as f64).max(1.0)
    }
}

/// Rows of each sequence whose rows see `context` entries on average: a whole prompt of n tokens sees (n + 1) / 2.
pub(crate) fn length(decode: bool, context: f64) -> f64 {
    if decode { 1.0 } else { (2.0 * context - 1.0).max(1.0) }
}

/// A kernel of the family at a pair of anchors.
fn at(family: &Kernel, anchors: Anchors, rows: u32, context: f64) -> Kernel {
    let Kernel::Attention(shape) = *family else { return with_rows(family, rows) };
    let (rows, pairs, entries) = match anchors {
        Anchors::Chunk => {
            let rows = f64::from(rows);
            (rows, rows * (context - 1.0 + (rows + 1.0) / 2.0), rows + context - 1.0)
        }
        Anchors::Rows | Anchors::Sequences => {
            let rows = f64::from(rows) * length(shape.decode, context);
            (rows, rows * context, if shape.decode { rows * context } else { rows })
        }
    };
    let (rows, pairs, entries) = ((rows + 0.5) as u32, (pairs + 0.5) as u64, (entries + 0.5) as u64);
    Kernel::Attention(Attention { rows, pairs, entries, ..shape })
}

/// What a measured grid says of cell `index` of rows and context, between the two nearest numbers of rows beside.
fn cell(correction: &Correction, family: &Kernel, index: usize) -> f64 {
    let width = correction.rows.len() * correction.context.len().max(1);
    let value = |plane: usize| f64::from(correction.grid[plane * width + index]) * 1e-4;
    let beside = match family {
        Kernel::Attention(shape) if !correction.beside.is_empty() => f64::from(shape.beside.max(1)),
        _ => return value(0),
    };
    let planes: Vec<f64> = correction.beside.iter().map(|&rows| libm::log(rows.into())).collect();
    let (plane, share) = position(&planes, libm::log(beside));
    value(plane) + (value(plane + 1) - value(plane)) * share
}

/// Rows of a kernel whose time is known by its rows.
pub(super) fn rows(kernel: &Kernel) -> Option<u32> {
    match *kernel {
        Kernel::MatMul { rows, .. }
        | Kernel::Embed { rows, .. }
        | Kernel::Norm { rows, .. }
        | Kernel::Rope { rows, .. }
        | Kernel::Activation { rows, .. }
        | Kernel::Sample { rows, .. } => Some(rows),
        _ => None,
    }
}

/// Such a kernel with other rows.
pub(crate) fn with_rows(kernel: &Kernel, count: u32) -> Kernel {
    let mut other = *kernel;
    match &mut other {
        Kernel::MatMul { rows, .. }
        | Kernel::Embed { rows, .. }
        | Kernel::Norm { rows, .. }
        | Kernel::Rope { rows, .. }
        | Kernel::Activation { rows, .. }
        | Kernel::Sample { rows, .. } => *rows = count,
        _ => {}
    }
    other
}

/// Interval of rising `anchors` and the share of it that `value` lies behind its begin, from 0 to 1.
fn position(anchors: &[f64], value: f64) -> (usize, f64) {
    let at = anchors.partition_point(|&anchor| anchor <= value).clamp(1, anchors.len() - 1) - 1;
    (at, ((value - anchors[at]) / (anchors[at + 1] - anchors[at])).clamp(0.0, 1.0))
}

/// The nearest rising values in the sense of the mean absolute error in percent, by pooling adjacent violators: each block takes the
/// median of its values, weighted by what a step costs, which is 1 over the value. In two dimensions this need not keep what already
/// rises along the other one; means do.
fn rising_in_percent(values: &mut [f64]) {
    let mut blocks: Vec<(f64, Vec<f64>)> = Vec::new();
    for &value in values.iter() {
        let mut block = (value, vec![value]);
        while blocks.last().is_some_and(|last| last.0 > block.0) {
            let mut pooled = blocks.pop().map_or_else(Vec::new, |last| last.1);
            pooled.append(&mut block.1);
            pooled.sort_by(f64::total_cmp);
            let half: f64 = pooled.iter().map(|value| 0.5 / value).sum();
            let mut below = 0.0;
            let median = pooled.iter().find(|&&value| {
                below += 1.0 / value;
                below >= half
            });
            block = (*median.unwrap_or(&value), pooled);
        }
        blocks.push(block);
    }
    let level = blocks.iter().flat_map(|(median, pooled)| std::iter::repeat_n(*median, pooled.len()));
    values.iter_mut().zip(level).for_each(|(value, median)| *value = median);
}

/// The nearest rising values in the sense of least squares, by pooling adjacent violators (Ayer et al. 1955), of `count` values
/// from `first`, `step` apart.
fn rising(values: &mut [f64], first: usize, step: usize, count: usize) {
    // Means of blocks with their sizes.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for index in 0..count {
        let mut block = (values[first + index * step], 1);
        while let Some(&(mean, size)) = blocks.last() {
            if mean <= block.0 {
                break;
            }
            blocks.pop();
            block =
                ((mean * size as f64 + block.0 * block.1 as f64) / (size + block.1) as f64, size + block.1);
        }
        blocks.push(block);
    }
    let level = blocks.iter().flat_map(|&(mean, size)| std::iter::repeat_n(mean, size));
    for (index, mean) in level.enumerate() {
        values[first + index * step] = mean;
    }
}

#[cfg(test)]
mod tests {
    use super::{rising, rising_in_percent};

    #[test]
    fn pooled_values_rise_and_keep_their_sum() {
        let mut values = vec![1.0, 3.0, 2.0, 2.0, 5.0, 4.0];
        rising(&mut values, 0, 1, 6);
        assert_eq!(values, [1.0, 7.0 / 3.0, 7.0 / 3.0, 7.0 / 3.0, 4.5, 4.5]);
    }

    /// Against every pair of levels on a grid: none comes nearer in percent.
    #[test]
    fn pooled_percentages_rise_and_nothing_rising_is_nearer() {
        let given = [2.0, 6.0, 3.0, 3.5, 9.0];
        let mut values = given;
        rising_in_percent(&mut values);
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
        let off = |values: &[f64]| -> f64 {
            values.iter().zip(&given).map(|(said, was)| (said / was - 1.0).abs()).sum()
        };
        let least = off(&values);
        for low in 0..40 {
            for high in low..40 {
                let (low, high) = (f64::from(low) * 0.25, f64::from(high) * 0.25);
                for at in 0..=given.len() {
                    let other: Vec<f64> =
                        (0..given.len()).map(|index| if index < at { low } else { high }).collect();
                    assert!(off(&other) >= least - 1e-12, "{other:?}");
                }
            }
        }
        assert_eq!(values, [2.0, 3.0, 3.0, 3.5, 9.0]);
    }
}
