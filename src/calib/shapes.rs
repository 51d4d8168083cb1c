//! Which calls to measure on an adapter: every kernel that the executor runs, on ragged shapes around its tiles, small enough to
//! take minutes. Families of shapes (widths of a matrix, a head configuration, the width of rows) are whole, so that a fit can keep
//! whole ones aside.

use crate::kernel::{Attention, Density, GROUP_SLICE, Kernel};
use crate::units::Dtype;

/// A call to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// What.
    pub kernel: Kernel,
    /// Sequences, all alike, that the rows of an attention call belong to; 1 for other calls.
    pub sequences: u32,
}

/// Inner width and columns of products: those of small language models, and ragged ones.
const PRODUCTS: [(u32, u32); 12] = [
    (576, 960),
    (576, 576),
    (576, 384),
    (576, 3072),
    (1536, 576),
    (288, 864),
    (768, 1000),
    (1024, 333),
    (352, 1500),
    (2048, 320),
    (960, 700),
    (1280, 1280),
];
/// Rows of products, around tiles of 8, 16 and 32.
const ROWS: [u32; 14] = [1, 2, 3, 4, 6, 8, 11, 16, 21, 32, 33, 57, 90, 160];
/// Rows of grouped products with groups.
const GROUPED: [(u32, u32); 6] = [(2, 2), (5, 3), (8, 8), (9, 5), (12, 12), (30, 5)];
/// Vocabularies over which heads go, with the inner width, in 8 bits as files of 4-bit models keep them.
const HEADS: [(u32, u32); 3] = [(576, 49152), (288, 32000), (768, 20011)];
/// Rows of heads.
const HEAD_ROWS: [u32; 6] = [1, 2, 4, 8, 12, 16];
/// Widths of rows for kernels that pass over rows once.
const WIDTHS: [u32; 6] = [288, 576, 768, 1000, 1536, 2304];
/// Rows of these.
const SMALL_ROWS: [u32; 8] = [1, 2, 4, 8, 12, 30, 100, 300];
/// Query heads, key and value heads, width of a head.
const HEAD_SHAPES: [(u16, u16, u16); 9] = [
    (9, 3, 64),
    (6, 6, 48),
    (12, 4, 64),
    (8, 2, 128),
    (15, 5, 64),
    (4, 4, 80),
    (16, 8, 32),
    (6, 2, 96),
    (12, 12, 24),
];
/// Generated tokens: sequences, entries that each sees.
const DECODE: [(u32, u32); 14] = [
    (1, 1),
    (1, 9),
    (1, 40),
    (1, 77),
    (1, 130),
    (1, 333),
    (2, 50),
    (3, 160),
    (4, 33),
    (5, 90),
    (8, 61),
    (8, 200),
    (12, 20),
    (12, 100),
];
/// Prompts: sequences, rows of each, entries before them.
const PREFILL: [(u32, u32, u32); 13] = [
    (1, 2, 0),
    (1, 7, 0),
    (1, 17, 0),
    (1, 33, 0),
    (1, 61, 0),
    (1, 128, 0),
    (1, 200, 0),
    (2, 30, 0),
    (3, 45, 0),
    (4, 16, 0),
    (8, 16, 0),
    (12, 16, 0),
    (1, 30, 60),
];

const ACTIVATIONS: Dtype = Dtype::F32;

impl Probe {
    /// Which shapes it is kept aside or fitted with: the widths of a matrix or of rows, a head configuration.
    pub fn family(&self) -> String {
        match self.kernel {
            Kernel::MatMul { inner, columns, .. } | Kernel::GroupedMatMul { inner, columns, .. } => {
                format!("{inner} {columns}")
            }
            Kernel::Attention(shape) => format!("{} {} {}", shape.heads, shape.kv_heads, shape.head_dim),
            Kernel::LatentAttention(shape) => {
                format!("{} {} {} {}", shape.heads, shape.kv_heads, shape.key_dim, shape.value_dim)
            }
            Kernel::Rope { heads, head_dim, .. } => format!("{heads} {head_dim}"),
            Kernel::Router { width, hidden, options, .. } => format!("{width} {hidden} {options}"),
            Kernel::Sample { vocabulary, .. } => format!("{vocabulary}"),
            Kernel::ExpertSum { width, top, .. } => format!("{top} x {width}"),
            Kernel::ExpertLayer(shape) => {
                format!("{} {} {} {}", shape.width, shape.inner, shape.top, shape.count)
            }
            Kernel::Embed { width, .. }
            | Kernel::Norm { width, .. }
            | Kernel::KvWrite { width, .. }
            | Kernel::Quantise { width, .. }
            | Kernel::Activation { width, .. }
            | Kernel::ResidualAdd { width, .. }
            | Kernel::Gather { width, .. }
            | Kernel::Scatter { width, .. } => format!("{width}"),
        }
    }
}

/// All calls for weights in these formats, activations and KV entries in 32 bits.
pub fn shapes(formats: &[Dtype]) -> Vec<Probe> {
    let mut kernels = Vec::new();
    for &weights in formats {
        products(weights, &mut kernels);
    }
    rows(&mut kernels);
    let mut probes: Vec<Probe> = kernels.into_iter().map(|kernel| Probe { kernel, sequences: 1 }).collect();
    attention(&mut probes);
    probes
}

fn products(weights: Dtype, out: &mut Vec<Kernel>) {
    let (activations, density) = (ACTIVATIONS, Density::Dense);
    for (inner, columns) in PRODUCTS {
        out.extend(ROWS.map(|rows| Kernel::product(rows, [inner, columns], weights, activations, density)));
        out.extend(GROUPED.map(|(rows, groups)| {
            let each = |group| rows / groups + u32::from(group < rows % groups);
            let slices = (0..groups).map(|group| each(group).div_ceil(GROUP_SLICE)).sum();
            Kernel::grouped_product([rows, groups, slices], [inner, columns], weights, activations, density)
        }));
    }
    if weights == Dtype::Int8 {
        for (inner, columns) in HEADS {
            out.extend(
                HEAD_ROWS.map(|rows| Kernel::product(rows, [inner, columns], weights, activations, density)),
            );
        }
    }
}

fn rows(out: &mut Vec<Kernel>) {
    let (activations, kv) = (ACTIVATIONS, ACTIVATIONS);
    for width in WIDTHS {
        for rows in SMALL_ROWS {
            out.extend([false, true].map(|layer_norm| Kernel::Norm {
                rows,
                width,
                groups: 1,
                layer_norm,
                activations,
            }));
            out.extend([false, true].map(|gated| Kernel::Activation { rows, width, gated, activations }));
            out.push(Kernel::ResidualAdd { rows, width, activations });
            out.push(Kernel::Gather { rows, width, activations });
            out.push(Kernel::Scatter { rows, width, activations });
            out.push(Kernel::KvWrite { rows, width, activations, kv });
            if width % 64 == 0 {
                out.push(Kernel::Embed { rows, width, table: Dtype::Int8, activations });
            }
        }
    }
    for (heads, _, head_dim) in HEAD_SHAPES {
        let (heads, head_dim) = (u32::from(heads) + 3, head_dim.into());
        out.extend(SMALL_ROWS.map(|rows| Kernel::Rope { rows, heads, head_dim, activations }));
    }
    for vocabulary in [8192, 20011, 32000, 49152, 65000] {
        out.extend(HEAD_ROWS.map(|rows| Kernel::Sample { rows, vocabulary, activations }));
    }
    let weights = ACTIVATIONS;
    for (width, hidden, options) in [(576, 0, 31), (576, 32, 31), (768, 64, 13), (288, 128, 33)] {
        let router = |rows| Kernel::Router { rows, width, hidden, options, weights, activations };
        out.extend(HEAD_ROWS.map(router));
    }
}

fn attention(out: &mut Vec<Probe>) {
    for (heads, kv_heads, head_dim) in HEAD_SHAPES {
        let probe = |sequences: u32, rows: u32, before: u32, decode: bool| {
            let (s, r, b) = (u64::from(sequences), u64::from(rows), u64::from(before));
            let (activations, kv) = (ACTIVATIONS, ACTIVATIONS);
            let (pairs, entries) = (s * (r * b + r * (r + 1) / 2), s * (b + r));
            let (rows, beside) = (sequences * rows, 0);
            let shape = Attention {
                rows,
                heads,
                kv_heads,
                head_dim,
                decode,
                beside,
                waits: 0,
                pairs,
                entries,
                activations,
                kv,
            };
            Probe { kernel: Kernel::Attention(shape), sequences }
        };
        out.extend(DECODE.map(|(sequences, seen)| probe(sequences, 1, seen - 1, true)));
        out.extend(PREFILL.map(|(sequences, rows, before)| probe(sequences, rows, before, false)));
    }
}
