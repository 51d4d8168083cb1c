//! CSV tables whose columns are found by their names.

use crate::error::{Error, InputError, Result};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Larger files are refused.
const MOST_BYTES: u64 = 1 << 28;

/// A table as it was read.
#[derive(Debug)]
pub(super) struct Columns {
    /// SHA-256 of the bytes.
    pub sha256: String,
    names: &'static [&'static str],
    places: Vec<usize>,
    records: Vec<csv::StringRecord>,
}

/// A row of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a> {
    table: &'a Columns,
    record: &'a csv::StringRecord,
}

impl Columns {
    /// Reads a file that has these columns; others are not looked at.
    ///
    /// # Errors
    /// A file that cannot be read, is too large or no such table.
    pub fn read(path: &Path, names: &'static [&'static str]) -> Result<Columns> {
        let found = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
        if found > MOST_BYTES {
            let wrong = InputError::expected(format!("a table of at most {MOST_BYTES} bytes"));
            return Err(wrong.file(path).found(format!("{found} bytes")).into());
        }
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        Columns::parse(&bytes, names).map_err(|error| error.file(path).into())
    }

    /// The same of the bytes of a file.
    pub fn parse(bytes: &[u8], names: &'static [&'static str]) -> std::result::Result<Columns, InputError> {
        let mut csv = csv::Reader::from_reader(bytes);
        let broken = |error: csv::Error| {
            let line = error.position().map_or(1, csv::Position::line);
            InputError::expected("a CSV file whose rows have as many cells as the first").line(line)
        };
        let header = csv.headers().map_err(broken)?.clone();
        let place = |name: &&str| {
            let found = header.iter().position(|known| known.trim() == *name);
            found.ok_or_else(|| {
                let wrong = InputError::expected(format!("the columns {}", names.join(", ")));
                wrong.key(*name).found("none").line(1)
            })
        };
        let places = names.iter().map(place).collect::<std::result::Result<_, _>>()?;
        let records = csv.records().collect::<std::result::Result<_, _>>().map_err(broken)?;
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Columns { sha256, names, places, records })
    }

    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = Cells<'_>> {
        self.records.iter().map(|record| Cells { table: self, record })
    }
}

impl<'a> Cells<'a> {
    /// Its line in the file, from 1.
    pub fn line(self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    /// What stands in a column.
    pub fn text(self, column: &str) -> &'a str {
        let index = self.table.names.iter().position(|name| *name == column).unwrap_or_default();
        self.record.get(self.table.places[index]).unwrap_or_default().trim()
    }

    /// What is wrong with a cell.
    pub fn wrong(self, column: &str, expected: &str) -> InputError {
        let found = format!("{:?}", self.text(column));
        InputError::expected(expected).key(column).found(found).line(self.line())
    }

    /// A number above 0 and below 10^9.
    pub fn number(self, column: &str) -> std::result::Result<f64, InputError> {
        let number = self.text(column).parse().ok().filter(|value: &f64| *value > 0.0 && *value < 1e9);
        number.ok_or_else(|| self.wrong(column, "a number above 0 and below 1e9"))
    }

    /// A whole number from 1 to `most`.
    pub fn count(self, column: &str, most: u32) -> std::result::Result<u32, InputError> {
        let number = self.text(column).parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| self.wrong(column, &format!("a whole number from 1 to {most}")))
    }
}
