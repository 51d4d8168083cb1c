//! Percentiles, gaps between tokens, warm-up and growth: by hand, against naive counts, and against queues of known load.

use crate::cli::{folder, radialsim, small, text};
use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::metrics::{Cut, Growth, Ledger, RequestTimes, Slo, Spread, WarmUp, mser5};
use radialsim::rng::Stream;
use radialsim::scenario::Scenario;
use radialsim::sim::{Observer, PassInfo, Silent, run};
use radialsim::study::{self, Finding, Shard, Study};
use radialsim::trace::Trace;
use radialsim::trace::synth::{Method, generate};
use radialsim::units::SimTime;
use radialsim::workload::{Arrivals, Length, Lengths, requests};
use serde_json::Value;

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} against {expected}");
}

/// `numpy.percentile(values, [50, 90, 99])` of numpy 1.26, whose default is `linear`.
#[test]
fn percentiles_are_those_of_numpy() {
    let of = |values: &[f64]| Spread::of(values.to_vec()).unwrap();
    for (values, [p50, p90, p99]) in [
        (&[7.0][..], [7.0; 3]),
        (&[1.0, 2.0], [1.5, 1.9, 1.99]),
        (&[4.0, 1.0, 3.0, 2.0], [2.5, 3.7, 3.97]),
        (&[15.0, 20.0, 35.0, 40.0, 50.0], [35.0, 46.0, 49.6]),
    ] {
        let found = of(values);
        near(found.p50, p50);
        near(found.p90, p90);
        near(found.p99, p99);
    }
    let hundred = of(&(1..=100).map(f64::from).collect::<Vec<_>>());
    near(hundred.p50, 50.5);
    near(hundred.p90, 90.1);
    near(hundred.p99, 99.01);
    near(hundred.mean, 50.5);
    assert_eq!((hundred.max, Spread::of(Vec::new()), Spread::of_counted(Vec::new())), (100.0, None, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Values that stand several times are as if each stood alone.
    #[test]
    fn counted_values_are_values(counted in prop::collection::vec((-1e3f64..1e3, 1u64..20), 1..40)) {
        let all: Vec<f64> = counted.iter().flat_map(|&(value, times)| (0..times).map(move |_| value)).collect();
        let (one, other) = (Spread::of(all).unwrap(), Spread::of_counted(counted).unwrap());
        prop_assert_eq!((one.p50, one.p90, one.p99, one.max), (other.p50, other.p90, other.p99, other.max));
        prop_assert!((one.mean - other.mean).abs() < 1e-9);
    }
}

/// When the tokens of each request came out, from who was in each pass.
#[derive(Default)]
struct Passes(Vec<SimTime>);

impl Observer for Passes {
    fn pass(&mut self, info: &PassInfo) {
        self.0.push(info.end);
    }
}

/// One request alone: a token a pass, so that gaps are the times between the ends of passes. Drafts that are accepted come out with the pass
/// that verifies them, as one gap.
#[test]
fn gaps_are_times_between_passes_that_put_tokens_out() {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1);
    let trace = lab.trace(&Method::Dense, 1, 5, 9, 1);
    let mut passes = Passes::default();
    let ledger = run(&lab.setup, &trace, &mut passes).unwrap();
    let gaps: Vec<SimTime> = passes.0.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(ledger.gaps.iter().map(|gap| gap.length).collect::<Vec<_>>(), gaps);
    assert!(ledger.gaps.iter().all(|gap| gap.count == 1));
    let summary = lab.summary(&ledger);
    near(summary.itl_s.unwrap().mean, summary.tpot_s.unwrap().mean);

    let drafts = lab.trace(&method("DraftVerify(exit_layer: 8, drafts: 4, acceptance: 1)"), 1, 5, 11, 1);
    let ledger = run(&lab.setup, &drafts, &mut Silent).unwrap();
    assert!(ledger.gaps.len() < 10, "{} gaps between eleven tokens", ledger.gaps.len());
    let sum: u64 = ledger.gaps.iter().map(|gap| gap.length.ps()).sum();
    assert_eq!(SimTime::from_ps(sum), ledger.requests[0].last - ledger.requests[0].first);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever runs beside whom, preempted or not: the gaps of all requests add up to their times from the first token to the last.
    #[test]
    fn gaps_add_up(seed in 0u64..1000, batch in 1u32..6, tight in any::<bool>()) {
        let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", batch);
        lab.setup.serving.kv_blocks = tight.then_some(60);
        let lengths = Lengths { prompt: Length::Uniform { low: 1, high: 40 }, output: Length::Uniform { low: 1, high: 12 } };
        let requests = requests(9, &lengths, &Arrivals::Poisson { rate_per_s: 2000.0 }, seed).unwrap();
        let trace = generate(&Method::Dense, 30, requests, seed).unwrap();
        let ledger = run(&lab.setup, &trace, &mut Silent).unwrap();
        let sum: u128 = ledger.gaps.iter().map(|gap| u128::from(gap.length.ps()) * u128::from(gap.count)).sum();
        let between = |request: &RequestTimes| u128::from((request.last - request.first).ps());
        prop_assert_eq!(sum, ledger.requests.iter().map(between).sum::<u128>());
        let count: u64 = ledger.gaps.iter().map(|gap| u64::from(gap.count)).sum();
        prop_assert_eq!(count, ledger.output_tokens - ledger.requests.len() as u64);
    }
}

/// What does not exist is null in the JSON and a dash in the tables, and wins nothing.
#[test]
fn one_output_token_has_no_time_per_token() {
    let folder = folder();
    let path = small(folder.path(), "t", "(name: \"dense\", routes: Method(Dense))");
    let json = folder.path().join("out.json");
    let one = r#"workload.requests.lengths.output={"Fixed":1}"#;
    let arguments = [
        "simulate",
        "--full",
        path.to_str().unwrap(),
        "--set",
        one,
        "--set",
        "seeds=2",
        "--json",
        json.to_str().unwrap(),
    ];
    let out = radialsim(&arguments);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let root: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let variant = &root["variants"][0];
    for metric in ["tpot_s", "itl_s"] {
        for key in ["mean", "p50", "p90", "p99", "max"] {
            assert!(
                variant[metric].get(key).is_some_and(Value::is_null),
                "{metric}.{key}: {}",
                variant[metric]
            );
        }
    }
    assert!(variant["phases"]["decode"]["energy_per_token_j"].is_null());
    assert!(variant["ttft_s"]["p50"].is_number() && variant["confidence"]["tpot_s"].is_null());
    let row = text(&out.stdout);
    let row = row.lines().find(|line| line.starts_with("dense")).unwrap();
    assert!(row.ends_with('-'), "{row}");
}

/// A study over output lengths asks for the least TPOT: the row without any has no value, and the study goes on.
#[test]
fn what_does_not_exist_wins_no_study() {
    let folder = folder();
    small(folder.path(), "t", "(name: \"dense\", routes: Method(Dense))");
    let study = r#"(title: "t", question: "q", scenario: "small.ron",
        axes: [Values(name: "tokens", key: "workload.requests.lengths.output.Fixed", values: [1, 2, 8])],
        set: {"workload.requests.lengths.output": {"Fixed": 8}},
        constraints: [AtMost("tpot_s.p50", 1)], objectives: [Least("tpot_s.p50")])"#;
    let path = folder.path().join("study.ron");
    std::fs::write(&path, study).unwrap();
    let out = folder.path().join("out");
    let run = radialsim(&["sweep", path.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    let best = page.find("least").or(page.find("Least")).expect("a finding");
    assert!(!page[best..best + 400].contains("0 ms"), "{}", &page[best..best + 400]);
    let study = Study::load(&path).unwrap();
    let mut values = Vec::new();
    let visit = |point: study::StudyPoint| {
        values.push(point.rows[0].number("tpot_s.p50"));
        Ok(())
    };
    study::merge(&study, &[out]).unwrap().points(visit).unwrap();
    assert_eq!(values.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
}

/// The same minimum, tried out one by one.
fn naive_mser5(values: &[f64]) -> Option<usize> {
    let means: Vec<f64> = values.chunks_exact(5).map(|five| five.iter().sum::<f64>() / 5.0).collect();
    let mut best = (f64::INFINITY, 0);
    for cut in 0..=means.len().checked_sub(5)? {
        let rest = means[cut..].to_vec();
        let mean = rest.iter().sum::<f64>() / rest.len() as f64;
        let error =
            rest.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (rest.len() as f64).powi(2);
        best = if error < best.0 { (error, cut) } else { best };
    }
    (means.len() >= 10 && best.1 <= means.len() / 2).then_some(best.1 * 5)
}

#[test]
fn mser5_finds_where_a_ramp_ends() {
    for seed in 0..20 {
        let mut stream = Stream::new(seed, "noise");
        let mut series = |ramp: usize, count: usize| -> Vec<f64> {
            (0..count)
                .map(|index| index.min(ramp) as f64 / ramp.max(1) as f64 * 10.0 + stream.normal())
                .collect()
        };
        let ramped = series(200, 1000);
        let cut = mser5(&ramped).expect("an end");
        assert!((120..=260).contains(&cut), "seed {seed}: {cut}");
        assert!(mser5(&series(0, 400)).is_none_or(|cut| cut <= 150), "nothing to cut");
        assert_eq!(mser5(&series(2000, 1000)), None, "it never ends");
        assert_eq!(mser5(&ramped), naive_mser5(&ramped));
    }
    assert_eq!((mser5(&[1.0; 100]), mser5(&[1.0; 49]), mser5(&[])), (Some(0), None, None));
}

/// One server, requests by a Poisson process, each served for a second on average: the load is the rate.
fn queue(load: f64, count: usize, seed: u64) -> Vec<RequestTimes> {
    let mut stream = Stream::new(seed, "queue");
    let (mut now, mut free) = (0.0, 0.0f64);
    let time = SimTime::from_s;
    let one = |id: usize| {
        now += stream.exponential(1.0 / load);
        let begin = free.max(now);
        free = begin + stream.exponential(1.0);
        RequestTimes {
            id: id as u64,
            arrival: time(now),
            scheduled: time(begin),
            first: time(free),
            last: time(free),
            output_tokens: 1,
            prompt_tokens: 1,
            cached_tokens: 0,
            preemptions: 0,
            energy_pj: 0,
        }
    };
    (0..count).map(one).collect()
}

/// Overload is seen, and load that a server carries is seldom taken for it.
#[test]
fn growth_is_told_from_noise() {
    let share = |load: f64, count: usize| {
        let grows = (0..200).filter(|&seed| Growth::of(&queue(load, count, seed)).unwrap().grows).count();
        grows as f64 / 200.0
    };
    for (load, count, least) in [(2.0, 100, 0.9), (1.5, 200, 0.9), (1.2, 1000, 0.9), (4.0, 50, 0.9)] {
        let found = share(load, count);
        assert!(found >= least, "load {load}, {count} requests: {found}");
    }
    for (load, count, most) in
        [(0.3, 100, 0.02), (0.5, 200, 0.03), (0.5, 1000, 0.03), (0.7, 1000, 0.04), (0.8, 4000, 0.04)]
    {
        let found = share(load, count);
        assert!(found <= most, "load {load}, {count} requests: {found}");
    }
    assert_eq!(Growth::of(&queue(0.5, 39, 1)), None);
    let mut together = queue(0.5, 100, 1);
    together.iter_mut().for_each(|request| request.arrival = SimTime::ZERO);
    assert_eq!(Growth::of(&together), None, "who comes at once does not come at a rate");
}

/// A server that fills up and then holds: the cut leaves out its first requests, and the times are those of the others.
#[test]
fn a_cut_leaves_out_the_requests_before_it() {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 64);
    let lengths = Lengths { prompt: Length::Fixed(64), output: Length::Fixed(60) };
    let requests = requests(600, &lengths, &Arrivals::Every { gap_s: 5e-3 }, 1).unwrap();
    let trace: Trace = generate(&Method::Dense, 30, requests, 1).unwrap();
    let mut setup = lab.setup.clone();
    setup.fidelity = radialsim::sim::Fidelity::Step;
    let ledger: Ledger = run(&setup, &trace, &mut Silent).unwrap();
    let cut = Cut::of(WarmUp::Mser5, &ledger.requests);
    assert!(cut.found && cut.requests > 0, "{cut:?}");
    let slo = Slo { ttft_s: Some(1.0), ..Slo::default() };
    let all = lab.summary(&ledger);
    let counted = all.clone().counting(&ledger, &slo, Some(WarmUp::Mser5));
    let until = SimTime::from_s(cut.until_s);
    let kept: Vec<&RequestTimes> =
        ledger.requests.iter().filter(|request| request.arrival >= until).collect();
    assert_eq!(kept.len() as u64 + cut.requests, 600);
    near(
        counted.tpot_s.unwrap().mean,
        kept.iter().filter_map(|request| request.tpot_s()).sum::<f64>() / kept.len() as f64,
    );
    assert_ne!(counted.tpot_s, all.tpot_s);
    let goodput = counted.goodput.unwrap();
    near(goodput.requests_per_s, kept.len() as f64 / (ledger.makespan - until).s());
    assert_eq!(all.clone().counting(&ledger, &Slo::default(), None), all);
}

/// Goodput as vLLM's `benchmark_serving` counts it: requests of which every value is at most its bound, over the time; one output token
/// has a time per output token of 0.
#[test]
fn goodput_is_that_of_vllm() {
    let ledger =
        Ledger { requests: queue(0.9, 300, 5), makespan: SimTime::from_s(400.0), ..Ledger::default() };
    for (ttft, e2e) in [(0.5, 9.0), (3.0, 2.0), (1e-9, 1.0)] {
        let slo = Slo { ttft_s: Some(ttft), tpot_s: Some(1e-3), e2e_s: Some(e2e) };
        let good = ledger.requests.iter().filter(|request| {
            let tpot = if request.output_tokens > 1 { (request.last - request.first).s() } else { 0.0 };
            let values = [(request.first - request.arrival).s(), tpot, (request.last - request.arrival).s()];
            values.iter().zip([ttft, 1e-3, e2e]).all(|(value, bound)| *value <= bound)
        });
        let found = radialsim::metrics::Goodput::of(&slo, &ledger).unwrap();
        near(found.requests_per_s, good.count() as f64 / 400.0);
    }
}

fn capacity(count: u32, longest: u32) -> Finding {
    let folder = folder();
    let scenario = format!(
        r#"(
    title: "t", model: "smollm2-135m", hardware: "nvidia-h100-sxm",
    workload: (requests: (count: {count}, lengths: (prompt: Fixed(256), output: Geometric(mean: 40, most: 400)), arrivals: Poisson(rate_per_s: 1))),
    serving: (max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true),
    dispatch: (policy: aligned), fidelity: step, slo: (ttft_s: 0.25), seed: 3, variants: [(name: "dense", routes: Method(Dense))],
)"#
    );
    let study = format!(
        r#"(title: "t", question: "q", scenario: "scenario.ron", seeds: 2,
        axes: [LogRange(name: "rate", key: "workload.requests.arrivals.Poisson.rate_per_s", from: 4, to: 4096, count: 6)],
        objectives: [Most("requests_per_s")], constraints: [SloMet(share: 0.9)],
        searches: [Capacity(axis: "rate", tolerance: 0.05, most_seeds: 2, longest: {longest})])"#
    );
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("scenario.ron", &scenario);
    write("study.ron", &study);
    let study = Study::load(&folder.path().join("study.ron")).unwrap_or_else(|error| panic!("{error}"));
    let out = folder.path().join("out");
    study::sweep(&study, &out, Shard::WHOLE, 2, &()).unwrap_or_else(|error| panic!("{error}"));
    study::merge(&study, &[out]).unwrap().answers.remove(0)
}

/// Where nobody looks for growth, a run of few requests carries any rate within the bound; the search answers the same for short runs and
/// for long ones.
#[test]
fn a_capacity_is_not_the_length_of_the_run() {
    let found: Vec<f64> = [60, 240, 960].map(|count| capacity(count, 16).value.expect("a capacity")).to_vec();
    let (least, most) =
        (found.iter().copied().fold(f64::INFINITY, f64::min), found.iter().copied().fold(0.0, f64::max));
    assert!(most / least < 1.3, "{found:?}");
    let answer = capacity(60, 16);
    assert!(answer.words.contains("not stable from"), "{answer:?}");
}

/// The report says so beside the result.
#[test]
fn an_overloaded_run_says_that_it_is_not_stable() {
    let folder = folder();
    let path = small(folder.path(), "t", "(name: \"dense\", routes: Method(Dense))");
    let json = folder.path().join("out.json");
    let run = |rate: &str| {
        let rate = format!("workload.requests.arrivals.Poisson.rate_per_s={rate}");
        let out = radialsim(&[
            "simulate",
            "--full",
            path.to_str().unwrap(),
            "--set",
            "workload.requests.count=200",
            "--set",
            &rate,
            "--set",
            "serving.max_sequences=1",
            "--json",
            json.to_str().unwrap(),
        ]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let root: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        (text(&out.stdout), root["variants"][0]["growth"]["grows"].as_bool())
    };
    let (said, grows) = run("100000");
    assert!(said.contains("Not stable at this rate: dense.") && grows == Some(true), "{said}");
    let (said, grows) = run("2");
    assert!(!said.contains("ot stable") && grows == Some(false), "{said}");
    let scenario = Scenario::load(&path, &["warm_up=mser5".to_owned()]).unwrap();
    assert_eq!(scenario.warm_up, Some(WarmUp::Mser5));
}
