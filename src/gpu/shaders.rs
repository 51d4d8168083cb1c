//! All shaders with the layouts of their parameters. Each stands in `shaders/` under the name of its kernel; what several of them say
//! stands in `shaders/shared/` and follows their own text, so that lines in a message of the compiler are those of the file.

#![expect(missing_docs, reason = "each constant is a shader, named after its file")]

use super::pipeline::Shader;
use bytemuck::{Pod, Zeroable};

macro_rules! shader {
    ($name:literal $(, $shared:literal)*) => {
        Shader {
            name: $name,
            source: concat!(
                include_str!(concat!("../../shaders/", $name, ".wgsl")),
                $(include_str!(concat!("../../shaders/shared/", $shared, ".wgsl")),)*
            ),
        }
    };
}

/// Parameters of a shader: a struct as WGSL lays it out, all members of four bytes.
macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Pod, Zeroable)]
        #[expect(missing_docs, reason = "each member is explained in the shader")]
        pub struct $name { $(pub $field: $kind),* }

        impl $name {
            /// Members in order: name and offset in bytes.
            pub fn members() -> Vec<(&'static str, u32)> {
                vec![$((stringify!($field), std::mem::offset_of!($name, $field) as u32)),*]
            }
        }
    };
}

pub const ACTIVATION: Shader = shader!("activation", "bent");
pub const ATTENTION_DECODE: Shader = shader!("attention_decode");
pub const ATTENTION_PREFILL: Shader = shader!("attention_prefill");
pub const DIVERGENCE: Shader = shader!("divergence");
pub const EMBED_ROWS: Shader = shader!("embed_rows", "packed");
pub const EXPERT_CHOICE: Shader = shader!("expert_choice");
pub const EXPERT_SUM: Shader = shader!("expert_sum");
pub const FINITE_ROWS: Shader = shader!("finite_rows");
pub const GATED_ACTIVATION: Shader = shader!("gated_activation", "bent");
pub const GATHER_ROWS: Shader = shader!("gather_rows");
pub const HEAD_NORM: Shader = shader!("head_norm");
pub const KV_WRITE: Shader = shader!("kv_write");
pub const LAYER_NORM: Shader = shader!("layer_norm");
pub const MATMUL_TILES: Shader = shader!("matmul_tiles", "product", "packed");
pub const MATVEC_F16: Shader = shader!("matvec_f16", "product");
pub const MATVEC_F32: Shader = shader!("matvec_f32", "product");
pub const MATVEC_Q4: Shader = shader!("matvec_q4", "product");
pub const MATVEC_Q8: Shader = shader!("matvec_q8", "product");
pub const PLACE_ROWS: Shader = shader!("place_rows");
pub const PROBE_COPY: Shader = shader!("probe_copy");
pub const PROBE_EMPTY: Shader = shader!("probe_empty");
pub const PROBE_FMA: Shader = shader!("probe_fma");
pub const PROBE_READ: Shader = shader!("probe_read");
pub const PROBE_TURNS: Shader = shader!("probe_turns");
pub const RESIDUAL_ADD: Shader = shader!("residual_add");
pub const RESIDUAL_ORACLE: Shader = shader!("residual_oracle");
pub const RMS_NORM: Shader = shader!("rms_norm");
pub const ROPE: Shader = shader!("rope");
pub const ROUTER: Shader = shader!("router", "inside");
pub const SAMPLE: Shader = shader!("sample", "logits");
pub const SAMPLE_PARTS: Shader = shader!("sample_parts", "logits");
pub const SCATTER_ROWS: Shader = shader!("scatter_rows");
pub const SKIP_ROUTER: Shader = shader!("skip_router", "inside");

parameters!(
    /// Of `matvec_*` and `matmul_tiles`.
    MatMul {
        inner4: u32, columns: u32, input_stride4: u32, output_stride: u32, row_words: u32, layer_words: u32,
        rows_at: u32, columns_at: u32, first_row: u32, layer_rows: u32, from_row: u32,
        first_layer: u32, layers: u32, run: u32,
    }
);
parameters!(
    /// Of `attention_decode` and `attention_prefill`.
    Attention {
        heads: u32, group: u32, head4: u32, kv4: u32, query_stride4: u32, output_stride4: u32, rows_at: u32, scale: f32,
        count: u32, cap: f32,
    }
);
parameters!(
    /// Of `rms_norm` and `layer_norm`.
    Norm { rows: u32, width4: u32, input_stride4: u32, output_stride4: u32, layers: u32, epsilon: f32 }
);
parameters!(
    /// Of `rope`.
    Rope { rows: u32, heads: u32, half: u32, head: u32, stride: u32, positions: u32 }
);
parameters!(
    /// Of `kv_write`.
    KvWrite { rows: u32, width4: u32, stride4: u32, from4: u32, entries: u32 }
);
parameters!(
    /// Of `gather_rows` and `scatter_rows`.
    MoveRows { rows: u32, width4: u32, from_stride4: u32, to_stride4: u32, indices: u32 }
);
parameters!(
    /// Of `activation` and `gated_activation`.
    Activation { rows: u32, width4: u32, input_stride4: u32, output_stride4: u32 }
);
parameters!(
    /// Of `residual_add`.
    ResidualAdd {
        rows: u32, width4: u32, stream_stride4: u32, branch_stride4: u32, mask: u32, weights: u32, scale: f32,
    }
);
parameters!(
    /// Of `residual_oracle`.
    ResidualOracle {
        rows: u32, width4: u32, stream_stride4: u32, branch_stride4: u32, record: u32, records: u32, over_input: u32,
        threshold: f32, begins: u32, scale: f32,
    }
);
parameters!(
    /// Of `embed_rows`.
    EmbedRows {
        rows: u32, width4: u32, stride4: u32, row_words: u32, tokens: u32, first: u32, count: u32, scale: f32,
    }
);
parameters!(
    /// Of `sample_parts` and `sample`.
    Sample {
        rows: u32, vocabulary: u32, stride: u32, top: u32, targets: u32, first: u32, part: u32, parts: u32, scale: f32,
        cap: f32,
    }
);
parameters!(
    /// Of `divergence`.
    Divergence {
        rows: u32, vocabulary: u32, rows_at: u32, scale: f32, cap: f32, teacher_scale: f32, teacher_cap: f32,
    }
);
parameters!(
    /// Of `router`.
    Router {
        rows: u32, width4: u32, stride4: u32, hidden: u32, options: u32, allowed: u32, decisions: u32, before: u32, words: u32,
        epsilon: f32,
    }
);
parameters!(
    /// Of `skip_router`.
    SkipRouter {
        rows: u32, width4: u32, stride4: u32, hidden: u32, vectors: u32, second: u32, biases: u32, scores: u32, masks: u32, candidates: u32,
        epsilon: f32,
    }
);
parameters!(
    /// Of `head_norm`.
    HeadNorm {
        rows: u32, heads: u32, queries: u32, each: u32, width4: u32, stride4: u32, first4: u32, layers: u32, layer4: u32,
        weight4: u32, epsilon: f32,
    }
);
parameters!(
    /// Of `expert_choice`.
    ExpertChoice { rows: u32, experts: u32, stride: u32, top: u32, layers: u32, chosen: u32, scale: f32 }
);
parameters!(
    /// Of `expert_sum`.
    ExpertSum { rows: u32, width4: u32, from_stride4: u32, to_stride4: u32, top: u32 }
);
parameters!(
    /// Of `finite_rows`.
    FiniteRows { rows: u32, width4: u32, stride4: u32, note: u32 }
);
parameters!(
    /// Of `probe_turns`.
    ProbeTurns { turns: u32 }
);
parameters!(
    /// Of `place_rows`.
    PlaceRows {
        rows: u32, layers: u32, slots: u32, hop: u32, bucket: u32, decisions: u32, alive: u32, bases: u32, counts: u32, lists_at: u32,
        layers_at: u32, entries_at: u32, seen_at: u32, weights_at: u32,
    }
);

/// A shader with the members of its parameters (name and offset).
pub type ShaderMembers = (Shader, Vec<(&'static str, u32)>);

/// All shaders.
pub fn all() -> Vec<ShaderMembers> {
    vec![
        (ACTIVATION, Activation::members()),
        (ATTENTION_DECODE, Attention::members()),
        (ATTENTION_PREFILL, Attention::members()),
        (DIVERGENCE, Divergence::members()),
        (EMBED_ROWS, EmbedRows::members()),
        (EXPERT_CHOICE, ExpertChoice::members()),
        (EXPERT_SUM, ExpertSum::members()),
        (FINITE_ROWS, FiniteRows::members()),
        (GATED_ACTIVATION, Activation::members()),
        (GATHER_ROWS, MoveRows::members()),
        (HEAD_NORM, HeadNorm::members()),
        (KV_WRITE, KvWrite::members()),
        (LAYER_NORM, Norm::members()),
        (MATMUL_TILES, MatMul::members()),
        (MATVEC_F16, MatMul::members()),
        (MATVEC_F32, MatMul::members()),
        (MATVEC_Q4, MatMul::members()),
        (MATVEC_Q8, MatMul::members()),
        (PLACE_ROWS, PlaceRows::members()),
        (PROBE_COPY, Vec::new()),
        (PROBE_EMPTY, Vec::new()),
        (PROBE_FMA, Vec::new()),
        (PROBE_READ, Vec::new()),
        (PROBE_TURNS, ProbeTurns::members()),
        (RESIDUAL_ADD, ResidualAdd::members()),
        (RESIDUAL_ORACLE, ResidualOracle::members()),
        (RMS_NORM, Norm::members()),
        (ROPE, Rope::members()),
        (ROUTER, Router::members()),
        (SAMPLE, Sample::members()),
        (SAMPLE_PARTS, Sample::members()),
        (SCATTER_ROWS, MoveRows::members()),
        (SKIP_ROUTER, SkipRouter::members()),
    ]
}
