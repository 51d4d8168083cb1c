//! The tokenizer of a file of texts.

use crate::error::{InputError, Result};
use crate::workload::TokenCount;
use std::path::{Path, PathBuf};

/// The file that says a tokenizer's words, by the name under which it was asked for from a folder.
pub(super) fn file(folder: &Path, name: &Path) -> PathBuf {
    let mut in_it = ["tokenizer.json", "vocab.json"].into_iter().map(|file| name.join(file));
    in_it.find(|file| folder.join(file).exists()).unwrap_or_else(|| name.to_owned())
}

/// Counts tokens by a tokenizer: a folder with one, or its `tokenizer.json`. `name` is what the user calls it.
///
/// # Errors
/// None found, or a broken one.
#[cfg(feature = "gpu")]
pub fn token_count(path: &Path, name: &str) -> Result<TokenCount> {
    let folder = match path.file_name() {
        Some(file) if file == "tokenizer.json" => path.with_file_name(""),
        _ if path.is_dir() => path.to_owned(),
        _ => {
            let what = "a folder with a tokenizer, or its tokenizer.json";
            return Err(InputError::expected(what).key("tokenizer").found(path.display()).into());
        }
    };
    let tokenizer = crate::weights::Tokenizer::in_folder(&folder)?;
    Ok(TokenCount::new(name, move |text| tokenizer.count(text)))
}

/// Refused: this program has no tokenizers.
///
/// # Errors
/// Always.
#[cfg(not(feature = "gpu"))]
pub fn token_count(_: &Path, name: &str) -> Result<TokenCount> {
    let what = "no tokenizer, or a program built with the feature gpu, which has the library for them";
    Err(InputError::expected(what).key("tokenizer").found(name).into())
}
