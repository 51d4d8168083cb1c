//! Errors of simulated runs against executed ones.

use super::{ExecutedCase, RunTimes};
use crate::calib::PercentErrors;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// One case, executed and simulated.
#[derive(Debug)]
pub struct RunComparison {
    /// What ran.
    pub case: ExecutedCase,
    /// On the adapter.
    pub executed: RunTimes,
    /// With the profile.
    pub simulated: RunTimes,
}

/// A number of a case, simulated and executed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComparedNumber {
    /// As simulated.
    pub said: f64,
    /// As executed.
    pub was: f64,
}

impl ComparedNumber {
    /// Signed, in percent of what was executed; 0 where nothing was.
    pub fn error(&self) -> f64 {
        if self.was > 0.0 { 100.0 * (self.said / self.was - 1.0) } else { 0.0 }
    }
}

impl RunComparison {
    /// Puts both sides together.
    ///
    /// # Errors
    /// Passes that are not the same on both sides: then times say nothing.
    pub fn new(case: ExecutedCase, executed: RunTimes, simulated: RunTimes) -> Result<RunComparison> {
        let shape = |run: &RunTimes| -> Vec<(u32, bool, u64)> {
            let kernels = |pass: &super::PassTimes| pass.kernels.values().map(|kernel| kernel.0).sum();
            run.passes.iter().map(|pass| (pass.tokens, pass.prompt, kernels(pass))).collect()
        };
        let (ran, said) = (shape(&executed), shape(&simulated));
        if ran != said {
            let first = ran.iter().zip(&said).position(|(a, b)| a != b).unwrap_or(ran.len().min(said.len()));
            return Err(Error::Gate(format!(
                "{} under {} in batches of {}: pass {first} has (tokens, prompt, kernels) {:?} executed and {:?} simulated",
                case.routes,
                case.policy.name(),
                case.batch(),
                ran.get(first),
                said.get(first)
            )));
        }
        Ok(RunComparison { case, executed, simulated })
    }

    /// Seconds of prompts, and of generation.
    pub fn seconds(&self) -> [ComparedNumber; 2] {
        let (was, said) = (self.executed.seconds(), self.simulated.seconds());
        [0, 1].map(|part| ComparedNumber { said: said[part], was: was[part] })
    }

    /// Seconds of the whole run.
    pub fn total(&self) -> ComparedNumber {
        let [prompts, generation] = self.seconds();
        ComparedNumber { said: prompts.said + generation.said, was: prompts.was + generation.was }
    }

    /// Bytes.
    pub fn memory(&self) -> ComparedNumber {
        ComparedNumber { said: self.simulated.memory_bytes as f64, was: self.executed.memory_bytes as f64 }
    }
}

/// Errors of kernels by name over all cases, with their share of the executed kernel time; of single passes.
pub fn kernels(all: &[RunComparison]) -> Vec<(&'static str, PercentErrors, f64)> {
    let mut pairs: BTreeMap<&'static str, Vec<(f64, f64)>> = BTreeMap::new();
    for one in all {
        for (ran, said) in one.executed.passes.iter().zip(&one.simulated.passes) {
            for (name, (_, seconds)) in &ran.kernels {
                let said = said.kernels.get(name).map_or(0.0, |kernel| kernel.1);
                pairs.entry(name).or_default().push((said, *seconds));
            }
        }
    }
    let whole: f64 = pairs.values().flatten().map(|pair| pair.1).sum();
    let row = |(name, pairs): (&'static str, Vec<(f64, f64)>)| {
        let share = pairs.iter().map(|pair| pair.1).sum::<f64>() / whole;
        Some((name, PercentErrors::of(pairs)?, share))
    };
    pairs.into_iter().filter_map(row).collect()
}

/// Errors of single passes over all cases.
pub fn steps(all: &[RunComparison]) -> Option<PercentErrors> {
    let passes = all.iter().flat_map(|one| one.executed.passes.iter().zip(&one.simulated.passes));
    PercentErrors::of(passes.map(|(ran, said)| (said.seconds, ran.seconds)))
}

/// Errors of the prompts and the generation of all cases together, and of their memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaseErrors {
    /// Prompts and generation of every case.
    pub times: PercentErrors,
    /// Peak memory of every case.
    pub memory: PercentErrors,
}

impl CaseErrors {
    /// `None` without cases.
    pub fn of(all: &[RunComparison]) -> Option<CaseErrors> {
        let pair = |part: ComparedNumber| (part.said, part.was);
        let times = all.iter().flat_map(RunComparison::seconds).filter(|part| part.was > 0.0).map(pair);
        Some(CaseErrors {
            times: PercentErrors::of(times)?,
            memory: PercentErrors::of(all.iter().map(|one| pair(one.memory())))?,
        })
    }

    /// # Errors
    /// A mean or largest error, in percent, above its bound.
    pub fn gate(&self, mean: f64, worst: f64) -> Result<()> {
        let CaseErrors { times, .. } = self;
        // Written so that NaN fails.
        if times.mean <= mean && times.worst <= worst {
            return Ok(());
        }
        Err(Error::Gate(format!(
            "times of prompts and generation are off by {:.2} % in the mean and {:.2} % at worst, and {mean} and {worst} % were allowed",
            times.mean, times.worst
        )))
    }
}

/// Two cases of equal batch, and which is quicker.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseOrder {
    /// The pair, in words.
    pub pair: String,
    /// First over second, less one, in percent: as executed and as simulated.
    pub differ: [f64; 2],
}

impl CaseOrder {
    /// Whether both sides name the same as the quicker.
    pub fn agrees(&self) -> bool {
        (self.differ[0] > 0.0) == (self.differ[1] > 0.0)
    }
}

/// All pairs of equal batch that differ by more than `least` percent as executed: policies on the same routes, and each against
/// dense.
pub fn orders(all: &[RunComparison], least: f64) -> Vec<CaseOrder> {
    let mut out = Vec::new();
    for (index, a) in all.iter().enumerate() {
        for b in &all[..index] {
            let dense = |one: &RunComparison| one.case.routes == "dense";
            let related = a.case.routes == b.case.routes || dense(a) || dense(b);
            if a.case.batch() != b.case.batch() || !related {
                continue;
            }
            let ratio = |of: &dyn Fn(&ComparedNumber) -> f64| 100.0 * (of(&a.total()) / of(&b.total()) - 1.0);
            let differ = [ratio(&|part| part.was), ratio(&|part| part.said)];
            if differ[0].abs() > least {
                let name = |one: &RunComparison| format!("{} {}", one.case.routes, one.case.policy.name());
                out.push(CaseOrder {
                    pair: format!("{} / {}, batch {}", name(a), name(b), a.case.batch()),
                    differ,
                });
            }
        }
    }
    out
}
