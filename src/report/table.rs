//! The tables that a person reads: what each variant costs, where the saving went, how far from the bounds it is, and
//! what nobody measured.

use super::sheet::{Sheet, alike, digits, percent, times};
use crate::cost::Bound;
use crate::error::shorten;
use crate::metrics::{Losses, Tally};
use crate::scenario::{Note, Outcome, VariantOutcome};
use crate::units::{PS_PER_S, SourceKind};

const GB: f64 = 1e9;

/// Everything about a scenario, ready to print.
pub fn render(outcome: &Outcome) -> String {
    let variants = &outcome.variants;
    let Some(first) = variants.first() else { return String::new() };
    let summary = &first.summary;
    let mut text = format!("{}\n", shorten(&outcome.title));
    text += &format!(
        "{} on {}: {} requests, {} prompt and {} output tokens. Savings are against the first row.\n",
        shorten(&first.model),
        shorten(&first.hardware),
        summary.requests,
        summary.prompt_tokens,
        summary.output_tokens,
    );
    let blocks = [
        ("Speed", speed(variants)),
        ("Energy, traffic, memory", energy(variants)),
        ("Where the ideal saving went, in % of the dense time of the same passes", losses(variants)),
        ("Bounds, and what the kernel time is made of (shares in %)", bounds(variants)),
    ];
    for (title, block) in blocks.into_iter().filter(|(_, block)| !block.is_empty()) {
        text += &format!("\n{title}\n{block}");
    }
    text + "\n" + &assumed(&outcome.assumed)
}

/// Starts a sheet with the names of the variants.
fn named(variants: &[VariantOutcome]) -> Sheet {
    Sheet::new().words("variant", variants.iter().map(|variant| &variant.name))
}

fn each<T>(variants: &[VariantOutcome], of: impl Fn(&VariantOutcome) -> T) -> Vec<T> {
    variants.iter().map(of).collect()
}

/// A column of times under a header that gets their unit.
fn timed(
    sheet: Sheet,
    header: &str,
    variants: &[VariantOutcome],
    of: impl Fn(&VariantOutcome) -> f64,
) -> Sheet {
    let (unit, cells) = times(&each(variants, of));
    sheet.numbers(&format!("{header}\n{unit}"), cells)
}

/// What each variant saves against the first; nothing for the first itself.
fn saved(variants: &[VariantOutcome], of: impl Fn(&VariantOutcome) -> f64) -> Vec<String> {
    let values = each(variants, of);
    let saving = |value: f64| if values[0] > 0.0 { percent(1.0 - value / values[0]) } else { "-".into() };
    let first = values.iter().take(1).map(|_| "-".to_owned());
    first.chain(values.iter().skip(1).map(|&value| saving(value))).collect()
}

/// Seconds with a pass in flight.
fn pass_s(variant: &VariantOutcome) -> f64 {
    variant.ledger.pass_ps as f64 / PS_PER_S as f64
}

fn speed(variants: &[VariantOutcome]) -> String {
    let sheet = named(variants)
        .words("policy", variants.iter().map(|variant| variant.policy))
        .numbers("mean\ndepth", each(variants, |v| format!("{:.2}", v.summary.work.mean_depth)))
        .numbers("weights\nread %", each(variants, |v| percent(v.summary.work.layer_weights_read)));
    let sheet = timed(sheet, "pass\ntime", variants, pass_s).numbers("saved\n%", saved(variants, pass_s));
    let sheet = timed(sheet, "make-\nspan", variants, |v| v.summary.makespan_s)
        .numbers("output\ntokens\n/ s", alike(&each(variants, |v| v.summary.output_tokens_per_s)));
    let sheet = timed(sheet, "TTFT\np50", variants, |v| v.summary.ttft_s.p50);
    let sheet = timed(sheet, "TPOT\np50", variants, |v| v.summary.tpot_s.p50);
    let sheet = timed(sheet, "TPOT\np99", variants, |v| v.summary.tpot_s.p99);
    sheet.render()
        + "mean depth: blocks a token takes, a branch counts half. weights read: of the layer weights, a pass on average.\n\
           pass time: with a pass in flight; the makespan also waits for arrivals. TTFT: to the first token. TPOT: between tokens.\n"
}

fn energy(variants: &[VariantOutcome]) -> String {
    let joules = |v: &VariantOutcome| v.summary.energy_per_output_token_j;
    let bytes = |v: &VariantOutcome| v.summary.work.bytes;
    named(variants)
        .numbers("energy\nJ", alike(&each(variants, |v| v.summary.energy_j)))
        .numbers("J / out\ntoken", alike(&each(variants, joules)))
        .numbers("saved\n%", saved(variants, joules))
        .numbers("W\nmean", each(variants, |v| digits(v.summary.power_w.mean, 3)))
        .numbers("W\npeak", each(variants, |v| digits(v.summary.power_w.peak, 3)))
        .numbers("GB\nmoved", alike(&each(variants, |v| bytes(v) / GB)))
        .numbers("saved\n%", saved(variants, bytes))
        .numbers("kernels", each(variants, |v| v.summary.work.kernel_launches.to_string()))
        .numbers("peak\nGB", each(variants, |v| digits(v.summary.memory_bytes.total_peak as f64 / GB, 3)))
        .numbers("weights\nGB", each(variants, |v| digits(v.summary.memory_bytes.weights as f64 / GB, 3)))
        .numbers("KV\nGB", each(variants, |v| digits(v.summary.memory_bytes.kv_peak as f64 / GB, 3)))
        .render()
}

/// One of the losses, in picoseconds.
type Loss = fn(&Losses) -> i128;

/// Column heads of the losses, with what each takes.
const LOSSES: [(&str, Loss); 10] = [
    ("ideal\nsaving", |l| l.saving),
    ("union", |l| l.union),
    ("frag-\nments", |l| l.fragmentation),
    ("skipped\nKV", |l| l.kv),
    ("router", |l| l.router),
    ("gather,\nscatter", |l| l.moves),
    ("launch", |l| l.launch),
    ("waiting", |l| l.waiting),
    ("other", |l| l.other),
    ("left", left),
];

/// What is left of the ideal saving.
pub(super) fn left(losses: &Losses) -> i128 {
    let Losses { dense: _, saving, union, fragmentation, kv, router, moves, launch, waiting, other } =
        *losses;
    saving - union - fragmentation - kv - router - moves - launch - waiting - other
}

fn losses(variants: &[VariantOutcome]) -> String {
    if variants.iter().all(|variant| variant.ledger.losses.is_none()) {
        return String::new();
    }
    let mut sheet = named(variants);
    for (index, (header, of)) in LOSSES.iter().enumerate() {
        // The first column and the last are savings, what lies between is taken from the first.
        let sign = if index == 0 || index + 1 == LOSSES.len() { 1.0 } else { -1.0 };
        let share = |variant: &VariantOutcome| match &variant.ledger.losses {
            Some(losses) if losses.dense != 0 => percent(sign * of(losses) as f64 / losses.dense as f64),
            _ => "-".into(),
        };
        sheet = sheet.numbers(header, each(variants, share));
    }
    sheet.render()
        + "ideal saving: each token pays only for the branches it takes. Then, each with its sign, what batching makes of it:\n\
           union: a layer is read when any token takes it. fragments: a layer runs in several small groups. skipped KV: keys and\n\
           values for layers not taken. launch: device idle while the host prepares and launches. waiting: the same between queues.\n"
}

fn bounds(variants: &[VariantOutcome]) -> String {
    let sheet = timed(named(variants), "make-\nspan", variants, |v| v.summary.makespan_s);
    let sheet = timed(sheet, "critical\npath", variants, |v| v.summary.bounds.critical_path_s);
    let mut sheet = timed(sheet, "work /\npeak", variants, |v| v.summary.bounds.work_over_peak_s);
    for (name, _) in &variants[0].ledger.busy {
        let busy =
            |v: &VariantOutcome| v.ledger.busy.iter().find(|(other, _)| other == name).map_or(0.0, |of| of.1);
        sheet = shares(sheet, &format!("{name}\nbusy"), variants, busy);
    }
    let share = |v: &VariantOutcome, tally: &Tally| tally.time_ps as f64 / v.ledger.busy_ps.max(1) as f64;
    for (index, (bound, name)) in Bound::ALL.iter().enumerate() {
        let name = if *bound == Bound::Compute { "arith-\nmetic" } else { name };
        sheet = shares(sheet, name, variants, |v| share(v, &v.ledger.by_bound[index]));
    }
    for source in SOURCES {
        let name =
            if source == SourceKind::Datasheet { "data-\nsheet".to_owned() } else { source.to_string() };
        sheet = shares(sheet, &name, variants, |v| v.ledger.source_share(source));
    }
    sheet.render()
        + "critical path: no schedule is shorter. work / peak: all flops and bytes at the device's peaks. The other columns are\n\
           shares, of the makespan (busy) and of kernel time: what limits the kernels, and the weakest source of their prices.\n"
}

/// From the most to the least trustworthy.
pub(super) const SOURCES: [SourceKind; 4] =
    [SourceKind::Measured, SourceKind::Fitted, SourceKind::Datasheet, SourceKind::Assumed];

/// A column of shares, left out where all are zero.
fn shares(
    sheet: Sheet,
    header: &str,
    variants: &[VariantOutcome],
    of: impl Fn(&VariantOutcome) -> f64,
) -> Sheet {
    let shares = each(variants, of);
    if shares.iter().all(|share| *share == 0.0) {
        return sheet;
    }
    sheet.numbers(header, shares.into_iter().map(percent))
}

/// The foot of every report: what nobody measured. Notes that say the same of several keys share a row.
pub fn assumed(notes: &[Note]) -> String {
    if notes.is_empty() {
        return "Assumed: nothing.\n".into();
    }
    let mut rows: Vec<(&Note, Vec<&str>)> = Vec::new();
    for note in notes {
        match rows.iter_mut().find(|(row, _)| row.value == note.value && row.why == note.why) {
            Some((_, keys)) => keys.push(&note.key),
            None => rows.push((note, vec![&note.key])),
        }
    }
    let keys = |(_, keys): &(&Note, Vec<&str>)| match keys.len() {
        0..=3 => keys.join(", "),
        many => format!("{} and {} more", keys[0], many - 1),
    };
    let sheet = Sheet::new()
        .words("key", rows.iter().map(keys))
        .narrow("value", rows.iter().map(|(note, _)| &note.value))
        .prose("why", rows.iter().map(|(note, _)| &note.why));
    format!(
        "Assumed: {} constants and choices that nobody measured or published\n{}",
        notes.len(),
        sheet.render()
    )
}
