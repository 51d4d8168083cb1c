//! Attention over vectors that keys and values are made from (DeepSeek-V2, arXiv 2405.04434, section 2.1).

use super::Attention;
use super::work::{QUERY_FLOPS, SOFTMAX_FLOPS, Traffic};
use crate::units::Dtype;
use serde::{Deserialize, Serialize};

/// Shape of a call whose keys and values are of different widths, or parts of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LatentAttention {
    /// Query tokens.
    pub rows: u32,
    /// Query heads.
    pub heads: u16,
    /// Heads of entries: 1 where all queries attend to the same vectors.
    pub kv_heads: u16,
    /// Width of a query and a key.
    pub key_dim: u16,
    /// Width of a value.
    pub value_dim: u16,
    /// Whether a value is the first part of its key, and is not read apart.
    pub values_in_keys: bool,
    /// Whether each sequence has one query row.
    pub decode: bool,
    /// Visible (query token, entry) pairs: the scores of one head.
    pub pairs: u64,
    /// Distinct entries read, over all sequences.
    pub entries: u64,
    /// Format of queries and results.
    pub activations: Dtype,
    /// Format of the entries.
    pub kv: Dtype,
}

impl LatentAttention {
    /// The ordinary call with heads as wide as keys and values on average, for constants that know no other.
    pub(super) fn as_plain(&self) -> Attention {
        let LatentAttention { rows, heads, kv_heads, decode, pairs, entries, activations, kv, .. } = *self;
        let head_dim = (self.key_dim / 2 + self.value_dim / 2).max(1);
        Attention {
            rows,
            heads,
            kv_heads,
            head_dim,
            decode,
            beside: 0,
            waits: 0,
            pairs,
            entries,
            activations,
            kv,
        }
    }

    /// What the call must do: as an ordinary one, with widths of its own for scores and for sums.
    pub(super) fn work(&self) -> Traffic {
        let [heads, key, value] = [self.heads, self.key_dim, self.value_dim].map(u64::from);
        let entry = key + if self.values_in_keys { 0 } else { value };
        let queries = u64::from(self.rows) * heads;
        Traffic {
            flops: self.pairs * heads * (2 * (key + value) + SOFTMAX_FLOPS)
                + QUERY_FLOPS / 2 * queries * (key + value),
            kv_bytes: self.kv.bytes(self.entries * u64::from(self.kv_heads) * entry),
            activation_bytes: self.activations.bytes(queries * key) + self.activations.bytes(queries * value),
            weight_bytes: 0,
        }
    }
}
