//! Who gets a place and who loses it: admission, shared prefixes, preemption with and without a copy on the host.

use super::draws::{Begun, Start};
use super::prefix::Share;
use super::remnants::Remnant;
use super::{Admission, Place, Scheduler, Sequence, Waiter};
use crate::batch::{Batch, Context, Paths, Policy, in_runs};
use crate::units::SimTime;
use std::cmp::Reverse;

/// Preemptions after which a sequence still uses shared prefixes. After more it computes its whole prompt, so that it fits once it runs alone:
/// blocks of others may be cut at other places, and take more.
const MOST_REUSED: u32 = 2;

impl<'a> Scheduler<'a> {
    /// Admits waiting sequences in order, until one does not fit: nobody overtakes.
    pub(super) fn admit(&mut self, now: SimTime, budget: &mut u32, paths: &mut Paths, batch: &mut Batch) {
        // After a preemption, admit nobody in this pass: the blocks are for the sequences that lacked them.
        while (!self.preempted || self.running() == 0)
            && self.running() < self.serving.max_sequences as usize
            && *budget > 0
            && batch.spans.len() < self.most_in_pass
            && let Some(&Reverse((place, waiter, arrival))) = self.waiting.peek()
        {
            let asked = match waiter {
                Waiter::New(_) if self.has_prompts_elsewhere() => return,
                Waiter::New(index) => self.most_blocks.get(index as usize).copied().unwrap_or(0),
                Waiter::Preempted(_) => 0,
            };
            let promise = match self.serving.admission {
                Admission::Whole => asked,
                Admission::WholePrompt if self.running() > 0 && asked > self.available() => return,
                Admission::WholePrompt | Admission::AsItComes => 0,
            };
            if self.promised + promise > self.blocks.capacity() {
                return;
            }
            let slot = match waiter {
                // A preempted sequence waits until its lost blocks and one more for each layer are free: with fewer it would be preempted again soon.
                Waiter::Preempted(slot)
                    if self.running() > 0 && self.sequence(slot).lost_blocks > self.available() =>
                {
                    return;
                }
                Waiter::Preempted(slot) => slot,
                Waiter::New(index) => {
                    let block = self.serving.prefix_block();
                    let request = &self.requests[index as usize];
                    let start = match &mut self.draws {
                        Some(draws) => draws.begin(index, request, paths),
                        None => Start { request: Begun::Listed(request), taken: None },
                    };
                    let mut sequence = Sequence::new(start.request, arrival, block);
                    (sequence.scheduled, sequence.promised, sequence.taken) = (now, promise, start.taken);
                    self.seat(place, sequence)
                }
            };
            // If nobody runs, waiting frees no blocks, so the watermark does not count.
            let spare = if self.running() == 0 { 0 } else { self.watermark };
            let before = batch.spans.len();
            if !self.swap_in(slot, spare, paths) {
                return;
            }
            let without = self.enter_prefix(slot);
            let found = self.enter_remnant(slot, paths);
            let fits = self.push(slot, budget, spare, paths, batch);
            if !fits || batch.spans.len() == before {
                if self.sequence(slot).is_back() {
                    self.swap_out(slot);
                    return;
                }
                self.leave_prefix(slot);
                let without = match found {
                    Some((sequence, remnant)) => {
                        self.remnants.leave(remnant);
                        Some(sequence)
                    }
                    None => without,
                };
                match waiter {
                    Waiter::New(_) => {
                        self.slots[slot as usize] = None;
                        self.free.push(slot);
                    }
                    Waiter::Preempted(_) => {
                        if let Some(sequence) = without {
                            *self.sequence_mut(slot) = sequence;
                        }
                    }
                }
                return;
            }
            self.waiting.pop();
            if let Waiter::New(index) = waiter {
                self.waiting_tokens -= u64::from(self.requests[index as usize].prompt_tokens);
            }
            if let (Waiter::New(_), Some(draws)) = (waiter, &mut self.draws) {
                draws.fits();
            }
            self.came_back(slot);
            self.promised += promise;
            self.sequence_mut(slot).order = self.begun;
            self.begun += 1;
            self.running.push(slot);
        }
    }

    /// Whether `blocks` are free, if need be after kept blocks that nobody uses gave way.
    pub(super) fn make_room(&mut self, blocks: u64, paths: &Paths) -> bool {
        if blocks > self.available() {
            return false;
        }
        while self.blocks.free() < blocks {
            if let Some(freed) = self.remnants.evict(self.serving.kv_block_tokens, paths, &self.paging) {
                self.blocks.give_back(freed);
                continue;
            }
            let gone = self.prefixes.evict().expect("spare blocks can be had");
            self.blocks.give_back(gone.blocks);
            self.held_entries -= gone.entries;
        }
        true
    }

    /// Blocks that are free, or kept and not in use.
    pub(super) fn available(&self) -> u64 {
        self.blocks.free() + self.prefixes.spare() + self.remnants.spare()
    }

    /// A sequence that was preempted finds what is left of its entries. Returns it as it was, with what it found.
    fn enter_remnant(&mut self, slot: u32, paths: &Paths) -> Option<(Sequence<'a>, Remnant)> {
        let remnant = self.remnants.take(slot)?;
        let before = self.sequence(slot).clone();
        let context = &mut self.contexts[slot as usize];
        for (path, times) in in_runs(&remnant.tokens) {
            context.advance(paths.get(path), times, self.layers);
        }
        self.held_entries += context.stored();
        let sequence = self.sequence_mut(slot);
        sequence.table = remnant.table.clone();
        sequence.skip(remnant.tokens.len() as u32);
        Some((before, remnant))
    }

    /// A sequence that is preempted leaves its first `tokens` tokens, where prefixes are kept. Returns their blocks.
    /// Sequences whose prompts others share, and those with drafts, leave nothing here.
    fn leave_remnant(&mut self, slot: u32, tokens: u32, paths: &Paths) -> u64 {
        let sequence = self.sequence(slot);
        let queued = matches!(self.policy, Policy::Queued { .. });
        if self.serving.prefix_caching.is_none() || queued || !sequence.is_plain_and_alone() {
            return 0;
        }
        let passed = &sequence.replay()[..tokens as usize];
        let remnant = Remnant::new(slot, passed, self.serving.kv_block_tokens, paths, &self.paging);
        let blocks = remnant.table.blocks();
        if blocks > 0 {
            self.remnants.leave(remnant);
        }
        blocks
    }

    /// A sequence that begins, or begins again, uses what others left of its prompt. Returns it as it was, if it found something.
    fn enter_prefix(&mut self, slot: u32) -> Option<Sequence<'a>> {
        let block_tokens = self.serving.prefix_block()?;
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        if sequence.preemptions > MOST_REUSED || sequence.is_back() {
            return None;
        }
        let request = sequence.request().clone();
        let share = Share::new(&request, Some(block_tokens));
        let wanted = share.wanted(&request);
        let known = &wanted[..self.prefixes.matching(wanted)];
        if known.is_empty() {
            return None;
        }
        let before = sequence.clone();
        let (context, entries) = self.prefixes.enter(known);
        sequence.skip(share.tokens(known.len()));
        sequence.share.chain = known.to_vec();
        sequence.share.entries = entries;
        sequence.share.seen = context.stored();
        self.contexts[slot as usize] = context;
        Some(before)
    }

    /// It uses them no longer, and sees nothing.
    pub(super) fn leave_prefix(&mut self, slot: u32) {
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        let chain = std::mem::take(&mut sequence.share.chain);
        let context = std::mem::take(&mut self.contexts[slot as usize]);
        self.held_entries -= context.stored() - std::mem::take(&mut sequence.share.entries);
        self.prefixes.leave(&chain);
    }

    /// A sequence has computed a prompt block, which is kept for others if nobody else has left it yet.
    pub(super) fn keep_prefix(&mut self, slot: u32, hash: u64) {
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        let context = &self.contexts[slot as usize];
        let share = &mut sequence.share;
        let blocks = share.closed.pop_front().expect("a block that ended was closed");
        let entries = context.stored() - share.seen;
        share.seen = context.stored();
        if self.prefixes.keep(hash, share.chain.last().copied(), context, entries, blocks) {
            share.chain.push(hash);
            share.entries += entries;
        } else {
            share.close(blocks);
            sequence.open = false;
        }
    }

    /// Nothing is kept any longer for requests to come.
    pub fn forget_prefixes(&mut self) {
        while let Some(gone) = self.prefixes.evict() {
            self.blocks.give_back(gone.blocks);
            self.held_entries -= gone.entries;
        }
    }

    pub(super) fn seat(&mut self, place: Place, sequence: Sequence<'a>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.contexts.push(Context::default());
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some((place, sequence));
        slot
    }

    /// The blocks of a sequence that were on the host have places again. False: there is no room for them.
    fn swap_in(&mut self, slot: u32, spare: u64, paths: &Paths) -> bool {
        let blocks = self.sequence(slot).on_host;
        let room = blocks + spare;
        if blocks > 0 && !self.make_room(room, paths) {
            return false;
        }
        self.blocks.take(blocks).expect("there is room");
        self.held_entries += if blocks > 0 { self.contexts[slot as usize].stored() } else { 0 };
        true
    }

    /// The places are not used: it cannot run yet.
    fn swap_out(&mut self, slot: u32) {
        self.blocks.give_back(self.sequence(slot).on_host);
        self.held_entries -= self.contexts[slot as usize].stored();
    }

    /// What was on the host moves before the pass.
    fn came_back(&mut self, slot: u32) {
        let blocks = std::mem::take(&mut self.sequence_mut(slot).on_host);
        self.host.give_back(blocks);
        self.moving += blocks;
    }

    /// Moves the blocks of a sequence to the host, if they may go there and there is room. Returns how many.
    fn send_to_host(&mut self, slot: u32) -> Option<u64> {
        let sequence = self.sequence(slot);
        let blocks = sequence.blocks();
        let queued = matches!(self.policy, Policy::Queued { .. });
        if queued || blocks == 0 || !sequence.share.chain.is_empty() || self.host.take(blocks).is_err() {
            return None;
        }
        self.moving += blocks;
        self.held_entries -= self.contexts[slot as usize].stored();
        let sequence = self.sequence_mut(slot);
        sequence.on_host = blocks;
        sequence.preemptions += 1;
        sequence.open = false;
        Some(blocks)
    }

    /// A running sequence loses its blocks and waits again, at its old place in line.
    pub(super) fn preempt(&mut self, slot: u32, paths: &Paths) {
        let (lost, kept) = match self.send_to_host(slot) {
            Some(lost) => (lost, 0),
            None => {
                let tokens = self.contexts[slot as usize].tokens();
                self.leave_prefix(slot);
                let lost = self.sequence_mut(slot).preempt();
                (lost, self.leave_remnant(slot, tokens, paths))
            }
        };
        let (place, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        sequence.lost_blocks = lost + self.paging.most_blocks(1);
        self.blocks.give_back(lost - kept);
        self.preemptions += 1;
        self.preempted = true;
        self.waiting.push(Reverse((*place, Waiter::Preempted(slot), sequence.arrival)));
        self.queues.leave(slot);
        self.running.retain(|&other| other != slot);
    }
}
