//! Parquet files of other writers, and ones that mean harm.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use radialsim::trace::{self, Role, Trace};
use std::sync::Arc;

const HEADER: &str = r#"{"type":"header","format":"router-trace","version":1,"model":"m","layers":8,"order":"any","reuse":true,"granularity":"token","kv":"none","router":{"kind":"fixed"},"source":""}"#;
const ROUTES: &str = r#"{"type":"route","id":5,"steps":"0 1"}
{"type":"route","id":9,"steps":"4 1 7 7 2"}"#;
const REQUESTS: &str = r#"{"type":"request","id":6,"arrival_s":0,"prompt_tokens":2,"output_tokens":3}"#;

/// What to put into a file; the default is a valid trace of four rows by a writer that knows no optional column.
struct File {
    position: Vec<i32>,
    phase: Vec<&'static str>,
    route: Vec<i64>,
    role: Option<Vec<Option<&'static str>>>,
    accepted: Option<Vec<Option<bool>>>,
    texts: Vec<(&'static str, &'static str)>,
    encoding: Option<Encoding>,
    route_name: &'static str,
}

impl Default for File {
    fn default() -> Self {
        File {
            position: vec![0, 1, 2, 3],
            phase: vec!["prefill", "prefill", "decode", "decode"],
            route: vec![5, 9, 9, 5],
            role: None,
            accepted: None,
            texts: vec![
                ("router-trace.header", HEADER),
                ("router-trace.routes", ROUTES),
                ("router-trace.requests", REQUESTS),
            ],
            encoding: None,
            route_name: "route",
        }
    }
}

fn put<T: DataType>(group: &mut SerializedRowGroupWriter<Vec<u8>>, values: &[T::T], given: Option<&[i16]>) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, given, None).unwrap();
    column.close().unwrap();
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let role = if self.role.is_some() { "optional binary role (STRING);" } else { "" };
        let accepted = if self.accepted.is_some() { "optional boolean accepted;" } else { "" };
        let schema = format!(
            "message t {{ required int64 request; required int32 position; required binary phase (STRING);
             required int64 {}; {role} {accepted} }}",
            self.route_name
        );
        let mut properties =
            WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
        if let Some(encoding) = self.encoding {
            properties = properties.set_dictionary_enabled(false);
            properties = properties.set_column_encoding("route".into(), encoding);
        }
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).unwrap();
        let mut group = file.next_row_group().unwrap();
        put::<Int64Type>(&mut group, &vec![6; self.position.len()], None);
        put::<Int32Type>(&mut group, &self.position, None);
        let phase: Vec<_> = self.phase.iter().map(|&phase| ByteArray::from(phase)).collect();
        put::<ByteArrayType>(&mut group, &phase, None);
        put::<Int64Type>(&mut group, &self.route, None);
        if let Some(role) = &self.role {
            let given: Vec<_> = role.iter().map(|role| i16::from(role.is_some())).collect();
            let values: Vec<_> = role.iter().flatten().map(|&role| ByteArray::from(role)).collect();
            put::<ByteArrayType>(&mut group, &values, Some(&given));
        }
        if let Some(accepted) = &self.accepted {
            let given: Vec<_> = accepted.iter().map(|kept| i16::from(kept.is_some())).collect();
            let values: Vec<_> = accepted.iter().flatten().copied().collect();
            put::<BoolType>(&mut group, &values, Some(&given));
        }
        group.close().unwrap();
        for (key, text) in &self.texts {
            file.append_key_value_metadata(KeyValue::new((*key).to_owned(), (*text).to_owned()));
        }
        file.into_inner().unwrap()
    }
}

fn read(bytes: &[u8]) -> Result<Trace, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    std::fs::write(&path, bytes).unwrap();
    trace::read(&path).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "t.parquet"))
}

#[test]
fn a_file_with_only_the_four_columns_is_read() {
    let trace = read(&File::default().bytes()).unwrap();
    let runs: Vec<(u32, Vec<u32>)> =
        trace.requests[0].runs.iter().map(|run| (run.start, run.routes.iter().collect())).collect();
    assert_eq!(runs, [(0, vec![0, 1]), (2, vec![1, 0])]);
    let role = vec![None, None, Some("verify"), Some("verify")];
    let accepted = vec![None, None, Some(true), Some(true)];
    let file = File { role: Some(role), accepted: Some(accepted), ..File::default() };
    let trace = read(&file.bytes()).unwrap();
    assert_eq!((trace.requests[0].runs[1].role, trace.requests[0].advanced()), (Role::Verify, 4));
    assert_eq!(trace.requests[0].runs[1].accepted, [true, true]);
}

#[test]
fn mistakes_name_the_row_and_the_column() {
    let base = File::default;
    let texts = |index: usize, text: &'static str| {
        let mut texts = base().texts;
        texts[index].1 = text;
        texts
    };
    let role = Some(vec![None, None, Some("verify"), Some("verify")]);
    let cases = [
        (
            File { position: vec![0, 1, 2, 9], ..base() },
            "t.parquet:4: start: found 9, expected 3, where the tokens so far end (a gap)",
        ),
        (
            File { route: vec![5, 9, 9, 6], ..base() },
            "t.parquet:3: routes[1]: found 6, expected the id of a route that was defined before",
        ),
        (
            File { route: vec![5, 9, 9, -1], ..base() },
            "t.parquet:4: route: found -1, expected a whole number from 0 on",
        ),
        (
            File { phase: vec!["prefill", "prefill", "decode", "x"], ..base() },
            "t.parquet:4: phase: found x, expected one of prefill, decode",
        ),
        (
            File { role, accepted: Some(vec![None, None, Some(true), None]), ..base() },
            "t.parquet:4: accepted: found null, expected a value in all rows of a run or in none",
        ),
        (
            File { route_name: "router", ..base() },
            "t.parquet: found no column route, expected a whole Parquet file with the columns of a trace",
        ),
        (
            File { texts: texts(0, ROUTES), ..base() },
            "t.parquet: router-trace.header: found trailing, expected one JSON object a line",
        ),
        (
            File { texts: texts(2, ROUTES), ..base() },
            "t.parquet: router-trace.requests: type: found \"route\", expected \"request\"",
        ),
        (
            File { texts: base().texts[1..].to_vec(), ..base() },
            "t.parquet: router-trace.header: expected this key once in the metadata, with JSON Lines text",
        ),
    ];
    for (file, expected) in cases {
        let message = read(&file.bytes()).unwrap_err();
        if expected.contains("trailing") {
            let start = "t.parquet: router-trace.header: ";
            assert!(message.starts_with(start) && message.contains("trailing characters"), "{message}");
        } else {
            assert_eq!(message, expected);
        }
    }
}

#[test]
fn plain_values_are_read_and_other_encodings_named() {
    let encoded = |encoding| read(&File { encoding: Some(encoding), ..File::default() }.bytes());
    assert_eq!(encoded(Encoding::PLAIN).unwrap().requests[0].advanced(), 4);
    let message = encoded(Encoding::DELTA_BINARY_PACKED).unwrap_err();
    assert!(message.starts_with("t.parquet:1: route: found the encoding DELTA_BINARY_PACKED"), "{message}");
}

#[test]
fn what_is_no_parquet_file_is_named_as_such() {
    let bytes = File::default().bytes();
    assert!(read(&bytes[..bytes.len() - 1]).unwrap_err().contains("PAR1"));
    assert!(read(&bytes[..11]).unwrap_err().contains("11 bytes"));
}

/// Where the first page header starts: type, then uncompressed size.
fn with_page_size(mut bytes: Vec<u8>) -> Vec<u8> {
    assert_eq!((bytes[4], bytes[6]), (0x15, 0x15), "a page follows the magic number");
    // One byte holds the size; the continuation bits make the rest of the header part of the number.
    bytes[7] = 0xfe;
    bytes[8] |= 0x80;
    bytes[9] |= 0x80;
    bytes[10] |= 0x80;
    bytes[11] = 0x0f;
    bytes
}

#[test]
fn a_page_that_claims_two_gigabytes_is_refused_before_they_are_reserved() {
    let message = read(&with_page_size(File::default().bytes())).unwrap_err();
    assert!(message.contains("the most is 67108864"), "{message}");
}

/// The `parquet` crate reserves memory for as many fields of a group as a footer says.
#[test]
fn a_schema_that_claims_a_billion_fields_is_refused_before_they_are_reserved() {
    let mut bytes = File::default().bytes();
    // The schema's root: its name of one letter, then field 5, the number of its children, zigzag: twice four.
    let root = [0x48, 1, b't', 0x15, 8];
    let at = bytes.windows(root.len()).position(|part| part == root).expect("the schema's root");
    // Twice a billion, seven bits a byte.
    bytes.splice(at + 4..at + 5, [0x80, 0xa8, 0xd6, 0xb9, 0x07]);
    let end = bytes.len() - 8;
    let footer = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) + 4;
    bytes[end..end + 4].copy_from_slice(&footer.to_le_bytes());
    let said = read(&bytes).expect_err("refused");
    assert!(said.contains("schema: found 1000000000 fields, 5 elements"), "{said}");
}

#[test]
fn every_single_byte_may_be_damaged() {
    // A small file, so that the pages and the structure of the footer are most of it.
    let bytes = File::default().bytes();
    let mut errors = 0;
    for index in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[index] ^= mask;
            errors += usize::from(read(&damaged).is_err());
        }
    }
    // Unused fields and free text may change without harm.
    assert!(errors > bytes.len(), "{errors} errors for {} bytes", bytes.len());
}
