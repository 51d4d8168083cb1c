//! The largest load that a device carries within bounds.

use super::bisect::bisect;
use super::{Case, Leaf, Row, Setting, ascending, shown};
use crate::error::Result;
use crate::study::Finding;
use crate::study::objective::{Decision, decide};
use serde_json::{Value, json};

/// What a value may cost before it is decided.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Seeds at most.
    pub most_seeds: u32,
    /// Times the requests of the scenario, at most.
    pub longest: u32,
}

/// The key of how many requests are drawn.
const COUNT: &str = "workload.requests.count";

/// In-service times that a run must last, so that a system which still grows at its end is taken as one that does not stop.
const LONG_ENOUGH: f64 = 4.0;

/// For each variant, the largest value of the axis up to which every constraint holds and the requests in the system do not grow on
/// and on: while they do, times follow the length of the run, and so does what holds.
///
/// The listed values are tried upwards until one breaks a constraint; then the way from the last that held is halved. `low` is the
/// largest value at which the intervals over the seeds say that all holds, `high` the smallest at which they say that it does not.
pub fn find(setting: &Setting, leaf: &Leaf, tolerance: f64, effort: Effort) -> Result<Vec<Finding>> {
    let count = setting.study.base.variants.len();
    (0..count).map(|variant| of_variant(setting, leaf, variant, tolerance, effort)).collect()
}

/// Whether a run lasts long beside what a request takes once it has begun.
fn is_long(row: &Row) -> bool {
    let number = |metric| row.number(metric).unwrap_or(0.0);
    number("makespan_s") >= LONG_ENOUGH * (number("e2e_s.mean") - number("queue_s.mean"))
}

/// Requests drawn in this case, where their number is not moved with an axis.
fn drawn(setting: &Setting, leaf: &Leaf, case: &Case) -> Result<Option<u64>> {
    let moved = setting.at.iter().map(|choice| choice.leaf).chain([leaf]);
    if moved.flat_map(|leaf| &leaf.keys).any(|key| key == COUNT) {
        return Ok(None);
    }
    let requests = case.scenario(setting.study)?.workload.requests;
    Ok(requests.map(|requests| requests.count.into()))
}

fn of_variant(
    setting: &Setting,
    leaf: &Leaf,
    variant: usize,
    tolerance: f64,
    Effort { most_seeds, longest }: Effort,
) -> Result<Finding> {
    let study = setting.study;
    // Every value that was looked at, what the intervals said of it, and with how many seeds.
    let mut judged: Vec<(f64, Decision, u32)> = Vec::new();
    // Those among them at which the system grows on and on.
    let mut unstable: Vec<f64> = Vec::new();
    let mut judge = |value: &Value| -> Result<bool> {
        let number = value.as_f64().unwrap_or(f64::NAN);
        let mut seeds = study.base.seeds;
        let mut case = setting.case(&[leaf.with(value.clone())]);
        let (requests, mut times) = (drawn(setting, leaf, &case)?, 1);
        loop {
            let row = setting.row(&case, variant)?;
            let told = row.grows() && is_long(&row);
            if row.may_grow()
                && !told
                && let Some(requests) = requests.filter(|_| times * 2 <= longest)
            {
                times *= 2;
                case = case.with(COUNT, json!(requests * u64::from(times))).only(variant);
                continue;
            }
            if row.grows() {
                judged.push((number, Decision::Broken, seeds));
                unstable.push(number);
                return Ok(false);
            }
            let decision = match decide(&study.spec.constraints, &row) {
                // A single seed has no interval that could tell.
                Decision::Holds | Decision::Broken if seeds == 1 && row.failure().is_none() => {
                    Decision::Unsure
                }
                decision => decision,
            };
            if decision != Decision::Unsure || seeds >= most_seeds {
                judged.push((number, decision, seeds));
                // Where the intervals do not tell, the means do.
                return Ok(study.is_feasible(&row));
            }
            seeds = (seeds * 2).min(most_seeds);
            case = case.with("seeds", json!(seeds)).only(variant);
        }
    };

    let (mut held, mut broke) = (None, None);
    for (_, value) in ascending(leaf) {
        if judge(&value)? {
            held = Some(value);
        } else {
            broke = Some(value);
            break;
        }
    }
    let (value, words) = match (held, broke) {
        (Some(held), Some(broke)) => {
            let border = bisect(leaf, held, broke, tolerance, &mut judge)?;
            (border.low.as_f64(), format!("holds at {}, not at {}", shown(&border.low), shown(&border.high)))
        }
        (Some(held), None) => (held.as_f64(), format!("holds at every value, up to {}", shown(&held))),
        (None, Some(broke)) => (None, format!("does not even hold at {}", shown(&broke))),
        (None, None) => (None, "the axis has no values".into()),
    };
    let of = |decision: Decision| {
        judged.iter().filter(move |(_, is, _)| *is == decision).map(|(number, ..)| *number)
    };
    // Both ends as the intervals tell them: no value that surely holds lies above one that surely does not.
    let high = of(Decision::Broken).reduce(f64::min);
    let low = of(Decision::Holds).filter(|low| high.is_none_or(|high| *low < high)).reduce(f64::max);
    let unstable = match unstable.into_iter().reduce(f64::min) {
        Some(from) => format!(", not stable from {} on", shown(&json!(from))),
        None => String::new(),
    };
    let most = judged.iter().map(|(.., seeds)| *seeds).max().unwrap_or(study.base.seeds);
    let doubt = match of(Decision::Unsure).count() {
        0 => String::new(),
        count => format!(", {count} undecided with {most} seeds"),
    };
    Ok(Finding {
        kind: "capacity",
        at: setting.words(),
        variant: study.base.variants[variant].name.clone(),
        moved: leaf.name.clone(),
        about: study.spec.constraints.iter().map(|one| one.words()).collect::<Vec<_>>().join(", "),
        value,
        low,
        high,
        words: words + &unstable + &doubt,
        swing: None,
    })
}
