//! Texts to measure with and to train on, as sequences of equal length.

use crate::error::{Error, InputError, Result};
use crate::rng::Stream;
use crate::weights::Tokenizer;
use std::path::Path;

/// Sequences of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// Tokens of a sequence.
    pub length: usize,
    /// The sequences, in the order of the files.
    pub sequences: Vec<Vec<u32>>,
}

/// Sequences that are computed together where nothing else is asked for.
const ROWS: usize = 4;

/// Bytes that are cut into tokens at once; a cut falls at the end of a line.
const PIECE: usize = 1 << 16;

/// Reads texts: `.jsonl` files by their key `text` and `.parquet` files by their column `text`, each line or row a text of its own; all other files
/// whole. A text is cut into sequences of `length` tokens; what is left at its end is left out.
///
/// # Errors
/// A file that cannot be read, a line or row without a text, and files without a whole sequence.
pub fn read_texts(paths: &[impl AsRef<Path>], tokenizer: &Tokenizer, length: usize) -> Result<Texts> {
    let mut sequences = Vec::new();
    for path in paths {
        for text in read_strings(path.as_ref())? {
            let tokens = cut(&text, tokenizer).map_err(|error| error.in_file(path.as_ref()))?;
            sequences.extend(tokens.chunks_exact(length).map(<[u32]>::to_vec));
        }
    }
    if sequences.is_empty() {
        let what = format!("texts with at least {length} tokens in one of them");
        return Err(InputError::expected(what).key("text").found("none").into());
    }
    Ok(Texts { length, sequences })
}

/// The texts of a file, as [`read_texts`] finds them.
///
/// # Errors
/// A file that cannot be read, and a line without a text.
pub fn read_strings(path: &Path) -> Result<Vec<String>> {
    let whole = || std::fs::read_to_string(path).map_err(Error::io(path, "read"));
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl") => lines(&whole()?, path),
        Some("parquet") => rows(path),
        _ => Ok(vec![whole()?]),
    }
}

impl Texts {
    /// Tokens in all.
    pub fn tokens(&self) -> usize {
        self.length * self.sequences.len()
    }

    /// So many sequences, spread evenly over all of them.
    #[must_use]
    pub fn some(&self, count: usize) -> Texts {
        let count = count.min(self.sequences.len());
        let at = |index: usize| self.sequences[index * self.sequences.len() / count].clone();
        Texts { length: self.length, sequences: (0..count).map(at).collect() }
    }

    /// The sequences in another order.
    #[must_use]
    pub fn mixed(mut self, seed: u64) -> Texts {
        let random = &mut Stream::new(seed, "order of texts");
        random.shuffle(&mut self.sequences);
        self
    }

    /// Batch number `index` of so many sequences, from the start again after the last.
    pub fn batch(&self, index: usize, rows: usize) -> Vec<&[u32]> {
        let at = |row: usize| &self.sequences[(index * rows + row) % self.sequences.len()][..];
        (0..rows).map(at).collect()
    }

    /// All sequences, in batches that are computed together.
    pub fn batches(&self) -> impl Iterator<Item = Vec<&[u32]>> {
        self.sequences.chunks(ROWS).map(|rows| rows.iter().map(Vec::as_slice).collect())
    }
}

fn cut(text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let most =
            (0..=PIECE.min(rest.len())).rev().find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
        let end = if most == rest.len() { most } else { rest[..most].rfind('\n').map_or(most, |at| at + 1) };
        tokens.extend(tokenizer.encode(&rest[..end])?);
        rest = &rest[end..];
    }
    Ok(tokens)
}

fn lines(text: &str, path: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Line {
        text: String,
    }
    let read = |(index, line): (usize, &str)| {
        serde_json::from_str::<Line>(line).map(|line| line.text).map_err(|_| {
            let wrong = InputError::expected("an object with a text under the key `text`").key("text");
            wrong.file(path).line(index as u64 + 1).into()
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(read).collect()
}

/// The texts of a Parquet file.
#[cfg(feature = "parquet")]
fn rows(path: &Path) -> Result<Vec<String>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let wrong = |what: String| InputError::expected(what).file(path);
    let unreadable = |error| wrong(format!("a Parquet file ({error})"));
    let file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
    let reader = SerializedFileReader::new(file).map_err(unreadable)?;
    let schema = reader.metadata().file_metadata().schema();
    let Some(column) = schema.get_fields().iter().find(|field| field.name() == "text") else {
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        return Err(wrong("a column `text`".into()).key("text").found(names.join(", ")).into());
    };
    // Of the other columns nothing is read.
    let alone =
        parquet::schema::types::Type::group_type_builder(schema.name()).with_fields(vec![column.clone()]);
    let alone = alone.build().map_err(unreadable)?;
    let mut texts = Vec::new();
    for (at, row) in reader.get_row_iter(Some(alone)).map_err(unreadable)?.enumerate() {
        let row = row.map_err(unreadable)?;
        match row.get_column_iter().next() {
            Some((_, Field::Str(text))) => texts.push(text.clone()),
            found => {
                let found = found.map_or("nothing".to_owned(), |(_, field)| field.to_string());
                let what = wrong("a text".into()).key(format!("text, row {}", at + 1));
                return Err(what.found(found).into());
            }
        }
    }
    Ok(texts)
}

#[cfg(not(feature = "parquet"))]
fn rows(path: &Path) -> Result<Vec<String>> {
    Err(InputError::expected("a program built with the feature parquet").file(path).into())
}
