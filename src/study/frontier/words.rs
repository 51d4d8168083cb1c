//! The answer in sentences.

use super::{Beyond, Frontier, PeerComparison, PeerFinding, Setting};
use crate::metrics::Verdict;
use crate::report::quantity::{Quantity, number};
use crate::study::page::capital;
use crate::study::{Leaf, Measure};

/// Sentences at the head of a page, at most; the table has all.
const MOST_SENTENCES: usize = 12;

/// For each setting of the axes but one, each network against each family: by how much it is better or worse along that axis, in the first
/// objective.
pub fn answer(frontier: &Frontier) -> Vec<String> {
    let along = along(frontier);
    let mut groups: Vec<(String, usize, usize, Vec<Said>)> = Vec::new();
    for setting in &frontier.settings {
        let place = place(frontier, setting, along);
        for comparison in setting.comparisons.iter().filter(|comparison| comparison.objective == 0) {
            let PeerComparison { variant, family, .. } = *comparison;
            let key = (place.as_str(), variant, family);
            let known = groups
                .iter()
                .position(|(place, variant, family, _)| (place.as_str(), *variant, *family) == key);
            let known = known.unwrap_or_else(|| {
                groups.push((place.clone(), variant, family, Vec::new()));
                groups.len() - 1
            });
            groups[known].3.push((step(frontier, setting, along), comparison.found));
        }
    }
    let left = groups.len().saturating_sub(MOST_SENTENCES);
    let more = (left > 0).then(|| format!("{left} more comparisons stand in the table below."));
    let sentence = |(place, variant, family, said): (String, usize, usize, Vec<Said>)| {
        sentence(frontier, &place, variant, family, &said)
    };
    groups.into_iter().take(MOST_SENTENCES).map(sentence).chain(more).collect()
}

/// Where along the axis, and what was found there.
type Said = (String, PeerFinding);

/// The axis along which findings are listed: the last one of several numbers.
fn along(frontier: &Frontier) -> Option<usize> {
    let leaves = frontier.study.grid.leaves();
    leaves.iter().rposition(|leaf| leaf.is_numeric() && leaf.count() != Some(1))
}

/// The setting of all axes but that one, for the head of a sentence.
fn place(frontier: &Frontier, setting: &Setting, along: Option<usize>) -> String {
    let leaves = frontier.study.grid.leaves();
    let words = leaves.iter().zip(&setting.at).enumerate();
    let words = words.filter(|(at, (leaf, _))| Some(*at) != along && leaf.count() != Some(1));
    let words = words.map(|(_, (leaf, (label, _)))| on(leaf, label));
    words.collect::<Vec<_>>().join(", ")
}

fn on(leaf: &Leaf, label: &str) -> String {
    match leaf.keys.iter().any(|key| key == "hardware") {
        true => format!("on {label}"),
        false => format!("at {} {label}", leaf.name),
    }
}

fn step(frontier: &Frontier, setting: &Setting, along: Option<usize>) -> String {
    along.map_or(String::new(), |at| {
        format!(" at {} {}", frontier.study.grid.leaves()[at].name, setting.at[at].0)
    })
}

/// How good a network is, beside the first one: `perplexity 56.0 (+9.0 %)`.
pub fn quality(frontier: &Frontier, variant: usize) -> String {
    let value = frontier.quality(variant).mean;
    match frontier.measure {
        Measure::Kl => format!("a KL divergence of {} nats", number(value)),
        Measure::Perplexity => {
            let first = frontier.quality(0).mean;
            format!("perplexity {} ({:+.1}\u{a0}%)", number(value), 100.0 * (value / first - 1.0))
        }
    }
}

fn sentence(frontier: &Frontier, place: &str, variant: usize, family: usize, all: &[Said]) -> String {
    let study = frontier.study;
    let (name, family) = (&study.base.variants[variant].name, &study.spec.families[family]);
    let objective = &study.spec.objectives[0];
    let quality = quality(frontier, variant);
    let outside = |beyond: Beyond| {
        let members = study.base.variants.iter().enumerate();
        let members = members.filter(|(_, variant)| family.variants.contains(&variant.name));
        let values = members.map(|(place, _)| frontier.quality(place).mean);
        let (low, high) =
            values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let range = format!("({} to {})", number(low), number(high));
        match beyond {
            Beyond::Better => {
                format!("is better than every member of {} {range}, so none is held against it", family.name)
            }
            Beyond::Worse => format!(
                "is worse than every member of {} that counts {range}, so none is held against it",
                family.name
            ),
            Beyond::Absent => format!(
                "cannot be held against {}: it, or every member, failed or breaks a constraint",
                family.name
            ),
        }
    };
    let verdicts: Vec<Option<Verdict>> = all.iter().map(|(_, found)| found.verdict()).collect();
    // Findings of which the same is known are said to be so once.
    let alike = all.len() > 1 && verdicts.iter().all(|verdict| *verdict == verdicts[0]);
    let said = |(step, found): &Said| match *found {
        PeerFinding::Beyond(beyond) => format!("{}{step}", outside(beyond)),
        PeerFinding::Gain { percent, verdict, .. } => {
            let sure = if alike { String::new() } else { bracketed(false, verdict) };
            format!("is {}{step}{sure}", than(percent, objective, &family.name))
        }
    };
    let all_beyond = match all.first() {
        Some((_, PeerFinding::Beyond(beyond))) => {
            all.iter().all(|(_, found)| *found == PeerFinding::Beyond(*beyond))
        }
        _ => false,
    };
    let findings = if all_beyond { said(&(String::new(), all[0].1)) } else { list(all, said, &family.name) };
    let sure = verdicts[0].filter(|_| alike).map_or(String::new(), |verdict| bracketed(true, verdict));
    let findings = findings + &sure;
    let head = if place.is_empty() { String::new() } else { format!("{place}, ") };
    capital(&format!("{head}at {quality}, {name} {findings}."))
}

/// How sure a finding is, or all of several; nothing where it is.
fn bracketed(of_all: bool, verdict: Verdict) -> String {
    let all = if of_all { "all " } else { "" };
    let words = match verdict {
        Verdict::Yes => return String::new(),
        Verdict::IfShared => "if what both share is off alike",
        Verdict::No => "within the error",
        Verdict::Unknown if of_all => return " (errors not known)".into(),
        Verdict::Unknown => return " (error not known)".into(),
    };
    format!(" ({all}{words})")
}

/// Findings one after the other; whom the network is held against is said once.
fn list(all: &[Said], said: impl Fn(&Said) -> String, family: &str) -> String {
    let against = format!(" than {family}");
    let shorter = |(place, text): (usize, String)| match place {
        0 => text,
        _ => text.replacen(&against, "", 1).trim_start_matches("is ").to_owned(),
    };
    all.iter().map(said).enumerate().map(shorter).collect::<Vec<_>>().join(", ")
}

/// By how much better or worse than whom: `3.1 % slower than static depth`.
pub fn than(percent: f64, objective: &crate::study::Objective, whom: &str) -> String {
    let by = format!("{:.1}\u{a0}%", percent.abs());
    let is_better = percent > 0.0;
    let time = ["tpot_s", "itl_s", "ttft_s", "e2e_s", "pass_time_s", "makespan_s", "normalized_latency_s"];
    let metric = objective.metric();
    if time.iter().any(|head| metric.split('.').next() == Some(head)) {
        return format!("{by} {} than {whom}", if is_better { "faster" } else { "slower" });
    }
    let word = if is_better { "better" } else { "worse" };
    format!("{by} {word} than {whom} in {}", Quantity::of(metric).name)
}
