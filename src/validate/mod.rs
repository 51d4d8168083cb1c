//! Holds what was executed on this machine's adapter against what the simulator says of the same model, routes, batch and dispatch
//! policy: run by run, pass by pass, kernel by kernel, and in memory.

mod compare;
mod execute;
mod simulate;
mod table;

pub use compare::{Comparison, Order, Part, Verdict, kernels, orders, steps};
pub use execute::{Bench, Case};
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
    /// Seconds of the passes with tokens of prompts, and of the others.
    pub fn seconds(&self) -> [f64; 2] {
        let of = |prompt: bool| {
            self.passes.iter().filter(|pass| pass.prompt == prompt).map(|pass| pass.seconds).sum()
        };
        [of(true), of(false)]
    }
}
