//! What the twin tests share: a device, random inputs, poisoned outputs, a comparison that NaN fails.

use bytemuck::Pod;
use radialsim::gpu::{
    Binding, Buffer, Form, Gpu, KernelDispatch, Overrides, Precision, Recording, Shader, pack,
};
use radialsim::rng::Stream;
use radialsim::weights::{Tensor, TensorFormat};

/// What outputs hold before a kernel runs: a NaN that no calculation makes.
pub const POISON: u32 = 0x7fc0_dead;

pub struct Twin {
    pub gpu: Gpu,
    pub random: Stream,
}

impl Twin {
    pub fn new(name: &str) -> Option<Twin> {
        Some(Twin { gpu: crate::gpu()?, random: Stream::new(7, name) })
    }

    pub fn subgroup(&self) -> u32 {
        self.gpu.subgroup().expect("subgroups")
    }

    /// Values in (-1, 1).
    pub fn values(&mut self, count: u32) -> Vec<f32> {
        (0..count).map(|_| (2.0 * self.random.uniform() - 1.0) as f32).collect()
    }

    pub fn upto(&mut self, most: u32) -> u32 {
        self.random.below(u64::from(most)) as u32
    }

    /// A random tensor of this format, and its values.
    pub fn tensor(&mut self, format: TensorFormat, rows: u32, width: u32) -> (Tensor, Vec<f64>) {
        let (bytes, values) = format.block();
        let blocks = (rows * width) as usize / values;
        let mut all = Vec::with_capacity(blocks * bytes);
        for _ in 0..blocks {
            let half = |x: f32| radialsim::gpu::to_f16(x).to_le_bytes();
            let x = (2.0 * self.random.uniform() - 1.0) as f32;
            match format {
                TensorFormat::F32 => all.extend(x.to_le_bytes()),
                TensorFormat::F16 => all.extend(half(x)),
                TensorFormat::Bf16 => all.extend(&x.to_le_bytes()[2..]),
                _ => {
                    all.extend(half(x / 64.0));
                    if format == TensorFormat::Q4_1 {
                        all.extend(half((self.random.uniform() as f32) / 8.0));
                    }
                    let quants = bytes - 2 * (1 + usize::from(format == TensorFormat::Q4_1));
                    all.extend((0..quants).map(|_| self.random.below(256) as u8));
                }
            }
        }
        let tensor = Tensor { rows: rows as usize, width: width as usize, format, bytes: all };
        let values = tensor.to_f32().iter().map(|&x| f64::from(x)).collect();
        (tensor, values)
    }

    /// The words of a tensor in its own form.
    pub fn packed(tensor: &Tensor) -> (Form, Vec<u32>) {
        let form = Form::of([tensor.format].into_iter(), Precision::Kept);
        (form, pack(tensor, form))
    }

    pub fn upload<T: Pod>(&self, values: &[T]) -> Buffer {
        self.gpu.upload("input", values).expect("memory")
    }

    /// A poisoned buffer of so many words.
    pub fn poisoned(&self, words: u32) -> Buffer {
        self.upload(&vec![POISON; words as usize])
    }

    pub fn run<P: Pod>(
        &self,
        (shader, constants): (Shader, Overrides),
        buffers: &[&Buffer],
        parameters: &P,
        workgroups: [u32; 3],
    ) {
        let pipeline = self.gpu.pipeline(shader, constants).expect("a valid shader");
        let mut recording = Recording::default();
        recording.push(KernelDispatch {
            pipeline,
            bindings: buffers.iter().map(|&buffer| Binding::from(buffer)).collect(),
            parameters: bytemuck::bytes_of(parameters).to_vec(),
            workgroups,
        });
        self.gpu.submit(&recording).expect("a run");
    }

    pub fn words(&self, buffer: &Buffer, count: u32) -> Vec<u32> {
        self.gpu.read(buffer, count as usize).expect("a result")
    }

    pub fn floats(&self, buffer: &Buffer, count: u32) -> Vec<f32> {
        self.gpu.read(buffer, count as usize).expect("a result")
    }
}

/// Whether all results are near what they should be: `tolerance` times the largest of these. NaN is not near anything.
pub fn near(found: &[f32], wanted: &[f64], tolerance: f64) -> bool {
    let scale = wanted.iter().fold(1e-3, |scale: f64, x| scale.max(x.abs()));
    found.len() == wanted.len()
        && found
            .iter()
            .zip(wanted)
            .all(|(&found, wanted)| (f64::from(found) - wanted).abs() <= tolerance * scale)
}

/// The comparison passes, and a single wrong value would fail it: the largest moved by some times the tolerance, or NaN.
#[track_caller]
pub fn assert_near(found: &[f32], wanted: &[f64], tolerance: f64, what: &str) {
    let worst = found.iter().zip(wanted).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
    assert!(near(found, wanted, tolerance), "{what}: off by up to {worst}");
    let Some(last) = found.len().checked_sub(1) else { return };
    let scale = wanted.iter().fold(1e-3, |scale: f64, x| scale.max(x.abs()));
    for wrong in [found[last] + (4.0 * tolerance * scale) as f32, f32::NAN, f32::from_bits(POISON)] {
        let mut corrupted = found.to_vec();
        corrupted[last] = wrong;
        assert!(!near(&corrupted, wanted, tolerance), "{what}: {wrong} would pass");
    }
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// Rows without the padding behind them, which must be untouched.
pub fn inside(found: &[f32], width: u32, stride: u32) -> Vec<f32> {
    let rows = found.chunks_exact(stride as usize);
    assert!(
        rows.clone().all(|row| row[width as usize..].iter().all(|x| x.to_bits() == POISON)),
        "padding is touched"
    );
    rows.flat_map(|row| row[..width as usize].to_vec()).collect()
}

/// Rows of `width` out of rows of `stride`.
pub fn dense(values: &[f32], width: u32, stride: u32) -> Vec<f64> {
    values.chunks_exact(stride as usize).flat_map(|row| wide(&row[..width as usize])).collect()
}
