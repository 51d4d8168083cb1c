//! Who watches a run: timelines, progress bars, tests.

use crate::batch::Batch;
use crate::cost::Price;
use crate::engine::Ended;
use crate::lower::Call;
use crate::units::SimTime;

/// One pass.
#[derive(Clone, Copy, Debug)]
pub struct PassInfo<'a> {
    /// Start; where passes are in flight together, at least the end of the one that ended before.
    pub begin: SimTime,
    /// End.
    pub end: SimTime,
    /// Who was in it.
    pub batch: &'a Batch,
    /// Device memory held during the pass.
    pub memory_bytes: u64,
    /// Requests that wait while it runs, those that arrive meanwhile not counted.
    pub waiting: u32,
    /// Requests that have been admitted and are not over while it runs.
    pub running: u32,
    /// KV bytes held while it runs; what it writes counts from its end.
    pub kv_bytes: u64,
    /// Kernel time in it, over all devices that have layers.
    pub busy: SimTime,
    /// Energy of its kernels beyond static power, picojoules.
    pub dynamic_pj: i64,
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
    /// The engine that is watched is one of several, and the last of them is done at this time.
    fn over(&mut self, _end: SimTime) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Watches where there is a watcher.
impl<O: Observer> Observer for Option<O> {
    #[inline]
    fn call(&mut self, call: &Call, price: Option<&Price>, ended: &Ended) {
        if let Some(inner) = self {
            inner.call(call, price, ended);
        }
    }
    fn pass(&mut self, info: &PassInfo) {
        if let Some(inner) = self {
            inner.pass(info);
        }
    }
    fn output(&mut self, tokens: u32) {
        if let Some(inner) = self {
            inner.output(tokens);
        }
    }
    fn over(&mut self, end: SimTime) {
        if let Some(inner) = self {
            inner.over(end);
        }
    }
}

/// Two watchers of one run.
impl<A: Observer, B: Observer> Observer for (A, B) {
    #[inline]
    fn call(&mut self, call: &Call, price: Option<&Price>, ended: &Ended) {
        self.0.call(call, price, ended);
        self.1.call(call, price, ended);
    }
    fn pass(&mut self, info: &PassInfo) {
        self.0.pass(info);
        self.1.pass(info);
    }
    fn output(&mut self, tokens: u32) {
        self.0.output(tokens);
        self.1.output(tokens);
    }
    fn over(&mut self, end: SimTime) {
        self.0.over(end);
        self.1.over(end);
    }
}
