//! What a correction sees of a kernel: numbers without a unit, made of its shape and of the device's datasheet, so that what one
//! device taught can be asked of another.

use super::Device;
use super::tiles::FEATURE_TILES;
use crate::hw::Waves;
use crate::kernel::{Attention, Kernel};
use crate::units::SimTime;

/// Query rows that a block of a prompt's attention takes, and entries that a block of a decode step's takes, as in
/// FlashAttention-2 and FlashDecoding (arXiv 2307.08691).
const ATTENTION_BLOCK: f64 = 128.0;

/// Logarithm, the same on every machine.
fn ln(value: f64) -> f32 {
    libm::log(value.max(1e-30)) as f32
}

/// `time` in microseconds, as a logarithm.
fn ln_us(seconds: f64) -> f32 {
    ln(seconds * 1e6)
}

impl Device {
    /// The time that a correction begins with, and the features of a matrix product or an attention call; none for others.
    pub(crate) fn features(&self, kernel: &Kernel, waves: Option<&Waves>) -> (SimTime, Vec<f32>) {
        let time = self.base(kernel, waves);
        let features = match kernel {
            Kernel::MatMul { .. } => {
                let mut all = self.product(kernel, time.s());
                if let Some(waved) = waves.and_then(|waves| self.waved(kernel, waves)) {
                    all.extend([ln(waved.tile), ln(waved.split), ln(waved.waves), ln_us(waved.tiles)]);
                    all.extend([ln_us(waved.memory), ln(waved.tiles / waved.memory)]);
                    all.extend([ln(waved.tiles / waved.flops), ln(waved.busy), waved.kept as f32]);
                    all.extend(waved.quantised.gt(&0.0).then(|| ln_us(waved.quantised)));
                }
                all
            }
            Kernel::Attention(shape) => self.attention(shape, kernel, time.s()),
            _ => Vec::new(),
        };
        (time, features)
    }

    /// What the time that the host takes for a product depends on: engines choose a path by the shape.
    pub(crate) fn host_features(kernel: &Kernel) -> Vec<f32> {
        let Kernel::MatMul { rows, inner, columns, .. } = *kernel else { return Vec::new() };
        let whole = |size: u32, of: u32| f32::from(u8::from(size.is_multiple_of(of)));
        let mut all = [rows, inner, columns].map(|size| ln(size.into())).to_vec();
        all.extend([whole(inner, 128), whole(columns, 128), whole(rows, 4)]);
        all.push(ln(f64::from(inner) * f64::from(columns)));
        all
    }

    /// How `blocks` of equal size fall into waves over the units: how many, how full the last one is, what padding costs.
    fn waves(&self, blocks: f64) -> [f32; 3] {
        let waves = blocks / self.units as f64;
        [ln(waves), (waves - waves.floor()) as f32, (waves.ceil() / waves.max(1e-30)) as f32]
    }

    fn product(&self, kernel: &Kernel, time_s: f64) -> Vec<f32> {
        let Kernel::MatMul { rows, inner, columns, weights, inputs, .. } = *kernel else {
            return Vec::new();
        };
        let work = kernel.work();
        let (rows, inner, columns) = (f64::from(rows), f64::from(inner), f64::from(columns));
        let compute = 2.0 * rows * inner * columns / self.matrix_flops_per_s(inputs, weights);
        let (weights, activations) = (work.weight_bytes as f64, work.activation_bytes as f64);
        let (read, moved) = (weights / self.dram_bytes_per_s, activations / self.dram_bytes_per_s);
        let mut all = vec![ln(rows), ln(inner), ln(columns), ln_us(compute), ln_us(read), ln_us(moved)];
        all.extend([ln(compute / (read + moved).max(1e-30)), ln_us(time_s)]);
        all.push(ln((weights + activations) / (self.l2_bytes.max(1)) as f64));
        for (tile_rows, tile_columns) in FEATURE_TILES {
            all.extend(self.waves((rows / tile_rows).ceil() * (columns / tile_columns).ceil()));
        }
        all.extend([64.0, 128.0].map(|tile| ((rows / tile).ceil() * tile / rows.max(1.0)) as f32));
        all.extend([128.0, 256.0].map(|tile| ((columns / tile).ceil() * tile / columns.max(1.0)) as f32));
        // Tells formats of weights apart; trees cannot split on what is the same in all rows.
        all.push(ln(weights / (inner * columns).max(1.0)));
        all
    }

    fn attention(&self, shape: &Attention, kernel: &Kernel, time_s: f64) -> Vec<f32> {
        let work = kernel.work();
        let rows = f64::from(shape.rows.max(1));
        let context = shape.pairs as f64 / rows;
        let (heads, kv_heads) = (f64::from(shape.heads), f64::from(shape.kv_heads));
        let compute = work.flops as f64 / self.matrix_flops_per_s(shape.activations, shape.kv);
        let read = work.kv_bytes as f64 / self.dram_bytes_per_s;
        let moved = work.activation_bytes as f64 / self.dram_bytes_per_s;
        let mut all = vec![ln(rows), ln(context), ln(heads), ln(kv_heads), f32::from(shape.head_dim)];
        all.extend([ln(heads / kv_heads.max(1.0)), ln_us(compute), ln_us(read), ln_us(moved), ln_us(time_s)]);
        all.push(ln(work.kv_bytes as f64 / (self.l2_bytes.max(1)) as f64));
        let blocks = if shape.decode {
            [rows * kv_heads, rows * kv_heads * (context / ATTENTION_BLOCK).ceil()]
        } else {
            // A prompt of n tokens has (n + 1) / 2 visible entries a row.
            let length = (2.0 * context - 1.0).max(1.0);
            let blocks = rows / length * (length / ATTENTION_BLOCK).ceil();
            [rows / length * heads, blocks * heads]
        };
        for blocks in blocks {
            all.extend(self.waves(blocks));
        }
        // Query, key and value of the new tokens pass once through memory before they meet.
        let head_dim = f64::from(shape.head_dim);
        let fresh = 4.0 * rows * (heads + 2.0 * kv_heads) * head_dim / self.dram_bytes_per_s;
        all.extend([ln_us(fresh), ln(kv_heads * head_dim), ln(rows / super::length(shape.decode, context))]);
        // Kernels over quantised caches are made for few widths; others fall back to ones that are many times as slow.
        if shape.kv != shape.activations {
            all.push(f32::from(u8::from(!shape.head_dim.is_power_of_two())));
        }
        all
    }
}
