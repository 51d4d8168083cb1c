//! Tensors as files keep them.

use crate::units::Dtype;

/// A number format of a model file. Blocks are those of ggml (`ggml-common.h` of ggml: block_q4_0, block_q4_1, block_q8_0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of a single.
    Bf16,
    /// Blocks of 32: an f16 scale and 32 signed bytes.
    Q8_0,
    /// Blocks of 32: an f16 scale, an f16 minimum, 16 bytes whose low halves come first.
    Q4_1,
    /// Blocks of 32: an f16 scale and 16 bytes of halves from which 8 is taken.
    Q4_0,
}

impl Format {
    /// All formats with their names.
    pub const ALL: [(Format, &'static str); 6] = [
        (Format::F32, "F32"),
        (Format::F16, "F16"),
        (Format::Bf16, "BF16"),
        (Format::Q8_0, "Q8_0"),
        (Format::Q4_1, "Q4_1"),
        (Format::Q4_0, "Q4_0"),
    ];

    /// Its name in model files.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(format, _)| *format == self).expect("ALL is complete").1
    }

    /// (bytes, values) of a block.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (4, 1),
            Format::F16 | Format::Bf16 => (2, 1),
            Format::Q8_0 => (34, 32),
            Format::Q4_1 => (20, 32),
            Format::Q4_0 => (18, 32),
        }
    }

    /// Bytes of `count` values, a whole number of blocks.
    pub fn bytes(self, count: u64) -> u64 {
        let (bytes, values) = self.block();
        count / values as u64 * bytes as u64
    }

    /// The simulator's format whose bytes are nearest.
    pub fn dtype(self) -> Dtype {
        match self {
            Format::F32 => Dtype::F32,
            Format::F16 => Dtype::F16,
            Format::Bf16 => Dtype::Bf16,
            Format::Q8_0 => Dtype::Int8,
            Format::Q4_1 | Format::Q4_0 => Dtype::Int4,
        }
    }
}

/// A matrix in the bytes of its file, row after row; a vector has one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Rows: columns of a product's result.
    pub rows: usize,
    /// Values of a row: what a product sums over. A whole number of blocks.
    pub width: usize,
    /// What the bytes mean.
    pub format: Format,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// All values: `rows x width`.
    pub fn to_f32(&self) -> Vec<f32> {
        let (bytes, values) = self.format.block();
        let mut all = Vec::with_capacity(self.rows * self.width);
        for block in self.bytes.chunks_exact(bytes) {
            let half = |at: usize| f16(u16::from_le_bytes([block[at], block[at + 1]]));
            // Low halves of all bytes, then the high ones.
            let nibbles = |from: usize| {
                let bytes = &block[from..from + values / 2];
                bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
            };
            match self.format {
                Format::F32 => all.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Format::F16 => all.push(half(0)),
                Format::Bf16 => all.push(f32::from_le_bytes([0, 0, block[0], block[1]])),
                Format::Q8_0 => all.extend(block[2..].iter().map(|&byte| half(0) * f32::from(byte as i8))),
                Format::Q4_1 => all.extend(nibbles(4).map(|nibble| half(0) * f32::from(nibble) + half(2))),
                Format::Q4_0 => all.extend(nibbles(2).map(|nibble| half(0) * (f32::from(nibble) - 8.0))),
            }
        }
        all
    }
}

/// The value of a half-precision number (IEEE 754-2019, binary16).
pub(crate) fn f16(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    match exponent {
        // Subnormal: fraction * 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}
