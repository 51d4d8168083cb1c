//! Names that a file may give once: a map would keep one of two, and a model would silently have other weights, or read and write
//! other text.

use super::charsmap::Normalizer;
use crate::error::{InputError, Result};
use crate::json_text::{self, ObjectEntries};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::HashMap;
use std::path::Path;

/// Refuses a word with two ids, and an id with two words. A word that is there twice with the same id is no harm.
///
/// # Errors
/// The first such word or id, with both that it has.
pub fn check<'a>(words: impl IntoIterator<Item = (&'a str, u64)>) -> std::result::Result<(), InputError> {
    let (mut ids, mut texts) = (HashMap::new(), HashMap::new());
    for (word, id) in words {
        let (known_id, known_word) = (*ids.entry(word).or_insert(id), *texts.entry(id).or_insert(word));
        if known_id != id {
            let found = format!("the ids {known_id} and {id}");
            return Err(InputError::expected("one id for each word").key(format!("{word:?}")).found(found));
        }
        if known_word != word {
            let found = format!("the words {known_word:?} and {word:?}");
            return Err(InputError::expected("one word for each id").key(format!("id {id}")).found(found));
        }
    }
    Ok(())
}

/// Refuses a safetensors header that names a tensor twice, of which the library would keep the last.
///
/// # Errors
/// The name, and a text that is no header.
pub fn tensors(header: &[u8]) -> std::result::Result<(), InputError> {
    let listed: ObjectEntries<IgnoredAny> = json_text::from_slice(header, "a safetensors header")?;
    match listed.repeated() {
        Some(name) => Err(InputError::expected("each tensor once").key(name)),
        None => Ok(()),
    }
}

/// What a `tokenizer.json` says of words and ids.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Normalizer>,
    model: Model,
}

/// A token that is added to the vocabulary.
#[derive(Deserialize)]
pub struct Added {
    pub id: u64,
    pub content: String,
}

#[derive(Deserialize)]
struct Model {
    vocab: Option<Words>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    /// Words with their ids.
    Ids(ObjectEntries<u64>),
    /// Words with their scores; the place is the id.
    Scores(Vec<(String, IgnoredAny)>),
}

/// Checks a `tokenizer.json`. Returns the tokens that it adds.
///
/// # Errors
/// Those of [`check`] and of [`Normalizer::check`], and a text that is no `tokenizer.json`.
pub fn of_file(text: &[u8], path: &Path) -> Result<Vec<Added>> {
    let Said { added_tokens, normalizer, model } =
        json_text::from_slice(text, "a tokenizer.json").map_err(|error| error.key("tokenizer").file(path))?;
    normalizer.map_or(Ok(()), |normalizer| normalizer.check(path))?;
    let words: Vec<(&str, u64)> = match &model.vocab {
        None => Vec::new(),
        Some(Words::Ids(ids)) => ids.0.iter().map(|(word, id)| (word.as_str(), *id)).collect(),
        Some(Words::Scores(words)) => words.iter().map(|(word, _)| word.as_str()).zip(0..).collect(),
    };
    let added = added_tokens.iter().map(|added| (added.content.as_str(), added.id));
    check(words.into_iter().chain(added)).map_err(|error| error.file(path))?;
    Ok(added_tokens)
}
