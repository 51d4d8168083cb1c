//! What is wrong with an input, and where. The library never prints and never exits; `cli` maps these to exit codes.

use std::fmt;
use std::path::{Path, PathBuf};

mod guard;
pub(crate) use guard::guarded;

/// Result of everything that reads an input.
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which a run can end without a result.
#[derive(Debug)]
pub enum Error {
    /// An input says something that cannot be; nothing was simulated. Exit code 2.
    Input(Box<InputError>),
    /// The operating system refused a file. Exit code 2.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: `read`, `write`.
        doing: &'static str,
        /// The system's own words.
        cause: std::io::Error,
    },
    /// A gate that the user stated was not met. Exit code 1.
    Gate(String),
    /// The command needs a GPU and none was found. Exit code 3.
    NoGpu(String),
    /// A GPU was there and failed: it was lost, ran out of memory, or refused a command. Exit code 3.
    Gpu(String),
}

/// Most characters of what was expected: a list of all names that a key can have is not cut.
const MOST_EXPECTED: usize = 4000;

/// One mistake in one input: file, line, key, what was found and what was expected. Unknown parts stay out of the text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct InputError {
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// Line in the file, from 1.
    pub line: Option<u64>,
    /// The key, as a path: `variants[2].policy`.
    pub key: Option<String>,
    /// The value that was found, as written, shortened.
    pub found: Option<String>,
    /// What would have been right.
    pub expected: String,
}

impl InputError {
    /// A mistake of which so far only the remedy is known.
    pub fn expected(expected: impl Into<String>) -> Self {
        InputError { expected: expected.into(), ..Default::default() }
    }

    /// Names the key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Shows the value that was found; long or unprintable ones are shortened and escaped.
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.found = Some(shorten(&found.to_string()));
        self
    }

    /// Names the line, from 1.
    pub fn line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Names the file.
    pub fn file(mut self, file: impl AsRef<Path>) -> Self {
        self.file = Some(file.as_ref().to_owned());
        self
    }
}

/// At most 80 characters of `text` on one line; control characters, bidirectional marks and what is no character escaped.
pub fn shorten(text: &str) -> String {
    one_line(text, 80)
}

/// At most `most` characters of `text`, escaped as for [`shorten`].
fn one_line(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == most {
            out.push_str(" ...");
            break;
        }
        let is_none = u32::from(c) & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c);
        let hidden = c.is_control()
            || is_none
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if hidden { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", shorten(&file.display().to_string()))?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        } else if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{}: ", shorten(key))?;
        }
        if let Some(found) = &self.found {
            write!(f, "found {found}, ")?;
        }
        // It may quote names of the input, such as those among which one was to be.
        write!(f, "expected {}", one_line(&self.expected, MOST_EXPECTED))
    }
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/=:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// `: did you mean X?`, where X is the nearest of the known words to the one that was found; empty where none is near.
///
/// Near is a Jaro-Winkler similarity of 0.75, which takes a few wrong letters and what is written in short (`max_seqs`), and
/// leaves words out that share no beginning and few letters.
pub fn hint<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    const NEAR: f64 = 0.75;
    let plain = |word: &str| word.chars().take(100).collect::<String>().to_lowercase();
    let found = plain(found);
    let near = known.into_iter().map(|word| (strsim::jaro_winkler(&found, &plain(word)), word));
    // Of equals the first.
    let nearest = near.filter(|(near, _)| *near >= NEAR).fold(None::<(f64, &str)>, |best, next| match best {
        Some(best) if best.0 >= next.0 => Some(best),
        _ => Some(next),
    });
    nearest.map_or(String::new(), |(_, word)| format!(": did you mean {word}?"))
}

/// An input error unless `holds`.
pub(crate) fn demand(holds: bool, key: &str, found: impl fmt::Display, expected: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(InputError::expected(expected).key(key).found(found).into()) }
}

impl From<InputError> for Error {
    fn from(error: InputError) -> Error {
        Error::Input(Box::new(error))
    }
}

impl Error {
    /// For `map_err` on file operations.
    pub fn io(path: impl AsRef<Path>, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |cause| Error::Io { path, doing, cause }
    }

    /// Adds the file to an input error that does not name one yet.
    pub fn in_file(self, file: impl AsRef<Path>) -> Error {
        match self {
            Error::Input(mut input) => {
                input.file.get_or_insert_with(|| file.as_ref().to_owned());
                Error::Input(input)
            }
            other => other,
        }
    }

    /// The exit code of the design's table: 1 a gate failed, 2 bad input, 3 no GPU.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Gate(_) => 1,
            Error::Input(_) | Error::Io { .. } => 2,
            Error::NoGpu(_) | Error::Gpu(_) => 3,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Input(input) => input.fmt(f),
            Error::Io { path, doing, cause } => {
                write!(f, "{}: cannot {doing}: {cause}", shorten(&path.display().to_string()))
            }
            Error::Gate(what) => write!(f, "gate not met: {what}"),
            Error::NoGpu(what) => write!(f, "no GPU: {what}"),
            Error::Gpu(what) => write!(f, "GPU: {what}"),
        }
    }
}

impl std::error::Error for Error {}
