//! The largest load that a device carries within bounds.

use super::bisect::bisect;
use super::{Leaf, Setting, ascending, shown};
use crate::error::Result;
use crate::study::Answer;
use crate::study::objective::{Decision, decide};
use serde_json::{Value, json};

/// For each variant, the largest value of the axis up to which every constraint holds.
///
/// The listed values are tried upwards until one breaks a constraint; then the way from the last that held is halved. `low` is the
/// largest value at which the intervals over the seeds say that all holds, `high` the smallest at which they say that it does not.
pub fn find(setting: &Setting, leaf: &Leaf, tolerance: f64, most_seeds: u32) -> Result<Vec<Answer>> {
    let count = setting.study.base.variants.len();
    (0..count).map(|variant| of_variant(setting, leaf, variant, tolerance, most_seeds)).collect()
}

fn of_variant(
    setting: &Setting,
    leaf: &Leaf,
    variant: usize,
    tolerance: f64,
    most_seeds: u32,
) -> Result<Answer> {
    let study = setting.study;
    // Every value that was looked at, what the intervals said of it, and with how many seeds.
    let mut judged: Vec<(f64, Decision, u32)> = Vec::new();
    let mut judge = |value: &Value| -> Result<bool> {
        let number = value.as_f64().unwrap_or(f64::NAN);
        let mut seeds = study.base.seeds;
        let mut case = setting.case(&[leaf.with(value.clone())]);
        loop {
            let row = setting.row(&case, variant)?;
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
    let most = judged.iter().map(|(.., seeds)| *seeds).max().unwrap_or(study.base.seeds);
    let doubt = match of(Decision::Unsure).count() {
        0 => String::new(),
        count => format!(", {count} undecided with {most} seeds"),
    };
    Ok(Answer {
        kind: "capacity",
        at: setting.words(),
        variant: study.base.variants[variant].name.clone(),
        moved: leaf.name.clone(),
        about: study.spec.constraints.iter().map(|one| one.words()).collect::<Vec<_>>().join(", "),
        value,
        low,
        high,
        words: words + &doubt,
        swing: None,
    })
}
