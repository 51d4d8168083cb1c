//! Which tokens run together next: continuous batching, first come first served, with a token budget, chunked prefill
//! and admission by KV bytes; and the queues of the `queued` policy.

mod queues;
mod sequence;

pub use sequence::{Sequence, kv_entries_at_most, longest_unit};

use crate::batch::{Batch, Context, Part, Paths, Policy};
use crate::trace::Request;
use crate::units::SimTime;
use queues::Queues;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How a server forms batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// Most tokens in a pass.
    pub max_batched_tokens: u32,
    /// Most sequences that run at once.
    pub max_sequences: u32,
    /// Whether a prompt may be cut into chunks that fill what the budget leaves.
    pub chunked_prefill: bool,
}

/// What came out of a pass.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// (slot, tokens put out) of each sequence that put some out.
    pub tokens: Vec<(u32, u32)>,
    /// Requests that are over: slot and request.
    pub finished: Vec<u32>,
}

/// The server's state: who waits, who runs, and where everybody is.
#[derive(Debug)]
pub struct Scheduler {
    serving: Serving,
    policy: Policy,
    layers: u32,
    entry_bytes: u64,
    /// KV bytes that are promised to running sequences, and how many there are.
    promised: u64,
    kv_capacity: u64,
    held_entries: u64,
    waiting: VecDeque<(Request, u64)>,
    running: Vec<u32>,
    sequences: Vec<Option<Sequence>>,
    contexts: Vec<Context>,
    free: Vec<u32>,
    queues: Queues,
}

impl Scheduler {
    /// A server with `kv_capacity` bytes for KV entries of `entry_bytes` each.
    pub fn new(serving: Serving, policy: Policy, layers: u32, entry_bytes: u64, kv_capacity: u64) -> Self {
        Scheduler {
            serving,
            policy,
            layers,
            entry_bytes,
            promised: 0,
            kv_capacity,
            held_entries: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            sequences: Vec::new(),
            contexts: Vec::new(),
            free: Vec::new(),
            queues: Queues::new(layers),
        }
    }

    /// A request comes; it will hold at most `entries` KV entries.
    pub fn arrive(&mut self, request: Request, entries: u64) {
        self.waiting.push_back((request, entries * self.entry_bytes));
    }

    /// Whether nobody waits and nobody runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Requests that have arrived and wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that have been admitted and are not over.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// What each running sequence can attend to, by slot.
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// The sequence in this slot.
    pub fn sequence(&self, slot: u32) -> &Sequence {
        self.sequences[slot as usize].as_ref().expect("an occupied slot")
    }

    /// KV bytes held now.
    pub fn kv_bytes(&self) -> u64 {
        self.held_entries * self.entry_bytes
    }

    /// Fills `batch` (emptied first) with what runs next. False: nobody has anything to run.
    pub fn next_batch(&mut self, now: SimTime, paths: &Paths, batch: &mut Batch) -> bool {
        batch.clear();
        self.admit();
        match self.policy {
            Policy::Queued { full, wait_us } => {
                self.next_queued(now, full, SimTime::from_us(wait_us), paths, batch)
            }
            Policy::DenseMasked | Policy::Aligned | Policy::Hop | Policy::Grouped => self.next_step(batch),
        }
        !batch.spans.is_empty()
    }

    /// First come, first served: the head of the queue enters when its KV entries fit, and nobody overtakes it.
    fn admit(&mut self) {
        while self.running.len() < self.serving.max_sequences as usize
            && let Some((_, bytes)) = self.waiting.front()
            && self.promised + bytes <= self.kv_capacity
        {
            let (request, bytes) = self.waiting.pop_front().expect("there is a head");
            self.promised += bytes;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.sequences.push(None);
                self.contexts.push(Context::default());
                self.sequences.len() as u32 - 1
            });
            self.sequences[slot as usize] = Some(Sequence::new(request, bytes));
            self.contexts[slot as usize] = Context::default();
            self.running.push(slot);
        }
    }

    /// One pass over all running sequences: generated tokens first, then prompts, oldest first, within the budget.
    fn next_step(&mut self, batch: &mut Batch) {
        let mut budget = self.serving.max_batched_tokens;
        for single in [true, false] {
            for &slot in &self.running {
                let sequence = self.sequences[slot as usize].as_ref().expect("running sequences exist");
                if sequence.is_single() == single {
                    let tokens = self.serving.chunk(sequence.unit(), budget);
                    budget -= tokens;
                    push(batch, slot, sequence, tokens, Part::WHOLE);
                }
            }
        }
    }

    /// Prompts first (they fill the queues), then the queue whose turn it is.
    fn next_queued(&mut self, now: SimTime, full: u32, wait: SimTime, paths: &Paths, batch: &mut Batch) {
        let mut budget = self.serving.max_batched_tokens;
        for &slot in &self.running {
            let sequence = self.sequences[slot as usize].as_ref().expect("running sequences exist");
            if !sequence.is_single() {
                let tokens = self.serving.chunk(sequence.unit(), budget);
                budget -= tokens;
                push(batch, slot, sequence, tokens, Part::WHOLE);
            } else if !self.queues.holds(slot) {
                let path = paths.get(sequence.path(0));
                self.queues.enter(slot, path, 0, now);
            }
        }
        if !batch.spans.is_empty() {
            batch.waiting = self.queues.len();
            return;
        }
        let Some(queue) = self.queues.next(now, full, wait) else { return };
        for (slot, hop) in self.queues.take(queue, self.serving.max_batched_tokens) {
            let sequence = self.sequences[slot as usize].as_ref().expect("queued sequences exist");
            let to = if self.queues.is_head(queue) { Part::END } else { hop + 1 };
            push(batch, slot, sequence, 1, Part { enters: hop == 0, from: hop, to });
        }
        batch.waiting = self.queues.len();
    }

    /// The pass is over: every sequence in it moves on.
    pub fn complete(&mut self, now: SimTime, batch: &Batch, paths: &Paths, outcome: &mut Outcome) {
        outcome.tokens.clear();
        outcome.finished.clear();
        for span in &batch.spans {
            let slot = span.sequence;
            if span.part.to != Part::END {
                let path = paths.get(batch.paths[span.first as usize]);
                self.queues.enter(slot, path, span.part.to, now);
                continue;
            }
            let context = &mut self.contexts[slot as usize];
            let sequence = self.sequences[slot as usize].as_mut().expect("running sequences exist");
            self.held_entries -= context.stored();
            let put_out = sequence.complete(context, span.tokens, paths, self.layers);
            self.held_entries += context.stored();
            if put_out > 0 {
                outcome.tokens.push((slot, put_out));
            }
            if sequence.is_over() {
                outcome.finished.push(slot);
            }
        }
    }

    /// Frees the slots of finished sequences.
    pub fn release(&mut self, finished: &[u32]) {
        for &slot in finished {
            let sequence = self.sequences[slot as usize].take().expect("a finished sequence was running");
            self.promised -= sequence.promised();
            self.held_entries -= self.contexts[slot as usize].stored();
            self.contexts[slot as usize] = Context::default();
            self.free.push(slot);
        }
        if !finished.is_empty() {
            let sequences = &self.sequences;
            self.running.retain(|&slot| sequences[slot as usize].is_some());
        }
    }
}

impl Serving {
    /// How many of the next `unit` tokens of a sequence fit the budget.
    fn chunk(&self, unit: u32, budget: u32) -> u32 {
        if unit <= budget {
            unit
        } else if self.chunked_prefill {
            budget
        } else {
            0
        }
    }
}

fn push(batch: &mut Batch, slot: u32, sequence: &Sequence, tokens: u32, part: Part) {
    if tokens > 0 {
        let paths = (0..tokens).map(|ahead| sequence.path(ahead));
        batch.push(slot, paths, sequence.is_single(), sequence.logits(tokens), part);
    }
}
