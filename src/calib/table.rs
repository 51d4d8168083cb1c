//! CSV tables with the columns asked for, and errors that name line and column.

use crate::error::{Error, InputError, Result};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Larger tables are refused.
const MOST_BYTES: u64 = 1 << 28;

/// A digest in hexadecimal digits.
pub(super) fn hexadecimal(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A table with the columns asked for, in their order.
pub(super) struct Csv<'a> {
    path: &'a Path,
    columns: &'a [&'a str],
    rows: Vec<(u64, Vec<String>)>,
}

impl<'a> Csv<'a> {
    /// Reads the file and takes its bytes into `digest`.
    pub(super) fn read(path: &'a Path, columns: &'a [&'a str], digest: &mut Sha256) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
        if size > MOST_BYTES {
            return Err(InputError::expected("a table of at most 256 MiB").found(size).file(path).into());
        }
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        digest.update(&bytes);
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let wrong = |error: csv::Error| {
            let line = error.position().map(csv::Position::line);
            let mistake = InputError::expected(format!("CSV with a header ({error})")).file(path);
            line.map_or(mistake.clone(), |line| mistake.line(line))
        };
        let header = reader.headers().map_err(wrong)?.clone();
        let place = |name: &&str| {
            let missing = InputError::expected("a column of this name").key(*name).line(1).file(path);
            let found = header.iter().collect::<Vec<_>>().join(",");
            header.iter().position(|column| column.trim() == *name).ok_or_else(|| missing.found(found))
        };
        let places = columns.iter().map(place).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(wrong)?;
            let line = record.position().map_or(0, csv::Position::line);
            rows.push((line, places.iter().map(|&place| record[place].trim().to_owned()).collect()));
        }
        Ok(Csv { path, columns, rows })
    }

    /// Rows with their lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, &Vec<String>)> {
        self.rows.iter().map(|(line, cells)| (*line, cells))
    }

    /// A mistake in a cell.
    pub(super) fn wrong(&self, line: u64, cells: &[String], column: usize, expected: &str) -> InputError {
        let mistake = InputError::expected(expected).key(self.columns[column]).found(&cells[column]);
        mistake.line(line).file(self.path)
    }

    /// A whole number.
    pub(super) fn whole(&self, line: u64, cells: &[String], column: usize) -> Result<u32> {
        let number = cells[column].parse().ok().filter(|&number: &u32| number <= 1 << 24);
        number.ok_or_else(|| self.wrong(line, cells, column, "a whole number up to 16777216").into())
    }

    /// A whole number above 0, of bytes or values.
    pub(super) fn size(&self, line: u64, cells: &[String], column: usize) -> Result<u64> {
        let number = cells[column].parse().ok().filter(|number: &u64| (1..=1 << 40).contains(number));
        number.ok_or_else(|| self.wrong(line, cells, column, "a whole number from 1 to 2^40").into())
    }

    /// A time above 0 in the unit of the table.
    pub(super) fn time(&self, line: u64, cells: &[String], column: usize, unit: &str) -> Result<f64> {
        let number = cells[column].parse().ok().filter(|&time: &f64| time > 0.0 && time < 1e9);
        number.ok_or_else(|| self.wrong(line, cells, column, &format!("{unit} above 0")).into())
    }

    /// Seconds, of microseconds.
    pub(super) fn seconds(&self, line: u64, cells: &[String], column: usize) -> Result<f64> {
        Ok(self.time(line, cells, column, "microseconds")? * 1e-6)
    }
}
