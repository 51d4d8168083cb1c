//! Blocks of quantised values as ggml keeps them (`ggml-common.h`, `dequantize_row_*` of `ggml-quants.c`), and their values.
//! The order of operations is ggml's, so that values are equal to the last bit.

use super::format::{TensorFormat, f16};
/// Values of the sixteen codes of IQ4_NL and IQ4_XS (`kvalues_iq4nl`).
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of the sixteen codes of a 4-bit float (`kvalues_mxfp4`).
const FP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Adds the values of a block.
pub fn values(format: TensorFormat, block: &[u8], out: &mut Vec<f32>) {
    match format {
        TensorFormat::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
        TensorFormat::F16 => out.push(half(block, 0)),
        TensorFormat::Bf16 => out.push(f32::from_le_bytes([0, 0, block[0], block[1]])),
        TensorFormat::Q8_0 => {
            out.extend(block[2..].iter().map(|&byte| half(block, 0) * f32::from(byte as i8)))
        }
        TensorFormat::Q4_0 => {
            out.extend(nibbles(&block[2..]).map(|low| half(block, 0) * (f32::from(low) - 8.0)))
        }
        TensorFormat::Q4_1 => {
            out.extend(nibbles(&block[4..]).map(|low| half(block, 0) * f32::from(low) + half(block, 2)));
        }
        TensorFormat::Q5_0 => {
            out.extend(fives(&block[2..]).map(|code| half(block, 0) * (f32::from(code) - 16.0)))
        }
        TensorFormat::Q5_1 => {
            out.extend(fives(&block[4..]).map(|code| half(block, 0) * f32::from(code) + half(block, 2)));
        }
        TensorFormat::Q2K => q2_k(block, out),
        TensorFormat::Q3K => q3_k(block, out),
        TensorFormat::Q4K => {
            let codes = block[16..].chunks_exact(32).flat_map(nibbles);
            scaled_minimum(block, codes, out);
        }
        TensorFormat::Q5K => {
            let (high, low) = (&block[16..48], &block[48..]);
            let codes = low.chunks_exact(32).flat_map(nibbles).enumerate();
            let codes = codes.map(|(at, low)| low | (high[at % 32] >> (at / 32) & 1) << 4);
            scaled_minimum(block, codes, out);
        }
        TensorFormat::Q6K => q6_k(block, out),
        TensorFormat::Iq4Nl => {
            out.extend(nibbles(&block[2..]).map(|code| half(block, 0) * f32::from(IQ4[usize::from(code)])));
        }
        TensorFormat::Iq4Xs => iq4_xs(block, out),
        TensorFormat::Mxfp4 => {
            // The exponent is that of twice the scale, as the table is doubled (`ggml_e8m0_to_fp32_half`).
            let scale = libm::ldexpf(1.0, i32::from(block[0]) - 128);
            let value = |code: u8| scale * f32::from(FP4_DOUBLED[usize::from(code)]);
            out.extend(nibbles(&block[1..]).map(value));
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Low halves of all bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

/// Codes of five bits: four bytes of highest bits, then bytes of halves.
fn fives(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    nibbles(&bytes[4..]).enumerate().map(move |(at, low)| low | ((high >> at & 1) as u8) << 4)
}

/// Q4_K and Q5_K: scale and minimum of each 32 values in six bits, packed in twelve bytes (`get_scale_min_k4`).
fn scaled_minimum(block: &[u8], codes: impl Iterator<Item = u8>, out: &mut Vec<f32>) {
    let (d, minimum, packed) = (half(block, 0), half(block, 2), &block[4..16]);
    let six = |at: usize| {
        if at < 4 {
            (packed[at] & 63, packed[at + 4] & 63)
        } else {
            let both = packed[at + 4];
            (both & 15 | packed[at - 4] >> 6 << 4, both >> 4 | packed[at] >> 6 << 4)
        }
    };
    out.extend(codes.enumerate().map(|(at, code)| {
        let (scale, least) = six(at / 32);
        d * f32::from(scale) * f32::from(code) - minimum * f32::from(least)
    }));
}

/// Scale and minimum of each 16 values in halves of a byte, then codes of two bits: 32 bytes hold 128 values.
fn q2_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, minimum) = (half(block, 80), half(block, 82));
    out.extend((0..256).map(|at| {
        let both = block[at / 16];
        d * f32::from(both & 15) * f32::from(twos(&block[16..80], at)) - minimum * f32::from(both >> 4)
    }));
}

/// The code of two bits of a value.
fn twos(codes: &[u8], at: usize) -> u8 {
    codes[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3
}

/// Highest bits, codes of two bits, a scale of six bits for each 16 values, packed in twelve bytes. Where the highest bit is not
/// set, 4 is taken off.
fn q3_k(block: &[u8], out: &mut Vec<f32>) {
    let (high, codes, packed, d) = (&block[..32], &block[32..96], &block[96..108], half(block, 108));
    let scale = |at: usize| {
        let low = packed[at % 8] >> (at / 8 * 4) & 15;
        f32::from(low | (packed[8 + at % 4] >> (at / 4 * 2) & 3) << 4) - 32.0
    };
    out.extend((0..256).map(|at| {
        let taken = if high[at % 32] >> (at / 32) & 1 == 1 { 0.0 } else { 4.0 };
        d * scale(at / 16) * (f32::from(twos(codes, at)) - taken)
    }));
}

/// Low halves, highest two bits, a signed scale for each 16 values; 32 is taken off.
fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    out.extend((0..256).map(|at| {
        let (part, within) = (at / 128, at % 128);
        let low = low[part * 64 + within % 64] >> (within / 64 * 4) & 15;
        d * f32::from(scales[at / 16] as i8) * (f32::from(low | twos(high, at) << 4) - 32.0)
    }));
}

/// A scale of six bits for each 32 values: two bits of each in a word, four in halves of bytes.
fn iq4_xs(block: &[u8], out: &mut Vec<f32>) {
    let (d, high) = (half(block, 0), u16::from_le_bytes([block[2], block[3]]));
    let codes = block[8..].chunks_exact(16).flat_map(nibbles).enumerate();
    out.extend(codes.map(|(at, code)| {
        let group = at / 32;
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let scale = f32::from(low | ((high >> (group * 2) & 3) as u8) << 4) - 32.0;
        d * scale * f32::from(IQ4[usize::from(code)])
    }));
}
