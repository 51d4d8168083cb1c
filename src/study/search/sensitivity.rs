//! How much each number moves each objective.

use super::Setting;
use crate::error::Result;
use crate::hw::Hardware;
use crate::study::guard::guarded;
use crate::study::{AxisValue, Case, Finding, Objective, Row};
use serde_json::json;

/// The elasticity of each objective to each key, for each variant: d ln(metric) / d ln(key), as the central difference
/// ln(m(k (1 + s)) / m(k / (1 + s))) / ln((1 + s)^2). Where one side cannot be, the difference to the other one.
pub fn find(setting: &Setting, held: &[AxisValue], step: f64, keys: &[String]) -> Result<Vec<Finding>> {
    let study = setting.study;
    let case = setting.case(held);
    let Some(knobs) = knobs(setting, &case, step, keys) else { return Ok(Vec::new()) };
    let at = Setting { at: &[setting.at, held].concat(), ..*setting }.words();
    let cases: Vec<Case> = knobs.iter().flat_map(|knob| knob.cases(&case)).collect();
    let base = setting.asker.ask(&case)?;
    let moved = setting.asker.ask_all(&cases)?;
    let mut answers = Vec::new();
    for (knob, sides) in knobs.iter().zip(moved.chunks(2)) {
        for (place, row) in base.iter().enumerate() {
            let sides = [sides[0].get(place), sides[1].get(place)];
            answers.extend(
                study
                    .spec
                    .objectives
                    .iter()
                    .map(|objective| Finding { at: at.clone(), ..knob.answer(row, sides, objective) }),
            );
        }
    }
    Ok(answers)
}

/// A number that is moved.
struct Knob {
    key: String,
    value: f64,
    down: f64,
    up: f64,
    /// Whether it counts something and takes whole numbers alone.
    is_whole: bool,
}

/// The numbers as they are at this setting; none where it cannot be built, which its rows say.
fn knobs(setting: &Setting, case: &Case, step: f64, keys: &[String]) -> Option<Vec<Knob>> {
    let build = || {
        let scenario = case.scenario(setting.study).ok()?;
        let (built, _) = scenario.build().ok()?;
        Some((scenario, built))
    };
    let (scenario, built) = guarded(build).ok()??;
    let hardware = &built.first()?.setup.hardware;
    let all = || hardware.numbers().into_iter().map(|(key, _)| format!("hardware.{key}")).collect();
    let keys: Vec<String> = if keys.is_empty() { all() } else { keys.to_vec() };
    let knob = |key: String| {
        let number = scenario.number(&key, hardware)?;
        let value = number.as_f64().filter(|value| *value > 0.0)?;
        let is_whole = key.strip_prefix("hardware.").map_or(number.is_u64(), Hardware::is_whole);
        let (down, up) = (value / (1.0 + step), value * (1.0 + step));
        let (down, up) = if is_whole { (down.floor().max(1.0), up.ceil()) } else { (down, up) };
        Some(Knob { key, value, down, up, is_whole })
    };
    Some(keys.into_iter().filter_map(knob).collect())
}

impl Knob {
    fn cases(&self, case: &Case) -> [Case; 2] {
        let number = |value: f64| if self.is_whole { json!(value as u64) } else { json!(value) };
        [self.down, self.up].map(|value| case.clone().with(&self.key, number(value)))
    }

    /// What one objective does, from a row and those with the number below and above.
    fn answer(&self, row: &Row, sides: [Option<&Row>; 2], objective: &Objective) -> Finding {
        let metric = objective.metric();
        let of = |row: &Row| row.number(metric).filter(|number| *number > 0.0);
        let now = of(row).map(|number| (self.value, number));
        let [down, up] = sides.map(|side| side.and_then(of));
        let (down, up) = (down.map(|number| (self.down, number)), up.map(|number| (self.up, number)));
        let elasticity = match (down, up) {
            (Some(_), Some(_)) => slope(down, up),
            (None, Some(_)) => slope(now, up),
            (Some(_), None) => slope(down, now),
            (None, None) => None,
        };
        let change = |side: Option<(f64, f64)>| Some(100.0 * (side?.1 / now?.1 - 1.0));
        let failure = sides.into_iter().flatten().find_map(Row::failure);
        let (below, above) = (change(down), change(up));
        Finding {
            kind: "elasticity",
            at: String::new(),
            variant: row.variant().to_owned(),
            moved: self.key.clone(),
            about: metric.to_owned(),
            value: elasticity,
            low: None,
            high: None,
            words: said(objective, elasticity, failure),
            // A side that cannot be moves nothing.
            swing: below.or(above).map(|_| (below.unwrap_or(0.0), above.unwrap_or(0.0))),
        }
    }
}

/// Slope between two points of logarithms.
fn slope(from: Option<(f64, f64)>, to: Option<(f64, f64)>) -> Option<f64> {
    let ((from_key, from), (to_key, to)) = (from?, to?);
    Some((to / from).ln() / (to_key / from_key).ln()).filter(|slope| slope.is_finite())
}

fn said(objective: &Objective, elasticity: Option<f64>, failure: Option<&str>) -> String {
    match (elasticity, failure) {
        (None, Some(failure)) => format!("cannot be moved: {failure}"),
        (Some(elasticity), failure) => {
            let word = match elasticity {
                none if none.abs() < 1e-9 => "no effect",
                some if objective.prefers(some, 0.0) => "more of it helps",
                _ => "more of it hurts",
            };
            let side = failure.map_or(String::new(), |failure| format!(", from one side ({failure})"));
            format!("{elasticity:+.3} % per percent: {word}{side}")
        }
        (None, None) => "not known".into(),
    }
}
