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
    Staged::create(path)?.finish_with(|out| {
        let into_ours = |error: csv::Error| Error::io(path, "write")(error.into());
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(columns.iter().map(|(name, _)| name)).map_err(into_ours)?;
        let mut record = vec![String::new(); columns.len()];
        assembly.cells(|_, cells| {
            record.iter_mut().for_each(String::clear);
            for (name, value) in cells {
                record[place[name.as_str()]] = text(&value);
            }
            csv.write_record(&record).map_err(into_ours)
        })?;
        csv.flush().map_err(Error::io(path, "write"))
    })
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

/// A cell as text: a text as it is, everything else as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
