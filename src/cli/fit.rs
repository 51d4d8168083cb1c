//! `radialsim fit`: measured tables in, a fitted profile out.

use super::print;
use radialsim::calib::{self, Fit, Format, Learned, Operator, kineto};
use radialsim::error::{InputError, Result};
use radialsim::hw::Hardware;
use radialsim::meter;
use radialsim::report::{Staged, expert_fits, fits, layer_fits, metered, profiled, skipped};
use std::path::{Path, PathBuf};

/// The kind of a table.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Op {
    /// Columns m, n, k.
    Gemm,
    /// Columns `batch_size`, isl, step, `num_heads`, `num_key_value_heads`, `head_dim`.
    ContextAttention,
    /// The same.
    GenerationAttention,
    /// Whole expert layers: columns of `moe*.csv`, in all formats unless one is named.
    Experts,
}

impl Op {
    /// The operator; none of whole expert layers.
    pub fn operator(self) -> Option<Operator> {
        match self {
            Op::Gemm => Some(Operator::Gemm),
            Op::ContextAttention => Some(Operator::ContextAttention),
            Op::GenerationAttention => Some(Operator::GenerationAttention),
            Op::Experts => None,
        }
    }
}

/// The format of a table.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum In {
    /// Inputs, weights or the cache in 8-bit floats, one scale a tensor.
    Fp8,
    /// Inputs and weights in 8-bit floats, scales of 128 values and of 128 x 128.
    Fp8Block,
    /// Inputs, weights or the cache in 4-bit floats, a scale for each 16.
    Nvfp4,
}

impl From<In> for Format {
    fn from(format: In) -> Format {
        match format {
            In::Fp8 => Format::Fp8,
            In::Fp8Block => Format::Fp8Block,
            In::Nvfp4 => Format::Nvfp4,
        }
    }
}

/// What to fit to what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The profile to begin with: a file, or the name of a shipped one. Its datasheet numbers stay.
    #[arg(long, value_name = "BASE", required_unless_present = "fabric")]
    hw: Option<String>,
    /// The fabric to begin with: a file, or the name of a shipped one. Fits its curves to `nccl*`, `allreduce_custom*`, `allreduce_vllm*` and
    /// `wideep_deepep_*` (.csv) of `--data`, and to `--pairs`; with `--from`, also says how far off what that fabric would lend is.
    #[arg(long, value_name = "BASE", conflicts_with_all = ["hw", "energy", "caps", "error", "within"])]
    fabric: Option<String>,
    /// Table of sends between two devices (columns of Vidur): for `--fabric`, of a network its rows across machines.
    #[arg(long, value_name = "FILE.csv", requires = "fabric")]
    pub pairs: Option<PathBuf>,
    /// Folder with tables `gemm*`, `context_attention*`, `generation_attention*` (.csv or .parquet) in 16 bits, `gemm_fp8*`,
    /// `gemm_fp8_block*`, `gemm_nvfp4*`, `context_attention_fp8kv*`, `generation_attention_fp8kv*`, of whole expert layers `moe*`; or with `MODEL_dense.csv`,
    /// `MODEL_per_sequence.csv` and `MODEL_attention.csv` of LLMServingSim.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["from", "energy", "caps", "pairs", "kineto"])]
    pub data: Option<PathBuf>,
    /// Adds the layers of `--data` to BASE, a profile that was fitted to those of another model, or of other parts of the same: its constants and other
    /// shapes stay. A fitted profile wins.
    #[arg(long, requires = "data", conflicts_with_all = ["from", "within", "fabric"])]
    add: bool,
    /// Profile of PyTorch (`torch.profiler`, `record_shapes=True`, `export_chrome_trace`; .json or .json.gz): fits products and attention to how
    /// long they took there. Of operators with too few shapes BASE stays as it is.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "from", "energy", "caps", "fabric"])]
    kineto: Option<PathBuf>,
    /// Lends what was fitted for this profile to BASE. With `--data`, before that is fitted: what BASE has tables of is its own.
    #[arg(long, value_name = "PROFILE")]
    pub from: Option<String>,
    /// Table of measured serving runs (columns of the ML.ENERGY benchmark): fits the constants of power, step and sampler on top of
    /// what BASE has; a fitted profile wins, and all else in it stays as it is.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["data", "from"])]
    energy: Option<PathBuf>,
    /// Table of measured power caps and clock locks (as `validate power` reads it): fits idle and static power, voltages and memory under other
    /// clocks, to the rows of the device of BASE where there are two workloads of it, else to all. All else stays as it is.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["data", "from"])]
    caps: Option<PathBuf>,
    /// Mean error in percent to expect of what is lent: `22` of everything, `gemm=15` of an operator.
    #[arg(long, value_name = "[OP=]PERCENT")]
    error: Vec<String>,
    /// Operators without a table in 16 bits that take what `--data` teaches of them in another format, and the mean error in percent to
    /// expect of that: `30` of everything, `gemm=30` of an operator.
    #[arg(long, value_name = "[OP=]PERCENT", requires = "data")]
    within: Vec<String>,
    /// The profile to write.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Name of the fitted profile; without it, that of BASE.
    #[arg(long)]
    pub name: Option<String>,
    /// One of N families is kept aside for the errors; of layer tables each is, in turn.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=100))]
    hold_one_in: u64,
    /// Chooses which.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Fits this share of the rows that are not kept aside.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    share: f64,
}

impl Args {
    fn how(&self) -> Fit {
        Fit { hold_one_in: self.hold_one_in, seed: self.seed, share: self.share }
    }
}

/// Fits, says how wrong the result is, and writes it.
pub fn run(args: &Args) -> Result<()> {
    if let Some(base) = &args.fabric {
        return super::fit_fabric::run(args, base);
    }
    let staged = args.out.as_ref().map(Staged::create).transpose()?;
    // clap asks for one where there is no fabric.
    let base = args.hw.as_deref().unwrap_or_default();
    let mut hardware = match Path::new(base).is_file() {
        true => Hardware::load(base)?,
        false if args.add || args.energy.is_some() || args.caps.is_some() => Hardware::resolve(base)?,
        false => Hardware::datasheet(base)?,
    };
    if let Some(name) = &args.name {
        hardware.name.clone_from(name);
    }
    if !(args.share > 0.0 && args.share <= 1.0) {
        return Err(InputError::expected("a share above 0, at most 1").key("share").found(args.share).into());
    }
    if let Some(from) = &args.from {
        let missing = || InputError::expected("an error for every operator that is lent").key("error");
        let errors: Option<Vec<f64>> = expected("error", &args.error)?.into_iter().collect();
        let errors = errors.ok_or_else(missing)?;
        calib::transfer(&Hardware::resolve(from)?, &mut hardware, |operator| errors[operator as usize])?;
    }
    if let Some(data) = &args.data {
        print(&tables(args, data, &mut hardware)?)?;
    }
    if let Some(path) = &args.kineto {
        let profile = kineto::read(path)?;
        let learned = kineto::fit(&mut hardware, &profile, &args.how())?;
        print(&(profiled(&profile, &learned) + &fits(&learned.reports)))?;
    }
    if let Some(path) = &args.energy {
        energy(path, &mut hardware)?;
    }
    if let Some(path) = &args.caps {
        let table = meter::caps::read(path)?;
        let words = meter::caps::fit(&mut hardware, &table).map_err(|error| error.in_file(path))?;
        print(&format!("{words}\n"))?;
    }
    let Some(staged) = staged else { return Ok(()) };
    let text = hardware.text();
    staged.finish(|out| out.write_all(text.as_bytes()))
}

/// Fits the constants of power, step and sampler to measured serving runs.
fn energy(path: &Path, hardware: &mut Hardware) -> Result<()> {
    let mut table = meter::read(path, hardware)?;
    table.on_one_device();
    let mut points = meter::points(hardware, &mut table)?;
    meter::fit(hardware, &table, &mut points).map_err(|error| error.in_file(path))?;
    let left = meter::left_out(&points, hardware).unwrap_or_default();
    print(
        &(metered(&points, &left)
            + "On models left out of the fit in turn.\n"
            + &skipped(&table.skipped)
            + &meter::assumed()),
    )
}

/// The error to expect of each operator, in the order of [`Operator::ALL`]; later words win.
fn expected(key: &str, words: &[String]) -> Result<[Option<f64>; Operator::ALL.len()]> {
    let mut errors = [None; Operator::ALL.len()];
    for word in words {
        let wrong = || {
            let names = Operator::ALL.map(|(_, name)| name).join(", ");
            let expected = format!("0 to 1000 percent, alone or behind `OPERATOR=` ({names})");
            InputError::expected(expected).key(key).found(word)
        };
        let (name, percent) =
            word.split_once('=').map_or((None, word.as_str()), |(name, rest)| (Some(name), rest));
        let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
        let known = name.is_none_or(|name| Operator::ALL.iter().any(|(_, other)| *other == name));
        if !(0.0..=1000.0).contains(&percent) || !known {
            return Err(wrong().into());
        }
        for (error, (_, other)) in errors.iter_mut().zip(Operator::ALL) {
            if name.is_none_or(|name| name == other) {
                *error = Some(percent);
            }
        }
    }
    Ok(errors)
}

/// Fits every table of the folder. Returns the errors as a text.
fn tables(args: &Args, folder: &Path, hardware: &mut Hardware) -> Result<String> {
    if args.add {
        return Ok(layer_fits(&calib::add_folder(hardware, folder)?));
    }
    let within = expected("within", &args.within)?;
    let (reports, experts) = match calib::fit_folder(hardware, folder, &args.how())? {
        Learned::Layers(fitted) => return Ok(layer_fits(&fitted)),
        Learned::Operators(reports, experts) => (reports, experts),
    };
    if reports.is_empty() {
        return Ok(expert_fits(&experts));
    }
    let mut text = fits(&reports);
    if !experts.is_empty() {
        text.push_str(&expert_fits(&experts));
    }
    for (operator, name) in Operator::ALL {
        let Some(error) = within[operator as usize] else { continue };
        if let Some(from) = calib::lend_within(hardware, operator, error) {
            text.push_str(&format!("{name} in 16 bits is lent by {from}: {error} % expected.\n"));
        }
    }
    Ok(text)
}
