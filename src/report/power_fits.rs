//! How far simulated serving runs lie from measured ones.

use super::sheet::Sheet;
use crate::meter::{ComparedRun, PredictedRun, Wrong, wrong};
use std::collections::BTreeMap;

/// A table with a row for each model and one for all.
pub fn metered(points: &[ComparedRun], predicted: &[PredictedRun]) -> String {
    let pairs: Vec<(&ComparedRun, PredictedRun)> = points.iter().zip(predicted.iter().copied()).collect();
    let mut models: Vec<(&str, Vec<(&ComparedRun, PredictedRun)>)> = Vec::new();
    for pair in &pairs {
        let id = pair.0.row.id.as_str();
        match models.iter_mut().find(|(known, _)| *known == id) {
            Some((_, list)) => list.push(*pair),
            None => models.push((id, vec![*pair])),
        }
    }
    let mut lines: Vec<(String, usize, Wrong)> = Vec::new();
    for (id, pairs) in models {
        let note = if pairs.iter().any(|(point, _)| point.row.shape.stands_in) { " *" } else { "" };
        lines.extend(wrong(&pairs).map(|errors| (format!("{id}{note}"), pairs.len(), errors)));
    }
    lines.extend(wrong(&pairs).map(|errors| ("all".to_owned(), pairs.len(), errors)));
    let column = |of: fn(&Wrong) -> f64| -> Vec<String> {
        lines.iter().map(|(_, _, errors)| format!("{:.1}", of(errors))).collect()
    };
    let foot = match points.iter().any(|point| point.row.shape.stands_in) {
        true => {
            "* shapes are not known: those of the built-in model of the nearest size, with another feed-forward width.\n"
        }
        false => "",
    };
    Sheet::new()
        .words("model", lines.iter().map(|(name, ..)| name))
        .numbers("rows", lines.iter().map(|(_, rows, _)| rows.to_string()))
        .numbers("ITL\n%", column(|errors| errors.itl.mean))
        .numbers("bias\n%", column(|errors| errors.itl.bias))
        .numbers("J / token\n%", column(|errors| errors.joules.mean))
        .numbers("bias\n%", column(|errors| errors.joules.bias))
        .numbers("W\n%", column(|errors| errors.watts.mean))
        .numbers("bias\n%", column(|errors| errors.watts.bias))
        .render()
        + foot
}

/// Rows that were left out, a line for each reason.
pub fn skipped(reasons: &BTreeMap<String, usize>) -> String {
    reasons.iter().map(|(reason, rows)| format!("left out: {rows} rows {reason}\n")).collect()
}
