//! Points and answers as CSV.

use super::{Answer, Assembly};
use crate::error::{Error, Result};
use crate::report::Staged;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Writes a row for each point and variant.
///
/// # Errors
/// What the system refuses, and those of [`Assembly::points`].
pub fn points(assembly: &Assembly, path: &Path) -> Result<()> {
    let columns = &assembly.columns()?.names;
    let place: HashMap<&str, usize> =
        columns.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
    let mut failed = None;
    let written = Staged::create(path)?.finish(|out| {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(columns.iter().map(|(name, _)| name))?;
        let mut record = vec![String::new(); columns.len()];
        let done = assembly.cells(|_, cells| {
            record.iter_mut().for_each(String::clear);
            for (name, value) in cells {
                record[place[name.as_str()]] = text(&value);
            }
            csv.write_record(&record).map_err(|error| Error::io(path, "write")(error.into()))
        });
        if let Err(error) = done {
            failed = Some(error);
            return Err(std::io::Error::other("the points cannot be read"));
        }
        csv.flush()
    });
    failed.map_or(written, Err)
}

/// Writes a row for each finding.
///
/// # Errors
/// What the system refuses.
pub fn answers(answers: &[Answer], path: &Path) -> Result<()> {
    Staged::create(path)?.finish(|out| {
        let mut csv = csv::Writer::from_writer(out);
        for answer in answers {
            csv.serialize(answer)?;
        }
        csv.flush()
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
