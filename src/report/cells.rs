//! Numbers of variants as cells and columns of tables.

use super::sheet::{Sheet, digits, times};
use crate::metrics::Spread;
use crate::scenario::{SeedRun, VariantOutcome};
use crate::units::{PS_PER_S, SourceKind};

/// Starts a sheet with the names of the variants.
pub(super) fn named(variants: &[VariantOutcome]) -> Sheet {
    Sheet::new().words("variant", variants.iter().map(|variant| &variant.name))
}

/// Of each variant, the mean over its runs.
pub(super) fn means(variants: &[VariantOutcome], of: impl Fn(&SeedRun) -> f64) -> Vec<f64> {
    variants.iter().map(|variant| variant.mean(&of)).collect()
}

/// Of each variant, the mean over its runs as text.
pub(super) fn cells(
    variants: &[VariantOutcome],
    of: impl Fn(&SeedRun) -> f64,
    show: impl Fn(f64) -> String,
) -> Vec<String> {
    means(variants, of).into_iter().map(show).collect()
}

/// A column of times under a header that gets their unit.
pub(super) fn timed(
    sheet: Sheet,
    header: &str,
    variants: &[VariantOutcome],
    of: impl Fn(&SeedRun) -> f64,
) -> Sheet {
    let (unit, cells) = times(&means(variants, of));
    sheet.numbers(&format!("{header}\n{unit}"), cells)
}

/// Seconds with a pass in flight; of several engines, the mean.
pub(super) fn pass_s(run: &SeedRun) -> f64 {
    run.ledger.pass_ps as f64 / PS_PER_S as f64 / f64::from(run.ledger.engines())
}

/// Share of the first row's pass time that a row saves; none where it has another number of engines.
pub(super) fn saved_share(first: &VariantOutcome, variant: &VariantOutcome) -> Option<f64> {
    let engines = |variant: &VariantOutcome| variant.first().ledger.engines();
    (engines(first) == engines(variant)).then(|| 1.0 - variant.mean(pass_s) / first.mean(pass_s))
}

/// Of a distribution that may be one of nothing; not a number then.
pub(super) fn of(spread: Option<Spread>, of: fn(&Spread) -> f64) -> f64 {
    spread.as_ref().map_or(f64::NAN, of)
}

/// With three digits.
pub(super) fn three(number: f64) -> String {
    digits(number, 3)
}

/// From the most to the least trustworthy.
pub(super) const SOURCES: [SourceKind; SourceKind::ALL.len()] = SourceKind::ALL;

pub(super) fn seconds(ps: f64) -> f64 {
    ps / PS_PER_S as f64
}
