//! Parameters and bytes, part by part. A layer is its attention, its feed-forward part and its norms.
//!
//! Matrices are kept in `weights`, tables and head in `embedding_weights`, biases and norms in `activations`.
//! The model must have passed [`Model::check`]; within its bounds nothing here overflows.

use super::{Input, Model, Norm};
use crate::units::Dtype;

impl Model {
    /// The same model in other formats. Embedding and head follow the activations, as quantised models keep them.
    pub fn with_formats(mut self, weights: Dtype, activations: Dtype, kv: Dtype) -> Model {
        self.weights = weights;
        self.embedding_weights = activations;
        self.activations = activations;
        self.kv = kv;
        self
    }

    /// Width of the queries of all heads.
    pub fn q_dim(&self) -> u64 {
        self.heads * self.head_dim
    }

    /// Width of the keys of all heads; that of the values is the same.
    pub fn kv_dim(&self) -> u64 {
        self.kv_heads * self.head_dim
    }

    /// Values in the query, key, value and output matrices of a layer.
    fn attention_matrix(&self) -> u64 {
        self.hidden * (2 * self.q_dim() + 2 * self.kv_dim())
    }

    /// Values in the biases of those matrices.
    fn attention_bias(&self) -> u64 {
        let qkv = if self.qkv_bias { self.q_dim() + 2 * self.kv_dim() } else { 0 };
        qkv + if self.bias { self.hidden } else { 0 }
    }

    /// Values in the feed-forward matrices of a layer.
    fn ffn_matrix(&self) -> u64 {
        self.hidden * self.ffn * if self.gated { 3 } else { 2 }
    }

    /// Values in the biases of those matrices.
    fn ffn_bias(&self) -> u64 {
        if !self.bias {
            return 0;
        }
        self.ffn * if self.gated { 2 } else { 1 } + self.hidden
    }

    /// Values of one norm as wide as the residual stream.
    fn wide_norm(&self) -> u64 {
        match self.norm {
            Norm::Rms => self.hidden,
            Norm::Layer => 2 * self.hidden,
        }
    }

    /// Width of the embedding and head tables.
    fn table_width(&self) -> u64 {
        match self.input {
            Input::Tokens { width, .. } => width,
            Input::Patches { .. } => self.hidden,
        }
    }

    /// Values of the projection between table and residual stream; 0 where they are equally wide.
    fn table_projection(&self) -> u64 {
        let width = self.table_width();
        if width == self.hidden { 0 } else { width * self.hidden }
    }

    /// Values of the head's table, its own or the embedding's; a classifier of images also has a bias.
    fn head_table(&self) -> u64 {
        let bias = if matches!(self.input, Input::Patches { .. }) { self.outputs } else { 0 };
        self.outputs * self.table_width() + bias
    }

    /// Values of the projection before the head.
    fn head_projection(&self) -> u64 {
        if self.outputs == 0 { 0 } else { self.table_projection() }
    }

    /// Parameters of a layer's attention: four matrices and their biases.
    pub fn attention_params(&self) -> u64 {
        self.attention_matrix() + self.attention_bias()
    }

    /// Parameters of a layer's feed-forward part: two or three matrices and their biases.
    pub fn ffn_params(&self) -> u64 {
        self.ffn_matrix() + self.ffn_bias()
    }

    /// Parameters of a layer's norms: one for each branch, and those on queries and keys.
    pub fn norm_params(&self) -> u64 {
        2 * self.wide_norm() + if self.qk_norm { 2 * self.head_dim } else { 0 }
    }

    /// Parameters of one layer.
    pub fn layer_params(&self) -> u64 {
        self.attention_params() + self.ffn_params() + self.norm_params()
    }

    /// Parameters before the first layer: tables of tokens and positions, or patch matrix, bias and class token.
    pub fn embedding_params(&self) -> u64 {
        let positions = self.positions * self.hidden;
        positions
            + match self.input {
                Input::Tokens { vocabulary, width } => vocabulary * width + self.table_projection(),
                Input::Patches { values, .. } => values * self.hidden + 2 * self.hidden,
            }
    }

    /// Parameters of the norm before the head.
    pub fn final_norm_params(&self) -> u64 {
        if self.final_norm { self.wide_norm() } else { 0 }
    }

    /// Parameters that the head adds. A tied head adds none but the projection before it (OPT-350M).
    pub fn head_params(&self) -> u64 {
        self.head_projection() + if self.tied { 0 } else { self.head_table() }
    }

    /// Parameters of the whole network, each counted once.
    pub fn total_params(&self) -> u64 {
        u64::from(self.layers) * self.layer_params()
            + self.embedding_params()
            + self.final_norm_params()
            + self.head_params()
    }

    /// Bytes of a layer's attention weights and biases.
    pub fn attention_weight_bytes(&self) -> u64 {
        self.weights.bytes(self.attention_matrix()) + self.activations.bytes(self.attention_bias())
    }

    /// Bytes of a layer's feed-forward weights and biases.
    pub fn ffn_weight_bytes(&self) -> u64 {
        self.weights.bytes(self.ffn_matrix()) + self.activations.bytes(self.ffn_bias())
    }

    /// Bytes of a layer's norms.
    pub fn norm_weight_bytes(&self) -> u64 {
        self.activations.bytes(self.norm_params())
    }

    /// Bytes of one layer.
    pub fn layer_weight_bytes(&self) -> u64 {
        self.attention_weight_bytes() + self.ffn_weight_bytes() + self.norm_weight_bytes()
    }

    /// Bytes of everything before the first layer. A token reads one row of each table, not all of it.
    pub fn embedding_weight_bytes(&self) -> u64 {
        self.embedding_weights.bytes(self.embedding_params())
    }

    /// Bytes of the norm before the head.
    pub fn final_norm_weight_bytes(&self) -> u64 {
        self.activations.bytes(self.final_norm_params())
    }

    /// Bytes that the head reads, the embedding's table where it is tied to it.
    pub fn head_weight_bytes(&self) -> u64 {
        self.embedding_weights.bytes(self.head_table() + self.head_projection())
    }

    /// Bytes of weights that must lie in memory while `resident_layers` layers do; a tied table counts once.
    ///
    /// # Panics
    /// Where `resident_layers` is more than the model has.
    pub fn weight_bytes(&self, resident_layers: u32) -> u64 {
        assert!(resident_layers <= self.layers, "{resident_layers} resident layers of {}", self.layers);
        u64::from(resident_layers) * self.layer_weight_bytes()
            + self.embedding_weight_bytes()
            + self.final_norm_weight_bytes()
            + self.embedding_weights.bytes(self.head_params())
    }

    /// Bytes of the key and the value of one token at one layer, scales included.
    pub fn kv_entry_bytes(&self) -> u64 {
        2 * self.kv.bytes(self.kv_dim())
    }
}
