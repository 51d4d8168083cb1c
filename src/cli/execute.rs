//! `radialsim execute`: a real model on the GPU of this machine, layer by layer as its routes say.

use clap::ValueEnum;
use radialsim::batch::{Policy, Visibility};
use std::path::PathBuf;

/// What to run, and where the results go.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["prompt", "prompts", "perplexity"]))]
#[command(group = clap::ArgGroup::new("drawn").multiple(true).args(["top_k", "perplexity"]))]
pub struct Args {
    /// A Hugging Face folder, a .gguf file, or a llama2.c .bin file.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    /// Asks this and streams the answer. A chat model's template is put around it.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Takes the text of --prompt as it is.
    #[arg(long, requires = "prompt")]
    pub raw: bool,
    /// The date that a chat template gets as today's.
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2024-07-26", requires = "prompt")]
    pub date: String,
    /// Runs all prompts of a file: lines of JSON with `text` (template applied already) or `prompt_ids`.
    #[arg(long, value_name = "FILE.jsonl")]
    pub prompts: Option<PathBuf>,
    /// Measures the perplexity of these texts under the routing, and the KL divergence from the model with every layer for every token: `.txt`
    /// whole, `.jsonl` by the key `text`, `.parquet` by the column `text`.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        conflicts_with_all = ["replay", "json", "timeline", "residuals", "residual_plot", "top_k", "trace"]
    )]
    pub perplexity: Vec<PathBuf>,
    /// Tokens of a sequence of --perplexity.
    #[arg(long, value_name = "N", default_value_t = 192, requires = "perplexity", value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub length: u32,
    /// Most tokens that --perplexity measures, spread over the texts.
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "perplexity", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: u32,
    /// The reference of the KL divergence of --perplexity: a model with every layer for every token. Absent: this one.
    #[arg(long, value_name = "PATH", requires = "perplexity")]
    pub teacher: Option<PathBuf>,
    /// Name of the network in the tables of --perplexity. Absent: a description of its routing.
    #[arg(long, value_name = "NAME", requires = "perplexity")]
    pub name: Option<String>,
    /// Writes the rows of --perplexity here, as `train measure` does.
    #[arg(long, value_name = "FILE.csv", requires = "perplexity")]
    pub csv: Option<PathBuf>,
    /// Most tokens to generate for each prompt.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_tokens: u32,
    /// Samples each token from the K most likely, instead of taking the best.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub top_k: Option<u32>,
    /// Divides logits before a draw.
    #[arg(long, value_name = "T", default_value_t = 1.0, requires = "top_k")]
    pub temperature: f64,
    /// Seed of --top-k, and of the resampling for the intervals of --perplexity.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "drawn")]
    pub seed: u64,
    /// Prompts in flight at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// Writes a line of JSON for each prompt.
    #[arg(long, value_name = "FILE.jsonl")]
    pub json: Option<PathBuf>,
    /// Leaves out branches whose residual ratio is below these thresholds, of attention and feed-forward.
    #[arg(long, value_name = "ATTN,FFN", value_parser = thresholds, conflicts_with_all = ["replay", "route"])]
    pub oracle: Option<(f64, f64)>,
    /// What a branch's length is measured against.
    #[arg(long, value_enum, default_value_t = Over::Output)]
    pub ratio: Over,
    /// Layers that an oracle never skips.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', default_value = "0")]
    pub always: Vec<u32>,
    /// Follows a router trace: its requests in order, token by token.
    #[arg(long, value_name = "TRACE", conflicts_with = "route")]
    pub replay: Option<PathBuf>,
    /// File of the router that decides: a skip router, a radial one, or a plain MLP, a safetensors file with f32 tensors `first` (hidden x width
    /// of the stream; absent for a single product) and `second` ((layers + 1) x hidden), whose last option is the exit. Absent: the router of
    /// the model's folder, if it has one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["oracle", "replay", "route"])]
    pub router: Option<PathBuf>,
    /// Most layers that a token visits with a plain MLP; absent: 32. Other routers have their own limit.
    #[arg(long, value_name = "N", requires = "router")]
    pub hops: Option<u32>,
    /// Where a router's decisions are used: on the device, or on the host, which reads them back at every hop.
    #[arg(long, value_enum, default_value_t = Device::Gpu)]
    pub router_device: Device,
    /// One route for all tokens, in the form of a trace: "0 1 2 5f 7".
    #[arg(long, value_name = "STEPS")]
    pub route: Option<String>,
    /// What --route leaves in the KV cache of layers it skips: an action of the trace format.
    #[arg(long, value_name = "ACTION", default_value = "project_only", requires = "route")]
    pub kv: String,
    /// What attention sees in a unified cache: `same_layer`, `one_per_token` or `all_entries`. Absent: what a radial router was trained
    /// with, `same_layer` else.
    #[arg(long, value_name = "WHICH", value_parser = visibility)]
    pub visibility: Option<Visibility>,
    /// How tokens share the device: aligned, `dense_masked`, hop or grouped. Absent: `dense_masked` with an oracle, aligned else.
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    pub policy: Option<Policy>,
    /// Form of the weights on the device.
    #[arg(long, value_enum, default_value_t = Form::Kept)]
    pub precision: Form,
    /// Records the routes that tokens took.
    #[arg(long, value_name = "TRACE")]
    pub trace: Option<PathBuf>,
    /// Writes when every kernel ran, for ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    pub timeline: Option<PathBuf>,
    /// Writes what each layer added to each token, as CSV.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["replay", "route"])]
    pub residuals: Option<PathBuf>,
    /// Draws what each layer added, as SVG.
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["replay", "route"])]
    pub residual_plot: Option<PathBuf>,
    /// The adapter whose name contains this; absent: the strongest.
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// No remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

/// What a branch's length is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// The stream with the branch added.
    Output,
    /// The stream before it.
    Input,
}

/// A form of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// As the file has them.
    Kept,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

#[cfg(feature = "gpu")]
impl From<Form> for radialsim::gpu::Precision {
    fn from(form: Form) -> Self {
        match form {
            Form::Kept => radialsim::gpu::Precision::Kept,
            Form::F32 => radialsim::gpu::Precision::F32,
            Form::F16 => radialsim::gpu::Precision::F16,
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The accelerator.
    Gpu,
    /// The host.
    Host,
}

fn thresholds(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|x: &f64| (0.0..=1e6).contains(x));
    let pair = text.split_once(',').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    pair.ok_or_else(|| "expected two numbers of at least 0, with a comma between: 0.125,0.21".into())
}

/// What attention sees.
fn visibility(text: &str) -> Result<Visibility, String> {
    Visibility::named(text)
        .ok_or_else(|| format!("expected one of {}", Visibility::ALL.map(Visibility::name).join(", ")))
}

/// A dispatch policy that runs on a device.
pub fn policy(text: &str) -> Result<Policy, String> {
    let all = [Policy::Aligned, Policy::DenseMasked, Policy::Hop, Policy::Grouped];
    let known = all.into_iter().find(|policy| policy.name() == text);
    known.ok_or_else(|| format!("expected one of {}", all.map(|policy| policy.name()).join(", ")))
}

/// Without the feature there is nothing to run on.
#[cfg(not(feature = "gpu"))]
pub fn run(_: &Args) -> radialsim::error::Result<()> {
    Err(crate::cli::no_gpu())
}

#[cfg(feature = "gpu")]
pub use with_gpu::run;

#[cfg(feature = "gpu")]
#[path = "execute_run.rs"]
mod with_gpu;
