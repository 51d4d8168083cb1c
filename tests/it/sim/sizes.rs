//! Sizes at the edge of a narrow number: nothing of them is lost.

use crate::lab::Lab;
use radialsim::batch::{Hold, Policy};
use radialsim::model::Model;
use radialsim::sched::{Paging, Serving};
use radialsim::sim::{Fidelity, Silent, run};
use radialsim::trace::{Header, Order, Phase, Request, Role, Route, RouteTable, Run, Trace};
use radialsim::units::SimTime;

/// The longest route that the format knows has 2^16 steps: all are taken, under every policy that takes routes in any order.
#[test]
fn the_longest_route_is_taken_to_its_end() {
    const STEPS: u32 = 1 << 16;
    let mut routes = RouteTable::default();
    let route = routes.intern(Route::of_layers((0..STEPS).map(|step| step % 30)));
    let of = |start, phase| Run {
        start,
        phase,
        role: Role::Plain,
        routes: [route].into_iter().collect(),
        accepted: Vec::new(),
    };
    let request = Request {
        id: 0,
        arrival: SimTime::ZERO,
        prompt_tokens: 1,
        output_tokens: 2,
        priority: 0,
        prefix: Vec::new(),
        runs: vec![of(0, Phase::Prefill), of(1, Phase::Decode)],
    };
    let header = Header { order: Order::Any, ..Header::dense("smollm2-135m", 30) };
    let trace = Trace { header, requests: vec![request], routes };
    let queued = Policy::Queued { full: 1, wait_us: 10.0, hold: Hold::Always };
    for policy in [Policy::DenseMasked, Policy::Hop, Policy::Grouped, queued] {
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1).policy(policy);
        lab.setup.fidelity = Fidelity::Step;
        lab.setup.dispatch.monotone = false;
        let ledger = run(&lab.setup, &trace, &mut Silent).expect("a run");
        assert_eq!(ledger.layer_visits, u64::from(2 * STEPS), "{policy:?}");
        assert_eq!(ledger.half_depths, u64::from(4 * STEPS), "{policy:?}");
    }
}

/// As many heads as a model may have reach the kernels.
#[test]
fn the_most_heads_reach_the_kernels() {
    let flops = |heads: u64| {
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1);
        let model = Model {
            layers: 1,
            heads,
            kv_heads: heads,
            head_dim: 16,
            hidden: 64,
            rope: None,
            ..lab.setup.model.clone()
        };
        model.check().expect("a model");
        lab.setup.model = model;
        lab.setup.serving = Serving::new(64, 1, true);
        let mut dense = lab.trace(&radialsim::trace::synth::Method::Dense, 1, 1, 1, 1);
        dense.requests.truncate(1);
        let ledger = run(&lab.setup, &dense, &mut Silent).expect("a run");
        ledger.done.flops
    };
    // Products and attention both grow with the heads; what is beside them does not.
    let (one, half, all) = (flops(1), flops(32_767), flops(65_535));
    assert_eq!(half - one, 32_766 * (flops(2) - one));
    assert_eq!(all - one, 65_534 * (flops(2) - one));
}

/// A window of any width keeps all that it shows.
#[test]
fn the_widest_window_is_no_window() {
    let wide = Paging::new(1, 2, false).windowed([Some(u32::MAX), Some(u32::MAX)]);
    let open = Paging::new(1, 2, false).windowed([None, None]);
    for entries in [0, 1, 1000, 1 << 20] {
        assert_eq!(wide.most_blocks(entries), open.most_blocks(entries));
    }
}
