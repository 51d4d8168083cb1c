//! Which constants of the device move a saving most.

use super::{Inputs, Scenario};
use crate::error::Result;
use crate::hw::Hardware;
use crate::sim::Silent;
use crate::units::SourceKind;
use rayon::prelude::*;
use serde_json::json;

/// Share by which each constant is moved down and up. Assumed: what a datasheet or a guess may well be wrong by.
pub const STEP: f64 = 0.1;
/// Constants that are named.
const MOST: usize = 3;
/// A saving that moves by less is not moved: a tenth of a percent, the digits that reports show.
const MOVES: f64 = 1e-3;

/// What a constant does to a saving.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Its key in the profile.
    pub key: String,
    /// Who says its value.
    pub source: SourceKind,
    /// Share of the first row's pass time that is saved with the constant lower, as it is, and higher.
    pub saved: [f64; 3],
}

/// The constants of the device that move what row `best` saves against the first most, by [`STEP`] each way, with the scenario's first seed. Those
/// that cannot be moved both ways are left out.
///
/// # Errors
/// A scenario that cannot run as it is.
pub fn matters(inputs: &Inputs, scenario: &Scenario, best: usize, threads: usize) -> Result<Vec<Moved>> {
    let variants = [0, best].map(|row| scenario.variants[row].clone()).to_vec();
    let pair = Scenario { variants, seeds: 1, ..scenario.clone() };
    let (built, _) = pair.build_with(inputs)?;
    let hardware = built[0].setup.hardware.clone();
    drop(built);
    let now = saved(inputs, &pair)?;
    let moved = |(key, number): (String, &crate::hw::Sourced)| {
        let to = |value: f64| {
            let mut moved = pair.clone();
            let value = if Hardware::is_whole(&key) { json!(value.round() as u64) } else { json!(value) };
            moved.overrides.push((format!("hardware.{key}"), value));
            saved(inputs, &moved).ok()
        };
        let value = number.value;
        let (down, up) = (to(value / (1.0 + STEP))?, to(value * (1.0 + STEP))?);
        Some(Moved { source: number.source.kind(), saved: [down, now, up], key })
    };
    let numbers = || hardware.numbers().into_iter().filter(|(_, number)| number.value > 0.0);
    let mut all: Vec<Moved> = match threads {
        1 => numbers().filter_map(moved).collect(),
        _ => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let numbers: Vec<_> = numbers().collect();
            pool.expect("threads can be started")
                .install(|| numbers.into_par_iter().filter_map(moved).collect())
        }
    };
    let swing = |one: &Moved| (one.saved[2] - one.saved[0]).abs();
    all.retain(|one| swing(one) >= MOVES);
    // Equal ones stay in the order of the profile.
    all.sort_by(|a, b| swing(b).total_cmp(&swing(a)));
    all.truncate(MOST);
    Ok(all)
}

/// Share of the first row's pass time that the second saves.
fn saved(inputs: &Inputs, pair: &Scenario) -> Result<f64> {
    let (built, _) = pair.build_with(inputs)?;
    let pass = |mut built: super::Built| {
        built.setup.explain = false;
        let mut nobody: Vec<Silent> = (0..built.fleet.engines()).map(|_| Silent).collect();
        Ok(built.run_on(&built.setup.device()?, &mut nobody, false)?.pass_ps as f64)
    };
    let both = built.into_iter().map(pass).collect::<Result<Vec<f64>>>()?;
    Ok(1.0 - both[1] / both[0])
}
