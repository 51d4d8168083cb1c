//! Files that appear under their names only when they are complete.

use crate::error::{Error, InputError, Result};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file to be. Its bytes go to a temporary file beside it, which takes the name at the end.
///
/// Dropped before [`Staged::finish`], it leaves nothing, and a file that was there stays as it was. What is there and is
/// no plain file (`/dev/stdout`, a pipe) is written to directly: a new file in its place would destroy it.
pub struct Staged {
    path: PathBuf,
    sink: Sink,
}

enum Sink {
    /// A plain file with its temporary name: what the system says of it then names no other.
    Beside(BufWriter<std::fs::File>, tempfile::TempPath),
    Direct(BufWriter<std::fs::File>),
}

impl Staged {
    /// Makes ready to write `path`; a link is followed.
    ///
    /// # Errors
    /// A folder that is not there or cannot be written to, and a path that is a folder.
    pub fn create(path: impl AsRef<Path>) -> Result<Staged> {
        let path = path.as_ref().canonicalize().unwrap_or_else(|_| path.as_ref().to_owned());
        let sink = Self::sink(&path).map_err(Error::io(&path, "write"))?;
        Ok(Staged { path, sink })
    }

    fn sink(path: &Path) -> io::Result<Sink> {
        match path.metadata() {
            Ok(is) if is.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            Ok(is) if !is.is_file() => {
                Ok(Sink::Direct(BufWriter::new(std::fs::OpenOptions::new().write(true).open(path)?)))
            }
            _ => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let mut builder = tempfile::Builder::new();
                builder.prefix(".radialsim-").suffix(".part");
                #[cfg(unix)]
                {
                    use std::os::unix::fs::PermissionsExt;
                    // As for any new file; the system takes the user's mask off.
                    builder.permissions(std::fs::Permissions::from_mode(0o666));
                }
                let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")));
                // Without the name of the temporary file, which is of no use and another one each time.
                let (file, temporary) = file.map_err(|error| io::Error::from(error.kind()))?.into_parts();
                Ok(Sink::Beside(BufWriter::with_capacity(256 << 10, file), temporary))
            }
        }
    }

    /// Writes the file with `write` and gives it its name.
    ///
    /// # Errors
    /// Whatever the system refuses; nothing is then under the name that was not there before.
    pub fn finish(self, write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>) -> Result<()> {
        let Staged { path, sink } = self;
        let finish = || match sink {
            Sink::Direct(mut out) => {
                write(&mut out)?;
                out.flush()
            }
            Sink::Beside(mut out, temporary) => {
                write(&mut out)?;
                drop(out.into_inner().map_err(io::IntoInnerError::into_error)?);
                temporary.persist(&path).map_err(|error| error.error)
            }
        };
        finish().map_err(Error::io(&path, "write"))
    }

    /// The same for a writer that may fail for reasons of its own: its error is the one that is said.
    ///
    /// # Errors
    /// Those of `write`, and of [`Staged::finish`].
    pub fn finish_with(self, write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>) -> Result<()> {
        let mut failed = None;
        let done = self.finish(|out| {
            write(out).map_err(|error| {
                failed = Some(error);
                io::Error::other("what was to be written is not there")
            })
        });
        failed.map_or(done, Err)
    }

    /// Refuses a path under which there is something that a new file must not replace: for writers that name their file
    /// themselves.
    ///
    /// # Errors
    /// A path that is a folder, a device or a pipe.
    pub fn check(path: &Path) -> Result<()> {
        match path.metadata() {
            Ok(is) if !is.is_file() => {
                let error = InputError::expected("the name of a new file, or of a file to replace");
                Err(error.found("a folder, a device or a pipe").file(path).into())
            }
            _ => Ok(()),
        }
    }
}
