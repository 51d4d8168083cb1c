//! Who arrives, and which layers each token takes: the router trace, version 1 (`docs/TRACE_FORMAT.md`).
//!
//! A trace says nothing about batches; the scheduler decides those again in every run. Everything is a trace:
//! dense is a route that takes every layer, static pruning one route for all tokens, early exit a prefix.

use crate::error::{InputError, Result};
use crate::units::SimTime;
use lines::{in_key, in_line};
use serde::{Deserialize, Serialize};
use std::fmt;

mod assemble;
mod cut;
mod header;
mod ids;
mod join;
pub(crate) mod json;
mod jsonl;
pub mod limits;
pub(crate) mod lines;
mod names;
#[cfg(feature = "parquet")]
mod parquet;
mod pattern;
mod placement;
mod reader;
mod route;
mod rules;
mod stats;
mod stretch;
pub mod synth;
mod taken;
mod transitions;
mod writer;
pub use join::{Joining, Prefixes, join};
#[cfg(feature = "parquet")]
pub(crate) use parquet::properties as parquet_properties;
pub use pattern::{Ids, RouteIds};
pub use placement::{Fares, Hops, Placement};
pub use reader::{Reader, expert_counts, open, read};
pub use route::{Modules, Route, RouteTable, Step};
pub use stats::Stats;
pub use stretch::{draw_routes, stretch};
pub use taken::{TAKEN_LAYERS, Taken};
pub use transitions::transitions;
pub use writer::{Writer, write};

/// Largest layer pool that a trace may name.
pub const MOST_LAYERS: u32 = 65_535;

/// The first line of a trace: what produced it.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Name of the model it was recorded on.
    pub model: String,
    /// Pool size: layer ids are `0..layers`.
    pub layers: u32,
    /// Whether routes go through the pool in ascending order.
    pub order: Order,
    /// Whether a token may visit a layer more than once.
    pub reuse: bool,
    /// How far a routing decision reaches.
    pub granularity: Granularity,
    /// What a token leaves in the KV cache of a layer that it skips, unless a step says otherwise.
    pub kv: KvAction,
    /// The router.
    pub router: Router,
    /// Longest route allowed, where the recorder had such a bound.
    pub max_hops: Option<u32>,
    /// Free text: how it was recorded.
    pub source: String,
}

/// Order of the layers in a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Ascending layer ids (equal ids where `reuse` holds).
    Monotone,
    /// Any order.
    Any,
}

/// How far one routing decision reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// Each token decides.
    Token,
    /// One decision for a request.
    Sequence,
    /// One decision for a position, whatever the request.
    Position,
    /// One decision for all tokens that run together.
    Batch,
}

/// What later tokens can attend to at a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvAction {
    /// Steps that run leave this layer's own K/V; skipped layers leave nothing.
    Write,
    /// K/V projected from the token's current state although the block is skipped (FlexiDepth, SwiftKV).
    ProjectOnly,
    /// K/V projected later, from the state the token left with (CALM, DREX).
    CopyState,
    /// The K/V of an earlier layer or recursion: no new bytes (Mixture-of-Recursions).
    Share,
    /// A hole, masked out of later attention (Mixture-of-Depths, D-LLM).
    None,
    /// Nothing until a later recompute run fills it (EE-LLM, FREE, DEED).
    Deferred,
    /// One cache for all layers; every visited step appends one entry (Radial Networks).
    Unified,
}

/// The header's `router` object. Keys that the format does not name are kept in `extra`, and shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// How it decides.
    pub kind: RouterKind,
    /// When it decides; absent where the recorder did not say.
    pub when: Option<RouterWhen>,
    /// Width of the router's MLP, where it has one.
    pub hidden: Option<u32>,
    /// Where it decides.
    pub device: RouterDevice,
    /// Other keys, as written.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Router {
    /// A router that costs nothing: `none` or `fixed`.
    pub fn costless(kind: RouterKind) -> Self {
        Router { kind, when: None, hidden: None, device: RouterDevice::Gpu, extra: serde_json::Map::new() }
    }
}

/// How a router decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterKind {
    /// There is none: dense.
    None,
    /// Decided once and for all: static pruning.
    Fixed,
    /// A confidence against a threshold.
    Threshold,
    /// A threshold on something only a recorder can know, such as the residual ratio of a branch that is then skipped.
    OracleThreshold,
    /// A small MLP.
    Mlp,
    /// The layer chooses its tokens (Mixture-of-Depths).
    ExpertChoice,
}

/// When a router decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterWhen {
    /// Before each step of the route.
    PerHop,
    /// Before each layer of the pool, skipped ones included.
    PerLayer,
    /// Once a token, after the embedding.
    Upfront,
    /// Once a request.
    PerSequence,
}

/// Where a router runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterDevice {
    /// On the accelerator.
    Gpu,
    /// On the host: each decision costs a read-back.
    Host,
}

/// Part of a request that a run of tokens belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The prompt: many tokens in one pass.
    Prefill,
    /// Generation: a token a pass.
    Decode,
}

/// What a run of tokens does besides moving the request on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// An ordinary run (no `role` key): its positions become part of the sequence.
    #[default]
    Plain,
    /// Speculated tokens, a pass each; positions from the sequence's end on, which a later `verify` run confirms.
    Draft,
    /// Checks drafted positions in one pass; the request moves on by the accepted ones.
    Verify,
    /// Runs earlier positions again, to fill `deferred` KV entries.
    Recompute,
}

/// Tokens of one request at consecutive positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Position of the first token.
    pub start: u32,
    /// Prefill or decode.
    pub phase: Phase,
    /// Draft, verify, recompute, or plain.
    pub role: Role,
    /// Route of each token, as an index of the [`RouteTable`].
    pub routes: RouteIds,
    /// For `verify`: which positions stay. Leading trues, then falses; empty means all.
    pub accepted: Vec<bool>,
}

impl Run {
    /// How many positions the request moves on by this run.
    pub fn advance(&self) -> u32 {
        match self.role {
            Role::Plain => self.routes.len(),
            Role::Draft | Role::Recompute => 0,
            Role::Verify if self.accepted.is_empty() => self.routes.len(),
            Role::Verify => self.accepted.iter().filter(|&&kept| kept).count() as u32,
        }
    }
}

/// One request: when it came, how long it is, and the routes of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The trace's own id.
    pub id: u64,
    /// Arrival after the start of the trace.
    pub arrival: SimTime,
    /// Tokens of the prompt (at least 1).
    pub prompt_tokens: u32,
    /// Tokens generated (at least 1).
    pub output_tokens: u32,
    /// Lower is served first; 0 unless a request source gives one. Not part of the trace format.
    pub priority: u32,
    /// Hashes of prompt blocks that it shares with other requests.
    pub prefix: Vec<u64>,
    /// Runs in order. Empty where the trace names no routes for this request.
    pub runs: Vec<Run>,
}

impl Request {
    /// Tokens that have a route: P + G - 1 for P prompt and G generated tokens, or P + G where the recorder fed the
    /// last one too; 0 where the trace names no routes.
    pub fn advanced(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.advance())).sum()
    }
}

/// A whole trace in memory: requests in order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What produced it.
    pub header: Header,
    /// The distinct routes.
    pub routes: RouteTable,
    /// By arrival; equal arrivals in file order.
    pub requests: Vec<Request>,
}

impl fmt::Display for KvAction {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl KvAction {
    /// All actions with their names in the format.
    pub const ALL: [(KvAction, &'static str); 7] = [
        (KvAction::Write, "write"),
        (KvAction::ProjectOnly, "project_only"),
        (KvAction::CopyState, "copy_state"),
        (KvAction::Share, "share"),
        (KvAction::None, "none"),
        (KvAction::Deferred, "deferred"),
        (KvAction::Unified, "unified"),
    ];

    /// Its name in the format.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(action, _)| *action == self).expect("ALL is complete").1
    }

    /// The action of this name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(name: &str) -> Result<Self> {
        let known = Self::ALL.iter().find(|(_, known)| *known == name);
        known.map(|(action, _)| *action).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            InputError::expected(format!("a KV action: {}", names.join(", "))).found(name).into()
        })
    }
}

/// The last part of a file's name, which picks its encoding, in lower case.
fn ending(path: &std::path::Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

#[cfg(not(feature = "parquet"))]
fn no_parquet() -> crate::error::Error {
    let what = "a program built with the feature parquet, or JSON Lines (.jsonl, .jsonl.gz, .jsonl.zst)";
    InputError::expected(what).found("a .parquet file").into()
}
