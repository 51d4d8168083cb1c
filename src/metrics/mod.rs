//! Log -> numbers. Conservation is checked before anything is reported.

mod ledger;
mod summary;

pub use ledger::{Ledger, Losses, Memory, RequestTimes, Tally};
pub use summary::{Bounds, MemoryBytes, Power, Spread, Summary, WorkSummary};
