//! Whole files of text.

use crate::error::{Error, InputError, Result};
use std::path::Path;

/// A file of text; `None` where there is none.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "read")(error)),
        Ok(facts) if facts.len() > MOST => {
            let what = format!("at most {} MiB", MOST >> 20);
            return Err(InputError::expected(what).found("a larger file").file(path).into());
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(Error::io(path, "read"))
}

/// Most bytes of a file that is read whole; the largest published `tokenizer.json` have some thirty million.
const MOST: u64 = 1 << 28;
