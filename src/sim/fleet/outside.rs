//! One server as those see it who drive it from outside: requests come, a pass begins, and is over.

use crate::batch::Batch;
use crate::sched::{Load, Outcome};
use crate::sim::beyond::Within;
use crate::sim::{Observer, Simulation};
use crate::trace::Request;
use crate::units::SimTime;

/// What a server has to do with those who drive it.
#[derive(Debug, Default)]
pub(in crate::sim) struct Outside {
    /// Requests that came while a pass runs: when, and which.
    inbox: Vec<(SimTime, u32)>,
    /// How many came.
    pub came: u64,
    /// Bytes of activations of the pass in flight.
    flight: Option<u64>,
    batch: Batch,
    outcome: Outcome,
}

impl Simulation<'_> {
    /// Request number `index` comes.
    pub(super) fn come(&mut self, (time, index): (SimTime, u32)) {
        self.outside.came += 1;
        self.outside.inbox.push((time, index));
    }

    /// When the pass in flight ends.
    pub(super) fn end(&self) -> Option<SimTime> {
        self.outside.flight.map(|_| self.machine.now())
    }

    /// Its load: of the pass in flight nothing is known yet but that it has begun.
    pub(super) fn load(&self) -> Load {
        let inbox = self.outside.inbox.iter().map(|&(_, index)| self.request(index));
        inbox.fold(self.scheduler.load(), Load::with)
    }

    /// Prompt tokens of a request that need not pass here.
    pub(super) fn kept_tokens(&self, index: u32) -> u32 {
        self.scheduler.kept_tokens(self.request(index))
    }

    /// Whether it would begin this request in a pass that it forms now.
    pub(super) fn has_room(&self, index: u32) -> bool {
        self.end().is_none() && self.scheduler.has_room(&self.load(), self.request(index))
    }

    /// The rank of a request among those that wait.
    pub(super) fn rank(&self, index: u32) -> u32 {
        self.scheduler.rank(self.request(index))
    }

    /// Whether nobody is there.
    pub(super) fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.outside.inbox.is_empty()
    }

    fn request(&self, index: u32) -> &Request {
        &self.trace.requests[index as usize]
    }

    /// Begins a pass at `now`, if none is in flight and somebody has something to run.
    pub(super) fn begin(&mut self, now: SimTime, observer: &mut impl Observer) -> Within<()> {
        if self.outside.flight.is_some() || self.is_idle() {
            return Ok(());
        }
        if self.machine.now() < now {
            self.machine.wait_until(now);
            self.before = SimTime::ZERO;
        }
        for (arrival, index) in self.outside.inbox.drain(..) {
            // Whoever came while a pass ran has waited since.
            self.ledger.stand(now - arrival, 1, 0, 0, 0);
            self.scheduler.arrive(index, arrival);
        }
        let mut batch = std::mem::take(&mut self.outside.batch);
        if self.scheduler.next_batch(now, &mut self.paths, &mut batch) {
            self.hold_kv();
            self.outside.flight = Some(self.pass(&batch, observer)?);
        }
        self.outside.batch = batch;
        Ok(())
    }

    /// The pass in flight is over: whoever was in it moves on. The ids of the requests that are over go to `answered`.
    pub(super) fn land(&mut self, observer: &mut impl Observer, mut answered: impl FnMut(u64)) {
        let activations = self.outside.flight.take().expect("a pass is in flight");
        let (batch, mut outcome) =
            (std::mem::take(&mut self.outside.batch), std::mem::take(&mut self.outside.outcome));
        let before = self.ledger.requests.len();
        self.settle(&batch, activations, &mut outcome, observer);
        self.ledger.requests[before..].iter().for_each(|times| answered(times.id));
        (self.outside.batch, self.outside.outcome) = (batch, outcome);
    }
}
