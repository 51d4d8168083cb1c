//! Reads a large trace from disk and prints the rate and the peak memory:
//! `cargo bench --bench trace_read`, its size set by `RADIALSIM_BENCH_MB` (default 1000).
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

use radialsim::trace::{self, Header, Phase, Request, Role, Route, RouteTable, Run, Stats, Writer};
use radialsim::units::SimTime;
use std::time::Instant;

const PROMPT: u32 = 3000;
const OUTPUT: u32 = 1000;

fn main() {
    let megabytes: u64 = std::env::var("RADIALSIM_BENCH_MB").map_or(1000, |mb| mb.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (ending, routes, per_line) in [
        ("jsonl", 10, 1000),
        ("jsonl", 1000, 1000),
        ("jsonl", 100_000, 1000),
        ("jsonl", 1000, 4),
        ("jsonl", 1000, 1),
        ("jsonl.gz", 1000, 1000),
        ("jsonl.zst", 1000, 1000),
        #[cfg(feature = "parquet")]
        ("parquet", 1000, 1000),
    ] {
        let path = folder.path().join(format!("large.{ending}"));
        // Compressed files are smaller than the text that they hold; the rate is that of the file.
        write(&path, megabytes << 20, routes, per_line);
        let bytes = std::fs::metadata(&path).expect("the file").len();
        // Starts the peak anew at what is resident now, where the system allows it.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let start = Instant::now();
        let stats = Stats::read(&mut trace::open(&path).expect("a header")).expect("a valid trace");
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{ending}, {routes} routes, {per_line} decode tokens a line: {:.0} MB, {} tokens, {seconds:.2} s, {:.0} MB/s, {:.1} M tokens/s, peak {}",
            bytes as f64 / 1e6,
            stats.tokens,
            bytes as f64 / 1e6 / seconds,
            stats.tokens as f64 / 1e6 / seconds,
            peak()
        );
        std::fs::remove_file(&path).expect("the file that was read");
    }
}

/// A trace of about `bytes` whose lines hold `per_line` routes, those of prompts at least 1000.
fn write(path: &std::path::Path, bytes: u64, routes: u32, per_line: u32) {
    let mut table = RouteTable::default();
    for index in 0..routes {
        // Layers 0 to 31 but for those whose bit is set in the index.
        table.push(Route::of_layers((0..32).filter(|layer| index >> layer & 1 == 0)));
    }
    let mut writer = Writer::create(path, &Header::dense("bench", 32)).expect("a folder to write to");
    let mut next = 0_u32;
    let mut route = || {
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (next >> 8) % routes
    };
    let digits = f64::from(routes).log10();
    let per_request = (digits + 1.0) * f64::from(PROMPT + OUTPUT) + 70.0 * f64::from(OUTPUT / per_line + 3);
    for id in 0..(bytes as f64 / per_request) as u64 {
        let mut runs = Vec::new();
        let mut start = 0;
        while start < PROMPT + OUTPUT - 1 {
            let (phase, end) = match start < PROMPT {
                true => (Phase::Prefill, (start + per_line.max(1000)).min(PROMPT)),
                false => (Phase::Decode, (start + per_line).min(PROMPT + OUTPUT - 1)),
            };
            let routes = (start..end).map(|_| route()).collect();
            runs.push(Run { start, phase, role: Role::Plain, routes, accepted: Vec::new() });
            start = end;
        }
        let arrival = SimTime::from_us(id as f64 * 1234.5);
        let request = Request {
            id,
            arrival,
            prompt_tokens: PROMPT,
            output_tokens: OUTPUT,
            priority: 0,
            prefix: vec![id],
            runs,
        };
        writer.request(&request, &table).expect("a valid request");
    }
    writer.finish(&table).expect("a disk with room");
}

/// Peak resident memory, where the system tells it.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".into(), |line| line.trim().to_owned())
}
