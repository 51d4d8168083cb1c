//! Holds what was executed on this machine's adapter against what the simulator says of the same model, routes, batch and dispatch
//! policy: run by run, pass by pass, kernel by kernel, and in memory.

mod compare;
mod execute;
mod simulate;
mod table;

pub use compare::{CaseErrors, CaseOrder, ComparedNumber, RunComparison, kernels, orders, steps};
pub use execute::{Bench, ExecutedCase};
pub use simulate::simulate;
pub use table::table;

use crate::report::timeline::Timeline;
use std::collections::BTreeMap;

/// A pass, executed or simulated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassTimes {
    /// Whether tokens of prompts were in it.
    pub prompt: bool,
    /// Tokens.
    pub tokens: u32,
    /// Seconds from its begin to its end on the host's clock.
    pub seconds: f64,
    /// Kernels by name: how many, and their seconds on the device.
    pub kernels: BTreeMap<&'static str, (u64, f64)>,
}

/// A run, executed or simulated.
#[derive(Debug)]
pub struct RunTimes {
    /// Its passes in order.
    pub passes: Vec<PassTimes>,
    /// Most bytes on the device at once.
    pub memory_bytes: u64,
    /// Share of the kernel time whose price was extrapolated; 0 of executed runs.
    pub extrapolated: f64,
    /// Every kernel.
    pub timeline: Timeline,
}

impl RunTimes {
    /// Several runs of one case as one: medians of the times of each pass and kernel, everything else of the first.
    ///
    /// # Panics
    /// Without runs.
    pub fn median(runs: Vec<RunTimes>) -> RunTimes {
        let of = |pick: &dyn Fn(&RunTimes) -> Option<f64>| {
            let mut values: Vec<f64> = runs.iter().filter_map(pick).collect();
            values.sort_by(f64::total_cmp);
            let upper = values.len() / 2;
            let lower = (values.len() - 1) / 2;
            (values[lower] + values[upper]) / 2.0
        };
        let pass = |(index, pass): (usize, &PassTimes)| {
            let seconds = of(&|run| run.passes.get(index).map(|pass| pass.seconds));
            let kernel = |(&name, &(count, _)): (&&'static str, &(u64, f64))| {
                let seconds = of(&|run| run.passes.get(index)?.kernels.get(name).map(|kernel| kernel.1));
                (name, (count, seconds))
            };
            PassTimes { seconds, kernels: pass.kernels.iter().map(kernel).collect(), ..pass.clone() }
        };
        let passes = runs[0].passes.iter().enumerate().map(pass).collect();
        let first = runs.into_iter().next().expect("at least one run");
        RunTimes { passes, ..first }
    }

    /// Seconds of the passes with tokens of prompts, and of the others.
    pub fn seconds(&self) -> [f64; 2] {
        let of = |prompt: bool| {
            self.passes.iter().filter(|pass| pass.prompt == prompt).map(|pass| pass.seconds).sum()
        };
        [of(true), of(false)]
    }
}
