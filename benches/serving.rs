//! Output tokens a second of CPU time, one thread: a server under Poisson arrivals, dense and routed.
//!
//! `cargo bench --bench serving`. Every case is a process of its own, so that CPU time and peak memory are its own: the program as its users run
//! it (`through the program`: reading the scenario, drawing routes, the report), and this bench in the library (`inside`: the simulation and
//! its summary). With `INFERENCE_LAB=path/to/inference-lab` (crates.io, 1.0.0) and `PEER=folder` of its `config.toml` and
//! `workload.toml`, the peer runs the same load in turn with each case, and the ratio is printed. `ONLY=text` runs the cases whose
//! names hold the text.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use radialsim::cost::Device;
use radialsim::metrics::{Ledger, Summary};
use radialsim::scenario::{Built, Scenario};
use radialsim::sim::fleet;
use radialsim::sim::{Setup, Silent};
use radialsim::trace::Request;
use radialsim::trace::synth::generate;
use radialsim::workload::{Arrivals, Length, Lengths, requests};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use wait4::Wait4;

/// Set for a child that is one case inside the library: its scenario.
const INSIDE: &str = "RADIALSIM_BENCH_INSIDE";

/// Times that everything is run, the peer too; the shortest counts, as others on the machine can only lengthen a run.
const REPEATS: u32 = 3;

const DENSE: &str = "Method(Dense)";
const STEP: &str =
    "Method(CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: project_only))";
const APART: &str = "Method(IndependentSkips(skip: 0.25, branches: Separately, kv: project_only))";
const HOLES: &str =
    "Method(CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: none))";
const RADIAL: &str = "Method(Radial(transitions: Uniform, start: Uniform, hops: Fixed(32)))";

/// A load: its name, the routes of its tokens, and requests.
struct Case {
    name: &'static str,
    routes: &'static str,
    requests: u32,
    /// Engines, and their router.
    replicas: u32,
    router: &'static str,
}

const fn case(name: &'static str, routes: &'static str, requests: u32) -> Case {
    Case { name, routes, requests, replicas: 1, router: "round_robin" }
}

/// Eight engines of 100,000 requests each.
const fn eight(name: &'static str, router: &'static str) -> Case {
    Case { name, routes: DENSE, requests: 800_000, replicas: 8, router }
}

const CASES: [Case; 12] = [
    case("dense", DENSE, 10_000),
    case("own routes, half shared by step", STEP, 10_000),
    case("own routes, branches apart", APART, 10_000),
    case("recorded, about a thousand routes", "Recorded", 10_000),
    case("own routes, holes in the cache", HOLES, 1000),
    case("own routes, any order with reuse", RADIAL, 300),
    case("long: dense", DENSE, 100_000),
    case("long: own routes, half shared by step", STEP, 100_000),
    case("long: own routes, branches apart", APART, 100_000),
    eight("8 replicas, in turn", "round_robin"),
    eight("8 replicas, least outstanding", "least_outstanding"),
    eight("8 replicas, one line", "queue"),
];

fn main() {
    if let Ok(scenario) = std::env::var(INSIDE) {
        return inside(Path::new(&scenario));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let only = std::env::var("ONLY").unwrap_or_default();
    println!(
        "{:38} {:8} {:>8} {:>8} {:>8} {:>11} {:>8} {:>8}",
        "Llama-3.1-8B, H100, 20 requests/s",
        "",
        "requests",
        "CPU s",
        "wall s",
        "M tokens/s",
        "peak MB",
        "of peer"
    );
    for case in CASES.iter().filter(|case| case.name.contains(&only)) {
        let path = folder.path().join("scenario.ron");
        std::fs::write(&path, case.scenario(folder.path())).expect("a file");
        let program = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_radialsim"));
            command.args(["simulate", "--threads", "1"]).arg(&path);
            command
        };
        let itself = || {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.env(INSIDE, &path);
            command
        };
        let ways: [(&str, &dyn Fn() -> Command); 2] = [("inside", &itself), ("program", &program)];
        for (way, command) in ways {
            let (ours, theirs) = best(command, case.requests);
            let rate = case.output_tokens() as f64 / ours.cpu_s / 1e6;
            let of_peer = theirs.map_or("-".to_owned(), |theirs| format!("{:.2}", theirs / ours.cpu_s));
            println!(
                "{:38} {way:8} {:>8} {:>8.3} {:>8.3} {rate:>11.2} {:>8.1} {of_peer:>8}",
                case.name, case.requests, ours.cpu_s, ours.wall_s, ours.peak_mb
            );
        }
    }
}

impl Case {
    /// The scenario, as text; a trace beside it where the routes are recorded ones.
    fn scenario(&self, folder: &Path) -> String {
        let Case { name, routes, requests, replicas, router } = self;
        let mut trace = String::new();
        let mut policy = "aligned";
        if *routes == "Recorded" {
            let path = folder.join("trace.jsonl");
            let drawn = self.drawn(2);
            let routes = "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)";
            let method = radialsim::ron_text::parse(routes, "a method").expect("a valid method");
            let recorded = generate(&method, 32, drawn, 1).expect("a valid method");
            radialsim::trace::write(&path, &recorded).expect("a trace");
            trace = "trace: \"trace.jsonl\", ".to_owned();
        }
        if *routes == RADIAL {
            policy = "hop";
        }
        let (low, high) = self.tokens();
        let (length, rate) = (format!("Uniform(low: {low}, high: {high})"), self.rate_per_s());
        format!(
            "(title: \"{name}\", model: \"llama-3.1-8b\", hardware: \"nvidia-h100-sxm\", seed: 7,
            workload: ({trace}requests: (count: {requests}, lengths: (prompt: {length}, output: {length}), arrivals: Poisson(rate_per_s: {rate:.1}))),
            serving: (max_batched_tokens: 2048, max_sequences: 256, chunked_prefill: true, watermark: 0.0),
            dispatch: (policy: {policy}, capture: [1, 2, 4, 8, 16, 32, 64, 128, 256]),
            fidelity: step, parallel: (replicas: {replicas}, router: {router}),
            variants: [(name: \"run\", routes: {routes})])"
        )
    }

    /// Least and most tokens of a prompt and of an answer. Of eight engines half as many, as a load has at most 2^29 tokens.
    fn tokens(&self) -> (u32, u32) {
        if self.replicas == 1 { (256, 768) } else { (128, 384) }
    }

    fn rate_per_s(&self) -> f64 {
        if self.replicas == 1 { 20.0 } else { 40.0 * f64::from(self.replicas) }
    }

    fn output_tokens(&self) -> u64 {
        self.drawn(self.requests).iter().map(|request| u64::from(request.output_tokens)).sum()
    }

    fn drawn(&self, count: u32) -> Vec<Request> {
        let (low, high) = self.tokens();
        let length = Length::Uniform { low, high };
        let lengths = Lengths { prompt: length.clone(), output: length };
        let arrivals = Arrivals::Poisson { rate_per_s: self.rate_per_s() };
        requests(count, &lengths, &arrivals, 7).expect("valid lengths")
    }
}

/// One case in the library: the simulation and its summary, without dense passes beside it.
fn inside(path: &Path) {
    let (built, _) =
        Scenario::load(path, &[]).and_then(|scenario| scenario.build()).expect("a valid scenario");
    let Built { setup, trace, later, fleet, .. } = &built[0];
    let setup = Setup { explain: false, ..setup.clone() };
    let device = Device::new(&setup.hardware, setup.limits).expect("valid limits");
    let mut silent = vec![Silent; fleet.engines() as usize];
    let ledgers = fleet::run(&device, &setup, (trace, later.as_ref()), fleet, &mut silent, false);
    let ledger = ledgers.map(Ledger::of_replicas);
    let summary = Summary::new(&ledger.expect("a load that fits"), &device, &setup.model);
    assert!(summary.output_tokens > 0, "tokens came out");
}

/// What a process took.
#[derive(Clone, Copy)]
struct Taken {
    cpu_s: f64,
    wall_s: f64,
    peak_mb: f64,
}

fn timed(mut command: Command) -> Taken {
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().expect("a program that starts");
    let used = child.wait4().expect("a program that ends");
    assert!(used.status.success(), "{command:?} failed");
    let cpu = used.rusage.utime + used.rusage.stime;
    let wall_s = begin.elapsed().as_secs_f64();
    Taken { cpu_s: cpu.as_secs_f64(), wall_s, peak_mb: used.rusage.maxrss as f64 / 1e6 }
}

/// The least CPU time of some runs of ours, and of as many of the peer's in turn with them, where there is one.
fn best(ours: &dyn Fn() -> Command, requests: u32) -> (Taken, Option<f64>) {
    let mut best: Option<Taken> = None;
    let mut theirs: Option<f64> = None;
    for _ in 0..REPEATS {
        let taken = timed(ours());
        if best.is_none_or(|best| taken.cpu_s < best.cpu_s) {
            best = Some(taken);
        }
        if let Some(peer) = peer(requests) {
            let taken = timed(peer).cpu_s;
            theirs = Some(theirs.map_or(taken, |least| least.min(taken)));
        }
    }
    (best.expect("at least one run"), theirs)
}

/// The peer's dense run of as many requests, whole process, as its users run it.
fn peer(requests: u32) -> Option<Command> {
    let (program, folder) = (std::env::var("INFERENCE_LAB").ok()?, std::env::var("PEER").ok()?);
    // Its settings are of 10,000 requests.
    if requests != 10_000 {
        return None;
    }
    let mut command = Command::new(program);
    command.args(["-q", "-c", "config.toml", "-w", "workload.toml"]).current_dir(folder);
    Some(command)
}
