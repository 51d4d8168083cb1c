//! What a validation of executed runs came to.

use super::compare::{CaseErrors, ComparedNumber, RunComparison, kernels, orders, steps};
use crate::calib::PercentErrors;
use crate::report::Sheet;
use std::fmt::Write;

/// Tables: a row for each case, one for each kernel, single passes, memory, and the order of cases.
pub fn table(all: &[RunComparison]) -> String {
    let mut out = cases(all);
    let _ = writeln!(
        out,
        "ms: times of all passes with prompts, and of all without. MB: most bytes on the device at once.\n"
    );
    out += &by_kernel(all);
    let _ = writeln!(
        out,
        "errors of the kernels of single passes, summed by name; share: of the executed kernel time.\n"
    );
    let line = |name: &str, errors: &PercentErrors| {
        format!(
            "{name}: {} compared, mean error {:.2} %, bias {:+.2} %, p90 {:.2} %, worst {:.2} %\n",
            errors.rows, errors.mean, errors.bias, errors.p90, errors.worst
        )
    };
    if let Some(errors) = steps(all) {
        out += &line("single passes", &errors);
    }
    let Some(CaseErrors { times, memory }) = CaseErrors::of(all) else { return out };
    out += &line("prompts and generation of each case", &times);
    out += &line("peak memory of each case", &memory);
    let extrapolated = all.iter().map(|one| one.simulated.extrapolated).fold(0.0, f64::max);
    let _ = writeln!(out, "extrapolated: at most {:.1} % of a case's kernel time", 100.0 * extrapolated);
    let least = 2.0 * times.mean;
    let pairs = orders(all, least);
    let wrong: Vec<_> = pairs.iter().filter(|order| !order.agrees()).collect();
    let _ = writeln!(
        out,
        "order: of {} pairs (policies on the same routes; routed and dense) that differ by more than {least:.1} %, twice the mean error, \
         {} are ordered alike",
        pairs.len(),
        pairs.len() - wrong.len()
    );
    for order in wrong {
        let _ = writeln!(
            out,
            "  not {}: {:+.1} % executed, {:+.1} % simulated",
            order.pair, order.differ[0], order.differ[1]
        );
    }
    out
}

fn cases(all: &[RunComparison]) -> String {
    let column = |of: &dyn Fn(&RunComparison) -> f64, digits: usize| -> Vec<String> {
        all.iter().map(|one| format!("{:.digits$}", of(one))).collect()
    };
    let part =
        |which: usize, of: fn(&ComparedNumber) -> f64| move |one: &RunComparison| of(&one.seconds()[which]);
    let (was, said) = (|part: &ComparedNumber| part.was * 1e3, |part: &ComparedNumber| part.said * 1e3);
    Sheet::new()
        .words("routes", all.iter().map(|one| one.case.routes.clone()))
        .words("policy", all.iter().map(|one| one.case.policy.name()))
        .numbers("batch", all.iter().map(|one| one.case.batch().to_string()))
        .numbers("prompts\nms", column(&part(0, was), 1))
        .numbers("\nsimulated", column(&part(0, said), 1))
        .numbers("\n%", column(&part(0, ComparedNumber::error), 1))
        .numbers("generation\nms", column(&part(1, was), 1))
        .numbers("\nsimulated", column(&part(1, said), 1))
        .numbers("\n%", column(&part(1, ComparedNumber::error), 1))
        .numbers("memory\nMB", column(&|one| one.memory().was / 1e6, 1))
        .numbers("\n%", column(&|one| one.memory().error(), 1))
        .render()
}

fn by_kernel(all: &[RunComparison]) -> String {
    let rows = kernels(all);
    let column = |of: &dyn Fn(&PercentErrors) -> f64| -> Vec<String> {
        rows.iter().map(|(_, errors, _)| format!("{:.2}", of(errors))).collect()
    };
    Sheet::new()
        .words("kernel", rows.iter().map(|row| row.0))
        .numbers("share\n%", rows.iter().map(|row| format!("{:.1}", 100.0 * row.2)))
        .numbers("passes", rows.iter().map(|row| row.1.rows.to_string()))
        .numbers("mean\n%", column(&|errors| errors.mean))
        .numbers("bias\n%", column(&|errors| errors.bias))
        .numbers("p90\n%", column(&|errors| errors.p90))
        .numbers("worst\n%", column(&|errors| errors.worst))
        .render()
}
