//! Random kernel calls, their larger neighbours, better devices, and peaks: what the laws of prices are tried on.

use radialsim::hw::{Efficiency, Hardware, Kernels};
use radialsim::kernel::{Attention, Class, Density, Kernel, LatentAttention};
use radialsim::rng::Stream;
use radialsim::units::Dtype;

/// Kinds that [`draw`] knows: one for each variant of `Kernel` that formulas price.
pub const KINDS: usize = 15;

/// A size from 1 to `most`, as often small as large.
fn size(random: &mut Stream, most: u32) -> u32 {
    let bits = random.below(u64::from(most.ilog2()) + 1) as u32;
    1 + random.below(u64::from(most.min(2 << bits))) as u32
}

fn dtype(random: &mut Stream) -> Dtype {
    Dtype::ALL[random.below(7) as usize]
}

/// A random call of this kind, from tiny to that of a large model.
pub fn draw(kind: usize, random: &mut Stream) -> Kernel {
    let rows = size(random, 8192);
    let (width, inner, columns) = (size(random, 32768), size(random, 32768), size(random, 32768));
    let (activations, weights, kv) = (dtype(random), dtype(random), dtype(random));
    let density = [Density::Dense, Density::TwoFour, Density::Effective(1 + random.below(1000) as u16)]
        [random.below(3) as usize];
    let quantised = [Dtype::Fp8, Dtype::Fp8Block, Dtype::Fp4][random.below(3) as usize];
    let (inputs, weights) = if random.chance(0.3) { (quantised, quantised) } else { (activations, weights) };
    let (heads, head_dim) = (size(random, 64), 2 * size(random, 64));
    let (flag, groups) = (random.chance(0.5), size(random, rows.min(80)));
    match kind {
        0 => Kernel::Embed { rows, width, table: weights, activations },
        1 => Kernel::Norm { rows, width, groups, layer_norm: flag, activations },
        2 => Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density },
        3 => {
            let slices = groups + rows / radialsim::kernel::GROUP_SLICE;
            Kernel::GroupedMatMul {
                rows,
                groups,
                slices,
                inner,
                columns,
                weights,
                inputs,
                activations,
                density,
            }
        }
        4 => Kernel::Rope { rows, heads, head_dim, activations },
        5 => Kernel::KvWrite { rows, width, activations, kv },
        6 => {
            let kv_heads = size(random, 16) as u16;
            let entries = u64::from(size(random, 1 << 20));
            Kernel::Attention(Attention {
                rows,
                heads: kv_heads * size(random, 8) as u16,
                kv_heads,
                head_dim: head_dim as u16,
                decode: flag,
                beside: 0,
                waits: 0,
                pairs: entries + u64::from(rows) * random.below(1 << 14),
                entries,
                activations,
                kv,
            })
        }
        7 => Kernel::Activation { rows, width, gated: flag, activations },
        8 => Kernel::ResidualAdd { rows, width, activations },
        9 => {
            let (hidden, options) = (random.below(2048) as u32, size(random, 80));
            Kernel::Router { rows, width, hidden, options, weights, activations }
        }
        10 => Kernel::Gather { rows, width, activations },
        11 => Kernel::Scatter { rows, width, activations },
        12 => Kernel::ExpertSum { rows, width, top: size(random, 16), activations },
        13 => Kernel::LatentAttention(LatentAttention {
            rows,
            heads: 1 + random.below(128) as u16,
            kv_heads: 1,
            key_dim: 576,
            value_dim: 512,
            values_in_keys: flag,
            decode: flag,
            pairs: u64::from(rows) * (1 + random.below(4096)),
            entries: 1 + random.below(1 << 16),
            activations,
            kv: activations,
        }),
        14 => Kernel::Quantise { rows, width, activations, to: quantised },
        _ => Kernel::Sample { rows, vocabulary: 4 * width, activations },
    }
}

/// Attention of equal chunks of prompts, so many rows each behind so many entries: whole, with one head of width 2.
pub fn chunk(chunks: u32, rows: u32, before: u32) -> Attention {
    let (n, r, c) = (u64::from(chunks), u64::from(rows), u64::from(before));
    Attention {
        rows: chunks * rows,
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        decode: false,
        beside: 0,
        waits: 0,
        pairs: n * (r * c + r * (r + 1) / 2),
        entries: n * (c + r),
        activations: Dtype::F32,
        kv: Dtype::F32,
    }
}

/// The same call with each of its sizes larger in turn: by one, and by a random factor.
pub fn larger(kernel: &Kernel, random: &mut Stream) -> Vec<Kernel> {
    let mut calls = Vec::new();
    for field in 0.. {
        for by_one in [true, false] {
            let factor = 1.0 + 3.0 * random.uniform();
            let grow = |size: u64| if by_one { size + 1 } else { (size as f64 * factor) as u64 + 1 };
            let mut larger = *kernel;
            if !grown(&mut larger, field, grow) {
                return calls;
            }
            calls.push(larger);
        }
    }
    unreachable!("a kernel has few fields")
}

/// Grows the size of this number; false where there is none. Every field of every variant is named, so that a new one
/// cannot be forgotten.
fn grown(kernel: &mut Kernel, field: usize, grow: impl Fn(u64) -> u64) -> bool {
    let mut sizes: Vec<&mut u32> = match kernel {
        Kernel::Embed { rows, width, table: _, activations: _ } => vec![rows, width],
        Kernel::Norm { rows, width, groups, layer_norm: _, activations: _ } => vec![rows, width, groups],
        Kernel::MatMul { rows, inner, columns, weights: _, inputs: _, activations: _, density: _ } => {
            vec![rows, inner, columns]
        }
        Kernel::GroupedMatMul {
            rows,
            groups,
            slices,
            inner,
            columns,
            weights: _,
            inputs: _,
            activations: _,
            density: _,
        } => {
            vec![rows, groups, slices, inner, columns]
        }
        Kernel::Rope { rows, heads, head_dim, activations: _ } => vec![rows, heads, head_dim],
        Kernel::KvWrite { rows, width, activations: _, kv: _ } => vec![rows, width],
        Kernel::Attention(shape) => {
            let Attention {
                rows,
                heads,
                kv_heads,
                head_dim,
                decode: _,
                beside: _,
                waits: _,
                pairs,
                entries,
                activations: _,
                kv: _,
            } = shape;
            match field {
                0 => *rows = grow((*rows).into()) as u32,
                1 => *pairs = grow(*pairs),
                2 => *entries = grow(*entries),
                3 => *heads = grow((*heads).into()) as u16,
                4 => *kv_heads = grow((*kv_heads).into()) as u16,
                5 => *head_dim = grow((*head_dim).into()) as u16,
                _ => return false,
            }
            return true;
        }
        Kernel::LatentAttention(shape) => {
            let LatentAttention {
                rows,
                heads,
                kv_heads,
                key_dim,
                value_dim,
                values_in_keys: _,
                decode: _,
                pairs,
                entries,
                activations: _,
                kv: _,
            } = shape;
            match field {
                0 => *rows = grow((*rows).into()) as u32,
                1 => *pairs = grow(*pairs),
                2 => *entries = grow(*entries),
                3 => *heads = grow((*heads).into()) as u16,
                4 => *kv_heads = grow((*kv_heads).into()) as u16,
                5 => *key_dim = grow((*key_dim).into()) as u16,
                6 => *value_dim = grow((*value_dim).into()) as u16,
                _ => return false,
            }
            return true;
        }
        Kernel::Activation { rows, width, gated: _, activations: _ } => vec![rows, width],
        Kernel::Quantise { rows, width, activations: _, to: _ } => vec![rows, width],
        Kernel::ResidualAdd { rows, width, activations: _ } => vec![rows, width],
        Kernel::Router { rows, width, hidden, options, weights: _, activations: _ } => {
            // From no hidden layer to a narrow one is another network, and less work.
            if *hidden == 0 { vec![rows, width, options] } else { vec![rows, width, options, hidden] }
        }
        Kernel::Gather { rows, width, activations: _ } | Kernel::Scatter { rows, width, activations: _ } => {
            vec![rows, width]
        }
        Kernel::Sample { rows, vocabulary, activations: _ } => vec![rows, vocabulary],
        Kernel::ExpertSum { rows, width, top, activations: _ } => vec![rows, width, top],
        // Learned times of whole layers have laws of their own (`expert_layers.rs`).
        Kernel::ExpertLayer(_) => return false,
    };
    let Some(size) = sizes.get_mut(field) else { return false };
    **size = grow((**size).into()) as u32;
    true
}

fn classes(kernels: &mut Kernels) -> [&mut Efficiency; 5] {
    let Kernels { matmul, prefill_attention, decode_attention, elementwise, gather } = kernels;
    [matmul, prefill_attention, decode_attention, elementwise, gather]
}

/// The device with one of its capacities better in turn.
pub fn better(hardware: &Hardware, factor: f64) -> Vec<(&'static str, Hardware)> {
    let change = |name, change: &dyn Fn(&mut Hardware)| {
        let mut better = hardware.clone();
        change(&mut better);
        (name, better)
    };
    vec![
        change("dram bandwidth", &|hw| hw.memory.dram_gb_per_s.value *= factor),
        change("cache bandwidth", &|hw| hw.memory.l2_gb_per_s.value *= factor),
        change("cache size", &|hw| hw.memory.l2_mb.value *= factor),
        change("vector flops", &|hw| hw.compute.vector_f32_tflops.value *= factor),
        change("matrix flops", &|hw| {
            let compute = &mut hw.compute;
            compute.matrix_f16_tflops.value *= factor;
            compute.matrix_f32_tflops.value *= factor;
            let narrow = [
                &mut compute.matrix_fp8_tflops,
                &mut compute.matrix_int8_tops,
                &mut compute.matrix_fp4_tflops,
            ];
            for number in narrow.into_iter().flatten() {
                number.value *= factor;
            }
        }),
        change("fixed times", &|hw| {
            for class in classes(&mut hw.kernels) {
                class.fixed_us.value /= factor;
            }
        }),
        change("efficiencies", &|hw| {
            for class in classes(&mut hw.kernels) {
                class.flops.value *= factor;
                class.bytes.value *= factor;
            }
        }),
        change("overlap", &|hw| {
            for class in classes(&mut hw.kernels) {
                class.overlap.value = 1.0 - (1.0 - class.overlap.value) / factor;
            }
        }),
    ]
}

/// Peak flops and bytes a second for a kernel, written apart from `cost`: the narrowest arithmetic that the operands
/// allow, raised by fitted efficiencies above 1 and by the sparse speed-up.
pub fn peaks(hardware: &Hardware, kernel: &Kernel) -> (f64, f64) {
    let compute = &hardware.compute;
    let narrow = |number: &Option<radialsim::hw::Sourced>| number.as_ref().map(|number| number.value);
    let f16 = compute.matrix_f16_tflops.value;
    let of = |dtype: Dtype| match dtype.plain() {
        Dtype::F32 => compute.matrix_f32_tflops.value,
        Dtype::F16 | Dtype::Bf16 => f16,
        Dtype::Fp8 => narrow(&compute.matrix_fp8_tflops).unwrap_or(f16),
        Dtype::Int8 | Dtype::Int4 => narrow(&compute.matrix_int8_tops).unwrap_or(f16),
        _ => narrow(&compute.matrix_fp4_tflops).unwrap_or(f16),
    };
    let vector = compute.vector_f32_tflops.value;
    let tflops = match *kernel {
        Kernel::MatMul { weights, inputs, density, .. }
        | Kernel::GroupedMatMul { weights, inputs, density, .. } => {
            let speed = if density == Density::TwoFour { compute.two_four_speedup.value } else { 1.0 };
            // Half of the flops are left of a 2:4 product and run at up to the dense rate; the speed-up is the profile's.
            of(weights).max(of(inputs)) * speed
        }
        Kernel::Router { weights, activations, .. } => of(weights).max(of(activations)),
        Kernel::Attention(shape) => of(shape.activations).max(of(shape.kv)),
        Kernel::LatentAttention(shape) => of(shape.activations).max(of(shape.kv)),
        _ => vector,
    };
    let mut kernels = hardware.kernels.clone();
    let class = Class::ALL.iter().position(|(class, _)| *class == kernel.class()).expect("a known class");
    let class = &classes(&mut kernels)[class];
    let bytes = hardware.memory.dram_gb_per_s.value * 1e9 * class.bytes.value.max(1.0);
    (tflops * 1e12 * class.flops.value.max(1.0), bytes)
}
