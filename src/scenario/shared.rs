//! What the variants of a scenario share.

use crate::hw::{Hardware, Launch};
use crate::model::{Model, Network};
use crate::trace::{Request, Trace};
use crate::workload::{Clients, Sessions};

/// Everything that the variants of a scenario share.
pub(super) struct Shared {
    pub(super) model: Model,
    /// What the model's folder says of its router.
    pub(super) network: Option<Network>,
    pub(super) hardware: Hardware,
    /// Launches as the device's profile has them.
    pub(super) own_launch: Launch,
    /// The recorded trace laid over the model, with the scenario's requests.
    pub(super) recorded: Option<Trace>,
    pub(super) requests: Vec<Request>,
    pub(super) clients: Option<Clients>,
    pub(super) sessions: Option<Sessions>,
}

pub(super) fn unified(trace: &Trace) -> bool {
    use crate::trace::KvAction::Unified;
    let in_steps = || trace.routes.iter().flat_map(|route| &route.0).any(|step| step.kv == Some(Unified));
    trace.header.kv == Unified || in_steps()
}
