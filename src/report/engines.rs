//! The same comparison under the host times of every engine: how much of a result depends on them.

use super::cells::pass_s;
use super::sheet::{Sheet, percent, times};
use crate::scenario::{Outcome, VariantOutcome};

/// Title of [`table`].
const TITLE: &str =
    "The same under other engines: pass time of the first row, and what the others save of it in %";

/// A column for each engine: what came out, or none where it cannot run the scenario.
pub fn table(first: &Outcome, engines: &[(&str, Option<Outcome>)]) -> String {
    let mut sheet = Sheet::new().words("variant", first.variants.iter().map(|variant| &variant.name));
    for (name, outcome) in engines {
        let of = |name: &str| {
            let variants = outcome.iter().flat_map(|outcome| &outcome.variants);
            variants.into_iter().find(|variant| variant.name == name).map(|variant| variant.mean(pass_s))
        };
        let whole = of(&first.variants[0].name);
        let cell = |(index, variant): (usize, &VariantOutcome)| match (index, whole, of(&variant.name)) {
            (0, Some(whole), _) => {
                let (unit, shown) = times(&[whole]);
                format!("{} {unit}", shown.concat())
            }
            (_, Some(whole), Some(seconds)) => percent(1.0 - seconds / whole),
            _ => "-".into(),
        };
        let cells: Vec<String> = first.variants.iter().enumerate().map(cell).collect();
        sheet = sheet.numbers(&name.replacen('-', "-\n", 1), cells);
    }
    format!("\n{TITLE}\n{}", sheet.render())
        + "-: the engine cannot run it. One that captures no graphs launches each kernel. Where signs differ, the engine decides.\n"
}
