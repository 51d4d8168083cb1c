//! The same comparison under the host times of every engine: how much of a result depends on them.

use super::sheet::{Sheet, percent, times};
use super::table::means;
use crate::scenario::{Outcome, Run};
use crate::units::PS_PER_S;

/// Title of [`table`].
const TITLE: &str =
    "The same under other engines: pass time of the first row, and what the others save of it in %";

/// A column for each engine: what came out, or none where it cannot run the scenario.
pub fn table(first: &Outcome, engines: &[(&str, Option<Outcome>)]) -> String {
    let pass_s = |run: &Run| run.ledger.pass_ps as f64 / PS_PER_S as f64;
    let mut sheet = Sheet::new().words("variant", first.variants.iter().map(|variant| &variant.name));
    for (name, outcome) in engines {
        let cells: Vec<String> = match outcome {
            None => first.variants.iter().map(|_| "-".into()).collect(),
            Some(outcome) => {
                let seconds = means(&outcome.variants, pass_s);
                let (unit, shown) = times(&seconds[..1]);
                let own = shown.into_iter().map(|time| format!("{time} {unit}"));
                own.chain(seconds.iter().skip(1).map(|time| percent(1.0 - time / seconds[0]))).collect()
            }
        };
        sheet = sheet.numbers(&name.replacen('-', "-\n", 1), cells);
    }
    format!("\n{TITLE}\n{}", sheet.render())
        + "-: the engine cannot run it. An engine that captures no graphs launches each kernel. Where signs differ, the engine decides.\n"
}
