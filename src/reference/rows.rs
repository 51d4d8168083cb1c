//! Rows moved by index, written and added.

use super::{Number, expect};

/// Row `indices[i]` of the table becomes row `i`. `table`: `any x width`. Result: `indices x width`.
pub fn embed_rows<N: Number>(width: usize, table: &[N], indices: &[u32]) -> Vec<N> {
    let row = |&index: &u32| table[index as usize * width..][..width].iter().copied();
    indices.iter().flat_map(row).collect()
}

/// Rows of the residual stream collected into a dense block: [`embed_rows`] of activations.
pub fn gather_rows<N: Number>(width: usize, input: &[N], indices: &[u32]) -> Vec<N> {
    embed_rows(width, input, indices)
}

/// Puts row `i` of `block` (`indices x width`) into row `indices[i]` of `stream` (`any x width`). Indices are distinct.
pub fn scatter_rows<N: Number>(width: usize, block: &[N], indices: &[u32], stream: &mut [N]) {
    expect(block, "block", &[indices.len(), width]);
    for (row, &index) in block.chunks_exact(width).zip(indices) {
        stream[index as usize * width..][..width].copy_from_slice(row);
    }
}

/// Adds `branch` (`rows x width`) to `stream` (same shape) in the rows that `mask` takes; all rows where it is `None`.
pub fn residual_add<N: Number>(width: usize, stream: &mut [N], branch: &[N], mask: Option<&[bool]>) {
    expect(branch, "branch", &[stream.len()]);
    for (row, (stream, branch)) in stream.chunks_exact_mut(width).zip(branch.chunks_exact(width)).enumerate()
    {
        if mask.is_none_or(|mask| mask[row]) {
            for (sum, &value) in stream.iter_mut().zip(branch) {
                *sum = *sum + value;
            }
        }
    }
}

/// Writes row `i` of `values` (`slots x width`, K and V of a token side by side) into slot `slots[i]` of the cache
/// (`any x width`).
pub fn kv_write<N: Number>(width: usize, values: &[N], slots: &[u32], cache: &mut [N]) {
    expect(values, "values", &[slots.len(), width]);
    for (row, &slot) in values.chunks_exact(width).zip(slots) {
        cache[slot as usize * width..][..width].copy_from_slice(row);
    }
}
