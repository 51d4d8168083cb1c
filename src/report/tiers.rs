//! The table of layers that came over a link.

use super::cells::{cells, named};
use super::sheet::percent;
use crate::metrics::TierSummary;
use crate::scenario::{SeedRun, VariantOutcome};

/// What the layer cache did; nothing where all layers are resident.
pub(super) fn table(variants: &[VariantOutcome]) -> String {
    let streaming = |variant: &VariantOutcome| variant.first().summary.tiers.is_some();
    if !variants.iter().any(streaming) {
        return String::new();
    }
    type Column = (&'static str, fn(&SeedRun, &TierSummary) -> f64, fn(f64) -> String);
    let count = |number: f64| format!("{number:.0}");
    let columns: [Column; 7] = [
        ("layer\nvisits", |_, all| all.fetches.visits as f64, count),
        ("hit\n%", |_, all| all.hit_rate.unwrap_or(f64::NAN), percent),
        ("on\ndemand", |_, all| all.fetches.demanded as f64, count),
        ("pre-\nfetched", |_, all| all.fetches.prefetched as f64, count),
        ("of them\nused", |_, all| all.fetches.prefetch_used as f64, count),
        ("GB\nfetched", |_, all| all.fetched_bytes / 1e9, |bytes| format!("{bytes:.1}")),
        ("link\nbusy %", |run, all| all.link_busy_s * 1e12 / run.ledger.engine_ps().max(1) as f64, percent),
    ];
    let mut sheet = named(variants);
    for (header, of, show) in columns {
        let of = |run: &SeedRun| run.summary.tiers.as_ref().map_or(f64::NAN, |all| of(run, all));
        let shown = |number: f64| if number.is_nan() { "-".into() } else { show(number) };
        sheet = sheet.numbers(header, cells(variants, of, shown));
    }
    sheet.render() + "A visit is a group's at its layer; a hit finds the layer on the device or on its way.\n"
}
