//! Tile and wave quantisation of matrix products.
//!
//! A product is cut into output tiles, tiles run in waves of one a unit, and a part-filled wave takes as long as a full
//! one (NVIDIA, "Matrix Multiplication Background User's Guide", sections on tile and wave quantisation). Libraries pick
//! among tile shapes and split the inner dimension when there are few tiles; so does this: the best of all candidates.
//! Each candidate is monotone in rows, inner and columns, hence so is their minimum. That tiles read their operands from
//! the cache again and again is left to the class's flop efficiency: as a term of its own it fitted measured rows worse.

use super::Device;
use crate::kernel::Density;
use crate::units::{Dtype, SimTime};

/// Ways of splitting the inner dimension that GEMM libraries try.
const SPLITS: [u64; 4] = [1, 2, 4, 8];

/// Rows and columns of the tiles of [`super::waves`], which GEMM libraries choose among: narrow ones for few rows (tensor cores take 16 at least: m16n8k16 of the
/// PTX ISA), and the common sizes of `compute.tiles`.
pub(super) const WAVE_TILES: [(f64, f64); 8] = [
    (16.0, 64.0),
    (32.0, 64.0),
    (64.0, 64.0),
    (64.0, 128.0),
    (128.0, 64.0),
    (128.0, 128.0),
    (128.0, 256.0),
    (256.0, 128.0),
];

/// Tiles whose count says how a product falls into waves: small, square, and the wide one of tensor cores. Forests were
/// fitted to them, so another list needs another fit.
pub(super) const FEATURE_TILES: [(f64, f64); 3] = [(64.0, 64.0), (128.0, 128.0), (128.0, 256.0)];

/// How fast tiles go, over all units.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileSpeed {
    /// Flops of the product a second.
    flops_per_s: f64,
    /// Flops of widening one weight, and how many of these a second.
    widening: (u64, f64),
}

/// Flops of widening one weight to what it is multiplied with, on vector units: converting it, taking a zero point off, scaling it. Scales
/// of whole channels and tensors are taken to the results. Counted, not measured: kernels need fewer instructions where they work on two
/// values at once, and more where bits have to be unpacked (Frantar et al., Marlin, arXiv 2408.11743, section 3.4).
pub(super) fn widening_flops(inputs: Dtype, weights: Dtype) -> u64 {
    use Dtype::*;
    if inputs.plain() == weights.plain() {
        return 0;
    }
    match weights {
        F32 | F16 | Bf16 => 0,
        Fp8 | Int8Channel => 1,
        Int8 | Fp8Block | Fp4 | Mxfp4 | Nf4 | Int4Channel => 2,
        Int4 | Int4G32 | Int4G64 | Int4G128 => 3,
    }
}

impl Device {
    /// How fast tiles of such a product go at a reached share of the peaks.
    pub(super) fn tile_speed(
        &self,
        inputs: Dtype,
        weights: Dtype,
        density: Density,
        efficiency: f64,
    ) -> TileSpeed {
        let flops_per_s = self.product_flops_per_s(inputs, weights, density, efficiency);
        let widening = (widening_flops(inputs, weights), self.vector_flops_per_s * efficiency);
        TileSpeed { flops_per_s, widening }
    }

    /// Time of the best tiling. Each tile widens its own weights, beside its products.
    pub(super) fn tiled(
        &self,
        groups: u32,
        rows: u32,
        inner: u32,
        columns: u32,
        speed: TileSpeed,
    ) -> SimTime {
        let (rows, inner, columns) = (u64::from(rows), u64::from(inner), u64::from(columns));
        if rows == 0 || inner == 0 || columns == 0 {
            return SimTime::ZERO;
        }
        let (of_weight, widened_per_s) = speed.widening;
        let (mut best, mut least) = (u64::MAX, SimTime::MAX);
        for &(tile_rows, tile_columns) in &self.tiles {
            let row_tiles = rows.div_ceil(tile_rows).max(u64::from(groups));
            let tiles = row_tiles * columns.div_ceil(tile_columns);
            for split in SPLITS {
                let waves = (tiles * split).div_ceil(self.units);
                let weights = tile_columns * inner.div_ceil(split);
                let all = |of_tile: u64| (waves * self.units).saturating_mul(of_tile);
                let flops = all(2 * tile_rows * weights);
                best = best.min(flops);
                if of_weight > 0 {
                    let widening = SimTime::at_rate(all(of_weight * weights), widened_per_s);
                    least = least.min(SimTime::at_rate(flops, speed.flops_per_s).max(widening));
                }
                if tiles * split >= self.units {
                    break;
                }
            }
        }
        if of_weight > 0 { least } else { SimTime::at_rate(best, speed.flops_per_s) }
    }
}
