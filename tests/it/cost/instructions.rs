//! What a run costs in instructions, which do not depend on the machine's mood: counted by valgrind's callgrind, where it is installed.

use std::path::Path;
use std::process::Command;

/// Whether there is a valgrind to count with.
fn counts() -> bool {
    let there = Command::new("valgrind").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("skipped: no valgrind on this machine (apt-get install valgrind)");
    }
    there
}

/// Instructions of `simulate` on a scenario of so many requests, in millions.
fn instructions(folder: &Path, requests: u32, sequences: u32, output: u32, routes: &str) -> f64 {
    let scenario = folder.join("scenario.ron");
    let text = format!(
        "(title: \"counted\", model: \"llama-3.1-8b\", hardware: \"nvidia-h100-sxm\", seed: 7,
        workload: (requests: (count: {requests}, lengths: (prompt: Fixed(64), output: Fixed({output})), arrivals: Closed)),
        serving: (max_batched_tokens: 2048, max_sequences: {sequences}, chunked_prefill: true),
        dispatch: (policy: aligned, capture: [1, 2, 4, 8, 16, 32, 64, 128, 256]),
        fidelity: step,
        variants: [(name: \"run\", routes: Method({routes}))])"
    );
    std::fs::write(&scenario, text).expect("a file");
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", env!("CARGO_BIN_EXE_radialsim")])
        .args(["simulate", "--threads", "1"])
        .arg(&scenario)
        .output()
        .expect("valgrind starts");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :")).expect("a count");
    line.1.trim().parse::<f64>().expect("a number") / 1e6
}

/// A pass in which nobody comes or goes costs the same whoever is in it: 16 times as many sequences may cost no more than half again.
#[test]
fn a_dense_pass_costs_the_same_at_any_batch() {
    if !counts() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // 1,000 passes more; what comes before and after is the same.
    let of_passes = |sequences| {
        let run = |output| instructions(folder.path(), sequences, sequences, output, "Dense");
        run(1200) - run(200)
    };
    let (few, many) = (of_passes(16), of_passes(256));
    assert!(
        many < 1.5 * few,
        "1,000 passes of 16 sequences: {few:.1} million instructions, of 256: {many:.1}"
    );
}

/// Where every token has a route of its own, twice the tokens cost twice as much, within a tenth.
#[test]
fn routes_of_their_own_cost_by_the_token() {
    if !counts() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let routes = "IndependentSkips(skip: 0.25, branches: Separately, kv: project_only)";
    let run = |requests| instructions(folder.path(), requests, 32, 100, routes);
    let (none, once, twice) = (run(32), run(32 * 5), run(32 * 9));
    let (first, second) = (once - none, twice - once);
    assert!(
        (second / first - 1.0).abs() < 0.1,
        "the second as many requests: {second:.1} million, {first:.1}"
    );
}
