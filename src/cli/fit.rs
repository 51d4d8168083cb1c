//! `radialsim fit`: measured tables in, a fitted profile out.

use super::fit_args::Args;
use super::print;
use radialsim::calib::{self, FolderFit, Operator, TableFormat, kineto};
use radialsim::error::{InputError, Result};
use radialsim::hw::Hardware;
use radialsim::meter;
use radialsim::report::{Staged, expert_fits, fits, layer_fits, metered, profiled, skipped};
use std::path::Path;

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

impl From<In> for TableFormat {
    fn from(format: In) -> TableFormat {
        match format {
            In::Fp8 => TableFormat::Fp8,
            In::Fp8Block => TableFormat::Fp8Block,
            In::Nvfp4 => TableFormat::Nvfp4,
        }
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
        FolderFit::Layers(fitted) => return Ok(layer_fits(&fitted)),
        FolderFit::Operators(reports, experts) => (reports, experts),
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
