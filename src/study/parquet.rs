//! Points as Parquet: numbers as doubles, everything else as texts; what a row does not have is null.

use super::Assembly;
use super::assembly::Cells;
use super::csv::text;
use crate::error::{Error, Result};
use crate::report::Staged;
use crate::trace::parquet_properties as properties;
use parquet::basic::LogicalType;
use parquet::basic::{Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType};
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows of a row group: some ten megabytes in memory.
const GROUP_ROWS: usize = 1 << 13;

/// Writes a row for each point and variant.
///
/// # Errors
/// What the system refuses, and those of [`Assembly::points`].
pub fn points(assembly: &Assembly, path: &Path) -> Result<()> {
    let columns = &assembly.columns()?.names;
    let place: HashMap<String, usize> =
        columns.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
    let into_ours = |error: ParquetError| Error::io(path, "write")(io::Error::other(error.to_string()));
    Staged::create(path)?.finish_with(|out| {
        let schema = Arc::new(schema(columns).map_err(into_ours)?);
        let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties())).map_err(into_ours)?;
        let mut group: Vec<Column> = columns.iter().map(|(_, is_number)| Column::new(*is_number)).collect();
        let mut rows = 0;
        assembly.cells(|_, cells| {
            push(&mut group, &place, cells);
            rows += 1;
            if rows == GROUP_ROWS {
                rows = 0;
                flush(&mut file, &mut group).map_err(into_ours)?;
            }
            Ok(())
        })?;
        if rows > 0 {
            flush(&mut file, &mut group).map_err(into_ours)?;
        }
        file.finish().map_err(into_ours)?;
        file.inner_mut().flush().map_err(Error::io(path, "write"))
    })
}

fn schema(columns: &[(String, bool)]) -> std::result::Result<Type, ParquetError> {
    let field = |(name, is_number): &(String, bool)| {
        let physical = if *is_number { Physical::DOUBLE } else { Physical::BYTE_ARRAY };
        let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        let logical = (!is_number).then_some(LogicalType::String);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let fields = columns.iter().map(field).collect::<std::result::Result<Vec<_>, _>>()?;
    Type::group_type_builder("points").with_fields(fields).build()
}

/// A column of a row group.
enum Column {
    Numbers { values: Vec<f64>, given: Vec<i16> },
    Texts { values: Vec<ByteArray>, given: Vec<i16> },
}

impl Column {
    fn new(is_number: bool) -> Column {
        if is_number {
            Column::Numbers { values: Vec::new(), given: Vec::new() }
        } else {
            Column::Texts { values: Vec::new(), given: Vec::new() }
        }
    }

    fn push(&mut self, value: Option<&Value>) {
        match self {
            Column::Numbers { values, given } => {
                let number = value.and_then(Value::as_f64);
                given.push(number.is_some().into());
                values.extend(number);
            }
            Column::Texts { values, given } => {
                given.push(value.is_some().into());
                values.extend(value.map(|value| ByteArray::from(text(value).as_str())));
            }
        }
    }
}

fn push(group: &mut [Column], place: &HashMap<String, usize>, cells: Cells) {
    let mut row: Vec<Option<Value>> = vec![None; group.len()];
    for (name, value) in cells {
        row[place[&name]] = Some(value);
    }
    group.iter_mut().zip(&row).for_each(|(column, value)| column.push(value.as_ref()));
}

fn flush<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    group: &mut [Column],
) -> std::result::Result<(), ParquetError> {
    let mut rows = file.next_row_group()?;
    for column in group.iter_mut() {
        match column {
            Column::Numbers { values, given } => write::<DoubleType, W>(&mut rows, values, given)?,
            Column::Texts { values, given } => write::<ByteArrayType, W>(&mut rows, values, given)?,
        }
    }
    rows.close()?;
    Ok(())
}

fn write<T: DataType, W: Write + Send>(
    rows: &mut SerializedRowGroupWriter<W>,
    values: &mut Vec<T::T>,
    given: &mut Vec<i16>,
) -> std::result::Result<(), ParquetError> {
    let mut column = rows.next_column()?.expect("the schema has this column");
    column.typed::<T>().write_batch(values, Some(given), None)?;
    values.clear();
    given.clear();
    column.close()
}
