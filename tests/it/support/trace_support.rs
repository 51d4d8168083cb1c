//! Traces for tests: the real ones, and made-up ones that use every feature of the format.

use proptest::prelude::*;
use radialsim::trace::*;
use radialsim::units::SimTime;
use std::path::{Path, PathBuf};

/// Name endings of every encoding that this build can write.
pub const ENDINGS: &[&str] = if cfg!(feature = "parquet") {
    &["jsonl", "jsonl.gz", "jsonl.zst", "parquet"]
} else {
    &["jsonl", "jsonl.gz", "jsonl.zst"]
};

/// The traces that were recorded from a real model.
pub fn real() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/traces");
    ["smollm2-dense.jsonl", "smollm2-skip10.jsonl", "smollm2-skip25.jsonl"]
        .map(|name| folder.join(name))
        .into()
}

/// SplitMix64: enough to choose with.
struct Chooser(u64);

impl Chooser {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn half(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Any trace that the format can say, with few and short requests.
pub fn traces() -> impl Strategy<Value = Trace> {
    (any::<u64>(), 1_u32..12, 0..6_usize, 0..8_usize).prop_map(|(seed, layers, routes, requests)| {
        let mut choose = Chooser(seed);
        let header = header(&mut choose, layers);
        let mut table = RouteTable::default();
        for _ in 0..=routes {
            let route = route(&mut choose, &header);
            table.push(route);
        }
        let mut arrival = 0;
        let requests = (0..requests as u64)
            .map(|index| {
                arrival += choose.one_of(&[0, 1, 176_882_000_000, 999_999_999_999_999]);
                let id = if choose.half() { index } else { u64::MAX - index };
                request(&mut choose, id, SimTime::from_ps(arrival), table.len() as u64)
            })
            .collect();
        Trace { header, routes: table, requests }
    })
}

fn header(choose: &mut Chooser, layers: u32) -> Header {
    let mut header = Header::dense(choose.one_of(&["", "SmolLM2 \"135M\"", "\u{202e}\n\u{1f980}"]), layers);
    header.order = choose.one_of(&[Order::Monotone, Order::Any]);
    header.reuse = choose.half();
    let granularities =
        [Granularity::Token, Granularity::Sequence, Granularity::Position, Granularity::Batch];
    header.granularity = choose.one_of(&granularities);
    header.kv = choose.one_of(&KvAction::ALL).0;
    header.max_hops = choose.one_of(&[None, Some(40)]);
    header.source = choose.one_of(&["", "test"]).into();
    let router = &mut header.router;
    router.kind = choose.one_of(&[RouterKind::None, RouterKind::OracleThreshold, RouterKind::ExpertChoice]);
    router.when = choose.one_of(&[None, Some(RouterWhen::PerHop), Some(RouterWhen::PerSequence)]);
    router.hidden = choose.one_of(&[None, Some(128)]);
    router.device = choose.one_of(&[RouterDevice::Gpu, RouterDevice::Host]);
    if choose.half() {
        let tau = f64::from_bits(choose.below(1 << 52) | 1023 << 52);
        router.extra = serde_json::json!({ "tau": tau, "z": [1, { "b": null, "a": -3 }], "kind2": "\u{0}" })
            .as_object()
            .expect("an object")
            .clone();
    }
    header
}

fn route(choose: &mut Chooser, header: &Header) -> Route {
    let modules = [Modules::Block, Modules::Attention, Modules::FeedForward, Modules::Adapter];
    let count = choose.below(13);
    let mut steps: Vec<Step> = (0..count)
        .map(|_| Step {
            layer: choose.below(header.layers.into()) as u32,
            modules: choose.one_of(&modules),
            width: choose.one_of(&[1.0, 0.25, 0.1, 1e-30]),
            kv: if choose.half() { None } else { Some(choose.one_of(&KvAction::ALL).0) },
            routed: choose.half(),
        })
        .collect();
    if header.order == Order::Monotone {
        steps.sort_by_key(|step| step.layer);
    }
    if !header.reuse {
        let mut seen = std::collections::HashSet::new();
        steps.retain(|step| seen.insert(step.layer));
    }
    Route(steps)
}

fn request(choose: &mut Chooser, id: u64, arrival: SimTime, routes: u64) -> Request {
    let (prompt_tokens, output_tokens) = (1 + choose.below(9) as u32, 1 + choose.below(9) as u32);
    let prefix = (0..choose.below(3)).map(|_| choose.below(u64::MAX)).collect();
    let mut request =
        Request { id, arrival, prompt_tokens, output_tokens, priority: 0, prefix, runs: Vec::new() };
    if choose.below(5) == 0 {
        return request;
    }
    let end = prompt_tokens + output_tokens - u32::from(choose.half());
    let mut at = 0;
    while at < end {
        let phase = if at < prompt_tokens { Phase::Prefill } else { Phase::Decode };
        let stop = if at < prompt_tokens { prompt_tokens } else { end };
        let mut count = 1 + choose.below((stop - at).into()) as u32;
        let (mut role, mut start, mut accepted) = (Role::Plain, at, Vec::new());
        match choose.below(6) {
            0 if phase == Phase::Decode => {
                role = Role::Draft;
                count += choose.below(3) as u32;
            }
            1 if phase == Phase::Decode => {
                role = Role::Verify;
                let kept = choose.below(u64::from(count) + 1) as u32;
                count += choose.below(3) as u32;
                accepted = (0..count).map(|index| index < kept).collect();
                if choose.half() && at + count <= end {
                    accepted.clear();
                }
            }
            2 if at > 0 => {
                role = Role::Recompute;
                start = choose.below(at.into()) as u32;
                count = 1 + choose.below((at - start).into()) as u32;
            }
            _ => {}
        }
        let routes = (0..count).map(|_| choose.below(routes) as u32).collect();
        let run = Run { start, phase, role, routes, accepted };
        at += run.advance();
        request.runs.push(run);
    }
    request
}
