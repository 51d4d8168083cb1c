//! Reads rows, a batch at a time, and joins them into runs.

use super::source::{CheckedPages, Pages, guarded};
use super::{HEADER, REQUESTS, ROUTES};
use crate::error::{Error, InputError, Result};
use crate::trace::assemble::Assembler;
use crate::trace::jsonl::{parse_header, take_definition};
use crate::trace::limits::{FOOTER_BYTES, RUN_TOKENS};
use crate::trace::names::Named;
use crate::trace::rules::Shape;
use crate::trace::{Phase, Role, in_key, in_line};
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Rows decoded at a time.
const BATCH: usize = 8192;

/// The rows of a file.
pub(in crate::trace) struct Rows {
    pages: Arc<Pages>,
    metadata: ParquetMetaData,
    next_group: usize,
    group: Option<Group>,
    /// Rows before the next one; the next one is row `row + 1`.
    row: u64,
    run: Option<OpenRun>,
}

/// A run that the next row may go on with.
struct OpenRun {
    row: u64,
    request: u64,
    start: u64,
    phase: Phase,
    role: Role,
    ids: Vec<u64>,
    accepted: Option<Vec<bool>>,
}

/// One row group that is being read.
struct Group {
    rows_left: u64,
    request: Whole,
    position: Whole,
    phase: Column<ByteArrayType>,
    route: Whole,
    role: Option<Column<ByteArrayType>>,
    accepted: Option<Column<BoolType>>,
    first: Option<Column<BoolType>>,
}

/// Values of one column, `None` for null.
struct Column<T: DataType> {
    name: &'static str,
    reader: ColumnReaderImpl<T>,
    optional: bool,
}

/// A column of whole numbers of either width; true where they are unsigned.
enum Whole {
    Short(Column<Int32Type>, bool),
    Long(Column<Int64Type>, bool),
}

fn damaged(cause: ParquetError) -> Error {
    let cause = match cause {
        ParquetError::General(cause) => cause,
        other => other.to_string(),
    };
    InputError::expected("a whole Parquet file with the columns of a trace").found(cause).into()
}

impl Rows {
    /// Opens a file; its header, routes and requests are in the assembler.
    pub fn open(path: &Path) -> Result<(Assembler, Rows)> {
        let mut file = File::open(path).map_err(Error::io(path, "read"))?;
        let length = footer_fits(&mut file).map_err(Error::io(path, "read"))??;
        let mut footer = ParquetMetaDataReader::new();
        guarded(|| footer.try_parse(&file)).map_err(damaged)?;
        let metadata = guarded(|| footer.finish()).map_err(damaged)?;
        let mut assembler =
            Assembler::new(definition(&metadata, HEADER, |text| parse_header(text.trim_end()))?);
        for (key, kind) in [(ROUTES, "route"), (REQUESTS, "request")] {
            definition(&metadata, key, |text| {
                let mut lines = text.lines();
                lines.try_for_each(|line| take_definition(line, kind, &mut assembler))
            })?;
        }
        let pages = Arc::new(Pages::new(file, length));
        Ok((assembler, Rows { pages, metadata, next_group: 0, group: None, row: 0, run: None }))
    }

    /// Reads one batch of rows into `assembler`. False at the end of the file.
    pub fn step(&mut self, assembler: &mut Assembler) -> Result<bool> {
        let Some(mut group) = self.group.take() else {
            if self.next_group == self.metadata.num_row_groups() {
                self.end_run(assembler)?;
                return Ok(false);
            }
            let group = guarded(|| Group::open(&self.pages, &self.metadata, self.next_group));
            self.group = Some(group.map_err(damaged)?);
            self.next_group += 1;
            return Ok(true);
        };
        let count = group.rows_left.min(BATCH as u64) as usize;
        if count == 0 {
            return Ok(true);
        }
        let batch = group.batch(count, self.row + 1).map_err(|error| in_line(error, Some(self.row + 1)))?;
        for index in 0..count {
            self.row += 1;
            let taken = self.take_row(&batch, index, assembler);
            taken.map_err(|error| in_line(error, Some(self.row)))?;
        }
        group.rows_left -= count as u64;
        self.group = Some(group);
        Ok(true)
    }

    fn take_row(&mut self, batch: &Batch, index: usize, assembler: &mut Assembler) -> Result<()> {
        let (request, position) = (batch.request[index], batch.position[index]);
        let (phase, role) = (batch.phase[index], batch.role.get(index).copied().unwrap_or_default());
        let accepted = batch.accepted.get(index).copied().flatten();
        let first = batch.first.get(index).copied().unwrap_or(false);
        let goes_on = self.run.as_ref().is_some_and(|run| {
            let next = run.start.checked_add(run.ids.len() as u64);
            !first
                && run.request == request
                && (run.phase, run.role) == (phase, role)
                && next == Some(position)
        });
        if !goes_on {
            self.end_run(assembler)?;
        }
        let run = self.run.get_or_insert_with(|| OpenRun {
            row: self.row,
            request,
            start: position,
            phase,
            role,
            ids: Vec::new(),
            accepted: accepted.is_some().then(Vec::new),
        });
        if run.ids.len() == RUN_TOKENS {
            let what = format!("at most {RUN_TOKENS} rows in one run");
            return Err(InputError::expected(what).key("position").found(position).into());
        }
        match (&mut run.accepted, accepted) {
            (Some(all), Some(kept)) => all.push(kept),
            (None, None) => {}
            (_, found) => {
                let found = found.map_or("null".to_owned(), |kept| kept.to_string());
                let what = "a value in all rows of a run or in none";
                return Err(InputError::expected(what).key("accepted").found(found).into());
            }
        }
        run.ids.push(batch.route[index]);
        Ok(())
    }

    fn end_run(&mut self, assembler: &mut Assembler) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let OpenRun { start, phase, role, .. } = run;
        let shape = Shape { start, phase, role, tokens: run.ids.len(), accepted: run.accepted.as_deref() };
        let taken = assembler.run(run.request, shape, &run.ids);
        taken.map_err(|error| in_line(error, Some(run.row)))
    }
}

/// The length of a file whose footer is within it, not too long, and has a schema that holds together.
fn footer_fits(file: &mut File) -> std::io::Result<Result<u64>> {
    let length = file.seek(SeekFrom::End(0))?;
    let bad = |found: String, what: &str| Ok(Err(InputError::expected(what).found(found).into()));
    if length < 12 {
        return bad(format!("{length} bytes"), "a Parquet file");
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut tail)?;
    let [size @ .., b'P', b'A', b'R', b'1'] = tail else {
        return bad("no PAR1 at its end".into(), "a whole Parquet file");
    };
    let footer = u64::from(u32::from_le_bytes(size));
    if footer > FOOTER_BYTES || footer > length - 8 {
        return bad(
            format!("a footer of {footer} bytes"),
            &format!("at most {FOOTER_BYTES}, within the file"),
        );
    }
    file.seek(SeekFrom::End(-8 - footer as i64))?;
    let mut bytes = vec![0; footer as usize];
    file.read_exact(&mut bytes)?;
    Ok(super::footer::check(&bytes).map(|()| length))
}

/// Reads the text under one metadata key; errors name the key.
fn definition<T>(metadata: &ParquetMetaData, key: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let entries = metadata.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
    let mut found = entries.iter().filter(|entry| entry.key == key);
    let text = found.next().and_then(|entry| entry.value.as_deref());
    let text = text.filter(|_| found.next().is_none());
    let text = text.ok_or_else(|| {
        InputError::expected("this key once in the metadata, with JSON Lines text").key(key)
    })?;
    read(text).map_err(|error| match error {
        Error::Input(mut bad) => {
            bad.key = Some(bad.key.map_or(key.to_owned(), |within| format!("{key}: {within}")));
            Error::Input(bad)
        }
        other => other,
    })
}

/// Decoded rows. Columns that the file lacks are empty.
struct Batch {
    request: Vec<u64>,
    position: Vec<u64>,
    phase: Vec<Phase>,
    route: Vec<u64>,
    role: Vec<Role>,
    accepted: Vec<Option<bool>>,
    first: Vec<bool>,
}

impl Group {
    fn open(pages: &Arc<Pages>, metadata: &ParquetMetaData, index: usize) -> parquet::errors::Result<Group> {
        let group = metadata.row_group(index);
        let rows = u64::try_from(group.num_rows())
            .map_err(|_| ParquetError::General("a row group of fewer than no rows".into()))?;
        let open = Opener { pages, metadata, index, rows };
        Ok(Group {
            rows_left: rows,
            request: open.whole("request")?,
            position: open.whole("position")?,
            phase: open.need("phase", Type::BYTE_ARRAY)?,
            route: open.whole("route")?,
            role: open.column("role", Type::BYTE_ARRAY)?,
            accepted: open.column("accepted", Type::BOOLEAN)?,
            first: open.column("first", Type::BOOLEAN)?,
        })
    }

    /// The next `count` rows, the first of which is `row`.
    fn batch(&mut self, count: usize, row: u64) -> Result<Batch> {
        let role = match &mut self.role {
            None => Vec::new(),
            Some(column) => column.words(count, row, Some(Role::Plain))?,
        };
        let accepted = match &mut self.accepted {
            None => Vec::new(),
            Some(column) => column.values(count)?,
        };
        let first = match &mut self.first {
            None => Vec::new(),
            Some(column) => column.values(count)?.into_iter().map(|first| first == Some(true)).collect(),
        };
        Ok(Batch {
            request: self.request.values(count, row)?,
            position: self.position.values(count, row)?,
            phase: self.phase.words(count, row, None)?,
            route: self.route.values(count, row)?,
            role,
            accepted,
            first,
        })
    }
}

/// Opens the columns of one row group.
struct Opener<'a> {
    pages: &'a Arc<Pages>,
    metadata: &'a ParquetMetaData,
    index: usize,
    rows: u64,
}

impl Opener<'_> {
    fn find(&self, name: &str) -> parquet::errors::Result<Option<usize>> {
        let schema = self.metadata.file_metadata().schema_descr();
        let columns = schema.columns();
        let mut found =
            (0..columns.len()).filter(|&index| columns[index].path().parts() == [name.to_owned()]);
        let first = found.next();
        let flat = |column: &ColumnDescriptor| {
            let once = column.self_type().get_basic_info().repetition() != Repetition::REPEATED;
            once && column.max_rep_level() == 0 && column.max_def_level() <= 1
        };
        match first {
            Some(index) if found.next().is_some() || !flat(&columns[index]) => {
                Err(ParquetError::General(format!("the column {name} is there twice, or is not flat")))
            }
            first => Ok(first),
        }
    }

    fn column<T: DataType>(
        &self,
        name: &'static str,
        wanted: Type,
    ) -> parquet::errors::Result<Option<Column<T>>> {
        let Some(index) = self.find(name)? else { return Ok(None) };
        let group = self.metadata.row_group(self.index);
        let bad = |what: String| Err(ParquetError::General(format!("column {name}: {what}")));
        if index >= group.num_columns() {
            return bad("absent from a row group".into());
        }
        let chunk = group.column(index);
        let description = chunk.column_descr_ptr();
        if description.physical_type() != wanted {
            return bad(format!("{} values, not {wanted}", description.physical_type()));
        }
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        if start < 0 || chunk.compressed_size() < 0 {
            return bad("a place before the file's start".into());
        }
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
        let pages = SerializedPageReader::new(Arc::clone(self.pages), chunk, rows, None)?;
        let optional = description.max_def_level() > 0;
        let reader = get_column_reader(description, Box::new(CheckedPages::new(pages)));
        Ok(Some(Column { name, reader: get_typed_column_reader(reader), optional }))
    }

    fn need<T: DataType>(&self, name: &'static str, wanted: Type) -> parquet::errors::Result<Column<T>> {
        let column = self.column(name, wanted)?;
        column.ok_or_else(|| ParquetError::General(format!("no column {name}")))
    }

    fn whole(&self, name: &'static str) -> parquet::errors::Result<Whole> {
        let Some(index) = self.find(name)? else {
            return Err(ParquetError::General(format!("no column {name}")));
        };
        let column = self.metadata.file_metadata().schema_descr().column(index);
        let unsigned = matches!(column.converted_type(), ConvertedType::UINT_64 | ConvertedType::UINT_32)
            || matches!(column.logical_type_ref(), Some(LogicalType::Integer(kind)) if !kind.is_signed);
        Ok(match column.physical_type() {
            Type::INT32 => Whole::Short(self.need(name, Type::INT32)?, unsigned),
            _ => Whole::Long(self.need(name, Type::INT64)?, unsigned),
        })
    }
}

impl<T: DataType> Column<T> {
    /// The next `count` values.
    fn values(&mut self, count: usize) -> Result<Vec<Option<T::T>>> {
        let (mut values, mut given) = (Vec::new(), Vec::new());
        let (reader, optional) = (&mut self.reader, self.optional);
        let read = guarded(|| {
            let levels = optional.then_some(&mut given);
            reader.read_records(count, levels, None, &mut values)
        });
        let (rows, ..) = read.map_err(damaged).map_err(|error| in_key(error, self.name))?;
        let full = if self.optional { given.len() } else { values.len() };
        if rows != count || full != count {
            let what = "as many values as the row group has rows";
            return Err(InputError::expected(what).key(self.name).found(format!("{rows} of {count}")).into());
        }
        let mut values = values.into_iter();
        if !self.optional {
            return Ok(values.map(Some).collect());
        }
        let mut taken =
            given.into_iter().map(|level| if level == 0 { Some(None) } else { values.next().map(Some) });
        let all: Option<Vec<_>> = taken.by_ref().collect();
        all.ok_or_else(|| InputError::expected("as many values as are not null").key(self.name).into())
    }
}

impl Column<ByteArrayType> {
    /// The next `count` words of a closed set, from `row` on; `null` stands for null where null is allowed.
    fn words<W: Named>(&mut self, count: usize, row: u64, null: Option<W>) -> Result<Vec<W>> {
        let name = self.name;
        let word = |(bytes, row): (Option<ByteArray>, u64)| {
            let text =
                bytes.as_ref().map(|bytes| std::str::from_utf8(bytes.data()).unwrap_or("bytes, no text"));
            let word = text.map_or(null, W::from_name);
            word.ok_or_else(|| {
                let bad = InputError::expected(W::choices()).key(name).line(row);
                bad.found(text.unwrap_or("null")).into()
            })
        };
        self.values(count)?.into_iter().zip(row..).map(word).collect()
    }
}

impl Whole {
    /// The next `count` numbers, from `row` on.
    fn values(&mut self, count: usize, row: u64) -> Result<Vec<u64>> {
        match self {
            Whole::Short(column, unsigned) => {
                let (name, unsigned) = (column.name, *unsigned);
                let wide = |value: i32| if unsigned { i64::from(value as u32) } else { value.into() };
                let values = column.values(count)?.into_iter().zip(row..);
                values.map(|(value, row)| whole(name, row, value.map(wide), false)).collect()
            }
            Whole::Long(column, unsigned) => {
                let (name, unsigned) = (column.name, *unsigned);
                let values = column.values(count)?.into_iter().zip(row..);
                values.map(|(value, row)| whole(name, row, value, unsigned)).collect()
            }
        }
    }
}

fn whole(name: &str, row: u64, value: Option<i64>, unsigned: bool) -> Result<u64> {
    let number = value.filter(|&value| unsigned || value >= 0).map(|value| value as u64);
    number.ok_or_else(|| {
        let found = value.map_or("null".to_owned(), |value| value.to_string());
        InputError::expected("a whole number from 0 on").key(name).line(row).found(found).into()
    })
}
