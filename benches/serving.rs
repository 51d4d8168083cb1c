//! Output tokens a second of CPU time, one thread: a server under Poisson arrivals, dense and routed.
//!
//! `cargo bench --bench serving`. With `INFERENCE_LAB=path/to/inference-lab` (crates.io, 1.0.0) and `PEER=folder` of its
//! `config.toml` and `workload.toml`, the peer runs the same load in the same minute, and the ratio is printed.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use radialsim::batch::{Decisions, Policy, Visibility};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::Density;
use radialsim::lower::{Dispatch, RouterPlan};
use radialsim::metrics::Summary;
use radialsim::model::Model;
use radialsim::sched::Serving;
use radialsim::sim::{Fidelity, Setup, Silent, run};
use radialsim::trace::synth::{Method, generate};
use radialsim::trace::{RouteIds, RouteTable, Trace, draw_routes};
use radialsim::workload::{Arrivals, Length, Lengths, requests};
use std::process::Command;
use std::time::Instant;

fn main() {
    println!(
        "{:34} {:>9} {:>9} {:>12} {:>9}",
        "Llama-3.1-8B on H100", "requests", "CPU s", "M tokens/s", "peak MB"
    );
    let dense = report("dense", 10_000, &load(&Method::Dense, 10_000));
    let routed =
        draw_routes(&distinct(load(&skips(), 10)), arrivals(10_000), 1).expect("routes for both phases");
    println!("{} distinct routes", routed.routes.len());
    report("routed", 10_000, &routed);
    let long = report("dense", 100_000, &load(&Method::Dense, 100_000));
    println!("100,000 requests take {:.2} times as long as 10,000", long.seconds / dense.seconds);
    peer(&dense);
}

struct Timed {
    tokens: u64,
    seconds: f64,
}

fn arrivals(count: u32) -> Vec<radialsim::trace::Request> {
    let length = Length::Uniform { low: 256, high: 768 };
    let lengths = Lengths { prompt: length.clone(), output: length };
    requests(count, &lengths, &Arrivals::Poisson { rate_per_s: 20.0 }, 7).expect("valid lengths")
}

fn load(method: &Method, count: u32) -> Trace {
    generate(method, 32, arrivals(count), 1).expect("a valid method")
}

/// Distinct routes of the routed load.
const ROUTES: u32 = 1000;

/// The same trace with its first [`ROUTES`] routes only, which stand in for the others too.
fn distinct(trace: Trace) -> Trace {
    let mut routes = RouteTable::default();
    trace
        .routes
        .iter()
        .take(ROUTES as usize)
        .for_each(|route| assert!(routes.intern(route.clone()) < ROUTES));
    assert_eq!(routes.len(), ROUTES as usize, "enough routes to draw from");
    let mut requests = trace.requests;
    for run in requests.iter_mut().flat_map(|request| &mut request.runs) {
        run.routes = RouteIds::listed(run.routes.iter().map(|id| id % ROUTES).collect());
    }
    Trace { routes, requests, ..trace }
}

fn skips() -> Method {
    let text =
        "CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: project_only)";
    radialsim::ron_text::parse(text, "a method").expect("a valid method")
}

/// Times that everything is run, the peer too; the shortest counts, as others on the machine can only lengthen a run.
const REPEATS: u32 = 3;

/// Seconds of the shortest run, and what it gave.
fn best<T>(mut run: impl FnMut() -> T) -> (f64, T) {
    let timed = || {
        let begin = Instant::now();
        let out = run();
        (begin.elapsed().as_secs_f64(), out)
    };
    let runs = std::iter::repeat_with(timed).take(REPEATS as usize);
    runs.min_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one run")
}

fn report(name: &str, count: u32, trace: &Trace) -> Timed {
    let model = Model::builtin("llama-3.1-8b").expect("built in");
    let dispatch = Dispatch {
        policy: Policy::Aligned,
        capture: (0..=8).map(|power| 1 << power).collect(),
        visibility: Visibility::SameLayer,
        nested_width: false,
        density: Density::Dense,
        router: RouterPlan::FREE,
        monotone: true,
        decisions: Decisions::Known,
    };
    let hardware = Hardware::shipped("nvidia-h100-sxm").expect("shipped");
    let setup = Setup {
        model,
        hardware,
        limits: Limits::default(),
        clients: None,
        sessions: None,
        serving: Serving { watermark: 0.0, ..Serving::new(2048, 256, true) },
        dispatch,
        tiers: None,
        fidelity: Fidelity::Step,
        explain: false,
        against: None,
    };
    let device = Device::new(&setup.hardware, setup.limits).expect("valid limits");
    let (seconds, tokens) = best(|| {
        let ledger = run(&setup, trace, &mut Silent).expect("a load that fits");
        Summary::new(&ledger, &device, &setup.model).output_tokens
    });
    println!(
        "{name:34} {count:>9} {seconds:>9.3} {:>12.1} {:>9.1}",
        tokens as f64 / seconds / 1e6,
        peak_mb().unwrap_or(f64::NAN)
    );
    Timed { tokens, seconds }
}

/// The peer on the same load: whole process, as its users run it.
fn peer(ours: &Timed) {
    let (Ok(program), Ok(folder)) = (std::env::var("INFERENCE_LAB"), std::env::var("PEER")) else {
        println!("peer: set INFERENCE_LAB and PEER to time it beside this");
        return;
    };
    let (seconds, done) = best(|| {
        Command::new(&program)
            .args(["-q", "-c", "config.toml", "-w", "workload.toml"])
            .current_dir(&folder)
            .stdout(std::process::Stdio::null())
            .status()
    });
    assert!(done.is_ok_and(|status| status.success()), "the peer ran");
    println!(
        "peer: {seconds:.3} s; this is {:.2} times as fast for {} tokens",
        seconds / ours.seconds,
        ours.tokens
    );
}

/// Peak resident memory of this process so far, where the system tells.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kb| kb / 1e3)
}
