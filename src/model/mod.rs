//! The network: a pool of layers, an embedding, a head, an optional router, and the number formats they are kept in.
//!
//! Shapes come from a Hugging Face `config.json` ([`Model::from_config`]) or by name ([`Model::builtin`]).

//! [`Model::resolve`] takes either. [`Model::check`] states the bounds that keep every product within 64 bits.

mod builtin;
mod check;
mod config;
mod describe;
mod json;
mod size;

pub use builtin::builtin_names;

use crate::units::Dtype;
use serde::{Deserialize, Serialize};

/// Shapes of a transformer whose layers are all alike, as all families read here are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name shown in reports.
    pub name: String,
    /// Where the shapes come from: a paper, a `config.json`.
    pub source: String,
    /// Layers in the pool.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; fewer than `heads` with grouped queries.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Width of the feed-forward part.
    pub ffn: u64,
    /// Whether the feed-forward part is gated: three matrices rather than two.
    pub gated: bool,
    /// Its non-linearity.
    pub activation: Activation,
    /// Normalisation of each branch, before it or (OPT-350M) after it.
    pub norm: Norm,
    /// Whether one more normalisation stands between the last layer and the head; all but OPT-350M.
    pub final_norm: bool,
    /// Whether queries and keys are rotated by position.
    pub rope: bool,
    /// Biases on query, key and value projections.
    pub qkv_bias: bool,
    /// Biases on all other projections of a layer.
    pub bias: bool,
    /// RMS norms of width `head_dim` on queries and keys (Qwen3).
    pub qk_norm: bool,
    /// What comes in.
    pub input: Input,
    /// Rows of the head: vocabulary, or classes of a classifier. 0 for a bare encoder.
    pub outputs: u64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Learned position embeddings (rows, unused ones included); 0 for none.
    pub positions: u64,
    /// Format of the layers' weights.
    pub weights: Dtype,
    /// Format of embedding and head.
    pub embedding_weights: Dtype,
    /// Format of activations.
    pub activations: Dtype,
    /// Format of KV entries.
    pub kv: Dtype,
}

/// Non-linearity of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// Gaussian error linear unit.
    Gelu,
    /// max(x, 0).
    Relu,
}

/// Kind of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Root mean square: one weight a channel.
    Rms,
    /// Mean and variance: weight and bias a channel.
    Layer,
}

/// What enters the first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Rows of an embedding table.
    Tokens {
        /// Rows of the table.
        vocabulary: u64,
        /// Width of a row; where it differs from `hidden`, a projection follows (OPT-350M).
        width: u64,
    },
    /// Image patches through one matrix product with bias; a class token stands before them.
    Patches {
        /// Values of a patch: channels x side x side.
        values: u64,
        /// Patches of an image, class token included.
        count: u64,
    },
}
