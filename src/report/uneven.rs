//! Calls of uneven contexts, measured and as a profile says.

use super::sheet::Sheet;
use crate::calib::PercentErrors;
use crate::calib::layers::UnevenCall;
use std::collections::BTreeMap;

/// Whether rows of prompts are in the call, and its sequences; none: any number.
type Line = (bool, Option<u32>);

/// A table, a row for each number of sequences, alone and beside rows of prompts. `ratios`: of each call to the even call of the same mean, (said,
/// measured).
pub fn uneven(calls: &[UnevenCall], ratios: &[(f64, f64)]) -> String {
    let mut lines: BTreeMap<Line, Vec<(f64, f64)>> = BTreeMap::new();
    for (call, &ratio) in calls.iter().zip(ratios) {
        let beside = call.chunk.0 > 0;
        for number in [None, Some(call.sequences.0)] {
            lines.entry((beside, number)).or_default().push(ratio);
        }
    }
    let errors = |said: fn(&(f64, f64)) -> f64| -> Vec<PercentErrors> {
        let of = |rows: &Vec<(f64, f64)>| PercentErrors::of(rows.iter().map(|row| (said(row), row.1)));
        lines.values().filter_map(of).collect()
    };
    let (even, term) = (errors(|_| 1.0), errors(|row| row.0));
    let column = |errors: &[PercentErrors], of: fn(&PercentErrors) -> f64| -> Vec<String> {
        errors.iter().map(|errors| format!("{:.2}", of(errors))).collect()
    };
    Sheet::new()
        .words("call", lines.keys().map(|(beside, _)| if *beside { "beside a prompt" } else { "alone" }))
        .numbers("sequences", lines.keys().map(|(_, number)| number.map_or("all".into(), |n| n.to_string())))
        .numbers("rows", lines.values().map(|rows| rows.len().to_string()))
        .numbers("by the mean\n%", column(&even, |errors| errors.mean))
        .numbers("bias\n%", column(&even, |errors| errors.bias))
        .numbers("worst\n%", column(&even, |errors| errors.worst))
        .numbers("uneven\n%", column(&term, |errors| errors.mean))
        .numbers("bias\n%", column(&term, |errors| errors.bias))
        .numbers("worst\n%", column(&term, |errors| errors.worst))
        .render()
        + "How far the time of a call of uneven contexts over that of the even call of the same mean is off: if the mean context said it all,\n\
           and as the profile says.\n"
}
