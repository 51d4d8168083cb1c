//! The table of a server under load, and how sure means over seeds are.

use super::cells::{cells, means, named, of, timed};
use super::sheet::{NONE, alike, percent};
use crate::error::shorten;
use crate::metrics::Interval;
use crate::scenario::{SeedRun, VariantOutcome};
use crate::units::SimTime;

/// What a growing system means, in lines.
const GROWS: &str = "Requests in the system still grow in the later half of the arrivals, so times and shares follow the length of the run:\n\
                     the rate is beyond what the device carries, or the run is too short to tell.\n";

/// What clients see; nothing where all requests are there from the start and no bound is stated.
pub(super) fn table(variants: &[VariantOutcome]) -> String {
    let late = |run: &SeedRun| run.ledger.requests.iter().any(|request| request.arrival > SimTime::ZERO);
    let bounded = |run: &SeedRun| run.summary.goodput.is_some();
    if !variants.iter().flat_map(|variant| &variant.runs).any(|run| late(run) || bounded(run)) {
        return String::new();
    }
    let mut sheet = named(variants)
        .numbers("req.\n/ s", alike(&means(variants, |v| v.summary.requests_per_s)))
        .numbers("output\ntokens\n/ s", alike(&means(variants, |v| v.summary.output_tokens_per_s)));
    type Column = (&'static str, fn(&SeedRun) -> f64);
    const TIMES: [Column; 8] = [
        ("queue\nmean", |v| v.summary.queue_s.mean),
        ("TTFT\np50", |v| v.summary.ttft_s.p50),
        ("TTFT\np99", |v| v.summary.ttft_s.p99),
        ("TPOT\np50", |v| of(v.summary.tpot_s, |spread| spread.p50)),
        ("TPOT\np99", |v| of(v.summary.tpot_s, |spread| spread.p99)),
        ("ITL\np99", |v| of(v.summary.itl_s, |spread| spread.p99)),
        ("E2E\np50", |v| v.summary.e2e_s.p50),
        ("E2E\np99", |v| v.summary.e2e_s.p99),
    ];
    for (header, of) in TIMES {
        sheet = timed(sheet, header, variants, of);
    }
    let mut foot = String::from(
        "queue: from arrival to the first pass. TPOT: between tokens, mean of a request. ITL: between tokens, each on its own.\n\
         E2E: from arrival to the last token. KV use: mean share of the blocks held.\n",
    );
    let goodput = |v: &SeedRun| v.summary.goodput;
    if let Some(bounds) = variants.iter().find_map(|variant| goodput(variant.first())) {
        sheet = sheet
            .numbers("good\n%", cells(variants, |v| goodput(v).map_or(0.0, |good| good.attained), percent));
        let bounds = [("TTFT", bounds.ttft_s), ("TPOT", bounds.tpot_s), ("E2E", bounds.e2e_s)];
        let stated = bounds.iter().filter_map(|(name, bound)| Some(format!("{name} <= {} s", (*bound)?)));
        foot += &format!("good: share of the requests with {}.\n", stated.collect::<Vec<_>>().join(", "));
    }
    if let Some(cut) = variants.iter().find_map(|variant| variant.first().summary.warm_up) {
        let left_out = |variant: &VariantOutcome| {
            variant.mean(|run| run.summary.warm_up.map_or(0.0, |cut| cut.requests as f64))
        };
        let found = variants
            .iter()
            .flat_map(|variant| &variant.runs)
            .all(|run| run.summary.warm_up.is_some_and(|cut| cut.found));
        sheet =
            sheet.numbers("warm-\nup", variants.iter().map(|variant| format!("{:.0}", left_out(variant))));
        foot += &format!("warm-up: requests left out of all times and of good, by {}.", cut.method.name());
        foot += if found { "\n" } else { " Where it found no end, all requests count.\n" };
    }
    let grow: Vec<&str> =
        variants.iter().filter(|variant| variant.grows()).map(|variant| variant.name.as_str()).collect();
    if !grow.is_empty() {
        foot += &format!("Not stable at this rate: {}.\n{GROWS}", shorten(&grow.join("; ")));
    }
    let preempted = |v: &SeedRun| v.summary.preemptions as f64;
    if means(variants, preempted).iter().any(|count| *count > 0.0) {
        sheet = sheet.numbers("pre-\nempted", cells(variants, preempted, |count| format!("{count:.0}")));
    }
    sheet.numbers("KV\nuse %", cells(variants, |v| v.summary.kv.mean_use, percent)).render() + &foot
}

/// Means with half widths; nothing for a single seed.
pub(super) fn confidence(variants: &[VariantOutcome]) -> String {
    if variants.iter().all(|variant| variant.runs.len() < 2) {
        return String::new();
    }
    type Column = (&'static str, fn(&SeedRun) -> f64);
    const COLUMNS: [Column; 7] = [
        ("makespan\ns", |v| v.summary.makespan_s),
        ("output\ntokens / s", |v| v.summary.output_tokens_per_s),
        ("TTFT p50\nms", |v| v.summary.ttft_s.p50 * 1e3),
        ("TTFT p99\nms", |v| v.summary.ttft_s.p99 * 1e3),
        ("TPOT p50\nms", |v| of(v.summary.tpot_s, |spread| spread.p50) * 1e3),
        ("E2E p99\nms", |v| v.summary.e2e_s.p99 * 1e3),
        ("mJ / out\ntoken", |v| v.summary.energy_per_output_token_j * 1e3),
    ];
    let mut sheet = named(variants);
    for (header, of) in COLUMNS {
        let shown = |variant: &VariantOutcome| {
            let interval = variant.interval(of).filter(|interval| interval.mean.is_finite());
            interval.map_or(NONE.into(), plus_minus)
        };
        sheet = sheet.numbers(header, variants.iter().map(shown));
    }
    sheet.render() + "By Student's t over the runs of a variant, which draw independently.\n"
}

/// The mean to the place of the second digit of the half width.
fn plus_minus(interval: Interval) -> String {
    let Interval { mean, half_width } = interval;
    let smallest = if half_width > 0.0 { half_width } else { mean.abs() / 100.0 };
    let places = if smallest > 0.0 { (1 - smallest.log10().floor() as i32).clamp(0, 9) } else { 0 };
    let places = places as usize;
    format!("{mean:.places$} ± {half_width:.places$}")
}
