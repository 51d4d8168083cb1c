//! The vocabulary: each kind of kernel, its shape, its flops and least bytes.
//!
//! This is the centre of the crate. One variant of [`Kernel`] has one work formula (`work`), one price (`cost`), and one
//! class whose constants a hardware profile gives. Adding a kernel is a guided tour: the compiler asks for each of them.

mod experts;
mod latent;
mod terms;
mod uneven;
mod work;

pub use experts::{EXPERT_BLOCKS, ExpertLayer, ExpertLoad, LOAD_UNIT};
pub use latent::LatentAttention;
pub use terms::{KINDS, MOST_TERMS, Terms, kind, terms};
pub use uneven::Filling;
pub use work::Traffic;

use crate::units::Dtype;
use serde::{Deserialize, Serialize};

/// One kernel call: its kind and its shape. Everything that its work depends on, and nothing else, so that equal calls
/// have equal prices.
///
/// `rows` are tokens throughout; a matrix product maps `rows x inner` to `rows x columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the shapes that each variant's text names")]
pub enum Kernel {
    /// Rows of a table by index: `rows x width`.
    Embed { rows: u32, width: u32, table: Dtype, activations: Dtype },
    /// RMS or layer norm of `rows x width`; `groups` layers' weights are read.
    Norm { rows: u32, width: u32, groups: u32, layer_norm: bool, activations: Dtype },
    /// Matrix product with weights `inner x columns`. `inputs` is the format of its rows, `activations` that of its results: they
    /// differ where engines quantise the rows first (W8A8, NVFP4).
    MatMul {
        rows: u32,
        inner: u32,
        columns: u32,
        weights: Dtype,
        inputs: Dtype,
        activations: Dtype,
        density: Density,
    },
    /// Matrix products of the same shape with the weights of `groups` layers, in one dispatch. `slices` counts the
    /// pieces of at most [`GROUP_SLICE`] rows into which the groups fall.
    GroupedMatMul {
        rows: u32,
        groups: u32,
        slices: u32,
        inner: u32,
        columns: u32,
        weights: Dtype,
        inputs: Dtype,
        activations: Dtype,
        density: Density,
    },
    /// Rows brought into the format in which a product takes them, with the scales of their blocks.
    Quantise { rows: u32, width: u32, activations: Dtype, to: Dtype },
    /// Rotary position embedding in place on `rows x heads x head_dim`.
    Rope { rows: u32, heads: u32, head_dim: u32, activations: Dtype },
    /// K and V of `rows` tokens written into the cache: `width` values a token, K and V together.
    KvWrite { rows: u32, width: u32, activations: Dtype, kv: Dtype },
    /// Attention of `rows` query tokens over the cache.
    Attention(Attention),
    /// Attention whose keys and values have widths of their own, or are parts of each other.
    LatentAttention(LatentAttention),
    /// The feed-forward non-linearity on `rows x width`; gated ones read two inputs.
    Activation { rows: u32, width: u32, gated: bool, activations: Dtype },
    /// `rows x width` added to the residual stream, under a mask where the batch is masked.
    ResidualAdd { rows: u32, width: u32, activations: Dtype },
    /// A routing decision for `rows` tokens: an MLP `width -> hidden -> options` with its arg-max.
    /// `hidden` = 0: one product `width -> options`.
    Router { rows: u32, width: u32, hidden: u32, options: u32, weights: Dtype, activations: Dtype },
    /// Rows collected by index into a dense block.
    Gather { rows: u32, width: u32, activations: Dtype },
    /// Rows of a dense block put back where they were gathered.
    Scatter { rows: u32, width: u32, activations: Dtype },
    /// The experts of a layer in one call, where an engine that was measured runs them so.
    ExpertLayer(ExpertLayer),
    /// Sums of `top` rows each, by shares: what the experts of `rows` tokens say. `rows * top x width` to `rows x width`.
    ExpertSum { rows: u32, width: u32, top: u32, activations: Dtype },
    /// Arg-max or top-k sampling over `rows x vocabulary`.
    Sample { rows: u32, vocabulary: u32, activations: Dtype },
}

/// Rows of the smallest piece into which a grouped product cuts a group: the smallest row tile of tensor-core kernels
/// (m16n8k16, PTX ISA, "Warp-level matrix instructions").
pub const GROUP_SLICE: u32 = 16;

/// Shape of an attention call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attention {
    /// Query tokens.
    pub rows: u32,
    /// Query heads.
    pub heads: u16,
    /// Key and value heads.
    pub kv_heads: u16,
    /// Width of one head.
    pub head_dim: u16,
    /// Whether each sequence has one query row.
    pub decode: bool,
    /// Prompt rows that the pass computes beside these of a decode call; 0 where there are none. Software with one call for both
    /// runs decode rows in tiles made for prompts then.
    pub beside: u32,
    /// Visible (query token, entry) pairs: the scores of one head.
    pub pairs: u64,
    /// Distinct entries read, over all sequences.
    pub entries: u64,
    /// Entries that could have been read while a decode call waits for its longest contexts ([`Filling::waits`]); 0 where contexts are
    /// even, and where nobody measured what it costs that they are not.
    #[serde(default, skip_serializing_if = "waits_for_none")]
    pub waits: u64,
    /// Format of queries and results.
    pub activations: Dtype,
    /// Format of the cache.
    pub kv: Dtype,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls takes a reference")]
fn waits_for_none(waits: &u64) -> bool {
    *waits == 0
}

impl Attention {
    /// How many chunks of prompts the call is, if they are equal; a fraction where they are not.
    ///
    /// n chunks of r = rows / n neighbours behind c earlier entries have `entries` = n (c + r) and `pairs` = rows (c + (r + 1) / 2), of
    /// which n follows.
    pub fn chunks(&self) -> f64 {
        let rows = f64::from(self.rows.max(1));
        ((self.entries as f64 - rows / 2.0) / (self.seen() - 0.5).max(0.5)).clamp(1.0, rows)
    }

    /// Rows of each of so many equal chunks, and entries before them.
    pub fn chunk(&self, count: f64) -> (f64, f64) {
        let rows = f64::from(self.rows.max(1)) / count;
        (rows, (self.seen() - (rows + 1.0) / 2.0).max(0.0))
    }

    /// The call with even contexts that takes as long.
    pub fn even(&self) -> Attention {
        let (pairs, entries) = (self.pairs + self.waits, self.entries + self.waits);
        Attention { pairs, entries, waits: 0, ..*self }
    }

    /// Entries that a row sees on average.
    pub fn seen(&self) -> f64 {
        self.pairs as f64 / f64::from(self.rows.max(1))
    }
}

/// How dense a matrix of weights is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Density {
    /// All weights.
    Dense,
    /// Two of four: half of the weights, with two bits of index for each weight kept.
    TwoFour,
    /// Unstructured, with sparse kernels that turn this share (in thousandths) of the dense bytes and flops into time.
    Effective(u16),
}

/// Kernel classes: what a hardware profile gives constants for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Matrix products.
    MatMul,
    /// Attention with several query rows of a sequence.
    PrefillAttention,
    /// Attention with one query row a sequence.
    DecodeAttention,
    /// One pass over rows.
    Elementwise,
    /// Rows moved by index.
    Gather,
    /// Messages between devices, which are no kernels of one device: fabrics give their times.
    Collective,
}

impl Class {
    /// All classes with their names in profiles and reports.
    pub const ALL: [(Class, &'static str); 6] = [
        (Class::MatMul, "matmul"),
        (Class::PrefillAttention, "prefill_attention"),
        (Class::DecodeAttention, "decode_attention"),
        (Class::Elementwise, "elementwise"),
        (Class::Gather, "gather"),
        (Class::Collective, "collective"),
    ];
}

impl Kernel {
    /// A product whose rows come in the format of its results.
    pub fn product(
        rows: u32,
        [inner, columns]: [u32; 2],
        weights: Dtype,
        activations: Dtype,
        density: Density,
    ) -> Kernel {
        Kernel::MatMul { rows, inner, columns, weights, inputs: activations, activations, density }
    }

    /// Products of `groups` layers in one dispatch, whose rows come in the format of their results.
    pub fn grouped_product(
        [rows, groups, slices]: [u32; 3],
        [inner, columns]: [u32; 2],
        weights: Dtype,
        activations: Dtype,
        density: Density,
    ) -> Kernel {
        let inputs = activations;
        Kernel::GroupedMatMul { rows, groups, slices, inner, columns, weights, inputs, activations, density }
    }

    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            Kernel::MatMul { .. }
            | Kernel::GroupedMatMul { .. }
            | Kernel::Router { .. }
            | Kernel::ExpertLayer(_) => Class::MatMul,
            Kernel::Attention(Attention { decode: true, .. })
            | Kernel::LatentAttention(LatentAttention { decode: true, .. }) => Class::DecodeAttention,
            Kernel::Attention(_) | Kernel::LatentAttention(_) => Class::PrefillAttention,
            Kernel::Embed { .. } | Kernel::Gather { .. } | Kernel::Scatter { .. } => Class::Gather,
            Kernel::Norm { .. }
            | Kernel::Rope { .. }
            | Kernel::KvWrite { .. }
            | Kernel::Quantise { .. }
            | Kernel::Activation { .. }
            | Kernel::ResidualAdd { .. }
            | Kernel::ExpertSum { .. }
            | Kernel::Sample { .. } => Class::Elementwise,
        }
    }

    /// Its name in timelines and tables; shaders, oracles and tests share this stem.
    pub fn name(&self) -> &'static str {
        match self {
            Kernel::Embed { .. } => "embed_rows",
            Kernel::Norm { layer_norm: false, .. } => "rms_norm",
            Kernel::Norm { layer_norm: true, .. } => "layer_norm",
            Kernel::MatMul { .. } => "matmul",
            Kernel::GroupedMatMul { .. } => "grouped_matmul",
            Kernel::Quantise { .. } => "quantise",
            Kernel::Rope { .. } => "rope",
            Kernel::KvWrite { .. } => "kv_write",
            Kernel::Attention(shape) if shape.decode => "attention_decode",
            Kernel::Attention(_) => "attention_prefill",
            Kernel::LatentAttention(_) => "latent_attention",
            Kernel::Activation { gated: true, .. } => "gated_activation",
            Kernel::Activation { gated: false, .. } => "activation",
            Kernel::ResidualAdd { .. } => "residual_add",
            Kernel::Router { .. } => "router",
            Kernel::Gather { .. } => "gather_rows",
            Kernel::Scatter { .. } => "scatter_rows",
            Kernel::ExpertLayer(_) => "expert_layer",
            Kernel::ExpertSum { .. } => "expert_sum",
            Kernel::Sample { .. } => "sample",
        }
    }
}
