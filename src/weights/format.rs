//! Formats of the values of tensors.

use crate::units::Dtype;

/// A number format of a model file. Blocks are those of ggml (`ggml-common.h`: `block_q4_0` and the like).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorFormat {
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
    /// As `Q4_1`, with a fifth bit.
    Q5_1,
    /// As `Q4_0`, with a fifth bit; 16 is taken.
    Q5_0,
    /// Blocks of 256: codes of two bits, scale and minimum of each 16 in four bits.
    Q2K,
    /// Blocks of 256: codes of three bits, a scale of each 16 in six bits.
    Q3K,
    /// Blocks of 256: codes of four bits, scale and minimum of each 32 in six bits.
    Q4K,
    /// Blocks of 256: codes of five bits, scale and minimum of each 32 in six bits.
    Q5K,
    /// Blocks of 256: codes of six bits, a scale of each 16 in eight bits.
    Q6K,
    /// Blocks of 32: an f16 scale and codes of four bits for sixteen values of a table.
    Iq4Nl,
    /// Blocks of 256: codes as in `Iq4Nl`, a scale of each 32 in six bits.
    Iq4Xs,
    /// Blocks of 32: an eight-bit exponent and 4-bit floats (OCP microscaling).
    Mxfp4,
}

/// A format with what files say of it.
struct Facts {
    format: TensorFormat,
    name: &'static str,
    /// Bytes and values of a block.
    block: (usize, usize),
    /// Its number in GGUF files (ggml.h, `ggml_type`).
    number: u32,
}

const fn facts(format: TensorFormat, name: &'static str, block: (usize, usize), number: u32) -> Facts {
    Facts { format, name, block, number }
}

/// All formats, in the order of their declaration.
const FACTS: [Facts; 16] = [
    facts(TensorFormat::F32, "F32", (4, 1), 0),
    facts(TensorFormat::F16, "F16", (2, 1), 1),
    facts(TensorFormat::Bf16, "BF16", (2, 1), 30),
    facts(TensorFormat::Q8_0, "Q8_0", (34, 32), 8),
    facts(TensorFormat::Q4_1, "Q4_1", (20, 32), 3),
    facts(TensorFormat::Q4_0, "Q4_0", (18, 32), 2),
    facts(TensorFormat::Q5_1, "Q5_1", (24, 32), 7),
    facts(TensorFormat::Q5_0, "Q5_0", (22, 32), 6),
    facts(TensorFormat::Q2K, "Q2_K", (84, 256), 10),
    facts(TensorFormat::Q3K, "Q3_K", (110, 256), 11),
    facts(TensorFormat::Q4K, "Q4_K", (144, 256), 12),
    facts(TensorFormat::Q5K, "Q5_K", (176, 256), 13),
    facts(TensorFormat::Q6K, "Q6_K", (210, 256), 14),
    facts(TensorFormat::Iq4Nl, "IQ4_NL", (18, 32), 20),
    facts(TensorFormat::Iq4Xs, "IQ4_XS", (136, 256), 23),
    facts(TensorFormat::Mxfp4, "MXFP4", (17, 32), 39),
];

/// Formats of GGUF files that are not read, with their numbers (ggml.h, `ggml_type`; those that are gone as the older ones named
/// them).
const OTHERS: [(u32, &str); 26] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

impl TensorFormat {
    /// All formats.
    pub fn all() -> impl Iterator<Item = TensorFormat> {
        FACTS.iter().map(|facts| facts.format)
    }

    const fn facts(self) -> &'static Facts {
        const ALL: &[Facts] = &FACTS;
        &ALL[self as usize]
    }

    /// Its name in model files.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// (bytes, values) of a block.
    pub const fn block(self) -> (usize, usize) {
        self.facts().block
    }

    /// Whether values share a scale.
    pub fn is_quantised(self) -> bool {
        self.block().1 > 1
    }

    /// The format of a number in GGUF files; the name of one that is not read, as far as it is known.
    pub(super) fn numbered(number: u32) -> std::result::Result<TensorFormat, String> {
        if let Some(known) = FACTS.iter().find(|facts| facts.number == number) {
            return Ok(known.format);
        }
        let name = OTHERS.iter().find(|(other, _)| *other == number).map(|(_, name)| *name);
        Err(name.map_or_else(|| format!("type {number}"), |name| format!("type {number}, {name}")))
    }

    /// Bytes of `count` values, a whole number of blocks.
    pub fn bytes(self, count: u64) -> u64 {
        let (bytes, values) = self.block();
        count / values as u64 * bytes as u64
    }

    /// The simulator's format whose bytes are nearest.
    pub fn dtype(self) -> Dtype {
        match self {
            TensorFormat::F32 => Dtype::F32,
            TensorFormat::F16 => Dtype::F16,
            TensorFormat::Bf16 => Dtype::Bf16,
            // On the device it has a minimum.
            TensorFormat::Q4_0 => Dtype::Int4,
            _ => {
                // A whole number of blocks of every format.
                const COUNT: u64 = 256;
                let away = |dtype: &Dtype| dtype.bytes(COUNT).abs_diff(self.bytes(COUNT));
                Dtype::ALL.into_iter().min_by_key(away).unwrap_or(Dtype::F32)
            }
        }
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
