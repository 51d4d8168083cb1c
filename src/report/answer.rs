//! The answer of a comparison in sentences: what the best routed variant saves or loses against the first row and against static
//! depth, how sure that is, and why.

use super::cells::of;
use super::errors::mean_saving;
use super::saved;
use super::sheet::{percent, times};
use crate::error::shorten;
use crate::metrics::{PARTS, Saving, Verdict};
use crate::scenario::{LayerChoice, Outcome, SeedRun, VariantOutcome};

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Sentences, the most important one first.
    pub sentences: Vec<String>,
    /// The row that they are about; none where there is nothing to compare.
    pub best: Option<usize>,
    /// Which part of the pass time is the largest loss of that row, by its key in [`PARTS`].
    pub loss: Option<&'static str>,
}

/// Static depth counts as equal where its mean depth is as near as this share. Assumed: a variant drops whole layers.
const NEAR: f64 = 0.05;

/// A part of the pass time beside this share of it is not worth a word. Assumed.
const WORTH_A_WORD: f64 = 0.005;

impl Answer {
    /// That of a comparison.
    pub fn of(outcome: &Outcome) -> Answer {
        let variants = &outcome.variants;
        let Some(first) = variants.first() else {
            return Answer { sentences: Vec::new(), best: None, loss: None };
        };
        let mut sentences = Vec::new();
        let best = best(variants);
        let mut loss = None;
        match best {
            None if variants.len() == 1 => sentences.push(alone(first)),
            None => sentences.push(format!(
                "No other row has as many engines as {}, so no pass time is a saving: compare tokens/s, TTFT, TPOT and joules.",
                named(first)
            )),
            Some(index) => {
                let best = &variants[index];
                sentences.push(against_first(first, best));
                if best.choice == LayerChoice::ByToken {
                    sentences.push(against_static(first, best, variants));
                }
                if let Some(parts) = saved::shares(first, best) {
                    sentences.extend(why(first, &parts));
                    loss = largest_losses(&parts).first().map(|(part, _)| PARTS[*part]);
                }
            }
        }
        if variants.iter().any(VariantOutcome::grows) {
            sentences.push("Requests pile up in some rows, so their times follow the length of the run: the rate is beyond the device, or the run is short.".into());
        }
        Answer { sentences, best, loss }
    }
}

/// Time with a pass in flight, in seconds.
fn pass_s(variant: &VariantOutcome) -> f64 {
    variant.mean(super::cells::pass_s)
}

/// Share of the first row's pass time that a row with as many engines saves.
fn share_saved(first: &VariantOutcome, variant: &VariantOutcome) -> f64 {
    1.0 - pass_s(variant) / pass_s(first)
}

/// The row with the least pass time; the first of equals.
fn fastest(variants: &[VariantOutcome], rows: impl Iterator<Item = usize>) -> Option<usize> {
    rows.min_by(|&a, &b| pass_s(&variants[a]).total_cmp(&pass_s(&variants[b])))
}

/// Whether routes, policies and routers alone tell two rows apart.
fn is_alike(one: &VariantOutcome, other: &VariantOutcome) -> bool {
    one.settings == other.settings
}

/// The row that the answer is about: the fastest routed one with the settings of the first, else any routed one, else any.
fn best(variants: &[VariantOutcome]) -> Option<usize> {
    let engines = |index: &usize| variants[*index].first().ledger.engines();
    let others = (1..variants.len()).filter(|index| engines(index) == engines(&0));
    let routed = |index: &usize| variants[*index].choice == LayerChoice::ByToken;
    let alike = |index: &usize| is_alike(&variants[0], &variants[*index]);
    fastest(variants, others.clone().filter(|index| routed(index) && alike(index)))
        .or_else(|| fastest(variants, others.clone().filter(routed)))
        .or_else(|| fastest(variants, others))
}

fn named(variant: &VariantOutcome) -> String {
    format!("\"{}\"", shorten(&variant.name))
}

/// Of a scenario with one row.
fn alone(variant: &VariantOutcome) -> String {
    let tpot = variant.mean(|run| of(run.summary.tpot_s, |spread| spread.p50));
    let (unit, shown) = times(&[tpot]);
    let time = if tpot.is_nan() { String::new() } else { format!(", {} {unit} between tokens", shown[0]) };
    let rate = variant.mean(|run: &SeedRun| run.summary.output_tokens_per_s);
    format!(
        "{} puts out {rate:.0} tokens/s{time}. It is the only row: add a variant to compare it with.",
        named(variant)
    )
}

fn against_first(first: &VariantOutcome, best: &VariantOutcome) -> String {
    let share = share_saved(first, best);
    let saving = mean_saving(first, best);
    let is_sure = saving.is_some_and(|saving| saving.verdict().is_sure());
    let lead = match (best.choice, share > 0.0, is_sure) {
        _ if !is_alike(first, best) => {
            "The fastest other row also has other devices, engine, tiers, caps or experts"
        }
        (LayerChoice::ByToken, true, true) => "Routing pays",
        (LayerChoice::ByToken, true, false) => "Routing may pay",
        (LayerChoice::ByToken, false, true) => "Routing does not pay",
        (LayerChoice::ByToken, false, false) => "Routing may not pay",
        _ => "No other row is routed",
    };
    format!(
        "{lead}: {} takes {} pass time than {}, {}.",
        named(best),
        less(share),
        named(first),
        sure(saving)
    )
}

/// `1.2 % less`, `3.4 % more`.
fn less(share: f64) -> String {
    let word = if share < 0.0 { "more" } else { "less" };
    format!("{} % {word}", percent(share.abs()))
}

/// How sure a saving is.
fn sure(saving: Option<Saving>) -> String {
    let Some(saving) = saving else { return "with an error that is not known".into() };
    let points = |error: f64| percent(error / 100.0);
    let (shared, opposed) = (points(saving.shared_error_percent), points(saving.opposed_error_percent));
    match saving.verdict() {
        Verdict::Unknown => "with an error that is not known".into(),
        Verdict::Yes => format!("beyond the error of the prices (± {opposed} points)"),
        Verdict::IfShared => format!(
            "beyond the error if kernels err alike in both rows (± {shared} points), not if they err apart (± {opposed})"
        ),
        Verdict::No => format!("within the error of the prices (± {shared} points)"),
    }
}

/// The best routed row beside the static one of the nearest depth with its settings.
fn against_static(first: &VariantOutcome, best: &VariantOutcome, variants: &[VariantOutcome]) -> String {
    let depth = |variant: &VariantOutcome| variant.mean(|run| run.summary.work.mean_depth);
    let own = depth(best);
    let apart = |index: usize| (depth(&variants[index]) / own - 1.0).abs();
    let statics = || {
        (0..variants.len()).filter(|&index| {
            variants[index].choice == LayerChoice::Static && is_alike(best, &variants[index])
        })
    };
    // Of those that are as near, the fastest.
    let near = fastest(variants, statics().filter(|&index| apart(index) <= NEAR));
    let Some(peer) = near.or_else(|| statics().min_by(|&a, &b| apart(a).total_cmp(&apart(b)))) else {
        return "No row beside it has static depth, which a routed model must beat: add one (DropMiddleAsRecorded, StaticDepth).".into();
    };
    let peer_row = &variants[peer];
    let (routed, fixed) = (share_saved(first, best), share_saved(first, peer_row));
    let lead = if routed > fixed { "It beats static depth" } else { "It does not beat static depth" };
    let depth = match apart(peer) <= NEAR {
        true => "of the same mean depth".to_owned(),
        false => format!("of a mean depth of {:.1} beside {own:.1}", depth(peer_row)),
    };
    let than = if routed > fixed { "fewer" } else { "more" };
    let points = percent((routed - fixed).abs());
    format!("{lead}: {}, {depth}, takes {}, {points} points {than}.", named(peer_row), less(fixed))
}

/// Parts with how much of the pass time they lose, largest first.
fn largest_losses(parts: &[f64; PARTS.len()]) -> Vec<(usize, f64)> {
    let mut losses: Vec<(usize, f64)> =
        parts.iter().copied().enumerate().filter(|(_, share)| *share < -WORTH_A_WORD).collect();
    losses.sort_by(|a, b| a.1.total_cmp(&b.1));
    losses
}

/// Where the saving comes from, and the two largest losses.
fn why(first: &VariantOutcome, parts: &[f64; PARTS.len()]) -> Option<String> {
    let ideal = parts[0];
    let losses: Vec<String> = largest_losses(parts)
        .iter()
        .take(2)
        .map(|(part, share)| format!("{} {}", percent(-share), WORDS[*part]))
        .collect();
    if ideal.abs() < WORTH_A_WORD && losses.is_empty() {
        return None;
    }
    let gain = format!("Less work would save {} % of the pass time of {}", percent(ideal), named(first));
    Some(match losses.as_slice() {
        [] => format!("{gain}; hardly anything is lost again."),
        losses => format!("{gain}; lost again are {}.", losses.join(", and ")),
    })
}

/// What a part is when it is lost, in the order of [`PARTS`].
const WORDS: [&str; PARTS.len()] = [
    "to deeper routes",
    "as a batch reads a layer when one token takes it (union)",
    "as layers run in small groups (fragments)",
    "to keys and values of skipped layers",
    "to the router",
    "to gathering and scattering rows",
    "as the device waits for launches",
    "as the device waits between queues",
    "to other causes",
    "to other settings than those of the first row",
    "as fewer tokens share a pass (batching)",
];
