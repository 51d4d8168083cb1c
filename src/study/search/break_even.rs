//! Where a variant starts or stops being better than another one.

use super::bisect::bisect;
use super::{Leaf, Setting, ascending, shown};
use crate::error::Result;
use crate::metrics::Gain;
use crate::study::{Finding, Objective};
use serde_json::Value;

/// Every border along the axis at which the gain changes its sign, for each variant; and where there is none, that.
///
/// `low` and `high` of an answer are the nearest values on both sides at which the gain is more than its error; the error is that of
/// kernels that are wrong alike in both runs.
pub fn find(
    setting: &Setting,
    leaf: &Leaf,
    variants: &[String],
    against: &str,
    of: &Objective,
    tolerance: f64,
) -> Result<Vec<Finding>> {
    let mut answers = Vec::new();
    for name in variants {
        answers.extend(of_variant(setting, leaf, name, against, of, tolerance)?);
    }
    Ok(answers)
}

fn of_variant(
    setting: &Setting,
    leaf: &Leaf,
    name: &str,
    against: &str,
    of: &Objective,
    tolerance: f64,
) -> Result<Vec<Finding>> {
    let place = |name: &str| {
        let is_it = |variant: &crate::scenario::Variant| variant.name == name;
        setting.study.base.variants.iter().position(is_it).expect("checked when the study was read")
    };
    let (variant, other) = (place(name), place(against));
    // Every value that was looked at, with its gain; none where one of the rows failed.
    let mut seen: Vec<(f64, Option<Gain>)> = Vec::new();
    let mut gain = |value: &Value| -> Result<Option<Gain>> {
        let case = setting.case(&[leaf.with(value.clone())]);
        let (row, other) = (setting.row(&case, variant)?, setting.row(&case, other)?);
        let gain = row.gain(&other, of.metric(), of.less_is_better());
        seen.push((value.as_f64().unwrap_or(f64::NAN), gain));
        Ok(gain)
    };
    let pays = |gain: Gain| gain.percent > 0.0;

    let mut borders = Vec::new();
    let mut listed = Vec::new();
    for (_, value) in ascending(leaf) {
        if let Some(gain) = gain(&value)? {
            listed.push((value, pays(gain)));
        }
    }
    for pair in listed.windows(2) {
        let [(low, paid), (high, pays_too)] = pair else { continue };
        if paid != pays_too {
            // A value that fails is on the far side of whatever is asked.
            let near = |value: &Value| Ok(gain(value)?.is_some_and(|gain| pays(gain) == *paid));
            borders.push((bisect(leaf, low.clone(), high.clone(), tolerance, near)?, *paid));
        }
    }

    seen.sort_by(|a, b| a.0.total_cmp(&b.0));
    let sure = |(at, gain): &(f64, Option<Gain>)| {
        let gain = gain.filter(|gain| gain.verdict.is_sure())?;
        Some((*at, pays(gain)))
    };
    let sure: Vec<(f64, bool)> = seen.iter().filter_map(sure).collect();
    let answer = |value: Option<f64>, low: Option<f64>, high: Option<f64>, words: String| Finding {
        kind: "break-even",
        at: setting.words(),
        variant: name.to_owned(),
        moved: leaf.name.clone(),
        about: format!("{} against {against}", of.metric()),
        value,
        low,
        high,
        words,
        swing: None,
    };
    if borders.is_empty() {
        let words = match listed.first() {
            None => "no value of the axis gave both rows".to_owned(),
            Some((_, true)) => "better at every value".to_owned(),
            Some((_, false)) => "never better".to_owned(),
        };
        return Ok(vec![answer(None, None, None, words)]);
    }
    let one = |(border, paid): (super::bisect::Border, bool)| {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let (low, high) = (number(&border.low), number(&border.high));
        let value = if leaf.is_log() { (low * high).sqrt() } else { (low + high) / 2.0 };
        let before = sure.iter().rev().find(|(at, pays)| *at <= low && *pays == paid).map(|(at, _)| *at);
        let after = sure.iter().find(|(at, pays)| *at >= high && *pays != paid).map(|(at, _)| *at);
        let (was, is) = if paid { ("better", "worse") } else { ("worse", "better") };
        let words = format!("{was} up to {}, {is} from {}", shown(&border.low), shown(&border.high));
        answer(Some(value), before, after, words)
    };
    Ok(borders.into_iter().map(one).collect())
}
