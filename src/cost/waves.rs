//! The time of a matrix product by its waves of tiles: what a tile computes, what it waits for, what is read again.
//!
//! The constants are in cycles or without a unit, so that a device that nobody measured can borrow them: its own datasheet says
//! how long a cycle is, how many flops a unit does in one, how wide and how large its memories are. Formulas and sources are in
//! `docs/COST_MODEL.md`, "Waves".

use super::Device;
use super::tiles::{WAVE_TILES, widening_flops};
use crate::hw::Waves;
use crate::kernel::Kernel;
use crate::units::SimTime;

/// Ways of splitting the inner width.
const SPLITS: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];

/// Values of the inner width in a step of a tile: 128 bytes in 16 bits, the widest swizzle of shared memory (PTX ISA, "Matrix
/// multiply-accumulate").
const STEP: f64 = 64.0;

/// Copies of a product's weights that the tables of NVIDIA's aiconfigurator run in turn, against hits in the last cache
/// (`collector/trtllm/collect_gemm.py`, "to reduce impact of L2 cache hit"). So small weights do stay in a cache there.
const COPIES: f64 = 5.0;

/// The kept part of the cache is full over this span, in shares of it: replacement is not strict.
const FULL: (f64, f64) = (0.8, 1.2);

/// What a product's time is made of, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waved {
    /// All of it.
    pub time: f64,
    /// Tiles and their waits.
    pub tiles: f64,
    /// Device memory and cache.
    pub memory: f64,
    /// What the tiles would take at the reached share of the peak, padding and waves apart.
    pub flops: f64,
    /// Values of a tile.
    pub tile: f64,
    /// Ways the inner width is split.
    pub split: f64,
    /// Waves.
    pub waves: f64,
    /// Share of a step that is arithmetic; the rest waits for operands.
    pub busy: f64,
    /// Share of the weights that is still in the cache.
    pub kept: f64,
    /// What bringing the rows into the format of the product takes.
    pub quantised: f64,
}

impl Device {
    /// The time of a plain product, and what it is made of; `None` for other kernels and where there is nothing to do.
    pub(crate) fn waved(&self, kernel: &Kernel, constants: &Waves) -> Option<Waved> {
        let Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density } = *kernel else {
            return None;
        };
        if rows == 0 || inner == 0 || columns == 0 {
            return None;
        }
        let (rows, inner, columns) = (f64::from(rows), f64::from(inner), f64::from(columns));
        let work = kernel.work();
        let (read, moved) = (work.weight_bytes as f64, work.activation_bytes as f64);
        let (input, weight) = (inputs.bytes(1 << 10) as f64 / 1024.0, read / (inner * columns));

        let rate = self.product_flops_per_s(inputs, weights, density, 1.0);
        let unit_flops = rate * self.top_clock / self.units as f64 * constants.flops;
        let unit_vector = self.vector_flops_per_s * self.top_clock / self.units as f64 * constants.flops;
        let widening = widening_flops(inputs, weights) as f64 / unit_vector;
        let cycle = 1.0 / self.cycle_hz;
        let l2 = self.l2_peak * constants.l2;
        let dram = self.dram_bytes_per_s * constants.dram;

        // What stays in the last cache between two calls, and what of this call does not fit.
        let room = (self.l2_bytes as f64 / self.l2_parts * constants.kept).max(1.0);
        let full = (COPIES * read + moved) / room;
        let kept = ((FULL.1 - full) / (FULL.1 - FULL.0)).clamp(0.0, 1.0);
        let over = (1.0 - room / (read + moved)).max(0.0);
        let cold = read * (1.0 - kept) + (moved - room).max(0.0);
        let cached = (read + moved) / l2;

        let mut best = Waved { time: f64::INFINITY, kept, ..Waved::default() };
        for (tile_rows, tile_columns) in WAVE_TILES {
            let (down, across) = ((rows / tile_rows).ceil(), (columns / tile_columns).ceil());
            let tiles = down * across;
            let arithmetic = 2.0 * tile_rows * tile_columns * STEP / unit_flops;
            let operands = (tile_rows * input + tile_columns * weight) * STEP / self.multicast;
            // A wave, as square as the grid allows, reads its rows and columns once; the next one reads them again.
            let high = down.min(libm::sqrt(self.units as f64 * tile_columns / tile_rows));
            let wide = across.min(self.units as f64 / high);
            let again = read * (down / high - 1.0) + input * rows * inner * (across / wide - 1.0).max(0.0);
            let memory = cached.max((cold + constants.again * over * again) / dram);
            for split in SPLITS {
                if split > 1.0 && inner < STEP * split {
                    break;
                }
                let running = (tiles * split).min(self.units as f64);
                let feed = (operands / (constants.unit_bytes * self.cycle_hz)).max(operands * running / l2);
                let widen = tile_columns * STEP * widening;
                let step = arithmetic.max(feed).max(widen).max(constants.step_cycles * cycle);
                let waves = (tiles * split / self.units as f64).ceil();
                let mut time = waves * (constants.wave_cycles * cycle + (inner / split / STEP).ceil() * step);
                if split > 1.0 {
                    // Parts are written in 32 bits, read and added.
                    time += constants.split_cycles * cycle + 2.0 * 4.0 * rows * columns * split / l2;
                }
                let total = time.max(memory) + (1.0 - constants.overlap) * time.min(memory);
                if total < best.time {
                    let flops = 2.0 * rows * inner * columns / (unit_flops * self.units as f64);
                    let busy = arithmetic / step;
                    let tile = tile_rows * tile_columns;
                    best =
                        Waved { time: total, tiles: time, memory, flops, tile, split, waves, busy, ..best };
                }
                if tiles * split >= self.units as f64 {
                    break;
                }
            }
        }
        best.time += constants.start_cycles * cycle;
        if let Some(quantise) = constants.quantise.as_ref().filter(|_| inputs != activations) {
            let kernel = Kernel::Quantise { rows: rows as u32, width: inner as u32, activations, to: inputs };
            let bytes = kernel.work().activation_bytes as f64;
            let memory = bytes / (self.dram_bytes_per_s * quantise.dram);
            let blocks = rows * quantise.row_cycles * cycle;
            best.quantised = quantise.start_cycles * cycle + memory.max(blocks);
            best.time += best.quantised;
        }
        Some(best)
    }

    /// The time of a product that a fit begins with: by its waves where it has constants for them, else by the formulas.
    pub(crate) fn base(&self, kernel: &Kernel, waves: Option<&Waves>) -> SimTime {
        match waves.and_then(|waves| self.waved(kernel, waves)) {
            Some(waved) => SimTime::from_s(waved.time),
            None => self.physical(kernel).time,
        }
    }
}
