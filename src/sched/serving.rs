//! How a server forms batches: the settings that engines have.

use crate::error::InputError;
use serde::{Deserialize, Serialize};

/// How a server forms batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// Most tokens in a pass.
    pub max_batched_tokens: u32,
    /// Most sequences that run at once.
    pub max_sequences: u32,
    /// Whether a prompt may be cut into chunks that fill what the budget leaves.
    pub chunked_prefill: bool,
    /// Entries in a KV block, a power of two. 16 as in vLLM (`--block-size`).
    #[serde(default = "block_tokens")]
    pub kv_block_tokens: u32,
    /// KV blocks of so many tokens over all layers, as engines count and print them. Absent: what weights and activations leave of the
    /// device's memory.
    #[serde(default)]
    pub kv_blocks: Option<u32>,
    /// Share of the memory that the driver reports which the server may fill, as engines take it (vLLM's and TensorRT-LLM's flags of this
    /// name). Absent: the profile's `memory.usable_fraction`.
    #[serde(default)]
    pub gpu_memory_utilization: Option<f64>,
    /// Share of the KV blocks that must stay free when a sequence is admitted, so that those that run can grow.
    /// 0.01 as in vLLM's block manager.
    #[serde(default = "watermark")]
    pub watermark: f64,
    /// Most tokens of a sequence, prompt and output (vLLM's `--max-model-len`). Absent: what the model's positions allow.
    #[serde(default)]
    pub max_model_len: Option<u32>,
    /// What becomes of a request that is longer.
    #[serde(default)]
    pub beyond_context: BeyondContext,
    /// Who gets the budget first.
    #[serde(default)]
    pub first: First,
    /// Who of those that wait is next.
    #[serde(default)]
    pub queue: Queueing,
    /// When a sequence may begin.
    #[serde(default)]
    pub admission: Admission,
    /// What becomes of the KV entries of a sequence that is preempted.
    #[serde(default)]
    pub preemption: Preemption,
    /// Whether the host forms a pass while the one before runs, so that its step costs only what lasts longer than that pass (vLLM's
    /// `async_scheduling`).
    #[serde(default)]
    pub async_scheduling: bool,
    /// Whether KV entries of prompts serve later requests with the same beginning, and those of a preempted sequence itself; absent:
    /// they go with their request.
    #[serde(default)]
    pub prefix_caching: Option<PrefixCaching>,
    /// How the next token is chosen.
    #[serde(default)]
    pub sampling: Sampling,
}

/// How the next token is chosen from the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// As the engine did whose sampler the profile has: vLLM's with top-k and top-p, which sorts. One pass over the logits where the profile has
    /// none.
    #[default]
    Profile,
    /// The most likely token: one pass over the logits.
    Greedy,
}

/// What becomes of the KV entries of a sequence that is preempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Preemption {
    /// They are thrown away and computed again when it returns (vLLM's default).
    #[default]
    Recompute,
    /// They go to the host, whole blocks, and come back when it returns, over the link that layers come over. Where the
    /// host has no room left, where the sequence uses a shared prefix, and under `queued`, they are computed again.
    Swap {
        /// Room on the host, gigabytes (10^9).
        host_gb: f64,
    },
}

/// Prompt blocks whose KV entries outlive their request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixCaching {
    /// Prompt tokens that a hash of a request stands for: 512 in Mooncake's traces.
    pub block_tokens: u32,
}

fn block_tokens() -> u32 {
    16
}

fn watermark() -> f64 {
    0.01
}

/// What becomes of a request whose prompt and output are longer than a sequence may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeyondContext {
    /// It is an error, as for a prompt in vLLM.
    #[default]
    Refuse,
    /// Its output ends there; a prompt that is longer alone is cut first.
    Cut,
    /// It runs as if the model had the positions.
    Run,
}

/// Who gets the token budget of a pass first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum First {
    /// Generated tokens; prompts fill what is left (Sarathi-Serve, arXiv 2403.02310; vLLM's V1 engine).
    #[default]
    Decode,
    /// Prompts. Generated tokens share the pass only with `chunked_prefill`; else a pass with prompts is theirs alone
    /// (Orca's and vLLM's first schedulers).
    Prefill,
}

/// Who of those that wait is next. Equal ranks go by arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queueing {
    /// First come, first served.
    #[default]
    Fcfs,
    /// The lowest number in the request's priority.
    Priority,
    /// The shortest prompt.
    ShortestPrompt,
}

/// When a sequence may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// When the blocks of its first chunk are free above the watermark. Sequences that cannot grow later preempt the last in
    /// line, whose entries are computed again when it returns.
    #[default]
    AsItComes,
    /// As `AsItComes`, but when the blocks of its whole prompt are free (vLLM's `scheduler_reserve_full_isl`).
    WholePrompt,
    /// When the blocks of its whole life are free, as if its length and routes were known. Nobody is ever preempted.
    Whole,
}

impl Serving {
    /// A server with these bounds, and what engines do by default otherwise.
    pub fn new(max_batched_tokens: u32, max_sequences: u32, chunked_prefill: bool) -> Self {
        Serving {
            max_batched_tokens,
            max_sequences,
            chunked_prefill,
            kv_block_tokens: block_tokens(),
            kv_blocks: None,
            gpu_memory_utilization: None,
            watermark: watermark(),
            max_model_len: None,
            beyond_context: BeyondContext::default(),
            first: First::default(),
            queue: Queueing::default(),
            admission: Admission::default(),
            preemption: Preemption::default(),
            async_scheduling: false,
            prefix_caching: None,
            sampling: Sampling::default(),
        }
    }

    /// # Errors
    /// A number out of its range, with its key.
    pub fn check(&self) -> Result<(), InputError> {
        let bad = |key: &str, found: String, expected: &str| {
            Err(InputError::expected(expected).key(format!("serving.{key}")).found(found))
        };
        if self.max_batched_tokens == 0 || self.max_batched_tokens > 1 << 20 {
            return bad("max_batched_tokens", self.max_batched_tokens.to_string(), "1 to 1048576 tokens");
        }
        if self.max_sequences == 0 || self.max_sequences > 1 << 16 {
            return bad("max_sequences", self.max_sequences.to_string(), "1 to 65536 sequences");
        }
        if self.max_sequences > self.max_batched_tokens {
            let expected = "at most max_batched_tokens, as each running sequence has a token in a pass";
            return bad("max_sequences", self.max_sequences.to_string(), expected);
        }
        if !self.kv_block_tokens.is_power_of_two() || self.kv_block_tokens > 1 << 12 {
            return bad("kv_block_tokens", self.kv_block_tokens.to_string(), "a power of two from 1 to 4096");
        }
        if self.max_model_len == Some(0) {
            return bad("max_model_len", "0".into(), "at least one token");
        }
        if self.kv_blocks == Some(0) {
            return bad("kv_blocks", "0".into(), "at least one block");
        }
        if let Some(share) = self.gpu_memory_utilization
            && !(share > 0.0 && share <= 1.0)
        {
            return bad("gpu_memory_utilization", share.to_string(), "a number above 0, at most 1");
        }
        if let Preemption::Swap { host_gb } = self.preemption
            && !(0.0..=1e6).contains(&host_gb)
        {
            return bad("preemption.host_gb", host_gb.to_string(), "0 to 1e6 gigabytes");
        }
        if let Some(PrefixCaching { block_tokens }) = self.prefix_caching
            && !(1..=1 << 16).contains(&block_tokens)
        {
            return bad("prefix_caching.block_tokens", block_tokens.to_string(), "1 to 65536 tokens");
        }
        if !(0.0..=0.5).contains(&self.watermark) {
            return bad("watermark", self.watermark.to_string(), "a share of the KV blocks from 0 to 0.5");
        }
        Ok(())
    }

    /// Bytes on the host for KV entries.
    pub fn host_bytes(&self) -> u64 {
        match self.preemption {
            Preemption::Recompute => 0,
            Preemption::Swap { host_gb } => (host_gb * 1e9) as u64,
        }
    }

    /// Tokens of a prompt block, where prefixes are shared.
    pub fn prefix_block(&self) -> Option<u32> {
        self.prefix_caching.map(|caching| caching.block_tokens)
    }

    /// How many of the next `unit` tokens of a sequence fit the budget.
    pub(super) fn chunk(&self, unit: u32, budget: u32) -> u32 {
        if unit <= budget {
            unit
        } else if self.chunked_prefill {
            budget
        } else {
            0
        }
    }
}
