//! Points and answers as CSV.

use super::{Assembly, Finding, Frontier, PeerComparison, PeerFinding, Setting};
use crate::error::{Error, Result};
use crate::metrics::Estimate;
use crate::report::Staged;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Writes a row for each point and variant.
///
/// # Errors
/// What the system refuses, and those of [`Assembly::points`].
pub fn points(assembly: &Assembly, path: &Path) -> Result<()> {
    let columns = &assembly.columns()?.names;
    let place: HashMap<&str, usize> =
        columns.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
    Staged::create(path)?.finish_with(|out| {
        let into_ours = |error: csv::Error| Error::io(path, "write")(error.into());
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(columns.iter().map(|(name, _)| name)).map_err(into_ours)?;
        let mut record = vec![String::new(); columns.len()];
        assembly.cells(|_, cells| {
            record.iter_mut().for_each(String::clear);
            for (name, value) in cells {
                record[place[name.as_str()]] = text(&value);
            }
            csv.write_record(&record).map_err(into_ours)
        })?;
        csv.flush().map_err(Error::io(path, "write"))
    })
}

/// Writes a row for each finding.
///
/// # Errors
/// What the system refuses.
pub fn answers(answers: &[Finding], path: &Path) -> Result<()> {
    Staged::create(path)?.finish(|out| {
        let mut csv = csv::Writer::from_writer(out);
        for answer in answers {
            csv.serialize(answer)?;
        }
        csv.flush()
    })
}

/// A cell as text: a text as it is, everything else as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes a row for each setting and variant of a frontier: its quality, its costs, whether it is on their fronts, and how it compares with each
/// family.
///
/// # Errors
/// What the system refuses.
pub fn frontier(frontier: &Frontier, path: &Path) -> Result<()> {
    let study = frontier.study;
    let objectives = &study.spec.objectives;
    let mut header: Vec<String> = study.grid.leaves().iter().map(|leaf| leaf.name.clone()).collect();
    let of_network = ["variant", "network", "depth"];
    let of_quality =
        ["perplexity", "perplexity_low", "perplexity_high", "kl", "kl_low", "kl_high", "failure", "feasible"];
    header.extend(of_network.into_iter().chain(of_quality).map(str::to_owned));
    for objective in objectives {
        let metric = objective.metric();
        let parts = ["", ".low", ".high", ".error_known", ".on_front"];
        header.extend(parts.map(|part| format!("{metric}{part}")));
    }
    for family in &study.spec.families {
        for objective in objectives {
            let parts = ["percent", "shared_percent", "opposed_percent", "verdict"];
            let about = |part| format!("gain_over.{}.{}.{part}", family.name, objective.metric());
            header.extend(parts.map(about));
        }
    }
    Staged::create(path)?.finish(|out| {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(&header)?;
        for setting in &frontier.settings {
            for variant in 0..setting.spots.len() {
                csv.write_record(frontier_row(frontier, setting, variant))?;
            }
        }
        csv.flush()
    })
}

fn frontier_row(frontier: &Frontier, setting: &Setting, variant: usize) -> Vec<String> {
    let study = frontier.study;
    let (network, spot) = (&frontier.networks[variant], &setting.spots[variant]);
    let optional = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let mut cells: Vec<String> = setting.at.iter().map(|(label, _)| label.clone()).collect();
    cells.extend([
        study.base.variants[variant].name.clone(),
        network.network.clone(),
        network.depth.to_string(),
    ]);
    for quality in [Some(network.perplexity), network.kl] {
        let [low, high] =
            quality.and_then(|quality| quality.interval).map_or([None; 2], |ends| ends.map(Some));
        cells.extend([quality.map(|quality| quality.mean), low, high].map(optional));
    }
    cells.extend([spot.failure.clone().unwrap_or_default(), spot.feasible.to_string()]);
    for (cost, on_front) in spot.costs.iter().zip(&spot.on_front) {
        let of = |value: fn(&Estimate) -> f64| optional(cost.as_ref().map(value));
        let known = cost.map_or(String::new(), |cost| cost.is_known().to_string());
        let ends = [of(|cost| cost.value), of(Estimate::low), of(Estimate::high), known];
        cells.extend(ends.into_iter().chain([on_front.to_string()]));
    }
    for family in 0..study.spec.families.len() {
        for objective in 0..study.spec.objectives.len() {
            let is = |one: &&PeerComparison| {
                (one.variant, one.family, one.objective) == (variant, family, objective)
            };
            cells.extend(match setting.comparisons.iter().find(is).map(|one| one.found) {
                Some(PeerFinding::Gain { percent, shared, opposed, verdict }) => {
                    [optional(Some(percent)), optional(shared), optional(opposed), text(&json!(verdict))]
                }
                Some(PeerFinding::Beyond(beyond)) => {
                    [String::new(), String::new(), String::new(), beyond.word().to_owned()]
                }
                None => Default::default(),
            });
        }
    }
    cells
}
