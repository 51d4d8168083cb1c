//! What each of several engines did, and how evenly they shared the work.

use super::usage::{EngineRole, ReplicaUse};
use super::{Handover, Ledger};
use crate::units::PS_PER_S;
use serde::Serialize;

impl ReplicaUse {
    pub(super) fn of(part: EngineRole, ledger: &Ledger) -> Self {
        ReplicaUse {
            part,
            requests: ledger.requests.len() as u64,
            prompt_tokens: ledger.prompt_tokens,
            output_tokens: ledger.output_tokens,
            pass_ps: ledger.pass_ps,
            busy_ps: ledger.busy_ps,
            last: ledger.makespan,
            peak_blocks: ledger.kv.peak_blocks,
            handover: ledger.handover,
            rounds: ledger.rounds,
        }
    }
}

/// How several engines shared the work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplicaSummary {
    /// Engines.
    pub count: u32,
    /// The most that one of them had, over the mean: 1 where all had the same.
    pub imbalance: Imbalance,
    /// KV entries that went from engine to engine; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_transfer: Option<KvTransfer>,
    /// Of each.
    pub each: Vec<Replica>,
}

/// KV entries between engines that pass prompts and those that generate. Bytes are those of one device of each engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/METRICS.md defines each key")]
pub struct KvTransfer {
    pub requests: u64,
    pub bytes: f64,
    pub mean_s: f64,
    pub mean_wait_s: f64,
}

/// The most over the mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Imbalance {
    /// Of requests.
    pub requests: f64,
    /// Of prompt tokens that passed and output tokens.
    pub tokens: f64,
    /// Of device time.
    pub busy: f64,
}

/// What one of several engines did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/METRICS.md defines each key")]
pub struct Replica {
    pub part: EngineRole,
    pub requests: u64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub pass_time_s: f64,
    pub busy_s: f64,
    pub last_s: f64,
    pub kv_peak_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_sent_bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_received_bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dummy_passes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_s: Option<f64>,
}

impl ReplicaSummary {
    /// None for one engine.
    pub fn of(ledger: &Ledger) -> Option<Self> {
        let all = &ledger.replicas;
        let imbalance = |of: &dyn Fn(&ReplicaUse) -> u128| {
            let (most, sum) = (all.iter().map(of).max().unwrap_or(0), all.iter().map(of).sum::<u128>());
            if sum > 0 { most as f64 * all.len() as f64 / sum as f64 } else { 1.0 }
        };
        let Handover { requests, received_bytes, link_ps, waited_ps, .. } = ledger.handover;
        let mean_s = |ps: u128| ps as f64 / PS_PER_S as f64 / requests.max(1) as f64;
        let apart = all.iter().any(|one| one.part != EngineRole::Replica);
        let kv_transfer = apart.then(|| KvTransfer {
            requests,
            bytes: received_bytes as f64,
            mean_s: mean_s(link_ps),
            mean_wait_s: mean_s(waited_ps),
        });
        let each = |one: &ReplicaUse| Replica {
            part: one.part,
            requests: one.requests,
            prompt_tokens: one.prompt_tokens,
            output_tokens: one.output_tokens,
            pass_time_s: one.pass_ps as f64 / PS_PER_S as f64,
            busy_s: one.busy_ps as f64 / PS_PER_S as f64,
            last_s: one.last.s(),
            kv_peak_bytes: one.peak_blocks * ledger.kv.block_bytes,
            kv_sent_bytes: (one.part == EngineRole::Prefill).then_some(one.handover.sent_bytes as f64),
            kv_received_bytes: (one.part == EngineRole::Decode).then_some(one.handover.received_bytes as f64),
            dummy_passes: one.rounds.map(|rounds| rounds.dummy_passes),
            waited_s: one.rounds.map(|rounds| rounds.waited_ps as f64 / PS_PER_S as f64),
        };
        (!all.is_empty()).then(|| ReplicaSummary {
            count: ledger.engines(),
            imbalance: Imbalance {
                requests: imbalance(&|one| one.requests.into()),
                tokens: imbalance(&|one| u128::from(one.prompt_tokens) + u128::from(one.output_tokens)),
                busy: imbalance(&|one| one.busy_ps),
            },
            kv_transfer,
            each: all.iter().map(each).collect(),
        })
    }
}
