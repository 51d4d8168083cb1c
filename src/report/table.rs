//! The tables that a person reads: what each variant costs, where the saving went, how far from the bounds it is, and
//! what nobody measured.

use super::cells::{SOURCES, cells, means, named, of, pass_s, saved_share, three, timed};
use super::sheet::{Sheet, alike, percent};
use super::{errors, layers, replicas, saved, server_table, tiers};
use crate::cost::Bound;
use crate::error::shorten;
use crate::metrics::Tally;
use crate::scenario::{LEVEL, Note, Outcome, SeedRun, VariantOutcome};
use crate::units::SourceKind;

const GB: f64 = 1e9;

/// Everything about a scenario, ready to print.
pub fn render(outcome: &Outcome) -> String {
    let variants = &outcome.variants;
    let Some(first) = variants.first() else { return String::new() };
    let mut text = format!("{}\n", shorten(&outcome.title));
    let whole = |of: fn(&SeedRun) -> u64| format!("{:.0}", first.mean(|run| of(run) as f64));
    text += &format!(
        "{} on {}: {} requests, {} prompt and {} output tokens. Savings are against the first row.\n",
        shorten(&first.model),
        shorten(&first.hardware),
        whole(|run| run.summary.requests),
        whole(|run| run.summary.prompt_tokens),
        whole(|run| run.summary.output_tokens),
    );
    if let [one, .., last] = first.runs.as_slice() {
        let count = first.runs.len();
        text += &format!("Means over {count} runs, with the seeds {} to {}.\n", one.seed, last.seed);
    }
    let blocks = [
        ("Speed", speed(variants)),
        (saved::TITLE, saved::table(variants)),
        (saved::SAME_PASSES, saved::same_passes(variants)),
        ("Launches", launches(variants)),
        ("Serving", server_table::table(variants)),
        ("How wrong this may be", errors::table(variants)),
        ("Layers that came over a link", tiers::table(variants)),
        ("Layers on several devices", layers::table(variants)),
        ("Several engines", replicas::table(variants)),
        ("Energy, traffic, memory", energy(variants)),
        ("Bounds, and what the kernel time is made of (shares in %)", bounds(variants)),
        (&confidence_title(), server_table::confidence(variants)),
    ];
    for (title, block) in blocks.into_iter().filter(|(_, block)| !block.is_empty()) {
        text += &format!("\n{title}\n{block}");
    }
    text + "\n" + &assumed(&outcome.assumed)
}

fn confidence_title() -> String {
    format!("How sure the means are: half widths of the {:.0} % confidence intervals", LEVEL * 100.0)
}

/// What each variant saves against the first; nothing for the first itself.
fn less(variants: &[VariantOutcome], of: impl Fn(&SeedRun) -> f64) -> Vec<String> {
    let values = means(variants, of);
    let saving = |value: f64| if values[0] > 0.0 { percent(1.0 - value / values[0]) } else { "-".into() };
    let first = values.iter().take(1).map(|_| "-".to_owned());
    first.chain(values.iter().skip(1).map(|&value| saving(value))).collect()
}

/// The pass time that each variant saves against the first; nothing for the first itself.
fn saved_time(variants: &[VariantOutcome]) -> Vec<String> {
    let saved = |variant| match saved_share(&variants[0], variant) {
        Some(share) if !share.is_nan() => percent(share),
        _ => "-".into(),
    };
    std::iter::once("-".to_owned()).chain(variants.iter().skip(1).map(saved)).collect()
}

/// Who starts kernels, how the host learns what to start, and what of the pass time the device waits meanwhile.
fn launches(variants: &[VariantOutcome]) -> String {
    let idle = |run: &SeedRun| {
        run.ledger.idle_in_passes() as f64 / (run.ledger.places() * run.ledger.pass_ps).max(1) as f64
    };
    let host = |run: &SeedRun| {
        let share =
            run.ledger.busy.iter().find(|(name, _)| name == "host").map_or(f64::NAN, |(_, share)| *share);
        share * run.summary.makespan_s / pass_s(run).max(f64::MIN_POSITIVE)
    };
    named(variants)
        .words("engine", variants.iter().map(|variant| variant.engine.as_str()))
        .words("decisions", variants.iter().map(|variant| variant.decisions))
        .numbers("host\nbusy %", cells(variants, host, percent))
        .numbers("device\nidle %", cells(variants, idle, percent))
        .render()
        + "decisions: how the host learns what to launch (docs/DISPATCH.md). host busy, device idle: of the pass time. Idle is\n\
           what a faster host could save at most. simulate --engines shows the same comparison under all engines.\n"
}

fn speed(variants: &[VariantOutcome]) -> String {
    let sheet = named(variants)
        .words("policy", variants.iter().map(|variant| variant.policy))
        .numbers("mean\ndepth", cells(variants, |v| v.summary.work.mean_depth, |depth| format!("{depth:.2}")))
        .numbers("weights\nread %", cells(variants, |v| v.summary.work.layer_weights_read, percent));
    let sheet = timed(sheet, "pass\ntime", variants, pass_s).numbers("saved\n%", saved_time(variants));
    let sheet = timed(sheet, "make-\nspan", variants, |v| v.summary.makespan_s)
        .numbers("output\ntokens\n/ s", alike(&means(variants, |v| v.summary.output_tokens_per_s)));
    let sheet = timed(sheet, "TTFT\np50", variants, |v| v.summary.ttft_s.p50);
    let sheet = timed(sheet, "TPOT\np50", variants, |v| of(v.summary.tpot_s, |spread| spread.p50));
    let sheet = timed(sheet, "TPOT\np99", variants, |v| of(v.summary.tpot_s, |spread| spread.p99));
    let means = match variants.iter().any(|variant| variant.first().ledger.engines() > 1) {
        true => "Of several engines: the mean of their pass times.\n",
        false => "",
    };
    sheet.render()
        + "mean depth: blocks a token takes, a branch counts half. weights read: of the layer weights, a pass on average.\n\
           pass time: with a pass in flight; the makespan also waits for arrivals. TTFT: to the first token. TPOT: between tokens.\n"
        + means
}

fn energy(variants: &[VariantOutcome]) -> String {
    let joules = |v: &SeedRun| v.summary.energy_per_output_token_j;
    let engines = |v: &SeedRun| f64::from(v.ledger.engines());
    let bytes = |v: &SeedRun| v.summary.work.bytes / engines(v);
    let devices = |v: &VariantOutcome| v.first().summary.devices;
    let several = variants.iter().any(|variant| devices(variant) > 1);
    let sheet = named(variants);
    let sheet = match several {
        true => sheet.numbers("devices", variants.iter().map(|variant| devices(variant).to_string())),
        false => sheet,
    };
    let table = sheet
        .numbers("energy\nJ", alike(&means(variants, |v| v.summary.energy_j)))
        .numbers("J / out\ntoken", alike(&means(variants, joules)))
        .numbers("saved\n%", less(variants, joules))
        .numbers("W\nmean", cells(variants, |v| v.summary.power_w.mean, three))
        .numbers("W\npeak", cells(variants, |v| v.summary.power_w.peak, three))
        .numbers("GB\nmoved", alike(&means(variants, |v| bytes(v) / GB)))
        .numbers("saved\n%", less(variants, bytes))
        .numbers(
            "kernels",
            cells(
                variants,
                |v| v.summary.work.kernel_launches as f64 / engines(v),
                |count| format!("{count:.0}"),
            ),
        )
        .numbers("peak\nGB", cells(variants, |v| v.summary.memory_bytes.total_peak as f64 / GB, three))
        .numbers("weights\nGB", cells(variants, |v| v.summary.memory_bytes.weights as f64 / GB, three))
        .numbers("KV\nGB", cells(variants, |v| v.summary.memory_bytes.kv_peak as f64 / GB, three))
        .render();
    match several {
        true => {
            let peak = match variants.iter().any(|variant| variant.first().ledger.engines() > 1) {
                true => ", W peak of one engine",
                false => "",
            };
            table
                + &format!(
                    "Of several devices: J and W of all of them{peak}; GB and kernels of each, where they compute layers together,\n\
                     and of all, where layers are on several.\n"
                )
        }
        false => table,
    }
}

fn bounds(variants: &[VariantOutcome]) -> String {
    let sheet = timed(named(variants), "make-\nspan", variants, |v| v.summary.makespan_s);
    let sheet = timed(sheet, "critical\npath", variants, |v| v.summary.bounds.critical_path_s);
    let mut sheet = timed(sheet, "work /\npeak", variants, |v| v.summary.bounds.work_over_peak_s);
    for (name, _) in &variants[0].first().ledger.busy {
        let busy = |v: &SeedRun| v.ledger.busy.iter().find(|(other, _)| other == name).map_or(0.0, |of| of.1);
        sheet = shares(sheet, &format!("{name}\nbusy"), variants, busy);
    }
    let share = |v: &SeedRun, tally: &Tally| tally.time_ps as f64 / v.ledger.busy_ps.max(1) as f64;
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

/// A column of shares, left out where all are zero.
fn shares(sheet: Sheet, header: &str, variants: &[VariantOutcome], of: impl Fn(&SeedRun) -> f64) -> Sheet {
    let shares = means(variants, of);
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
