//! All that a study found, in the order of its points, read from the journals row by row.

use super::case::{Case, Id};
use super::journal::Journal;
use super::row::{FAILURE, Row};
use super::{Finding, Study, VERSION};
use crate::error::{InputError, Result};
use crate::scenario::{KINDS, ReadInput};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

/// Where a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSource {
    /// A point of the axes, by its number.
    Grid(u64),
    /// A search asked for it, by its place in the study.
    Search(usize),
}

/// A case with its rows.
#[derive(Clone, Debug)]
pub struct StudyPoint {
    /// Where it comes from.
    pub source: RowSource,
    /// The settings.
    pub case: Case,
    /// A row for each variant that ran.
    pub rows: Vec<Row>,
    /// What was read for it.
    pub inputs: Vec<ReadInput>,
}

/// A complete study.
#[derive(Debug)]
pub struct Assembly<'a> {
    /// The study.
    pub study: &'a Study,
    /// What the searches found.
    pub answers: Vec<Finding>,
    journal: Journal,
    searched: Vec<(usize, Case)>,
    columns: OnceLock<Columns>,
}

/// The columns of the table, in their order.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Names, with whether all values are numbers.
    pub names: Vec<(String, bool)>,
}

/// A row of the table: its cells by name.
pub type Cells = Vec<(String, Value)>;

impl<'a> Assembly<'a> {
    /// `searched` are cases that searches asked for; those that are points of the axes are left out of them.
    pub(super) fn new(
        study: &'a Study,
        journal: Journal,
        searched: Vec<(usize, Case)>,
        answers: Vec<Finding>,
    ) -> Self {
        let mut assembly = Assembly { study, answers, journal, searched, columns: OnceLock::new() };
        if !assembly.searched.is_empty() {
            let grid = 0..study.grid.count();
            let grid: HashSet<Id> = grid.map(|index| Case::of(&study.grid.at(index)).id()).collect();
            assembly.searched.retain(|(_, case)| !grid.contains(&case.id()));
        }
        assembly
    }

    /// Visits every point: those of the axes in their order, then those of the searches in the order in which they are asked.
    ///
    /// # Errors
    /// A journal that has changed, and those of `visit`.
    pub fn points(&self, mut visit: impl FnMut(StudyPoint) -> Result<()>) -> Result<()> {
        let grid = (0..self.study.grid.count())
            .map(|index| (RowSource::Grid(index), Case::of(&self.study.grid.at(index))));
        let searched = self.searched.iter().map(|(place, case)| (RowSource::Search(*place), case.clone()));
        for (source, case) in grid.chain(searched) {
            let Some((rows, inputs)) = self.journal.get(&case.id())? else {
                return Err(InputError::expected("a journal that nobody deletes meanwhile").into());
            };
            visit(StudyPoint { source, case, rows, inputs })?;
        }
        Ok(())
    }

    /// How many points there are.
    pub fn count(&self) -> u64 {
        self.study.grid.count() + self.searched.len() as u64
    }

    /// The columns that the rows have, in the order in which they first appear.
    ///
    /// # Errors
    /// Those of [`Assembly::points`].
    pub fn columns(&self) -> Result<&Columns> {
        if let Some(columns) = self.columns.get() {
            return Ok(columns);
        }
        let (mut columns, mut places) = (Columns::default(), HashMap::new());
        self.cells(|_, cells| {
            for (name, value) in cells {
                let place = *places.entry(name).or_insert_with_key(|name| {
                    columns.names.push((name.clone(), true));
                    columns.names.len() - 1
                });
                columns.names[place].1 &= value.is_number();
            }
            Ok(())
        })?;
        Ok(self.columns.get_or_init(|| columns))
    }

    /// Visits every row as cells.
    ///
    /// # Errors
    /// Those of [`Assembly::points`] and of `visit`.
    pub fn cells(&self, mut visit: impl FnMut(u64, Cells) -> Result<()>) -> Result<()> {
        let mut number = 0;
        self.points(|point| {
            for row in &point.rows {
                visit(number, self.cells_of(number, &point, row))?;
            }
            number += 1;
            Ok(())
        })
    }

    fn cells_of(&self, number: u64, point: &StudyPoint, row: &Row) -> Cells {
        let study = self.study;
        let source = match point.source {
            RowSource::Grid(_) => "grid".to_owned(),
            RowSource::Search(place) => format!("search {}", place + 1),
        };
        let mut cells: Cells = vec![("point".into(), json!(number)), ("source".into(), json!(source))];
        let mut set = point.case.settings.clone();
        for leaf in study.grid.leaves() {
            let value = set.iter().find(|(key, _)| *key == leaf.keys[0]).map(|(_, value)| value.clone());
            set.retain(|(key, _)| !leaf.keys.contains(key));
            if let Some(value) = value {
                let choice = leaf.with(value);
                let cell = if choice.value.is_number() { choice.value } else { choice.label.into() };
                cells.push((leaf.name.clone(), cell));
            }
        }
        let set: Vec<String> = set.iter().map(|(key, value)| format!("{key}={value}")).collect();
        cells.push(("set".into(), set.join(" ").into()));
        cells.push(("variant".into(), row.variant().into()));
        cells.push((FAILURE.into(), row.failure().unwrap_or_default().into()));
        cells.push(("feasible".into(), study.is_feasible(row).into()));
        let taken: BTreeSet<String> = cells.iter().map(|(name, _)| name.clone()).collect();
        let numbers = row.leaves().into_iter().filter(|(path, _)| !taken.contains(path));
        cells.extend(numbers.map(|(path, value)| (path, value.clone())));
        for kind in KINDS {
            let digests: Vec<&str> = point
                .inputs
                .iter()
                .filter(|input| input.kind == kind)
                .map(|input| input.digest.as_str())
                .collect();
            cells.push((format!("digest_of.{kind}"), digests.join(" ").into()));
        }
        cells.push(("digest_of.study".into(), study.digest.clone().into()));
        cells.push(("version".into(), VERSION.into()));
        cells
    }
}

impl Study {
    /// Whether a row is of use: it did not fail, and keeps every constraint by its means.
    pub fn is_feasible(&self, row: &Row) -> bool {
        row.failure().is_none() && self.spec.constraints.iter().all(|constraint| constraint.holds(row))
    }
}
