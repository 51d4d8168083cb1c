//! `radialsim calibrate`: measures the adapter of this machine and fits a profile to it.

use super::{print, say};
use radialsim::calib::{Records, fit_adapter};
use radialsim::error::{Error, InputError, Result};
use radialsim::hw::Hardware;
use radialsim::report::{Staged, adapter_fits};
use radialsim::units::Dtype;
use std::path::PathBuf;

/// What to measure, and where the results go.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Writes the profile here.
    #[arg(long, value_name = "FILE.ron")]
    pub out: PathBuf,
    /// Writes the raw rows here, one JSON object a line, the environment first.
    #[arg(long, value_name = "FILE.jsonl")]
    pub records: Option<PathBuf>,
    /// Fits to rows of an earlier calibration and measures nothing.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "records")]
    pub from: Option<PathBuf>,
    /// Share of the rows that is fitted, for curves of the error over the number of rows.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub share: f64,
    /// Profile that supplies the other constants: power, capacity, links.
    #[arg(long, value_name = "PROFILE", default_value = "generic-cpu-2core")]
    pub base: String,
    /// Formats of weights, of f32, f16, int8, int4.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "int4,int8", value_parser = format)]
    pub formats: Vec<Dtype>,
    /// How often every call is visited, minutes apart, in an order of its own each time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub visits: u32,
    /// Seconds of a visit; slow kernels take longer.
    #[arg(long, value_name = "S", default_value_t = 0.01)]
    pub seconds: f64,
    /// Measures only one of N calls, for a first look.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub one_in: u32,
    /// Spread between visits, in percent, above which the machine is too noisy to trust: exit code 1.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    pub noise_gate: f64,
    /// The adapter whose name contains this; absent: the strongest.
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// The day, for the records.
    #[arg(long, value_name = "DATE", default_value = "no date given")]
    pub date: String,
    /// No progress bar and no remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

fn format(text: &str) -> std::result::Result<Dtype, String> {
    let all = [Dtype::F32, Dtype::F16, Dtype::Int8, Dtype::Int4];
    let known = all.into_iter().find(|dtype| dtype.to_string() == text);
    known.ok_or_else(|| "expected f32, f16, int8 or int4".to_owned())
}

/// Measures and fits.
pub fn run(args: &Args) -> Result<()> {
    for (key, value, most) in [("--share", args.share, 1.0), ("--seconds", args.seconds, 3600.0)] {
        if !(value > 0.0 && value <= most) {
            let expected = format!("a number above 0, at most {most}");
            return Err(InputError::expected(expected).key(key).found(value).into());
        }
    }
    let base = Hardware::datasheet(&args.base).or_else(|_| Hardware::resolve(&args.base))?;
    let out = Staged::create(&args.out)?;
    let kept = args.records.as_ref().map(Staged::create).transpose()?;
    let records = match &args.from {
        Some(path) => Records::read(path)?,
        None => measure(args)?,
    };
    let name = args.out.file_name().and_then(|name| name.to_str()).unwrap_or("adapter");
    let name = name.trim_end_matches(".ron").trim_end_matches(".fitted");
    let (hw, fitted) = fit_adapter(&base, &records, name, args.share)?;
    if let Some(file) = kept {
        file.finish(|out| out.write_all(records.text().as_bytes()))?;
    }
    out.finish(|out| out.write_all(hw.text().as_bytes()))?;
    print(&adapter_fits(&fitted))?;
    let noise = records.drift_percent();
    if noise > args.noise_gate {
        return Err(Error::Gate(format!(
            "the machine is too noisy to trust: two visits of a call differ by {noise:.1} % in the median, and {} % were allowed",
            args.noise_gate
        )));
    }
    if !args.quiet {
        say(&format!("visits of a call differ by {noise:.1} % in the median"));
        say(&match &records.environment.drawn {
            Some(drawn) => format!("energy: {}", drawn.counter),
            None => {
                format!("energy: no counter can be read here; constants of power are those of {}", base.name)
            }
        });
    }
    Ok(())
}

#[cfg(feature = "gpu")]
fn measure(args: &Args) -> Result<Records> {
    use radialsim::gpu::{Gpu, calibrate};
    use radialsim::scenario::Progress;

    let gpu = Gpu::open(args.adapter.as_deref())?;
    let plan = calibrate::CalibrationPlan {
        formats: args.formats.clone(),
        visits: args.visits,
        seconds: args.seconds,
        one_in: args.one_in as usize,
        date: args.date.clone(),
    };
    let bar = super::progress::Bar::new("calibrate", args.quiet);
    calibrate::measure(gpu, &plan, |visits| {
        bar.begin(visits as u64);
        bar.output(1);
    })
}

#[cfg(not(feature = "gpu"))]
fn measure(_: &Args) -> Result<Records> {
    Err(super::no_gpu())
}
