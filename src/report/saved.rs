//! Where the time saved against the first variant comes from and where it goes, as a table and as JSON.

use super::cells::{means, named, seconds};
use super::sheet::percent;
use crate::metrics::{Losses, PARTS, TimeSaved};
use crate::scenario::{SeedRun, VariantOutcome};
use serde_json::{Map, Value, json};

/// Title of [`table`].
pub(super) const TITLE: &str = "Where the pass time saved comes from, in % of the pass time of the first row";
/// Title of [`same_passes`].
pub(super) const SAME_PASSES: &str = "The first row does not run dense, so beside it: each row's own passes against the same passes, dense, in % of those";

/// Column heads, in the order of [`PARTS`].
const HEADS: [&str; PARTS.len()] = [
    "ideal\nsaving",
    "union",
    "frag-\nments",
    "skipped\nKV",
    "router",
    "gather,\nscatter",
    "launch",
    "waiting",
    "other",
    "settings",
    "batching",
];

/// What a variant saves against the first: of each seed, added up; none where a run was not explained.
fn sum(first: &VariantOutcome, variant: &VariantOutcome) -> Option<TimeSaved> {
    let pairs = first.runs.iter().zip(&variant.runs);
    let all =
        pairs.map(|(first, run)| TimeSaved::of(&first.ledger, &run.ledger)).collect::<Option<Vec<_>>>()?;
    all.into_iter().reduce(|sum, one| TimeSaved {
        first: sum.first + one.first,
        parts: std::array::from_fn(|part| sum.parts[part] + one.parts[part]),
        arrivals: sum.arrivals + one.arrivals,
    })
}

/// The parts of the time saved, their sum, and what the makespan saves: means over the seeds, in seconds.
pub(super) fn json(first: &VariantOutcome, variant: &VariantOutcome) -> Option<Value> {
    let saved = sum(first, variant)?;
    let mean = |ps: i128| json!(seconds(ps as f64) / variant.runs.len() as f64);
    let mut object = Map::new();
    object.insert("first".into(), mean(saved.first));
    object.extend(PARTS.iter().zip(saved.parts).map(|(part, ps)| ((*part).to_owned(), mean(ps))));
    object.insert("saved".into(), mean(saved.saved()));
    object.insert("arrivals".into(), mean(saved.arrivals));
    object.insert("makespan".into(), mean(saved.saved() + saved.arrivals));
    Some(object.into())
}

/// The parts of the time saved as shares of the pass time of the first row; none where a run was not explained.
pub(super) fn shares(first: &VariantOutcome, variant: &VariantOutcome) -> Option<[f64; PARTS.len()]> {
    let saved = sum(first, variant)?;
    Some(saved.parts.map(|ps| ps as f64 / saved.first.max(1) as f64))
}

/// Parts of a whole in tenths of a percent of it, whose sum is the rounded sum: all are rounded down, and the largest rests up.
fn tenths(parts: &[i128], whole: i128) -> Vec<i64> {
    let exact: Vec<f64> = parts.iter().map(|&part| part as f64 / whole.max(1) as f64 * 1000.0).collect();
    let mut shown: Vec<i64> = exact.iter().map(|tenth| tenth.floor() as i64).collect();
    let sum = (parts.iter().sum::<i128>() as f64 / whole.max(1) as f64 * 1000.0).round() as i64;
    let mut by_rest: Vec<usize> = (0..parts.len()).collect();
    by_rest.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())));
    let missing = usize::try_from(sum - shown.iter().sum::<i64>()).unwrap_or(0);
    by_rest.into_iter().take(missing).for_each(|index| shown[index] += 1);
    shown
}

/// The parts of each row's time saved; nothing where there is one row, or no run was explained. Parts that are 0 in all rows are left out.
pub(super) fn table(variants: &[VariantOutcome]) -> String {
    let Some((first, others)) = variants.split_first() else { return String::new() };
    let sums: Vec<Option<TimeSaved>> = others.iter().map(|variant| sum(first, variant)).collect();
    if sums.iter().all(Option::is_none) {
        return String::new();
    }
    let rows: Vec<Option<Vec<i64>>> =
        sums.iter().map(|sum| Some(tenths(&sum.as_ref()?.parts, sum.as_ref()?.first))).collect();
    let cell = |tenths: Option<i64>| tenths.map_or("-".into(), |tenths| percent(tenths as f64 / 1000.0));
    let mut sheet = named(variants);
    for (part, head) in HEADS.iter().enumerate() {
        let column: Vec<Option<i64>> = rows.iter().map(|row| Some(row.as_ref()?[part])).collect();
        let shown = ["ideal", "union", "batching"].contains(&PARTS[part]);
        if shown || column.iter().flatten().any(|tenths| *tenths != 0) {
            sheet = sheet.numbers(head, std::iter::once("-".to_owned()).chain(column.into_iter().map(cell)));
        }
    }
    let saved = rows.iter().map(|row| cell(row.as_ref().map(|row| row.iter().sum())));
    sheet.numbers("saved", std::iter::once("-".to_owned()).chain(saved)).render()
        + "Each row adds up (rounded so). ideal saving: each token pays its share of a dense layer for the branches it takes.\n\
           union: a layer is read when any token takes it. fragments: a layer runs in several small groups. skipped KV: keys and\n\
           values for layers not taken. launch: device idle while the host prepares and launches. waiting: the same between queues.\n\
           batching: other tokens share a pass than in the first row, as requests end at other times. What is 0 is left out.\n"
}

/// What each row's own passes save against the same passes, dense: where the first row does not run dense, and so is no measure.
pub(super) fn same_passes(variants: &[VariantOutcome]) -> String {
    let routed = |run: &SeedRun| run.ledger.losses.is_some_and(|losses| losses.saving != 0);
    if !variants.first().is_some_and(|first| first.runs.iter().any(routed)) {
        return String::new();
    }
    let mut sheet = named(variants);
    // The signed parts, and behind them what is left.
    for (part, header) in HEADS[..9].iter().copied().chain(["left"]).enumerate() {
        let of = |losses: &Losses| losses.signed().get(part).copied().unwrap_or_else(|| losses.left());
        let share = |run: &SeedRun| match &run.ledger.losses {
            Some(losses) if losses.dense != 0 => of(losses) as f64 / losses.dense as f64,
            _ => f64::NAN,
        };
        let shown = |share: f64| if share.is_nan() { "-".into() } else { percent(share) };
        sheet = sheet.numbers(header, means(variants, share).into_iter().map(shown));
    }
    sheet.render()
        + "A dense run would batch otherwise, as its requests end at other times: left is no time that a run saved. A variant that runs\n\
           dense, put first, tells that.\n"
}

#[cfg(test)]
mod tests {
    use super::tenths;
    use proptest::prelude::*;

    proptest! {
        /// The shown parts add up to the shown sum, and each is less than a tenth of a percent from its own.
        #[test]
        fn shown_parts_add_up(parts in prop::collection::vec(-1_000_000i128..1_000_000, 1..12), whole in 1i128..1_000_000) {
            let shown = tenths(&parts, whole);
            let exact = |part: i128| part as f64 / whole as f64 * 1000.0;
            prop_assert_eq!(shown.iter().sum::<i64>(), exact(parts.iter().sum()).round() as i64);
            for (shown, part) in shown.iter().zip(&parts) {
                prop_assert!((*shown as f64 - exact(*part)).abs() < 1.0 + 1e-6);
            }
        }
    }
}
