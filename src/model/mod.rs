//! The network: a pool of layers, an embedding, a head, an optional router, and the number formats they are kept in.
//!
//! Shapes come from a Hugging Face `config.json` ([`Model::from_config`]) or by name ([`Model::builtin`]);
//! [`Model::resolve`] takes either. [`Model::check`] states the bounds that keep every product within 64 bits.
//!
//! A [`Model`] says everything that sizes, lowering and execution depend on: what is normed where, which products have
//! biases, how positions turn, what a layer sees. Families are rows of a table (`families`), which nothing outside knows.

mod builtin;
mod check;
mod config;
mod describe;
mod experts;
mod families;
mod flag;
mod formats;
mod inert;
mod json;
mod latent;
mod network;
mod rope;
mod rope_config;
mod routed;
mod shard;
mod size;
mod trunk;
mod vision;
mod window;

use check::{FFN, HEADS, LAYERS, PATCH_VALUES, ROWS, WIDTH};

pub use builtin::builtin_names;
pub use experts::{Experts, Gating};
pub use latent::{Indexer, Latent};
pub use network::Network;
#[cfg(feature = "gpu")]
pub(crate) use network::{agree, under};
pub use rope::{Rope, Scaling};
pub use routed::{
    Described, RadialDescription, RadialKv, SkipDescription, SkipKv, TableDescription, Visibility,
};

use crate::units::Dtype;
use serde::{Deserialize, Serialize};

/// Formats in which engines multiply quantised inputs with weights of the same format: 8-bit floats with one scale a tensor, with scales
/// of blocks, and NVFP4.
pub const PRODUCTS: [Dtype; 3] = [Dtype::Fp8, Dtype::Fp8Block, Dtype::Fp4];

/// A transformer: shapes, arithmetic and formats. Layers share all shapes but what [`Kind`] names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name shown in reports.
    pub name: String,
    /// Where the shapes come from: a paper, a `config.json`.
    pub source: String,
    /// Layers in the pool.
    pub layers: u32,
    /// The kinds of layers that there are, at least one.
    pub kinds: Vec<Kind>,
    /// Index into `kinds` of each layer; empty where all layers are of the first.
    pub pattern: Vec<u8>,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; fewer than `heads` with grouped queries.
    pub kv_heads: u64,
    /// Width of one head. With latent attention, of a query or key: both parts.
    pub head_dim: u64,
    /// Keys and values that are made from one narrow vector a token (DeepSeek's MLA); `None`: each head has its own.
    pub latent: Option<Latent>,
    /// Width of the feed-forward part of layers without experts.
    pub ffn: u64,
    /// Feed-forward parts of which each token takes some; `None`: none.
    pub experts: Option<Experts>,
    /// Whether the feed-forward part is gated: three matrices rather than two.
    pub gated: bool,
    /// Its non-linearity.
    pub activation: Activation,
    /// Normalisation of branches.
    pub norm: Norm,
    /// Where norms stand.
    pub placement: NormPlacement,
    /// Whether one more normalisation stands between the last layer and the head; all but OPT-350M.
    pub final_norm: bool,
    /// Norms on queries and keys.
    pub qk_norm: QkNorm,
    /// How queries and keys are rotated by position; `None`: not at all.
    pub rope: Option<Rope>,
    /// How layers whose [`Kind::rotation`] is [`Rotation::Local`] rotate them (Gemma 3); `None` where no layer does.
    pub local_rope: Option<Rope>,
    /// Which products have biases.
    pub biases: Biases,
    /// Constants that values are multiplied with.
    pub scales: Scales,
    /// What comes in.
    pub input: Input,
    /// Rows of the head: vocabulary, or classes of a classifier. 0 for a bare encoder.
    pub outputs: u64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Learned position embeddings (rows, unused ones included); 0 for none.
    pub positions: u64,
    /// Row of the position embeddings that position 0 takes.
    pub position_offset: u64,
    /// Most tokens of a sequence, scaling of the rotation included; 0 where nobody says.
    pub context: u64,
    /// Parameters that writing text does not use, but that lie in memory: the part that sees images.
    pub beside: u64,
    /// Format of the layers' weights.
    pub weights: Dtype,
    /// Format of embedding and head.
    pub embedding_weights: Dtype,
    /// Format of activations.
    pub activations: Dtype,
    /// Format of KV entries.
    pub kv: Dtype,
    /// Format into which the inputs of products with quantised weights are brought, of [`PRODUCTS`]; `None`: they stay as the
    /// activations are, and weights are widened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<Dtype>,
    /// Of how many equal parts this is one, which devices compute together ([`Model::shard`]): heads and widths are those of the part. No file and no key
    /// says it: a part needs devices to exchange messages with.
    #[serde(skip, default = "one")]
    pub shards: u32,
    /// Devices over which sequences and experts are spread ([`Model::spread_over`]): each has all of the rest. No file and no key says it either.
    #[serde(skip, default = "one")]
    pub spread: u32,
    /// Whether each of those devices is an engine with sequences of its own, and only experts are spread ([`Model::with_own_sequences`]).
    #[serde(skip)]
    pub own_sequences: bool,
    /// What the source says and nothing here models, a line each: `key: value`. Reports show it; execution refuses it.
    pub remarks: Vec<String>,
}

fn one() -> u32 {
    1
}

/// What layers of one model may differ in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Attention sees a token and those before it, so many in all; `None`: all before it.
    pub window: Option<u32>,
    /// Which rotation queries and keys take.
    pub rotation: Rotation,
    /// Whether the feed-forward part is experts.
    pub experts: bool,
    /// Whether attention's matrices keep the format of the activations although the model's weights are quantised.
    pub attention_kept: bool,
    /// Whether the feed-forward part's do.
    pub ffn_kept: bool,
    /// Whether those of experts that every token takes do.
    pub shared_kept: bool,
}

/// Which rotation a layer's queries and keys take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// The model's, [`Model::rope`].
    #[default]
    Main,
    /// That of windowed layers, [`Model::local_rope`].
    Local,
    /// None (SmolLM3: every fourth layer).
    Off,
}

/// Non-linearity of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// Gaussian error linear unit, x/2 (1 + erf(x / sqrt 2)).
    GeluErf,
    /// The same with a hyperbolic tangent in place of the error function (Hendrycks and Gimpel, arXiv 1606.08415).
    Gelu,
    /// x * sigmoid(1.702 x), the same paper.
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)^2 (So et al., Primer, arXiv 2109.08668).
    Relu2,
    /// A non-linearity that only its cost is known of: some operations a value.
    Other,
}

/// Kind of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Norm {
    /// Whether the mean is taken out too (layer norm), or only the root mean square divided by (RMS norm).
    pub layer: bool,
    /// Whether channels have weights.
    pub weight: bool,
    /// Whether the files keep weights less one (Gemma).
    pub plus_one: bool,
    /// Whether channels have biases.
    pub bias: bool,
    /// What is added before the root, in units of 1e-12: 10,000,000 for 1e-5. Whole, so that equal models are equal.
    pub epsilon_1e12: u64,
}

impl Norm {
    /// Root mean square, one weight a channel; epsilon 1e-6.
    pub const RMS: Norm =
        Norm { layer: false, weight: true, plus_one: false, bias: false, epsilon_1e12: 1_000_000 };
    /// Mean and variance, weight and bias a channel; epsilon 1e-5.
    pub const LAYER: Norm =
        Norm { layer: true, weight: true, plus_one: false, bias: true, epsilon_1e12: 10_000_000 };

    /// What is added before the root.
    pub fn epsilon(&self) -> f64 {
        self.epsilon_1e12 as f64 * 1e-12
    }

    /// Values that a norm of this width keeps.
    pub(crate) fn values(&self, width: u64) -> u64 {
        (u64::from(self.weight) + u64::from(self.bias)) * width
    }
}

/// Where norms stand around the two branches of a layer. `x` is the stream, `a` attention, `f` the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// `x + a(norm x)`, then `x + f(norm x)`: most models.
    Before,
    /// `norm(x + a(x))`, then `norm(x + f(x))` (OPT-350M).
    AfterSum,
    /// `x + norm(a(x))`, then `x + norm(f(x))` (OLMo 2).
    AfterBranch,
    /// `x + norm(a(norm x))`, then the same for f (Gemma 2 and 3).
    Around,
    /// `x + a(n) + f(n)` with `n = norm x`: one norm for both (Falcon-7B, Phi-2).
    Parallel,
    /// `x + a(norm x) + f(norm x)`, each branch with a norm of its own (GPT-NeoX).
    ParallelEach,
}

impl NormPlacement {
    /// Norms a layer has as wide as the stream.
    pub fn norms(self) -> u64 {
        match self {
            NormPlacement::Parallel => 1,
            NormPlacement::Around => 4,
            _ => 2,
        }
    }

    /// Whether both branches read the stream as it entered the layer.
    pub fn parallel(self) -> bool {
        matches!(self, NormPlacement::Parallel | NormPlacement::ParallelEach)
    }
}

/// Norms on queries and keys, of the model's kind without biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkNorm {
    /// None.
    #[default]
    None,
    /// Over each head, all heads with the same weights (Qwen3, Gemma 3).
    Head,
    /// Over each head, each with weights of its own (StableLM 2 12B).
    EachHead,
    /// Over all heads together (OLMo 2).
    Whole,
}

/// Which products of a layer have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// Attention's output.
    pub output: bool,
    /// All products of the feed-forward part.
    pub ffn: bool,
    /// The head.
    pub head: bool,
}

/// Constants that values are multiplied with; 1 leaves them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scales {
    /// Rows of the embedding (Gemma: the root of the width).
    pub embedding: f64,
    /// What a branch adds to the stream (Granite).
    pub residual: f64,
    /// Scores of attention; `None`: one over the root of a head's width.
    pub attention: Option<f64>,
    /// Scores s become c tanh(s / c) (Gemma 2); `None`: they stay.
    pub attention_cap: Option<f64>,
    /// Logits.
    pub logits: f64,
    /// The same cap for logits.
    pub logit_cap: Option<f64>,
}

impl Scales {
    /// Nothing is scaled.
    pub const NONE: Scales = Scales {
        embedding: 1.0,
        residual: 1.0,
        attention: None,
        attention_cap: None,
        logits: 1.0,
        logit_cap: None,
    };
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

impl Model {
    /// A model of no size, as Llama in everything that is not a size; readers change what differs.
    pub(crate) fn plain(name: impl Into<String>, source: impl Into<String>, format: Dtype) -> Model {
        Model {
            name: name.into(),
            source: source.into(),
            layers: 0,
            kinds: vec![Kind::default()],
            pattern: Vec::new(),
            hidden: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            latent: None,
            ffn: 0,
            experts: None,
            gated: true,
            activation: Activation::Silu,
            norm: Norm::RMS,
            placement: NormPlacement::Before,
            final_norm: true,
            qk_norm: QkNorm::None,
            rope: Some(Rope::plain(10_000.0, 0)),
            local_rope: None,
            biases: Biases::default(),
            scales: Scales::NONE,
            input: Input::Tokens { vocabulary: 0, width: 0 },
            outputs: 0,
            tied: false,
            positions: 0,
            position_offset: 0,
            context: 0,
            beside: 0,
            weights: format,
            embedding_weights: format,
            activations: format,
            kv: format,
            products: None,
            shards: 1,
            spread: 1,
            own_sequences: false,
            remarks: Vec::new(),
        }
    }

    /// Words in, a score for each word out.
    pub(crate) fn set_vocabulary(&mut self, vocabulary: u64, width: u64) {
        self.input = Input::Tokens { vocabulary, width };
        self.outputs = vocabulary;
    }

    /// The kind of a layer.
    ///
    /// # Panics
    /// Where the model has no such layer.
    pub fn kind(&self, layer: u32) -> &Kind {
        match self.pattern.get(layer as usize) {
            Some(&kind) => &self.kinds[usize::from(kind)],
            None => {
                assert!(self.pattern.is_empty() && layer < self.layers, "layer {layer} of {}", self.layers);
                &self.kinds[0]
            }
        }
    }

    /// The kinds of all layers, in their order.
    pub fn layer_kinds(&self) -> impl Iterator<Item = &Kind> {
        (0..self.layers).map(|layer| self.kind(layer))
    }

    /// Sets the kind of each layer; equal ones are kept once. At most 256 different ones.
    pub(crate) fn set_kinds(&mut self, kinds: impl IntoIterator<Item = Kind>) {
        self.kinds.clear();
        self.pattern.clear();
        for kind in kinds {
            let known = self.kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                self.kinds.push(kind);
                self.kinds.len() - 1
            });
            self.pattern.push(u8::try_from(known).expect("few kinds"));
        }
        if self.kinds.len() == 1 {
            self.pattern.clear();
        }
    }

    /// The rotation of a kind of layers.
    pub fn rope_of(&self, kind: &Kind) -> Option<&Rope> {
        match kind.rotation {
            Rotation::Main => self.rope.as_ref(),
            Rotation::Local => self.local_rope.as_ref(),
            Rotation::Off => None,
        }
    }

    /// What scores of attention are multiplied with: one over the root of a head's width (Vaswani et al., arXiv 1706.03762,
    /// section 3.2.1), unless the model says otherwise.
    pub fn attention_scale(&self) -> f64 {
        self.scales.attention.unwrap_or_else(|| 1.0 / libm::sqrt(self.head_dim as f64))
    }
}
