//! One server as those see it who drive it from outside: requests come, a pass begins, and is over.

use crate::batch::Batch;
use crate::lower::Round;
use crate::sched::{Load, PassEnd};
use crate::sim::beyond::Within;
use crate::sim::{Observer, Server};
use crate::trace::Request;
use crate::units::SimTime;

/// What a server has to do with those who drive it.
#[derive(Debug, Default)]
pub(in crate::sim) struct Outside {
    /// Requests that came while a pass runs: when, and which.
    inbox: Vec<(SimTime, u32)>,
    /// Their prompt tokens.
    inbox_tokens: u64,
    /// How many came.
    pub came: u64,
    /// Whether the entries of finished requests are kept until they are elsewhere.
    keeps: bool,
    /// Bytes of activations of the pass in flight.
    flight: Option<u64>,
    batch: Batch,
    outcome: PassEnd,
}

/// When entries leave, and when they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    pub start: SimTime,
    pub end: SimTime,
}

impl Server<'_> {
    /// Request number `index` comes.
    pub(super) fn come(&mut self, (time, index): (SimTime, u32)) {
        self.outside.came += 1;
        self.outside.inbox_tokens += u64::from(self.request(index).prompt_tokens);
        self.outside.inbox.push((time, index));
    }

    /// When the pass in flight ends.
    pub(super) fn end(&self) -> Option<SimTime> {
        self.outside.flight.map(|_| self.machine.now())
    }

    /// When something happens here next, unless somebody comes: the pass in flight ends, or entries that are waited for have come or gone.
    pub(super) fn next(&self) -> Option<SimTime> {
        self.end().or_else(|| self.scheduler.wakes())
    }

    /// Requests come with their prompts passed.
    pub(super) fn with_prompts_elsewhere(mut self) -> Self {
        self.scheduler = self.scheduler.with_prompts_elsewhere();
        self
    }

    /// Requests end with their first token and go on elsewhere: their entries are kept until [`Server::sent`].
    pub(super) fn with_prompts_alone(mut self) -> Self {
        self.scheduler = self.scheduler.with_prompts_alone();
        self.outside.keeps = true;
        self
    }

    /// Slots, paths and places of finished requests are free, where their entries are not kept.
    pub(in crate::sim) fn release(&mut self, finished: &[u32]) {
        match self.outside.keeps {
            true => self.scheduler.release_later(finished, &mut self.paths),
            false => self.scheduler.release(finished, &mut self.paths),
        }
    }

    /// The entries of the request of this id are elsewhere at `until`: `bytes` of them were read for it.
    pub(super) fn sent(&mut self, id: u64, until: SimTime, bytes: u64) {
        self.scheduler.sent(id, until);
        self.ledger.dynamic_pj += self.machine.device().moved_pj(bytes);
        self.ledger.handover.sent_bytes += u128::from(bytes);
    }

    /// Requests that came with their prompts passed get places for their entries, and `send` brings `bytes` of them and says when they are there.
    pub(super) fn load_entries(&mut self, now: SimTime, mut send: impl FnMut(u64, u64) -> Sending) {
        self.welcome(now);
        let (handover, block_bytes) = (&mut self.ledger.handover, self.block_bytes);
        let mut dynamic_pj = 0;
        let device = self.machine.device();
        self.scheduler.take_over(now, &mut self.paths, |comes| {
            let bytes = comes.blocks * block_bytes;
            let Sending { start, end } = send(comes.id, bytes);
            handover.requests += 1;
            handover.received_bytes += u128::from(bytes);
            handover.link_ps += u128::from((end - start).ps());
            handover.waited_ps += u128::from((start - now).ps());
            dynamic_pj += device.moved_pj(bytes);
            end
        });
        self.ledger.dynamic_pj += dynamic_pj;
        self.hold_kv();
    }

    /// Its load: of the pass in flight nothing is known yet but that it has begun.
    pub(super) fn load(&self) -> Load {
        let Outside { inbox, inbox_tokens, .. } = &self.outside;
        self.scheduler.load().with(inbox.len() as u32, *inbox_tokens)
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

    /// The clock goes on to `now`, where no pass is in flight: whoever waits for entries waits on. Who came since joins those who wait.
    fn welcome(&mut self, now: SimTime) {
        if self.outside.flight.is_some() {
            return;
        }
        let before = self.machine.now();
        if before < now && !self.is_idle() {
            let (waiting, running) = self.scheduler.waiting_and_running();
            if waiting > 0 {
                let (held, entries) = (self.scheduler.blocks().held(), self.scheduler.entries());
                self.ledger.integrate(now - before, waiting.into(), running.into(), held, entries);
            }
            self.machine.wait_until(now);
            self.before = SimTime::ZERO;
        }
        self.scheduler.let_go(now);
        self.outside.inbox_tokens = 0;
        for (arrival, index) in self.outside.inbox.drain(..) {
            // Whoever came while a pass ran has waited since.
            self.ledger.integrate(now - arrival, 1, 0, 0, 0);
            self.scheduler.arrive(index, arrival);
        }
    }

    /// Begins a pass at `now`, if none is in flight and somebody has something to run.
    pub(super) fn begin(&mut self, now: SimTime, observer: &mut impl Observer) -> Within<()> {
        if self.outside.flight.is_some() || self.is_idle() {
            return Ok(());
        }
        self.welcome(now);
        let mut batch = std::mem::take(&mut self.outside.batch);
        if self.scheduler.next_batch(now, &mut self.paths, &mut batch) {
            self.hold_kv();
            self.outside.flight = Some(self.pass(&batch, observer)?);
        }
        self.outside.batch = batch;
        Ok(())
    }

    /// Forms a pass at `now` and says what is in it; it begins with [`Server::go`]. None where nobody has something to run.
    pub(super) fn form(&mut self, now: SimTime) -> Option<Round> {
        if self.is_idle() {
            return None;
        }
        self.welcome(now);
        let mut batch = std::mem::take(&mut self.outside.batch);
        let there = self.scheduler.next_batch(now, &mut self.paths, &mut batch);
        let formed = there.then(|| {
            let tokens = batch.tokens();
            let generates = batch.spans.iter().all(|span| span.decode);
            Round { tokens, most: tokens, generates, captured: self.lowering.is_captured(&batch) }
        });
        self.outside.batch = batch;
        if there {
            self.hold_kv();
        }
        formed
    }

    /// Begins the pass that was formed, in which the experts get the tokens of `round`.
    pub(super) fn go(&mut self, round: Round, observer: &mut impl Observer) -> Within<()> {
        self.lowering.set_round(round);
        let batch = std::mem::take(&mut self.outside.batch);
        self.outside.flight = Some(self.pass(&batch, observer)?);
        self.outside.batch = batch;
        self.ledger.rounds.get_or_insert_default();
        Ok(())
    }

    /// Runs a dummy pass, as others have something to run.
    pub(super) fn stand_in(&mut self) {
        self.ledger.rounds.get_or_insert_default().dummy_passes += 1;
    }

    /// Waits for the slowest pass of the round, which ends at `end`.
    pub(super) fn wait_for_round(&mut self, end: SimTime) {
        let Some(own) = self.end().filter(|own| *own < end) else { return };
        let (waiting, running) = self.scheduler.waiting_and_running();
        let (held, entries) = (self.scheduler.blocks().held(), self.scheduler.entries());
        self.ledger.integrate(end - own, waiting.into(), running.into(), held, entries);
        self.machine.wait_until(end);
        // The host forms the next pass meanwhile.
        self.before += end - own;
        self.ledger.rounds.get_or_insert_default().waited_ps += u128::from((end - own).ps());
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
