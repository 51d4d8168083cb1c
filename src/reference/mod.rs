//! The obviously right result of each kernel: naive, one loop for each index, no tiling and no reordering.
//!
//! Shaders are compared with these functions at `f64`. With [`Counted`] in place of `f64` the same functions count their
//! operations and the elements that they touch, which is what [`Kernel::work`](crate::kernel::Kernel::work) claims.
//!
//! All arrays are row-major slices; each function names their shapes. A wrong length is a mistake of the caller and panics.

mod activation;
mod attention;
mod counted;
mod experts;
mod matmul;
mod norm;
mod number;
mod quantise;
mod rope;
mod rows;
mod select;

pub use activation::{Activation, activation, gated_activation};
pub use attention::{Heads, LatentHeads, Scores, attention, causal, latent_attention};
pub use counted::{Counted, Counts};
pub use experts::{choose_experts, sum_experts};
pub use matmul::{TwoFour, grouped_matmul, matmul, matmul_two_four};
pub use norm::{layer_norm, rms_norm};
pub use number::Number;
pub use quantise::{quantise, quantise_blocks};
pub use rope::{Angles, rope};
pub use rows::{embed_rows, gather_rows, kv_write, residual_add, scatter_rows};
pub use select::{RouterWeights, ScoreWeights, divergence, router, router_scores, sample};

/// Checks the length of an array of this shape.
#[track_caller]
fn expect<N>(array: &[N], what: &str, shape: &[usize]) {
    let expected: usize = shape.iter().product();
    assert_eq!(array.len(), expected, "{what} of shape {shape:?}");
}
