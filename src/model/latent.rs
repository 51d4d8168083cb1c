//! Keys and values made from one narrow vector a token: multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

use super::json::Object;
use super::{HEADS, Model, WIDTH};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Widths of latent attention. What is cached of a token is `kv_rank + rope_dim` values a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latent {
    /// Width of the vector that queries are made from; 0: they are made from the stream.
    pub q_rank: u64,
    /// Width of the vector that keys and values are made from.
    pub kv_rank: u64,
    /// Width of a query's and a key's part without position.
    pub nope_dim: u64,
    /// Width of the part that is rotated; all heads share one key of it.
    pub rope_dim: u64,
    /// Width of a value.
    pub value_dim: u64,
    /// What chooses the entries that attention sees (DeepSeek-V3.2); `None`: it sees all.
    pub indexer: Option<Indexer>,
}

/// A small attention that scores all entries, of which the best are attended (DeepSeek-V3.2, "DeepSeek Sparse Attention").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Indexer {
    /// Its query heads; one key serves all.
    pub heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Entries that are attended at most.
    pub most_entries: u64,
    /// Layers that have one; the others use the choice of the layer before.
    pub layers: u32,
}

impl Latent {
    /// Values of a layer's attention matrices.
    pub(super) fn matrix(&self, hidden: u64, heads: u64) -> u64 {
        let q_head = self.nope_dim + self.rope_dim;
        let queries = match self.q_rank {
            0 => hidden * heads * q_head,
            rank => hidden * rank + rank * heads * q_head,
        };
        queries
            + hidden * (self.kv_rank + self.rope_dim)
            + self.kv_rank * heads * (self.nope_dim + self.value_dim)
            + heads * self.value_dim * hidden
    }

    /// Values of the norms inside of a layer's attention.
    pub(super) fn norm(&self) -> u64 {
        self.q_rank + self.kv_rank
    }

    /// Values that are cached of a token at a layer.
    pub fn entry(&self) -> u64 {
        self.kv_rank + self.rope_dim
    }
}

impl Indexer {
    /// Parameters: queries from the query's latent vector, one key with a layer norm, a weight a head.
    pub(super) fn params(&self, hidden: u64, q_rank: u64) -> u64 {
        q_rank * self.heads * self.head_dim + hidden * self.head_dim + 2 * self.head_dim + hidden * self.heads
    }

    /// Bytes that are cached of a token: an 8-bit value each and a 32-bit scale for 128 (DeepSeek-V3.2, `fp8_index`).
    pub fn entry_bytes(&self) -> u64 {
        self.head_dim + 4 * self.head_dim.div_ceil(128)
    }
}

/// Reads the keys of DeepSeek's attention.
pub(super) fn read(model: &mut Model, config: &Object) -> Result<()> {
    let nope_dim = config.number("qk_nope_head_dim", HEADS)?;
    let rope_dim = config.number("qk_rope_head_dim", HEADS)?;
    let q_rank = config.number_or("q_lora_rank", 0, WIDTH)?;
    let indexer = if config.get("index_topk").is_some() {
        let shared = |kinds: &Vec<serde_json::Value>| kinds.iter().filter(|kind| *kind == "full").count();
        let own = config.get("indexer_types").and_then(serde_json::Value::as_array).map(shared);
        Some(Indexer {
            heads: config.number("index_n_heads", HEADS)?,
            head_dim: config.number("index_head_dim", HEADS)?,
            most_entries: config.number("index_topk", u64::MAX)?,
            layers: own.map_or(model.layers, |own| (own as u32).min(model.layers)),
        })
    } else {
        None
    };
    model.latent = Some(Latent {
        q_rank,
        kv_rank: config.number("kv_lora_rank", WIDTH)?,
        nope_dim,
        rope_dim,
        value_dim: config.number("v_head_dim", HEADS)?,
        indexer,
    });
    model.head_dim = nope_dim + rope_dim;
    model.kv_heads = model.heads;
    Ok(())
}
