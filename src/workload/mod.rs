//! Who arrives (`docs/REQUESTS.md`): requests read from files, requests that are drawn, closed-loop clients, and conversations.
//!
//! A request says when it comes and how long it is. Which layers its tokens take comes from a trace or a method.

use crate::trace::Request;
use std::collections::BTreeMap;

mod arrivals;
mod count;
mod file;
mod lengths;
mod options;
mod outputs;
mod served;
mod sessions;
mod spec;
mod summary;
mod synthetic;

pub use arrivals::{Arrivals, Clients, Think};
pub use count::TokenCount;
pub use file::{BAILIAN_BLOCK, MOONCAKE_BLOCK, Reading, RequestFormat, TimeUnit, Told, read};
pub use lengths::{Length, Lengths};
pub use options::Selection;
pub use outputs::OutputsAgain;
pub use served::{ServedRequest, Tick, measured, ticks};
pub use sessions::{FollowUp, Pause, SessionSpec, Sessions};
pub use spec::FileSpec;
pub use summary::{LengthSummary, RequestSummary};
pub use synthetic::{PriorityShare, RequestsSpec, requests};

/// Most requests of a source: 2^24, some 2 GB in memory.
pub const MOST_REQUESTS: u32 = 1 << 24;

/// Requests of a source, and what to know about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestSet {
    /// In order of arrival, equal arrivals in the order of the source; without routes.
    pub requests: Vec<Request>,
    /// Who sends them, where a request waits for the end of another.
    pub clients: Option<Clients>,
    /// Turns that follow an earlier one, by their ids, where the source says so.
    pub turns: BTreeMap<u64, FollowUp>,
    /// What those wait for, where they do.
    pub sessions: Option<Sessions>,
    /// Prompt tokens that each hash of a request's `prefix` stands for (the last may stand for fewer), where the source says.
    pub prefix_block: Option<u32>,
    /// What the source was taken for.
    pub told: Told,
    /// What was left out, cut or assumed.
    pub remarks: Vec<Remark>,
}

/// Something that was done to the requests of a source, or assumed about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The key of the source that it is about.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What was done.
    pub why: String,
}

impl Remark {
    fn new(key: &'static str, value: impl ToString, why: impl Into<String>) -> Self {
        Remark { key, value: value.to_string(), why: why.into() }
    }
}
