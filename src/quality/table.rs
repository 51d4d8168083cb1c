//! The table of networks: written by whoever measures, read by studies.

use super::{Quality, SequenceSums};
use crate::error::{InputError, Result, hint};
use crate::ron_text;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Columns of the file, in the order in which they are written; any order is read.
const COLUMNS: [&str; 8] =
    ["network", "depth", "perplexity", "perplexity_low", "perplexity_high", "kl", "kl_low", "kl_high"];

/// Larger files are refused: a row is some hundred bytes.
pub const MOST_BYTES: u64 = 1 << 24;

/// What a network is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkWorth {
    /// Its name.
    pub network: String,
    /// Mean number of layers that a token runs, a branch counting one half.
    pub depth: f64,
    /// Perplexity.
    pub perplexity: Quality,
    /// KL divergence of the teacher's predictions from its own, nats a token; absent where it had no teacher.
    pub kl: Option<Quality>,
}

impl NetworkWorth {
    /// From sums over sequences.
    pub fn of(network: &str, all: &[SequenceSums], seed: u64) -> NetworkWorth {
        NetworkWorth {
            network: network.to_owned(),
            depth: SequenceSums::mean_depth(all),
            perplexity: Quality::perplexity(all, seed),
            kl: all.iter().all(|row| !row.kl.is_nan()).then(|| Quality::of(all, |row| row.kl, seed)),
        }
    }

    /// The cells of its line.
    fn cells(&self) -> [String; 8] {
        let ends = |quality: &Quality| {
            quality.interval.map_or_else(Default::default, |ends| ends.map(|end| end.to_string()))
        };
        let ([low, high], [kl_low, kl_high]) =
            (ends(&self.perplexity), self.kl.as_ref().map_or_else(Default::default, ends));
        let perplexity = self.perplexity.mean.to_string();
        let kl = self.kl.map_or_else(String::new, |kl| kl.mean.to_string());
        [self.network.clone(), self.depth.to_string(), perplexity, low, high, kl, kl_low, kl_high]
    }
}

/// Networks that were measured on the same texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QualityTable {
    /// In the order of the file.
    pub rows: Vec<NetworkWorth>,
    /// Where it was read from; empty where it was not.
    path: PathBuf,
}

impl QualityTable {
    /// Of these networks.
    pub fn new(rows: Vec<NetworkWorth>) -> QualityTable {
        QualityTable { rows, path: PathBuf::new() }
    }

    /// Writes it as CSV. What has no interval has empty cells there, and so has the divergence of a network without a teacher.
    ///
    /// # Errors
    /// What `out` refuses.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS)?;
        self.rows.iter().try_for_each(|row| csv.write_record(row.cells()))?;
        csv.flush()
    }

    /// As a text for people: a line for each network.
    pub fn words(&self) -> String {
        let mut lines =
            vec![format!("{:<32} {:>6} {:>24} {:>24}", "network", "depth", "perplexity", "KL, nats")];
        let shown = |quality: &Quality| match quality.interval {
            Some([low, high]) => format!("{:.3} ({low:.3} to {high:.3})", quality.mean),
            None => format!("{:.3}", quality.mean),
        };
        let line = |row: &NetworkWorth| {
            let (perplexity, kl) = (shown(&row.perplexity), row.kl.as_ref().map_or("-".into(), shown));
            format!("{:<32} {:>6.2} {perplexity:>24} {kl:>24}", row.network, row.depth)
        };
        lines.extend(self.rows.iter().map(line));
        lines.join("\n")
    }

    /// Reads one.
    ///
    /// # Errors
    /// A file that cannot be read, and those of [`QualityTable::parse`].
    pub fn read(path: &Path) -> Result<QualityTable> {
        QualityTable::parse(&ron_text::read(path, "a table of networks", MOST_BYTES)?, path)
    }

    /// Of the text of a file.
    ///
    /// # Errors
    /// Columns that are missing or twice there, names that are twice there, and numbers that cannot be; all name the file.
    pub fn parse(text: &str, path: &Path) -> Result<QualityTable> {
        let rows = parse(text).map_err(|error| error.file(path))?;
        Ok(QualityTable { rows, path: path.to_owned() })
    }

    /// The network with this name.
    ///
    /// # Errors
    /// A name that is not there.
    pub fn get(&self, network: &str) -> Result<&NetworkWorth> {
        self.rows.iter().find(|row| row.network == network).ok_or_else(|| {
            let names: Vec<&str> = self.rows.iter().map(|row| row.network.as_str()).collect();
            let near = hint(network, names.iter().copied());
            let expected = format!("one of {}{near}", names.join("; "));
            InputError::expected(expected).key("network").found(network).file(&self.path).into()
        })
    }
}

/// The rows of a file.
fn parse(text: &str) -> std::result::Result<Vec<NetworkWorth>, InputError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(malformed)?.clone();
    let place = |name: &&str| {
        let mut places = header.iter().enumerate().filter(|(_, known)| known.trim() == *name);
        match (places.next(), places.next()) {
            (Some((place, _)), None) => Ok(place),
            (found, _) => {
                let found = if found.is_some() { "two of them" } else { "none" };
                let expected = format!("one column each of {}", COLUMNS.join(", "));
                Err(InputError::expected(expected).key(*name).found(found).line(1))
            }
        }
    };
    let places = COLUMNS.iter().map(place).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(malformed)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells: Vec<&str> = places.iter().map(|&place| record.get(place).unwrap_or("").trim()).collect();
        let row = read_row(&cells).map_err(|error| error.line(line))?;
        if let Some(first) = seen.insert(row.network.clone(), line) {
            let expected = format!("a name once; it stands in line {first} already");
            return Err(InputError::expected(expected).key("network").found(&row.network).line(line));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(InputError::expected("at least one network").found("none"));
    }
    Ok(rows)
}

fn malformed(error: csv::Error) -> InputError {
    let line = error.position().map(csv::Position::line);
    let wrong = InputError::expected(format!("a table in CSV ({error})"));
    line.map_or(wrong.clone(), |line| wrong.line(line))
}

/// One row, of cells in the order of the columns.
fn read_row(cells: &[&str]) -> std::result::Result<NetworkWorth, InputError> {
    let number = |at: usize, least: f64| {
        let value = cells[at].parse().ok().filter(|value: &f64| value.is_finite() && *value >= least);
        let expected = format!("a finite number of at least {least}");
        value.ok_or_else(|| InputError::expected(expected).key(COLUMNS[at]).found(cells[at]))
    };
    let quality = |at: usize, least: f64| {
        let mean = number(at, least)?;
        let interval = match (cells[at + 1], cells[at + 2]) {
            ("", "") => None,
            _ => Some([number(at + 1, least)?, number(at + 2, least)?]),
        };
        match interval {
            Some([low, high]) if low > high => {
                let expected = format!("at most {}, which is {high}", COLUMNS[at + 2]);
                Err(InputError::expected(expected).key(COLUMNS[at + 1]).found(low))
            }
            interval => Ok(Quality { mean, interval }),
        }
    };
    if cells[0].is_empty() {
        return Err(InputError::expected("a name").key(COLUMNS[0]).found("none"));
    }
    // A divergence is never below zero; that of a model from itself may come out so by rounding.
    let kl = if cells[5..8] == ["", "", ""] { None } else { Some(quality(5, -ROUNDING)?) };
    Ok(NetworkWorth {
        network: cells[0].to_owned(),
        depth: number(1, 0.0)?,
        perplexity: quality(2, 1.0)?,
        kl,
    })
}

/// By how much a divergence of two equal distributions may come out below zero: 16 units in the last place of a single-precision logarithm of
/// about 10 nats.
const ROUNDING: f64 = 2e-5;
