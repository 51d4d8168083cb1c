//! Bytes of a file, of which no more are asked for than it has.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};

/// `length` bytes from `offset` on. Nothing is allocated before the file is known to hold them.
pub fn at(file: &mut File, offset: u64, length: u64) -> Result<Vec<u8>> {
    let end = offset.checked_add(length).filter(|&end| file.metadata().is_ok_and(|facts| end <= facts.len()));
    if end.is_none() {
        return Err(Error::new(ErrorKind::UnexpectedEof, "the file ends before"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
