//! Quantised weights that become other values than ggml gives them.

use crate::cli::cli_execute::execute;
use crate::gguf_support::{Gguf, typed};
use proptest::prelude::*;
use radialsim::gpu::{Form, Precision, pack};
use radialsim::weights::{Checkpoint, LayerTensor, Name, Tensor, TensorFormat};

/// Bytes that a reference in another language makes as easily: the highest byte of Knuth's linear generator, from 7 on.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    (0..count).map(|_| next(&mut state)).collect()
}

/// Where a block of this format has half-precision numbers.
fn halves(format: TensorFormat) -> &'static [usize] {
    match format {
        TensorFormat::F16
        | TensorFormat::Q8_0
        | TensorFormat::Q4_0
        | TensorFormat::Q5_0
        | TensorFormat::Iq4Nl
        | TensorFormat::Iq4Xs => &[0],
        TensorFormat::Q4_1 | TensorFormat::Q5_1 | TensorFormat::Q4K | TensorFormat::Q5K => &[0, 2],
        TensorFormat::Q2K => &[80, 82],
        TensorFormat::Q3K => &[108],
        TensorFormat::Q6K => &[208],
        TensorFormat::F32 | TensorFormat::Bf16 | TensorFormat::Mxfp4 => &[],
    }
}

/// Blocks of random bytes whose scales are finite.
fn blocks(format: TensorFormat, count: usize) -> Tensor {
    let (size, width) = format.block();
    let mut bytes = bytes(count * size);
    for block in bytes.chunks_exact_mut(size) {
        halves(format).iter().for_each(|at| block[at + 1] &= 0xbf);
    }
    Tensor { rows: 1, width: count * width, format, bytes }
}

/// Format, the bits of the first three values and of the last, and the 64-bit FNV-1a sum of the bytes of all, of three blocks made
/// as above: `gguf.quants.dequantize` of the gguf package 0.19, in single precision.
const DEQUANTISED: [(TensorFormat, [u32; 4], u64); 13] = [
    (TensorFormat::Q8_0, [0x40d7_a000, 0xc19a_fb00, 0xc198_bc00, 0x380f_0000], 0x3495_2222_f7bc_4e93),
    (TensorFormat::Q4_0, [0x8000_0000, 0x3f57_a000, 0x3f8f_c000, 0xb989_8000], 0x5e66_c89e_e279_6d4e),
    (TensorFormat::Q4_1, [0xbf8f_bd0c, 0xbf57_9a18, 0xbffb_8d0c, 0x4012_2756], 0xa907_16bd_7e8a_2500),
    (TensorFormat::Q5_0, [0x4021_b800, 0x407b_9000, 0x3fb3_b000, 0x3f03_d400], 0x4643_f05e_bc36_a2cf),
    (TensorFormat::Q5_1, [0xc045_a686, 0xbfb3_ad0c, 0xc0f2_9343, 0x3dd9_5a80], 0x2e1e_b40d_a385_2b66),
    (TensorFormat::Q2K, [0x3ed4_4c00, 0x3ed4_4c00, 0x3ed4_4c00, 0x3e87_8c00], 0xecf7_987c_63a6_014b),
    (TensorFormat::Q3K, [0x3e01_8280, 0x3e01_8280, 0x3d2c_ae00, 0xbb72_2c00], 0x45c2_c73e_0efa_8e17),
    (TensorFormat::Q4K, [0xc08f_eb8f, 0xc10f_d5c8, 0xc08f_eb8f, 0xc340_45d0], 0xe7dc_bed5_6069_b14b),
    (TensorFormat::Q5K, [0xbbae_3c00, 0xc0d7_cb8f, 0xc133_c5c8, 0x4133_a6fc], 0x5baa_f4c3_42bc_457d),
    (TensorFormat::Q6K, [0x4002_0128, 0xbee7_1e80, 0xbf67_1e80, 0x4418_7ee8], 0xee86_623e_a133_b95d),
    (TensorFormat::Iq4Nl, [0xbe8f_c000, 0x411d_3a00, 0x415c_1e00, 0xbb5f_7000], 0xbaa2_849f_a765_7c4f),
    (TensorFormat::Iq4Xs, [0x4395_5d80, 0xc389_92c0, 0x4395_5d80, 0x4290_fb34], 0xd64b_f78d_c9ec_71d8),
    (TensorFormat::Mxfp4, [0x3f80_0000, 0x0000_0000, 0x3fc0_0000, 0x5e80_0000], 0x510d_40f5_3d90_ab12),
];

#[test]
fn blocks_have_the_values_that_the_gguf_package_gives_them() {
    for (format, few, sum) in DEQUANTISED {
        let values = blocks(format, 3).to_f32();
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits.len(), 3 * format.block().1, "{}", format.name());
        assert_eq!([bits[0], bits[1], bits[2], bits[bits.len() - 1]], few, "{}", format.name());
        let fnv = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let found = values.iter().flat_map(|value| value.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, fnv);
        assert_eq!(found, sum, "{}", format.name());
    }
}

/// Every format that is read is held against a reference: those of the table, and three whose values are their bits.
#[test]
fn no_format_is_without_a_reference() {
    let plain = [TensorFormat::F32, TensorFormat::F16, TensorFormat::Bf16];
    let missing = TensorFormat::all()
        .find(|format| !plain.contains(format) && DEQUANTISED.iter().all(|row| row.0 != *format));
    assert_eq!(missing, None);
    let bytes = [0x00, 0x3c, 0xff, 0x7b, 0x01, 0x00, 0x00, 0xc0];
    let of = |format, width| Tensor { rows: 1, width, format, bytes: bytes.to_vec() }.to_f32();
    assert_eq!(of(TensorFormat::F16, 4), [1.0, 65_504.0, 5.960_464_5e-8, -2.0]);
    assert_eq!(of(TensorFormat::Bf16, 4).map_bits(), [0x3c00_0000, 0x7bff_0000, 0x0001_0000, 0xc000_0000]);
    assert_eq!(of(TensorFormat::F32, 2).map_bits(), [0x7bff_3c00, 0xc000_0001]);
}

trait Bits {
    fn map_bits(self) -> Vec<u32>;
}

impl Bits for Vec<f32> {
    fn map_bits(self) -> Vec<u32> {
        self.into_iter().map(f32::to_bits).collect()
    }
}

/// On the device, formats without a form of their own stand as singles with the very same values.
#[test]
fn formats_without_a_form_of_their_own_are_expanded_exactly() {
    for (format, ..) in DEQUANTISED {
        let tensor = blocks(format, 2);
        let form = Form::of([format].into_iter(), Precision::Kept);
        let own = matches!(format, TensorFormat::Q8_0 | TensorFormat::Q4_0 | TensorFormat::Q4_1);
        assert_eq!(form == Form::F32, !own, "{}", format.name());
        if !own {
            assert_eq!(pack(&tensor, form), tensor.to_f32().map_bits(), "{}", format.name());
        }
    }
}

/// A small model whose last matrix has this format and these bytes.
fn with_matrix(format: TensorFormat, bytes: &[u8], width: u64) -> Gguf {
    let mut gguf = Gguf::small();
    let floats = gguf.data.len() / 4;
    gguf.data =
        self::bytes(floats).iter().flat_map(|&byte| (f32::from(byte) / 128.0 - 1.0).to_le_bytes()).collect();
    let offset = gguf.data.len() as u64;
    gguf.data.extend(bytes);
    gguf.data.resize(gguf.data.len().next_multiple_of(32), 0);
    // As wide a feed-forward branch as a row of the matrix.
    let mut gguf = gguf.set("llama.feed_forward_length", typed(4, &(width as u32).to_le_bytes()));
    for name in ["blk.0.ffn_gate", "blk.0.ffn_up"] {
        let at = gguf.data.len() as u64;
        let values = self::bytes(8 * width as usize);
        gguf.data.extend(values.iter().flat_map(|&byte| (f32::from(byte) / 512.0 - 0.25).to_le_bytes()));
        gguf = gguf.tensor(name, |tensor| (tensor.1, tensor.3) = (vec![8, width], at));
    }
    let number = number(format);
    gguf.tensor("blk.0.ffn_down", |tensor| (tensor.1, tensor.2, tensor.3) = (vec![width, 8], number, offset))
}

fn written(gguf: &Gguf) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().expect("a file");
    std::fs::write(file.path(), gguf.bytes()).expect("a writable file");
    file
}

/// A file of such weights is a model like any other: shapes, bytes and values.
#[test]
fn a_gguf_file_may_hold_any_of_them() {
    for (format, ..) in DEQUANTISED {
        let tensor = blocks(format, 1);
        let bytes = tensor.bytes.repeat(8);
        let file = written(&with_matrix(format, &bytes, tensor.width as u64));
        let checkpoint =
            Checkpoint::open(file.path()).unwrap_or_else(|error| panic!("{}: {error}", format.name()));
        assert_eq!(checkpoint.formats(), [TensorFormat::F32, format], "{}", format.name());
        let read = checkpoint.tensor(Name::Layer(0, LayerTensor::Down)).expect("a matrix");
        assert_eq!((read.format, read.rows, &read.bytes), (format, 8, &bytes), "{}", format.name());
    }
}

/// The device says the same of quantised weights as of their values, to the last bit, and a note says that they take more memory.
#[test]
fn a_run_with_blocks_is_the_run_with_their_values() {
    if crate::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("p.jsonl"), "{\"prompt_ids\":[0,2,1,1]}\n").expect("a writable folder");
    let run = |gguf: &Gguf| {
        let file = written(gguf);
        let args = ["--prompts", &at("p.jsonl"), "--max-tokens", "4", "--json", &at("out.jsonl")];
        let output = execute(file.path(), &args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let line = std::fs::read_to_string(at("out.jsonl")).expect("a line");
        let mut line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let remarks = line.as_object_mut().and_then(|line| line.remove("remarks"));
        (line, remarks.unwrap_or_default(), said)
    };
    for format in [TensorFormat::Q4K, TensorFormat::Q6K, TensorFormat::Q5_0, TensorFormat::Iq4Xs] {
        let mut tensor = blocks(format, 8);
        tensor.rows = 8;
        tensor.width /= 8;
        let width = tensor.width as u64;
        let values: Vec<u8> = tensor.to_f32().iter().flat_map(|value| value.to_le_bytes()).collect();
        let (quantised, remarks, said) = run(&with_matrix(format, &tensor.bytes, width));
        let (plain, none, _) = run(&with_matrix(TensorFormat::F32, &values, width));
        assert_eq!(quantised, plain, "{}", format.name());
        let remark = format!("{} weights stand as f32 on the device, with the same values", format.name());
        assert_eq!((&remarks[0], none), (&remark.as_str().into(), serde_json::Value::Null));
        assert!(said.contains(&remark), "{said}");
        assert!(quantised["nll_prompt"].as_f64().is_some_and(f64::is_finite), "{quantised}");
    }
}

/// Numbers of formats in GGUF files, as the gguf package has them (`GGMLQuantizationType`).
fn number(format: TensorFormat) -> u32 {
    match format {
        TensorFormat::F32 => 0,
        TensorFormat::F16 => 1,
        TensorFormat::Q4_0 => 2,
        TensorFormat::Q4_1 => 3,
        TensorFormat::Q5_0 => 6,
        TensorFormat::Q5_1 => 7,
        TensorFormat::Q8_0 => 8,
        TensorFormat::Q2K => 10,
        TensorFormat::Q3K => 11,
        TensorFormat::Q4K => 12,
        TensorFormat::Q5K => 13,
        TensorFormat::Q6K => 14,
        TensorFormat::Iq4Nl => 20,
        TensorFormat::Iq4Xs => 23,
        TensorFormat::Bf16 => 30,
        TensorFormat::Mxfp4 => 39,
    }
}

proptest! {
    /// The older blocks as ggml defines them, value by value.
    #[test]
    fn blocks_are_read_as_they_are_defined(bytes in prop::collection::vec(any::<u8>(), 34), which in 0..5_usize) {
        let format = [TensorFormat::Q8_0, TensorFormat::Q4_1, TensorFormat::Q4_0, TensorFormat::Q5_1, TensorFormat::Q5_0][which];
        let mut bytes = bytes[..format.block().0].to_vec();
        // Scales that are numbers.
        halves(format).iter().for_each(|at| bytes[at + 1] &= 0xbf);
        let tensor = Tensor { rows: 1, width: 32, format, bytes: bytes.clone() };
        let half = |at: usize| {
            let bits = u32::from(bytes[at]) | u32::from(bytes[at + 1]) << 8;
            let (exponent, fraction) = (bits >> 10 & 31, f64::from(bits & 1023) / 1024.0);
            let magnitude = if exponent == 0 { fraction * 2f64.powi(-14) } else { (1.0 + fraction) * 2f64.powi(exponent as i32 - 15) };
            if bits >> 15 == 1 { -magnitude } else { magnitude }
        };
        for (at, &value) in tensor.to_f32().iter().enumerate() {
            let nibble = |from: usize| f64::from(bytes[from + at % 16] >> (4 * (at / 16)) & 15);
            let fifth = |from: usize| f64::from(bytes[from + at / 8] >> (at % 8) & 1) * 16.0;
            let wanted = match format {
                TensorFormat::Q8_0 => half(0) * f64::from(bytes[2 + at] as i8),
                TensorFormat::Q4_1 => half(0) * nibble(4) + half(2),
                TensorFormat::Q5_1 => half(0) * (nibble(8) + fifth(4)) + half(2),
                TensorFormat::Q5_0 => half(0) * (nibble(6) + fifth(2) - 16.0),
                _ => half(0) * (nibble(2) - 8.0),
            };
            let least = if matches!(format, TensorFormat::Q4_1 | TensorFormat::Q5_1) { half(2).abs() } else { 0.0 };
            let largest = 128.0 * half(0).abs() + least;
            prop_assert!((f64::from(value) - wanted).abs() <= 1e-7 * largest, "{value} {wanted}");
        }
    }
}
