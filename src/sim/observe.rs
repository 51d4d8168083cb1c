//! Who watches a run: timelines, progress bars, tests.

use crate::batch::Batch;
use crate::cost::Price;
use crate::engine::Ended;
use crate::lower::Call;
use crate::units::SimTime;

/// One pass.
#[derive(Clone, Copy, Debug)]
pub struct PassInfo<'a> {
    /// Start.
    pub begin: SimTime,
    /// End.
    pub end: SimTime,
    /// Who was in it.
    pub batch: &'a Batch,
    /// Device memory held during the pass.
    pub memory_bytes: u64,
}

/// Hears of everything that happens, in order of time. All methods do nothing unless a watcher says otherwise.
pub trait Observer {
    /// A call ended. `price` only for kernels.
    #[inline]
    fn call(&mut self, _call: &Call, _price: Option<&Price>, _ended: &Ended) {}
    /// A pass ended.
    fn pass(&mut self, _info: &PassInfo) {}
    /// Output tokens came out.
    fn output(&mut self, _tokens: u32) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
