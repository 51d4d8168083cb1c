//! `radialsim frontier`: what networks cost beside what they are worth.

use super::progress::Bar;
use super::sweep::{PlotArgs, failures, picture_files};
use super::threads;
use radialsim::error::{Result, quoted};
use radialsim::report::{Staged, brief};
use radialsim::study::{self, Frontier, Measure, Shard, Study};
use std::path::PathBuf;

/// Which study, and which quality.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A study that names the quality of each variant.
    #[arg(value_name = "STUDY.ron")]
    study: PathBuf,
    /// Folder for the journal, the table and the report; created if absent. Points of this study that it contains, also from `radialsim sweep`,
    /// are not computed again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The quality to compare costs at: perplexity or kl.
    #[arg(long, value_name = "QUALITY", default_value = "perplexity", value_parser = measure)]
    quality: Measure,
    /// Threads; results do not depend on them. Absent: as many as the machine has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    #[command(flatten)]
    plots: PlotArgs,
    /// No progress bar, no answer on standard output and no remarks.
    #[arg(long, short)]
    quiet: bool,
}

fn measure(name: &str) -> std::result::Result<Measure, String> {
    super::inspect::one_of(&Measure::ALL, name)
}

/// Computes the study and holds its networks against each other.
pub fn run(args: &Args) -> Result<()> {
    let study = Study::load(&args.study)?;
    {
        // What is wrong with the qualities is said before anything runs.
        study.check_tables(args.quality)?;
        let bar = Bar::new(&study.spec.title, args.quiet);
        study::sweep(&study, &args.out, Shard::WHOLE, threads(args.jobs), &bar)?;
    }
    let assembly = study::merge(&study, std::slice::from_ref(&args.out))?;
    let frontier = Frontier::new(&assembly, args.quality)?;
    study::csv::frontier(&frontier, &args.out.join("frontier.csv"))?;
    let name =
        Measure::ALL.into_iter().find(|(known, _)| *known == args.quality).map_or("", |(_, name)| name);
    let command = format!("radialsim frontier {} --out DIR --quality {name}", quoted(&study.name()));
    let report = frontier.report(&command);
    picture_files(&report.charts, &args.out, "frontier", &args.plots)?;
    let page = report.page.html();
    let path = args.out.join("frontier.html");
    Staged::create(&path)?.finish(|out| out.write_all(page.as_bytes()))?;
    if !args.quiet {
        super::print(&format!("{}{}\n", brief::sentences(&report.answer), path.display()))?;
    }
    failures(&study, &report, args.quiet)
}
