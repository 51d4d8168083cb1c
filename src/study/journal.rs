//! A memory on disk: what was computed, by its settings. Lines are only ever added, each by one write, so that a program that dies
//! at any moment leaves at most one torn line at the end, which the next one cuts off.

use super::case::{Id, Ran};
use super::row::Row;
use super::{Shard, VERSION};
use crate::error::{Error, InputError, Result};
use crate::scenario::ReadInput;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How the files of a folder are named.
const PREFIX: &str = "shard-";
const SUFFIX: &str = ".jsonl";

/// The first line of a file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    journal: u32,
    version: String,
    study: String,
    title: String,
}

/// Any other line.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    id: String,
    /// Whether a row failed for a file that is missing or broken: the next sweep tries the case again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    inputs: Vec<ReadInput>,
    rows: Vec<Row>,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: usize,
    offset: u64,
    bytes: u64,
    /// Whether a later line of the same case is to be taken in place of this one.
    again: bool,
}

#[derive(Debug, Default)]
struct Known {
    places: HashMap<Id, Place>,
    /// Each input by kind and name: a file that changes meanwhile would make a table of two worlds.
    inputs: BTreeMap<(String, String), ReadInput>,
}

/// The journals of a study in some folders: all are read, one is written.
#[derive(Debug)]
pub struct Journal {
    known: Mutex<Known>,
    files: Vec<(PathBuf, Mutex<File>)>,
    /// Bytes of the file that is written, the first one; none where all are only read.
    end: Option<Mutex<u64>>,
}

impl Journal {
    /// Opens the journal of this shard in `folder`, which is made where it is not there, and reads those of other shards beside it.
    ///
    /// # Errors
    /// A folder or file that cannot be written to, one that another program writes to at the moment, and journals of another study.
    pub fn open(folder: &Path, digest: &str, title: &str, shard: Shard) -> Result<Journal> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "make"))?;
        let own = folder.join(format!("{PREFIX}{}-of-{}{SUFFIX}", shard.index, shard.count));
        let file = OpenOptions::new().read(true).append(true).create(true).open(&own);
        let mut file = file.map_err(Error::io(&own, "open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let expected = "a folder in which no other sweep of this shard is at work";
                return Err(InputError::expected(expected).file(&own).into());
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(&own, "lock")(error)),
        }
        let mut known = Known::default();
        let head = head(digest, title);
        let mut end = read(&own, &mut file, 0, digest, &mut known)?;
        file.set_len(end).map_err(Error::io(&own, "cut"))?;
        if end == 0 {
            write(&own, &mut file, &mut end, &head)?;
        }
        let mut files = vec![(own.clone(), Mutex::new(file))];
        for path in others(folder)?.into_iter().filter(|path| *path != own) {
            add(path, digest, &mut known, &mut files)?;
        }
        known.places.retain(|_, place| !place.again);
        Ok(Journal { known: Mutex::new(known), files, end: Some(Mutex::new(end)) })
    }

    /// Opens all journals in these folders, to read them.
    ///
    /// # Errors
    /// A folder without journals, one that cannot be read, and journals of another study.
    pub fn read_only(folders: &[PathBuf], digest: &str) -> Result<Journal> {
        let (mut known, mut files) = (Known::default(), Vec::new());
        for folder in folders {
            let paths = others(folder)?;
            if paths.is_empty() {
                let expected = format!("a folder that `radialsim sweep` wrote, with files {PREFIX}*{SUFFIX}");
                return Err(InputError::expected(expected).file(folder).into());
            }
            for path in paths {
                add(path, digest, &mut known, &mut files)?;
            }
        }
        Ok(Journal { known: Mutex::new(known), files, end: None })
    }

    /// How many cases it knows.
    pub fn count(&self) -> usize {
        self.known.lock().expect("no thread dies with it").places.len()
    }

    /// What was read for the cases that it knows.
    pub fn inputs(&self) -> Vec<ReadInput> {
        self.known.lock().expect("no thread dies with it").inputs.values().cloned().collect()
    }

    /// Whether it knows this case.
    pub fn knows(&self, id: &Id) -> bool {
        self.known.lock().expect("no thread dies with it").places.contains_key(id)
    }

    /// The rows and inputs of a case that it knows.
    ///
    /// # Errors
    /// A file that has changed.
    pub fn get(&self, id: &Id) -> Result<Option<(Vec<Row>, Vec<ReadInput>)>> {
        let place = self.known.lock().expect("no thread dies with it").places.get(id).copied();
        let Some(Place { file, offset, bytes, .. }) = place else { return Ok(None) };
        let (path, file) = &self.files[file];
        let mut text = vec![0; bytes as usize];
        {
            let mut file = file.lock().expect("no thread dies with it");
            file.seek(SeekFrom::Start(offset)).map_err(Error::io(path, "read"))?;
            file.read_exact(&mut text).map_err(Error::io(path, "read"))?;
        }
        let entry: Entry = serde_json::from_slice(&text)
            .map_err(|error| InputError::expected("the line that was there").found(error).file(path))?;
        Ok(Some((entry.rows, entry.inputs)))
    }

    /// Adds a case that ran. It is on its way to the disk when this returns: a program that is killed then has not lost it.
    ///
    /// # Errors
    /// A full disk, and an input that is not the one that earlier cases read under the same name.
    pub fn add(&self, id: &Id, Ran { rows, inputs, again }: &Ran) -> Result<()> {
        let end = self.end.as_ref().expect("only a journal that was opened to write is written");
        let entry = Entry { id: hex(id), again: *again, inputs: inputs.to_vec(), rows: rows.to_vec() };
        let (path, file) = &self.files[0];
        self.known.lock().expect("no thread dies with it").check(inputs, path)?;
        let mut end = end.lock().expect("no thread dies with it");
        let offset = *end;
        let mut file = file.lock().expect("no thread dies with it");
        write(path, &mut file, &mut end, &entry)?;
        let place = Place { file: 0, offset, bytes: *end - offset, again: false };
        self.known.lock().expect("no thread dies with it").places.insert(*id, place);
        Ok(())
    }
}

impl Known {
    fn check(&mut self, inputs: &[ReadInput], journal: &Path) -> Result<()> {
        for input in inputs {
            let key = (input.kind.clone(), input.name.clone());
            let was = self.inputs.entry(key).or_insert_with(|| input.clone());
            if was.digest != input.digest {
                return Err(was.is_not(&input.digest).file(journal).into());
            }
        }
        Ok(())
    }
}

fn head(digest: &str, title: &str) -> Head {
    Head { journal: 1, version: VERSION.into(), study: digest.into(), title: title.into() }
}

/// The journals in a folder, by name.
fn others(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let is_journal = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_journal).collect();
    paths.sort();
    Ok(paths)
}

/// Reads another journal; its torn end, where there is one, may be about to be written.
fn add(
    path: PathBuf,
    digest: &str,
    known: &mut Known,
    files: &mut Vec<(PathBuf, Mutex<File>)>,
) -> Result<()> {
    let mut file = File::open(&path).map_err(Error::io(&path, "open"))?;
    read(&path, &mut file, files.len(), digest, known)?;
    files.push((path, Mutex::new(file)));
    Ok(())
}

/// Notes the place of every whole line of a file. Returns how many bytes they have.
fn read(path: &Path, file: &mut File, index: usize, digest: &str, known: &mut Known) -> Result<u64> {
    file.seek(SeekFrom::Start(0)).map_err(Error::io(path, "read"))?;
    let (mut lines, mut line, mut offset) = (BufReader::with_capacity(1 << 18, file), Vec::new(), 0);
    loop {
        line.clear();
        let bytes = lines.read_until(b'\n', &mut line).map_err(Error::io(path, "read"))? as u64;
        if line.last() != Some(&b'\n') {
            return Ok(offset);
        }
        if offset == 0 {
            let Ok(found) = serde_json::from_slice::<Head>(&line) else {
                return not_ours(path, "another file");
            };
            if found.study != digest || found.version != VERSION {
                return not_ours(path, &format!("one by {} of the study {}", found.version, found.title));
            }
        } else {
            // A line that is no entry was never finished: what follows it was not either.
            let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { return Ok(offset) };
            let Some(id) = parse(&entry.id) else { return Ok(offset) };
            known.check(&entry.inputs, path)?;
            let place = Place { file: index, offset, bytes, again: entry.again };
            let known = known.places.entry(id).or_insert(place);
            if known.again {
                *known = place;
            }
        }
        offset += bytes;
    }
}

fn not_ours(path: &Path, found: &str) -> Result<u64> {
    let expected =
        "a journal of this study as it is now, by this program; use another folder, or delete the file";
    Err(InputError::expected(expected).found(found).file(path).into())
}

/// Adds one line; a part of it that got there before an error is cut off again.
fn write(path: &Path, file: &mut File, end: &mut u64, line: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec(line).expect("a line of texts and numbers is JSON");
    text.push(b'\n');
    if let Err(error) = file.write_all(&text) {
        // Where even this fails, the next program that opens the journal does it.
        let _ = file.set_len(*end);
        return Err(Error::io(path, "write")(error));
    }
    *end += text.len() as u64;
    Ok(())
}

fn hex(id: &Id) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

fn parse(text: &str) -> Option<Id> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes())
}
