//! Generated routes: do they obey the format, hit the mean they were asked for, and correlate as documented?

use proptest::prelude::*;
use radialsim::error::{Error, InputError};
use radialsim::trace::synth::*;
use radialsim::trace::*;
use radialsim::units::SimTime;
use std::collections::HashMap;

fn request(id: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
    let (arrival, prefix, runs) = (SimTime::ZERO, Vec::new(), Vec::new());
    Request { id, arrival, prompt_tokens, output_tokens, prefix, runs }
}

fn batch(count: u64, prompt: u32, output: u32) -> Vec<Request> {
    (0..count).map(|id| request(id, prompt, output)).collect()
}

fn method(text: &str) -> Method {
    let reader = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    reader.from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn make(text: &str, layers: u32, requests: Vec<Request>, seed: u64) -> Trace {
    generate(&method(text), layers, requests, seed).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The input error that `method` gives in a pool of `layers`.
fn refused(text: &str, layers: u32) -> InputError {
    match generate(&method(text), layers, batch(1, 2, 2), 1) {
        Err(Error::Input(error)) => *error,
        other => panic!("{text} was not refused: {other:?}"),
    }
}

/// One of each method, for a pool of 8 layers.
const EXAMPLES: [&str; 15] = [
    "Dense",
    "StaticDepth(keep: AllBut([3, 5]))",
    "StaticDepth(keep: DropLast(depth: 5.5))",
    "StaticDepth(keep: DropMiddle(depth: 6))",
    "StaticWidth(keep: 0.5)",
    "EarlyExit(exits: Each([(2, 0.25), (6, 0.25), (8, 0.5)]), kv: copy_state)",
    "EarlyExit(exits: Each([(2, 0.25), (6, 0.25), (8, 0.5)]), kv: deferred, dense_prefill: true)",
    "MixtureOfDepths(capacity: 0.125, routed: EveryOther, window: 16)",
    "IndependentSkips(skip: 0.25, branches: Separately, keep: [0], kv: project_only, router: (hidden: 64))",
    "CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: none)",
    "CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Predecessor, branches: Jointly, kv: project_only, \
     dense_prefill: true, router: (hidden: 64, device: host))",
    "Recursion(prefix: 1, suffix: 1, times: Each([(1, 0.5), (3, 0.5)]), kv: Shared)",
    "Radial(transitions: Banded(back: 2, ahead: 3), start: Layer(0), hops: Each([(4, 0.5), (9, 0.5)]), max_hops: 8, \
     router: (hidden: 128))",
    "Radial(transitions: Uniform, start: Uniform, hops: Fixed(20), reuse: false)",
    "DraftVerify(exit_layer: 3, drafts: 6, acceptance: 0.7945)",
];

/// Routes pass the header's rules, runs follow each other, and every request moves on by P + G - 1.
fn obeys_the_format(trace: &Trace) {
    for route in trace.routes.iter() {
        route.check(&trace.header).unwrap();
        assert_eq!(&Route::parse(&route.to_string()).unwrap(), route);
    }
    for request in &trace.requests {
        assert_eq!(request.advanced(), u64::from(request.prompt_tokens + request.output_tokens - 1));
        let mut at = 0;
        for run in &request.runs {
            assert!(!run.routes.is_empty(), "an empty run");
            let end = run.start + run.routes.len() as u32;
            match run.role {
                Role::Recompute => assert!(end <= at),
                Role::Plain | Role::Draft | Role::Verify => assert_eq!(run.start, at),
            }
            assert_eq!(run.phase == Phase::Prefill, run.start < request.prompt_tokens);
            if run.role == Role::Verify {
                assert_eq!(run.accepted.len(), run.routes.len());
                assert!(run.accepted[0] && run.accepted.is_sorted_by(|a, b| a >= b), "leading trues");
            }
            at += run.advance();
            assert!(run.routes.iter().all(|&id| (id as usize) < trace.routes.len()));
        }
    }
}

/// Routes of the tokens of a request that its plain runs name, in order.
fn plain<'a>(trace: &'a Trace, request: &'a Request) -> impl Iterator<Item = &'a Route> {
    let runs = request.runs.iter().filter(|run| run.role == Role::Plain);
    runs.flat_map(|run| &run.routes).map(|&id| trace.routes.get(id))
}

fn mean_depth(trace: &Trace) -> f64 {
    let depths: Vec<f64> = trace.requests.iter().flat_map(|r| plain(trace, r)).map(Route::depth).collect();
    depths.iter().sum::<f64>() / depths.len() as f64
}

fn takes(route: &Route, layer: u32) -> bool {
    route.0.iter().any(|step| step.layer == layer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_method_obeys_the_format(
        which in 0..EXAMPLES.len(),
        lengths in prop::collection::vec((1u32..40, 1u32..40), 1..6),
        seed: u64,
    ) {
        let requests: Vec<_> = (0..).zip(lengths).map(|(id, (p, g))| request(id, p, g)).collect();
        let trace = make(EXAMPLES[which], 8, requests.clone(), seed);
        obeys_the_format(&trace);
        prop_assert_eq!(&trace, &make(EXAMPLES[which], 8, requests.clone(), seed));

        // A request less leaves the routes of the others as they were.
        let fewer = make(EXAMPLES[which], 8, requests[1..].to_vec(), seed);
        for (a, b) in trace.requests[1..].iter().zip(&fewer.requests) {
            let text = |trace: &Trace, request: &Request| -> Vec<String> {
                request.runs.iter().flat_map(|r| &r.routes).map(|&id| trace.routes.get(id).to_string()).collect()
            };
            prop_assert_eq!(text(&trace, a), text(&fewer, b));
        }
    }

    #[test]
    fn random_skips_obey_the_format(
        layers in 1u32..40, skip in 0.0..=1.0f64, correlation in 0.0..=1.0f64, separately: bool, seed: u64,
    ) {
        let branches = if separately { "Separately" } else { "Jointly" };
        for share in ["Step", "Position", "All", "Predecessor"] {
            let text = format!(
                "CorrelatedSkips(skip: {skip}, correlation: {correlation}, share: {share}, branches: {branches}, kv: none)"
            );
            obeys_the_format(&make(&text, layers, batch(3, 3, 5), seed));
        }
    }

    #[test]
    fn drafts_move_on_by_exactly_the_output(
        exit in 1u32..7, drafts in 1u32..9, acceptance in 0.0..=1.0f64, output in 1u32..50, seed: u64,
    ) {
        let text = format!("DraftVerify(exit_layer: {exit}, drafts: {drafts}, acceptance: {acceptance})");
        let trace = make(&text, 8, batch(2, 3, output), seed);
        obeys_the_format(&trace);
        for pair in trace.requests.iter().flat_map(|r| r.runs[1..].windows(2)) {
            if pair[0].role != Role::Draft {
                continue;
            }
            // A position that was verified has run every layer once, whichever pass ran it.
            let (draft, verify) = (&pair[0], &pair[1]);
            prop_assert_eq!(verify.role, Role::Verify);
            prop_assert_eq!(verify.routes.len(), draft.routes.len() + 1);
            for (index, &late) in verify.routes.iter().enumerate() {
                let early = draft.routes.get(index).map(|&id| trace.routes.get(id).0.clone());
                let all: Vec<_> = early.unwrap_or_default().into_iter().chain(trace.routes.get(late).0.clone()).collect();
                prop_assert_eq!(Route(all), Route::dense(8));
            }
        }
    }

    #[test]
    fn every_window_of_mixture_of_depths_has_its_count(
        layers in 1u32..10, capacity in 0.0..=1.0f64, window in 1u32..20, prompt in 1u32..50, output in 1u32..50, seed: u64,
    ) {
        let text = format!("MixtureOfDepths(capacity: {capacity}, routed: EveryOther, window: {window})");
        let trace = make(&text, layers, batch(2, prompt, output), seed);
        obeys_the_format(&trace);
        for request in &trace.requests {
            let routes: Vec<_> = plain(&trace, request).collect();
            for layer in 0..layers {
                for end in (window as usize..=routes.len()).step_by(window as usize) {
                    let taken = routes[..end].iter().filter(|route| takes(route, layer)).count();
                    let expected = if layer % 2 == 0 { end } else { (capacity * end as f64 + 1e-9) as usize };
                    prop_assert_eq!(taken, expected, "layer {} in the first {}", layer, end);
                }
            }
        }
    }

    #[test]
    fn stretching_keeps_relative_depth(source in 1u32..40, target in 1u32..80, depth in 0.0..=1.0f64, middle: bool) {
        let keep = if middle { "DropMiddle" } else { "DropLast" };
        let text = format!("StaticDepth(keep: {keep}(depth: {}))", (depth * f64::from(source)).floor());
        let trace = make(&text, source, batch(1, 2, 3), 1);
        let laid = stretch(&trace, target).unwrap();
        obeys_the_format(&laid);
        let relative = |trace: &Trace| mean_depth(trace) / f64::from(trace.header.layers);
        // One border with DropLast, two with DropMiddle; each moves by less than a layer of the smaller pool.
        let most = if middle { 2.0 } else { 1.0 } / f64::from(source.min(target));
        prop_assert!((relative(&trace) - relative(&laid)).abs() <= most);
        if target % source == 0 {
            prop_assert!((relative(&trace) - relative(&laid)).abs() < 1e-12);
        }
        // By the definition: the new layer does what the layer at its relative depth did.
        let (old, new) = (trace.routes.get(0), laid.routes.get(0));
        for layer in 0..target {
            let from = ((f64::from(layer) + 0.5) * f64::from(source) / f64::from(target)).floor();
            prop_assert_eq!(takes(new, layer), takes(old, from as u32));
        }
    }

    #[test]
    fn stretching_any_method_obeys_the_format(which in 0..EXAMPLES.len(), target in 1u32..40, seed: u64) {
        let trace = make(EXAMPLES[which], 8, batch(3, 5, 9), seed);
        let laid = stretch(&trace, target).unwrap();
        for route in laid.routes.iter() {
            route.check(&laid.header).unwrap();
        }
        prop_assert_eq!(stretch(&trace, 8).unwrap(), trace);
    }

    #[test]
    fn drawn_routes_keep_phase_and_order(
        recorded in prop::collection::vec((1u32..9, 2u32..9), 1..4),
        wanted in prop::collection::vec((1u32..40, 1u32..40), 1..5),
        seed: u64,
    ) {
        // Every token of the recorded trace has a route of its own, so that it can be recognised.
        let mut source = make("Dense", 4096, batch(1, 1, 1), 0);
        source.routes = RouteTable::default();
        let mut next: HashMap<u32, u32> = HashMap::new();
        let mut phase_of = HashMap::new();
        source.requests.clear();
        for (id, (p, g)) in (0..).zip(recorded) {
            let mut one = request(id, p, g);
            for (phase, start, count) in [(Phase::Prefill, 0, p), (Phase::Decode, p, g - 1)] {
                let routes: Vec<u32> = (0..count)
                    .map(|_| source.routes.intern(Route::of_layers([source.routes.len() as u32])))
                    .collect();
                for (index, &route) in routes.iter().enumerate() {
                    next.insert(route, routes[(index + 1) % routes.len()]);
                    phase_of.insert(route, (phase, id));
                }
                one.runs.push(Run { start, phase, role: Role::Plain, routes, accepted: vec![] });
            }
            source.requests.push(one);
        }
        let requests: Vec<_> = (100..).zip(wanted).map(|(id, (p, g))| request(id, p, g)).collect();
        let drawn = draw_routes(&source, requests.clone(), seed).unwrap();
        obeys_the_format(&drawn);
        prop_assert!(drawn.header.source.contains("routes drawn"));
        for one in &drawn.requests {
            let donor = phase_of[&one.runs[0].routes[0]].1;
            for run in &one.runs {
                prop_assert!(run.routes.iter().all(|route| phase_of[route] == (run.phase, donor)));
                prop_assert!(run.routes.windows(2).all(|pair| next[&pair[0]] == pair[1]));
            }
        }
        prop_assert_eq!(draw_routes(&source, requests, seed).unwrap(), drawn);
    }
}

#[test]
fn depth_hits_its_mean() {
    for text in EXAMPLES {
        let trace = make(text, 8, batch(40, 100, 101), 7);
        // Prompt tokens of dense_prefill are dense: half of all tokens, near enough.
        let dense = if text.contains("dense_prefill") { 0.5 } else { 0.0 };
        let Some(expected) = method(text).mean_depth(8).unwrap() else { continue };
        let (expected, found) = (dense * 8.0 + (1.0 - dense) * expected, mean_depth(&trace));
        assert!((found - expected).abs() < 0.08, "{text}: {found}, expected {expected}");
    }
    assert_eq!(method(EXAMPLES[2]).mean_depth(8).unwrap(), Some(5.5));
    assert_eq!(method("StaticDepth(keep: DropMiddle(depth: 5.8))").mean_depth(8).unwrap(), Some(6.0));
}

#[test]
fn seeds_differ_where_something_is_drawn() {
    let drawn = EXAMPLES.iter().filter(|text| {
        let (one, two) = (make(text, 8, batch(4, 20, 20), 1), make(text, 8, batch(4, 20, 20), 2));
        one.requests != two.requests || one.routes != two.routes
    });
    let fixed: Vec<_> =
        EXAMPLES.iter().filter(|text| text.starts_with("Static") || **text == "Dense").collect();
    assert_eq!(drawn.count(), EXAMPLES.len() - fixed.len());
}

#[test]
fn static_routes_are_as_documented() {
    let route = |text: &str| make(text, 6, batch(1, 1, 1), 0).routes.get(0).to_string();
    assert_eq!(route("Dense"), "0 1 2 3 4 5");
    assert_eq!(route("StaticDepth(keep: AllBut([4, 1]))"), "0 2 3 5");
    assert_eq!(route("StaticDepth(keep: DropLast(depth: 2.5))"), "0 1 2f");
    assert_eq!(route("StaticDepth(keep: DropMiddle(depth: 3))"), "0 1 5");
    assert_eq!(route("StaticDepth(keep: DropMiddle(depth: 2.3))"), "0 1f 5");
    assert_eq!(route("StaticDepth(keep: DropLast(depth: 6))"), "0 1 2 3 4 5");
    assert_eq!(route("StaticDepth(keep: DropMiddle(depth: 0))"), "");
    assert_eq!(route("StaticWidth(keep: 0.25)"), "0@0.25 1@0.25 2@0.25 3@0.25 4@0.25 5@0.25");
    assert_eq!(route("Recursion(prefix: 1, suffix: 3, times: Fixed(2), kv: Own)"), "0 1 2 1 2 3 4 5");
    assert_eq!(
        route("Recursion(prefix: 2, suffix: 2, times: Fixed(2), kv: Shared)"),
        "0 1 2 3 2!share 3!share 4 5"
    );
    assert_eq!(route("EarlyExit(exits: Fixed(2), kv: none)"), "0 1+r");
}

/// Fraction of layers that some token of a batch takes in the same decode step, over all steps.
fn union(trace: &Trace) -> f64 {
    let (mut taken, mut all) = (0, 0);
    let steps = trace.requests[0].runs[1].routes.len();
    for step in 0..steps {
        for layer in 0..trace.header.layers {
            let takes = |r: &Request| takes(trace.routes.get(r.runs[1].routes[step]), layer);
            taken += usize::from(trace.requests.iter().any(takes));
            all += 1;
        }
    }
    taken as f64 / all as f64
}

#[test]
fn the_union_of_independent_skips_is_one_minus_s_to_the_b() {
    for (skip, tokens) in [(0.25, 2), (0.5, 3), (0.875, 8), (0.875, 1)] {
        let text = format!("IndependentSkips(skip: {skip}, branches: Jointly, kv: none)");
        let found = union(&make(&text, 32, batch(tokens, 2, 601), 11));
        let expected = 1.0 - f64::powi(skip, tokens as i32);
        // 19200 draws: 4 standard errors.
        let error = 4.0 * (expected * (1.0 - expected) / 19200.0).sqrt();
        assert!((found - expected).abs() < error, "s {skip} B {tokens}: {found}, expected {expected}");
    }
}

#[test]
fn correlation_narrows_the_union_as_documented() {
    for (skip, correlation, tokens) in
        [(0.5, 0.25, 2), (0.5, 0.64, 4), (0.75, 0.5, 8), (0.5, 1.0, 8), (0.5, 0.0, 4)]
    {
        let text = format!(
            "CorrelatedSkips(skip: {skip}, correlation: {correlation}, share: Step, branches: Jointly, kv: none)"
        );
        // Prompts of different lengths: the step of the phase counts, not the position.
        let requests = (0..tokens).map(|id| request(id, 2 + id as u32, 1501)).collect();
        let trace = make(&text, 16, requests, 5);
        let (r, b) = (f64::sqrt(correlation), tokens as i32);
        let nobody = skip * (r + (1.0 - r) * skip).powi(b) + (1.0 - skip) * ((1.0 - r) * skip).powi(b);
        let found = union(&trace);
        assert!((found - (1.0 - nobody)).abs() < 0.012, "{text}: {found}, expected {}", 1.0 - nobody);
        assert!((mean_depth(&trace) / 16.0 - (1.0 - skip)).abs() < 0.012, "{text}: the mean moved");
    }
}

/// Correlation of skips at one layer between tokens `apart` in the same request.
fn autocorrelation(trace: &Trace, apart: usize) -> f64 {
    let (mut both, mut one, mut pairs) = (0.0, 0.0, 0.0);
    for request in &trace.requests {
        let routes: Vec<_> = plain(trace, request).collect();
        for pair in routes.windows(apart + 1) {
            for layer in 0..trace.header.layers {
                let (a, b) = (takes(pair[0], layer), takes(pair[apart], layer));
                both += f64::from(u8::from(a && b));
                one += f64::from(u8::from(a)) / 2.0 + f64::from(u8::from(b)) / 2.0;
                pairs += 1.0;
            }
        }
    }
    let p = one / pairs;
    (both / pairs - p * p) / (p * (1.0 - p))
}

#[test]
fn a_predecessor_is_followed_with_the_stated_correlation() {
    let text =
        "CorrelatedSkips(skip: 0.4, correlation: 0.6, share: Predecessor, branches: Jointly, kv: none)";
    let trace = make(text, 16, batch(4, 1000, 1001), 3);
    for (apart, expected) in [(1, 0.6), (2, 0.36), (3, 0.216)] {
        let found = autocorrelation(&trace, apart);
        assert!((found - expected).abs() < 0.025, "{apart} apart: {found}, expected {expected}");
    }
    let union = union(&trace);
    assert!((union - (1.0 - f64::powi(0.4, 4))).abs() < 0.015, "requests are not independent: {union}");
}

#[test]
fn full_rounds_accept_d_times_a() {
    for (drafts, acceptance) in [(6, 0.7945), (6, 0.3457), (12, 0.019), (1, 0.5), (4, 0.0), (4, 1.0)] {
        let text = format!("DraftVerify(exit_layer: 2, drafts: {drafts}, acceptance: {acceptance})");
        let trace = make(&text, 8, batch(20, 1, 8000), 9);
        let runs = trace.requests.iter().flat_map(|r| &r.runs);
        let full = runs.filter(|run| run.role == Role::Verify && run.routes.len() == drafts + 1);
        let accepted: Vec<f64> = full.map(|run| f64::from(run.advance() - 1)).collect();
        let (rounds, expected) = (accepted.len() as f64, drafts as f64 * acceptance);
        let mean = accepted.iter().sum::<f64>() / rounds;
        let variance = accepted.iter().map(|k| (k - mean).powi(2)).sum::<f64>() / rounds;
        let error = 4.0 * (variance / rounds).sqrt() + 1e-9;
        assert!((mean - expected).abs() < error, "{text}: {mean}, expected {expected} within {error}");
    }
}

#[test]
fn deferred_layers_are_filled_before_they_are_needed() {
    let trace = make(EXAMPLES[6], 8, batch(5, 4, 200), 21);
    assert!(trace.requests.iter().flat_map(|r| &r.runs).any(|run| run.role == Role::Recompute));
    for request in &trace.requests {
        // Layers below this depth are in the cache, by position.
        let mut filled: Vec<usize> = Vec::new();
        for run in &request.runs {
            for (position, &id) in (run.start as usize..).zip(&run.routes) {
                let steps = trace.routes.get(id).0.len();
                if run.role == Role::Recompute {
                    assert!(filled[position] < 8, "nothing was missing");
                    filled[position] += steps;
                    assert_eq!(filled[position], 8);
                } else {
                    assert!(
                        filled.iter().all(|&depth| depth >= steps),
                        "a hole in front of position {position}"
                    );
                    filled.push(steps);
                }
            }
        }
    }
}

#[test]
fn radial_walks_stay_in_their_band_and_follow_their_matrix() {
    let trace = make(EXAMPLES[12], 8, batch(5, 50, 50), 2);
    for route in trace.routes.iter() {
        assert_eq!(route.0[0].layer, 0);
        let step = |pair: &[Step]| i64::from(pair[1].layer) - i64::from(pair[0].layer);
        assert!(route.0.windows(2).all(|pair| (-2..=3).contains(&step(pair))));
    }
    assert!(trace.routes.iter().any(|route| route.0.len() == 8), "max_hops cuts 9 hops to 8");

    // A cycle, walked from layer 1; layer 3 of the second has no successor.
    let cycle =
        "Radial(transitions: Matrix([[0, 1, 0], [0, 0, 2], [0.5, 0, 0]]), start: Layer(1), hops: Fixed(5))";
    assert_eq!(make(cycle, 3, batch(1, 1, 1), 0).routes.get(0).to_string(), "1 2 0 1 2");
    let ends = "Radial(transitions: Matrix([[0, 1], [0, 0]]), start: Weights([3, 0]), hops: Fixed(5))";
    assert_eq!(make(ends, 2, batch(1, 1, 1), 0).routes.get(0).to_string(), "0 1");
    let once = make(EXAMPLES[13], 8, batch(1, 50, 1), 0);
    assert!(
        once.routes.iter().all(|route| route.0.len() == 8),
        "20 hops without reuse visit each layer once"
    );
}

#[test]
fn a_radial_method_can_be_taken_from_a_trace() {
    let source = make(
        "Radial(transitions: Banded(back: 0, ahead: 2), start: Layer(0), hops: Each([(3, 0.5), (6, 0.5)]))",
        32,
        batch(10, 100, 101),
        4,
    );
    let like = Method::radial_like(&source, RouterSpec::default()).unwrap();
    let copy = generate(&like, 32, batch(10, 100, 101), 5).unwrap();
    obeys_the_format(&copy);
    assert!((mean_depth(&copy) - mean_depth(&source)).abs() < 0.1);
    assert_eq!(copy.header.order, Order::Any);
    let step = |pair: &[Step]| pair[1].layer as i64 - pair[0].layer as i64;
    assert!(copy.routes.iter().all(|r| r.0.windows(2).all(|pair| (0..=2).contains(&step(pair)))));

    let empty = Trace { requests: vec![], ..source };
    assert!(Method::radial_like(&empty, RouterSpec::default()).is_err());
}

#[test]
fn parameters_out_of_range_are_named() {
    let cases = [
        ("IndependentSkips(skip: 1.5, branches: Jointly, kv: none)", "skip", "1.5"),
        ("IndependentSkips(skip: NaN, branches: Jointly, kv: none)", "skip", "NaN"),
        ("IndependentSkips(skip: 0.5, branches: Jointly, keep: [8], kv: none)", "keep[0]", "8"),
        ("IndependentSkips(skip: 0.5, branches: Jointly, keep: [1, 1], kv: none)", "keep[1]", "1"),
        ("IndependentSkips(skip: 0.5, branches: Jointly, kv: deferred)", "kv", "deferred"),
        (
            "IndependentSkips(skip: 0.5, branches: Jointly, kv: none, router: (hidden: 0))",
            "router.hidden",
            "0",
        ),
        (
            "CorrelatedSkips(skip: 0.5, correlation: -0.1, share: All, branches: Jointly, kv: none)",
            "correlation",
            "-0.1",
        ),
        ("StaticDepth(keep: DropLast(depth: 8.5))", "keep.depth", "8.5"),
        ("StaticDepth(keep: DropMiddle(depth: NaN))", "keep.depth", "NaN"),
        ("StaticDepth(keep: AllBut([9]))", "keep[0]", "9"),
        ("StaticWidth(keep: 0)", "keep", "0"),
        ("StaticWidth(keep: NaN)", "keep", "NaN"),
        ("EarlyExit(exits: Each([]), kv: none)", "exits", "[]"),
        ("EarlyExit(exits: Each([(0, 1.0)]), kv: none)", "exits[0].0", "0"),
        ("EarlyExit(exits: Each([(1, 0.5), (9, 0.5)]), kv: none)", "exits[1].0", "9"),
        ("EarlyExit(exits: Each([(1, 0.5), (2, 0.25)]), kv: none)", "exits", "0.75"),
        ("EarlyExit(exits: Each([(1, NaN)]), kv: none)", "exits[0].1", "NaN"),
        ("EarlyExit(exits: Fixed(4), kv: unified)", "kv", "unified"),
        ("EarlyExit(exits: Fixed(4), kv: deferred)", "dense_prefill", "false"),
        ("MixtureOfDepths(capacity: 2, routed: All, window: 8)", "capacity", "2"),
        ("MixtureOfDepths(capacity: 0.5, routed: All, window: 0)", "window", "0"),
        ("MixtureOfDepths(capacity: 0.5, routed: Layers([8]), window: 8)", "routed[0]", "8"),
        ("Recursion(prefix: 4, suffix: 4, times: Fixed(1), kv: Own)", "prefix + suffix", "8"),
        (
            "Recursion(prefix: 4294967295, suffix: 4294967295, times: Fixed(1), kv: Own)",
            "prefix + suffix",
            "8589934590",
        ),
        ("Recursion(prefix: 1, suffix: 1, times: Fixed(0), kv: Own)", "times", "0"),
        ("Radial(transitions: Matrix([[1]]), start: Uniform, hops: Fixed(1))", "transitions", "1"),
        ("Radial(transitions: Uniform, start: Layer(8), hops: Fixed(1))", "start[0]", "8"),
        (
            "Radial(transitions: Uniform, start: Weights([0, 0, 0, 0, 0, 0, 0, 0]), hops: Fixed(1))",
            "start",
            "zeros",
        ),
        (
            "Radial(transitions: Uniform, start: Weights([0, 0, 0, 0, 0, 0, inf, 0]), hops: Fixed(1))",
            "start[6]",
            "inf",
        ),
        ("Radial(transitions: Uniform, start: Uniform, hops: Fixed(70000))", "hops", "70000"),
        ("Radial(transitions: Uniform, start: Uniform, hops: Fixed(1), kv: deferred)", "kv", "deferred"),
        ("DraftVerify(exit_layer: 8, drafts: 6, acceptance: 0.5)", "exit_layer", "8"),
        ("DraftVerify(exit_layer: 0, drafts: 6, acceptance: 0.5)", "exit_layer", "0"),
        ("DraftVerify(exit_layer: 2, drafts: 0, acceptance: 0.5)", "drafts", "0"),
        ("DraftVerify(exit_layer: 2, drafts: 6, acceptance: NaN)", "acceptance", "NaN"),
    ];
    for (text, key, found) in cases {
        let error = refused(text, 8);
        assert_eq!(
            (error.key.as_deref(), error.found.as_deref()),
            (Some(key), Some(found)),
            "{text}: {error}"
        );
        assert!(!error.expected.is_empty());
    }
    assert_eq!(refused("Dense", 0).key.as_deref(), Some("layers"));
    assert_eq!(refused("Dense", MOST_LAYERS + 1).key.as_deref(), Some("layers"));
    // A pool of one layer has no early exit to draft with.
    assert_eq!(
        refused("DraftVerify(exit_layer: 1, drafts: 6, acceptance: 0.5)", 1).key.as_deref(),
        Some("exit_layer")
    );
    let empty = generate(&Method::Dense, 4, batch(1, 0, 1), 0).unwrap_err();
    assert!(empty.to_string().contains("requests[0].prompt_tokens: found 0"), "{empty}");
}

#[test]
fn unknown_keys_are_refused_and_methods_survive_a_round_trip() {
    let reader = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    for text in EXAMPLES {
        let written = reader.to_string(&method(text)).unwrap();
        assert_eq!(method(&written), method(text), "{written}");
    }
    assert!(reader.from_str::<Method>("StaticWidth(keep: 0.5, kept: 1)").is_err());
    assert!(reader.from_str::<Method>("IndependentSkips(skip: 0.5, branches: Jointly, kv: holes)").is_err());
}

#[test]
fn requests_have_the_lengths_and_arrivals_asked_for() {
    let prompt = Length::LogNormal { median: 500.0, sigma: 1.0, most: 4000 };
    let lengths = Lengths { prompt, output: Length::Uniform { low: 3, high: 7 } };
    let made = requests(20_000, &lengths, &Arrivals::Poisson { rate_per_s: 4.0 }, 1).unwrap();
    let mut prompts: Vec<u32> = made.iter().map(|r| r.prompt_tokens).collect();
    prompts.sort_unstable();
    assert!((480..520).contains(&prompts[10_000]), "median {}", prompts[10_000]);
    // One sigma above the median: the 84.13th percentile.
    assert!((1290..1430).contains(&prompts[16_827]), "84 % quantile {}", prompts[16_827]);
    assert!(prompts[0] >= 1 && *prompts.last().unwrap() == 4000);
    let outputs: Vec<u32> = made.iter().map(|r| r.output_tokens).collect();
    for length in 3..=7 {
        let share = outputs.iter().filter(|&&n| n == length).count() as f64 / 20_000.0;
        assert!((share - 0.2).abs() < 0.012, "{length}: {share}");
    }
    assert!(outputs.iter().all(|n| (3..=7).contains(n)));
    assert!(made.is_sorted_by_key(|r| r.arrival));
    assert!((made.last().unwrap().arrival.s() - 5000.0).abs() < 150.0);
    assert_eq!(made, requests(20_000, &lengths, &Arrivals::Poisson { rate_per_s: 4.0 }, 1).unwrap());
    assert_ne!(made, requests(20_000, &lengths, &Arrivals::Poisson { rate_per_s: 4.0 }, 2).unwrap());

    // Other arrivals leave the lengths as they were.
    let closed = requests(20_000, &lengths, &Arrivals::Closed, 1).unwrap();
    assert!(closed.iter().all(|r| r.arrival == SimTime::ZERO));
    assert!(closed.iter().zip(&made).all(|(a, b)| a.prompt_tokens == b.prompt_tokens));
    let every = requests(3, &lengths, &Arrivals::Every { gap_s: 0.5 }, 1).unwrap();
    assert_eq!(every.iter().map(|r| r.arrival.s()).collect::<Vec<_>>(), [0.0, 0.5, 1.0]);

    let fixed = |n| Lengths { prompt: Length::Fixed(n), output: Length::Fixed(1) };
    let far = Arrivals::Every { gap_s: 1e7 };
    for (lengths, arrivals, key) in [
        (fixed(0), Arrivals::Closed, "lengths.prompt"),
        (
            Lengths { prompt: Length::Uniform { low: 5, high: 4 }, ..fixed(1) },
            Arrivals::Closed,
            "lengths.prompt",
        ),
        (fixed(1), Arrivals::Poisson { rate_per_s: 0.0 }, "arrivals.rate_per_s"),
        (fixed(1), Arrivals::Poisson { rate_per_s: f64::NAN }, "arrivals.rate_per_s"),
        (fixed(1), Arrivals::Every { gap_s: f64::INFINITY }, "arrivals.gap_s"),
        (fixed(1), Arrivals::Poisson { rate_per_s: 1e-300 }, "arrivals"),
        (fixed(1), far, "arrivals"),
    ] {
        let Err(Error::Input(error)) = requests(3, &lengths, &arrivals, 1) else { panic!("{arrivals:?}") };
        assert_eq!(error.key.as_deref(), Some(key));
    }
}

#[test]
fn stretching_is_as_documented() {
    let laid = |text: &str, from: u32, to: u32| {
        let mut trace =
            make("Radial(transitions: Uniform, start: Uniform, hops: Fixed(1))", from, batch(1, 1, 1), 0);
        trace.routes = RouteTable::default();
        trace.routes.intern(Route::parse(text).unwrap());
        trace.requests[0].runs[0].routes = vec![0];
        stretch(&trace, to).unwrap().routes.get(0).to_string()
    };
    assert_eq!(laid("0 1 2 1 2 3", 4, 8), "0 1 2 3 4 5 2 3 4 5 6 7");
    assert_eq!(laid("4 1 7", 8, 16), "8 9 2 3 14 15");
    assert_eq!(laid("0a 1f@0.5!none+r", 2, 4), "0a 1a 2f@0.5!none+r 3f@0.5!none+r");
    assert_eq!(laid("0 1 2", 4, 2), "0");
    assert_eq!(laid("7 7 2", 8, 4), "3 3");
    for (from, to) in [(1, 7), (5, 12), (12, 5), (30, 126)] {
        let dense = make("Dense", from, batch(2, 3, 4), 0);
        assert_eq!(stretch(&dense, to).unwrap().routes.get(0), &Route::dense(to));
    }
    let mut monotone = make("Dense", 2, batch(1, 1, 1), 0);
    (monotone.header.reuse, monotone.routes) = (true, RouteTable::default());
    monotone.routes.intern(Route::parse("0 1 1").unwrap());
    assert_eq!(stretch(&monotone, 4).unwrap().routes.get(0).to_string(), "0 1 2 2 3 3");
    assert!(stretch(&monotone, 0).is_err());
    assert!(stretch(&monotone, 4).unwrap().header.source.contains("from 2 over 4 layers"));
}

#[test]
fn routes_that_cannot_be_drawn_are_refused() {
    let drafts = make("DraftVerify(exit_layer: 3, drafts: 6, acceptance: 0.5)", 8, batch(1, 4, 20), 1);
    assert!(draw_routes(&drafts, batch(1, 2, 2), 1).is_err());
    let no_decode = make("Dense", 8, batch(1, 4, 1), 1);
    assert!(draw_routes(&no_decode, batch(1, 9, 2), 1).is_err());
    obeys_the_format(&draw_routes(&no_decode, batch(1, 9, 1), 1).unwrap());
    assert!(draw_routes(&no_decode, batch(1, 0, 1), 1).is_err());
}
