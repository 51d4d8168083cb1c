//! Writes tokens as rows, a row group at a time.

use super::{HEADER, REQUESTS, ROUTES};
use crate::trace::jsonl::request_line;
use crate::trace::limits::FOOTER_BYTES;
use crate::trace::names::Named;
use crate::trace::{Header, Request, Role};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::sync::Arc;

/// Rows of a row group: about ten megabytes in memory.
const GROUP_ROWS: usize = 1 << 18;

const SCHEMA: &str = "message router_trace {
    required int64 request (INTEGER(64,false));
    required int32 position (INTEGER(32,false));
    required binary phase (STRING);
    required int64 route (INTEGER(64,false));
    optional binary role (STRING);
    optional boolean accepted;
    required boolean first;
}";

/// Takes requests and routes; the metadata goes to the file's end.
pub(in crate::trace) struct RowWriter {
    file: SerializedFileWriter<File>,
    header: String,
    routes: String,
    requests: String,
    rows: Columns,
}

/// How every Parquet file of this program is written: the same bytes for the same rows.
pub(crate) fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_created_by("radialsim".into())
        .build()
}

#[derive(Default)]
struct Columns {
    request: Vec<i64>,
    position: Vec<i32>,
    phase: Vec<ByteArray>,
    route: Vec<i64>,
    role: Vec<ByteArray>,
    role_given: Vec<i16>,
    accepted: Vec<bool>,
    accepted_given: Vec<i16>,
    first: Vec<bool>,
}

impl RowWriter {
    pub fn new(file: File, header: &Header) -> Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).expect("the schema is well formed"));
        let file = SerializedFileWriter::new(file, schema, Arc::new(properties()))?;
        let header = header.line();
        Ok(RowWriter {
            file,
            header,
            routes: String::new(),
            requests: String::new(),
            rows: Columns::default(),
        })
    }

    /// Adds a route by its line.
    pub fn route(&mut self, line: &str) {
        self.routes.push_str(line);
        self.routes.push('\n');
    }

    /// Adds a request with its runs.
    pub fn request(&mut self, request: &Request) -> Result<()> {
        self.requests.push_str(&request_line(request));
        self.requests.push('\n');
        for run in &request.runs {
            let phase = ByteArray::from(run.phase.name());
            let role = (run.role != Role::Plain).then(|| ByteArray::from(run.role.name()));
            for (index, route) in run.routes.iter().enumerate() {
                let rows = &mut self.rows;
                rows.request.push(request.id as i64);
                rows.position.push((run.start + index as u32) as i32);
                rows.phase.push(phase.clone());
                rows.route.push(route.into());
                rows.role.extend(role.clone());
                rows.role_given.push(role.is_some().into());
                rows.accepted.extend(run.accepted.get(index));
                rows.accepted_given.push((!run.accepted.is_empty()).into());
                rows.first.push(index == 0);
                if rows.request.len() == GROUP_ROWS {
                    self.rows.write(&mut self.file)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what is left and the metadata.
    pub fn finish(mut self) -> Result<()> {
        let texts = [(HEADER, self.header), (ROUTES, self.routes), (REQUESTS, self.requests)];
        let size: usize = texts.iter().map(|(_, text)| text.len()).sum();
        // The rest of the footer is some kilobytes.
        if size as u64 > FOOTER_BYTES - (64 << 20) {
            let what = format!(
                "routes and requests take {size} bytes, more than a Parquet footer; write .jsonl.zst"
            );
            return Err(ParquetError::General(what));
        }
        if !self.rows.request.is_empty() {
            self.rows.write(&mut self.file)?;
        }
        for (key, text) in texts {
            self.file.append_key_value_metadata(KeyValue::new(key.to_owned(), text));
        }
        self.file.finish()?;
        Ok(std::io::Write::flush(self.file.inner_mut())?)
    }
}

impl Columns {
    fn write(&mut self, file: &mut SerializedFileWriter<File>) -> Result<()> {
        let mut group = file.next_row_group()?;
        column::<Int64Type>(&mut group, &self.request, None)?;
        column::<Int32Type>(&mut group, &self.position, None)?;
        column::<ByteArrayType>(&mut group, &self.phase, None)?;
        column::<Int64Type>(&mut group, &self.route, None)?;
        column::<ByteArrayType>(&mut group, &self.role, Some(&self.role_given))?;
        column::<BoolType>(&mut group, &self.accepted, Some(&self.accepted_given))?;
        column::<BoolType>(&mut group, &self.first, None)?;
        group.close()?;
        *self = Columns::default();
        Ok(())
    }
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<File>,
    values: &[T::T],
    given: Option<&[i16]>,
) -> Result<()> {
    let mut column = group.next_column()?.expect("the schema has this column");
    column.typed::<T>().write_batch(values, given, None)?;
    column.close()
}
