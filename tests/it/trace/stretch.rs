//! Recorded routes over other pools and other lengths: is relative depth kept, are phases and neighbours kept?

use crate::trace::synth::{EXAMPLES, batch, make, mean_depth, obeys_the_format, request, takes};
use proptest::prelude::*;
use radialsim::trace::*;
use std::collections::HashMap;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

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
                let routes = routes.into();
                one.runs.push(Run { start, phase, role: Role::Plain, routes, accepted: vec![] });
            }
            source.requests.push(one);
        }
        let requests: Vec<_> = (100..).zip(wanted).map(|(id, (p, g))| request(id, p, g)).collect();
        let drawn = draw_routes(&source, requests.clone(), seed).unwrap();
        obeys_the_format(&drawn);
        prop_assert!(drawn.header.source.contains("routes drawn"));
        for one in &drawn.requests {
            let donor = phase_of[&one.runs[0].routes.get(0)].1;
            for run in &one.runs {
                prop_assert!(run.routes.iter().all(|route| phase_of[&route] == (run.phase, donor)));
                let mut pairs = run.routes.iter().zip(run.routes.iter().skip(1));
                prop_assert!(pairs.all(|(one, after)| next[&one] == after));
            }
        }
        prop_assert_eq!(draw_routes(&source, requests, seed).unwrap(), drawn);
    }
}

#[test]
fn stretching_is_as_documented() {
    let laid = |text: &str, from: u32, to: u32| {
        let mut trace =
            make("Radial(transitions: Uniform, start: Uniform, hops: Fixed(1))", from, batch(1, 1, 1), 0);
        trace.routes = RouteTable::default();
        trace.routes.intern(Route::parse(text).unwrap());
        trace.requests[0].runs[0].routes = RouteIds::same(0, 1);
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
    let radial = make(EXAMPLES[12], 8, batch(1, 1, 1), 0);
    assert_eq!(stretch(&radial, 20).unwrap().header.max_hops, Some(24));
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
