//! Log -> numbers. Conservation is checked before anything is reported.

mod error_bar;
mod interval;
mod join;
mod ledger;
mod placed;
mod replicas;
mod slo;
mod spread;
mod steady;
mod summary;
mod time_saved;
mod uncertainty;

pub use error_bar::{ClassError, ENOUGH, ErrorBar, Errors, Ninety, Saving, Verdict};
pub use interval::Interval;
pub use ledger::{
    Gap, Handover, KvUse, Ledger, Losses, Memory, Own, Phase, RequestTimes, RoundUse, Tally, TierUse,
};
pub use placed::{DeviceSummary, DeviceUse, PlacedSummary, PlacedUse};
pub use replicas::{Imbalance, KvTransfer, Part, Replica, ReplicaSummary, ReplicaUse};
pub use slo::{Goodput, Slo};
pub use spread::Spread;
pub use steady::{Cut, Growth, WarmUp, mser5};
pub use summary::{
    Bounds, KvSummary, MemoryBytes, PhaseSummary, Phases, Power, Summary, TierSummary, WorkSummary,
};
pub use time_saved::{PARTS, TimeSaved};
pub use uncertainty::{Ends, ErrorKind, Figure, Gain};
