//! Flops and least bytes of each kernel. The formulas are counted against executions in `tests/it/cost/work.rs`.

use super::{Attention, Density, Kernel};
use crate::units::Dtype;

/// What one call must do, whatever the device: the numerator of every roofline. A count that 64 bits do not hold is `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Operations; a multiply-add counts as two.
    pub flops: u64,
    /// Weights read. They come from device memory: a layer's weights are long evicted when the layer comes again.
    pub weight_bytes: u64,
    /// KV entries read and written, in device memory too.
    pub kv_bytes: u64,
    /// Activations read and written once; may stay in a cache between two kernels.
    pub activation_bytes: u64,
}

// How operations count: an addition, subtraction, product, quotient, exponential, square root or comparison is one flop,
// whatever a device makes of it. The constants below are counts of `crate::reference` under this convention, and exact.

/// Flops of one value of a norm: square, add, scale, weight (RMS); mean, centre and bias in addition (layer norm).
const NORM_FLOPS: [u64; 2] = [4, 7];
/// Flops of one row of a norm: mean of squares, epsilon, root, reciprocal (RMS); the mean in addition (layer norm).
const NORM_ROW_FLOPS: [u64; 2] = [4, 5];
/// Flops of rotating one value: two products and a sum, as pairs share them. Angles come from a table that all layers
/// share; neither its sines nor its bytes are counted.
const ROPE_FLOPS: u64 = 3;
/// Flops of SiLU: negate, exponential, add, divide; and of a gate's product (1). Other non-linearities count the same.
const SILU_FLOPS: u64 = 4;
/// Flops of one score besides its two products: largest, subtract, exponential, sum.
pub(super) const SOFTMAX_FLOPS: u64 = 4;
/// Flops of one value of a query besides its scores: scaled before, divided by the sum of the weights after.
pub(super) const QUERY_FLOPS: u64 = 2;

/// Values of a row that share a scale where rows are quantised by blocks: 128 with one 32-bit scale each (DeepSeek-V3, arXiv 2412.19437,
/// section 3.3), 16 with one of 8 bits (NVFP4, NVIDIA Blackwell architecture). Other formats have one scale for all, which is known before.
const FP8_ROW_BLOCK: u64 = 128;
const FP4_ROW_BLOCK: u64 = 16;

/// Flops of quantising: of a value, of a block, and the values of a block. With a known scale a value is scaled and held within the
/// largest (two comparisons). A block's largest takes a comparison a value, its scale a quotient, and in NVFP4 a product with
/// that of the tensor; each value is then divided by it.
fn quantise_flops(to: Dtype) -> (u64, u64, Option<u64>) {
    match to {
        Dtype::Fp8Block => (2, 1, Some(FP8_ROW_BLOCK)),
        Dtype::Fp4 => (2, 2, Some(FP4_ROW_BLOCK)),
        _ => (3, 0, None),
    }
}

/// Bytes of `rows x width` inputs of a product in this format, scales included. Blocks of 8-bit floats lie along rows here, 128 long; the
/// square ones of [`Dtype::Fp8Block`] are those of weights.
pub(super) fn input_bytes(inputs: Dtype, rows: u32, width: u32) -> u64 {
    let (rows, width) = (u64::from(rows), u64::from(width));
    match inputs {
        Dtype::Fp8Block => rows * (width + 4 * width.div_ceil(FP8_ROW_BLOCK)),
        Dtype::Fp4 => rows * Dtype::Fp4.bytes(width),
        _ => inputs.bytes(rows * width),
    }
}

/// The product of some counts, at most what 64 bits hold.
fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

/// So many thousandths of a count.
fn share(count: u64, thousandths: u16) -> u64 {
    let share = u128::from(count) * u128::from(thousandths) / 1000;
    // A count that is none stays none.
    if count == u64::MAX { count } else { share as u64 }
}

impl Density {
    /// Bytes of `count` weights of this format.
    pub fn bytes(self, weights: Dtype, count: u64) -> u64 {
        match self {
            Density::Dense => weights.bytes(count),
            // Two index bits for each weight kept: NVIDIA Ampere architecture whitepaper, "Fine-grained structured sparsity".
            Density::TwoFour => weights.bytes(count / 2).saturating_add(count.div_ceil(8)),
            Density::Effective(thousandths) => share(weights.bytes(count), thousandths),
        }
    }

    /// Flops that are left of `flops`.
    fn flops(self, flops: u64) -> u64 {
        match self {
            Density::Dense => flops,
            Density::TwoFour if flops == u64::MAX => flops,
            Density::TwoFour => flops / 2,
            Density::Effective(thousandths) => share(flops, thousandths),
        }
    }
}

impl Kernel {
    /// What this call must do.
    pub fn work(&self) -> Traffic {
        let values = |rows: u32, width: u32| u64::from(rows) * u64::from(width);
        match *self {
            Kernel::Embed { rows, width, table, activations } => Traffic {
                weight_bytes: table.bytes(values(rows, width)),
                activation_bytes: 4 * u64::from(rows) + activations.bytes(values(rows, width)),
                ..Traffic::default()
            },
            Kernel::Norm { rows, width, groups, layer_norm, activations } => Traffic {
                flops: NORM_FLOPS[usize::from(layer_norm)] * values(rows, width)
                    + NORM_ROW_FLOPS[usize::from(layer_norm)] * u64::from(rows),
                weight_bytes: activations.bytes(values(groups, width)) * (1 + u64::from(layer_norm)),
                activation_bytes: 2 * activations.bytes(values(rows, width)),
                ..Traffic::default()
            },
            Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density } => {
                matmul(rows, 1, inner, columns, weights, (inputs, activations), density)
            }
            Kernel::GroupedMatMul {
                rows,
                groups,
                inner,
                columns,
                weights,
                inputs,
                activations,
                density,
                ..
            } => matmul(rows, groups, inner, columns, weights, (inputs, activations), density),
            Kernel::Quantise { rows, width, activations, to } => {
                let (of_value, of_block, block) = quantise_flops(to);
                let blocks = block.map_or(0, |block| u64::from(rows) * u64::from(width).div_ceil(block));
                Traffic {
                    flops: of_value * values(rows, width) + of_block * blocks,
                    activation_bytes: activations.bytes(values(rows, width)) + input_bytes(to, rows, width),
                    ..Traffic::default()
                }
            }
            Kernel::Rope { rows, heads, head_dim, activations } => Traffic {
                flops: ROPE_FLOPS * values(rows, heads * head_dim),
                activation_bytes: 2 * activations.bytes(values(rows, heads * head_dim)),
                ..Traffic::default()
            },
            Kernel::KvWrite { rows, width, activations, kv } => Traffic {
                activation_bytes: activations.bytes(values(rows, width)),
                kv_bytes: kv.bytes(values(rows, width)),
                ..Traffic::default()
            },
            Kernel::Attention(shape) => shape.work(),
            Kernel::LatentAttention(shape) => shape.work(),
            Kernel::Activation { rows, width, gated, activations } => Traffic {
                flops: (SILU_FLOPS + u64::from(gated)) * values(rows, width),
                activation_bytes: (2 + u64::from(gated)) * activations.bytes(values(rows, width)),
                ..Traffic::default()
            },
            Kernel::ResidualAdd { rows, width, activations } => Traffic {
                flops: values(rows, width),
                activation_bytes: 3 * activations.bytes(values(rows, width)),
                ..Traffic::default()
            },
            Kernel::Router { rows, width, hidden, options, weights, activations } => {
                let matrix = match hidden {
                    0 => values(width, options),
                    _ => values(width, hidden) + values(hidden, options),
                };
                Traffic {
                    flops: product([2, rows.into(), matrix])
                        .saturating_add(product([SILU_FLOPS, values(rows, hidden)]))
                        .saturating_add(values(rows, options)),
                    weight_bytes: weights.bytes(matrix),
                    activation_bytes: activations.bytes(values(rows, width)) + 4 * u64::from(rows),
                    ..Traffic::default()
                }
            }
            Kernel::Gather { rows, width, activations } => Traffic {
                activation_bytes: 2 * activations.bytes(values(rows, width)) + 4 * u64::from(rows),
                ..Traffic::default()
            },
            Kernel::Scatter { rows, width, activations } => Traffic {
                activation_bytes: 2 * activations.bytes(values(rows, width)) + 4 * u64::from(rows),
                ..Traffic::default()
            },
            Kernel::ExpertLayer(shape) => shape.work(),
            // A share, a product and a sum for each value read; shares are 32-bit floats.
            Kernel::ExpertSum { rows, width, top, activations } => Traffic {
                flops: 2 * values(rows * top, width),
                activation_bytes: activations.bytes(values(rows * top, width))
                    + activations.bytes(values(rows, width))
                    + 4 * values(rows, top),
                ..Traffic::default()
            },
            Kernel::Sample { rows, vocabulary, activations } => Traffic {
                flops: values(rows, vocabulary),
                activation_bytes: activations.bytes(values(rows, vocabulary)) + 4 * u64::from(rows),
                ..Traffic::default()
            },
        }
    }
}

fn matmul(
    rows: u32,
    groups: u32,
    inner: u32,
    columns: u32,
    weights: Dtype,
    (inputs, activations): (Dtype, Dtype),
    density: Density,
) -> Traffic {
    let read = input_bytes(inputs, rows, inner);
    let (rows, inner, columns) = (u64::from(rows), u64::from(inner), u64::from(columns));
    Traffic {
        flops: density.flops(product([2, rows, inner, columns])),
        weight_bytes: product([groups.into(), density.bytes(weights, inner * columns)]),
        activation_bytes: if inputs == activations {
            activations.bytes(rows * (inner + columns))
        } else {
            read + activations.bytes(rows * columns)
        },
        kv_bytes: 0,
    }
}

impl Attention {
    fn work(&self) -> Traffic {
        let head_dim = u64::from(self.head_dim);
        let heads = u64::from(self.heads);
        Traffic {
            flops: product([self.pairs, heads, 4 * head_dim + SOFTMAX_FLOPS]).saturating_add(product([
                QUERY_FLOPS,
                self.rows.into(),
                heads,
                head_dim,
            ])),
            kv_bytes: self.kv.bytes(product([self.entries, self.kv_heads.into(), head_dim, 2])),
            activation_bytes: 2 * self.activations.bytes(product([self.rows.into(), heads, head_dim])),
            weight_bytes: 0,
        }
    }
}
