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
mod usage;

pub use error_bar::{ClassError, ENOUGH, ErrorBar, FigureErrors, Ninety, Saving, Verdict};
pub use interval::Interval;
pub use ledger::{Gap, KvUse, Ledger, Losses, MemoryUse, Own, PhaseTotals, RequestTimes, Tally, TierUse};
pub use placed::{DeviceSummary, PlacedSummary};
pub use replicas::{Imbalance, KvTransfer, Replica, ReplicaSummary};
pub use slo::{Goodput, Slo};
pub use spread::Spread;
pub use steady::{Cut, Growth, WarmUp, mser5};
pub use summary::{
    Bounds, KvSummary, MemoryBytes, PhaseSummary, Phases, PowerSummary, Summary, TierSummary, WorkSummary,
};
pub use time_saved::{PARTS, TimeSaved};
pub use uncertainty::{Ends, ErrorKind, Estimate, Gain};
pub use usage::{DeviceUse, EngineRole, Handover, PlacedUse, ReplicaUse, RoundUse};

/// 0 where there is nothing to divide by.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
