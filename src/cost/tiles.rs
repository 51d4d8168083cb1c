//! Tile and wave quantisation of matrix products.
//!
//! A product is cut into output tiles, tiles run in waves of one a unit, and a part-filled wave takes as long as a full
//! one (NVIDIA, "Matrix Multiplication Background User's Guide", sections on tile and wave quantisation). Libraries pick
//! among tile shapes and split the inner dimension when there are few tiles; so does this: the best of all candidates.
//! Each candidate's arithmetic and re-reading are monotone in rows, inner and columns; so is its time, and the least of
//! these times. Taking the candidate with the least arithmetic instead would not be monotone: see `tests/it/cost.rs`.

use super::Device;

/// Ways of splitting the inner dimension that GEMM libraries try.
const SPLITS: [u64; 4] = [1, 2, 4, 8];

/// One way of cutting a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tiling {
    /// Flops, with padding and part-filled waves.
    pub flops: u64,
    /// Activations that tiles read from the cache, again and again.
    pub reread: u64,
}

impl Device {
    /// The candidates for a product: one for each shape of tile, with the split of the inner dimension that suits it.
    /// One of no work where the product is empty.
    pub(super) fn tilings(
        &self,
        groups: u32,
        rows: u32,
        inner: u32,
        columns: u32,
    ) -> impl Iterator<Item = Tiling> {
        let (rows, inner, columns) = (u64::from(rows), u64::from(inner), u64::from(columns));
        let empty = rows == 0 || inner == 0 || columns == 0;
        let shapes = if empty { &[] } else { self.tiles.as_slice() };
        let tiling = move |&(tile_rows, tile_columns): &(u64, u64)| {
            let row_tiles = rows.div_ceil(tile_rows).max(u64::from(groups));
            let tiles = row_tiles * columns.div_ceil(tile_columns);
            let flops = |split: u64| {
                let waves = (tiles * split).div_ceil(self.units);
                waves * self.units * 2 * tile_rows * tile_columns * inner.div_ceil(split)
            };
            // One split beyond the first that gives every unit a piece is of no use.
            let useful = SPLITS.into_iter().filter(|split| *split == 1 || tiles * (split / 2) < self.units);
            let flops = useful.map(flops).min().expect("a product can stay unsplit");
            Tiling { flops, reread: tiles * tile_rows * inner }
        };
        shapes.iter().map(tiling).chain(empty.then(Tiling::default))
    }
}
