//! What a study leaves in its folder beside the journal.

use super::{Assembly, Report, Study, csv, report};
use crate::error::{Result, quoted};
use crate::report::Staged;
use std::path::Path;

/// Writes the tables (`points.csv`, `points.parquet` with the feature, `answers.csv` where there are searches) and `report.html` into `out`.
/// Returns the report. The files are the same for any number of threads.
///
/// # Errors
/// Those of [`report`] and [`csv::points`].
///
/// # Panics
/// Where the system starts no threads.
pub fn write(assembly: &Assembly, out: &Path, threads: usize) -> Result<Report> {
    assembly.columns()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
    let (tables, report) = pool.install(|| {
        let csv = || csv::points(assembly, &out.join("points.csv"));
        rayon::join(
            || rayon::join(csv, || parquet(assembly, out)),
            || report(assembly, &command(assembly.study), 1),
        )
    });
    tables.0.and(tables.1)?;
    if !assembly.study.spec.searches.is_empty() {
        csv::answers(&assembly.answers, &out.join("answers.csv"))?;
    }
    let report = report?;
    let page = report.page.html();
    Staged::create(out.join("report.html"))?.finish(|to| to.write_all(page.as_bytes()))?;
    Ok(report)
}

/// What makes the report again, wherever the study lies and wherever it is written to: the same bytes.
fn command(study: &Study) -> String {
    format!("radialsim sweep {} --out DIR", quoted(&study.name()))
}

#[cfg(feature = "parquet")]
fn parquet(assembly: &Assembly, out: &Path) -> Result<()> {
    super::parquet::points(assembly, &out.join("points.parquet"))
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &Assembly, _: &Path) -> Result<()> {
    Ok(())
}
