//! The bytes that a scenario's runs may take, beside those that the program takes when it runs them.

use radialsim::scenario::{Footprint, Scenario};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most bytes that the program held while it ran a scenario on so many threads, but for its last milliseconds: looked up while it runs, since what
/// `wait4` says of a child counts the memory of whoever started it.
fn peak(file: &Path, threads: usize) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_radialsim"))
        .args(["simulate", "-q", "--threads", &threads.to_string()])
        .arg(file)
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().expect("it can be waited for").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let held = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        // Until it is another program, the child shares the memory of this one.
        let own = std::fs::read_to_string(format!("/proc/{}/comm", child.id()))
            .is_ok_and(|name| name.trim() == "radialsim");
        most = most.max(held.filter(|_| own).unwrap_or(0u64));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let status = child.wait().expect("it is over");
    assert!(status.success(), "{}", file.display());
    assert!(most > 1000, "{most} KiB");
    most << 10
}

/// What is said of it before.
fn bound(file: &Path, threads: usize) -> Footprint {
    let scenario = Scenario::load(file, &[]).expect("a scenario");
    let (built, _) = scenario.build().expect("it is built");
    Footprint::of(&scenario, &built, threads)
}

/// A server with these variants and so many requests.
fn serving(folder: &Path, name: &str, requests: u32, more: &str, routes: &str) -> PathBuf {
    let file = folder.join(format!("{name}.ron"));
    let text = format!(
        r#"(title: "{name}", model: "llama-3.1-8b", hardware: "nvidia-h100-sxm",
        workload: (requests: (count: {requests}, lengths: (prompt: Uniform(low: 64, high: 384), output: Uniform(low: 64, high: 384)),
            arrivals: Poisson(rate_per_s: 20.0))),
        serving: (max_batched_tokens: 2048, max_sequences: 128, chunked_prefill: true), {more} seed: 1, fidelity: step,
        variants: [(name: "dense", routes: Method(Dense)), (name: "routed", routes: Method({routes}))])"#
    );
    std::fs::write(&file, text).expect("a scenario file");
    file
}

/// Every kind of route, several seeds and threads, replicas, a power cap: the program takes no more than was said, and what was said is no
/// blank cheque.
#[cfg(target_os = "linux")]
#[test]
fn no_run_takes_more_than_was_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let aligned = "dispatch: (policy: aligned),";
    let cases = [
        (
            "sets",
            2000,
            aligned.to_owned(),
            "CorrelatedSkips(skip: 0.25, correlation: 0.5, share: Step, branches: Jointly, kv: project_only)",
            1,
        ),
        ("holes", 150, aligned.to_owned(), "IndependentSkips(skip: 0.25, branches: Separately, kv: none)", 1),
        (
            "walks",
            60,
            "dispatch: (policy: hop),".to_owned(),
            "Radial(transitions: Banded(back: 4, ahead: 6), start: Layer(0), hops: Fixed(24), reuse: true, kv: unified)",
            1,
        ),
        (
            "seeds",
            500,
            format!("seeds: 4, {aligned}"),
            "IndependentSkips(skip: 0.25, branches: Separately, kv: project_only)",
            2,
        ),
        (
            "replicas",
            500,
            format!("{aligned} parallel: (replicas: 4, router: least_outstanding),"),
            "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)",
            1,
        ),
        (
            "capped",
            200,
            format!("{aligned} limits: (power_w: 500.0),"),
            "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)",
            1,
        ),
    ];
    for (name, requests, more, routes, threads) in cases {
        let file = serving(folder.path(), name, requests, &more, routes);
        let (said, took) = (bound(&file, threads), peak(&file, threads));
        eprintln!("{name}: {} MB said, {} MB taken", said.at_most() / 1_000_000, took / 1_000_000);
        assert!(took <= said.at_most(), "{name}: {took} bytes, {said:?}");
        // Prices are as many as there are sizes of groups, and these runs are short.
        let rare = ["times between tokens, if no two sequences share a pass", "prices"];
        let sure: u64 =
            said.parts.iter().filter(|(what, _)| !rare.contains(what)).map(|(_, bytes)| bytes).sum();
        assert!(sure <= 4 * took, "{name}: {took} bytes, {said:?}");
    }
}

/// More requests, variants, seeds or threads never take less; a shipped example of each kind of fidelity is within what was said.
#[cfg(target_os = "linux")]
#[test]
fn more_is_never_less() {
    let folder = tempfile::tempdir().expect("a folder");
    let routes = "IndependentSkips(skip: 0.25, branches: Jointly, kv: none)";
    let of = |requests, more: &str, threads| {
        let more = format!("dispatch: (policy: aligned), {more}");
        bound(&serving(folder.path(), "more", requests, &more, routes), threads).at_most()
    };
    let one = of(50, "", 1);
    assert!(one < of(100, "", 1) && one < of(50, "seeds: 3,", 1) && one < of(50, "", 2));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/llama-2-70b-skip25-h100.ron");
    assert!(peak(&file, 2) <= bound(&file, 2).at_most());
}
