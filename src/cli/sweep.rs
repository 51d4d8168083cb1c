//! `radialsim sweep` and `radialsim merge`: studies.

use super::progress::Bar;
use super::threads;
use radialsim::error::{InputError, Result};
use radialsim::plot::{Chart, Ink};
use radialsim::report::{Staged, brief};
use radialsim::study::{self, Assembly, Report, Shard, Study};
use std::path::{Path, PathBuf};

/// Which study, and how it is computed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The study.
    #[arg(value_name = "STUDY.ron")]
    study: PathBuf,
    /// Folder for the journal, the tables and the report; created if absent. Points of this study that it contains are not computed again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Threads; results do not depend on them. Absent: as many as the machine has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Computes only this part, such as 2/7, and writes no tables; `radialsim merge` writes them when all parts are complete.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    #[command(flatten)]
    plots: PlotArgs,
    /// No progress bar and no remarks.
    #[arg(long, short)]
    quiet: bool,
}

/// Which study, and where its parts lie.
#[derive(Debug, clap::Args)]
pub struct MergeArgs {
    /// The study.
    #[arg(value_name = "STUDY.ron")]
    study: PathBuf,
    /// Folders that `radialsim sweep --shard` wrote.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Folder for the tables and the report.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    plots: PlotArgs,
    /// No remarks.
    #[arg(long, short)]
    quiet: bool,
}

/// Pictures beside the report, which has them all.
#[derive(Debug, clap::Args)]
pub struct PlotArgs {
    /// Writes each plot of the report as an SVG file, too.
    #[arg(long)]
    svg: bool,
    /// Writes each plot of the report as a PNG file, too.
    #[arg(long)]
    png: bool,
}

/// Computes a study, or a part of one.
pub fn run(args: &Args) -> Result<()> {
    let study = Study::load(&args.study)?;
    let done = {
        let bar = Bar::new(&study.spec.title, args.quiet);
        study::sweep(&study, &args.out, args.shard.unwrap_or(Shard::WHOLE), threads(args.jobs), &bar)?
    };
    let remark = |text: &str| {
        if !args.quiet {
            super::say(text)
        }
    };
    remark(&format!("{} points computed, {} known from before", done.computed, done.known));
    if let Some(Shard { index, count }) = args.shard.filter(|shard| shard.count > 1) {
        remark(&format!("shard {index} of {count} is complete; `radialsim merge` writes the tables"));
        return Ok(());
    }
    let assembly = study::merge(&study, std::slice::from_ref(&args.out))?;
    write(&assembly, &args.out, &args.plots, threads(args.jobs), args.quiet)
}

/// Joins the parts of a study.
pub fn merge(args: &MergeArgs) -> Result<()> {
    let study = Study::load(&args.study)?;
    let assembly = study::merge(&study, &args.folders)?;
    std::fs::create_dir_all(&args.out).map_err(radialsim::error::Error::io(&args.out, "make"))?;
    write(&assembly, &args.out, &args.plots, threads(None), args.quiet)
}

/// The tables, the report and its plots.
fn write(assembly: &Assembly, out: &Path, plots: &PlotArgs, threads: usize, quiet: bool) -> Result<()> {
    let report = study::write(assembly, out, threads)?;
    picture_files(&report.charts, out, "plot", plots)?;
    if !quiet {
        let page = out.join("report.html");
        super::print(&format!("{}{}\n", brief::sentences(&report.answer), page.display()))?;
    }
    failures(assembly.study, &report, quiet)
}

/// Writes pictures beside a report, as far as they are wanted.
pub fn picture_files(charts: &[Chart], out: &Path, name: &str, plots: &PlotArgs) -> Result<()> {
    let file = |name: &str, bytes: &[u8]| Staged::create(out.join(name))?.finish(|to| to.write_all(bytes));
    for (index, chart) in charts.iter().enumerate() {
        if plots.svg {
            file(&format!("{name}-{:02}.svg", index + 1), chart.svg(Ink::Paper).as_bytes())?;
        }
        if plots.png {
            file(&format!("{name}-{:02}.png", index + 1), &png(chart)?)?;
        }
    }
    Ok(())
}

/// Says how many rows failed, and why the first one did; a study of which all did is wrong.
pub fn failures(study: &Study, report: &Report, quiet: bool) -> Result<()> {
    let Report { failed, remarked, rows, .. } = report;
    if let Some((count, first)) = remarked.as_ref().filter(|_| !quiet) {
        super::say(&format!("warning: {count} of {rows} rows have a `remark`; the first: {first}"));
    }
    match failed {
        Some((count, first)) if count == rows => {
            let expected = format!("a study of which at least one point runs; the first fails with: {first}");
            Err(InputError::expected(expected).found(format!("{count} failed")).file(&study.path).into())
        }
        Some((count, first)) if !quiet => {
            super::say(&format!(
                "{count} of {rows} rows failed and say why under `failure`; the first: {first}"
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "png")]
fn png(chart: &Chart) -> Result<Vec<u8>> {
    chart.png().map_err(|said| {
        InputError::expected(format!("a chart that can be drawn: {said}")).key("--png").into()
    })
}

#[cfg(not(feature = "png"))]
fn png(_: &Chart) -> Result<Vec<u8>> {
    Err(InputError::expected("a program built with the feature png; --svg needs none").key("--png").into())
}
