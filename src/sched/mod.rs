//! Which tokens run together next: continuous batching with a token budget, chunked prefill, paged KV, admission and
//! preemption; and the queues of the `queued` policy.
//!
//! [`Scheduler::next_batch`] forms a pass: sequences that run take their tokens and the blocks for them, in the order of
//! [`First`]; whoever lacks blocks preempts the last in line; then those who wait begin, while budget, sequences and blocks last.
mod admission;
mod blocks;
mod draws;
mod handover;
mod load;
mod lockstep;
mod prefix;
mod queues;
mod remnants;
mod sequence;
mod serving;

pub use blocks::{BlockTable, Paging};
pub use draws::{Begun, Takes};
pub use handover::Comes;
pub use load::Load;
pub use lockstep::Together;
pub use sequence::{Sequence, longest_unit, most_blocks, prompt_blocks};
pub use serving::{Admission, BeyondContext, First, Preemption, PrefixCaching, Queueing, Sampling, Serving};

use crate::batch::{Batch, Context, Hold, Part, Paths, Policy, Span, in_runs};
use crate::engine::Pool;
use crate::trace::Request;
use crate::units::SimTime;
use draws::Draws;
use handover::Handover;
use lockstep::Company;
use prefix::Prefixes;
use queues::Queues;
use remnants::Remnants;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a pass came to.
#[derive(Clone, Debug, Default)]
pub struct PassEnd {
    /// Tokens put out.
    pub output_tokens: u32,
    /// Prompt tokens that passed for the first time.
    pub prompt_tokens: u32,
    /// Tokens that had passed before a preemption.
    pub recomputed_tokens: u32,
    /// Slots whose requests are over.
    pub finished: Vec<u32>,
    /// Times since the tokens before, of sequences that put out tokens again, with how many neighbours have the same.
    pub gaps: Vec<(SimTime, u32)>,
}

impl PassEnd {
    /// Forgets everything and keeps its memory.
    fn clear(&mut self) {
        let (mut finished, mut gaps) = (std::mem::take(&mut self.finished), std::mem::take(&mut self.gaps));
        finished.clear();
        gaps.clear();
        *self = PassEnd { finished, gaps, ..PassEnd::default() };
    }

    fn gap(&mut self, length: SimTime, times: u32) {
        match self.gaps.last_mut() {
            Some((known, count)) if *known == length => *count += times,
            _ => self.gaps.push((length, times)),
        }
    }
}

/// Somebody who waits: a request that has not begun, or the slot of one that was preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    New(u32),
    Preempted(u32),
}

/// Rank and order of arrival: the least is served first, the greatest is preempted first.
type Place = (u32, u32);

/// The server's state: who waits, who runs, and where everybody is.
#[derive(Debug)]
pub struct Scheduler<'a> {
    serving: Serving,
    policy: Policy,
    layers: u32,
    paging: Paging,
    /// KV blocks; and those promised to whole requests.
    blocks: Pool,
    promised: u64,
    /// Blocks that stay free at an admission.
    watermark: u64,
    requests: &'a [Request],
    /// Blocks of each request's whole life, or of its prompt, where admission asks for them.
    most_blocks: Vec<u64>,
    waiting: BinaryHeap<Reverse<(Place, Waiter, SimTime)>>,
    /// Prompt tokens of those that have not begun.
    waiting_tokens: u64,
    /// Those who run one by one, in the order in which they began; and those who generate in lockstep, where that is allowed.
    running: Vec<u32>,
    groups: Vec<Company>,
    together: Option<Together>,
    /// Most sequences of a pass.
    most_in_pass: usize,
    /// How many have begun, or begun again.
    begun: u64,
    slots: Vec<Option<(Place, Sequence<'a>)>>,
    contexts: Vec<Context>,
    arrived: u32,
    free: Vec<u32>,
    queues: Queues,
    /// Reading a layer's weights: what running a layer for few tokens takes.
    layer_time: SimTime,
    prefixes: Prefixes,
    remnants: Remnants,
    handover: Handover,
    draws: Option<Draws<'a>>,
    /// Blocks on the host, bytes of a block, and those that move before the next pass.
    host: Pool,
    block_bytes: u64,
    moving: u64,
    preemptions: u64,
    /// Whether someone lost blocks while this pass was formed.
    preempted: bool,
    held_entries: u64,
}

impl<'a> Scheduler<'a> {
    /// A server with `blocks` KV blocks of `block_bytes` for these requests. `most_blocks`: those of each request's whole life or
    /// of its prompt, where admission asks for them.
    pub fn new(
        serving: Serving,
        policy: Policy,
        layers: u32,
        paging: Paging,
        (blocks, block_bytes): (u64, u64),
        requests: &'a [Request],
        most_blocks: Vec<u64>,
    ) -> Self {
        Scheduler {
            serving,
            policy,
            layers,
            paging,
            blocks: Pool::new(blocks),
            promised: 0,
            watermark: (blocks as f64 * serving.watermark) as u64,
            requests,
            most_blocks,
            waiting: BinaryHeap::new(),
            waiting_tokens: 0,
            running: Vec::new(),
            groups: Vec::new(),
            together: None,
            most_in_pass: usize::MAX,
            begun: 0,
            slots: Vec::new(),
            contexts: Vec::new(),
            arrived: 0,
            free: Vec::new(),
            queues: Queues::new(layers),
            layer_time: SimTime::ZERO,
            prefixes: Prefixes::default(),
            remnants: Remnants::default(),
            handover: Handover::default(),
            draws: None,
            host: Pool::new(serving.host_bytes() / block_bytes),
            block_bytes,
            moving: 0,
            preemptions: 0,
            preempted: false,
            held_entries: 0,
        }
    }

    /// Reading a layer's weights takes so long: for the test whether it pays to hold a queue.
    pub fn with_layer_time(self, layer_time: SimTime) -> Self {
        Scheduler { layer_time, ..self }
    }

    /// No more sequences in a pass than these.
    pub fn with_most_in_pass(self, most: usize) -> Self {
        Scheduler { most_in_pass: most, ..self }
    }

    /// KV blocks that sequences hold at the layers of each of `count` devices, where `of` says which device has which layer. Blocks that nobody in
    /// particular holds are taken as spread evenly over the layers.
    pub fn blocks_by(&self, of: &[u32], count: usize) -> Vec<u64> {
        let mut sums = vec![0; count];
        for (_, sequence) in self.slots.iter().flatten() {
            sequence.table.blocks_by(of, &mut sums, &self.paging);
        }
        let others = self.blocks.held().saturating_sub(sums.iter().sum());
        for (device, sum) in (0..).zip(&mut sums) {
            let layers = of.iter().filter(|&&other| other == device).count() as u64;
            *sum += (others * layers).div_ceil(of.len() as u64);
        }
        sums
    }

    /// Request number `index` comes at `arrival`.
    pub fn arrive(&mut self, index: u32, arrival: SimTime) {
        let request = &self.requests[index as usize];
        let rank = self.serving.queue.rank(request);
        self.waiting_tokens += u64::from(request.prompt_tokens);
        self.waiting.push(Reverse(((rank, self.arrived), Waiter::New(index), arrival)));
        self.arrived += 1;
    }

    /// Whether nobody waits and nobody runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running() + self.loading() == 0
    }

    /// How many run.
    fn running(&self) -> usize {
        self.running.len() + self.in_groups()
    }

    /// How many wait to begin, to begin again or for their entries, and how many run.
    pub fn waiting_and_running(&self) -> (u32, u32) {
        ((self.waiting.len() + self.loading()) as u32, self.running() as u32)
    }

    /// What each running sequence can attend to, by slot.
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// The sequence in this slot.
    pub fn sequence(&self, slot: u32) -> &Sequence<'a> {
        &self.slots[slot as usize].as_ref().expect("an occupied slot").1
    }

    /// The same, to keep accounts in.
    pub fn sequence_mut(&mut self, slot: u32) -> &mut Sequence<'a> {
        &mut self.slots[slot as usize].as_mut().expect("an occupied slot").1
    }

    /// KV blocks: what is held, the most that was, and what there is.
    pub fn blocks(&self) -> &Pool {
        &self.blocks
    }

    /// KV entries in the blocks that are held.
    pub fn entries(&self) -> u64 {
        self.held_entries
    }

    /// How often a sequence has lost its blocks.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Fills `batch` (emptied first) with what runs next. False: nobody has anything to run.
    pub fn next_batch(&mut self, now: SimTime, paths: &mut Paths, batch: &mut Batch) -> bool {
        batch.clear();
        self.preempted = false;
        match self.policy {
            Policy::Queued { full, wait_us, hold } => {
                let layer = (hold == Hold::IfProfitable).then_some(self.layer_time);
                self.next_queued(now, (full, SimTime::from_us(wait_us), layer), paths, batch)
            }
            Policy::DenseMasked | Policy::Aligned | Policy::Hop | Policy::Grouped => {
                self.next_step(now, paths, batch)
            }
        }
        if batch.is_empty() {
            return false;
        }
        batch.swapped_bytes = std::mem::take(&mut self.moving) * self.block_bytes;
        true
    }

    /// One pass over all that run, and those that can begin.
    fn next_step(&mut self, now: SimTime, paths: &mut Paths, batch: &mut Batch) {
        let mut budget = self.serving.max_batched_tokens;
        match self.serving.first {
            First::Decode => {
                self.advance(true, &mut budget, paths, batch);
                self.advance(false, &mut budget, paths, batch);
                self.admit(now, &mut budget, paths, batch);
            }
            First::Prefill => {
                self.advance(false, &mut budget, paths, batch);
                self.admit(now, &mut budget, paths, batch);
                if batch.is_empty() || self.serving.chunked_prefill {
                    self.advance(true, &mut budget, paths, batch);
                }
            }
        }
    }

    /// Tokens of those that run, generated ones (`single`) or those of prompts, oldest first, within the budget.
    fn advance(&mut self, single: bool, budget: &mut u32, paths: &Paths, batch: &mut Batch) {
        if single {
            self.advance_groups(budget, paths, batch);
        }
        let mut index = 0;
        while index < self.running.len() && *budget > 0 && batch.spans.len() < self.most_in_pass {
            let slot = self.running[index];
            let sequence = self.sequence(slot);
            if sequence.is_single() == single && !sequence.in_pass {
                self.take(slot, budget, paths, batch);
            }
            // Whoever was preempted for it stood behind it, or was itself.
            index += usize::from(self.running.get(index) == Some(&slot));
        }
    }

    /// The next tokens of a running sequence, with blocks for them: those of the last in line, if need be.
    fn take(&mut self, slot: u32, budget: &mut u32, paths: &Paths, batch: &mut Batch) {
        while !self.push(slot, budget, 0, paths, batch) {
            if batch.lockstep.is_empty() {
                self.dissolve(paths);
            }
            let last = self.last_in_line().unwrap_or(slot);
            if last == slot && self.must_wait(slot) {
                return;
            }
            self.preempt(last, paths);
            if last == slot {
                return;
            }
        }
    }

    /// Whether a round of drafts stands still until the next pass, rather than be preempted for sequences that came later and are in the pass: a
    /// preempted round begins anew, so that two could preempt each other for ever.
    fn must_wait(&self, slot: u32) -> bool {
        // Groups that are not in the pass were dissolved.
        let in_pass = |sequence: &Sequence| sequence.in_pass || sequence.joined.is_some();
        let later = |(place, sequence): &(Place, _)| in_pass(sequence) && Some(*place) > self.place(slot);
        self.sequence(slot).in_round() && self.slots.iter().flatten().any(later)
    }

    /// The sequence that came last among those that are not in the pass yet.
    fn last_in_line(&self) -> Option<u32> {
        let waiting = self.running.iter().copied().filter(|&slot| !self.sequence(slot).in_pass);
        waiting.max_by_key(|&slot| self.place(slot))
    }

    fn place(&self, slot: u32) -> Option<Place> {
        self.slots[slot as usize].as_ref().map(|(place, _)| *place)
    }

    /// Puts the next tokens of a sequence into the pass, if `spare` blocks stay free. False: blocks are short.
    #[inline]
    fn push(&mut self, slot: u32, budget: &mut u32, spare: u64, paths: &Paths, batch: &mut Batch) -> bool {
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        let unit = sequence.unit();
        let tokens =
            if sequence.is_replaying() { unit.min(*budget) } else { self.serving.chunk(unit, *budget) };
        if tokens == 0 {
            return true;
        }
        let first = batch.paths.len();
        sequence.extend_paths(tokens, &mut batch.paths);
        let takes = sequence.takes(self.contexts[slot as usize].tokens(), tokens);
        batch.taken.extend_from_slice(takes);
        // Where prompt blocks are kept, taking back is not adding with the other sign.
        let before = sequence.open.then(|| (sequence.table.clone(), sequence.share.closed.len()));
        let blocks = sequence.fill(&batch.paths[first..], paths, &self.paging);
        let fits = blocks == 0 || (self.make_room(blocks + spare, paths) && self.blocks.take(blocks).is_ok());
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        if !fits {
            if let Some((table, closed)) = before {
                sequence.table = table;
                sequence.share.closed.truncate(closed);
            } else {
                for (path, times) in in_runs(&batch.paths[first..]) {
                    sequence.table.remove(&paths.get(path).stored, times, &self.paging);
                }
            }
            batch.paths.truncate(first);
            batch.taken.truncate(first);
            return false;
        }
        sequence.in_pass = true;
        let (decode, logits) = (sequence.is_single(), sequence.logits(tokens));
        let span = Span { sequence: slot, first: first as u32, tokens, decode, logits, part: Part::WHOLE };
        batch.spans.push(span);
        *budget -= tokens;
        true
    }

    /// Prompts first (they fill the queues), then the queue whose turn it is.
    fn next_queued(
        &mut self,
        now: SimTime,
        (full, wait, layer): (u32, SimTime, Option<SimTime>),
        paths: &mut Paths,
        batch: &mut Batch,
    ) {
        let mut budget = self.serving.max_batched_tokens;
        self.advance(false, &mut budget, paths, batch);
        self.admit(now, &mut budget, paths, batch);
        if !batch.spans.is_empty() {
            batch.waiting = self.queues.len();
            return;
        }
        self.fill_queues(now, paths, batch);
        let Some(queue) = self.queues.next(now, full, wait, layer) else { return };
        for (slot, hop) in self.queues.take(queue, self.serving.max_batched_tokens) {
            let to = if self.queues.is_head(queue) { Part::END } else { hop + 1 };
            let part = Part { enters: hop == 0, from: hop, to };
            let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
            sequence.in_pass = true;
            batch.push(slot, [sequence.path(0)], true, sequence.logits(1), part);
        }
        batch.waiting = self.queues.len();
    }

    /// Sequences with a token to generate enter the queue of its first layer, with blocks for the whole route.
    fn fill_queues(&mut self, now: SimTime, paths: &Paths, batch: &mut Batch) {
        let (mut index, mut budget) = (0, u32::MAX);
        while index < self.running.len() {
            let slot = self.running[index];
            if !self.queues.holds(slot) {
                self.take(slot, &mut budget, paths, batch);
                if batch.spans.pop().is_some() {
                    let path = batch.paths.pop().expect("a span has a path");
                    self.queues.enter(slot, paths.get(path), 0, now);
                }
            }
            index += usize::from(self.running.get(index) == Some(&slot));
        }
        for (_, sequence) in self.slots.iter_mut().flatten() {
            sequence.in_pass = false;
        }
    }

    /// The pass is over: every sequence in it moves on.
    pub fn complete(&mut self, now: SimTime, batch: &Batch, paths: &Paths, outcome: &mut PassEnd) {
        outcome.clear();
        self.complete_groups(now, batch, paths, outcome);
        let mut joined = false;
        for span in &batch.spans {
            let slot = span.sequence;
            let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
            sequence.in_pass = false;
            if span.part.to != Part::END {
                let path = paths.get(batch.paths[span.first as usize]);
                self.queues.enter(slot, path, span.part.to, now);
                continue;
            }
            if sequence.is_replaying() {
                outcome.recomputed_tokens += span.tokens;
            } else if sequence.in_prompt() {
                outcome.prompt_tokens += span.tokens;
            }
            let mut passed = batch.paths_of(span);
            if !sequence.open {
                self.move_on(now, slot, passed, paths, outcome);
                joined |= self.join_group(slot, now, paths);
                continue;
            }
            while !passed.is_empty() {
                let (count, closes) = self.sequence(slot).piece(0, passed.len() as u32);
                let (piece, rest) = passed.split_at(count as usize);
                let kept = closes.then(|| self.sequence(slot).hash_after(count));
                self.move_on(now, slot, piece, paths, outcome);
                if let Some(hash) = kept {
                    self.keep_prefix(slot, hash);
                }
                passed = rest;
            }
            joined |= self.join_group(slot, now, paths);
        }
        if joined {
            let mut running = std::mem::take(&mut self.running);
            running.retain(|&slot| self.sequence(slot).joined.is_none());
            self.running = running;
        }
        outcome.finished.sort_by_key(|&slot| self.sequence(slot).order);
    }

    /// A sequence has taken these paths.
    #[inline]
    fn move_on(&mut self, now: SimTime, slot: u32, passed: &[u32], paths: &Paths, outcome: &mut PassEnd) {
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        let context = &mut self.contexts[slot as usize];
        let before = context.stored();
        let (put_out, freed) = sequence.complete(context, passed, paths, &self.paging, self.layers);
        self.held_entries = self.held_entries + context.stored() - before;
        if freed > 0 {
            self.blocks.give_back(freed);
        }
        if put_out > 0 {
            outcome.output_tokens += put_out;
            if sequence.first.is_some() {
                outcome.gap(now - sequence.latest, 1);
            }
            sequence.first.get_or_insert(now);
            sequence.latest = now;
        }
        if sequence.is_over() {
            outcome.finished.push(slot);
        }
    }

    /// Frees the slots, blocks and paths of finished sequences.
    pub fn release(&mut self, finished: &[u32], paths: &mut Paths) {
        for &slot in finished {
            self.leave_prefix(slot);
            let (_, sequence) = self.slots[slot as usize].take().expect("a finished sequence was running");
            self.promised -= sequence.promised;
            self.blocks.give_back(sequence.blocks());
            if let Some(draws) = &self.draws {
                draws.over(sequence.request(), paths);
            }
            self.free.push(slot);
        }
        if !finished.is_empty() {
            let slots = &self.slots;
            self.running.retain(|&slot| slots[slot as usize].is_some());
        }
    }
}
