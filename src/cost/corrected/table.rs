//! Corrected times of one family of shapes at the anchors, and what lies between.

use super::forest::Nodes;
use crate::cost::Device;
use crate::hw::Correction;
use crate::kernel::{Attention, Kernel};
use crate::units::SimTime;

/// Times in picoseconds over rows, and over the mean context for attention.
#[derive(Debug)]
pub(super) struct Table {
    /// Anchors along rows; logarithms of sequences for attention.
    rows: Vec<f64>,
    /// Logarithms of the anchors along context; one for products.
    context: Vec<f64>,
    /// By the formulas, rows first.
    physical: Vec<f64>,
    /// Corrected and monotone; logarithms for attention.
    corrected: Vec<f64>,
}

impl Table {
    /// Of the family of `kernel`.
    pub(super) fn new(device: &Device, family: &Kernel, correction: &Correction, nodes: &Nodes) -> Table {
        let attention = matches!(family, Kernel::Attention(_));
        let anchors: Vec<f64> = if attention { correction.context.clone() } else { vec![1.0] };
        let mut physical = Vec::new();
        let mut corrected = Vec::new();
        for &rows in &correction.rows {
            for &context in &anchors {
                let kernel = at(family, rows, context);
                let time = device.physical(&kernel).time;
                let features = device.features(&kernel, time).unwrap_or_default();
                physical.push(time.ps() as f64);
                corrected.push(libm::log((time.ps() as f64).max(1.0)) + nodes.predict(&features));
            }
        }
        let width = anchors.len();
        for column in 0..width {
            rising(&mut corrected, column, width, correction.rows.len());
        }
        for row in 0..correction.rows.len() {
            rising(&mut corrected, row * width, 1, width);
        }
        let mut rows: Vec<f64> = correction.rows.iter().map(|&rows| f64::from(rows)).collect();
        let mut context = anchors;
        if attention {
            rows.iter_mut().chain(&mut context).for_each(|value| *value = libm::log(*value));
        } else {
            corrected.iter_mut().for_each(|value| *value = libm::exp(*value));
        }
        Table { rows, context, physical, corrected }
    }

    /// The time of a kernel of the family.
    pub(super) fn time(&self, device: &Device, kernel: &Kernel) -> SimTime {
        let physical = device.physical(kernel).time.ps() as f64;
        let ps = match kernel {
            Kernel::Attention(shape) => {
                let rows = f64::from(shape.rows.max(1));
                let context = shape.pairs as f64 / rows;
                let sequences = libm::log(rows / length(shape.decode, context));
                self.attention(device, shape, sequences, libm::log(context), physical)
            }
            Kernel::MatMul { rows, .. } => self.product(f64::from(*rows), physical),
            _ => physical,
        };
        SimTime::from_ps(ps as u64)
    }

    /// Between two anchors as the formulas grow, beyond them in proportion to the formulas.
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
        let share = if high > low {
            (physical - low) / (high - low)
        } else {
            (rows - self.rows[at - 1]) / (self.rows[at] - self.rows[at - 1])
        };
        self.corrected[at - 1] + (self.corrected[at] - self.corrected[at - 1]) * share.clamp(0.0, 1.0)
    }

    /// Straight lines between logarithms; beyond the anchors in proportion to the formulas.
    fn attention(
        &self,
        device: &Device,
        shape: &Attention,
        sequences: f64,
        context: f64,
        physical: f64,
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
        let edge = at(&Kernel::Attention(*shape), rows, libm::exp(near_context));
        inside * physical / (device.physical(&edge).time.ps() as f64).max(1.0)
    }
}

/// Rows of each sequence whose rows see `context` entries on average: a whole prompt of n tokens sees (n + 1) / 2.
pub(crate) fn length(decode: bool, context: f64) -> f64 {
    if decode { 1.0 } else { (2.0 * context - 1.0).max(1.0) }
}

/// A kernel of the family: rows of a product, or sequences whose rows see this many entries on average.
fn at(family: &Kernel, rows: u32, context: f64) -> Kernel {
    match *family {
        Kernel::MatMul { inner, columns, weights, activations, density, .. } => {
            Kernel::MatMul { rows, inner, columns, weights, activations, density }
        }
        Kernel::Attention(shape) => {
            let rows = f64::from(rows) * length(shape.decode, context);
            let pairs = (rows * context + 0.5) as u64;
            let entries = if shape.decode { pairs } else { rows as u64 };
            let rows = (rows + 0.5) as u32;
            Kernel::Attention(Attention { rows, pairs, entries, ..shape })
        }
        other => other,
    }
}

/// Interval of rising `anchors` and the share of it that `value` lies behind its begin, from 0 to 1.
fn position(anchors: &[f64], value: f64) -> (usize, f64) {
    let at = anchors.partition_point(|&anchor| anchor <= value).clamp(1, anchors.len() - 1) - 1;
    (at, ((value - anchors[at]) / (anchors[at + 1] - anchors[at])).clamp(0.0, 1.0))
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
    use super::rising;

    #[test]
    fn pooled_values_rise_and_keep_their_sum() {
        let mut values = vec![1.0, 3.0, 2.0, 2.0, 5.0, 4.0];
        rising(&mut values, 0, 1, 6);
        assert_eq!(values, [1.0, 7.0 / 3.0, 7.0 / 3.0, 7.0 / 3.0, 4.5, 4.5]);
    }
}
