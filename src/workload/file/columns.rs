//! CSV, row by row, also with tabs or semicolons: Azure's traces, and files of lengths.

use super::super::Reading;
use super::super::sessions::{Name, Turn};
use super::collect::{Collector, Row, in_line};
use super::table::Names;
use super::time::Told;
use super::value::Value;
use crate::error::{InputError, Result};
use crate::trace::limits::LINE_BYTES;
use crate::trace::lines::{Input, Origin};
use csv::{ByteRecord, Reader, ReaderBuilder, Trim};
use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

/// Reads Azure's traces: dates, and lengths under their own names.
pub(super) fn azure(input: Input, reading: &Reading, out: &mut Collector) -> Result<()> {
    let csv = Csv::new(input)?;
    let told = reading.time_unit.map_or(Told::No, Told::Option);
    let names = Names {
        arrival: (!reading.without_arrivals).then(|| ("TIMESTAMP".to_owned(), told)),
        prompt: "ContextTokens".to_owned(),
        output: "GeneratedTokens".to_owned(),
        priority: None,
        session: None,
    };
    read_named(csv, &names, reading, out)
}

/// Reads lengths, and arrivals where there are some.
pub(super) fn read(input: Input, reading: &Reading, out: &mut Collector) -> Result<()> {
    let csv = Csv::new(input)?;
    let known: Vec<&str> = csv.names.iter().map(String::as_str).collect();
    let names = Names::find(&known, reading).map_err(|error| in_line(error, 1))?;
    read_named(csv, &names, reading, out)
}

fn read_named(csv: Csv, names: &Names, reading: &Reading, out: &mut Collector) -> Result<()> {
    let place = |name: &Option<String>| name.as_deref().map(|name| csv.column(name)).transpose();
    let arrival = place(&names.arrival.as_ref().map(|(name, _)| name.clone()))?;
    let (prompt, output) = (csv.column(&names.prompt)?, csv.column(&names.output)?);
    let (priority, session) = (place(&names.priority)?, place(&names.session)?);
    out.clock = names.clock(reading);
    if arrival.is_none() {
        out.without_arrivals("the file has no column of arrivals");
    }
    if csv.names.iter().any(|name| name == "hash_ids") {
        out.unused = Some("hash_ids");
    }
    csv.each(|cells| {
        out.at(cells.line);
        let mut row = Row::new(cells.value(prompt)?, cells.value(output)?);
        row.arrival = arrival.map(|column| cells.value(column)).transpose()?;
        row.priority = priority.map_or(Ok(0), |column| cells.value(column)?.whole(u32::MAX))?;
        let session = session.map(|column| cells.value(column)).transpose()?.filter(|id| !id.text.is_empty());
        row.turn = session.map(|id| Turn { session: Some(Name::of(id.text)), ..Turn::default() });
        out.row(row).map(drop)
    })
}

/// A CSV file with names in its first line.
pub(super) struct Csv {
    reader: Reader<Metered>,
    left: Rc<Cell<usize>>,
    origin: Origin,
    pub names: Vec<String>,
}

/// What stands between the cells of the first line: a comma, or a tab or semicolon where there is none.
pub(super) fn separator(start: &[u8]) -> u8 {
    let line =
        start.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    [b',', b'\t', b';'].into_iter().find(|separator| line.contains(separator)).unwrap_or(b',')
}

/// A row that was read.
pub(super) struct Cells<'a> {
    line: u64,
    names: &'a [String],
    record: &'a ByteRecord,
}

impl Csv {
    pub fn new(input: Input) -> Result<Self> {
        let Input { mut bytes, origin } = input;
        let start = bytes.fill_buf().map_err(|cause| origin.error(1, cause))?;
        let separator = separator(start);
        let left = Rc::new(Cell::new(LINE_BYTES));
        let metered = Metered { input: bytes, left: left.clone() };
        let mut builder = ReaderBuilder::new();
        builder.flexible(true).has_headers(false).trim(Trim::All).delimiter(separator);
        let mut csv = Csv { reader: builder.from_reader(metered), left, origin, names: Vec::new() };
        let mut first = ByteRecord::new();
        csv.read(&mut first)?;
        for name in &first {
            let name = utf8("column", name).map_err(|error| in_line(error, 1))?;
            csv.names.push(name.to_owned());
        }
        Ok(csv)
    }

    /// The place of the only column of this name.
    pub fn column(&self, name: &str) -> Result<usize> {
        let mut places = (0..).zip(&self.names).filter(|(_, known)| *known == name).map(|(place, _)| place);
        let bad = |found: &str| {
            let error = InputError::expected("one column of this name").key(name).found(found).line(1);
            Err(error.into())
        };
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(place),
            (None, _) => bad("none"),
            _ => bad("two"),
        }
    }

    /// Shows each row to `take`.
    pub fn each(mut self, mut take: impl FnMut(Cells) -> Result<()>) -> Result<()> {
        let mut record = ByteRecord::new();
        while self.read(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            let wide = self.names.len();
            let taken = if record.len() == wide {
                take(Cells { line, names: &self.names, record: &record })
            } else {
                let what = format!("{wide} cells, as in the first line");
                Err(InputError::expected(what).found(format!("{} cells", record.len())).into())
            };
            taken.map_err(|error| in_line(error, line))?;
        }
        Ok(())
    }

    /// Reads the next row; false at the end. No row is longer than the limit.
    fn read(&mut self, record: &mut ByteRecord) -> Result<bool> {
        self.left.set(LINE_BYTES);
        self.reader.read_byte_record(record).map_err(|error| {
            let line = self.reader.position().line();
            if self.left.get() == 0 {
                let what = format!("rows of at most {LINE_BYTES} bytes, and every quote closed");
                return InputError::expected(what).found("a longer one").line(line).into();
            }
            match error.into_kind() {
                csv::ErrorKind::Io(cause) => self.origin.error(line, cause),
                other => InputError::expected("CSV").found(format!("{other:?}")).line(line).into(),
            }
        })
    }
}

impl<'a> Cells<'a> {
    /// What the column at `place` says.
    pub fn value(&self, place: usize) -> Result<Value<'a>> {
        let key = &self.names[place];
        Ok(Value { key, text: utf8(key, &self.record[place])? })
    }
}

fn utf8<'a>(key: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| {
        let found = String::from_utf8_lossy(bytes);
        InputError::expected("UTF-8 text").key(key).found(found).into()
    })
}

/// Gives out bytes while some are left; the reader of a row sets how many that are.
struct Metered {
    input: Box<dyn std::io::BufRead + Send>,
    left: Rc<Cell<usize>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(std::io::Error::other("a row beyond the limit"));
        }
        let most = buffer.len().min(left);
        let read = self.input.read(&mut buffer[..most])?;
        self.left.set(left - read);
        Ok(read)
    }
}
