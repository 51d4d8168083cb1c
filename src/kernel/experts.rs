//! The experts of a layer as serving engines run them: one fused call from the states of the tokens to the weighted sum of what their experts
//! say.

use super::{Density, Kernel, Traffic};
use crate::units::Dtype;
use serde::{Deserialize, Serialize};

/// Rows of the blocks into which grouped kernels cut the rows of each expert: the row tiles that vLLM's `fused_moe` and CUTLASS's grouped
/// products come in.
pub const EXPERT_BLOCKS: [u32; 4] = [16, 32, 64, 128];

/// What stands for 1 in an [`ExpertLoad`].
pub const LOAD_UNIT: u32 = 64;

/// How the rows of a device's experts are spread over them. All numbers are in 64ths ([`LOAD_UNIT`]), so that means over several draws keep
/// a fraction and equal calls stay equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExpertLoad {
    /// Rows of all experts: copies of tokens.
    pub copies: u64,
    /// Experts with any rows.
    pub taken: u64,
    /// Rows of the expert that has most.
    pub largest: u64,
    /// Blocks of [`EXPERT_BLOCKS`] rows: the rows of each expert over the rows of a block, rounded up.
    pub blocks: [u64; 4],
}

impl ExpertLoad {
    /// Of the rows of each expert.
    pub fn of(rows: &[u32]) -> ExpertLoad {
        ExpertLoad::mean(&[rows])
    }

    /// The mean over several lists of rows of each expert.
    pub fn mean(draws: &[&[u32]]) -> ExpertLoad {
        let count = draws.len().max(1) as u64;
        let unit = u64::from(LOAD_UNIT);
        let sum = |of: &dyn Fn(u32) -> u64| -> u64 {
            draws.iter().flat_map(|rows| rows.iter()).map(|&rows| of(rows)).sum::<u64>() * unit / count
        };
        let largest = draws.iter().map(|rows| u64::from(rows.iter().copied().max().unwrap_or(0)));
        ExpertLoad {
            copies: sum(&u64::from),
            taken: sum(&|rows| u64::from(rows > 0)),
            largest: largest.sum::<u64>() * unit / count,
            blocks: EXPERT_BLOCKS.map(|block| sum(&|rows| rows.div_ceil(block).into())),
        }
    }

    /// A number of it as it is.
    pub fn whole(number: u64) -> f64 {
        number as f64 / f64::from(LOAD_UNIT)
    }
}

/// The experts that one device has of a layer, in one call: a choice of experts by scores, products of the chosen ones with their activation
/// between, and their weighted sum. The product that gives the scores is none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExpertLayer {
    /// Tokens that the call is about, of all devices that share the experts.
    pub rows: u32,
    /// Width of a token.
    pub width: u32,
    /// Width of an expert, as far as the device has it.
    pub inner: u32,
    /// Experts of the layer, and those on this device.
    pub count: u32,
    /// Of them, those on this device.
    pub own: u32,
    /// Experts that a token takes.
    pub top: u32,
    /// Whether experts are gated: three matrices rather than two.
    pub gated: bool,
    /// Whether their non-linearity is the plain SiLU that the fastest kernels are written for, or no gate is there.
    pub plain: bool,
    /// Who has how many rows.
    pub load: ExpertLoad,
    /// Format of the matrices.
    pub weights: Dtype,
    /// Format in which products take their rows.
    pub inputs: Dtype,
    /// Format of what goes in and comes out.
    pub activations: Dtype,
    /// How dense the matrices are.
    pub density: Density,
}

impl ExpertLayer {
    /// Columns of the first product for each value of an expert.
    pub fn gates(&self) -> u32 {
        1 + u32::from(self.gated)
    }

    /// The grouped products, the non-linearity and the sum that the call is made of, with whole numbers of rows and experts.
    pub fn parts(&self) -> [Kernel; 4] {
        let up = |number: u64| number.div_ceil(LOAD_UNIT.into()).min(u32::MAX.into()) as u32;
        let (copies, groups, slices) = (up(self.load.copies), up(self.load.taken), up(self.load.blocks[0]));
        let ExpertLayer { width, inner, weights, inputs, activations, density, gated, .. } = *self;
        let product = |inner, columns| {
            let rows = copies;
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
        };
        [
            product(width, inner * self.gates()),
            Kernel::Activation { rows: copies, width: inner, gated, activations },
            product(inner, width),
            Kernel::ExpertSum { rows: self.rows, width, top: self.top, activations },
        ]
    }

    /// What its parts must do together; of the sum, the share of the rows that are on this device.
    pub(super) fn work(&self) -> Traffic {
        self.parts().iter().map(Kernel::work).fold(Traffic::default(), |sum, part| Traffic {
            flops: sum.flops.saturating_add(part.flops),
            weight_bytes: sum.weight_bytes.saturating_add(part.weight_bytes),
            kv_bytes: sum.kv_bytes.saturating_add(part.kv_bytes),
            activation_bytes: sum.activation_bytes.saturating_add(part.activation_bytes),
        })
    }
}
