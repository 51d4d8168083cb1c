//! What several engines added up, as one ledger.

use super::{
    EngineRole, Handover, KvUse, Ledger, Losses, MemoryUse, PhaseTotals, ReplicaUse, RequestTimes, TierUse,
};
use crate::tier::Fetches;

impl Ledger {
    /// How many engines added this up.
    pub fn engines(&self) -> u32 {
        self.replicas.len().max(1) as u32
    }

    /// The makespan, once for each engine, picoseconds.
    pub fn engine_ps(&self) -> u128 {
        u128::from(self.makespan.ps()) * u128::from(self.engines())
    }

    /// The same, once for each device that has layers of its own.
    pub fn device_ps(&self) -> u128 {
        self.engine_ps() * self.places()
    }

    /// What engines that ran beside each other added up: sums, but for peaks, which are those of the engine that has the most, and for the end and
    /// the longest chain, which are the latest and the longest. Of one engine, what it added up.
    ///
    /// # Panics
    /// If there is none.
    pub fn of_replicas(ledgers: Vec<Ledger>) -> Ledger {
        Ledger::of_parts(ledgers, Vec::new())
    }

    /// The same of engines that pass prompts and of those that generate: a request that both have is one.
    ///
    /// # Panics
    /// If there is none.
    pub fn of_parts(mut ledgers: Vec<Ledger>, decode: Vec<Ledger>) -> Ledger {
        if ledgers.len() == 1 && decode.is_empty() {
            return ledgers.remove(0);
        }
        let first = if decode.is_empty() { EngineRole::Replica } else { EngineRole::Prefill };
        let before = ledgers.iter().map(|one| ReplicaUse::of(first, one));
        let replicas =
            before.chain(decode.iter().map(|one| ReplicaUse::of(EngineRole::Decode, one))).collect();
        let mut all = ledgers.into_iter().chain(decode);
        let mut sum = all.next().expect("at least one engine");
        sum.busy = busy_ps(&sum);
        all.for_each(|ledger| sum.join(ledger));
        sum.replicas = replicas;
        // Those of one engine before those of the next, where they come at the same time.
        sum.gaps.sort_by_key(|gap| gap.end);
        if first == EngineRole::Prefill {
            sum.requests = rejoined(std::mem::take(&mut sum.requests));
        }
        sum.requests.sort_by_key(|request| request.last);
        let all_ps = sum.engine_ps().max(1) as f64;
        sum.busy.iter_mut().for_each(|(_, share)| *share /= all_ps);
        sum
    }

    /// Adds those of another engine. Each field is named, so that none is forgotten.
    fn join(&mut self, other: Ledger) {
        self.absorb(&other);
        let busy = busy_ps(&other);
        let Ledger {
            // Those that `absorb` adds.
            planned: _,
            done: _,
            by_cause: _,
            doubts: _,
            attention: _,
            by_bound: _,
            by_source: _,
            busy_ps: _,
            dynamic_pj: _,
            peak_w: _,
            swapped_bytes: _,
            hottest_pass_w,
            passes,
            pass_ps,
            critical_path,
            prefill,
            decode,
            waiting_ps,
            running_ps,
            preemptions,
            recomputed_tokens,
            cached_tokens,
            kv,
            prompt_tokens,
            output_tokens,
            routed_tokens,
            layer_visits,
            half_depths,
            union_bytes,
            pool_bytes,
            losses,
            handover,
            rounds,
            tiers: TierUse { fetches, bytes: _, link_ps: _ },
            memory,
            gaps,
            requests,
            makespan,
            busy: _,
            replicas: _,
            placed,
        } = other;
        assert!(placed.is_none() && self.placed.is_none(), "engines of a fleet have all layers together");
        self.hottest_pass_w = self.hottest_pass_w.max(hottest_pass_w);
        self.passes += passes;
        self.pass_ps += pass_ps;
        self.critical_path = self.critical_path.max(critical_path);
        self.prefill.join(&prefill);
        self.decode.join(&decode);
        self.waiting_ps += waiting_ps;
        self.running_ps += running_ps;
        self.preemptions += preemptions;
        self.recomputed_tokens += recomputed_tokens;
        self.cached_tokens += cached_tokens;
        self.kv.join(&kv);
        self.prompt_tokens += prompt_tokens;
        self.output_tokens += output_tokens;
        self.routed_tokens += routed_tokens;
        self.layer_visits += layer_visits;
        self.half_depths += half_depths;
        self.union_bytes += union_bytes;
        self.pool_bytes += pool_bytes;
        self.losses = self.losses.zip(losses).map(|(own, other)| own.joined(&other));
        self.tiers.fetches = match (self.tiers.fetches, fetches) {
            (Some(own), Some(other)) => Some(joined(&own, &other)),
            (own, other) => own.or(other),
        };
        self.handover.join(&handover);
        if let (Some(sum), Some(rounds)) = (&mut self.rounds, rounds) {
            sum.dummy_passes += rounds.dummy_passes;
            sum.waited_ps += rounds.waited_ps;
        }
        self.memory.join(&memory);
        self.gaps.extend(gaps);
        self.requests.extend(requests);
        self.makespan = self.makespan.max(makespan);
        for (name, ps) in busy {
            match self.busy.iter_mut().find(|(own, _)| *own == name) {
                Some((_, sum)) => *sum += ps,
                None => self.busy.push((name, ps)),
            }
        }
    }
}

/// Requests whose prompts passed on one engine and that went on on another, each as one. Others stay as they are.
fn rejoined(mut halves: Vec<RequestTimes>) -> Vec<RequestTimes> {
    // The half that arrived first has the prompt; it ends when the other arrives.
    halves.sort_by_key(|half| (half.id, half.output_tokens));
    let mut whole: Vec<RequestTimes> = Vec::with_capacity(halves.len());
    for half in halves {
        match whole.last_mut().filter(|prompt| prompt.id == half.id) {
            Some(prompt) => {
                assert_eq!(prompt.last, half.arrival, "a request goes on where its prompt ended");
                *prompt = RequestTimes {
                    last: half.last,
                    output_tokens: half.output_tokens,
                    preemptions: prompt.preemptions + half.preemptions,
                    energy_pj: prompt.energy_pj + half.energy_pj,
                    ..*prompt
                };
            }
            None => whole.push(half),
        }
    }
    whole
}

/// Time that each resource was busy, picoseconds.
fn busy_ps(ledger: &Ledger) -> Vec<(String, f64)> {
    let all = ledger.makespan.ps() as f64;
    ledger.busy.iter().map(|(name, share)| (name.clone(), share * all)).collect()
}

impl PhaseTotals {
    fn join(&mut self, other: &PhaseTotals) {
        let PhaseTotals { tokens, time_ps, energy_pj } = *other;
        self.tokens += tokens;
        self.time_ps += time_ps;
        self.energy_pj += energy_pj;
    }
}

impl Handover {
    fn join(&mut self, other: &Handover) {
        let Handover { requests, sent_bytes, received_bytes, link_ps, waited_ps } = *other;
        self.requests += requests;
        self.sent_bytes += sent_bytes;
        self.received_bytes += received_bytes;
        self.link_ps += link_ps;
        self.waited_ps += waited_ps;
    }
}

impl KvUse {
    /// Blocks are those of one engine.
    fn join(&mut self, other: &KvUse) {
        let KvUse { block_tokens: _, block_bytes: _, blocks, peak_blocks, block_ps, entry_ps } = *other;
        self.blocks = self.blocks.max(blocks);
        self.peak_blocks = self.peak_blocks.max(peak_blocks);
        self.block_ps += block_ps;
        self.entry_ps += entry_ps;
    }
}

impl MemoryUse {
    /// Of a device of the engine that has the most.
    fn join(&mut self, other: &MemoryUse) {
        let MemoryUse { weights, kv_peak, activations_peak, total_peak, capacity, set_aside } = *other;
        self.weights = self.weights.max(weights);
        self.kv_peak = self.kv_peak.max(kv_peak);
        self.activations_peak = self.activations_peak.max(activations_peak);
        self.total_peak = self.total_peak.max(total_peak);
        self.capacity = self.capacity.max(capacity);
        self.set_aside = self.set_aside.max(set_aside);
    }
}

impl Losses {
    fn joined(self, other: &Losses) -> Losses {
        Losses {
            dense: self.dense + other.dense,
            dense_beside: self.dense_beside + other.dense_beside,
            saving: self.saving + other.saving,
            union: self.union + other.union,
            fragmentation: self.fragmentation + other.fragmentation,
            kv: self.kv + other.kv,
            router: self.router + other.router,
            moves: self.moves + other.moves,
            launch: self.launch + other.launch,
            waiting: self.waiting + other.waiting,
            other: self.other + other.other,
        }
    }
}

fn joined(own: &Fetches, other: &Fetches) -> Fetches {
    Fetches {
        visits: own.visits + other.visits,
        hits: own.hits + other.hits,
        demanded: own.demanded + other.demanded,
        prefetched: own.prefetched + other.prefetched,
        prefetch_used: own.prefetch_used + other.prefetch_used,
        prefetch_wasted: own.prefetch_wasted + other.prefetch_wasted,
    }
}
