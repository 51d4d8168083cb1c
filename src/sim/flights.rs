//! Passes in flight: layers on several devices, each a resource of the engine, and each pass a plan of legs and messages.
//!
//! A pass is formed when fewer are under way than may be and some sequence is in none of them. It takes the scheduler's step, then its legs
//! ([`crate::lower::Leg`]), each on its device when that is free and the states have come, each message on the sender's way out. A leg lasts as
//! long as a pass of its calls alone: event by event on an engine of its own, or in closed form. Whoever was in a pass moves on at its end.

use super::arrivals::Arrivals;
use super::beyond::{Beyond, Within};
use super::machine::Machine;
use super::placed::Placed;
use super::{Fidelity, Observer, PassInfo, Server, Silent};
use crate::batch::Batch;
use crate::engine::{Engine, Occurrence, Plan, ResourceId, Task};
use crate::lower::{Leg, Legs, Lowered};
use crate::metrics::{DeviceUse, Ledger, Own, PlacedUse};
use crate::sched::PassEnd;
use crate::units::SimTime;

/// The devices, and what is under way on them.
pub(super) struct Flights<'a> {
    placed: &'a Placed,
    engine: Engine,
    scheduler: ResourceId,
    devices: Vec<ResourceId>,
    /// What each device sends goes out one after the other.
    outs: Vec<ResourceId>,
    /// By the tag of their plans.
    flying: Vec<Option<Flight>>,
    spare: Vec<Plan>,
    /// When the pass that was formed last was ready to run; none where nothing ran since.
    formed: Option<SimTime>,
    /// When the pass that ended last did.
    ended: SimTime,
    /// By slot: the longest chain of work that its passes so far waited for.
    chains: Vec<SimTime>,
    /// Energy that passes were given beyond what they took, at most the idling of later ones.
    owed_pj: i128,
    hottest_w: f64,
    usage: PlacedUse,
}

/// A pass that is under way.
struct Flight {
    batch: Batch,
    lowered: Lowered,
    begin: SimTime,
    busy_ps: u128,
    dynamic_pj: i128,
    attention: [Own; 2],
}

/// What a leg comes to.
struct Ran {
    length: SimTime,
    critical: SimTime,
    busy_ps: u64,
    dynamic_pj: i64,
    attention: [Own; 2],
}

impl<'a> Flights<'a> {
    /// On devices with these weights and room for so many KV blocks.
    pub fn new(placed: &'a Placed, weights: &[u64], rooms: Vec<u64>) -> Self {
        let mut engine = Engine::new();
        let count = placed.layout.devices();
        let scheduler = engine.add_resource("scheduler", 1);
        let devices = (0..count).map(|device| engine.add_resource(format!("device {device}"), 1)).collect();
        let outs = (0..count).map(|device| engine.add_resource(format!("out of {device}"), 1)).collect();
        let layers = |device: u32| placed.layout.of().iter().filter(|&&of| of == device).count() as u32;
        let of = |((device, &weights), kv_room)| DeviceUse {
            layers: layers(device),
            weights,
            kv_room,
            ..DeviceUse::default()
        };
        let uses = (0..).zip(weights).zip(rooms).map(of).collect();
        let sent = vec![0; (count * count) as usize];
        let usage = PlacedUse { devices: uses, sent, ..PlacedUse::default() };
        Flights {
            placed,
            engine,
            scheduler,
            devices,
            outs,
            flying: Vec::new(),
            spare: Vec::new(),
            formed: None,
            ended: SimTime::ZERO,
            chains: Vec::new(),
            owed_pj: 0,
            hottest_w: 0.0,
            usage,
        }
    }

    fn in_flight(&self) -> u32 {
        self.flying.iter().flatten().count() as u32
    }

    /// Which work a pass waits for: what the sequences in it waited for so far, or on one device all work so far.
    fn chain(&mut self, batch: &Batch, critical: SimTime) {
        let slots = || batch.spans.iter().map(|span| span.sequence as usize);
        let needed = slots().max().map_or(0, |slot| slot + 1);
        if self.chains.len() < needed {
            self.chains.resize(needed, SimTime::ZERO);
        }
        let before = match self.placed.in_flight {
            1 => self.chains.iter().max().copied(),
            _ => slots().map(|slot| self.chains[slot]).max(),
        };
        let end = before.unwrap_or_default() + critical;
        slots().for_each(|slot| self.chains[slot] = end);
    }

    /// What the devices did, and what only they know of the run.
    pub fn book(mut self, machine: &Machine, ledger: &mut Ledger) {
        let held: Vec<SimTime> = self.engine.resources().map(|(_, _, busy)| busy).collect();
        for (device, id) in self.usage.devices.iter_mut().zip(&self.devices) {
            device.held_ps = held[id.0 as usize].ps().into();
        }
        let all = ledger.makespan.s().max(f64::MIN_POSITIVE) * self.devices.len() as f64;
        let [host, compute, copy] = machine.busy_times();
        let times = [("host", host + held[self.scheduler.0 as usize]), ("compute", compute), ("copy", copy)];
        ledger.busy = times.map(|(name, time)| (name.to_owned(), time.s() / all)).into();
        ledger.critical_path = self.chains.iter().max().copied().unwrap_or_default();
        ledger.hottest_pass_w = self.hottest_w;
        ledger.placed = Some(self.usage);
    }
}

impl Server<'_> {
    /// Now.
    pub(super) fn now(&self) -> SimTime {
        self.flights.as_ref().map_or_else(|| self.machine.now(), |flights| flights.engine.now())
    }

    /// The whole run, with passes in flight.
    pub(super) fn fly(&mut self, arrivals: &mut Arrivals, observer: &mut impl Observer) -> Within<()> {
        let mut outcome = PassEnd::default();
        loop {
            self.arrive(arrivals);
            let flights = self.flights.as_ref().expect("layers are on several devices");
            let (under_way, most) = (flights.in_flight(), flights.placed.in_flight);
            let mut batch = Batch::default();
            if under_way < most && self.scheduler.next_batch(self.now(), &mut self.paths, &mut batch) {
                self.hold_kv();
                self.depart(batch)?;
            } else if under_way > 0 {
                self.complete(arrivals, &mut outcome, observer)?;
            } else if let Some((arrival, _)) = arrivals.peek() {
                if arrival == SimTime::MAX {
                    return Err(Beyond::Arrival);
                }
                let flights = self.flights.as_mut().expect("still there");
                flights.engine.set_timer(arrival, 0);
                let occurrence = flights.engine.run(&mut |_| {});
                assert!(matches!(occurrence, Occurrence::Timer(0)), "only the timer was left to happen");
                flights.formed = None;
            } else {
                assert!(self.scheduler.is_idle(), "a sequence that runs has a next pass");
                break;
            }
        }
        Ok(())
    }

    /// Everybody who has arrived by now joins the queue.
    fn arrive(&mut self, arrivals: &mut Arrivals) {
        let now = self.now();
        while let Some((arrival, index)) = arrivals.peek()
            && arrival <= now
        {
            // Whoever came while a pass ran has waited since.
            self.ledger.integrate(now - arrival, 1, 0, 0, 0);
            self.outside.came += 1;
            self.scheduler.arrive(index, arrival);
            arrivals.pop();
        }
    }

    /// A pass is formed and set off.
    fn depart(&mut self, batch: Batch) -> Within<()> {
        let mut flights = self.flights.take().expect("layers are on several devices");
        let now = flights.engine.now();
        let hidden = match flights.formed {
            Some(formed) if self.overlaps => now.saturating_sub(formed),
            _ => SimTime::ZERO,
        };
        let step = self.step.saturating_sub(hidden);
        flights.formed = Some(flights.formed.map_or(now, |formed| formed.max(now)) + step);

        let layout = &flights.placed.layout;
        let Legs { lowered, legs, crossings } =
            self.lowering.legs(&batch, self.scheduler.contexts(), &self.paths, layout);
        if let Some(overfull) = lowered.overfull {
            return Err(Beyond::Capacity(overfull));
        }
        self.hold(lowered.activation_bytes);
        flights.usage.crossings += crossings;
        let mut flight =
            Flight { lowered, begin: now, busy_ps: 0, dynamic_pj: 0, attention: [Own::default(); 2], batch };
        let mut plan = flights.spare.pop().unwrap_or_default();
        plan.clear();
        let first = plan.push(Task { resource: flights.scheduler, duration: step }, &[]);
        // By leg: its task, and the longest chain of work that ends with it.
        let mut done: Vec<(u32, SimTime)> = Vec::with_capacity(legs.len());
        let mut waits = Vec::new();
        // A device that is alone idles during the step, which a power cap counts.
        let lead = if flights.devices.len() == 1 { step } else { SimTime::ZERO };
        for leg in &legs {
            let ran = self.run_leg(leg, &flight.batch, lead)?;
            flight.busy_ps += u128::from(ran.busy_ps);
            flight.dynamic_pj += i128::from(ran.dynamic_pj);
            flight.attention.iter_mut().zip(ran.attention).for_each(|(sum, own)| {
                sum.add(own.time_ps, own.dynamic_pj);
            });
            let device = leg.device as usize;
            flights.usage.devices[device].busy_ps += u128::from(ran.busy_ps);
            flights.usage.devices[device].visits += leg.visits();
            let watts =
                self.machine.device().mean_w(ran.length, SimTime::from_ps(ran.busy_ps), ran.dynamic_pj);
            flights.hottest_w = flights.hottest_w.max(watts * flights.devices.len() as f64);
            waits.clear();
            let mut chain = step;
            for &(from, rows) in &leg.after {
                let (mut task, mut before) = done[from as usize];
                let from = legs[from as usize].device;
                if from != leg.device {
                    let sent = self.message(&mut flights, (from, leg.device), rows);
                    flight.dynamic_pj += i128::from(sent.1);
                    let out = flights.outs[from as usize];
                    task = plan.push(Task { resource: out, duration: sent.0 }, &[task]);
                    before += sent.0;
                }
                waits.push(task);
                chain = chain.max(before);
            }
            if waits.is_empty() {
                waits.push(first);
            }
            let task = Task { resource: flights.devices[device], duration: ran.length };
            done.push((plan.push(task, &waits), chain + ran.critical));
        }
        let critical = done.iter().map(|(_, chain)| *chain).max().unwrap_or(step);
        flights.chain(&flight.batch, critical);
        let place = flights.flying.iter().position(Option::is_none).unwrap_or(flights.flying.len());
        if place == flights.flying.len() {
            flights.flying.push(None);
        }
        flights.flying[place] = Some(flight);
        plan.tag = place as u64;
        flights.engine.submit(plan);
        flights.usage.most_in_flight = flights.usage.most_in_flight.max(flights.in_flight());
        self.flights = Some(flights);
        Ok(())
    }

    /// The states of so many tokens go from a device to another: how long that takes, and its energy, which are booked.
    fn message(&mut self, flights: &mut Flights, (from, to): (u32, u32), rows: u32) -> (SimTime, i64) {
        let links = &flights.placed.links;
        let bytes = u64::from(rows) * links.states() * self.row_bytes;
        let price = self.machine.device().send(links, from, to, bytes);
        flights.usage.send((from, to), bytes, rows, price.time.ps());
        self.ledger.dynamic_pj += i128::from(price.dynamic_pj);
        (price.time, price.dynamic_pj)
    }

    /// Prices a leg, or runs its kernels, as if nothing else ran. For the clock that a cap allows, the device idles for `lead` before.
    fn run_leg(&mut self, leg: &Leg, batch: &Batch, lead: SimTime) -> Within<Ran> {
        let step = self.fidelity == Fidelity::Step;
        if step || self.governor.chooses() {
            let Server { lowering, scheduler, governor, clock, .. } = self;
            let (mut sums, _) = governor.sum(clock, step, |form, booking| {
                form.begin_pass(lead, booking);
                lowering.lower_leg(leg, batch, scheduler.contexts(), form);
                (form.end_pass(), Lowered::default())
            });
            sums.within()?;
            if step {
                sums.host = sums.host - lead;
                self.machine.add(&sums);
                let (length, critical) = (sums.length - lead, sums.critical_path - lead);
                let busy_ps = sums.compute.ps();
                let (dynamic_pj, attention) = (sums.dynamic_pj, sums.attention);
                return Ok(Ran { length, critical, busy_ps, dynamic_pj, attention });
            }
        }
        let Ledger { busy_ps, dynamic_pj, attention, critical_path, .. } = self.ledger;
        let begin = self.machine.now();
        let mut graphed = std::mem::take(&mut self.machine.graphed);
        graphed.graph.clear();
        self.lowering.lower_leg(leg, batch, self.scheduler.contexts(), &mut graphed.graph);
        self.machine.price(&mut graphed, self.governor.prices(self.clock), SimTime::ZERO, &mut self.ledger);
        self.machine.graphed = self.machine.run(graphed, &mut self.ledger, &mut Silent);
        if self.machine.now() == SimTime::MAX {
            return Err(Beyond::Run);
        }
        let dynamic = self.ledger.dynamic_pj - dynamic_pj;
        Ok(Ran {
            length: self.machine.now() - begin,
            critical: std::mem::replace(&mut self.ledger.critical_path, critical_path) - critical_path,
            busy_ps: (self.ledger.busy_ps - busy_ps) as u64,
            dynamic_pj: i64::try_from(dynamic).map_err(|_| Beyond::Pass)?,
            attention: [0, 1].map(|kind: usize| self.ledger.attention[kind] - attention[kind]),
        })
    }

    /// Time goes on to the next end of a pass, whose sequences move on.
    fn complete(
        &mut self,
        arrivals: &mut Arrivals,
        outcome: &mut PassEnd,
        observer: &mut impl Observer,
    ) -> Within<()> {
        let flights = self.flights.as_mut().expect("layers are on several devices");
        let from = flights.engine.now();
        let Occurrence::PlanDone(plan) = flights.engine.run(&mut |_| {}) else {
            unreachable!("passes are all that is under way")
        };
        let now = flights.engine.now();
        if now == SimTime::MAX {
            return Err(Beyond::Run);
        }
        let flight = flights.flying[plan.tag as usize].take().expect("a pass that is under way ends");
        flights.spare.push(plan);
        // Of the time in which several are under way, each has that since the end of the one before.
        let begin = flight.begin.max(flights.ended);
        flights.ended = now;
        let length_ps = u128::from((now - begin).ps());
        let all_ps = length_ps * flights.devices.len() as u128;
        let Flight { batch, lowered, busy_ps, dynamic_pj, attention, .. } = flight;
        let own_pj =
            self.machine.device().energy_within_pj(busy_ps, all_ps, dynamic_pj) as i128 - flights.owed_pj;
        let energy_pj = own_pj.max(0);
        flights.owed_pj = energy_pj - own_pj;

        self.ledger.layer_visits += lowered.layer_visits;
        self.ledger.union_bytes += u128::from(lowered.union_bytes);
        self.ledger.pool_bytes += u128::from(self.branch_bytes);
        self.share_out(&batch, (length_ps, energy_pj as u128), attention);
        let (waiting, running) = self.scheduler.waiting_and_running();
        let held = self.scheduler.blocks().held();
        let entries = self.scheduler.entries().min(held * u64::from(self.block_tokens));
        self.ledger.integrate(now - from, waiting.into(), running.into(), held, entries);
        observer.pass(&PassInfo {
            begin,
            end: now,
            batch: &batch,
            memory_bytes: self.memory.held(),
            waiting,
            running,
            kv_bytes: held * self.block_bytes,
            busy: SimTime::from_ps(busy_ps as u64),
            dynamic_pj: dynamic_pj as i64,
        });
        self.keep_within()?;
        let before = self.ledger.requests.len();
        self.settle(&batch, lowered.activation_bytes, outcome, observer);
        self.ledger.requests[before..].iter().for_each(|times| arrivals.answered(now, times.id));
        Ok(())
    }

    /// No device holds more KV blocks than it has.
    fn keep_within(&mut self) -> Within<()> {
        let flights = self.flights.as_mut().expect("layers are on several devices");
        let layout = &flights.placed.layout;
        if layout.devices() == 1 {
            flights.usage.devices[0].kv_peak = self.scheduler.blocks().peak();
            return Ok(());
        }
        let held = self.scheduler.blocks_by(layout.of(), flights.devices.len());
        for ((device, of), needed) in (0..).zip(&mut flights.usage.devices).zip(held) {
            of.kv_peak = of.kv_peak.max(needed);
            if needed > of.kv_room {
                return Err(Beyond::Kv { device, needed, room: of.kv_room });
            }
        }
        Ok(())
    }
}
