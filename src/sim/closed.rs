//! A pass in closed form: its calls are priced and added up as they come, without a graph and without events.
//!
//! The host, the compute queue and the copy engine each do one thing after another in the order of the calls, so a pass is
//! two numbers: when the host and when the device are free. A launch moves the host on; a kernel that was launched waits for
//! it; a decision waits for its read-back. Every stretch of calls between is a map of these two numbers,
//!
//! ```text
//! host'   = host + a
//! device' = max(device + b, host + c)
//! ```
//!
//! and is kept under its key with the kernels in it, so that a pass of known stretches costs a few look-ups a layer.
//! `sim` asserts that the engine, event by event, comes to the same time in every explained pass; `tests/it/sim/fidelity.rs`
//! holds whole runs against each other.

use super::beyond::{Beyond, Within};
use crate::cost::{Device, Price, PriceCache, Slots};
use crate::kernel::{Class, Kernel};
use crate::lower::{Call, Cause, Node, Sink, Stretch};
use crate::metrics::{Ledger, Own};
use crate::units::SimTime;

/// Sums over the calls of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PassSums {
    /// When everything has ended, counted from the start of the pass.
    pub length: SimTime,
    /// Longest chain of calls that wait for each other.
    pub critical_path: SimTime,
    /// Time that the host, the compute queue and the copy engine are busy.
    pub host: SimTime,
    pub compute: SimTime,
    pub copy: SimTime,
    /// Time that the link to other memory is busy.
    pub link: SimTime,
    /// Of it, what read-backs, the decisions behind them and conditional nodes take.
    pub deciding: SimTime,
    /// Time of conditional nodes on the compute queue, beside its kernels.
    pub conditions: SimTime,
    /// Energy of the kernels beyond static power; at most what 64 bits hold.
    pub dynamic_pj: i64,
    /// Kernel time by cause.
    pub by_cause: [SimTime; Cause::ALL.len()],
    /// Attention of several rows of a sequence, and of one. It is never in a stretch.
    pub attention: [Own; 2],
}

/// A kernel of a stretch as the ledger wants it.
#[derive(Clone, Copy, Debug)]
struct Booked {
    cause: Cause,
    class: usize,
    price: Price,
    time: SimTime,
}

/// A stretch in words, with whether a launch comes before it.
type Key = (u64, u64, u64);

/// What a stretch does, and how often it was run since it was last booked.
#[derive(Debug)]
struct Known {
    moves: Moves,
    /// Launches that are recorded before anything of the pass begins.
    recorded: u64,
    dynamic_pj: i64,
    by_cause: [SimTime; Cause::ALL.len()],
    uses: u64,
    kernels: Vec<Booked>,
}

/// What a stretch, a kernel or a launch does to the clocks of host and compute queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moves {
    host: SimTime,
    device: SimTime,
    /// From the host's time at the start to the device's at the end; `None` where nothing in it waits for a launch.
    launched: Option<SimTime>,
}

impl Moves {
    /// A kernel that waits for a launch, or not.
    fn of_kernel(time: SimTime, launched: bool) -> Moves {
        Moves { host: SimTime::ZERO, device: time, launched: launched.then_some(time) }
    }

    /// This and then `next`.
    fn then(self, next: Moves) -> Moves {
        let through = self.launched.map(|launched| launched + next.device);
        let late = next.launched.map(|launched| self.host + launched);
        Moves { host: self.host + next.host, device: self.device + next.device, launched: through.max(late) }
    }

    /// This so many times, at least once. The device may wait for any of the launches; what comes of it is least or most at the ends, so it is the first or the last
    /// that counts.
    fn times(self, times: u64) -> Moves {
        let between = self.host.max(self.device).times(times - 1);
        Moves {
            host: self.host.times(times),
            device: self.device.times(times),
            launched: self.launched.map(|launched| launched + between),
        }
    }
}

/// When each resource has done what came so far.
#[derive(Clone, Copy, Debug, Default)]
struct Clocks {
    host: SimTime,
    compute: SimTime,
    copy: SimTime,
    link: SimTime,
}

impl PassSums {
    /// Refuses a pass of which a sum has become the most that 64 bits hold. No sum of times is more than the length.
    pub fn within(&self) -> Within<()> {
        let within = self.length < SimTime::MAX && self.dynamic_pj.unsigned_abs() < i64::MAX as u64;
        if within { Ok(()) } else { Err(Beyond::Pass) }
    }
}

impl Clocks {
    fn at(time: SimTime) -> Self {
        Clocks { host: time, compute: time, copy: time, link: time }
    }

    #[inline]
    fn apply(&mut self, moves: &Moves) {
        let launched = moves.launched.map_or(SimTime::ZERO, |launched| self.host + launched);
        self.compute = (self.compute + moves.device).max(launched);
        self.host += moves.host;
    }

    fn last(&self) -> SimTime {
        self.host.max(self.compute).max(self.copy).max(self.link)
    }
}

/// Stretches kept at first and at most. Routed groups of up to 2,048 rows come in as many sizes of each of four parts.
const SLOTS: (usize, usize) = (1 << 8, 1 << 14);

/// The sink that adds up.
pub(super) struct ClosedForm {
    device: Device,
    prices: PriceCache,
    known: Slots<Key, Known>,
    recording: Option<(Key, Known)>,
    /// Whether kernels are booked for the ledger, or only priced.
    booking: bool,
    booked: Ledger,
    sums: PassSums,
    /// With each resource doing one thing after another; and as if independent branches never met on the device.
    real: Clocks,
    free: Clocks,
    fork: SimTime,
    joined: SimTime,
    /// How often what comes now is run in a row, and what it has done to the clocks so far, where it is repeated.
    times: u64,
    repeated: Option<Moves>,
    /// A launch whose kernel has not come yet.
    launched: bool,
    /// Launches that were recorded before anything of the pass began.
    recorded: u64,
    /// When what came over the link in this pass is there, in both reckonings.
    fetched: Vec<(SimTime, SimTime)>,
    /// When each read-back of this pass is over, in both reckonings.
    read: Vec<(SimTime, SimTime)>,
}

impl ClosedForm {
    pub fn new(device: Device) -> Self {
        ClosedForm {
            device,
            prices: PriceCache::default(),
            known: Slots::new(SLOTS.0, SLOTS.1),
            recording: None,
            booking: false,
            booked: Ledger::default(),
            sums: PassSums::default(),
            real: Clocks::default(),
            free: Clocks::default(),
            fork: SimTime::ZERO,
            joined: SimTime::ZERO,
            times: 1,
            repeated: None,
            launched: false,
            recorded: 0,
            fetched: Vec::new(),
            read: Vec::new(),
        }
    }

    /// A pass begins. `host`: the host's own work for a scheduler step. `booking`: its kernels are to be in the ledger.
    pub fn begin_pass(&mut self, host: SimTime, booking: bool) {
        self.sums = PassSums { host, ..PassSums::default() };
        (self.real, self.free) = (Clocks::at(host), Clocks::at(host));
        self.launched = false;
        self.recorded = 0;
        self.fetched.clear();
        self.read.clear();
        self.booking = booking;
    }

    /// The sums of the pass.
    pub fn end_pass(&mut self) -> PassSums {
        let before = self.device.launch().kernel.times(self.recorded);
        self.sums.host += before;
        self.sums.length = self.real.last() + before;
        self.sums.critical_path = self.free.last() + before;
        self.sums
    }

    /// The device and its prices.
    pub fn prices(&mut self) -> (&Device, &mut PriceCache) {
        (&self.device, &mut self.prices)
    }

    /// Adds everything that was booked to `ledger`.
    pub fn book(&mut self, ledger: &mut Ledger) {
        for known in self.known.values_mut() {
            known.book(&mut self.booked, self.device.static_and_idle_w().0);
        }
        ledger.absorb(&std::mem::take(&mut self.booked));
    }

    #[inline]
    fn apply(&mut self, place: usize) {
        let (known, times) = (self.known.at(place), self.times);
        let moves = known.moves;
        self.launched = false;
        self.sums.host += moves.host.times(times);
        self.sums.compute += moves.device.times(times);
        self.sums.dynamic_pj = self.sums.dynamic_pj.saturating_add(repeat(known.dynamic_pj, times));
        let by_cause = self.sums.by_cause.iter_mut().zip(&known.by_cause);
        by_cause.for_each(|(sum, time)| *sum += time.times(times));
        self.recorded += known.recorded * times;
        known.uses += if self.booking { times } else { 0 };
        self.moves(moves);
    }

    /// The clocks go on, or what is repeated does.
    #[inline]
    fn moves(&mut self, moves: Moves) {
        if let Some(repeated) = &mut self.repeated {
            *repeated = repeated.then(moves);
        } else {
            self.real.apply(&moves);
            self.free.apply(&moves);
        }
    }

    #[inline]
    fn kernel(&mut self, call: &Call, kernel: &Kernel, captured: bool) {
        let price = self.prices.price(&self.device, kernel);
        self.priced(call, (kernel.class(), price), captured);
    }

    /// Something on the compute queue that has a price.
    #[inline]
    fn priced(&mut self, call: &Call, (class, price): (Class, Price), captured: bool) {
        let time = price.time + self.device.launch().gap(captured);
        let booked = Booked { cause: call.cause, class: class as usize, price, time };
        let launched = std::mem::take(&mut self.launched);
        if let Some((_, stretch)) = &mut self.recording {
            assert!(
                Own::index(booked.class).is_none(),
                "attention depends on contexts, which no key of a stretch has"
            );
            stretch.moves = stretch.moves.then(Moves::of_kernel(time, launched));
            stretch.dynamic_pj = stretch.dynamic_pj.saturating_add(price.dynamic_pj);
            stretch.by_cause[call.cause as usize] += time;
            stretch.kernels.push(booked);
            return;
        }
        let (all, pj) = (time.times(self.times), repeat(price.dynamic_pj, self.times));
        if let Some(own) = Own::index(booked.class) {
            self.sums.attention[own].add(all.ps().into(), pj.into());
        }
        self.moves(Moves::of_kernel(time, launched));
        self.sums.compute += all;
        self.sums.dynamic_pj = self.sums.dynamic_pj.saturating_add(pj);
        self.sums.by_cause[call.cause as usize] += all;
        if self.booking {
            booked.book(&mut self.booked, self.times, self.device.static_and_idle_w().0);
        }
    }

    /// Over the link: starts when what has run so far is over, one after the other. Returns its number.
    fn transfer(&mut self, bytes: u64, book: fn(&mut Ledger, u64, SimTime, u64)) -> u32 {
        let (time, dynamic_pj) = self.device.fetch(bytes);
        self.real.link = self.real.link.max(self.real.compute) + time;
        let free = self.free.compute + time;
        self.free.link = self.free.link.max(free);
        self.fetched.push((self.real.link, free));
        self.sums.link += time;
        self.sums.dynamic_pj = self.sums.dynamic_pj.saturating_add_unsigned(dynamic_pj);
        if self.booking {
            book(&mut self.booked, bytes, time, dynamic_pj);
        }
        self.fetched.len() as u32 - 1
    }

    fn launch(&mut self, time: SimTime) {
        self.launched = true;
        match &mut self.recording {
            Some((_, stretch)) => stretch.moves.host += time,
            None => {
                self.moves(Moves { host: time, ..Moves::default() });
                self.sums.host += time.times(self.times);
            }
        }
    }
}

/// So much energy so many times; at most what 64 bits hold.
fn repeat(pj: i64, times: u64) -> i64 {
    i64::try_from(times).map_or(i64::MAX, |times| pj.saturating_mul(times))
}

impl Booked {
    fn book(&self, ledger: &mut Ledger, times: u64, static_w: f64) {
        ledger.plan(&self.price, times);
        ledger.kernel(self.cause, self.class, &self.price, self.time, times);
        ledger.draw(static_w, &self.price, self.time);
    }
}

impl Known {
    fn book(&mut self, ledger: &mut Ledger, static_w: f64) {
        let uses = std::mem::take(&mut self.uses);
        if uses > 0 {
            self.kernels.iter().for_each(|kernel| kernel.book(ledger, uses, static_w));
        }
    }
}

impl Sink for ClosedForm {
    #[inline]
    fn push(&mut self, call: Call, predecessors: &[u32]) -> u32 {
        let times = self.device.launch();
        match call.node {
            Node::Kernel { ref kernel, captured } => self.kernel(&call, kernel, captured),
            Node::Collective { operation, bytes, captured } => {
                let price = self.device.exchange(operation, bytes);
                self.priced(&call, (Class::Collective, price), captured);
            }
            Node::Exchange { mode, part, call: ref exchange, captured } => {
                let price = self.device.expert_exchange(mode, part, exchange);
                self.priced(&call, (Class::Collective, price), captured);
            }
            Node::Join => {}
            Node::Launch if times.recorded => {
                self.launch(SimTime::ZERO);
                match &mut self.recording {
                    Some((_, stretch)) => stretch.recorded += 1,
                    None => self.recorded += self.times,
                }
            }
            Node::Launch => self.launch(times.kernel),
            Node::LaunchGraph => self.launch(times.graph),
            Node::Readback { bytes } => {
                let time = times.readback.max(self.device.host_copy(bytes.into()));
                self.real.copy = self.real.copy.max(self.real.compute) + time;
                let free = self.free.compute + time;
                self.free.copy = self.free.copy.max(free);
                self.sums.copy += time;
                self.sums.deciding += time;
                self.read.push((self.real.copy, free));
                return self.read.len() as u32 - 1;
            }
            Node::Decide | Node::Learn => {
                let read = *predecessors.last().expect("what is learned was read back");
                let (real, free) = self.read[read as usize];
                let time = if call.node == Node::Decide { times.host_decision } else { SimTime::ZERO };
                self.real.host = self.real.host.max(real) + time;
                self.free.host = self.free.host.max(free) + time;
                self.sums.host += time;
                self.sums.deciding += time;
            }
            Node::Conditions { count } => {
                let time = times.conditional.times(count.into());
                let launched = std::mem::take(&mut self.launched);
                self.moves(Moves::of_kernel(time, launched));
                self.sums.conditions += time;
                self.sums.deciding += time;
            }
            Node::Fetch { bytes } => return self.transfer(bytes, Ledger::fetch),
            Node::Swap { bytes } => return self.transfer(bytes, Ledger::swap),
            Node::Await => {
                let fetch = *predecessors.last().expect("what is awaited was fetched");
                let (real, free) = self.fetched[fetch as usize];
                self.real.compute = self.real.compute.max(real);
                self.free.compute = self.free.compute.max(free);
            }
        }
        0
    }

    #[inline]
    fn begin(&mut self, stretch: Stretch) -> bool {
        let (first, second, third) = stretch.words();
        let key = (first | u64::from(self.launched) << 4, second, third);
        if let Some(place) = self.known.find(&key) {
            self.apply(place);
            return true;
        }
        let by_cause = [SimTime::ZERO; Cause::ALL.len()];
        let (moves, kernels) = (Moves::default(), Vec::new());
        let known = Known { moves, recorded: 0, dynamic_pj: 0, by_cause, uses: 0, kernels };
        self.recording = Some((key, known));
        false
    }

    fn end(&mut self) {
        let (key, stretch) = self.recording.take().expect("a stretch ends that has begun");
        let ClosedForm { known, booked, device, .. } = self;
        let place = known.keep(key, stretch, |mut gone| gone.book(booked, device.static_and_idle_w().0));
        self.apply(place);
    }

    #[inline]
    fn repeat(&mut self, times: u64) -> bool {
        assert!(self.repeated.is_none(), "what is repeated is not repeated within");
        (self.times, self.repeated) = (times, Some(Moves::default()));
        true
    }

    #[inline]
    fn end_repeat(&mut self) {
        let once = self.repeated.take().expect("what ends was begun");
        self.moves(once.times(self.times));
        self.times = 1;
    }

    #[inline]
    fn fork(&mut self) {
        if self.launched {
            // All branches are in the graph that was launched.
            self.free.compute = self.free.compute.max(self.free.host);
        }
        (self.fork, self.joined) = (self.free.compute, self.free.compute);
    }

    #[inline]
    fn branch(&mut self) {
        self.joined = self.joined.max(self.free.compute);
        self.free.compute = self.fork;
    }

    #[inline]
    fn join(&mut self) {
        self.free.compute = self.joined;
    }
}
