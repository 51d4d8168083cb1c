//! Numbers of a server: worked by hand, against naive counts, and over seeds.

use crate::cli::{folder, radialsim, small, text};
use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Hold, Policy};
use radialsim::cost::Device;
use radialsim::metrics::{Goodput, Interval, KvUse, Ledger, PhaseTotals, RequestTimes, Slo, Summary};
use radialsim::report::{json, table};
use radialsim::rng::Stream;
use radialsim::scenario::{Scenario, run};
use radialsim::sim::{self, Observer, PassInfo, Silent};
use radialsim::trace::Trace;
use radialsim::trace::synth::{Method, generate};
use radialsim::units::SimTime;
use radialsim::workload::{Arrivals, Length, Lengths, requests};
use serde_json::Value;

const S: u64 = 1_000_000_000_000;

/// Two requests on a server that takes one at a time: 0 to 3 s; 1 s, waits until 3 s, to 6 s. Then 2 s without a pass.
/// The second puts out one token at 5 s, which is fed once more.
fn by_hand() -> (Lab, Ledger) {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1);
    let s = |s: u64| SimTime::from_ps(s * S);
    let joule = 1_000_000_000_000;
    let request = |id, arrival, scheduled, first, last, output_tokens, energy_pj| RequestTimes {
        id,
        arrival: s(arrival),
        scheduled: s(scheduled),
        first: s(first),
        last: s(last),
        output_tokens,
        prompt_tokens: 10,
        cached_tokens: 0,
        preemptions: 1 - id as u32,
        energy_pj,
    };
    let entry_bytes = lab.setup.model.kv_entry_bytes();
    let ledger = Ledger {
        requests: vec![request(0, 0, 0, 1, 3, 5, 7 * joule), request(1, 1, 3, 5, 6, 1, 2 * joule)],
        output_tokens: 6,
        prefill: PhaseTotals { tokens: 20, time_ps: u128::from(3 * S), energy_pj: 4 * joule },
        decode: PhaseTotals { tokens: 4, time_ps: u128::from(3 * S), energy_pj: 5 * joule },
        pass_ps: u128::from(6 * S),
        busy_ps: u128::from(5 * S),
        waiting_ps: u128::from(2 * S),
        running_ps: u128::from(6 * S),
        preemptions: 1,
        recomputed_tokens: 3,
        swapped_bytes: 4096,
        cached_tokens: 2,
        kv: KvUse {
            block_tokens: 16,
            block_bytes: 480 * entry_bytes,
            blocks: 10,
            peak_blocks: 4,
            block_ps: u128::from(20 * S),
            entry_ps: u128::from(7200 * S),
        },
        makespan: s(8),
        ..Ledger::default()
    };
    (lab, ledger)
}

#[test]
fn a_server_by_hand() {
    let (lab, ledger) = by_hand();
    let summary = lab.summary(&ledger);
    assert_eq!(summary.requests_per_s, 0.25);
    assert_eq!((summary.mean_waiting, summary.mean_running), (0.25, 0.75));
    assert_eq!((summary.queue_s.mean, summary.queue_s.max), (1.0, 2.0));
    // 3 s for 5 tokens, and 5 s for 1.
    assert!((summary.normalized_latency_s.mean - 2.8).abs() < 1e-12);
    assert_eq!(summary.normalized_latency_s.max, 5.0);
    assert_eq!((summary.energy_per_request_j.mean, summary.energy_per_request_j.max), (4.5, 7.0));
    let (prefill, decode) = (summary.phases.prefill, summary.phases.decode);
    assert_eq!((prefill.time_s, prefill.energy_j, prefill.energy_per_token_j), (3.0, 4.0, Some(0.2)));
    assert_eq!((decode.time_s, decode.energy_j, decode.energy_per_token_j), (3.0, 5.0, Some(1.25)));
    let (_, idle_w) = Device::new(&lab.setup.hardware, lab.setup.limits).unwrap().static_and_idle_w();
    assert!((summary.idle_energy_j - 2.0 * idle_w).abs() < 1e-9);
    assert_eq!((summary.preemptions, summary.recomputed_tokens, summary.swapped_bytes), (1, 3, 4096));
    assert_eq!(summary.cached_prompt_tokens, 2);
    // 20 block seconds of 80; 7200 entry seconds of 20 x 480.
    assert_eq!((summary.kv.mean_use, summary.kv.fill), (0.25, Some(0.75)));
    assert!(summary.goodput.is_none());
}

#[test]
fn goodput_by_hand() {
    let (_, ledger) = by_hand();
    let of = |ttft_s, tpot_s, e2e_s| Goodput::of(&Slo { ttft_s, tpot_s, e2e_s }, &ledger);
    assert_eq!(of(None, None, None), None);
    // TTFT 1 and 4 s, TPOT 0.5 s and none, E2E 3 and 5 s. A bound that is just met is met.
    for (ttft_s, tpot_s, e2e_s, attained, tokens) in [
        (Some(1.0), None, None, 0.5, 5),
        (Some(0.999), None, None, 0.0, 0),
        (Some(4.0), None, None, 1.0, 6),
        (None, Some(0.5), None, 1.0, 6),
        (None, Some(0.499), None, 0.5, 1),
        (None, None, Some(3.0), 0.5, 5),
        (Some(4.0), Some(0.4), Some(4.0), 0.0, 0),
        (Some(4.0), Some(0.4), Some(5.0), 0.5, 1),
    ] {
        let goodput = of(ttft_s, tpot_s, e2e_s).unwrap();
        assert_eq!(goodput.attained, attained, "{goodput:?}");
        assert_eq!(goodput.requests_per_s, attained * 2.0 / 8.0, "{goodput:?}");
        assert_eq!(goodput.output_tokens_per_s, f64::from(tokens) / 8.0, "{goodput:?}");
        assert_eq!((goodput.ttft_s, goodput.tpot_s, goodput.e2e_s), (ttft_s, tpot_s, e2e_s));
    }
}

/// Each way of losing a picosecond, a picojoule or a count is caught.
#[test]
fn a_ledger_that_does_not_add_up_gives_no_summary() {
    type Spoil = (&'static str, fn(&mut Ledger));
    let spoil: [Spoil; 8] = [
        ("waiting", |ledger| ledger.waiting_ps += 1),
        ("running", |ledger| ledger.running_ps -= 1),
        ("phase time", |ledger| ledger.prefill.time_ps += 1),
        ("phase energy", |ledger| ledger.decode.energy_pj += 1),
        ("request energy", |ledger| ledger.requests[0].energy_pj += 1),
        ("preemptions", |ledger| ledger.preemptions += 1),
        ("order", |ledger| ledger.requests[1].scheduled = SimTime::ZERO),
        ("blocks", |ledger| ledger.kv.peak_blocks = 11),
    ];
    let (lab, ledger) = by_hand();
    lab.summary(&ledger);
    for (what, spoil) in spoil {
        let mut spoilt = ledger.clone();
        spoil(&mut spoilt);
        let caught = std::panic::catch_unwind(|| lab.summary(&spoilt)).is_err();
        assert!(caught, "{what} is not checked");
    }
}

/// (begin, end, waiting, running) of each pass.
#[derive(Default)]
struct Passes(Vec<(SimTime, SimTime, u32, u32)>);

impl Observer for Passes {
    fn pass(&mut self, info: &PassInfo) {
        self.0.push((info.begin, info.end, info.waiting, info.running));
    }
}

fn load(lab: &Lab, arrivals: &Arrivals, method: &Method, count: u32, seed: u64) -> Trace {
    let lengths = Lengths {
        prompt: Length::Uniform { low: 1, high: 40 },
        output: Length::Uniform { low: 1, high: 12 },
    };
    let requests = requests(count, &lengths, arrivals, seed).expect("valid lengths");
    generate(method, lab.setup.model.layers, requests, seed).expect("a valid method")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whoever is admitted is in the next pass here, so counts in the system follow from the times of the requests alone.
    #[test]
    fn counts_and_energies_are_those_of_the_requests(
        seed in 0u64..1000,
        batch in 1u32..6,
        rate_per_s in prop_oneof![Just(20.0), Just(300.0), Just(5000.0)],
        policy in 0usize..3,
        count in 1u32..14,
    ) {
        let policies = [Policy::Aligned, Policy::Grouped, Policy::Queued { full: 2, wait_us: 50.0, hold: Hold::Always }];
        let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", batch).policy(policies[policy]);
        let skips = method("IndependentSkips(skip: 0.3, branches: Jointly, kv: project_only)");
        let trace = load(&lab, &Arrivals::Poisson { rate_per_s }, &skips, count, seed);
        let mut passes = Passes::default();
        let ledger = sim::run(&lab.setup, &trace, &mut passes).expect("a run that fits");
        let summary = lab.summary(&ledger);

        let mut running_ps = 0;
        for &(begin, end, waiting, running) in &passes.0 {
            let scheduled = |r: &&RequestTimes| r.scheduled <= begin && begin < r.last;
            let waits = |r: &&RequestTimes| r.arrival <= begin && begin < r.scheduled;
            prop_assert_eq!(running as usize, ledger.requests.iter().filter(scheduled).count());
            prop_assert_eq!(waiting as usize, ledger.requests.iter().filter(waits).count());
            running_ps += u128::from(running) * u128::from((end - begin).ps());
        }
        prop_assert_eq!(running_ps, ledger.running_ps);
        let waited = |r: &RequestTimes| u128::from((r.scheduled - r.arrival).ps());
        prop_assert_eq!(ledger.waiting_ps, ledger.requests.iter().map(waited).sum::<u128>());

        let parts = summary.phases.prefill.energy_j + summary.phases.decode.energy_j + summary.idle_energy_j;
        prop_assert!((parts - summary.energy_j).abs() <= 1e-9 * summary.energy_j, "{parts} {}", summary.energy_j);
        prop_assert_eq!(summary.phases.prefill.tokens, ledger.prompt_tokens);
        prop_assert_eq!(ledger.prefill.tokens + ledger.decode.tokens, ledger.routed_tokens);
        for request in &trace.requests {
            let times = ledger.requests.iter().find(|times| times.id == request.id).expect("it finished");
            prop_assert_eq!((times.prompt_tokens, times.arrival), (request.prompt_tokens, request.arrival));
            prop_assert!(times.energy_pj > 0);
        }
        let entry_bytes = lab.setup.model.kv_entry_bytes();
        prop_assert_eq!(ledger.kv.peak_blocks * entry_bytes, ledger.memory.kv_peak);
        // Blocks are held from the start of the pass that fills them; the entries are there from its end.
        prop_assert!(ledger.kv.block_ps > 0 && ledger.kv.entry_ps < ledger.kv.block_ps * u128::from(ledger.kv.block_tokens));
        prop_assert!(summary.kv.fill.is_some_and(|fill| (0.0..1.0).contains(&fill)));
    }
}

/// One request alone: its energy is that of the run without the wait for it, and nothing waits.
#[test]
fn a_lone_request_has_all_the_energy() {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 4);
    let trace = load(&lab, &Arrivals::Poisson { rate_per_s: 3.0 }, &Method::Dense, 1, 5);
    let ledger = lab.run(&trace);
    let summary = lab.summary(&ledger);
    assert!(ledger.requests[0].arrival > SimTime::ZERO && summary.idle_energy_j > 0.0);
    let total = summary.energy_per_request_j.mean + summary.idle_energy_j;
    assert!((total - summary.energy_j).abs() <= 1e-9 * summary.energy_j, "{total} {}", summary.energy_j);
    assert_eq!((summary.queue_s.max, summary.mean_waiting), (0.0, 0.0));
}

/// Two requests of one prompt token and equal outputs, always together: each has half of the energy to a picojoule a pass.
#[test]
fn equals_share_equally() {
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 2);
    let ledger = lab.run(&lab.trace(&Method::Dense, 2, 1, 8, 1));
    let [one, other] = [0, 1].map(|index: usize| ledger.requests[index].energy_pj);
    assert!(one.abs_diff(other) <= ledger.passes.into(), "{one} {other}");
    // Each has 1 prompt token and 7 generated ones that run: one pass of prompts, seven of decode.
    assert_eq!((ledger.prefill.tokens, ledger.decode.tokens, ledger.passes), (2, 14, 8));
}

#[test]
fn student_s_interval_by_hand() {
    // Quantile 0.975 with 2 degrees of freedom: 4.302652729911275 (any table of Student's t); s = 1.
    let Interval { mean, half_width } = Interval::of(&[1.0, 2.0, 3.0], 0.95).unwrap();
    assert_eq!(mean, 2.0);
    assert!((half_width - 4.302_652_729_911_275 / 3f64.sqrt()).abs() < 1e-9, "{half_width}");
    assert_eq!(Interval::of(&[1.0, 1.0], 0.95), Some(Interval { mean: 1.0, half_width: 0.0 }));
    assert_eq!((Interval::of(&[1.0], 0.95), Interval::of(&[], 0.95)), (None, None));
}

/// 95 in 100 intervals hold the mean, within 4 standard deviations of the binomial count. The normal quantile in place of
/// Student's would hold it 88 times in 100 for five values.
#[test]
fn ninety_five_intervals_in_a_hundred_hold_the_mean() {
    const REPLICATIONS: u32 = 4000;
    for values in [2usize, 5, 20] {
        let mut stream = Stream::new(11, "replications");
        let holds = |_: &u32| {
            let draws: Vec<f64> = (0..values).map(|_| 3.0 + 2.0 * stream.normal()).collect();
            let Interval { mean, half_width } = Interval::of(&draws, 0.95).expect("several values");
            (mean - 3.0).abs() <= half_width
        };
        let held = (0..REPLICATIONS).filter(holds).count() as f64;
        let (expected, n) = (0.95 * f64::from(REPLICATIONS), f64::from(REPLICATIONS));
        let deviation = (n * 0.95 * 0.05).sqrt();
        assert!((held - expected).abs() <= 4.0 * deviation, "{values} values: {held} of {REPLICATIONS}");
    }
}

const VARIANTS: &str = r#"(name: "dense", routes: Method(Dense)),
    (name: "queued", routes: Method(Dense), policy: queued(full: 2, wait_us: 200))"#;

fn scenario(settings: &[&str]) -> Scenario {
    let folder = folder();
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    Scenario::load(&small(folder.path(), "t", VARIANTS), &settings).unwrap()
}

#[test]
fn many_seeds_are_the_runs_with_each_seed() {
    let many = scenario(&["seeds=3", "slo.ttft_s=0.002"]);
    let (outcome, watchers) = run(&many, 2, &(), |index, _| Nobody(index)).unwrap();
    assert_eq!(
        watchers.iter().map(|nobody| nobody.0).collect::<Vec<_>>(),
        [0, 1],
        "the first seed is watched"
    );
    let singles: Vec<Vec<Summary>> = (3..6)
        .map(|seed| {
            let one = scenario(&[&format!("seed={seed}"), "slo.ttft_s=0.002"]);
            let (outcome, _) = run(&one, 1, &(), |_, _| Silent).unwrap();
            outcome.variants.iter().map(|variant| variant.first().summary.clone()).collect()
        })
        .collect();
    let shown: Value = serde_json::from_str(&json::render(std::slice::from_ref(&outcome))).unwrap();
    for (index, variant) in outcome.variants.iter().enumerate() {
        assert_eq!(variant.runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [3, 4, 5]);
        let of_seeds: Vec<&Summary> = singles.iter().map(|single| &single[index]).collect();
        assert!(variant.runs.iter().zip(&of_seeds).all(|(run, single)| run.summary == **single));
        assert!(of_seeds[0].digest != of_seeds[1].digest, "seeds draw different things");
        assert!(!of_seeds.iter().any(|summary| summary.digest == variant.digest()));

        let object = &shown["variants"][index];
        let tokens = of_seeds.iter().map(|summary| summary.output_tokens as f64).sum::<f64>() / 3.0;
        assert_eq!(object["output_tokens"].as_f64(), Some(tokens));
        assert_eq!(object["requests"], 4, "what is equal stays a whole number");
        assert_eq!(object["digest"], variant.digest());
        let values: Vec<f64> = of_seeds.iter().map(|summary| summary.ttft_s.p50).collect();
        let interval = Interval::of(&values, 0.95).unwrap();
        let confidence = &object["confidence"];
        assert_eq!((&confidence["level"], &confidence["seeds"]), (&0.95.into(), &3.into()));
        assert_eq!(confidence["ttft_s"]["p50"]["half_width"].as_f64(), Some(interval.half_width));
        assert_eq!(confidence["ttft_s"]["p50"]["mean"], object["ttft_s"]["p50"]);
        assert_eq!(confidence["goodput"]["attained"]["mean"], object["goodput"]["attained"]);
    }
    let text = table::render(&outcome);
    assert!(text.contains("Means over 3 runs, with the seeds 3 to 5.\n") && text.contains(" ± "), "{text}");
}

/// An observer with a number.
struct Nobody(usize);
impl Observer for Nobody {}

#[test]
fn seeds_give_the_same_bytes_for_any_number_of_threads() {
    let folder = folder();
    let path = small(folder.path(), "t", VARIANTS);
    let run = |threads: &str| {
        let json = folder.path().join(threads);
        let to = ["--json", json.to_str().unwrap(), "--threads", threads, "--seeds", "5", "--seed", "9"];
        let out = radialsim(&[&["simulate", "--full", path.to_str().unwrap()], &to[..]].concat());
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        (text(&out.stdout), std::fs::read(json).unwrap())
    };
    let first = run("1");
    assert!(first == run("3") && first == run("8"));
    assert!(first.0.contains("seeds 9 to 13"));
    assert!(first.0.lines().all(|line| line.chars().count() <= 120), "{}", first.0);
}

#[test]
fn a_serving_table_stands_where_requests_come_over_time_or_bounds_are_stated() {
    let shown = |settings: &[&str]| {
        let (outcome, _) = run(&scenario(settings), 1, &(), |_, _| Silent).unwrap();
        table::render(&outcome)
    };
    let closed = "workload.requests.arrivals=Closed";
    assert!(!shown(&[closed]).contains("\nServing\n"));
    assert!(shown(&[]).contains("\nServing\n"));
    let bounded = shown(&[closed, "slo.e2e_s=0.5", "slo.tpot_s=0.01"]);
    assert!(
        bounded.contains("good: share of the requests with TPOT <= 0.01 s, E2E <= 0.5 s.\n"),
        "{bounded}"
    );
    assert!(shown(&[]).lines().all(|line| line.chars().count() <= 120));
}

#[test]
fn bounds_and_seeds_that_cannot_be_are_refused() {
    let folder = folder();
    let path = small(folder.path(), "t", VARIANTS);
    let path = path.to_str().unwrap();
    let refused = |arguments: &[&str]| {
        let out = radialsim(&[&["simulate", path], arguments].concat());
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        assert!(out.stdout.is_empty());
        text(&out.stderr)
    };
    for (setting, said) in [
        ("slo.ttft_s=0", "slo.ttft_s: found 0, expected a finite number of seconds above 0"),
        ("slo.tpot_s=-1", "slo.tpot_s: found -1, expected a finite number of seconds above 0"),
        ("seeds=0", "seeds: found 0, expected 1 to 1000 seeds"),
        ("seeds=1001", "seeds: found 1001, expected 1 to 1000 seeds"),
        ("slo.ttft=1", "--set slo.ttft: found ttft, expected ttft_s, tpot_s, e2e_s"),
    ] {
        let message = refused(&["--set", setting]);
        assert!(message.contains(said), "{message}");
    }
    refused(&["--seeds", "0"]);
    let message = refused(&["--seed", "18446744073709551615", "--seeds", "2"]);
    assert!(
        message.contains("seeds: found 2, expected seeds from 18446744073709551615 on that stay below 2^64")
    );

    let infinite =
        std::fs::read_to_string(path).unwrap().replace("seed: 3,", "slo: (e2e_s: inf),\n    seed: 3,");
    std::fs::write(path, infinite).unwrap();
    let message = refused(&[]);
    assert!(message.contains("slo.e2e_s: found inf, expected a finite number"), "{message}");
    assert!(message.contains("small.ron:"), "{message}");
}

/// Long generations beside prompts: what their own attention takes is theirs, though their tokens are one in a thousand of each pass.
#[test]
fn a_mixed_pass_gives_each_phase_its_own_attention() {
    use radialsim::trace::{Header, Request, Route, RouteTable};
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 16);
    lab.setup.serving.max_batched_tokens = 2048;
    let (model, layers) = (lab.setup.model.name.clone(), lab.setup.model.layers);
    let mut routes = RouteTable::default();
    routes.intern(Route::dense(layers));
    let request = |id, prompt: usize, output: u32| {
        let (prompt, decode) = (vec![0; prompt], vec![0; output as usize - 1]);
        Request::plain(id, &prompt, output, &decode)
    };
    // 29 passes of one generated token beside chunks of the other prompts, which take more passes than that.
    let requests =
        [request(0, 20_000, 30)].into_iter().chain((1..9).map(|id| request(id, 8192, 1))).collect();
    let trace = Trace { header: Header::dense(&model, layers), routes, requests };
    let ledger = lab.run(&trace);
    let [prompts, generation] = ledger.attention;
    assert_eq!(ledger.decode.tokens, 29);
    assert!(
        ledger.decode.time_ps >= generation.time_ps && ledger.prefill.time_ps >= prompts.time_ps,
        "{ledger:?}"
    );
    // By tokens alone, generation would have had a two-thousandth of its passes.
    assert!(generation.time_ps > 10 * ledger.pass_ps * 29 / (20_000 + 8 * 8192), "{generation:?}");
    let (static_w, _) =
        Device::new(&lab.setup.hardware, lab.setup.limits).expect("no limits").static_and_idle_w();
    let own_pj = static_w * generation.time_ps as f64 + generation.dynamic_pj as f64;
    assert!(ledger.decode.energy_pj as f64 >= own_pj * (1.0 - 1e-9));
    assert_eq!(ledger.prefill.time_ps + ledger.decode.time_ps, ledger.pass_ps);
    let requests: u128 = ledger.requests.iter().map(|request| request.energy_pj).sum();
    assert_eq!(ledger.prefill.energy_pj + ledger.decode.energy_pj, requests);
}
