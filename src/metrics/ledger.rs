//! What happened in a run, added up as it happens: exact integers, a fixed amount of memory for any number of kernels.

use super::usage::Handover;
use super::{PlacedUse, ReplicaUse, RoundUse};
use crate::cost::{Bound, Price, PriceError};
use crate::kernel::Class;
use crate::lower::Cause;
use crate::tier::Fetches;
use crate::units::{SimTime, SourceKind, Work};

/// Kernels of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Kernels.
    pub count: u64,
    /// Their device time, picoseconds.
    pub time_ps: u128,
}

impl Tally {
    fn add(&mut self, time: SimTime, times: u64) {
        self.count += times;
        self.time_ps += u128::from(time.ps()) * u128::from(times);
    }

    fn absorb(&mut self, other: &Tally) {
        self.count += other.count;
        self.time_ps += other.time_ps;
    }
}

/// Kernels whose prices have an error: their time, and how wrong it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// Their device time, picoseconds.
    pub time_ps: u128,
    /// Sums of time times error, picoseconds times hundredths of a percent.
    pub mean: u128,
    /// The same of the half widths of the 90 % intervals: [`PriceError::same_source`], [`PriceError::any_source`].
    pub same_source: u128,
    /// See [`Doubts::same_source`].
    pub any_source: u128,
}

impl Doubts {
    #[inline]
    fn add(&mut self, error: PriceError, time: SimTime, times: u64) {
        let time_ps = u128::from(time.ps()) * u128::from(times);
        if time_ps == 0 {
            return;
        }
        self.time_ps += time_ps;
        self.mean += time_ps * u128::from(error.mean);
        self.same_source += time_ps * u128::from(error.same_source);
        self.any_source += time_ps * u128::from(error.any_source);
    }

    /// A sum of these, over the time: percent.
    pub(super) fn mean_percent(&self, sum: u128) -> f64 {
        sum as f64 / self.time_ps as f64 / 100.0
    }

    pub(super) fn absorb(&mut self, other: &Doubts) {
        self.time_ps += other.time_ps;
        self.mean += other.mean;
        self.same_source += other.same_source;
        self.any_source += other.any_source;
    }
}

/// What became of a request, and when its tokens came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimes {
    /// The trace's id.
    pub id: u64,
    /// Arrival.
    pub arrival: SimTime,
    /// Start of the first pass that it was in.
    pub scheduled: SimTime,
    /// First output token.
    pub first: SimTime,
    /// Last output token.
    pub last: SimTime,
    /// Output tokens.
    pub output_tokens: u32,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Prompt tokens whose KV entries it took from a prefix that it shares.
    pub cached_tokens: u32,
    /// How often it lost its place to another request.
    pub preemptions: u32,
    /// Its share of the energy of the passes that it was in: of attention by the tokens that have the same kind, of the rest by all; picojoules.
    pub energy_pj: u128,
}

impl RequestTimes {
    /// Time per output token behind the first, in seconds; none for a single one.
    pub fn tpot_s(&self) -> Option<f64> {
        let gaps = self.output_tokens.checked_sub(1).filter(|&gaps| gaps > 0)?;
        Some((self.last - self.first).s() / f64::from(gaps))
    }
}

/// Times between two passes in a row that put out tokens of the same request, as many as there were alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// End of the later pass.
    pub end: SimTime,
    /// From the end of the earlier one.
    pub length: SimTime,
    /// Requests with this gap.
    pub count: u32,
}

/// One of the two phases of a request: reading its prompt, or generating.
///
/// A pass that has tokens of both gives each its own attention, and a part of the rest in proportion to the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTotals {
    /// Tokens that took a whole route, each time they did.
    pub tokens: u64,
    /// Pass time, picoseconds.
    pub time_ps: u128,
    /// Energy of passes, picojoules.
    pub energy_pj: u128,
}

/// Time and energy beyond static power of the attention of one kind in a pass or a run: that of several rows of a sequence, or of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Picoseconds.
    pub time_ps: u128,
    /// Picojoules.
    pub dynamic_pj: i128,
}

impl Own {
    /// Which of the two a kernel class is, if any.
    #[inline]
    pub fn index(class: usize) -> Option<usize> {
        match class {
            _ if class == Class::PrefillAttention as usize => Some(0),
            _ if class == Class::DecodeAttention as usize => Some(1),
            _ => None,
        }
    }

    /// Adds a kernel.
    #[inline]
    pub fn add(&mut self, time_ps: u128, dynamic_pj: i128) {
        self.time_ps += time_ps;
        self.dynamic_pj += dynamic_pj;
    }
}

impl std::ops::Sub for Own {
    type Output = Own;

    fn sub(self, other: Own) -> Own {
        Own { time_ps: self.time_ps - other.time_ps, dynamic_pj: self.dynamic_pj - other.dynamic_pj }
    }
}

/// Use of the blocks that hold KV entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUse {
    /// Token positions of a block.
    pub block_tokens: u32,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks that fit beside the weights and the activations of the largest pass.
    pub blocks: u64,
    /// Most blocks held at once.
    pub peak_blocks: u64,
    /// Integral over time of the blocks held, block picoseconds.
    pub block_ps: u128,
    /// Integral over time of the KV entries in them (an entry: keys and values of one token at one layer), entry picoseconds.
    pub entry_ps: u128,
}

/// Where the saving that the skipped layers promise went, of the run's own passes; picoseconds of device or pass time, signed.
/// What the run saves against another is [`TimeSaved`](super::TimeSaved).
///
/// `saving = dense - ideal`, and `dense - routed` = `saving - union - fragmentation - kv - router - moves - launch - waiting - other`,
/// exactly. `dense` is each pass lowered anew with every token at every layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Time of the same passes, dense.
    pub dense: i128,
    /// The same under the settings of the variant that savings are against ([`Against`](crate::sim::Against)); `dense` where those are
    /// the run's own.
    pub dense_beside: i128,
    /// What the layers would save if each token paid its share of a dense layer only where it visits one.
    pub saving: i128,
    /// Layers read for part of the batch.
    pub union: i128,
    /// Layers run in several small groups rather than one.
    pub fragmentation: i128,
    /// K/V of skipped layers.
    pub kv: i128,
    /// Routing decisions, read-backs included.
    pub router: i128,
    /// Gather and scatter.
    pub moves: i128,
    /// Device idle while the host prepares a step and launches its kernels.
    pub launch: i128,
    /// Device idle in those passes of queues that put no token out: the host makes them one after another.
    pub waiting: i128,
    /// Embedding, head and adapters beyond those of the dense pass (padding, head runs of queues).
    pub other: i128,
}

/// Layers that came over the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierUse {
    /// What the layer cache did; absent where all layers are resident.
    pub fetches: Option<Fetches>,
    /// Bytes that came.
    pub bytes: u128,
    /// Time that the link was busy, picoseconds, KV entries that were swapped included.
    pub link_ps: u128,
}

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights that are resident.
    pub weights: u64,
    /// Most KV entries held at once.
    pub kv_peak: u64,
    /// Most activations held at once.
    pub activations_peak: u64,
    /// Most held at once.
    pub total_peak: u64,
    /// What there is.
    pub capacity: u64,
    /// What of it is neither for weights nor for KV entries: the largest pass, and what the process holds beside tensors.
    pub set_aside: u64,
}

/// Everything a run adds up.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Work of all graphs as they were planned.
    pub planned: Work,
    /// Work of all kernels that ended.
    pub done: Work,
    /// By what a kernel was there for; indexed as [`Cause::ALL`].
    pub by_cause: [Tally; Cause::ALL.len()],
    /// By kernel class: those whose prices have an error.
    pub doubts: [Doubts; Class::ALL.len()],
    /// Attention of several rows of a sequence, and of one.
    pub attention: [Own; 2],
    /// By what limited it.
    pub by_bound: [Tally; Bound::ALL.len()],
    /// By the weakest source in its price.
    pub by_source: [Tally; SourceKind::ALL.len()],
    /// Device time of all kernels.
    pub busy_ps: u128,
    /// Energy of kernels beyond static power.
    pub dynamic_pj: i128,
    /// Watts at the hottest kernel.
    pub peak_w: f64,
    /// Most watts that a pass draws, on average over it.
    pub hottest_pass_w: f64,
    /// Passes.
    pub passes: u64,
    /// Time with a pass in flight.
    pub pass_ps: u128,
    /// Sum of the critical paths of all passes: they follow each other. With passes in flight over several devices, of those that share sequences.
    pub critical_path: SimTime,
    /// Passes and tokens of prompts.
    pub prefill: PhaseTotals,
    /// Those of everything else: generated, drafted, verified and recomputed tokens.
    pub decode: PhaseTotals,
    /// Integral over time of the number of requests that have arrived and wait, request picoseconds.
    pub waiting_ps: u128,
    /// Integral over time of the number of requests that have been admitted and are not over, request picoseconds.
    pub running_ps: u128,
    /// Times that a running request lost its place to another.
    pub preemptions: u64,
    /// Tokens that ran again because their KV entries were given up.
    pub recomputed_tokens: u64,
    /// KV bytes that were copied to the host and back.
    pub swapped_bytes: u64,
    /// Prompt tokens that did not run because a shared prefix held their KV entries.
    pub cached_tokens: u64,
    /// Blocks of KV entries.
    pub kv: KvUse,
    /// Prompt tokens that passed.
    pub prompt_tokens: u64,
    /// Output tokens that came out.
    pub output_tokens: u64,
    /// Tokens that took a route, drafts and repetitions included.
    pub routed_tokens: u64,
    /// (token, step) pairs.
    pub layer_visits: u64,
    /// Sum of the depths of all routes taken, in halves of a block.
    pub half_depths: u64,
    /// Layer weights that passes needed, each layer once a pass; and what dense passes would have.
    pub union_bytes: u128,
    /// Layer weights of the whole pool, once a pass.
    pub pool_bytes: u128,
    /// Where the saving went; absent where the run was not explained.
    pub losses: Option<Losses>,
    /// Layers that came over the link, where not all are resident.
    pub tiers: TierUse,
    /// What each device did, where layers are on several; absent where all are together.
    pub placed: Option<PlacedUse>,
    /// KV entries that went to another engine, and those that came from one.
    pub handover: Handover,
    /// What engines that share experts wait for each other; none where they do not.
    pub rounds: Option<RoundUse>,
    /// Memory.
    pub memory: MemoryUse,
    /// What lies between tokens, in the order of the later ones.
    pub gaps: Vec<Gap>,
    /// One for each finished request, in the order in which they finished.
    pub requests: Vec<RequestTimes>,
    /// End of the last pass.
    pub makespan: SimTime,
    /// Fraction of the makespan that each resource was busy.
    pub busy: Vec<(String, f64)>,
    /// What each of several engines did ([`Ledger::of_replicas`]); empty for one.
    pub replicas: Vec<ReplicaUse>,
}

impl Ledger {
    /// Time with a pass in flight and no kernel on the device, picoseconds; over all devices, where layers are on several.
    pub fn idle_in_passes(&self) -> u128 {
        (self.places() * self.pass_ps).saturating_sub(self.busy_ps)
    }

    /// A kernel that is about to run, `times` times.
    #[inline]
    pub fn plan(&mut self, price: &Price, times: u64) {
        self.planned.flops += u128::from(price.flops) * u128::from(times);
        self.planned.bytes += u128::from(price.dram_bytes) * u128::from(times);
        self.planned.kernels += times;
    }

    /// A kernel that has run for `time` (its price and, in a captured graph, the gap behind it), `times` times.
    #[inline]
    pub fn kernel(&mut self, cause: Cause, class: usize, price: &Price, time: SimTime, times: u64) {
        self.done.flops += u128::from(price.flops) * u128::from(times);
        self.done.bytes += u128::from(price.dram_bytes) * u128::from(times);
        self.done.kernels += times;
        self.by_cause[cause as usize].add(time, times);
        if let Some(error) = price.error {
            self.doubts[class].add(error, time, times);
        }
        if let Some(own) = Own::index(class) {
            let (time_ps, dynamic_pj) = (u128::from(time.ps()), i128::from(price.dynamic_pj));
            self.attention[own].add(time_ps * u128::from(times), dynamic_pj * i128::from(times));
        }
        self.by_bound[price.bound as usize].add(time, times);
        self.by_source[price.source as usize].add(time, times);
        self.busy_ps += u128::from(time.ps()) * u128::from(times);
        self.dynamic_pj += i128::from(price.dynamic_pj) * i128::from(times);
    }

    /// A layer of `bytes` came over the link in `time`; writing it took `dynamic_pj`.
    pub fn fetch(&mut self, bytes: u64, time: SimTime, dynamic_pj: u64) {
        self.tiers.bytes += u128::from(bytes);
        self.tiers.link_ps += u128::from(time.ps());
        self.dynamic_pj += i128::from(dynamic_pj);
    }

    /// KV entries of `bytes` went over the link in `time`; reading or writing them here took `dynamic_pj`.
    pub fn swap(&mut self, bytes: u64, time: SimTime, dynamic_pj: u64) {
        self.swapped_bytes += bytes;
        self.tiers.link_ps += u128::from(time.ps());
        self.dynamic_pj += i128::from(dynamic_pj);
    }

    /// What a kernel draws while it runs, on top of `static_w`: pJ over ps are watts.
    #[inline]
    pub fn draw(&mut self, static_w: f64, price: &Price, time: SimTime) {
        // What runs inside another kernel has no time of its own.
        if time == SimTime::ZERO {
            return;
        }
        let watts = static_w + price.dynamic_pj as f64 / time.ps().max(1) as f64;
        self.peak_w = self.peak_w.max(watts);
    }

    /// Adds the kernels of another ledger.
    pub fn absorb(&mut self, other: &Ledger) {
        for (sum, part) in [(&mut self.planned, other.planned), (&mut self.done, other.done)] {
            sum.flops += part.flops;
            sum.bytes += part.bytes;
            sum.kernels += part.kernels;
        }
        self.by_cause.iter_mut().zip(&other.by_cause).for_each(|(sum, part)| sum.absorb(part));
        self.doubts.iter_mut().zip(&other.doubts).for_each(|(sum, part)| sum.absorb(part));
        for (sum, part) in self.attention.iter_mut().zip(&other.attention) {
            sum.add(part.time_ps, part.dynamic_pj);
        }
        self.by_bound.iter_mut().zip(&other.by_bound).for_each(|(sum, part)| sum.absorb(part));
        self.by_source.iter_mut().zip(&other.by_source).for_each(|(sum, part)| sum.absorb(part));
        self.busy_ps += other.busy_ps;
        self.dynamic_pj += other.dynamic_pj;
        self.peak_w = self.peak_w.max(other.peak_w);
        self.swapped_bytes += other.swapped_bytes;
        self.tiers.bytes += other.tiers.bytes;
        self.tiers.link_ps += other.tiers.link_ps;
    }

    /// A pass took this time and this energy, of which those of prompts are `prefill`.
    pub fn pass(&mut self, (time_ps, energy_pj): (u128, u128), prefill: (u128, u128)) {
        self.passes += 1;
        self.pass_ps += time_ps;
        self.hottest_pass_w = self.hottest_pass_w.max(energy_pj as f64 / time_ps.max(1) as f64);
        self.prefill.time_ps += prefill.0;
        self.prefill.energy_pj += prefill.1;
        self.decode.time_ps += time_ps - prefill.0;
        self.decode.energy_pj += energy_pj - prefill.1;
    }

    /// Time in which nothing that is counted here changed: so many requests wait and run, so many blocks are held with so
    /// many KV entries in them.
    pub fn integrate(&mut self, time: SimTime, waiting: u64, running: u64, blocks: u64, entries: u64) {
        let integral = |count: u64| u128::from(count) * u128::from(time.ps());
        self.waiting_ps += integral(waiting);
        self.running_ps += integral(running);
        self.kv.block_ps += integral(blocks);
        self.kv.entry_ps += integral(entries);
        self.kv.peak_blocks = self.kv.peak_blocks.max(blocks);
    }

    /// Share of the kernel time whose price has this source.
    pub fn source_share(&self, source: SourceKind) -> f64 {
        self.by_source[source as usize].time_ps as f64 / (self.busy_ps.max(1)) as f64
    }
}
