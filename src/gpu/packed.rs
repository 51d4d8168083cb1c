//! Weights in the forms that kernels read: rows of whole words, blocks of quantised formats without odd bytes.

use crate::units::Dtype;
use crate::weights::{Tensor, TensorFormat};

/// In which form weights are kept on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the file has them; bfloat16 as f32, Q4_0 with a minimum, formats of blocks without a form of their own as f32.
    #[default]
    Kept,
    /// All as f32.
    F32,
    /// Matrices as f16, rounded to nearest.
    F16,
}

/// A form of weights on the device. The numbers are those of `FORMAT` in the shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Singles; a row is a multiple of four.
    F32 = 0,
    /// Two halves a word; a row is a multiple of eight.
    F16 = 1,
    /// Pairs of Q8_0 blocks: two f16 scales in a word, then 64 signed bytes: as many bytes as two blocks have.
    Q8 = 2,
    /// Q4_1 blocks as they are: scale and minimum in a word, then 16 bytes of low and high halves.
    Q4 = 3,
}

/// Values of a block of the quantised forms.
const BLOCK: u32 = 32;

impl Form {
    /// The form for tensors of these formats: their own where they agree, else the one that holds all.
    pub fn of(formats: impl Iterator<Item = TensorFormat>, precision: Precision) -> Form {
        match precision {
            Precision::F32 => return Form::F32,
            Precision::F16 => return Form::F16,
            Precision::Kept => {}
        }
        let mut forms = formats.map(Form::own);
        let first = forms.next().unwrap_or(Form::F32);
        if forms.all(|form| form == first) { first } else { Form::F32 }
    }

    /// The form in which a format keeps all its values: its own, or singles where none holds its scales exactly.
    pub fn own(format: TensorFormat) -> Form {
        match format {
            TensorFormat::F16 => Form::F16,
            TensorFormat::Q8_0 => Form::Q8,
            TensorFormat::Q4_1 | TensorFormat::Q4_0 => Form::Q4,
            _ => Form::F32,
        }
    }

    /// Words of a row of so many values.
    pub fn row_words(self, width: u32) -> u32 {
        match self {
            Form::F32 => width.next_multiple_of(4),
            Form::F16 => width.next_multiple_of(8) / 2,
            Form::Q8 => width.div_ceil(2 * BLOCK) * 17,
            Form::Q4 => width.div_ceil(BLOCK) * 5,
        }
    }

    /// The simulator's name for it.
    pub fn dtype(self) -> Dtype {
        match self {
            Form::F32 => Dtype::F32,
            Form::F16 => Dtype::F16,
            Form::Q8 => Dtype::Int8,
            Form::Q4 => Dtype::Int4,
        }
    }
}

/// A tensor in a form: `rows x row_words`, rows filled up with zeros.
pub fn pack(tensor: &Tensor, form: Form) -> Vec<u32> {
    let width = tensor.width as u32;
    let row_words = form.row_words(width) as usize;
    let mut words = Vec::with_capacity(tensor.rows * row_words);
    let row_bytes = tensor.bytes.len() / tensor.rows.max(1);
    for row in tensor.bytes.chunks_exact(row_bytes.max(1)) {
        match (form, tensor.format) {
            (Form::Q8, TensorFormat::Q8_0) => pack_q8(row, &mut words),
            (Form::Q4, TensorFormat::Q4_1) => words.extend(row.chunks_exact(4).map(word)),
            (Form::Q4, TensorFormat::Q4_0) => pack_q4_0(row, &mut words),
            (Form::F16, TensorFormat::F16) => {
                words.extend(row.chunks(4).map(|pair| word(&[pair, &[0; 4]].concat()[..4])));
            }
            _ => {
                let one = Tensor { rows: 1, width: tensor.width, format: tensor.format, bytes: row.to_vec() };
                pack_floats(&one.to_f32(), form, &mut words);
            }
        }
        words.resize(words.len().div_ceil(row_words) * row_words, 0);
    }
    words
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn pack_floats(values: &[f32], form: Form, words: &mut Vec<u32>) {
    match form {
        Form::F16 => words.extend(values.chunks(2).map(|pair| {
            let high = pair.get(1).copied().unwrap_or(0.0);
            u32::from(to_f16(pair[0])) | u32::from(to_f16(high)) << 16
        })),
        Form::F32 => words.extend(values.iter().map(|value| value.to_bits())),
        Form::Q8 | Form::Q4 => unreachable!("floats are not quantised here"),
    }
}

fn pack_q8(row: &[u8], words: &mut Vec<u32>) {
    for pair in row.chunks(68) {
        let (first, second) = pair.split_at(34);
        let scale =
            |block: &[u8]| if block.is_empty() { 0 } else { u32::from(block[0]) | u32::from(block[1]) << 8 };
        words.push(scale(first) | scale(second) << 16);
        words.extend(first[2..].chunks_exact(4).map(word));
        match second {
            [] => words.extend([0; 8]),
            _ => words.extend(second[2..].chunks_exact(4).map(word)),
        }
    }
}

/// Q4_0 takes 8 from each half: a minimum of -8 scales.
fn pack_q4_0(row: &[u8], words: &mut Vec<u32>) {
    for block in row.chunks_exact(18) {
        let scale = u16::from_le_bytes([block[0], block[1]]);
        let minimum = to_f16(-8.0 * crate::weights::half(scale));
        words.push(u32::from(scale) | u32::from(minimum) << 16);
        words.extend(block[2..].chunks_exact(4).map(word));
    }
}

/// The nearest half-precision number, ties to even (IEEE 754-2019, binary16).
pub fn to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = f32::from_bits(bits & 0x7fff_ffff);
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    // Above the largest half and half its spacing: infinite.
    if magnitude >= 65_520.0 {
        return sign | 0x7c00;
    }
    // Below the smallest normal half, in units of 2^-24.
    if magnitude < 2f32.powi(-14) {
        return sign | libm::rint(f64::from(magnitude) * 16_777_216.0) as u16;
    }
    let magnitude = magnitude.to_bits() - (112 << 23);
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    sign | (rounded >> 13) as u16
}
