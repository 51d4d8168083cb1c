//! Layers of a pool over several devices.

use proptest::prelude::*;
use radialsim::rng::Stream;
use radialsim::trace::synth::generate;
use radialsim::trace::{Header, Hops, Order, Placement, Request, Route, RouteIds, RouteTable, Run, Trace};
use radialsim::trace::{Phase, Role};
use radialsim::units::SimTime;
use radialsim::workload::{Arrivals, Length, Lengths, requests};

/// A trace with one request for each list of routes, each route a token.
pub fn trace(layers: u32, of: &[Vec<Vec<u32>>]) -> Trace {
    let mut routes = RouteTable::default();
    let request = |(id, tokens): (usize, &Vec<Vec<u32>>)| {
        let ids: Vec<u32> =
            tokens.iter().map(|route| routes.intern(Route::of_layers(route.iter().copied()))).collect();
        let run = Run {
            start: 0,
            phase: Phase::Prefill,
            role: Role::Plain,
            routes: RouteIds::listed(ids),
            accepted: Vec::new(),
        };
        let mut request = requests(
            1,
            &Lengths { prompt: Length::Fixed(tokens.len() as u32), output: Length::Fixed(1) },
            &Arrivals::Closed,
            0,
        )
        .expect("a request")
        .remove(0);
        (request.id, request.arrival, request.runs) = (id as u64, SimTime::ZERO, vec![run]);
        request
    };
    let requests: Vec<Request> = of.iter().enumerate().map(request).collect();
    let header = Header { order: Order::Any, reuse: true, ..Header::dense("pool", layers) };
    Trace { header, routes, requests }
}

/// Crossings counted token by token.
fn naive(of: &[Vec<Vec<u32>>], placement: &Placement) -> f64 {
    let tokens: Vec<&Vec<u32>> = of.iter().flatten().collect();
    let devices = placement.devices();
    let crosses = |pair: &[u32]| devices[pair[0] as usize] != devices[pair[1] as usize];
    let all: usize = tokens.iter().map(|route| route.windows(2).filter(|pair| crosses(pair)).count()).sum();
    all as f64 / tokens.len() as f64
}

/// The fewest crossings of all placements with at most `most` layers a device.
fn fewest(of: &[Vec<Vec<u32>>], layers: u32, devices: u32, most: usize) -> f64 {
    let hops = |placed: &[u32]| {
        let tokens: Vec<&Vec<u32>> = of.iter().flatten().collect();
        let crosses = |pair: &[u32]| placed[pair[0] as usize] != placed[pair[1] as usize];
        let all: usize =
            tokens.iter().map(|route| route.windows(2).filter(|pair| crosses(pair)).count()).sum();
        all as f64 / tokens.len() as f64
    };
    let mut best = f64::INFINITY;
    for number in 0..devices.pow(layers) {
        let placed: Vec<u32> = (0..layers).map(|layer| number / devices.pow(layer) % devices).collect();
        let fits = (0..devices).all(|device| placed.iter().filter(|&&of| of == device).count() <= most);
        if fits {
            best = best.min(hops(&placed));
        }
    }
    best
}

fn routes(layers: u32) -> impl Strategy<Value = Vec<Vec<Vec<u32>>>> {
    prop::collection::vec(prop::collection::vec(prop::collection::vec(0..layers, 1..9), 1..5), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Counts are those of every token on its own, and a cut of a small pool is as good as any placement.
    #[test]
    fn a_cut_of_a_small_pool_is_the_best(of in routes(6), devices in 2..4u32, slack in 0..2u32, seed in any::<u64>()) {
        let (layers, most) = (6, 6_u32.div_ceil(devices) + slack);
        let trace = trace(layers, &of);
        let hops = Hops::of(&trace, 0..trace.requests.len());
        let cut = Placement::cut(&hops, devices, most, seed).expect("it fits");
        for placement in [&Placement::contiguous(layers, devices).unwrap(), &Placement::round_robin(layers, devices).unwrap(), &cut] {
            let fares = hops.fares(placement);
            prop_assert!((fares.crossings - naive(&of, placement)).abs() < 1e-9);
            prop_assert!((fares.load.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
        prop_assert!(cut.layers().iter().all(|layers| layers.len() as u32 <= most));
        prop_assert!((naive(&of, &cut) - fewest(&of, layers, devices, most as usize)).abs() < 1e-9);
        prop_assert_eq!(Placement::cut(&hops, devices, most, seed).expect("it fits"), cut);
    }
}

/// Routes of ten tokens for each of so many requests that keep to hidden clusters of layers.
pub fn hidden((layers, clusters): (u32, u32), requests: u32) -> Vec<Vec<Vec<u32>>> {
    let mut order: Vec<u32> = (0..layers).collect();
    let mut stream = Stream::new(5, "clusters");
    stream.shuffle(&mut order);
    (0..requests)
        .map(|_| {
            let token = |_| {
                let mut cluster = stream.below(clusters.into()) as u32;
                let mut hop = |_| {
                    if stream.chance(0.05) {
                        cluster = stream.below(clusters.into()) as u32;
                    }
                    order[(cluster * layers / clusters) as usize
                        + stream.below((layers / clusters).into()) as usize]
                };
                (0..24).map(&mut hop).collect()
            };
            (0..10).map(token).collect()
        })
        .collect()
}

/// Tokens that keep to hidden clusters of layers: a cut finds these, whatever their numbers, and holds on requests that it has not seen.
#[test]
fn hidden_clusters_are_found() {
    let (layers, clusters) = (64u32, 4u32);
    let of = hidden((layers, clusters), 40);
    let trace = trace(layers, &of);
    let (known, rest) = (Hops::of(&trace, 0..20), Hops::of(&trace, 20..40));
    let cut = Placement::cut(&known, clusters, layers / clusters, 1).expect("it fits");
    let crossings = |placement: &Placement| rest.fares(placement).crossings;
    let found = crossings(&cut);
    let hidden = naive(&of[20..], &cut);
    assert!((found - hidden).abs() < 1e-9);
    assert!(found < 1.2, "{found}: 23 hops leave the cluster once in 27");
    assert!(crossings(&Placement::contiguous(layers, clusters).unwrap()) > 10.0);
}

/// Without skips, contiguous layers are crossed once less than there are devices, and round robin at every hop.
#[test]
fn dense_tokens_cross_as_often_as_there_are_borders() {
    let lengths = Lengths { prompt: Length::Fixed(5), output: Length::Fixed(3) };
    let drawn = requests(3, &lengths, &Arrivals::Closed, 0).expect("valid");
    let dense = generate(&crate::lab::method("Dense"), 30, drawn, 0).expect("valid");
    let hops = Hops::of(&dense, 0..3);
    assert_eq!(hops.fares(&Placement::contiguous(30, 4).unwrap()).crossings, 3.0);
    assert_eq!(hops.fares(&Placement::round_robin(30, 4).unwrap()).crossings, 29.0);
    assert_eq!(hops.fares(&Placement::cut(&hops, 4, 8, 0).unwrap()).crossings, 3.0);
    assert!(Placement::contiguous(30, 31).is_err() && Placement::contiguous(30, 0).is_err());
    let error = Placement::cut(&hops, 4, 7, 0).expect_err("28 places").to_string();
    assert!(error.contains("at least 8 layers a device"), "{error}");
}

/// The command on a shipped trace.
#[test]
fn the_command_prints_placements_and_writes_them() {
    let folder = crate::cli::folder();
    let path = folder.path().join("placed.json");
    let json = path.to_str().expect("a path");
    let trace = "examples/traces/smollm2-skip25.jsonl";
    let run = |more: &[&str]| {
        let out = crate::cli::radialsim(&[&["trace", "place", trace, "--json", json], more].concat());
        (out.status.code(), crate::cli::text(&out.stdout), crate::cli::text(&out.stderr))
    };
    let (code, table, error) = run(&["--devices", "4"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(table.contains("round robin") && table.contains("device 3: 23-29"), "{table}");
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    assert_eq!(written["cut"]["devices"].as_array().map(Vec::len), Some(30));
    for (more, say) in [
        (&["--devices", "0"][..], "1 to 30 devices"),
        (&["--devices", "4", "--balance", "0.5"], "--balance"),
        (&["--devices", "4", "--learn", "0"], "--learn"),
    ] {
        let (code, _, error) = run(more);
        assert_eq!((code, error.contains(say)), (Some(2), true), "{error}");
    }
}
