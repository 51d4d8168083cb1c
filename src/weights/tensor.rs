//! Tensors as files keep them.

use super::blocks;
use super::format::TensorFormat;

/// A matrix in the bytes of its file, row after row; a vector has one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Rows: columns of a product's result.
    pub rows: usize,
    /// Values of a row: what a product sums over. A whole number of blocks.
    pub width: usize,
    /// What the bytes mean.
    pub format: TensorFormat,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// All values: `rows x width`.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.rows * self.width);
        for block in self.bytes.chunks_exact(self.format.block().0) {
            blocks::values(self.format, block, &mut all);
        }
        all
    }
}
