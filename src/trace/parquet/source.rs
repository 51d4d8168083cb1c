//! Stands between the file and the `parquet` crate, and refuses what would make the crate panic or reserve memory by
//! the gigabyte on the word of the file.

use super::footer::begins_with_struct;
use crate::trace::limits::{HEADER_BYTES, PAGE_BYTES};
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::{BufReader, Read};

fn bad(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

/// Runs code of the crate; a panic in it becomes an error. The crate promises no errors for every corrupt file.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    crate::error::guarded(run).unwrap_or_else(|_| Err(bad("the pages contradict each other")))
}

/// Bytes in which most page headers end.
const FIRST_LOOK: u64 = 1 << 10;

/// A file from which only pages are read. Each read for a page header is looked at first.
pub(super) struct Pages {
    file: File,
    length: u64,
}

impl Pages {
    pub fn new(file: File, length: u64) -> Self {
        Pages { file, length }
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Pages {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        // Statistics may make a header long: more is read until all of it is there.
        let mut most = FIRST_LOOK;
        let head = loop {
            let mut head = Vec::new();
            let read = self.file.get_read(start)?.take(most).read_to_end(&mut head)? as u64;
            if begins_with_struct(&head) {
                break head;
            }
            if read < most || most >= HEADER_BYTES {
                return Err(bad(format!("no page at byte {start}")));
            }
            most *= 16;
        };
        match plain_size(&head) {
            Some(size) if size <= PAGE_BYTES as u64 => self.file.get_read(start),
            Some(size) => Err(bad(format!("a page of {size} bytes; the most is {PAGE_BYTES}"))),
            None => Err(bad(format!("no page at byte {start}"))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes> {
        let end = start.checked_add(length as u64);
        if length > PAGE_BYTES || end.is_none_or(|end| end > self.length) {
            return Err(bad(format!("a page of {length} bytes; the most is {PAGE_BYTES} within the file")));
        }
        self.file.get_bytes(start, length)
    }
}

/// The uncompressed size that a page header states, or `None` where it is no page header. In Thrift's compact form a
/// header starts with the fields 1 (page type) and 2 (uncompressed size): 0x15, a number, 0x15, a number.
fn plain_size(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(&[0x15])?;
    let (_, rest) = variable_length(rest)?;
    let (size, _) = variable_length(rest.strip_prefix(&[0x15])?)?;
    // Zigzag: even numbers are twice the value, odd ones negative.
    (size & 1 == 0).then_some(size >> 1)
}

fn variable_length(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 + bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(length);
    let number = number.iter().rev().fold(0_u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((number, rest))
}

/// Pages of one column of one row group, checked.
pub(super) struct CheckedPages<R> {
    inner: R,
    dictionary: bool,
}

impl<R> CheckedPages<R> {
    pub fn new(inner: R) -> Self {
        CheckedPages { inner, dictionary: false }
    }

    fn check(&mut self, page: &Page) -> Result<()> {
        let encoding = page.encoding();
        if !page.is_data_page() {
            let bytes = page.buffer().len();
            if page.num_values() as usize > bytes || self.dictionary {
                let values = page.num_values();
                return Err(bad(format!(
                    "a dictionary of {values} values in {bytes} bytes, or a second one"
                )));
            }
            self.dictionary = true;
            return Ok(());
        }
        match encoding {
            Encoding::PLAIN | Encoding::RLE => Ok(()),
            #[allow(deprecated, reason = "old writers use it")]
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if self.dictionary => Ok(()),
            other => Err(bad(format!(
                "the encoding {other} (PLAIN, RLE and, after a dictionary page, RLE_DICTIONARY are read)"
            ))),
        }
    }
}

impl<R: PageReader> Iterator for CheckedPages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl<R: PageReader> PageReader for CheckedPages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.inner.get_next_page()?;
        page.as_ref().map_or(Ok(()), |page| self.check(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.inner.at_record_boundary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_seen_before_they_are_believed() {
        // Type 0, 300 bytes (zigzag 600 = 0xd8 0x04).
        assert_eq!(plain_size(&[0x15, 0, 0x15, 0xd8, 0x04, 0x15]), Some(300));
        assert_eq!(plain_size(&[0x15, 0, 0x15, 0xd9, 0x04, 0x15]), None, "negative");
        assert_eq!(plain_size(&[0x15, 0, 0x15, 0xff, 0xff]), None, "cut off");
        assert_eq!(plain_size(&[0x25, 0, 0x15, 0]), None, "not the first field");
        assert_eq!(plain_size(&[0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f]), Some(i32::MAX as u64));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        assert!(guarded::<()>(|| panic!("as the crate might")).is_err());
        assert_eq!(guarded(|| Ok(5)).unwrap(), 5);
    }
}
