//! Closed loops as they were measured and as they were simulated.

use super::sheet::Sheet;
use crate::calib::PercentErrors;
use crate::meter::MeasuredEnd;

/// A measured loop and what the simulation says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Measured.
    pub row: MeasuredEnd,
    /// Mean time to the first token and mean time per output token as simulated, seconds.
    pub said: (f64, f64),
}

/// A line for each row, then one for each model, engine and precision.
pub fn ends(rows: &[End]) -> String {
    let times = |of: fn(&End) -> f64| -> Vec<String> {
        rows.iter().map(|end| format!("{:.2}", 1e3 * of(end))).collect()
    };
    let errors = |of: fn(&End) -> (f64, f64)| -> Vec<String> {
        rows.iter().map(|end| format!("{:+.1}", percent(of(end)))).collect()
    };
    let count = |of: fn(&End) -> u32| rows.iter().map(move |end| of(end).to_string());
    let each = Sheet::new()
        .words("model", rows.iter().map(|end| &end.row.model))
        .narrow("engine", rows.iter().map(|end| format!("{}, {}", end.row.engine, end.row.precision)))
        .numbers("devices", count(|end| end.row.devices))
        .numbers("prompt", count(|end| end.row.prompt_tokens))
        .numbers("output", count(|end| end.row.output_tokens))
        .numbers("clients", count(|end| end.row.clients))
        .numbers("TPOT ms\nmeasured", times(|end| end.row.tpot_s))
        .numbers("simu-\nlated", times(|end| end.said.1))
        .numbers("error\n%", errors(tpot))
        .numbers("TTFT ms\nmeasured", times(|end| end.row.ttft_s))
        .numbers("simu-\nlated", times(|end| end.said.0))
        .numbers("error\n%", errors(ttft))
        .render();
    let mut groups: Vec<(String, Vec<&End>)> = Vec::new();
    for end in rows {
        let MeasuredEnd { model, engine, precision, hardware, devices, .. } = &end.row;
        let count = if *devices == 1 { String::new() } else { format!("{devices} x ") };
        let name = format!("{model} {precision}, {engine}, {count}{hardware}");
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => list.push(end),
            None => groups.push((name, vec![end])),
        }
    }
    let of = |list: &[&End], of: fn(&End) -> (f64, f64)| PercentErrors::of(list.iter().map(|end| of(end)));
    let column = |pair: fn(&End) -> (f64, f64), show: fn(&PercentErrors) -> f64| -> Vec<String> {
        let show = |(_, list): &(String, Vec<&End>)| {
            of(list, pair).map_or("-".into(), |errors| format!("{:.1}", show(&errors)))
        };
        groups.iter().map(show).collect()
    };
    each + &Sheet::new()
        .prose("errors of", groups.iter().map(|(name, _)| name))
        .numbers("rows", groups.iter().map(|(_, list)| list.len().to_string()))
        .numbers("TPOT\nmean %", column(tpot, |errors| errors.mean))
        .numbers("median\n%", column(tpot, |errors| errors.p50))
        .numbers("bias\n%", column(tpot, |errors| errors.bias))
        .numbers("TTFT\nmean %", column(ttft, |errors| errors.mean))
        .numbers("median\n%", column(ttft, |errors| errors.p50))
        .numbers("bias\n%", column(ttft, |errors| errors.bias))
        .render()
}

/// Simulated and measured.
fn tpot(end: &End) -> (f64, f64) {
    (end.said.1, end.row.tpot_s)
}

fn ttft(end: &End) -> (f64, f64) {
    (end.said.0, end.row.ttft_s)
}

fn percent((said, was): (f64, f64)) -> f64 {
    100.0 * (said / was - 1.0)
}
