//! Sums of the operators of whole passes, measured and as a profile says.

use super::sheet::Sheet;
use crate::calib::{PassKind, PassSum, PercentErrors};

const KINDS: [(PassKind, &str); 3] = [
    (PassKind::Decode, "generated tokens"),
    (PassKind::Prefill, "a chunk of a prompt"),
    (PassKind::Mixed, "both"),
];

/// A table, a row for each kind of pass.
pub fn passes(passes: &[PassSum]) -> String {
    let lines: Vec<(&str, PercentErrors)> = KINDS
        .iter()
        .filter_map(|&(kind, name)| {
            let of = passes.iter().filter(|pass| pass.kind == kind);
            Some((name, PercentErrors::of(of.map(|pass| (pass.said, pass.was)))?))
        })
        .collect();
    let column = |of: fn(&PercentErrors) -> f64| -> Vec<String> {
        lines.iter().map(|(_, errors)| format!("{:.2}", of(errors))).collect()
    };
    Sheet::new()
        .words("pass", lines.iter().map(|(name, _)| *name))
        .numbers("passes", lines.iter().map(|(_, errors)| errors.rows.to_string()))
        .numbers("mean\n%", column(|errors| errors.mean))
        .numbers("bias\n%", column(|errors| errors.bias))
        .numbers("p90\n%", column(|errors| errors.p90))
        .numbers("worst\n%", column(|errors| errors.worst))
        .render()
        + "How far the sum of all operators of a pass (all layers, embedding, head, sampler) by the profile is off the sum of the measured ones;\n\
           operators at other rows than the table's by straight lines between them. No launches, host or collectives on either side.\n"
}
