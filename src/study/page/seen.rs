//! What a page needs of the rows, without the rest of them.

use crate::error::Result;
use crate::metrics::{Estimate, Gain};
use crate::scenario::ReadInput;
use crate::study::{Assembly, Row, RowSource};
use std::collections::BTreeSet;

/// Rows that a page draws from; a study of more shows these in its pictures.
const MOST_SEEN: usize = 200_000;

/// A row.
pub struct SeenRow {
    /// Whether it is a point of the axes, not one that a search asked for.
    pub on_grid: bool,
    /// For each axis what reports call its value, and the number where it is one.
    pub at: Vec<(String, Option<f64>)>,
    /// Name of the variant.
    pub variant: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// Whether it keeps every constraint.
    pub feasible: bool,
    /// Its figures, in the order of [`Study::shown`](crate::study::Study::shown), which begins with the objectives.
    pub figures: Vec<Option<Estimate>>,
    /// Its gains over the first variant, objective by objective.
    pub gains: Vec<Option<Gain>>,
}

/// The rows, and counts of all.
pub struct SeenRows {
    pub rows: Vec<SeenRow>,
    /// Rows beyond those.
    pub left_out: u64,
    /// Settings of the axes, and what searches asked for.
    pub points: u64,
    pub count: u64,
    pub failed: u64,
    /// Rows with a remark, and the first one.
    pub remarked: Option<(u64, String)>,
    pub feasible: u64,
    pub inputs: BTreeSet<ReadInput>,
}

impl SeenRows {
    pub fn new(assembly: &Assembly) -> Result<SeenRows> {
        let study = assembly.study;
        let mut table = SeenRows {
            rows: Vec::new(),
            left_out: 0,
            points: assembly.count(),
            count: 0,
            failed: 0,
            remarked: None,
            feasible: 0,
            inputs: BTreeSet::new(),
        };
        let metrics = study.shown();
        assembly.points(|point| {
            table.inputs.extend(point.inputs.iter().cloned());
            let at = point.case.labels(study);
            for (place, row) in point.rows.iter().enumerate() {
                let failure = row.failure().map(str::to_owned);
                let feasible = study.is_feasible(row);
                table.count += 1;
                table.failed += u64::from(failure.is_some());
                table.feasible += u64::from(feasible);
                if let Some(remark) = row.remark() {
                    table.remarked.get_or_insert_with(|| (0, remark.to_owned())).0 += 1;
                }
                if table.rows.len() == MOST_SEEN {
                    table.left_out += 1;
                    continue;
                }
                let first = &point.rows[0];
                let gain = |objective: &crate::study::Objective| {
                    row.gain(first, objective.metric(), objective.less_is_better()).filter(|_| place > 0)
                };
                table.rows.push(SeenRow {
                    on_grid: matches!(point.source, RowSource::Grid(_)),
                    at: at.clone(),
                    variant: row.variant().to_owned(),
                    failure,
                    feasible,
                    figures: metrics.iter().map(|metric| Row::figure(row, metric)).collect(),
                    gains: study.spec.objectives.iter().map(gain).collect(),
                });
            }
            Ok(())
        })?;
        Ok(table)
    }
}
