//! One of several equal parts of a network that devices compute together: tensor parallelism, as Megatron-LM cuts layers (Shoeybi et al., arXiv
//! 1909.08053, section 3) and serving engines do.
//!
//! Query, key, value and up matrices are cut by columns, output and down matrices by rows, so that a branch needs one all-reduce of its
//! result. Heads of keys and values of which there are fewer than devices are kept twice or more. The tables of embedding and head are cut by
//! rows. Norms, routers and the vector of latent attention are whole on every device.

use super::{Experts, Model, QkNorm};
use crate::error::{Error, InputError, Result};

impl Model {
    /// One of `parts` equal parts. `outputs` and the vocabulary stay those of the whole.
    ///
    /// # Errors
    /// Heads or widths that do not go evenly into the parts, and what no part can do alone.
    pub fn shard(&self, parts: u32) -> Result<Model> {
        assert!(self.shards == 1, "a part is not cut again");
        let count = u64::from(parts.max(1));
        if count == 1 {
            return Ok(self.clone());
        }
        let refuse =
            |what: String| -> Error { InputError::expected(what).key("parallel.tensor").found(parts).into() };
        let even = |what: &str, value: u64| match value % count {
            0 => Ok(value / count),
            _ => Err(refuse(format!("a divisor of the {value} {what} of {}", self.name))),
        };
        if self.qk_norm == QkNorm::Whole {
            let what = format!("1, as {} norms queries and keys over all heads together", self.name);
            return Err(refuse(what));
        }
        if self.latent.is_some_and(|latent| latent.indexer.is_some()) {
            let what = format!("1, as a small attention chooses the entries of {}", self.name);
            return Err(refuse(what));
        }
        let heads = even("query heads", self.heads)?;
        let kv_heads = match self.kv_heads {
            // Latent attention makes keys and values of each query head from the one vector that every device keeps.
            _ if self.latent.is_some() => heads,
            fewer if fewer < count => {
                if !count.is_multiple_of(fewer) {
                    let what = format!("a multiple of the {fewer} key and value heads of {}", self.name);
                    return Err(refuse(what));
                }
                1
            }
            kv_heads => even("key and value heads", kv_heads)?,
        };
        let experts = match self.experts {
            None => None,
            Some(experts) => Some(Experts {
                width: even("values of an expert", experts.width)?,
                shared_width: even("values of the shared experts", experts.shared_width)?,
                ..experts
            }),
        };
        // A model with experts in every layer may say a width that no layer has.
        let dense = self.layer_kinds().any(|kind| !kind.experts);
        let ffn = if dense { even("values of the feed-forward part", self.ffn)? } else { self.ffn };
        Ok(Model { heads, kv_heads, experts, ffn, shards: parts, ..self.clone() })
    }

    /// What one of so many devices has that share experts and sequences: its part of the experts of each layer, and all else
    /// (DeepSeek-V3, arXiv 2412.19437, section 3.4, calls it data-parallel attention and expert parallelism).
    ///
    /// # Errors
    /// A model without experts, experts that do not go evenly into the devices, what is a part already.
    pub fn spread_over(&self, devices: u32) -> Result<Model> {
        assert!(self.spread == 1, "experts are spread once");
        if devices <= 1 {
            return Ok(self.clone());
        }
        let refuse = |what: String| -> Error {
            InputError::expected(what).key("parallel.experts").found(devices).into()
        };
        let Some(experts) = self.experts else {
            return Err(refuse(format!("1, as {} has no experts", self.name)));
        };
        if !experts.count.is_multiple_of(devices.into()) {
            return Err(refuse(format!("a divisor of the {} experts of {}", experts.count, self.name)));
        }
        if self.shards > 1 {
            return Err(refuse(
                "1 beside parallel.tensor: layers cut and experts spread at once are not modelled".into(),
            ));
        }
        Ok(Model { spread: devices, ..self.clone() })
    }

    /// The same, where each of the devices has sequences and a cache of its own: attention is data-parallel in whole engines (vLLM:
    /// `--data-parallel-size` with `--enable-expert-parallel`).
    pub fn with_own_sequences(self) -> Model {
        Model { own_sequences: true, ..self }
    }

    /// Devices over which the sequences of an engine are spread.
    pub fn sequence_spread(&self) -> u32 {
        if self.own_sequences { 1 } else { self.spread }
    }

    /// Rows of a table that lie on one device.
    pub(super) fn shard_of(&self, rows: u64) -> u64 {
        rows.div_ceil(self.shards.into())
    }

    /// Rows of the head that one device computes.
    pub fn own_outputs(&self) -> u64 {
        self.shard_of(self.outputs)
    }
}
