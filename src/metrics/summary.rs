//! The numbers of one variant, under the keys that others read.

use super::spread::or_nulls;
use super::{
    Cut, ErrorBar, Goodput, Growth, Ledger, PhaseTotals, PlacedSummary, ReplicaSummary, RequestTimes, Slo,
    Spread, WarmUp, ratio,
};
use crate::cost::Device;
use crate::model::Model;
use crate::tier::Fetches;
use crate::units::{PS_PER_S, SimTime};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Watts over the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PowerSummary {
    /// Energy over makespan.
    pub mean: f64,
    /// At the hottest kernel.
    pub peak: f64,
    /// Over the hottest pass, on average: what a power cap bounds.
    pub hottest_pass: f64,
}

/// Work done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WorkSummary {
    /// Operations; a multiply-add counts as two.
    pub flops: f64,
    /// Bytes to and from device memory.
    pub bytes: f64,
    /// Kernels.
    pub kernel_launches: u64,
    /// (token, step) pairs.
    pub layer_visits: u64,
    /// Whole blocks a token takes; a branch counts half.
    pub mean_depth: f64,
    /// Share of the pool's weights that a pass needs, each layer counted once.
    pub layer_weights_read: f64,
}

/// What no schedule could beat.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// Longest chain of dependent work: the critical paths of all passes, one after another.
    pub critical_path_s: f64,
    /// All flops and bytes at the datasheet's peaks.
    pub work_over_peak_s: f64,
}

/// Prompts, and everything else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phases {
    /// Tokens of prompts.
    pub prefill: PhaseSummary,
    /// Generated, drafted, verified and recomputed tokens.
    pub decode: PhaseSummary,
}

/// A phase of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PhaseSummary {
    /// Tokens that took a whole route, each time they did.
    pub tokens: u64,
    /// Its share of the pass time.
    pub time_s: f64,
    /// Its share of the energy of passes.
    pub energy_j: f64,
    /// Energy over tokens; none where there are no tokens.
    pub energy_per_token_j: Option<f64>,
}

impl PhaseSummary {
    fn new(phase: &PhaseTotals) -> Self {
        let PhaseTotals { tokens, time_ps, energy_pj } = *phase;
        let energy_j = energy_pj as f64 / PS_PER_S as f64;
        PhaseSummary {
            tokens,
            time_s: time_ps as f64 / PS_PER_S as f64,
            energy_j,
            energy_per_token_j: quotient(energy_j, tokens as f64),
        }
    }
}

/// Blocks of KV entries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KvSummary {
    /// Token positions of a block.
    pub block_tokens: u32,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks that fit.
    pub blocks: u64,
    /// Most held at once.
    pub peak_blocks: u64,
    /// Share of the blocks that were held, mean over the makespan.
    pub mean_use: f64,
    /// Share of the bytes of held blocks that held entries, mean over time and blocks; none where none was held.
    pub fill: Option<f64>,
}

/// Layers that came over a link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TierSummary {
    /// What the layer cache did.
    #[serde(flatten)]
    pub fetches: Fetches,
    /// Hits over visits; none where no layer was visited.
    pub hit_rate: Option<f64>,
    /// Bytes that came over the link.
    pub fetched_bytes: f64,
    /// Time that the link was busy: bytes over bandwidth, and a latency for each layer.
    pub link_busy_s: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls takes a reference")]
fn is_one(count: &u32) -> bool {
    *count == 1
}

/// The numbers of one variant. Field names are the keys of `simulate --json`; they carry their unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/METRICS.md defines each key")]
pub struct Summary {
    /// Devices of all engines; absent where there is one.
    #[serde(skip_serializing_if = "is_one")]
    pub devices: u32,
    pub requests: u64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub makespan_s: f64,
    pub output_tokens_per_s: f64,
    pub ttft_s: Spread,
    /// None where every request puts out one token.
    #[serde(serialize_with = "or_nulls")]
    pub tpot_s: Option<Spread>,
    /// None where every request puts out its tokens at once.
    #[serde(serialize_with = "or_nulls")]
    pub itl_s: Option<Spread>,
    pub e2e_s: Spread,
    pub energy_j: f64,
    pub energy_per_output_token_j: f64,
    pub power_w: PowerSummary,
    pub memory_bytes: MemoryBytes,
    pub work: WorkSummary,
    pub busy: serde_json::Map<String, serde_json::Value>,
    pub bounds: Bounds,
    pub digest: String,
    pub requests_per_s: f64,
    pub normalized_latency_s: Spread,
    pub queue_s: Spread,
    pub energy_per_request_j: Spread,
    pub phases: Phases,
    pub idle_energy_j: f64,
    pub preemptions: u64,
    pub recomputed_tokens: u64,
    pub swapped_bytes: u64,
    pub cached_prompt_tokens: u64,
    pub kv: KvSummary,
    pub mean_waiting: f64,
    pub mean_running: f64,
    pub error: ErrorBar,
    /// Absent where all layers are resident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiers: Option<TierSummary>,
    /// Absent where all layers are on one device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacedSummary>,
    /// Absent for one engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaSummary>,
    /// Absent where no bound is stated; [`Summary::new`] knows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goodput: Option<Goodput>,
    /// Absent where no warm-up is cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Cut>,
    /// None where requests do not come by times of their own, or too few; [`Summary::new`] does not look.
    pub growth: Option<Growth>,
}

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/METRICS.md defines each key")]
pub struct MemoryBytes {
    pub weights: u64,
    pub kv_peak: u64,
    pub activations_peak: u64,
    pub total_peak: u64,
    pub capacity: u64,
    pub set_aside: u64,
}

impl Summary {
    /// Checks what must be conserved, then derives the numbers.
    ///
    /// # Panics
    /// Where work planned and done differ, the makespan beats a bound, or tokens are missing: a defect of the simulator.
    pub fn new(ledger: &Ledger, device: &Device, model: &Model) -> Self {
        assert_eq!(ledger.planned, ledger.done, "work in the log = work in the graphs");
        let makespan = u128::from(ledger.makespan.ps());
        // Each device has a compute queue, and draws while it idles.
        let (engine_ps, device_ps) = (ledger.engine_ps(), ledger.device_ps());
        assert!(ledger.busy_ps <= device_ps, "a compute queue is busy at most all the time");
        assert!(ledger.critical_path <= ledger.makespan, "no schedule beats the critical path");
        assert!(ledger.tiers.link_ps <= engine_ps, "time is never below bytes fetched over bandwidth");
        let requests = &ledger.requests;
        let output: u64 = requests.iter().map(|request| u64::from(request.output_tokens)).sum();
        assert_eq!(output, ledger.output_tokens, "tokens out = tokens of finished requests");
        check_requests(ledger);

        let joules = |pj: f64| pj / PS_PER_S as f64;
        let idle_ps = device_ps - ledger.busy_ps;
        let energy_j = joules(device.energy_pj(ledger.busy_ps, idle_ps, ledger.dynamic_pj));
        let spread = |of: &dyn Fn(&RequestTimes) -> f64| {
            Spread::of(requests.iter().map(of).collect()).expect("a run has requests")
        };
        let Latencies { ttft_s, tpot_s, itl_s, e2e_s, normalized_latency_s, queue_s } =
            Latencies::since(ledger, SimTime::ZERO);
        let kv = &ledger.kv;
        let entry_bytes = model.kv_entry_bytes() as f64;
        let places = ledger.places() * u128::from(ledger.engines());
        let roofline =
            device.roofline(ledger.done.flops, ledger.done.bytes, model.activations).s() / places as f64;
        let routed = ledger.routed_tokens.max(1) as f64;
        let makespan_s = ledger.makespan.s();
        Summary {
            devices: device.count() * places as u32,
            requests: requests.len() as u64,
            prompt_tokens: ledger.prompt_tokens,
            output_tokens: output,
            makespan_s,
            output_tokens_per_s: ratio(output as f64, makespan_s),
            ttft_s,
            tpot_s,
            itl_s,
            e2e_s,
            energy_j,
            energy_per_output_token_j: ratio(energy_j, output as f64),
            power_w: PowerSummary {
                mean: ratio(energy_j, makespan_s),
                peak: ledger.peak_w,
                hottest_pass: ledger.hottest_pass_w,
            },
            memory_bytes: MemoryBytes {
                weights: ledger.memory.weights,
                kv_peak: ledger.memory.kv_peak,
                activations_peak: ledger.memory.activations_peak,
                total_peak: ledger.memory.total_peak,
                capacity: ledger.memory.capacity,
                set_aside: ledger.memory.set_aside,
            },
            work: WorkSummary {
                flops: ledger.done.flops as f64,
                bytes: ledger.done.bytes as f64,
                kernel_launches: ledger.done.kernels,
                layer_visits: ledger.layer_visits,
                mean_depth: ledger.half_depths as f64 / 2.0 / routed,
                layer_weights_read: ratio(ledger.union_bytes as f64, ledger.pool_bytes as f64),
            },
            busy: ledger.busy.iter().map(|(name, share)| (name.clone(), (*share).into())).collect(),
            bounds: Bounds { critical_path_s: ledger.critical_path.s(), work_over_peak_s: roofline },
            digest: digest(ledger),
            requests_per_s: ratio(requests.len() as f64, makespan_s),
            normalized_latency_s,
            queue_s,
            energy_per_request_j: spread(&|request| joules(request.energy_pj as f64)),
            phases: Phases {
                prefill: PhaseSummary::new(&ledger.prefill),
                decode: PhaseSummary::new(&ledger.decode),
            },
            idle_energy_j: joules(device.energy_pj(0, ledger.places() * (engine_ps - ledger.pass_ps), 0)),
            preemptions: ledger.preemptions,
            recomputed_tokens: ledger.recomputed_tokens,
            swapped_bytes: ledger.swapped_bytes,
            cached_prompt_tokens: ledger.cached_tokens,
            kv: KvSummary {
                block_tokens: kv.block_tokens,
                block_bytes: kv.block_bytes,
                blocks: kv.blocks,
                peak_blocks: kv.peak_blocks,
                mean_use: ratio(kv.block_ps as f64, kv.blocks as f64 * engine_ps as f64),
                fill: quotient(kv.entry_ps as f64 * entry_bytes, kv.block_ps as f64 * kv.block_bytes as f64),
            },
            mean_waiting: ratio(ledger.waiting_ps as f64, makespan as f64),
            mean_running: ratio(ledger.running_ps as f64, makespan as f64),
            error: ErrorBar::of(ledger, device),
            tiers: ledger.tiers.fetches.map(|fetches| TierSummary {
                fetches,
                hit_rate: quotient(fetches.hits as f64, fetches.visits as f64),
                fetched_bytes: ledger.tiers.bytes as f64,
                link_busy_s: ledger.tiers.link_ps as f64 / PS_PER_S as f64,
            }),
            placement: PlacedSummary::of(ledger),
            replicas: ReplicaSummary::of(ledger),
            goodput: None,
            warm_up: None,
            growth: None,
        }
    }

    /// Leaves the requests of the warm-up out of all times of requests, and adds the goodput of those that count.
    pub fn counting(mut self, ledger: &Ledger, slo: &Slo, warm_up: Option<WarmUp>) -> Self {
        self.warm_up = warm_up.map(|method| Cut::of(method, &ledger.requests));
        let since = SimTime::from_s(self.warm_up.map_or(0.0, |cut| cut.until_s));
        if since > SimTime::ZERO {
            let Latencies { ttft_s, tpot_s, itl_s, e2e_s, normalized_latency_s, queue_s } =
                Latencies::since(ledger, since);
            (self.ttft_s, self.tpot_s, self.itl_s, self.e2e_s) = (ttft_s, tpot_s, itl_s, e2e_s);
            (self.normalized_latency_s, self.queue_s) = (normalized_latency_s, queue_s);
        }
        self.goodput = Goodput::since(slo, ledger, since);
        self
    }
}

/// Times of the requests that arrive from a time on, and of the tokens that come out behind it.
struct Latencies {
    ttft_s: Spread,
    tpot_s: Option<Spread>,
    itl_s: Option<Spread>,
    e2e_s: Spread,
    normalized_latency_s: Spread,
    queue_s: Spread,
}

impl Latencies {
    fn since(ledger: &Ledger, since: SimTime) -> Self {
        let counted = || ledger.requests.iter().filter(|request| request.arrival >= since);
        let spread = |of: &dyn Fn(&RequestTimes) -> SimTime| {
            Spread::of(counted().map(|request| of(request).s()).collect()).expect("some request counts")
        };
        let normalized = |request: &RequestTimes| {
            (request.last - request.arrival).s() / f64::from(request.output_tokens.max(1))
        };
        let gaps = ledger.gaps.iter().filter(|gap| gap.end >= since);
        Latencies {
            ttft_s: spread(&|request| request.first - request.arrival),
            tpot_s: Spread::of(counted().filter_map(RequestTimes::tpot_s).collect()),
            itl_s: Spread::of_counted(gaps.map(|gap| (gap.length.s(), gap.count.into())).collect()),
            e2e_s: spread(&|request| request.last - request.arrival),
            normalized_latency_s: Spread::of(counted().map(normalized).collect())
                .expect("some request counts"),
            queue_s: spread(&|request| request.scheduled - request.arrival),
        }
    }
}

/// What the requests had is what the server gave: time (Little's law), energy, and who lost a place.
fn check_requests(ledger: &Ledger) {
    let sum = |of: &dyn Fn(&RequestTimes) -> u128| -> u128 { ledger.requests.iter().map(of).sum() };
    assert_eq!(
        ledger.waiting_ps + ledger.running_ps,
        sum(&|request| (request.last - request.arrival).ps().into()),
        "Little's law: requests in the system, over time = their times in the system"
    );
    assert_eq!(
        ledger.prefill.time_ps + ledger.decode.time_ps,
        ledger.pass_ps,
        "the phases share the time of the passes"
    );
    assert_eq!(
        ledger.prefill.energy_pj + ledger.decode.energy_pj,
        sum(&|request| request.energy_pj),
        "the requests share the energy of the passes"
    );
    assert_eq!(u128::from(ledger.preemptions), sum(&|request| request.preemptions.into()), "preemptions");
    let in_order = |request: &RequestTimes| {
        request.arrival <= request.scheduled
            && request.scheduled <= request.first
            && request.first <= request.last
    };
    assert!(ledger.requests.iter().all(in_order), "arrival, first pass, first token, last token");
    assert!(ledger.kv.peak_blocks <= ledger.kv.blocks, "held blocks fit");
}

/// None where there is nothing to divide by.
fn quotient(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

/// A hash of per-request times, energy and memory peaks: equal runs have equal digests.
fn digest(ledger: &Ledger) -> String {
    let mut hash = Sha256::new();
    let mut requests = ledger.requests.clone();
    requests.sort_by_key(|request| request.id);
    for request in &requests {
        for number in [request.id, request.arrival.ps(), request.first.ps(), request.last.ps()] {
            hash.update(number.to_le_bytes());
        }
    }
    hash.update(ledger.busy_ps.to_le_bytes());
    hash.update(ledger.dynamic_pj.to_le_bytes());
    for bytes in [ledger.memory.kv_peak, ledger.memory.activations_peak, ledger.memory.total_peak] {
        hash.update(bytes.to_le_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
