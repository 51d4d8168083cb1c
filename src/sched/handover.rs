//! Requests whose prompts pass on one server and whose tokens are generated on another. The first keeps the entries until the other has them;
//! the other gives them places before they come.

use super::draws::{Begun, Start};
use super::{Place, Scheduler, Sequence, Waiter};
use crate::batch::{Context, Paths};
use crate::units::SimTime;
use std::cmp::Reverse;

/// What a server has to do with others.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Whether its requests come with their prompts passed.
    prompts_elsewhere: bool,
    /// Entries that wait for their way, or are on it.
    sent: Vec<Sent>,
    /// Sequences whose entries are on their way here, and when they are there.
    loading: Vec<(SimTime, u32)>,
}

/// Entries of a request that goes on elsewhere.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: u64,
    blocks: u64,
    entries: u64,
    /// When the other server has them, as soon as that is known.
    until: Option<SimTime>,
}

/// A request that goes on here: its KV blocks come from where its prompt passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comes {
    /// The trace's id.
    pub id: u64,
    /// Blocks that its entries fill: what routes left out fills none.
    pub blocks: u64,
}

impl Scheduler<'_> {
    /// Every request comes with its prompt passed and its first token put out: at its arrival here.
    pub fn with_prompts_elsewhere(mut self) -> Self {
        self.handover.prompts_elsewhere = true;
        self
    }

    /// Whether a request that has not begun waits for its entries rather than for a pass.
    pub(super) fn has_prompts_elsewhere(&self) -> bool {
        self.handover.prompts_elsewhere
    }

    /// Sequences whose entries are on their way here.
    pub(super) fn loading(&self) -> usize {
        self.handover.loading.len()
    }

    /// Releases finished sequences, but keeps their entries until [`Scheduler::sent`] says that they are elsewhere.
    pub fn release_later(&mut self, finished: &[u32], paths: &mut Paths) {
        let keeps = |&slot: &u32| {
            let (id, blocks) = (self.sequence(slot).request().id, self.sequence(slot).blocks());
            Sent { id, blocks, entries: self.contexts[slot as usize].stored(), until: None }
        };
        let kept: Vec<Sent> = finished.iter().map(keeps).collect();
        self.release(finished, paths);
        for sent in kept {
            self.blocks.take(sent.blocks).expect("they have just been given back");
            self.held_entries += sent.entries;
            self.handover.sent.push(sent);
        }
    }

    /// The entries of the request of this id are elsewhere at `until`.
    pub fn sent(&mut self, id: u64, until: SimTime) {
        let known = self.handover.sent.iter_mut().find(|sent| sent.id == id);
        known.expect("its prompt passed here").until = Some(until);
    }

    /// Those places are free whose entries are elsewhere by `now`.
    pub fn let_go(&mut self, now: SimTime) {
        let (blocks, entries) = (&mut self.blocks, &mut self.held_entries);
        self.handover.sent.retain(|sent| {
            let stays = sent.until.is_none_or(|until| until > now);
            if !stays {
                blocks.give_back(sent.blocks);
                *entries -= sent.entries;
            }
            stays
        });
    }

    /// When something changes here though no pass runs: entries are there, or elsewhere and somebody waits for their places.
    pub fn wakes(&self) -> Option<SimTime> {
        let there = self.handover.loading.iter().map(|(ready, _)| *ready);
        let waits = !self.waiting.is_empty();
        let gone = self.handover.sent.iter().filter_map(|sent| sent.until).filter(|_| waits);
        there.chain(gone).min()
    }

    /// Requests whose prompts passed elsewhere get places for their entries, in order, until there is none for the next; `send` brings the entries and
    /// says when they are there. Those whose entries are there run.
    pub fn take_over(&mut self, now: SimTime, paths: &mut Paths, mut send: impl FnMut(Comes) -> SimTime) {
        while self.running() + self.loading() < self.serving.max_sequences as usize
            && let Some(&Reverse((place, Waiter::New(index), arrival))) = self.waiting.peek()
            && let Some((slot, blocks)) = self.seat_passed(index, (place, arrival), now, paths)
        {
            self.waiting.pop();
            self.waiting_tokens -= u64::from(self.requests[index as usize].prompt_tokens);
            if let Some(draws) = &mut self.draws {
                draws.fits();
            }
            let ready = send(Comes { id: self.sequence(slot).request().id, blocks });
            self.handover.loading.push((ready, slot));
        }
        let loading = std::mem::take(&mut self.handover.loading);
        for (ready, slot) in loading {
            if ready > now {
                self.handover.loading.push((ready, slot));
                continue;
            }
            self.sequence_mut(slot).order = self.begun;
            self.begun += 1;
            self.running.push(slot);
        }
    }

    /// A slot with the places for all entries of a prompt, if there are so many; as if it had passed here.
    fn seat_passed(
        &mut self,
        index: u32,
        (place, arrival): (Place, SimTime),
        now: SimTime,
        paths: &mut Paths,
    ) -> Option<(u32, u64)> {
        let request = &self.requests[index as usize];
        let start = match &mut self.draws {
            Some(draws) => draws.begin(index, request, paths),
            None => Start { request: Begun::Listed(request), taken: None },
        };
        let (mut sequence, mut context) = (Sequence::new(start.request, arrival, None), Context::default());
        sequence.taken = start.taken;
        sequence.pass_prompt(&mut context, paths, &self.paging, self.layers);
        sequence.scheduled = now;
        (sequence.first, sequence.latest) = (Some(arrival), arrival);
        let blocks = sequence.blocks();
        let alone = self.running() + self.loading() == 0;
        let spare = if alone { 0 } else { self.watermark };
        if !self.make_room(blocks + spare, paths) {
            return None;
        }
        self.blocks.take(blocks).expect("there is room");
        self.held_entries += context.stored();
        let slot = self.seat(place, sequence);
        self.contexts[slot as usize] = context;
        Some((slot, blocks))
    }
}
