//! Generated routes: do they obey the format, hit the mean they were asked for, and correlate as documented?

use proptest::prelude::*;
use radialsim::error::{Error, InputError};
use radialsim::trace::synth::*;
use radialsim::trace::*;
use radialsim::units::SimTime;

pub fn request(id: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
    let (arrival, prefix, runs) = (SimTime::ZERO, Vec::new(), Vec::new());
    Request { id, arrival, prompt_tokens, output_tokens, priority: 0, prefix, runs }
}

pub fn batch(count: u64, prompt: u32, output: u32) -> Vec<Request> {
    (0..count).map(|id| request(id, prompt, output)).collect()
}

fn method(text: &str) -> Method {
    let reader = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    reader.from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn make(text: &str, layers: u32, requests: Vec<Request>, seed: u64) -> Trace {
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
pub const EXAMPLES: [&str; 15] = [
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
pub fn obeys_the_format(trace: &Trace) {
    for route in trace.routes.iter() {
        route.check(&trace.header).unwrap();
        assert_eq!(&Route::parse(&route.to_string()).unwrap(), route);
    }
    for request in &trace.requests {
        assert_eq!(request.advanced(), u64::from(request.prompt_tokens + request.output_tokens - 1));
        let mut at = 0;
        for run in &request.runs {
            assert!(!run.routes.is_empty(), "an empty run");
            let end = run.start + run.routes.len();
            match run.role {
                Role::Recompute => assert!(end <= at),
                Role::Plain | Role::Draft | Role::Verify => assert_eq!(run.start, at),
            }
            assert_eq!(run.phase == Phase::Prefill, run.start < request.prompt_tokens);
            if run.role == Role::Verify {
                assert_eq!(run.accepted.len(), run.routes.len() as usize);
                assert!(run.accepted[0] && run.accepted.is_sorted_by(|a, b| a >= b), "leading trues");
            }
            at += run.advance();
            assert!(run.routes.iter().all(|id| (id as usize) < trace.routes.len()));
        }
    }
}

/// Routes of the tokens of a request that its plain runs name, in order.
fn plain<'a>(trace: &'a Trace, request: &'a Request) -> impl Iterator<Item = &'a Route> {
    let runs = request.runs.iter().filter(|run| run.role == Role::Plain);
    runs.flat_map(|run| &run.routes).map(|id| trace.routes.get(id))
}

pub fn mean_depth(trace: &Trace) -> f64 {
    let depths: Vec<f64> = trace.requests.iter().flat_map(|r| plain(trace, r)).map(Route::depth).collect();
    depths.iter().sum::<f64>() / depths.len() as f64
}

pub fn takes(route: &Route, layer: u32) -> bool {
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
                request.runs.iter().flat_map(|r| &r.routes).map(|id| trace.routes.get(id).to_string()).collect()
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
            for (index, late) in verify.routes.iter().enumerate() {
                let early = draft.routes.iter().nth(index).map(|id| trace.routes.get(id).0.clone());
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
            let takes = |r: &Request| takes(trace.routes.get(r.runs[1].routes.get(step)), layer);
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
fn branches_skip_together_or_each_on_its_own() {
    for (branches, expected) in [("Jointly", [0.75, 0.0, 0.0]), ("Separately", [0.5625, 0.1875, 0.1875])] {
        let text = format!("IndependentSkips(skip: 0.25, branches: {branches}, keep: [3], kv: none)");
        let trace = make(&text, 8, batch(4, 500, 501), 6);
        let mut counts = [0.0f64; 3];
        for step in trace.requests.iter().flat_map(|r| plain(&trace, r)).flat_map(|route| &route.0) {
            match step.modules {
                _ if step.layer == 3 => assert_eq!(step.modules, Modules::Block),
                Modules::Block => counts[0] += 1.0,
                Modules::Attention => counts[1] += 1.0,
                Modules::FeedForward => counts[2] += 1.0,
                Modules::Adapter => panic!("no adapter was asked for"),
            }
        }
        // 4000 tokens at 7 layers: 4 standard errors are at most 0.012.
        for (count, expected) in counts.into_iter().zip(expected) {
            let share: f64 = count / 28_000.0;
            assert!((share - expected).abs() < 0.012, "{branches}: {counts:?}");
        }
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
        // Over seeds, the union of 6,000 steps scatters by .0027: within 4.4 standard deviations.
        let requests = (0..tokens).map(|id| request(id, 2 + id as u32, 6001)).collect();
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
    // Exits next to each other, so that one layer more is enough to ask for a fill.
    let text = "EarlyExit(exits: Each([(6, 0.3), (7, 0.3), (8, 0.4)]), kv: deferred, dense_prefill: true)";
    let trace = make(text, 8, batch(5, 4, 200), 21);
    assert!(trace.requests.iter().flat_map(|r| &r.runs).any(|run| run.role == Role::Recompute));
    for request in &trace.requests {
        // Layers below this depth are in the cache, by position.
        let mut filled: Vec<usize> = Vec::new();
        for run in &request.runs {
            for (position, id) in (run.start as usize..).zip(&run.routes) {
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
    let like = Method::radial_like(&source, MethodRouter::default()).unwrap();
    let copy = generate(&like, 32, batch(10, 100, 101), 5).unwrap();
    obeys_the_format(&copy);
    assert!((mean_depth(&copy) - mean_depth(&source)).abs() < 0.1);
    assert_eq!(copy.header.order, Order::Any);
    let step = |pair: &[Step]| pair[1].layer as i64 - pair[0].layer as i64;
    assert!(copy.routes.iter().all(|r| r.0.windows(2).all(|pair| (0..=2).contains(&step(pair)))));

    let empty = Trace { requests: vec![], ..source };
    assert!(Method::radial_like(&empty, MethodRouter::default()).is_err());
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
fn headers_say_what_the_method_is() {
    let header = |which: usize| make(EXAMPLES[which], 8, batch(1, 2, 2), 3).header;
    let cases = [
        (0, Order::Monotone, false, Granularity::Batch, KvAction::Write, RouterKind::None, None),
        (1, Order::Monotone, false, Granularity::Batch, KvAction::Write, RouterKind::Fixed, None),
        (5, Order::Monotone, false, Granularity::Token, KvAction::CopyState, RouterKind::Threshold, None),
        (
            7,
            Order::Monotone,
            false,
            Granularity::Token,
            KvAction::None,
            RouterKind::ExpertChoice,
            Some(RouterWhen::PerLayer),
        ),
        (
            8,
            Order::Monotone,
            false,
            Granularity::Token,
            KvAction::ProjectOnly,
            RouterKind::Mlp,
            Some(RouterWhen::PerLayer),
        ),
        (
            9,
            Order::Monotone,
            false,
            Granularity::Token,
            KvAction::None,
            RouterKind::OracleThreshold,
            Some(RouterWhen::PerLayer),
        ),
        (
            11,
            Order::Any,
            true,
            Granularity::Token,
            KvAction::Write,
            RouterKind::OracleThreshold,
            Some(RouterWhen::Upfront),
        ),
        (
            12,
            Order::Any,
            true,
            Granularity::Token,
            KvAction::Unified,
            RouterKind::Mlp,
            Some(RouterWhen::PerHop),
        ),
        (
            13,
            Order::Any,
            false,
            Granularity::Token,
            KvAction::Unified,
            RouterKind::OracleThreshold,
            Some(RouterWhen::PerHop),
        ),
        (14, Order::Monotone, false, Granularity::Batch, KvAction::Write, RouterKind::Fixed, None),
    ];
    for (which, order, reuse, granularity, kv, kind, when) in cases {
        let header = header(which);
        let found = (
            header.order,
            header.reuse,
            header.granularity,
            header.kv,
            header.router.kind,
            header.router.when,
        );
        assert_eq!(found, (order, reuse, granularity, kv, kind, when), "{}", EXAMPLES[which]);
        assert_eq!(header.layers, 8);
        assert!(header.source.contains("seed 3"), "{}", header.source);
    }
    assert_eq!(header(7).router.extra["routed_layers"], serde_json::json!([1, 3, 5, 7]));
    assert_eq!((header(12).max_hops, header(12).router.hidden), (Some(8), Some(128)));
    assert_eq!((header(10).router.device, header(8).router.device), (RouterDevice::Host, RouterDevice::Gpu));
}

#[test]
fn requests_come_out_by_arrival() {
    let mut requests = batch(4, 2, 2);
    requests[0].arrival = SimTime::from_s(2.0);
    requests[3].arrival = SimTime::from_s(1.0);
    let dense = make("Dense", 4, requests.clone(), 0);
    let drawn = draw_routes(&dense, requests, 0).unwrap();
    for trace in [dense, drawn] {
        assert_eq!(trace.requests.iter().map(|r| r.id).collect::<Vec<_>>(), [1, 2, 3, 0]);
    }
}
