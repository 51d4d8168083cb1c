//! A file as bytes or as lines, plain or compressed; no line is held that is longer than the limit.

use super::limits::LINE_BYTES;
use crate::error::{Error, InputError, Result};
use crate::json_text;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes read from the file at a time, and decompressed at a time.
const BUFFER: usize = 256 << 10;

/// A file that may be compressed.
pub(crate) struct Input {
    /// What comes out of it, decompressed.
    pub bytes: Box<dyn BufRead + Send>,
    /// Where failures of `bytes` come from.
    pub origin: Origin,
}

/// A file and how it is compressed.
#[derive(Clone)]
pub(crate) struct Origin {
    path: PathBuf,
    compression: Option<&'static str>,
}

impl Input {
    /// Opens `path`: gzip for `.gz`, zstd for `.zst`, plain for everything else. A byte order mark of UTF-8 is passed over.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let file = BufReader::with_capacity(BUFFER, file);
        let (bytes, compression): (Box<dyn BufRead + Send>, _) = match super::ending(path).as_str() {
            "gz" => {
                let gzip = flate2::bufread::MultiGzDecoder::new(file);
                (Box::new(BufReader::with_capacity(BUFFER, gzip)), Some("gzip"))
            }
            "zst" => {
                let zstd = zstd::Decoder::with_buffer(file).map_err(Error::io(path, "read"))?;
                (Box::new(BufReader::with_capacity(BUFFER, zstd)), Some("zstd"))
            }
            _ => (Box::new(file), None),
        };
        let mut input = Input { bytes, origin: Origin { path: path.to_owned(), compression } };
        input.skip_byte_order_mark()?;
        Ok(input)
    }

    /// Passes over the mark that some editors put before UTF-8.
    fn skip_byte_order_mark(&mut self) -> Result<()> {
        let start = self.bytes.fill_buf().map_err(|cause| self.origin.error(1, cause))?;
        if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
            let bad = InputError::expected("UTF-8 text").found("the byte order mark of UTF-16");
            return Err(bad.line(1).into());
        }
        let mark = start.len() - json_text::without_mark(start).len();
        self.bytes.consume(mark);
        Ok(())
    }
}

impl Origin {
    /// What a failed read at `line` means: a damaged file where it is compressed and the system has no complaint.
    pub fn error(&self, line: u64, cause: std::io::Error) -> Error {
        match self.compression {
            Some(name) if cause.raw_os_error().is_none() => {
                let what = format!("a whole and undamaged {name} file");
                InputError::expected(what).found(cause).line(line).into()
            }
            _ => Error::io(&self.path, "read")(cause),
        }
    }
}

/// The lines of a file.
pub(crate) struct Lines {
    input: Input,
    text: Vec<u8>,
    line: u64,
}

impl Lines {
    /// The lines of an input, from 1.
    pub fn new(input: Input) -> Self {
        Lines { input, text: Vec::new(), line: 0 }
    }

    /// How many lines were read.
    pub fn count(&self) -> u64 {
        self.line
    }

    /// The next line, without its end.
    pub fn next(&mut self) -> Result<Option<&str>> {
        self.text.clear();
        let mut limited = (&mut self.input.bytes).take(LINE_BYTES as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.text);
        self.line += 1;
        let bad = |what: &str| InputError::expected(what).line(self.line);
        read.map_err(|cause| self.input.origin.error(self.line, cause))?;
        if self.text.is_empty() {
            return Ok(None);
        }
        if self.text.last() == Some(&b'\n') {
            self.text.pop();
        } else if self.text.len() > LINE_BYTES {
            let found = String::from_utf8_lossy(&self.text[..64]);
            return Err(bad(&format!("lines of at most {LINE_BYTES} bytes")).found(found).into());
        }
        match std::str::from_utf8(&self.text) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let from = error.valid_up_to();
                let found = self.text[from..].iter().take(8).map(|byte| format!("{byte:02x}"));
                let found: Vec<_> = found.collect();
                let what = format!("UTF-8 text (byte {} of the line is not)", from + 1);
                Err(bad(&what).found(found.join(" ")).into())
            }
        }
    }
}

/// Adds the line to an error that does not name one yet.
pub(super) fn in_line(error: Error, line: Option<u64>) -> Error {
    edit(error, |bad| bad.line = bad.line.or(line))
}

/// Adds the key to an error that does not name one yet.
pub(super) fn in_key(error: Error, key: &str) -> Error {
    edit(error, |bad| {
        bad.key.get_or_insert_with(|| key.to_owned());
    })
}

fn edit(error: Error, change: impl FnOnce(&mut InputError)) -> Error {
    match error {
        Error::Input(mut bad) => {
            change(&mut bad);
            Error::Input(bad)
        }
        other => other,
    }
}
