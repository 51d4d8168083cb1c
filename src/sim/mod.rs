//! Puts sched, lower and cost on the engine: a trace in, a ledger out.
//!
//! The loop is short: whoever has arrived is admitted, the scheduler forms a pass, the pass becomes a graph, the graph
//! becomes a plan of priced tasks, the engine runs it, and everybody in it moves on ([`run`]).

mod explain;
mod machine;
mod observe;

pub use machine::chain;
pub use observe::{Observer, PassInfo, Silent};

use crate::batch::{Batch, Part, Paths};
use crate::cost::{Device, Limits};
use crate::engine::Pool;
use crate::error::{InputError, Result};
use crate::lower::{Dispatch, Lowering};
use crate::metrics::{KvUse, Ledger, Memory, RequestTimes, Split};
use crate::model::Model;
use crate::sched::{Outcome, Scheduler, Sequence, Serving, kv_entries_at_most};
use crate::trace::{Request, RouterKind, Trace};
use crate::units::SimTime;
use explain::{Explain, Seen};
use machine::Machine;

/// One variant, ready to run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The network, in its number formats.
    pub model: Model,
    /// The device profile.
    pub hardware: crate::hw::Hardware,
    /// Clock and power caps.
    pub limits: Limits,
    /// How batches form.
    pub serving: Serving,
    /// How passes become kernels.
    pub dispatch: Dispatch,
    /// Whether each pass is also priced dense and in one group a layer, to tell where the saving went.
    pub explain: bool,
}

/// Runs `trace` from its first arrival to its last token.
///
/// # Errors
/// Before anything is simulated: weights or a single request that cannot fit, a prompt that exceeds the token budget
/// without chunked prefill, requests without routes, a pool that is not the model's.
pub fn run(setup: &Setup, trace: &Trace, observer: &mut impl Observer) -> Result<Ledger> {
    Simulation::new(setup, trace)?.run(observer)
}

struct Simulation<'a> {
    model: &'a Model,
    trace: &'a Trace,
    paths: Paths,
    /// KV entries that each request holds at most.
    entries: Vec<u64>,
    scheduler: Scheduler,
    lowering: Lowering<'a>,
    machine: Machine,
    explain: Option<Explain<'a>>,
    memory: Pool,
    ledger: Ledger,
    next_arrival: usize,
    /// Of the running request in each slot.
    accounts: Vec<Account>,
}

/// What a running request has had so far.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Start of its first pass.
    scheduled: Option<SimTime>,
    first_token: Option<SimTime>,
    energy_pj: u64,
}

impl<'a> Simulation<'a> {
    fn new(setup: &'a Setup, trace: &'a Trace) -> Result<Self> {
        let model = &setup.model;
        if trace.header.layers != model.layers {
            let what =
                format!("a trace of {} layers, as {} has (stretch lays it over)", model.layers, model.name);
            return Err(InputError::expected(what).key("layers").found(trace.header.layers).into());
        }
        let again =
            trace.requests.iter().flat_map(|request| &request.runs).any(|run| Paths::passes_again(run.role));
        let paths = Paths::new(&trace.header, &trace.routes, again);
        let device = Device::new(&setup.hardware, setup.limits)?;
        let weights = resident_weights(setup, trace);
        let capacity = device.capacity_bytes();
        let kv_capacity = kv_capacity(model, setup.serving, weights, capacity)?;
        let entries = check_requests(setup, trace, &paths, kv_capacity)?;

        let mut memory = Pool::new(capacity);
        memory.take(weights).expect("weights were checked against the capacity");
        // Entries are taken one by one: a block is one entry.
        let entry_bytes = model.kv_entry_bytes();
        let blocks = kv_capacity / entry_bytes;
        let ledger = Ledger {
            memory: Memory { weights, capacity, ..Memory::default() },
            kv: KvUse { block_tokens: 1, block_bytes: entry_bytes, blocks, ..KvUse::default() },
            ..Ledger::default()
        };
        Ok(Simulation {
            model,
            trace,
            paths,
            entries,
            scheduler: Scheduler::new(
                setup.serving,
                setup.dispatch.policy,
                model.layers,
                model.kv_entry_bytes(),
                kv_capacity,
            ),
            lowering: Lowering::new(model, setup.dispatch.clone()),
            explain: setup.explain.then(|| Explain::new(model, &setup.dispatch)),
            machine: Machine::new(device),
            memory,
            ledger,
            next_arrival: 0,
            accounts: Vec::new(),
        })
    }

    fn run(mut self, observer: &mut impl Observer) -> Result<Ledger> {
        let (mut batch, mut outcome) = (Batch::default(), Outcome::default());
        loop {
            self.arrivals();
            if self.scheduler.next_batch(self.machine.now(), &self.paths, &mut batch) {
                let activations = self.pass(&batch, observer);
                self.settle(&batch, activations, &mut outcome, observer);
            } else if let Some(request) = self.trace.requests.get(self.next_arrival) {
                self.machine.wait_until(request.arrival);
            } else {
                assert!(self.scheduler.is_idle(), "a sequence that runs has a next pass");
                break;
            }
        }
        self.finish();
        Ok(self.ledger)
    }

    /// Everybody who has arrived by now joins the queue.
    fn arrivals(&mut self) {
        while let Some(request) = self.trace.requests.get(self.next_arrival)
            && request.arrival <= self.machine.now()
        {
            // Whoever came while a pass ran has waited since.
            self.ledger.stand(self.machine.now() - request.arrival, 1, 0, 0, 0);
            self.scheduler.arrive(request.clone(), self.entries[self.next_arrival]);
            self.next_arrival += 1;
        }
    }

    /// Lowers, prices and runs one pass. Returns the bytes of activations that it still holds.
    fn pass(&mut self, batch: &Batch, observer: &mut impl Observer) -> u64 {
        let mut graphed = std::mem::take(&mut self.machine.graphed);
        self.lowering.lower(batch, self.scheduler.contexts(), &self.paths, &mut graphed.graph);
        let whole = batch.spans.iter().any(|span| span.part.to == Part::END);
        self.machine.price(&mut graphed, whole, &mut self.ledger);

        let activations = graphed.graph.activation_bytes;
        self.memory.take(activations).expect("activations of the largest pass were set aside");
        self.ledger.memory.activations_peak = self.ledger.memory.activations_peak.max(activations);
        self.ledger.layer_visits += graphed.graph.layer_visits;
        self.ledger.union_bytes += u128::from(graphed.graph.union_bytes);
        let (attention, ffn) = (self.model.attention_weight_bytes(), self.model.ffn_weight_bytes());
        if whole {
            self.ledger.pool_bytes += u128::from(self.model.layers) * u128::from(attention + ffn);
        }

        let begin = self.machine.now();
        let (busy, dynamic) = (self.ledger.busy_ps, self.ledger.dynamic_pj);
        let graphed = self.machine.run(graphed, &mut self.ledger, observer);
        let length = self.machine.now() - begin;
        let (busy, dynamic) = (self.ledger.busy_ps - busy, self.ledger.dynamic_pj - dynamic);
        self.share_out(batch, begin, busy, dynamic);
        if let Some(explain) = &mut self.explain {
            let seen = Seen { batch, contexts: self.scheduler.contexts(), paths: &self.paths, step: whole };
            explain.pass(&seen, &graphed, length, &mut self.machine);
        }
        let kv_bytes = self.scheduler.kv_bytes();
        let (waiting, running) = (self.scheduler.waiting(), self.scheduler.running());
        let entries = kv_bytes / self.model.kv_entry_bytes();
        self.ledger.stand(length, waiting as u64, running as u64, entries, entries);
        let info = PassInfo {
            begin,
            end: self.machine.now(),
            batch,
            memory_bytes: self.memory.held(),
            waiting: waiting as u32,
            running: running as u32,
            kv_bytes,
            busy: SimTime::from_ps(busy as u64),
            dynamic_pj: dynamic as u64,
        };
        observer.pass(&info);
        self.machine.graphed = graphed;
        activations
    }

    /// Gives each phase and each request of a pass that began at `begin` and is over its part of the time and the energy, by
    /// tokens.
    fn share_out(&mut self, batch: &Batch, begin: SimTime, busy_ps: u128, dynamic_pj: u128) {
        let length = self.machine.now() - begin;
        let idle_ps = u128::from(length.ps()) - busy_ps;
        // `as` rounds down to whole picojoules, far below what the constants of power are known to.
        let energy_pj = self.machine.device().energy_pj(busy_ps, idle_ps, dynamic_pj) as u64;
        let mut energies = Split::new(energy_pj, batch.tokens().into());
        let mut prompt = 0;
        for span in &batch.spans {
            let in_prompt = self.scheduler.sequence(span.sequence).in_prompt();
            let whole = if span.part.to == Part::END { span.tokens } else { 0 };
            let phase = if in_prompt { &mut self.ledger.prefill } else { &mut self.ledger.decode };
            phase.tokens += u64::from(whole);
            prompt += if in_prompt { span.tokens } else { 0 };
            let slot = span.sequence as usize;
            if self.accounts.len() <= slot {
                self.accounts.resize(slot + 1, Account::default());
            }
            let account = &mut self.accounts[slot];
            account.scheduled.get_or_insert(begin);
            account.energy_pj += energies.take(span.tokens.into());
        }
        self.ledger.pass(prompt, batch.tokens(), length, energy_pj);
    }

    /// Moves every sequence of the pass on, and books tokens, KV bytes and finished requests.
    fn settle(
        &mut self,
        batch: &Batch,
        activations: u64,
        outcome: &mut Outcome,
        observer: &mut impl Observer,
    ) {
        let now = self.machine.now();
        for span in batch.spans.iter().filter(|span| span.part.to == Part::END) {
            self.ledger.routed_tokens += u64::from(span.tokens);
            for &path in batch.paths_of(span) {
                self.ledger.half_depths += (self.paths.get(path).depth * 2.0) as u64;
            }
            if self.scheduler.sequence(span.sequence).in_prompt() {
                self.ledger.prompt_tokens += u64::from(span.tokens);
            }
        }
        let before = self.scheduler.kv_bytes();
        self.scheduler.complete(now, batch, &self.paths, outcome);
        let after = self.scheduler.kv_bytes();
        if after >= before {
            self.memory.take(after - before).expect("running sequences were promised their KV bytes");
        } else {
            self.memory.give_back(before - after);
        }
        self.ledger.memory.kv_peak = self.ledger.memory.kv_peak.max(after);
        // Held for an instant, by those who are over, too.
        let entries = after / self.model.kv_entry_bytes();
        self.ledger.stand(SimTime::ZERO, 0, 0, entries, entries);
        // The entries of a pass are written while its activations live.
        self.memory.give_back(activations);

        for &(slot, tokens) in &outcome.tokens {
            self.ledger.output_tokens += u64::from(tokens);
            self.accounts[slot as usize].first_token.get_or_insert(now);
            observer.output(tokens);
        }
        for &slot in &outcome.finished {
            let sequence = self.scheduler.sequence(slot);
            let account = std::mem::take(&mut self.accounts[slot as usize]);
            self.ledger.requests.push(times(sequence, &account, now));
        }
        self.scheduler.release(&outcome.finished);
        let freed = after - self.scheduler.kv_bytes();
        self.memory.give_back(freed);
    }

    fn finish(&mut self) {
        let ledger = &mut self.ledger;
        assert_eq!(
            self.memory.held(),
            ledger.memory.weights,
            "bytes taken = bytes given back, but for the weights"
        );
        assert_eq!(ledger.requests.len(), self.trace.requests.len(), "every request finishes");
        ledger.makespan = self.machine.now();
        ledger.memory.total_peak = self.memory.peak();
        ledger.busy = self.machine.busy_shares();
        ledger.losses = self.explain.as_ref().map(Explain::losses);
    }
}

fn times(sequence: &Sequence, account: &Account, last: SimTime) -> RequestTimes {
    let Request { id, arrival, prompt_tokens, output_tokens, .. } = *sequence.request();
    assert_eq!(sequence.put_out(), output_tokens, "a request that is over has put out all its tokens");
    RequestTimes {
        id,
        arrival,
        scheduled: account.scheduled.expect("a finished request was in a pass"),
        first: account.first_token.expect("a finished request put a token out"),
        last,
        output_tokens,
        prompt_tokens,
        cached_tokens: 0,
        preemptions: 0,
        energy_pj: account.energy_pj,
    }
}

/// Bytes of the weights that must be kept: of all layers, unless the choice was made once and for all; then of the branches
/// and widths that some route takes. Sparse matrices take what their density leaves.
fn resident_weights(setup: &Setup, trace: &Trace) -> u64 {
    let (model, density) = (&setup.model, setup.dispatch.density);
    let bytes = |params: f64| density.bytes(model.weights, params as u64);
    let (attention, ffn) = (model.attention_params() as f64, model.ffn_params() as f64);
    let mut taken = vec![(false, 0.0f64); model.layers as usize];
    if trace.header.router.kind == RouterKind::Fixed {
        for step in trace.routes.iter().flat_map(|route| &route.0) {
            let (attends, width) = &mut taken[step.layer as usize];
            *attends |= step.modules.attention();
            *width = if step.modules.feed_forward() { width.max(step.width.into()) } else { *width };
        }
    } else {
        taken.fill((true, 1.0));
    }
    let layer = |&(attends, width): &(bool, f64)| match (attends, width) {
        (false, 0.0) => 0,
        _ => bytes(if attends { attention } else { 0.0 }) + bytes(ffn * width) + model.norm_weight_bytes(),
    };
    model.weight_bytes(0) + taken.iter().map(layer).sum::<u64>()
}

/// What is left for KV entries once weights and the activations of the largest pass are set aside.
fn kv_capacity(model: &Model, serving: Serving, weights: u64, capacity: u64) -> Result<u64> {
    let rows = u64::from(serving.max_batched_tokens.max(serving.max_sequences));
    let activations = crate::lower::activation_bytes(model, rows, rows);
    let needed = weights + activations;
    capacity.checked_sub(needed).filter(|&left| left > 0).ok_or_else(|| {
        let what = format!(
            "at most {capacity} bytes of usable memory for weights ({weights}) and activations ({activations}); {} are short",
            needed.saturating_sub(capacity)
        );
        InputError::expected(what).key("memory").found(needed).into()
    })
}

/// Each request's KV entries at most; an error where one can never run.
fn check_requests(setup: &Setup, trace: &Trace, paths: &Paths, kv_capacity: u64) -> Result<Vec<u64>> {
    let one = |request: &Request| {
        let key = format!("request {}", request.id);
        if request.runs.is_empty() {
            return Err(InputError::expected("routes for every token (draw_routes gives some)")
                .key(key)
                .into());
        }
        let budget = setup.serving.max_batched_tokens;
        let longest = crate::sched::longest_unit(request);
        if !setup.serving.chunked_prefill && longest > budget {
            let what = format!("runs within max_batched_tokens = {budget}, as chunked_prefill is off");
            return Err(InputError::expected(what).key(key).found(longest).into());
        }
        let entries = kv_entries_at_most(request, paths, setup.model.layers);
        let bytes = entries * setup.model.kv_entry_bytes();
        if bytes > kv_capacity {
            let what = format!(
                "at most {kv_capacity} bytes of KV entries for one request; {} are short",
                bytes - kv_capacity
            );
            return Err(InputError::expected(what).key(key).found(bytes).into());
        }
        Ok(entries)
    };
    trace.requests.iter().map(one).collect()
}
