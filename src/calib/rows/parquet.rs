//! Any flat Parquet file as names and text.

use crate::error::InputError;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

/// Names of the columns and the rows as text.
pub(super) fn text(bytes: Vec<u8>, most_rows: usize) -> Result<super::Text, InputError> {
    let wrong = |error: ParquetError| InputError::expected(format!("a Parquet file ({error})"));
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(wrong)?;
    let fields = reader.metadata().file_metadata().schema().get_fields();
    let header: Vec<String> = fields.iter().map(|field| field.name().to_owned()).collect();
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).map_err(wrong)? {
        let row = row.map_err(wrong)?;
        rows.push(row.get_column_iter().map(|(_, field)| cell(field)).collect());
        if rows.len() > most_rows {
            return Err(InputError::expected(format!("at most {most_rows} rows")));
        }
    }
    Ok((header, rows))
}

fn cell(field: &Field) -> String {
    match field {
        Field::Str(text) => text.clone(),
        Field::Null => String::new(),
        // Whole numbers are often kept as floats where a column once had gaps.
        Field::Double(value) if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        other => other.to_string(),
    }
}
