//! KV entries: what each action and each visibility leaves and shows, against a model that keeps every entry in a list.

use crate::lab::Lab;
use proptest::prelude::*;
use radialsim::batch::{Hold, Policy, Visibility};
use radialsim::cost::Price;
use radialsim::engine::Ended;
use radialsim::kernel::Kernel;
use radialsim::lower::{Call, Cause, Node};
use radialsim::sim::{Observer, run};
use radialsim::trace::{
    Header, KvAction, Modules, Order, Phase, Request, Role, Route, RouteTable, Router, RouterKind, Run, Step,
    Trace,
};
use radialsim::units::SimTime;

const LAYERS: u32 = 30;

/// Attention pairs and rows, and K/V projections of skipped layers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    pairs: u64,
    rows: u64,
    projected: u64,
}

impl Observer for Seen {
    fn call(&mut self, call: &Call, _price: Option<&Price>, _ended: &Ended) {
        match (call.node, call.cause) {
            (Node::Kernel { kernel: Kernel::Attention(shape), .. }, _) => {
                self.pairs += shape.pairs;
                self.rows += u64::from(shape.rows);
            }
            (Node::Kernel { kernel: Kernel::KvWrite { rows, .. }, .. }, Cause::Kv) => {
                self.projected += u64::from(rows)
            }
            _ => {}
        }
    }
}

/// One request, token by token, every entry in a list of (layer, takes bytes). `copied` states wait for the next visit.
fn naive(header: &Header, routes: &[Route], visibility: Visibility) -> (Seen, u64) {
    let mut seen = Seen::default();
    let mut entries: Vec<(u32, bool)> = Vec::new();
    let mut waiting: Vec<u32> = Vec::new();
    // Tokens that left something.
    let mut tokens = 0;
    for route in routes {
        let before = entries.len();
        for step in route.0.iter().filter(|step| step.modules.attention()) {
            seen.rows += 1;
            seen.pairs += 1 + match visibility {
                Visibility::SameLayer => {
                    entries.iter().filter(|(layer, _)| *layer == step.layer).count() as u64
                }
                Visibility::OnePerToken => tokens,
                Visibility::AllEntries => entries.len() as u64,
            };
            seen.projected += waiting.iter().filter(|&&layer| layer == step.layer).count() as u64;
            waiting.retain(|&layer| layer != step.layer);
            match step.kv {
                None => entries.push((step.layer, true)),
                Some(KvAction::Share) => entries.push((step.layer, false)),
                Some(KvAction::None) => {}
                Some(other) => panic!("{other} is not drawn here"),
            }
        }
        for layer in 0..header.layers {
            let named = route.0.iter().find(|step| step.layer == layer);
            if route.0.iter().any(|step| step.layer == layer && step.modules.attention()) {
                continue;
            }
            match named.and_then(|step| step.kv).unwrap_or(header.kv) {
                KvAction::ProjectOnly => {
                    seen.projected += 1;
                    entries.push((layer, true));
                }
                KvAction::CopyState => {
                    waiting.push(layer);
                    entries.push((layer, true));
                }
                KvAction::Share => entries.push((layer, false)),
                KvAction::Write | KvAction::None | KvAction::Deferred | KvAction::Unified => {}
            }
        }
        tokens += u64::from(entries.len() > before);
    }
    (seen, entries.iter().filter(|(_, bytes)| *bytes).count() as u64)
}

fn step() -> impl Strategy<Value = Step> {
    let modules = prop_oneof![Just(Modules::Block), Just(Modules::Attention), Just(Modules::FeedForward)];
    let kv = prop_oneof![4 => Just(None), 1 => Just(Some(KvAction::Share)), 1 => Just(Some(KvAction::None))];
    (0..LAYERS, modules, kv).prop_map(|(layer, modules, kv)| Step { modules, kv, ..Step::block(layer) })
}

/// Each layer at most once and ascending, or any walk.
fn route(monotone: bool) -> impl Strategy<Value = Route> {
    proptest::collection::vec(step(), 0..12).prop_map(move |mut steps| {
        if monotone {
            steps.sort_by_key(|step| step.layer);
            steps.dedup_by_key(|step| step.layer);
        }
        Route(steps)
    })
}

fn trace(header: Header, routes: &[Route], prompt: u32, copies: u32) -> Trace {
    let mut table = RouteTable::default();
    let ids: Vec<u32> = routes.iter().map(|route| table.intern(route.clone())).collect();
    let (first, rest) = ids.split_at(prompt as usize);
    let run = |start, phase, routes: &[u32]| Run {
        start,
        phase,
        role: Role::Plain,
        routes: routes.iter().copied().collect(),
        accepted: Vec::new(),
    };
    let mut runs = vec![run(0, Phase::Prefill, first)];
    if !rest.is_empty() {
        runs.push(run(prompt, Phase::Decode, rest));
    }
    let request = Request {
        id: 0,
        arrival: SimTime::ZERO,
        prompt_tokens: prompt,
        output_tokens: rest.len() as u32 + 1,
        priority: 0,
        prefix: Vec::new(),
        runs,
    };
    let requests = (0..copies).map(|id| Request { id: id.into(), ..request.clone() }).collect();
    Trace { header, routes: table, requests }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn attention_sees_what_a_list_of_entries_shows(
        (monotone, routes) in any::<bool>().prop_flat_map(|monotone| {
            (Just(monotone), proptest::collection::vec(route(monotone), 2..20))
        }),
        prompt in 1u32..20, chunk in 1u32..8, kv in 0usize..5, visibility in 0usize..3, policy in 0usize..3, copies in 1u32..4,
    ) {
        let prompt = prompt.min(routes.len() as u32);
        let kv = [KvAction::Write, KvAction::ProjectOnly, KvAction::CopyState, KvAction::Share, KvAction::Unified][kv];
        // Visibility is a question of the unified cache alone.
        let visibility = if kv == KvAction::Unified {
            [Visibility::SameLayer, Visibility::OnePerToken, Visibility::AllEntries][visibility]
        } else {
            Visibility::SameLayer
        };
        let order = if monotone { Order::Monotone } else { Order::Any };
        let router = Router::costless(RouterKind::OracleThreshold);
        let header = Header { kv, order, reuse: !monotone, router, ..Header::dense("smollm2-135m", LAYERS) };
        let (expected, stored) = naive(&header, &routes, visibility);

        let policies = [Policy::Hop, Policy::Grouped, Policy::Queued { full: 1, wait_us: 0.0, hold: Hold::Always }];
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", copies).policy(policies[policy]);
        lab.setup.serving.max_batched_tokens = chunk.max(copies);
        lab.setup.dispatch.visibility = visibility;
        lab.setup.dispatch.monotone = monotone;
        let trace = trace(header, &routes, prompt, copies);
        let mut seen = Seen::default();
        let ledger = run(&lab.setup, &trace, &mut seen).unwrap();
        let by = u64::from(copies);
        let (pairs, rows, projected) = (by * expected.pairs, by * expected.rows, by * expected.projected);
        prop_assert_eq!(seen, Seen { pairs, rows, projected });
        let most = by * stored * lab.setup.model.kv_entry_bytes();
        prop_assert!(ledger.memory.kv_peak <= most);
        prop_assert!(copies > 1 || ledger.memory.kv_peak == most);
    }
}

/// Bytes held, by action, for a token that takes 10 of 30 layers: the format's table.
#[test]
fn each_action_holds_its_bytes() {
    let half = Route::of_layers(0..10);
    for (kv, entries) in [
        (KvAction::Write, 10),
        (KvAction::ProjectOnly, 30),
        (KvAction::CopyState, 30),
        (KvAction::Share, 10),
        (KvAction::None, 10),
        (KvAction::Deferred, 10),
        (KvAction::Unified, 10),
    ] {
        let header = Header { kv, ..Header::dense("smollm2-135m", LAYERS) };
        let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1);
        let ledger = lab.run(&trace(header, &vec![half.clone(); 7], 4, 1));
        assert_eq!(ledger.memory.kv_peak, 7 * entries * lab.setup.model.kv_entry_bytes(), "{kv}");
    }
}

/// Draft and verify: what is not accepted is taken back to the last entry, and every accepted position gives a token.
#[test]
fn rejected_drafts_leave_nothing() {
    let lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", 1);
    let text = "DraftVerify(exit_layer: 8, drafts: 5, acceptance: 0.4)";
    let trace = lab.trace(&crate::lab::method(text), 1, 20, 100, 3);
    let ledger = lab.run(&trace);
    assert_eq!(ledger.output_tokens, 100);
    let entry = lab.setup.model.kv_entry_bytes() * 32;
    let positions = ledger.memory.kv_peak / entry;
    assert!((119..=119 + 6).contains(&positions), "{positions} positions at the peak, 119 in the end");
    assert!(ledger.routed_tokens > 119, "drafts and repetitions take routes too");
}
