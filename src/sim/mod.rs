//! Puts sched, lower and cost on the engine: a trace in, a ledger out.
//!
//! The loop is short: whoever has arrived is admitted, the scheduler forms a pass, the pass becomes a graph, the graph
//! becomes a plan of priced tasks, the engine runs it, and everybody in it moves on ([`fleet`]).

mod arrivals;
mod beyond;
mod by_token;
mod closed;
mod explain;
mod fit;
pub mod fleet;
mod flights;
mod governor;
mod machine;
mod observe;
mod placed;
mod shares;

pub use observe::{Observer, PassInfo, Silent};
pub use placed::Placed;

use crate::batch::{Batch, Decisions, ExpertUse, Part, Paths, in_runs};
use crate::cost::{Device, Limits, Ranks};
use crate::engine::Pool;
use crate::error::{InputError, Result};
use crate::kernel::Filling;
use crate::lower::{Dispatch, ExpertPlan, Lowered, Lowering, Places};
use crate::metrics::{Gap, KvUse, Ledger, MemoryUse};
use crate::model::Model;
use crate::sched::{PassEnd, Scheduler, Serving, Takes, Together};
use crate::tier::{Residency, Tiers};
use crate::trace::synth::Later;
use crate::trace::{KvAction, Stats, Taken, Trace};
use crate::units::SimTime;
use crate::workload::{Clients, Sessions};
use arrivals::Arrivals;
use beyond::{Beyond, Within};
use closed::PassSums;
pub use explain::Against;
use explain::{Explain, Seen};
use fleet::Outside;
use flights::Flights;
use governor::{At, Governor};
use machine::Machine;
use serde::{Deserialize, Serialize};
use shares::times;
use std::slice;
use std::sync::Arc;

/// One variant, ready to run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The network, in its number formats.
    pub model: Model,
    /// The device profile.
    pub hardware: crate::hw::Hardware,
    /// Clock and power caps, of each device.
    pub limits: Limits,
    /// Devices that compute the model together, where it is a part of one ([`Model::shard`]).
    pub ranks: Option<Arc<Ranks>>,
    /// Which device has which layers, where not one has all: pipeline stages, or a placement. With [`Setup::ranks`], each of them is so many.
    pub placed: Option<Arc<Placed>>,
    /// Which experts tokens take, where the model has some.
    pub experts: ExpertUse,
    /// Who sends the requests of the trace one after another, where clients wait for answers; arrivals of the trace do not
    /// count then.
    pub clients: Option<Clients>,
    /// Which requests of the trace wait for the end of another, where there are conversations.
    pub sessions: Option<Sessions>,
    /// How batches form.
    pub serving: Serving,
    /// How passes become kernels.
    pub dispatch: Dispatch,
    /// How layers come to the device where not all of them stay there.
    pub tiers: Option<Tiers>,
    /// Whether every kernel is an event, or every pass.
    pub fidelity: Fidelity,
    /// Whether each pass is also priced dense and in one group a layer, to tell where the saving went. Not where layers are
    /// streamed: what a dense pass would fetch depends on the passes before it.
    pub explain: bool,
    /// Settings of the variant that savings are against, where they are not this run's own: an explained run prices its dense
    /// passes with them, too.
    pub against: Option<Against>,
}

impl Setup {
    /// The device, among those that compute the model together.
    ///
    /// # Errors
    /// Those of [`Device::new`].
    pub fn device(&self) -> Result<Device> {
        Ok(Device::new(&self.hardware, self.limits)?.with_ranks(self.ranks.clone()))
    }

    /// Devices that have layers of their own; those that compute layers together are one.
    pub fn places(&self) -> u32 {
        self.placed.as_ref().map_or(1, |placed| placed.layout.devices())
    }
}

/// What is known of the experts of `model` on this device.
fn expert_plan(of: ExpertUse, model: &Model, device: &Device) -> Option<ExpertPlan> {
    ExpertPlan::new(model, of, |inputs, weights| device.fuses_experts(inputs, weights))
}

/// What is an event. Both give the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// Every kernel, launch and read-back: what a timeline shows.
    Kernel,
    /// A pass; its kernels are summed in closed form.
    Step,
}

/// Runs `trace` from its first arrival to its last token.
///
/// # Errors
/// Before anything is simulated: weights or a single request that cannot fit, a prompt that exceeds the token budget
/// without chunked prefill, requests without routes, a pool that is not the model's. Later: time, work or energy beyond what
/// 64 bits count, with the setting that is most likely at fault.
pub fn run(setup: &Setup, trace: &Trace, observer: &mut impl Observer) -> Result<Ledger> {
    run_on(setup.device()?, setup, trace, observer)
}

/// The same on a device that was made of the setup's profile and limits before: what it knows of shapes is not worked out again.
///
/// # Errors
/// Those of [`run`].
pub fn run_on(device: Device, setup: &Setup, trace: &Trace, observer: &mut impl Observer) -> Result<Ledger> {
    let server = Server::new(device, setup, trace, Routes::Known)?;
    server.run(setup, observer)
}

/// The same with the routes of a request drawn by `later` when it begins; `trace` stands for them until then.
///
/// # Errors
/// Those of [`run`], and a setup that looks at all routes before the run.
pub fn run_later(
    device: Device,
    setup: &Setup,
    (trace, later): (&Trace, &Later),
    observer: &mut impl Observer,
) -> Result<Ledger> {
    let server = Server::new(device, setup, trace, Routes::Later(later))?;
    server.run(setup, observer)
}

/// The same with every sequence listed in every pass, and every token on its path: nothing is counted in groups or taken as a set. What both are held
/// against.
///
/// # Errors
/// Those of [`run`].
#[doc(hidden)]
pub fn run_listed(setup: &Setup, trace: &Trace) -> Result<Ledger> {
    let device = setup.device()?;
    let mut server = Server::new(device, setup, trace, Routes::Listed)?;
    server.scheduler = server.scheduler.with_lockstep(None);
    server.run(setup, &mut Silent)
}

/// Where the routes of a run are.
#[derive(Clone, Copy)]
enum Routes<'a> {
    /// In the trace.
    Known,
    /// The same, each token on its compiled path.
    Listed,
    /// They are drawn when their request begins.
    Later(&'a Later),
}

/// Routes of a trace whose paths are all compiled before the run: 8 MB of them. Of more, those that somebody takes.
const ROUTES_THAT_STAY: usize = 4096;

struct Server<'a> {
    trace: &'a Trace,
    paths: Paths,
    scheduler: Scheduler<'a>,
    block_bytes: u64,
    block_tokens: u32,
    /// Bytes of the branches of all layers, and of the state of a token.
    branch_bytes: u64,
    row_bytes: u64,
    /// KV bytes that `memory` holds.
    kv_bytes: u64,
    lowering: Lowering<'a>,
    machine: Machine,
    governor: Governor,
    /// The clock of the pass.
    clock: At,
    fidelity: Fidelity,
    step: SimTime,
    /// Whether the host forms a pass while the one before runs, and how long that one ran once it was formed.
    overlaps: bool,
    before: SimTime,
    explain: Option<Explain<'a>>,
    memory: Pool,
    ledger: Ledger,
    /// Picojoules that did not go evenly into the tokens of the passes so far.
    left_pj: u128,
    outside: Outside,
    /// Passes in flight, where layers are on several devices.
    flights: Option<Flights<'a>>,
}

impl<'a> Server<'a> {
    fn new(mut device: Device, setup: &'a Setup, trace: &'a Trace, routes: Routes) -> Result<Self> {
        let model = &setup.model;
        if trace.header.layers != model.layers {
            let what =
                format!("a trace of {} layers, as {} has (stretch lays it over)", model.layers, model.name);
            return Err(InputError::expected(what).key("layers").found(trace.header.layers).into());
        }
        if trace.requests.is_empty() {
            return Err(InputError::expected("at least one request").key("requests").found("none").into());
        }
        let lowering = Lowering::new(model, setup.dispatch.clone());
        let placed = setup.placed.as_deref();
        placed.map_or(Ok(()), |placed| placed.check(setup, trace))?;
        let sets = lowering.takes_sets() && placed.is_none() && setup.experts.ids.is_none();
        let fixed = matches!(routes, Routes::Known | Routes::Listed) && Places::are_fixed(trace);
        let mut takes = match routes {
            Routes::Later(later) if later.draws_sets() && sets => Takes::Branches(Box::new(later.clone())),
            Routes::Later(later) => Takes::Routes(Box::new(later.clone())),
            // Where generated tokens are on one path, groups say more than sets.
            Routes::Known if sets && !fixed => {
                Taken::of_trace(trace).map_or(Takes::Listed(&trace.routes), Takes::OfRoutes)
            }
            Routes::Known | Routes::Listed => Takes::Listed(&trace.routes),
        };
        let stay = if let Routes::Listed = routes { usize::MAX } else { ROUTES_THAT_STAY };
        let mut paths = takes.paths(trace, stay);
        let decisions = setup.dispatch.decisions;
        let graphs =
            decisions.has_nodes() || matches!(decisions, Decisions::Padded | Decisions::Capacity { .. });
        if let (Routes::Later(_), true) = (routes, graphs || setup.tiers.is_some()) {
            let what = "decisions without graphs of all branches, and no tiers: routes are drawn when their request begins";
            return Err(InputError::expected(what).key("decisions").found(decisions.name()).into());
        }
        let places = match graphs {
            true => Places::of(trace, &mut paths, matches!(decisions, Decisions::Capacity { .. })),
            false => Places::of_no_graph(fixed),
        };
        let mut residency = None;
        if let Some(tiers) = &setup.tiers {
            tiers.check(model.layers)?;
            device = device.with_link(tiers.link.rate(&setup.hardware));
            let (stats, bytes) = (Stats::of(trace), fit::layer_bytes(setup));
            residency = Some(Residency::new(tiers, model.layers, bytes, &trace.routes, stats.uses()));
        }
        let weights = fit::weights(setup, trace);
        let aside = fit::SetAside::new(setup, trace, &device);
        let serving = setup.serving;
        let unified = trace.header.kv == KvAction::Unified;
        let paging = fit::paging(setup, unified)?;
        let block_bytes = model.kv_entry_bytes() * u64::from(serving.kv_block_tokens);
        let mut within = |share| -> Result<_> {
            let capacity = device.capacity_bytes(share);
            let rooms = fit::kv_rooms(setup, &aside, (&weights, capacity), block_bytes)?;
            let blocks = fit::kv_blocks(setup, rooms.all, unified)?;
            Ok((
                (capacity * weights.len() as u64, rooms.each),
                blocks,
                fit::check_requests(setup, trace, (&mut takes, &mut paths), &paging, blocks)?,
            ))
        };
        let share = serving.gpu_memory_utilization;
        let ((capacity, rooms), blocks, most_blocks) = match within(share) {
            // Who says no share gets the profile's, and all of the memory where that is too little.
            Err(error) if share.is_none() => within(Some(1.0)).map_err(|_| error)?,
            within => within?,
        };

        let flights = placed.map(|placed| Flights::new(placed, &weights, rooms));
        let (set_aside, weights) = (aside.bytes() * weights.len() as u64, weights.iter().sum());
        let mut memory = Pool::new(capacity);
        memory.take(weights).expect("weights were checked against the capacity");
        let ledger = Ledger {
            memory: MemoryUse { weights, capacity, set_aside, ..MemoryUse::default() },
            kv: KvUse { block_tokens: serving.kv_block_tokens, block_bytes, blocks, ..KvUse::default() },
            ..Ledger::default()
        };
        let policy = setup.dispatch.policy;
        let governor = Governor::new(device.clone());
        let alone = placed.is_none() && !model.own_sequences && setup.experts.ids.is_none();
        let explain = match setup.explain && setup.tiers.is_none() && alone {
            true => Some(Explain::new(
                setup,
                (trace, matches!(routes, Routes::Later(_))),
                &device,
                governor.highest(),
            )?),
            false => None,
        };
        let filling = device.filling(model.heads, model.kv_heads);
        let longest = filling.as_ref().map_or(0, Filling::longest);
        let lowering = lowering.with_places(places).streaming(residency).filled_by(filling);
        let lowering = lowering.with_experts(expert_plan(setup.experts.clone(), model, &device));
        // Of routes that are drawn, hardly any is that of another token.
        let counts =
            lowering.counts_lockstep() && !unified && placed.is_none() && !matches!(takes, Takes::Routes(_));
        let counts = counts && setup.experts.ids.is_none();
        let most_at_a_layer = takes.most_at_a_layer(&trace.header, &paths);
        let together =
            counts.then(|| Together { blocks_of_a_token: paging.most_blocks(most_at_a_layer), longest });
        Ok(Server {
            trace,
            paths,
            scheduler: Scheduler::new(
                serving,
                policy,
                model.layers,
                paging,
                (blocks, block_bytes),
                &trace.requests,
                most_blocks,
            )
            .with_layer_time(device.read(fit::layer_bytes(setup)))
            .with_lockstep(together)
            .with_most_in_pass(placed.map_or(usize::MAX, Placed::most_in_pass))
            .with_takes(takes),
            block_bytes,
            block_tokens: serving.kv_block_tokens,
            branch_bytes: model.branch_weight_bytes(),
            row_bytes: model.activations.bytes(model.hidden),
            kv_bytes: 0,
            lowering,
            explain,
            clock: governor.highest(),
            governor,
            fidelity: setup.fidelity,
            step: device.launch().step,
            overlaps: serving.async_scheduling,
            before: SimTime::ZERO,
            machine: Machine::new(device),
            memory,
            ledger,
            left_pj: 0,
            outside: Outside::default(),
            flights,
        })
    }

    /// All requests of the trace, one server.
    fn run(mut self, setup: &Setup, observer: &mut impl Observer) -> Result<Ledger> {
        let mut arrivals =
            Arrivals::new(&self.trace.requests, setup.clients.as_ref(), setup.sessions.as_ref());
        let done = match self.flights {
            Some(_) => self.fly(&mut arrivals, observer),
            None => {
                let alone = (slice::from_mut(&mut self), slice::from_mut(observer));
                fleet::drive(alone, &mut arrivals, &mut fleet::Choice::alone())
            }
        };
        done.map_err(|beyond| beyond.error(setup))?;
        Ok(self.finish())
    }

    /// Lowers, prices and runs one pass. Returns the bytes of activations that it still holds.
    fn pass(&mut self, batch: &Batch, observer: &mut impl Observer) -> Within<u64> {
        self.know_experts(batch);
        let whole = batch.ends();
        let step = match (whole, self.overlaps) {
            (false, _) => SimTime::ZERO,
            (true, false) => self.step,
            (true, true) => self.step.saturating_sub(self.before),
        };
        let hidden = if self.overlaps { self.before } else { SimTime::ZERO };
        let begin = self.machine.now();
        let before = (self.ledger.busy_ps, self.ledger.dynamic_pj, self.ledger.attention);
        let sums = match self.fidelity {
            Fidelity::Step => Some(self.sum(batch, step, true)),
            // Before anything runs, since contexts are those before the pass.
            Fidelity::Kernel => {
                (self.explain.is_some() || self.governor.chooses()).then(|| self.sum(batch, step, false))
            }
        };
        if let Some((sums, _)) = &sums {
            sums.within()?;
        }
        let lowered = match (&sums, self.fidelity) {
            (Some((sums, lowered)), Fidelity::Step) => {
                self.hold(lowered.activation_bytes);
                self.machine.run_whole(sums, &mut self.ledger);
                *lowered
            }
            _ => self.run_kernels(batch, step, observer),
        };
        if let Some(overfull) = lowered.overfull {
            return Err(Beyond::Capacity(overfull));
        }
        if self.machine.now() == SimTime::MAX {
            return Err(Beyond::Run);
        }
        let length = self.machine.now() - begin;
        self.before = length - step;
        self.ledger.layer_visits += lowered.layer_visits;
        if batch.takes_some() {
            self.ledger.half_depths += lowered.branches.iter().sum::<u64>();
        }
        self.ledger.union_bytes += u128::from(lowered.union_bytes);
        if whole {
            self.ledger.pool_bytes += u128::from(self.branch_bytes);
        }
        let (busy, dynamic) = match &sums {
            Some((sums, _)) => (u128::from(sums.compute.ps()), i128::from(sums.dynamic_pj)),
            None => (self.ledger.busy_ps - before.0, self.ledger.dynamic_pj - before.1),
        };
        if dynamic.unsigned_abs() >= u128::from(i64::MAX as u64) {
            return Err(Beyond::Pass);
        }
        let attention = match (&sums, self.fidelity) {
            (Some((sums, _)), Fidelity::Step) => sums.attention,
            _ => [0, 1].map(|kind: usize| self.ledger.attention[kind] - before.2[kind]),
        };
        let length_ps = u128::from(length.ps());
        // `as` rounds down to whole picojoules, far below what the constants of power are known to.
        let energy_pj = self.machine.device().energy_pj(busy, length_ps - busy, dynamic) as u128;
        self.share_out(batch, (length_ps, energy_pj), attention);
        if let (Some(explain), Some(own)) = (&mut self.explain, &sums) {
            assert_eq!(own.0.length, length, "event by event, a pass takes what its closed form says");
            let step = whole.then_some(step);
            let seen = Seen { batch, contexts: self.scheduler.contexts(), paths: &self.paths, step, hidden };
            explain.pass(&seen, own, &mut self.governor)?;
        }
        let (waiting, running) = self.scheduler.waiting_and_running();
        let held = self.scheduler.blocks().held();
        // Entries that fell out of a window are counted there, and no longer held.
        let entries = self.scheduler.entries().min(held * u64::from(self.block_tokens));
        self.ledger.integrate(length, waiting.into(), running.into(), held, entries);
        let info = PassInfo {
            begin,
            end: self.machine.now(),
            batch,
            memory_bytes: self.memory.held(),
            waiting,
            running,
            kv_bytes: held * self.block_bytes,
            busy: SimTime::from_ps(busy as u64),
            dynamic_pj: dynamic as i64,
        };
        observer.pass(&info);
        Ok(lowered.activation_bytes)
    }

    /// The pass in closed form. What is resident afterwards is what the pass leaves where it is booked, else what was before.
    fn sum(&mut self, batch: &Batch, step: SimTime, booking: bool) -> (PassSums, Lowered) {
        let Server { lowering, scheduler, paths, governor, clock, .. } = self;
        let again = governor.chooses() || !booking;
        let before = again.then(|| lowering.residency().cloned()).flatten();
        governor.sum(clock, booking, |form, booking| {
            form.begin_pass(step, booking);
            let lowered = lowering.lower(batch, scheduler.contexts(), paths, form);
            if !booking && before.is_some() {
                lowering.set_residency(before.clone());
            }
            (form.end_pass(), lowered)
        })
    }

    /// The pass event by event.
    fn run_kernels(&mut self, batch: &Batch, step: SimTime, observer: &mut impl Observer) -> Lowered {
        let mut graphed = std::mem::take(&mut self.machine.graphed);
        graphed.graph.clear();
        let lowered = self.lowering.lower(batch, self.scheduler.contexts(), &self.paths, &mut graphed.graph);
        self.hold(lowered.activation_bytes);
        self.machine.price(&mut graphed, self.governor.prices(self.clock), step, &mut self.ledger);
        self.machine.graphed = self.machine.run(graphed, &mut self.ledger, observer);
        lowered
    }

    fn hold(&mut self, activations: u64) {
        self.memory.take(activations).expect("activations of the largest pass were set aside");
        self.ledger.memory.activations_peak = self.ledger.memory.activations_peak.max(activations);
    }

    /// Moves every sequence of the pass on, and books tokens, KV bytes and finished requests.
    fn settle(
        &mut self,
        batch: &Batch,
        activations: u64,
        outcome: &mut PassEnd,
        observer: &mut impl Observer,
    ) {
        let now = self.now();
        let ended = || batch.spans.iter().filter(|span| span.part.to == Part::END);
        let routed = ended().map(|span| span.tokens).sum::<u32>() + batch.in_lockstep();
        self.ledger.routed_tokens += u64::from(routed);
        // Of sets of branches, lowering has counted them.
        if !batch.takes_some() {
            let depth = |path: u32, count: u64| u64::from(self.paths.get(path).half_depth) * count;
            let listed = ended().flat_map(|span| in_runs(batch.paths_of(span)));
            let listed: u64 = listed.map(|(path, count)| depth(path, count.into())).sum();
            let counted = batch.lockstep.iter().map(|group| depth(group.path, group.count.into()));
            self.ledger.half_depths += listed + counted.sum::<u64>();
        }
        self.scheduler.complete(now, batch, &self.paths, outcome);
        self.memory.give_back(activations);
        self.ledger.output_tokens += u64::from(outcome.output_tokens);
        self.ledger.prompt_tokens += u64::from(outcome.prompt_tokens);
        self.ledger.recomputed_tokens += u64::from(outcome.recomputed_tokens);
        if outcome.output_tokens > 0 {
            observer.output(outcome.output_tokens);
        }
        for &slot in &outcome.finished {
            let sequence = self.scheduler.sequence(slot);
            let times = times(sequence, now);
            self.ledger.cached_tokens += u64::from(times.cached_tokens);
            self.ledger.requests.push(times);
        }
        let gaps = outcome.gaps.iter().map(|&(length, count)| Gap { end: now, length, count });
        self.ledger.gaps.extend(gaps);
        self.release(&outcome.finished);
        self.hold_kv();
    }

    /// Device memory follows the KV blocks that are held.
    fn hold_kv(&mut self) {
        let bytes = self.scheduler.blocks().held() * self.block_bytes;
        let before = std::mem::replace(&mut self.kv_bytes, bytes);
        if bytes > before {
            self.memory.take(bytes - before).expect("there are no more blocks than fit");
        } else {
            self.memory.give_back(before - bytes);
        }
    }

    /// Nobody comes any more: checks that everything was given back, and closes the books.
    fn finish(mut self) -> Ledger {
        self.scheduler.forget_prefixes();
        self.scheduler.let_go(SimTime::MAX);
        self.hold_kv();
        let now = self.now();
        let ledger = &mut self.ledger;
        self.governor.book(ledger);
        if let Some(last) = ledger.requests.last_mut() {
            last.energy_pj += self.left_pj;
            ledger.decode.energy_pj += self.left_pj;
        }
        assert_eq!(
            self.memory.held(),
            ledger.memory.weights,
            "bytes taken = bytes given back, but for the weights"
        );
        assert_eq!(ledger.requests.len() as u64, self.outside.came, "every request finishes");
        let blocks = self.scheduler.blocks();
        assert_eq!(blocks.held(), 0, "blocks taken = blocks given back");
        ledger.memory.kv_peak = blocks.peak() * self.block_bytes;
        ledger.kv.peak_blocks = blocks.peak();
        ledger.preemptions = self.scheduler.preemptions();
        ledger.makespan = now;
        ledger.memory.total_peak = self.memory.peak();
        ledger.tiers.fetches = self.lowering.residency().map(Residency::done);
        if let Some(residency) = self.lowering.residency() {
            let fetched = u128::from(residency.done().layers()) * u128::from(residency.layer_bytes());
            assert_eq!(ledger.tiers.bytes, fetched, "what was asked for came over the link");
        }
        let with_link = ledger.tiers.fetches.is_some() || ledger.swapped_bytes > 0;
        ledger.busy = self.machine.busy_shares(with_link);
        if let Some(flights) = self.flights.take() {
            flights.book(&self.machine, ledger);
        }
        ledger.losses = self.explain.as_ref().map(Explain::losses);
        self.ledger
    }
}
