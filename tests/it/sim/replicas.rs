//! Several engines behind a router: what each does is what it would do alone, what they add up to is conserved, and each router chooses as it says.

use crate::lab::{Lab, method};
use crate::sim::queueing::{Service, expected};
use crate::sim::queueing_whole::{System, exponential, interval};
use crate::sim::serving::{METHODS, spaced};
use proptest::prelude::*;
use radialsim::metrics::{Ledger, Summary};
use radialsim::report::json;
use radialsim::report::series::Series;
use radialsim::report::timeline::{self, Timeline};
use radialsim::scenario::{self, Scenario};
use radialsim::sched::PrefixCaching;
use radialsim::sim::fleet::{self, Fleet, RequestRouter};
use radialsim::sim::{Fidelity, Setup, Silent, run};
use radialsim::trace::Trace;
use radialsim::units::SimTime;
use radialsim::workload::{Clients, Sessions};
use std::collections::BTreeMap;
use std::path::Path;

const ROUTERS: [RequestRouter; 7] = [
    RequestRouter::RoundRobin,
    RequestRouter::Random,
    RequestRouter::LeastOutstanding,
    RequestRouter::Vllm,
    RequestRouter::LeastKv,
    RequestRouter::Prefix,
    RequestRouter::Queue,
];

fn each(setup: &Setup, trace: &Trace, replicas: u32, router: RequestRouter) -> Vec<Ledger> {
    let fleet = Fleet { replicas, router, seed: 5, apart: None, rounds: false };
    let mut silent = vec![Silent; replicas as usize];
    let device = setup.device().expect("valid");
    fleet::run(&device, setup, (trace, None), &fleet, &mut silent, false).expect("it fits")
}

fn summary(setup: &Setup, ledger: &Ledger) -> Summary {
    Summary::new(ledger, &setup.device().expect("valid"), &setup.model)
}

/// Requests of different lengths, some microseconds apart.
fn load(lab: &Lab, which: usize, count: u32, gap_us: f64, seed: u64) -> Trace {
    let lengths = radialsim::workload::Lengths {
        prompt: radialsim::workload::Length::Uniform { low: 1, high: 60 },
        output: radialsim::workload::Length::Uniform { low: 1, high: 12 },
    };
    let arrivals = radialsim::workload::Arrivals::Closed;
    let requests = radialsim::workload::requests(count, &lengths, &arrivals, seed).expect("valid");
    let layers = lab.setup.model.layers;
    let trace = radialsim::trace::synth::generate(&method(METHODS[which]), layers, requests, seed);
    spaced(trace.expect("valid"), gap_us)
}

/// A small engine that runs few sequences at once.
fn lab(which: usize) -> Lab {
    let mut lab = Lab::new("llama-2-7b", "nvidia-h100-sxm", 3);
    lab.setup.fidelity = Fidelity::Step;
    lab.setup.serving.kv_block_tokens = 16;
    if which == 5 {
        lab.setup.dispatch.policy = radialsim::batch::Policy::Hop;
        lab.setup.dispatch.monotone = false;
    }
    lab
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each in turn: every engine does what it does alone with every N-th request, to the last number.
    #[test]
    fn in_turn_each_is_a_run_of_its_own(
        which in 0..METHODS.len(), count in 1..24_u32, replicas in 2..5_u32, gap in 0..3_u32, seed in any::<u64>(),
    ) {
        let lab = lab(which);
        let trace = load(&lab, which, count, f64::from(gap) * 3_000.0, seed);
        let fleet = each(&lab.setup, &trace, replicas, RequestRouter::RoundRobin);
        for (number, ledger) in (0..).zip(&fleet) {
            let nth = |(index, _): &(usize, _)| index % replicas as usize == number;
            let requests: Vec<_> = trace.requests.iter().cloned().enumerate().filter(nth).map(|(_, one)| one).collect();
            if requests.is_empty() {
                prop_assert_eq!((ledger.passes, ledger.requests.len()), (0, 0));
                continue;
            }
            let mut alone = run(&lab.setup, &Trace { requests, ..trace.clone() }, &mut Silent).expect("it fits");
            // An engine sets aside what the longest drafts of all requests may need, whoever comes.
            alone.memory.set_aside = ledger.memory.set_aside;
            alone.kv.blocks = ledger.kv.blocks;
            prop_assert_eq!(format!("{ledger:?}"), format!("{alone:?}"));
        }
    }

    /// Requests, tokens, work and energy are those of all engines; those that do nothing draw idle power until the last is done.
    #[test]
    fn all_is_the_sum(
        which in 0..METHODS.len(), count in 1..20_u32, replicas in 2..5_u32, gap in 0..3_u32, seed in any::<u64>(),
        router in prop::sample::select(ROUTERS.to_vec()),
    ) {
        let mut lab = lab(which);
        if router == RequestRouter::Prefix {
            lab.setup.serving.prefix_caching = Some(PrefixCaching { block_tokens: 16 });
        }
        let trace = load(&lab, which, count, f64::from(gap) * 3_000.0, seed);
        let fleet = each(&lab.setup, &trace, replicas, router);
        let all = Ledger::of_replicas(fleet.clone());
        let own = summary(&lab.setup, &all);
        let output: u64 = trace.requests.iter().map(|request| u64::from(request.output_tokens)).sum();
        let prompt: u64 = trace.requests.iter().map(|request| u64::from(request.prompt_tokens)).sum();
        prop_assert_eq!((own.requests, own.output_tokens, own.prompt_tokens), (count.into(), output, prompt));
        let mut ids: Vec<u64> = all.requests.iter().map(|request| request.id).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, (0..u64::from(count)).collect::<Vec<_>>(), "each request once");
        let device = lab.setup.device().expect("valid");
        let joules = |one: &Ledger| {
            let idle = u128::from(all.makespan.ps()) - one.busy_ps;
            device.energy_pj(one.busy_ps, idle, one.dynamic_pj) / 1e12
        };
        let sum: f64 = fleet.iter().map(joules).sum();
        prop_assert!((own.energy_j / sum - 1.0).abs() < 1e-9, "{} {sum}", own.energy_j);
        prop_assert_eq!(all.done.flops, fleet.iter().map(|one| one.done.flops).sum::<u128>());
        prop_assert_eq!(all.makespan, fleet.iter().map(|one| one.makespan).max().expect("some"));
        prop_assert_eq!(own.devices, replicas);
        let shares = own.replicas.expect("several");
        prop_assert_eq!(shares.each.iter().map(|one| one.requests).sum::<u64>(), u64::from(count));
        prop_assert!(shares.imbalance.requests >= 1.0 && shares.imbalance.busy >= 1.0);
        // Again, to the last number.
        let again = each(&lab.setup, &trace, replicas, router);
        prop_assert_eq!(format!("{again:?}"), format!("{fleet:?}"));
    }

    /// The router knows who is there at the instant of an arrival: nobody has fewer than the one that it chose.
    #[test]
    fn the_fewest_are_the_fewest(
        which in 0..METHODS.len(), count in 1..30_u32, replicas in 2..5_u32, gap in 0..6_u32, seed in any::<u64>(),
    ) {
        let lab = lab(which);
        let trace = load(&lab, which, count, f64::from(gap) * 2_000.0, seed);
        let fleet = each(&lab.setup, &trace, replicas, RequestRouter::LeastOutstanding);
        let mut took: BTreeMap<u64, (usize, SimTime)> = BTreeMap::new();
        for (number, one) in fleet.iter().enumerate() {
            took.extend(one.requests.iter().map(|request| (request.id, (number, request.last))));
        }
        for (place, request) in trace.requests.iter().enumerate() {
            let there = |number: usize| {
                let before = trace.requests[..place].iter().map(|other| took[&other.id]);
                before.filter(|&(own, last)| own == number && last > request.arrival).count()
            };
            let least = (0..fleet.len()).map(there).min().expect("some");
            prop_assert_eq!(there(took[&request.id].0), least, "request {}", request.id);
        }
    }

    /// One line: nobody begins before somebody who came earlier, and nobody waits while an engine has nobody.
    #[test]
    fn one_line_is_kept(
        which in 0..METHODS.len(), count in 2..30_u32, replicas in 2..5_u32, gap in 0..6_u32, seed in any::<u64>(),
    ) {
        let mut lab = lab(which);
        lab.setup.serving.max_sequences = 1;
        let trace = load(&lab, which, count, f64::from(gap) * 2_000.0, seed);
        let fleet = each(&lab.setup, &trace, replicas, RequestRouter::Queue);
        let all = Ledger::of_replicas(fleet.clone());
        let mut begun: Vec<_> = all.requests.iter().map(|one| (one.id, one.scheduled)).collect();
        begun.sort_unstable();
        prop_assert!(begun.is_sorted_by_key(|(_, scheduled)| *scheduled));
        for request in &all.requests {
            if request.scheduled == request.arrival {
                continue;
            }
            for one in &fleet {
                let serves = one.requests.iter().any(|other| other.scheduled <= request.arrival && other.last > request.arrival);
                prop_assert!(serves, "an engine has nobody while request {} waits", request.id);
            }
        }
    }
}

/// Engines beside each other take no longer together than fewer of them.
#[test]
fn more_engines_are_never_slower_under_saturation() {
    for which in [0, 3, 5] {
        for router in ROUTERS
            .into_iter()
            .filter(|router| !matches!(router, RequestRouter::Random | RequestRouter::Prefix))
        {
            let mut lab = lab(which);
            lab.setup.serving.max_sequences = 4;
            let trace = lab.trace(&method(METHODS[which]), 48, 40, 8, 3);
            let spans: Vec<SimTime> = [1, 2, 3, 4, 6, 8]
                .map(|count| Ledger::of_replicas(each(&lab.setup, &trace, count, router)).makespan)
                .into();
            assert!(spans.is_sorted_by(|fewer, more| fewer >= more), "{which} {router:?}: {spans:?}");
            assert!(spans[5].s() < spans[0].s() / 4.0, "{which} {router:?}: {spans:?}");
        }
    }
}

/// Mean wait over the mean service on four servers, with the half width of its 99 % interval.
fn waits(system: &System, router: RequestRouter, utilisation: f64, customers: u32) -> (f64, f64) {
    let fleet = |seed| Fleet { replicas: 4, router, seed, apart: None, rounds: false };
    let of = |seed| system.measured_on(&fleet(seed), seed, utilisation, customers).0;
    interval(&(1..=24).map(of).collect::<Vec<_>>())
}

/// Four engines behind one line are M/M/4; behind a router that draws they are four times M/M/1, and the one is not the other.
#[test]
#[expect(clippy::print_stdout, reason = "the waits are what one runs it with --nocapture for")]
fn engines_behind_one_line_are_m_m_k() {
    let system = exponential();
    for (utilisation, customers) in [(0.5, 20_000), (0.8, 40_000)] {
        for (router, servers) in [(RequestRouter::Queue, 4), (RequestRouter::Random, 1)] {
            let (mean, half) = waits(&system, router, utilisation, customers);
            let closed = expected(Service::Exponential, servers, utilisation);
            let other = expected(Service::Exponential, 5 - servers, utilisation);
            let said =
                format!("{router:?} at {utilisation}: wait {mean:.4} +- {half:.4}, expected {closed:.4}");
            println!("{said}");
            assert!((mean - closed).abs() <= half, "{said}");
            assert!(half <= 0.08 * closed, "too wide to tell: {said}");
            assert!((mean - other).abs() > half, "{said}: passes for {other}");
        }
    }
}

/// Clients who wait for answers are so many over all engines, wherever their requests go.
#[test]
fn clients_are_those_of_all_engines() {
    for router in ROUTERS.into_iter().filter(|router| *router != RequestRouter::Prefix) {
        let mut lab = lab(0);
        let trace = load(&lab, 0, 40, 0.0, 4);
        lab.setup.clients = Some(Clients { count: 5, think: vec![SimTime::from_us(50.0); 40] });
        let all = Ledger::of_replicas(each(&lab.setup, &trace, 3, router));
        assert_eq!(all.requests.len(), 40);
        for request in &all.requests {
            let there = |other: &&radialsim::metrics::RequestTimes| {
                other.arrival <= request.arrival && other.last > request.arrival
            };
            assert!(all.requests.iter().filter(there).count() <= 5, "{router:?}");
        }
        let sent_later = all.requests.iter().filter(|request| request.arrival > SimTime::ZERO).count();
        assert_eq!(sent_later, 35, "{router:?}");
    }
}

/// Twelve conversations of four turns, one after the other, each turn beginning with all that was said before.
fn conversations(lab: &mut Lab) -> Trace {
    let mut trace = lab.trace(&method("Dense"), 48, 64, 4, 1);
    let mut turns = BTreeMap::new();
    for (request, id) in trace.requests.iter_mut().zip(0..48_u64) {
        let (talk, turn) = (id % 12, id / 12);
        request.arrival = SimTime::from_us(talk as f64 * 1e6);
        request.prefix = (0..=turn).map(|part| talk * 100 + part + 1).collect();
        let blocks = request.prefix.len() as u32;
        request.prompt_tokens = blocks * 64;
        request.runs[0].routes = radialsim::trace::RouteIds::same(0, blocks * 64);
        request.runs[1].start = blocks * 64;
        if turn > 0 {
            turns.insert(id, (id - 12, SimTime::from_us(400.0)));
        }
    }
    lab.setup.sessions = Some(Sessions { turns });
    lab.setup.serving.prefix_caching = Some(PrefixCaching { block_tokens: 64 });
    trace
}

/// A turn goes where the turns before it left their entries: nothing is computed twice. In turn, conversations hop.
#[test]
fn conversations_go_where_their_entries_are() {
    let mut lab = lab(0);
    lab.setup.serving.max_sequences = 12;
    let trace = conversations(&mut lab);
    let alone = run(&lab.setup, &trace, &mut Silent).expect("it fits");
    for request in &alone.requests {
        assert_eq!(u64::from(request.cached_tokens), 64 * (request.id / 12), "turn {request:?}");
    }
    let alone = alone.cached_tokens;
    let of = |router| each(&lab.setup, &trace, 3, router);
    let kept = of(RequestRouter::Prefix);
    assert_eq!(kept.iter().map(|one| one.cached_tokens).sum::<u64>(), alone);
    for talk in 0..12 {
        let takes = |one: &&Ledger| one.requests.iter().any(|request| request.id % 12 == talk);
        assert_eq!(kept.iter().filter(takes).count(), 1, "conversation {talk} stays");
    }
    assert!(kept.iter().all(|one| !one.requests.is_empty()), "conversations are spread");
    let random: u64 = of(RequestRouter::Random).iter().map(|one| one.cached_tokens).sum();
    assert!(random < alone * 3 / 4, "{random} of {alone}");
}

fn text(parallel: &str, router_and_more: &str) -> String {
    format!(
        r#"(title: "t", model: "smollm2-135m", hardware: "nvidia-h100-sxm", seed: 1, {router_and_more} {parallel}
        workload: (requests: (count: 60, lengths: (prompt: Uniform(low: 8, high: 200), output: Uniform(low: 2, high: 30)),
            arrivals: Poisson(rate_per_s: 2000))),
        serving: (max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true, prefix_caching: Some((block_tokens: 16))),
        dispatch: (policy: aligned),
        variants: [(name: "dense", routes: Method(Dense)),
            (name: "skips", routes: Method(IndependentSkips(skip: 0.3, branches: Jointly, kv: none))),
            (name: "more", routes: Method(Dense), parallel: (replicas: 3, router: round_robin))])"#
    )
}

fn scenario(parallel: &str, more: &str) -> radialsim::error::Result<Scenario> {
    Scenario::from_text(&text(parallel, more), Path::new("t.ron"), &[])
}

/// One engine, however it is said, is one engine.
#[test]
fn one_engine_in_any_notation_is_one_engine() {
    let of = |parallel: &str| {
        let scenario = scenario(parallel, "").expect("valid");
        let (outcome, _) = scenario::run(&scenario, 1, &(), |_, _| Silent).expect("it runs");
        outcome.variants[..2].iter().map(|one| one.first().summary.clone()).collect::<Vec<_>>()
    };
    let plain = of("");
    assert!(plain.iter().all(|summary| summary.replicas.is_none() && summary.devices == 1));
    for router in ["round_robin", "random", "least_outstanding", "vllm", "least_kv", "prefix", "queue"] {
        assert_eq!(of(&format!("parallel: (replicas: 1, router: {router}),")), plain, "{router}");
    }
}

/// The same bytes for any number of threads, engines that depend on each other and engines that do not.
#[test]
fn the_same_bytes_for_any_number_of_threads() {
    for router in ["round_robin", "random", "least_kv", "prefix", "queue"] {
        let scenario = scenario(&format!("parallel: (replicas: 4, router: {router}),"), "seeds: 2,");
        let scenario = scenario.expect("valid");
        let of = |threads| {
            let (outcome, _) = scenario::run(&scenario, threads, &(), |_, _| Silent).expect("it runs");
            json::render(&[outcome])
        };
        let one = of(1);
        assert!(one.contains("\"imbalance\"") && one.contains(&format!("\"router\": \"{router}\"")));
        assert_eq!(of(2), one, "{router}");
        assert_eq!(of(4), one, "{router}");
    }
}

/// Each engine is a process of the timeline.
#[test]
fn engines_are_processes() {
    let scenario = scenario("parallel: (replicas: 2, router: least_outstanding),", "").expect("valid");
    let watch = |_, setup: &Setup| Timeline::new(setup, 1000);
    let (outcome, timelines) = scenario::run(&scenario, 2, &(), watch).expect("it runs");
    assert_eq!(timelines.len(), 2 + 2 + 3);
    let names: Vec<String> =
        outcome.variants.iter().flat_map(scenario::VariantOutcome::engine_names).collect();
    assert_eq!(names[..2], ["dense, replica 0", "dense, replica 1"]);
    let named: Vec<_> = names.iter().cloned().zip(&timelines).collect();
    let mut out = Vec::new();
    timeline::write(&mut out, &named).expect("memory");
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.matches("\"process_name\"").count(), 7);
    assert!(text.contains("more, replica 2"));
}

/// The rows of all engines add up to the energy of the run, idle ends included.
#[test]
fn rows_of_all_engines_add_up() {
    let scenario = scenario("parallel: (replicas: 3, router: round_robin),", "").expect("valid");
    let watch = |_, setup: &Setup| Series::new(setup, SimTime::from_us(500.0), 1000);
    let (outcome, all) = scenario::run(&scenario, 1, &(), watch).expect("it runs");
    let mut left = all.iter();
    for variant in &outcome.variants {
        let engines = left.by_ref().take(variant.first().ledger.engines() as usize);
        let rows: Vec<_> = engines.flat_map(|series| series.rows(&variant.name)).collect();
        let joules: f64 = rows.iter().map(|row| row.power_w * row.length_s).sum();
        let summary = &variant.first().summary;
        assert!((joules / summary.energy_j - 1.0).abs() < 1e-9, "{}: {joules}", variant.name);
        assert_eq!(rows.iter().map(|row| row.output_tokens).sum::<u64>(), summary.output_tokens);
    }
}

/// What cannot be is refused, with its key.
#[test]
fn what_cannot_be_is_refused() {
    let cases = [
        ("parallel: (replicas: 0),", "", "parallel.replicas: found 0, expected 1 to 4096 engines"),
        ("parallel: (replicas: 5000),", "", "1 to 4096 engines"),
        ("parallel: (replicas: 2, router: nearest),", "", "nearest"),
    ];
    for (parallel, more, say) in cases {
        let error =
            scenario(parallel, more).and_then(|scenario| scenario.build()).expect_err(say).to_string();
        assert!(error.contains(say), "{parallel}: {error}");
    }
    let set = ["serving.prefix_caching=null".to_owned()];
    let text = text("parallel: (replicas: 2, router: prefix),", "");
    let scenario = Scenario::from_text(&text, Path::new("t.ron"), &set);
    let error = scenario.and_then(|scenario| scenario.build()).expect_err("no prefixes").to_string();
    assert!(error.contains("parallel.router: found prefix, expected serving.prefix_caching"), "{error}");
}

/// What tokens cost is what all devices cost, and engines are an axis of a study as any key is.
#[test]
fn tokens_cost_what_all_devices_cost() {
    let folder = crate::cli::folder();
    let bandwidth = "LogRange(name: \"bandwidth\", key: \"hardware.memory.dram_gb_per_s\", from: 10, to: 5000, count: 10)";
    let search = "searches: [BreakEven(axis: \"bandwidth\", variants: [\"skips\"], against: \"dense\", of: Least(\"tpot_s.p50\"))]";
    let study = [
        ("[1, 2, 4]", "[2]"),
        (bandwidth, "Values(name: \"engines\", key: \"parallel.replicas\", values: [1, 2, 4])"),
        ("[true, false]", "[true]"),
        ("Least(\"energy_per_output_token_j\")", "Least(\"usd_per_million_output_tokens\")"),
        (search, "prices: [(hardware: \"nvidia-h100-sxm\", usd_per_hour: 3.6, source: \"a test\")]"),
    ];
    let study = crate::sweep_support::changed(folder.path(), &study, &[]);
    let out = folder.path().join("out");
    crate::sweep_support::sweep(&study, &out, &[]);
    let mut points = csv::Reader::from_path(out.join("points.csv")).expect("points");
    let names = points.headers().expect("a head").clone();
    let mut seen = Vec::new();
    for row in points.records() {
        let row = row.expect("a row");
        let of = |name: &str| {
            names.iter().position(|other| other == name).and_then(|at| row[at].parse::<f64>().ok())
        };
        let devices = of("devices").unwrap_or(1.0);
        let expected = 3.6 * devices / 3600.0 / of("output_tokens_per_s").expect("a rate") * 1e6;
        let cost = of("usd_per_million_output_tokens").expect("a cost");
        assert!((cost / expected - 1.0).abs() < 1e-9, "{devices}: {cost} {expected}");
        seen.push(devices as u32);
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 1, 2, 2, 4, 4]);
}
