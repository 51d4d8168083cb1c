//! `radialsim validate e2e`: mean TTFT and TPOT of measured closed loops beside those that are simulated.

use super::gate;
use crate::cli::{print, say};
use radialsim::error::{InputError, Result};
use radialsim::meter::{MeasuredEnd, read_ends};
use radialsim::report::{End, ends, skipped};
use radialsim::scenario::{self, Scenario};
use radialsim::sim::Silent;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// What is taken of every row.
const BASE: &str = include_str!("e2e.ron");

/// Shortest lengths of vLLM's rows, as a share of those stated: the scripts draw 80 to 100 % (InferenceX, `--random-range-ratio 0.8`).
const VLLM_SHORTEST: f64 = 0.8;

/// A table, and what is done otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The table: CSV with columns `model_path`, `system`, `backend`, `gemm_quant_mode`, `tp_size`, `isl`, `osl`, `batch_size` (clients), and
    /// means in ms: `silicon_ttft_ms`, `silicon_tpot_ms`.
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
    /// Requests of each client.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    rounds: u32,
    /// Shortest prompt and answer, as a share of those of the row; lengths are drawn evenly from there to the row's. Absent: 0.8 for vLLM, as the
    /// scripts of those rows draw them (InferenceX); 1 for TensorRT-LLM, whose rows state no other lengths.
    #[arg(long, value_name = "SHARE")]
    shortest: Option<f64>,
    /// Sets a key of the scenario anew, as in `simulate`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Exit code 1 if the mean error of TPOT is above this.
    #[arg(long, value_name = "PERCENT")]
    gate: Option<f64>,
    /// No remarks.
    #[arg(long, short)]
    quiet: bool,
}

/// Simulates each row, compares, and fails where the gate is not met.
pub fn run(args: &Args) -> Result<()> {
    if let Some(share) = args.shortest.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
        return Err(InputError::expected("a share above 0, at most 1").key("--shortest").found(share).into());
    }
    if let Some(gate) = args.gate.filter(|gate| !(gate.is_finite() && *gate > 0.0)) {
        return Err(InputError::expected("a number of percent above 0").key("--gate").found(gate).into());
    }
    let table = read_ends(&args.file)?;
    let rows: Vec<End> = table.rows.par_iter().map(|row| simulate(row, args)).collect::<Result<_>>()?;
    print(&(ends(&rows) + &skipped(&table.skipped)))?;
    if !args.quiet {
        say(&format!(
            "note: assumed of every row: a closed loop of `batch_size` clients that send {} requests each, all at once at the start and then one \
             after another; lengths {}; `--set` changes what src/cli/validate/e2e.ron holds",
            args.rounds,
            args.shortest.map_or_else(
                || format!("as stated, of vLLM from {VLLM_SHORTEST} of `isl` and `osl` up"),
                |share| format!("from {share} of `isl` and `osl` up"),
            )
        ));
    }
    let errors = radialsim::calib::PercentErrors::of(rows.iter().map(|end| (end.said.1, end.row.tpot_s)));
    errors.map_or(Ok(()), |errors| gate(args.gate, errors.mean, "TPOT"))
}

/// The row, simulated.
fn simulate(row: &MeasuredEnd, args: &Args) -> Result<End> {
    let scenario = Scenario::from_text(BASE, Path::new("e2e.ron"), &settings(row, args)?)?;
    let (outcome, _) = scenario::run(&scenario, 1, &(), |_, _| Silent)?;
    let summary = &outcome.variants[0].first().summary;
    let tpot_s = summary.tpot_s.map_or(f64::NAN, |spread| spread.mean);
    Ok(End { row: row.clone(), said: (summary.ttft_s.mean, tpot_s) })
}

/// What the row says of the scenario, then what the user does.
fn settings(row: &MeasuredEnd, args: &Args) -> Result<Vec<String>> {
    let formats = match row.precision.as_str() {
        "bf16" | "bfloat16" | "fp16" | "float16" => None,
        // Checkpoints in fp8 come with their KV cache in fp8, and the engines' settings of the tables say so; both engines multiply in 8 bits.
        "fp8" => Some(r#"formats={"weights":"fp8","activations":"bf16","kv":"fp8","products":"fp8"}"#),
        other => {
            let wrong = InputError::expected("bf16, fp16 or fp8").key("gemm_quant_mode").line(row.line);
            return Err(wrong.found(other).file(&args.file).into());
        }
    };
    let (engine, collectives, shortest) = match row.engine.as_str() {
        "vllm" => ("vllm-v1", "vllm", VLLM_SHORTEST),
        "trtllm" | "tensorrt-llm" => ("tensorrt-llm", "trtllm", 1.0),
        other => {
            let wrong = InputError::expected("vllm or trtllm").key("backend").line(row.line);
            return Err(wrong.found(other).file(&args.file).into());
        }
    };
    let lengths = |name: &str, most: u32| {
        let low = ((f64::from(most) * args.shortest.unwrap_or(shortest)) as u32).max(1);
        format!(r#"workload.requests.lengths.{name}={{"Uniform":{{"low":{low},"high":{most}}}}}"#)
    };
    let mut all = vec![
        format!("engine={engine}"),
        format!("model={}", row.model),
        format!("hardware={}", row.hardware),
        format!("serving.max_sequences={}", row.clients),
        format!("workload.requests.count={}", row.clients * args.rounds),
        format!("workload.requests.arrivals.Clients.count={}", row.clients),
        lengths("prompt", row.prompt_tokens),
        lengths("output", row.output_tokens),
    ];
    if row.devices > 1 {
        all.push(format!(r#"parallel={{"tensor":{},"collectives":"{collectives}"}}"#, row.devices));
    }
    all.extend(formats.map(str::to_owned));
    all.extend(args.settings.iter().cloned());
    Ok(all)
}
