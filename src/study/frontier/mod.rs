//! Quality against cost: at each setting of the axes, which networks are not beaten in both, and what a network costs beside a family of others of
//! the same quality.
//!
//! Costs are simulated, the objectives of the study; qualities were measured ([`Worth`](super::Worth)) and are the same at every setting.

mod page;
mod peer;
mod words;

pub use peer::{Beyond, PeerComparison, PeerFinding};

use super::worth::Worths;
use super::{Assembly, Measure, Report, Row, RowSource, Study, front};
use crate::error::Result;
use crate::metrics::Estimate;
use crate::quality::{self, Quality};
use crate::scenario::ReadInput;
use std::collections::BTreeSet;

/// What a study found of quality and cost.
#[derive(Debug)]
pub struct Frontier<'a> {
    /// The study.
    pub study: &'a Study,
    /// Which quality.
    pub measure: Measure,
    /// What each variant is worth, in their order.
    pub networks: Vec<quality::NetworkWorth>,
    /// The quality that is asked for, of each.
    qualities: Vec<Quality>,
    /// The settings of the axes, in their order.
    pub settings: Vec<Setting>,
    inputs: BTreeSet<ReadInput>,
}

/// One setting of the axes.
#[derive(Clone, Debug)]
pub struct Setting {
    /// For each axis what reports call its value, and the number where it is one.
    pub at: Vec<(String, Option<f64>)>,
    /// The variants, in their order.
    pub spots: Vec<FrontierSpot>,
    /// Each variant against each family that it is not of, in each objective.
    pub comparisons: Vec<PeerComparison>,
}

/// One variant at one setting.
#[derive(Clone, Debug)]
pub struct FrontierSpot {
    /// Why it failed.
    pub failure: Option<String>,
    /// Whether it keeps every constraint.
    pub feasible: bool,
    /// What it costs, objective by objective.
    pub costs: Vec<Option<Estimate>>,
    /// For each objective whether no other variant that is feasible here is better in quality or cost without being worse in the other.
    pub on_front: Vec<bool>,
}

impl<'a> Frontier<'a> {
    /// Of a complete study.
    ///
    /// # Errors
    /// A study that names no quality, tables of quality that cannot be read or lack a row, and those of [`Assembly::points`].
    pub fn new(assembly: &Assembly<'a>, measure: Measure) -> Result<Frontier<'a>> {
        let study = assembly.study;
        let worths = Worths::read(study, measure)?;
        let mut inputs: BTreeSet<ReadInput> = worths.inputs.iter().cloned().collect();
        let mut settings = Vec::new();
        assembly.points(|point| {
            if matches!(point.source, RowSource::Grid(_)) {
                inputs.extend(point.inputs);
                let at = point.case.labels(study);
                settings.push(setting(study, measure, &worths, at, &point.rows));
            }
            Ok(())
        })?;
        Ok(Frontier { study, measure, networks: worths.rows, qualities: worths.qualities, settings, inputs })
    }

    /// The quality of a variant.
    pub fn quality(&self, variant: usize) -> Quality {
        self.qualities[variant]
    }

    /// The page with its pictures, one for each objective. `command` is what makes it again.
    pub fn report(&self, command: &str) -> Report {
        page::report(self, command)
    }

    /// The answer in sentences: each network against each family in the first objective.
    pub fn answer(&self) -> Vec<String> {
        words::answer(self)
    }
}

fn setting(
    study: &Study,
    measure: Measure,
    worths: &Worths,
    at: Vec<(String, Option<f64>)>,
    rows: &[Row],
) -> Setting {
    let objectives = &study.spec.objectives;
    let spot = |row: &Row| FrontierSpot {
        failure: row.failure().map(str::to_owned),
        feasible: study.is_feasible(row),
        costs: objectives.iter().map(|objective| row.figure(objective.metric())).collect(),
        on_front: Vec::new(),
    };
    let mut spots: Vec<FrontierSpot> = rows.iter().map(spot).collect();
    let better = measure.objective();
    for (place, objective) in objectives.iter().enumerate() {
        let point = |(variant, spot): (usize, &FrontierSpot)| {
            let cost = spot.costs[place].filter(|_| spot.feasible)?;
            Some((cost.value, worths.qualities[variant].mean))
        };
        let points: Vec<Option<(f64, f64)>> = spots.iter().enumerate().map(point).collect();
        let known: Vec<(f64, f64)> = points.iter().flatten().copied().collect();
        let front = front(&known, objective, &better);
        for (spot, point) in spots.iter_mut().zip(points) {
            spot.on_front.push(point.is_some_and(|point| front.contains(&point)));
        }
    }
    let comparisons = peer::compare(study, measure, worths, rows);
    Setting { at, spots, comparisons }
}
