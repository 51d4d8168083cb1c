//! The options of `radialsim fit`.

use radialsim::calib::Fit;
use std::path::PathBuf;

/// What to fit to what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The profile to begin with: a file, or the name of a shipped one. Its datasheet numbers stay.
    #[arg(long, value_name = "BASE", required_unless_present = "fabric")]
    pub hw: Option<String>,
    /// The fabric to begin with: a file, or the name of a shipped one. Fits its curves to `nccl*`, `allreduce_custom*`, `allreduce_vllm*` and
    /// `wideep_deepep_*` (.csv) of `--data`, and to `--pairs`; with `--from`, also prints the error of what that fabric would lend.
    #[arg(long, value_name = "BASE", conflicts_with_all = ["hw", "energy", "caps", "error", "within"])]
    pub fabric: Option<String>,
    /// Table of sends between two devices (columns of Vidur): for `--fabric`; a network is fitted to its rows across machines.
    #[arg(long, value_name = "FILE.csv", requires = "fabric")]
    pub pairs: Option<PathBuf>,
    /// Folder with tables `gemm*`, `context_attention*`, `generation_attention*` (.csv or .parquet) in 16 bits, `gemm_fp8*`,
    /// `gemm_fp8_block*`, `gemm_nvfp4*`, `context_attention_fp8kv*`, `generation_attention_fp8kv*`, of whole expert layers `moe*`; or with
    /// `MODEL_dense.csv`,
    /// `MODEL_per_sequence.csv` and `MODEL_attention.csv` of LLMServingSim.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["from", "energy", "caps", "pairs", "kineto"])]
    pub data: Option<PathBuf>,
    /// Adds the layers of `--data` to BASE, a profile that was fitted to those of another model, or of other parts of the same: its constants
    /// and other shapes stay. A fitted profile wins.
    #[arg(long, requires = "data", conflicts_with_all = ["from", "within", "fabric"])]
    pub add: bool,
    /// Profile of PyTorch (`torch.profiler`, `record_shapes=True`, `export_chrome_trace`; .json or .json.gz): fits products and attention to
    /// their times. Operators with too few shapes stay as in BASE.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "from", "energy", "caps", "fabric"])]
    pub kineto: Option<PathBuf>,
    /// Lends the fitted corrections of this profile to BASE. With `--data`, operators that have a table are then fitted to it.
    #[arg(long, value_name = "PROFILE")]
    pub from: Option<String>,
    /// Table of measured serving runs (columns of the ML.ENERGY benchmark): fits the constants of power, step and sampler on top of
    /// what BASE has; a fitted profile wins, and all else in it stays as it is.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["data", "from"])]
    pub energy: Option<PathBuf>,
    /// Table of measured power caps and clock locks (as `validate power` reads it): fits idle and static power, voltages and memory under other
    /// clocks, to the rows of the device of BASE where there are two workloads of it, else to all. All else stays as it is.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["data", "from"])]
    pub caps: Option<PathBuf>,
    /// Expected mean error of a loan, in percent: `22` for all operators, `gemm=15` for one.
    #[arg(long, value_name = "[OP=]PERCENT")]
    pub error: Vec<String>,
    /// Prices operators without a table in 16 bits by their table in another format, with this expected mean error in percent: `30` for all,
    /// `gemm=30` for one.
    #[arg(long, value_name = "[OP=]PERCENT", requires = "data")]
    pub within: Vec<String>,
    /// The profile to write.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Name of the fitted profile; without it, that of BASE.
    #[arg(long)]
    pub name: Option<String>,
    /// One of N families is held out for the errors; of layer tables each is, in turn.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=100))]
    pub hold_one_in: u64,
    /// Chooses which.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Fits this share of the rows that are not held out.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub share: f64,
}

impl Args {
    pub fn how(&self) -> Fit {
        Fit { hold_one_in: self.hold_one_in, seed: self.seed, share: self.share }
    }
}
