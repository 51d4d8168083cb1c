//! What a kernel's time rises with: numbers of its shape, each of which a profile that measured the kernel gives a constant.
//!
//! A product runs in tiles of some rows and columns; the device takes them in waves of one a unit. The other kernels work row by
//! row, attention tile by tile and head by head. What the terms count is what the shaders loop over.

use super::{Attention, Class, GROUP_SLICE, Kernel};
use crate::units::Dtype;

/// Terms of a kernel at most.
pub const MOST_TERMS: usize = 4;

/// Query rows that a subgroup of `attention_prefill.wgsl` takes together.
const PROMPT_ROWS: f64 = 8.0;

/// Terms of a kernel; those it has not are 0.
pub type Terms = [f64; MOST_TERMS];

const PRODUCT: &[&str] = &["call", "wave", "wave_inner"];
const ATTENTION: &[&str] = &["call", "tile_head", "score_head", "score_value"];
const ROWS: &[&str] = &["call", "row", "value"];

/// Kernels with their classes and the names of their terms. A grouped product is measured as a plain one.
pub const KINDS: [(&str, Class, &[&str]); 15] = [
    ("matmul", Class::MatMul, PRODUCT),
    ("router", Class::MatMul, ROWS),
    ("attention_prefill", Class::PrefillAttention, ATTENTION),
    ("attention_decode", Class::DecodeAttention, ATTENTION),
    ("rms_norm", Class::Elementwise, ROWS),
    ("layer_norm", Class::Elementwise, ROWS),
    ("rope", Class::Elementwise, ROWS),
    ("kv_write", Class::Elementwise, ROWS),
    ("activation", Class::Elementwise, ROWS),
    ("gated_activation", Class::Elementwise, ROWS),
    ("residual_add", Class::Elementwise, ROWS),
    ("sample", Class::Elementwise, ROWS),
    ("embed_rows", Class::Gather, ROWS),
    ("gather_rows", Class::Gather, ROWS),
    ("scatter_rows", Class::Gather, ROWS),
];

/// Under which of [`KINDS`] a kernel is measured, and the format of weights that it is measured with.
pub fn kind(kernel: &Kernel) -> (usize, Option<Dtype>) {
    let (name, weights) = match *kernel {
        Kernel::MatMul { weights, .. } | Kernel::GroupedMatMul { weights, .. } => ("matmul", Some(weights)),
        // No executor has it: as a product of its first matrices.
        Kernel::ExpertLayer(shape) => ("matmul", Some(shape.weights)),
        // As wide as both widths on average.
        Kernel::LatentAttention(shape) if shape.decode => ("attention_decode", None),
        Kernel::LatentAttention(_) => ("attention_prefill", None),
        // A value read is a value added, or quantised.
        Kernel::Quantise { .. } | Kernel::ExpertSum { .. } => ("residual_add", None),
        _ => (kernel.name(), None),
    };
    (KINDS.iter().position(|(known, ..)| *known == name).expect("every kernel has a kind"), weights)
}

/// The terms of a kernel on a device of so many units; products in tiles of so many rows and columns, attention in tiles of rows by
/// subgroups of so many lanes.
pub fn terms(kernel: &Kernel, tile: (u32, u32), units: u64) -> Terms {
    let rowwise = |rows: u32, width: u32| [1.0, rows.into(), f64::from(rows) * f64::from(width), 0.0];
    match *kernel {
        Kernel::MatMul { rows, inner, columns, .. } => {
            product(rows.div_ceil(tile.0), inner, columns, tile, units)
        }
        Kernel::GroupedMatMul { rows, groups, slices, inner, columns, .. } => {
            // Slices are of 16 rows: where tiles are larger, some groups fill fewer of them.
            let fewest = if tile.0 > GROUP_SLICE { groups } else { slices };
            product(rows.div_ceil(tile.0).max(fewest.min(rows)), inner, columns, tile, units)
        }
        Kernel::ExpertLayer(shape) => terms(&shape.parts()[0], tile, units),
        Kernel::Attention(shape) => attention(&shape, tile.1),
        Kernel::LatentAttention(shape) => attention(&shape.as_plain(), tile.1),
        Kernel::Router { rows, width, hidden, options, .. } => {
            let products = match hidden {
                0 => f64::from(width) * f64::from(options),
                hidden => f64::from(hidden) * f64::from(width + options),
            };
            [1.0, rows.into(), f64::from(rows) * products, 0.0]
        }
        Kernel::Rope { rows, heads, head_dim, .. } => rowwise(rows, heads * head_dim),
        Kernel::Sample { rows, vocabulary, .. } => rowwise(rows, vocabulary),
        Kernel::ExpertSum { rows, width, top, .. } => rowwise(rows * top, width),
        Kernel::Embed { rows, width, .. }
        | Kernel::Norm { rows, width, .. }
        | Kernel::KvWrite { rows, width, .. }
        | Kernel::Quantise { rows, width, .. }
        | Kernel::Activation { rows, width, .. }
        | Kernel::ResidualAdd { rows, width, .. }
        | Kernel::Gather { rows, width, .. }
        | Kernel::Scatter { rows, width, .. } => rowwise(rows, width),
    }
}

fn product(row_tiles: u32, inner: u32, columns: u32, tile: (u32, u32), units: u64) -> Terms {
    let tiles = u64::from(row_tiles) * u64::from(columns.div_ceil(tile.1));
    let waves = tiles.div_ceil(units) as f64;
    [1.0, waves, waves * f64::from(inner), 0.0]
}

/// A subgroup of `lanes` walks over the entries of a tile: one row of a generation, or up to eight of a prompt, up to the most that
/// one of them sees. It does so again for each part of a head that it cannot hold at once: two times four values a lane for
/// generations, four for prompts.
fn attention(shape: &Attention, lanes: u32) -> Terms {
    let (rows, pairs, lanes) = (f64::from(shape.rows.max(1)), shape.pairs as f64, f64::from(lanes.max(1)));
    let fours = f64::from(shape.head_dim) / 4.0;
    let (parts, tiles, scores) = if shape.decode {
        ((fours / (2.0 * lanes)).ceil(), rows, pairs + rows * (lanes - 1.0) / 2.0)
    } else {
        let (tiles, walked) = prompt_tiles(shape);
        ((fours / lanes).ceil(), tiles, PROMPT_ROWS * walked)
    };
    let heads = f64::from(shape.heads) * parts;
    // Eight lanes load eight fours of a query at a time.
    let values = 4.0 * 8.0 * (fours / 8.0).ceil();
    [1.0, tiles * heads, scores * heads, scores * heads * values]
}

/// Tiles of a call with rows of prompts, and entries that these walk over in sum. The number of chunks is rounded, as rows that
/// skipped the layer leave holes. Tile i of a chunk ends at its row 8 (i + 1), or at its last, and walks over what lies before the chunk
/// and all rows up to there.
fn prompt_tiles(shape: &Attention) -> (f64, f64) {
    let chunks = shape.chunks().round();
    let (chunk, before) = shape.chunk(chunks);
    let tiles = (chunk / PROMPT_ROWS).ceil();
    let full = tiles - 1.0;
    let walked = tiles * before + PROMPT_ROWS * full * tiles / 2.0 + chunk;
    (chunks * tiles, chunks * walked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Attention = Attention {
        rows: 3,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        decode: true,
        beside: 0,
        waits: 0,
        pairs: 9,
        entries: 9,
        activations: Dtype::F32,
        kv: Dtype::F32,
    };

    #[test]
    fn kinds_are_of_their_kernels_class() {
        let activations = Dtype::F32;
        let (rows, width) = (3, 8);
        let shape = SHAPE;
        for kernel in [
            Kernel::Norm { rows, width, groups: 1, layer_norm: true, activations },
            Kernel::Gather { rows, width, activations },
            Kernel::Attention(shape),
            Kernel::Attention(Attention { decode: false, ..shape }),
            Kernel::Sample { rows, vocabulary: width, activations },
        ] {
            let (name, class, names) = KINDS[kind(&kernel).0];
            assert_eq!((name, class), (kernel.name(), kernel.class()));
            assert!(terms(&kernel, (1, 1), 1)[names.len()..].iter().all(|&term| term == 0.0));
        }
    }

    /// Equal chunks behind earlier entries, counted tile by tile.
    #[test]
    fn tiles_of_chunks_are_as_counted() {
        for (chunks, rows, before) in
            [(1, 1, 0), (1, 8, 0), (3, 9, 0), (12, 16, 0), (2, 30, 60), (4, 3, 500), (1, 200, 7)]
        {
            let (mut pairs, mut tiles, mut walked) = (0u64, 0u64, 0u64);
            for _ in 0..chunks {
                pairs += (1..=rows).map(|row| before + row).sum::<u64>();
                for first in (0..rows).step_by(8) {
                    tiles += 1;
                    walked += before + rows.min(first + 8);
                }
            }
            let (all, entries) = ((chunks * rows) as u32, chunks * (before + rows));
            let found = prompt_tiles(&Attention { rows: all, decode: false, pairs, entries, ..SHAPE });
            assert_eq!(found, (tiles as f64, walked as f64), "{chunks} chunks of {rows} behind {before}");
        }
    }
}
