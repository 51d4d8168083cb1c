//! Opens a trace of either encoding.

use super::assemble::{Assembler, Numbered};
use super::jsonl::Lines;
use super::{Header, Request, RouteTable, Trace};
use crate::error::Result;
use std::path::{Path, PathBuf};

/// Reads a trace request by request. Memory grows with the routes and with the requests that are not complete.
///
/// A request comes out when all its tokens are there, so in the order of completion, not of arrival. Requests whose
/// tokens the trace does not name come last, in file order.
pub struct Reader {
    path: PathBuf,
    assembler: Assembler,
    source: Source,
    ended: bool,
    experts: Vec<Option<Box<str>>>,
}

enum Source {
    Lines(Lines),
    #[cfg(feature = "parquet")]
    Rows(Box<super::parquet::Rows>),
}

/// Opens a trace and reads its header. The file ending picks the encoding: `.parquet`, or JSON Lines, which `.gz` and
/// `.zst` say are compressed.
///
/// # Errors
/// A file that cannot be read, and one that does not start with a header.
pub fn open(path: impl AsRef<Path>) -> Result<Reader> {
    let path = path.as_ref();
    open_source(path).map_err(|error| error.in_file(path))
}

fn open_source(path: &Path) -> Result<Reader> {
    let (assembler, source) = if super::ending(path) == "parquet" {
        open_parquet(path)?
    } else {
        let mut lines = Lines::open(path)?;
        (Assembler::new(lines.header()?), Source::Lines(lines))
    };
    Ok(Reader { path: path.to_owned(), assembler, source, ended: false, experts: Vec::new() })
}

#[cfg(feature = "parquet")]
fn open_parquet(path: &Path) -> Result<(Assembler, Source)> {
    let (assembler, rows) = super::parquet::Rows::open(path)?;
    Ok((assembler, Source::Rows(Box::new(rows))))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(_: &Path) -> Result<(Assembler, Source)> {
    Err(super::no_parquet())
}

/// Reads a whole trace into memory.
///
/// # Errors
/// A file that cannot be read, and the first mistake in it.
pub fn read(path: impl AsRef<Path>) -> Result<Trace> {
    let mut reader = open(path)?;
    let mut requests = Vec::new();
    while let Some(request) = reader.next_numbered()? {
        requests.push(request);
    }
    requests.sort_by_key(|numbered| (numbered.request.arrival, numbered.number));
    let requests = requests.into_iter().map(|numbered| numbered.request).collect();
    let Assembler { header, routes, .. } = reader.assembler;
    Ok(Trace { header, routes, requests })
}

/// How often the tokens of a trace took each expert of each layer: a list of layers, empty where no run says.
///
/// # Errors
/// A file that cannot be read, and the first mistake in it.
pub fn expert_counts(path: impl AsRef<Path>) -> Result<Vec<Vec<u64>>> {
    let mut reader = open(path)?;
    while reader.next_numbered()?.is_some() {}
    Ok(reader.assembler.experts)
}

impl Reader {
    /// Same as [`open`].
    ///
    /// # Errors
    /// A file that cannot be read, and one that does not start with a header.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader> {
        open(path)
    }

    /// What produced the trace.
    pub fn header(&self) -> &Header {
        &self.assembler.header
    }

    /// The routes defined so far, one entry for each definition; those of every request that came out are among them.
    pub fn routes(&self) -> &RouteTable {
        &self.assembler.routes
    }

    /// Keeps the experts of runs beside the requests that come, for who writes them again ([`super::Writer::request_with`]).
    pub fn keep_experts(&mut self) {
        self.assembler.keeps_experts = true;
    }

    /// The experts of each run of the request that came last, as JSON; empty unless they are kept.
    pub fn experts(&self) -> &[Option<Box<str>>] {
        &self.experts
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next request, with its place in the file.
    pub(crate) fn next_numbered(&mut self) -> Result<Option<Numbered>> {
        loop {
            if let Some(numbered) = self.assembler.pop() {
                return Ok(Some(numbered));
            }
            if self.ended {
                return Ok(None);
            }
            if let Err(error) = self.step() {
                self.ended = true;
                return Err(error.in_file(&self.path));
            }
        }
    }

    /// Reads on by one line or one batch of rows.
    fn step(&mut self) -> Result<()> {
        let more = match &mut self.source {
            Source::Lines(lines) => lines.step(&mut self.assembler)?,
            #[cfg(feature = "parquet")]
            Source::Rows(rows) => rows.step(&mut self.assembler)?,
        };
        if !more {
            self.ended = true;
            self.assembler.end()?;
        }
        Ok(())
    }
}

/// The complete requests. Nothing follows an error.
impl Iterator for Reader {
    type Item = Result<Request>;

    fn next(&mut self) -> Option<Result<Request>> {
        let numbered = self.next_numbered().transpose()?;
        Some(numbered.map(|numbered| {
            self.experts = numbered.experts;
            numbered.request
        }))
    }
}
