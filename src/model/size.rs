//! Parameters and bytes, part by part. A layer is its attention, its feed-forward part and its norms.
//!
//! Matrices are kept in `weights`, unless their kind of layer keeps them; tables and head in `embedding_weights`, biases,
//! norms and routers in `activations`.
//! The model must have passed [`Model::check`]; within its bounds nothing here overflows.

use super::{Input, Kind, Model, QkNorm};
use crate::units::Dtype;

impl Model {
    /// The same model in other formats, products with inputs as the activations are. Embedding and head follow the activations, as
    /// quantised models keep them.
    pub fn with_formats(mut self, weights: Dtype, activations: Dtype, kv: Dtype) -> Model {
        self.weights = weights;
        self.embedding_weights = activations;
        self.activations = activations;
        self.kv = kv;
        self.products = None;
        self
    }

    /// The format in which products with weights of this format take their rows.
    pub fn product_inputs(&self, weights: Dtype) -> Dtype {
        self.products.filter(|_| weights == self.weights).unwrap_or(self.activations)
    }

    /// Width of the queries of all heads.
    pub fn q_dim(&self) -> u64 {
        self.heads * self.head_dim
    }

    /// Width of the keys of all heads; that of the values is the same.
    pub fn kv_dim(&self) -> u64 {
        self.kv_heads * self.head_dim
    }

    /// Width of what attention gives for a token: that of the values of all query heads.
    pub fn attended_dim(&self) -> u64 {
        self.heads * self.latent.map_or(self.head_dim, |latent| latent.value_dim)
    }

    /// Values in the query, key, value and output matrices of a layer.
    fn attention_matrix(&self) -> u64 {
        match self.latent {
            Some(latent) => latent.matrix(self.hidden, self.heads),
            None => self.hidden * (2 * self.q_dim() + 2 * self.kv_dim()),
        }
    }

    /// Values in the biases of those matrices, and in what chooses entries.
    fn attention_bias(&self) -> u64 {
        let qkv = if self.biases.qkv { self.q_dim() + 2 * self.kv_dim() } else { 0 };
        qkv + if self.biases.output { self.hidden } else { 0 }
    }

    /// Values of one feed-forward part of this width: its matrices, then its biases.
    fn feed_forward(&self, width: u64) -> (u64, u64) {
        let inputs = if self.gated { 2 } else { 1 };
        let bias = if self.biases.ffn { width * inputs + self.hidden } else { 0 };
        (self.hidden * width * (inputs + 1), bias)
    }

    /// Values of the feed-forward matrices of a kind of layers: of those that a token chooses among or that all take, and of
    /// those that all take besides; then of biases and routers.
    fn ffn_values(&self, kind: &Kind) -> [u64; 3] {
        match self.experts.filter(|_| kind.experts) {
            None => {
                let (matrix, bias) = self.feed_forward(self.ffn);
                [matrix, 0, bias]
            }
            Some(experts) => {
                let (matrix, bias) = self.feed_forward(experts.width);
                let shared = self.hidden * experts.shared_width * if self.gated { 3 } else { 2 };
                [experts.count * matrix, shared, experts.count * bias + experts.router_params(self.hidden)]
            }
        }
    }

    /// The same of what one device has.
    fn own_ffn_values(&self, kind: &Kind) -> [u64; 3] {
        let [matrix, shared, rest] = self.ffn_values(kind);
        let Some(experts) = self.experts.filter(|_| kind.experts && self.spread > 1) else {
            return [matrix, shared, rest];
        };
        let (_, bias) = self.feed_forward(experts.width);
        let away = experts.count - experts.count / u64::from(self.spread);
        [matrix / experts.count * (experts.count - away), shared, rest - away * bias]
    }

    /// Values of one norm as wide as the residual stream.
    fn wide_norm(&self) -> u64 {
        self.norm.values(self.hidden)
    }

    /// Values of the norms on a layer's queries and keys.
    fn qk_norm_values(&self) -> u64 {
        let width = match self.qk_norm {
            QkNorm::None => 0,
            QkNorm::Head => 2 * self.head_dim,
            QkNorm::EachHead | QkNorm::Whole => self.q_dim() + self.kv_dim(),
        };
        width * u64::from(self.norm.weight)
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
        let has_bias = matches!(self.input, Input::Patches { .. }) || self.biases.head;
        let rows = self.own_outputs();
        rows * self.table_width() + if has_bias { rows } else { 0 }
    }

    /// Values of the projection before the head.
    fn head_projection(&self) -> u64 {
        if self.outputs == 0 { 0 } else { self.table_projection() }
    }

    /// Parameters of a layer's attention: its matrices and their biases.
    pub fn attention_params(&self) -> u64 {
        self.attention_matrix() + self.attention_bias()
    }

    /// Parameters of the feed-forward part of a kind of layers: its matrices and their biases, of all experts with their
    /// router where it has any.
    pub fn ffn_params(&self, kind: &Kind) -> u64 {
        self.ffn_values(kind).iter().sum()
    }

    /// The same of what one device has.
    pub fn own_ffn_params(&self, kind: &Kind) -> u64 {
        self.own_ffn_values(kind).iter().sum()
    }

    /// Parameters of a layer's norms: those around the branches, those on queries and keys, those within latent attention.
    pub fn norm_params(&self) -> u64 {
        self.placement.norms() * self.wide_norm()
            + self.qk_norm_values()
            + self.latent.map_or(0, |latent| latent.norm())
    }

    /// Parameters of one layer of a kind.
    pub fn layer_params(&self, kind: &Kind) -> u64 {
        self.attention_params() + self.ffn_params(kind) + self.norm_params()
    }

    /// Parameters of what chooses the entries that attention sees, in all layers together.
    fn indexer_params(&self) -> u64 {
        let of = |latent: super::Latent| {
            let indexer = latent.indexer?;
            Some(u64::from(indexer.layers) * indexer.params(self.hidden, latent.q_rank))
        };
        self.latent.and_then(of).unwrap_or(0)
    }

    /// Parameters before the first layer: tables of tokens and positions, or patch matrix, bias and class token.
    pub fn embedding_params(&self) -> u64 {
        let positions = self.positions * self.hidden;
        positions
            + match self.input {
                Input::Tokens { vocabulary, width } => {
                    self.shard_of(vocabulary) * width + self.table_projection()
                }
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
        self.over_layers(self.layers, |kind| self.layer_params(kind))
            + self.indexer_params()
            + self.embedding_params()
            + self.final_norm_params()
            + self.head_params()
            + self.beside
    }

    /// Parameters that a token takes part in: all but those of experts that it does not take, and of [`Model::beside`].
    pub fn active_params(&self) -> u64 {
        let idle = |kind: &Kind| match self.experts.filter(|_| kind.experts) {
            None => 0,
            Some(experts) => {
                let (matrix, bias) = self.feed_forward(experts.width);
                (experts.count - experts.per_token) * (matrix + bias)
            }
        };
        self.total_params() - self.beside - self.over_layers(self.layers, idle)
    }

    /// The sum over the first `layers` layers.
    fn over_layers(&self, layers: u32, of: impl Fn(&Kind) -> u64) -> u64 {
        if self.pattern.is_empty() {
            return u64::from(layers) * of(&self.kinds[0]);
        }
        let each: Vec<u64> = self.kinds.iter().map(of).collect();
        self.pattern.iter().take(layers as usize).map(|&kind| each[usize::from(kind)]).sum()
    }

    /// The format of a kind's attention matrices.
    pub fn attention_format(&self, kind: &Kind) -> Dtype {
        if kind.attention_kept { self.activations } else { self.weights }
    }

    /// The format of a kind's feed-forward matrices.
    pub fn ffn_format(&self, kind: &Kind) -> Dtype {
        if kind.ffn_kept { self.activations } else { self.weights }
    }

    /// The format of the experts that every token takes.
    pub fn shared_format(&self, kind: &Kind) -> Dtype {
        if kind.shared_kept { self.activations } else { self.weights }
    }

    /// Bytes of a layer's attention weights and biases.
    pub fn attention_weight_bytes(&self, kind: &Kind) -> u64 {
        self.attention_format(kind).bytes(self.attention_matrix())
            + self.activations.bytes(self.attention_bias())
    }

    /// Bytes of a layer's feed-forward weights and biases: of all experts, and of the router, where it has any.
    pub fn ffn_weight_bytes(&self, kind: &Kind) -> u64 {
        let [matrix, shared, rest] = self.own_ffn_values(kind);
        self.ffn_format(kind).bytes(matrix)
            + self.shared_format(kind).bytes(shared)
            + self.activations.bytes(rest)
    }

    /// Bytes of the branches of all layers: attention and feed-forward parts.
    pub fn branch_weight_bytes(&self) -> u64 {
        self.over_layers(self.layers, |kind| self.attention_weight_bytes(kind) + self.ffn_weight_bytes(kind))
    }

    /// Bytes of a layer's feed-forward weights that `rows` tokens read: all, but of experts those that they are expected to take.
    pub fn ffn_read_bytes(&self, kind: &Kind, rows: u32) -> u64 {
        let Some(experts) = self.experts.filter(|_| kind.experts) else { return self.ffn_weight_bytes(kind) };
        let [matrix, shared, rest] = self.own_ffn_values(kind);
        let spread = u64::from(self.spread);
        let taken = experts.taken(rows).div_ceil(spread);
        self.ffn_format(kind).bytes(matrix / (experts.count / spread) * taken)
            + self.shared_format(kind).bytes(shared)
            + self.activations.bytes(rest)
    }

    /// Bytes of a layer's norms.
    pub fn norm_weight_bytes(&self) -> u64 {
        self.activations.bytes(self.norm_params())
    }

    /// Bytes of one layer of a kind.
    pub fn layer_weight_bytes(&self, kind: &Kind) -> u64 {
        self.attention_weight_bytes(kind) + self.ffn_weight_bytes(kind) + self.norm_weight_bytes()
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

    /// Bytes of weights that must lie in memory while the first `resident_layers` layers do; a tied table counts once.
    ///
    /// # Panics
    /// Where `resident_layers` is more than the model has.
    pub fn weight_bytes(&self, resident_layers: u32) -> u64 {
        assert!(resident_layers <= self.layers, "{resident_layers} resident layers of {}", self.layers);
        self.over_layers(resident_layers, |kind| self.layer_weight_bytes(kind))
            + self.activations.bytes(self.indexer_params())
            + self.embedding_weight_bytes()
            + self.final_norm_weight_bytes()
            + self.embedding_weights.bytes(self.head_params())
            + self.activations.bytes(self.beside)
    }

    /// Bytes of weights on the first of several devices that have layers of their own, beside its layers.
    pub fn entry_weight_bytes(&self) -> u64 {
        self.embedding_weight_bytes() + self.activations.bytes(self.beside)
    }

    /// Bytes of weights on the last of them, beside its layers. A table that is tied lies on both.
    pub fn exit_weight_bytes(&self) -> u64 {
        self.final_norm_weight_bytes() + if self.outputs == 0 { 0 } else { self.head_weight_bytes() }
    }

    /// Bytes of what is cached of one token at one layer, scales included: a key and a value, or with latent attention the one
    /// vector that both are made from, and the key of what chooses entries.
    ///
    /// Of sequences that are spread over devices, each has its part: so many bytes of every entry on average.
    pub fn kv_entry_bytes(&self) -> u64 {
        let entry = match self.latent {
            None => 2 * self.kv.bytes(self.kv_dim()),
            Some(latent) => {
                self.kv.bytes(latent.entry()) + latent.indexer.map_or(0, |indexer| indexer.entry_bytes())
            }
        };
        entry.div_ceil(self.sequence_spread().into())
    }

    /// Values that a token writes into the cache of a layer.
    pub fn kv_entry_values(&self) -> u64 {
        self.latent.map_or(2 * self.kv_dim(), |latent| latent.entry())
    }

    /// Bytes that a sequence of so many tokens takes in the caches of all layers; windows bound it.
    pub fn kv_bytes(&self, tokens: u64) -> u64 {
        let entries = |kind: &Kind| kind.window.map_or(tokens, |window| tokens.min(window.into()));
        self.over_layers(self.layers, entries) * self.kv_entry_bytes()
    }
}
