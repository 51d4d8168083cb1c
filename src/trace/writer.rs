//! Writes a trace in either encoding. The file appears under its name only when it is complete.

use super::ids::Ranges;
use super::jsonl::{request_line, route_line, run_line};
use super::limits::{LINE_BYTES, REQUEST_TOKENS};
use super::rules::{Progress, Shape};
use super::{Header, Request, RouteTable, Trace, in_key};
use crate::error::{Error, InputError, Result};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a trace. The file ending picks the encoding, as for [`super::open`]. The same trace gives the same bytes.
///
/// # Errors
/// A trace that could not be read back, naming request and key, and a file that cannot be written.
pub fn write(path: impl AsRef<Path>, trace: &Trace) -> Result<()> {
    let mut writer = Writer::create(path, &trace.header)?;
    for request in &trace.requests {
        writer.request(request, &trace.routes)?;
    }
    writer.finish(&trace.routes)
}

/// Writes a trace request by request. Dropped before [`Writer::finish`], it leaves no file.
pub struct Writer {
    path: PathBuf,
    header: Header,
    temporary: tempfile::TempPath,
    sink: Sink,
    routes_written: u32,
    seen: Ranges,
}

enum Sink {
    Lines {
        out: Compressor,
        line: String,
    },
    #[cfg(feature = "parquet")]
    Rows(Box<super::parquet::RowWriter>),
}

impl Writer {
    /// Starts a trace that will be at `path`; until it is finished, a temporary file beside it takes the bytes.
    ///
    /// # Errors
    /// A header that could not be read back, and a folder that cannot be written to.
    pub fn create(path: impl AsRef<Path>, header: &Header) -> Result<Self> {
        let path = path.as_ref().to_owned();
        super::header::check(header).map_err(|error| error.in_file(&path))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".radialsim-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As for any new file; the system takes the user's mask off.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file =
            builder.tempfile_in(folder.unwrap_or(Path::new("."))).map_err(Error::io(&path, "write"))?;
        let (file, temporary) = file.into_parts();
        let sink = Sink::open(&path, file, header)?;
        Ok(Writer {
            path,
            header: header.clone(),
            temporary,
            sink,
            routes_written: 0,
            seen: Ranges::default(),
        })
    }

    /// Adds a request with its runs, and the routes up to the last one that it uses.
    ///
    /// # Errors
    /// A request that could not be read back, and a file that cannot be written.
    pub fn request(&mut self, request: &Request, routes: &RouteTable) -> Result<()> {
        self.request_with(request, routes, &[])
    }

    /// The same with the experts of its runs, as [`super::Reader::experts`] gives them: of each run, or of none.
    ///
    /// # Errors
    /// Those of [`Writer::request`], and experts in Parquet, which has no column for them.
    pub fn request_with(
        &mut self,
        request: &Request,
        routes: &RouteTable,
        experts: &[Option<Box<str>>],
    ) -> Result<()> {
        let checked = self.check(request, routes);
        let last = checked.map_err(|error| self.name(in_key(error, &format!("request {}", request.id))))?;
        self.routes_up_to(last, routes)?;
        match &mut self.sink {
            Sink::Lines { out, line } => {
                let mut put = || -> io::Result<()> {
                    writeln!(out, "{}", request_line(request))?;
                    for (index, run) in request.runs.iter().enumerate() {
                        run_line(request.id, run, line);
                        if let Some(experts) = experts.get(index).and_then(Option::as_ref) {
                            line.pop();
                            line.push_str(",\"experts\":");
                            line.push_str(experts);
                            line.push('}');
                        }
                        line.push('\n');
                        if line.len() > LINE_BYTES {
                            return Err(io::Error::other(format!(
                                "a run takes more than {LINE_BYTES} bytes"
                            )));
                        }
                        out.write_all(line.as_bytes())?;
                    }
                    Ok(())
                };
                put().map_err(Error::io(&self.path, "write"))
            }
            #[cfg(feature = "parquet")]
            Sink::Rows(_) if experts.iter().any(Option::is_some) => {
                let what = "JSON Lines, as the columns of Parquet have no experts";
                Err(InputError::expected(what)
                    .key("experts")
                    .found("experts of tokens")
                    .file(&self.path)
                    .into())
            }
            #[cfg(feature = "parquet")]
            Sink::Rows(rows) => {
                rows.request(request).map_err(io::Error::other).map_err(Error::io(&self.path, "write"))
            }
        }
    }

    /// Holds a request against the rules of reading; returns how many routes it needs.
    fn check(&mut self, request: &Request, routes: &RouteTable) -> Result<u32> {
        let bad =
            |key: &str, found: u64, what: &str| Err(InputError::expected(what).key(key).found(found).into());
        if !self.seen.insert(request.id) {
            return bad("id", request.id, "a request id that was not used before");
        }
        let (prompt, output) = (u64::from(request.prompt_tokens), u64::from(request.output_tokens));
        if prompt == 0 || output == 0 || prompt + output > REQUEST_TOKENS {
            return bad(
                "prompt_tokens",
                prompt,
                "at least one prompt and output token, together at most 2^31",
            );
        }
        let (mut progress, mut last) = (Progress::new(request), 0);
        for run in &request.runs {
            progress.run(&Shape::of(run))?;
            last = run.routes.counted().fold(last, |last, (route, _)| last.max(route.saturating_add(1)));
        }
        if last as usize > routes.len() {
            return bad("routes", (last - 1).into(), "an index of the route table");
        }
        progress.end(request)?;
        Ok(last)
    }

    fn routes_up_to(&mut self, last: u32, routes: &RouteTable) -> Result<()> {
        while self.routes_written < last {
            let route = routes.get(self.routes_written);
            let checked = route.check(&self.header);
            checked.map_err(|error| self.name(in_key(error, &format!("route {}", self.routes_written))))?;
            let line = route_line(self.routes_written, route);
            match &mut self.sink {
                Sink::Lines { out, .. } => writeln!(out, "{line}").map_err(Error::io(&self.path, "write"))?,
                #[cfg(feature = "parquet")]
                Sink::Rows(rows) => rows.route(&line),
            }
            self.routes_written += 1;
        }
        Ok(())
    }

    fn name(&self, error: Error) -> Error {
        error.in_file(&self.path)
    }

    /// Writes the routes that are left and gives the file its name. One that was there is replaced.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(mut self, routes: &RouteTable) -> Result<()> {
        self.routes_up_to(routes.len() as u32, routes)?;
        match self.sink {
            Sink::Lines { out, .. } => out.finish().map_err(Error::io(&self.path, "write"))?,
            #[cfg(feature = "parquet")]
            Sink::Rows(rows) => {
                rows.finish().map_err(io::Error::other).map_err(Error::io(&self.path, "write"))?;
            }
        }
        let named = self.temporary.persist(&self.path);
        named.map_err(|error| Error::io(&self.path, "write")(error.error))
    }
}

impl Sink {
    fn open(path: &Path, file: File, header: &Header) -> Result<Sink> {
        let ending = super::ending(path);
        if ending == "parquet" {
            #[cfg(feature = "parquet")]
            return super::parquet::RowWriter::new(file, header)
                .map(|rows| Sink::Rows(Box::new(rows)))
                .map_err(io::Error::other)
                .map_err(Error::io(path, "write"));
            #[cfg(not(feature = "parquet"))]
            return Err(super::no_parquet().in_file(path));
        }
        let start = || -> io::Result<Compressor> {
            let file = BufWriter::with_capacity(256 << 10, file);
            let mut out = match ending.as_str() {
                // The gzip header carries no name and no time, so that equal traces give equal bytes.
                "gz" => Compressor::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
                "zst" => {
                    let mut zstd = zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                    zstd.include_checksum(true)?;
                    Compressor::Zstd(zstd)
                }
                _ => Compressor::Plain(file),
            };
            writeln!(out, "{}", header.line())?;
            Ok(out)
        };
        let out = start().map_err(Error::io(path, "write"))?;
        Ok(Sink::Lines { out, line: String::new() })
    }
}

/// A file that takes plain bytes.
enum Compressor {
    Plain(BufWriter<File>),
    Gzip(flate2::write::GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Compressor {
    fn finish(self) -> io::Result<()> {
        let mut file = match self {
            Compressor::Plain(file) => file,
            Compressor::Gzip(gzip) => gzip.finish()?,
            Compressor::Zstd(zstd) => zstd.finish()?,
        };
        file.flush()
    }
}

impl Write for Compressor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::Plain(file) => file.write(bytes),
            Compressor::Gzip(gzip) => gzip.write(bytes),
            Compressor::Zstd(zstd) => zstd.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::Plain(file) => file.flush(),
            Compressor::Gzip(gzip) => gzip.flush(),
            Compressor::Zstd(zstd) => zstd.flush(),
        }
    }
}
