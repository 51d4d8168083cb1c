//! Matrices of one kind of all layers, as they lie on the device.

use super::device::Buffer;
use super::packed::Form;
use crate::kernel::Density;
use crate::units::Dtype;

/// Matrices of one kind of all layers, or a single matrix whose rows are split over buffers.
#[derive(Debug)]
pub(super) struct Stack {
    pub form: Form,
    /// Rows of a layer's matrix: columns of a product's result.
    pub rows: u32,
    /// Values of a row.
    pub width: u32,
    pub row_words: u32,
    pub shards: Vec<Shard>,
    /// `layers x rows`; one value where there is none.
    pub bias: Buffer,
    pub has_bias: bool,
}

/// A buffer of a stack.
#[derive(Debug)]
pub(super) struct Shard {
    pub buffer: Buffer,
    /// First layer, or first row of a single matrix.
    pub first: u32,
    /// Layers, or rows.
    pub count: u32,
}

impl Stack {
    /// The shard of a layer.
    pub fn shard(&self, layer: u32) -> usize {
        self.shards.iter().rposition(|shard| shard.first <= layer).expect("the first shard begins at 0")
    }

    pub fn dtype(&self) -> Dtype {
        self.form.dtype()
    }

    pub const DENSITY: Density = Density::Dense;
}
