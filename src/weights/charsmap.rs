//! The table of characters of a SentencePiece normaliser, before the `tokenizers` crate reads it: it reserves memory for as many entries as
//! the table says it has.

use crate::error::{InputError, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::path::Path;

/// A normaliser of a `tokenizer.json`, as far as it has such a table, or others within it.
#[derive(Deserialize)]
pub struct Normalizer {
    precompiled_charsmap: Option<String>,
    #[serde(default)]
    normalizers: Vec<Normalizer>,
}

impl Normalizer {
    /// Refuses a table whose entries take more bytes than it has. It is in base 64: the bytes of its entries in 32 bits, lowest first, the
    /// entries, then the texts that they name (`src/builder.cc` of SentencePiece, `EncodePrecompiledCharsMap`).
    ///
    /// # Errors
    /// Such a table. One that is no base 64 is the library's to refuse.
    pub fn check(&self, path: &Path) -> Result<()> {
        let bytes = self.precompiled_charsmap.as_ref().and_then(|text| STANDARD.decode(text).ok());
        if let Some((size, rest)) = bytes.as_deref().and_then(|bytes| bytes.split_first_chunk()) {
            let size = u32::from_le_bytes(*size);
            if size as usize > rest.len() {
                let what = format!("entries within the {} bytes of the table", rest.len());
                let error = InputError::expected(what).key("normalizer.precompiled_charsmap");
                return Err(error.found(format!("entries of {size} bytes")).file(path).into());
            }
        }
        self.normalizers.iter().try_for_each(|normalizer| normalizer.check(path))
    }
}

#[cfg(test)]
mod tests {
    use super::Normalizer;
    use std::path::Path;

    #[test]
    fn a_table_has_the_entries_that_it_says() {
        let check = |table: &str| {
            let text = format!(
                r#"{{"type": "Sequence", "normalizers": [{{"type": "NFC"}}, {{"precompiled_charsmap": "{table}"}}]}}"#
            );
            let normalizer: Normalizer = serde_json::from_str(&text).expect("a normaliser");
            normalizer.check(Path::new("tokenizer.json"))
        };
        // Eight bytes of entries, then seven; 2 GiB of which there are seven bytes.
        assert!(check("CAAAAAAAAAAAAAAA").is_ok());
        let said = check("CAAAAAAAAAAAAAA=").expect_err("a byte is missing").to_string();
        assert!(said.contains("entries of 8 bytes") && said.contains("the 7 bytes"), "{said}");
        assert!(check("////fwAAAAAAAAA=").is_err());
        assert!(check("no base 64").is_ok() && check("AAA=").is_ok(), "left to the library");
    }
}
