//! Tile and wave quantisation of matrix products.
//!
//! A product is cut into output tiles, tiles run in waves of one a unit, and a part-filled wave takes as long as a full
//! one (NVIDIA, "Matrix Multiplication Background User's Guide", sections on tile and wave quantisation). Libraries pick
//! among tile shapes and split the inner dimension when there are few tiles; so does this: the best of all candidates.
//! Each candidate is monotone in rows, inner and columns, hence so is their minimum. That tiles read their operands from
//! the cache again and again is left to the class's flop efficiency: as a term of its own it fitted measured rows worse.

use super::Device;
use crate::units::SimTime;

/// Ways of splitting the inner dimension that GEMM libraries try.
const SPLITS: [u64; 4] = [1, 2, 4, 8];

impl Device {
    /// Time of the best tiling at `flops_per_s` over all units.
    pub(super) fn tiled(
        &self,
        groups: u32,
        rows: u32,
        inner: u32,
        columns: u32,
        flops_per_s: f64,
    ) -> SimTime {
        let (rows, inner, columns) = (u64::from(rows), u64::from(inner), u64::from(columns));
        if rows == 0 || inner == 0 || columns == 0 {
            return SimTime::ZERO;
        }
        let mut best = u64::MAX;
        for &(tile_rows, tile_columns) in &self.tiles {
            let row_tiles = rows.div_ceil(tile_rows).max(u64::from(groups));
            let tiles = row_tiles * columns.div_ceil(tile_columns);
            for split in SPLITS {
                let waves = (tiles * split).div_ceil(self.units);
                let of_tile = 2 * tile_rows * tile_columns * inner.div_ceil(split);
                best = best.min((waves * self.units).saturating_mul(of_tile));
                if tiles * split >= self.units {
                    break;
                }
            }
        }
        SimTime::at_rate(best, flops_per_s)
    }
}
