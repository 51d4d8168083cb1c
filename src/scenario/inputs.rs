//! What scenarios read, each file once, and what was in it: many scenarios of a study name the same few files.

use crate::cost::{Device, Limits};
use crate::error::{Error, InputError, Result};
use crate::hw::{Fabric, Hardware};
use crate::model::Model;
use crate::trace::{self, Trace};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Something that was read, and a hash of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReadInput {
    /// What it is: `hardware`, `model`, `trace`, `requests`, `fabric`.
    pub kind: String,
    /// The name under which it was asked for: a path from the scenario's folder, or a built-in name.
    pub name: String,
    /// First 16 hexadecimal digits of SHA-256: of the bytes of a trace or request file, as `sha256sum` prints it; of a profile or
    /// a model, which may be built in, as JSON.
    pub digest: String,
}

/// The kinds of inputs, in the order in which they are shown.
pub const KINDS: [&str; 5] = ["hardware", "model", "trace", "requests", "fabric"];

/// Keeps what was read. Shared by threads: who asks for what another one reads waits for it.
#[derive(Debug, Default)]
pub struct Inputs {
    hardware: Kept<Hardware>,
    models: Kept<Model>,
    traces: Kept<Trace>,
    requests: Kept<()>,
    fabrics: Kept<Fabric>,
    devices: Mutex<VecDeque<(Hardware, Limits, Device)>>,
}

/// Devices that are kept: as many as threads may use at a time, and a few more.
const MOST_DEVICES: usize = 16;

/// By path or built-in name.
type Kept<T> = Mutex<BTreeMap<PathBuf, One<T>>>;

/// What was read, the name under which it was asked for, and its digest, once somebody asked for that.
#[derive(Debug)]
struct One<T> {
    value: Arc<T>,
    name: String,
    digest: OnceLock<String>,
}

/// A path from this folder where there is something, or else a built-in name.
fn found(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    if path.exists() { path } else { PathBuf::from(name) }
}

impl Inputs {
    /// A profile by name, or by its path from a folder.
    ///
    /// # Errors
    /// Those of [`Hardware::resolve`].
    pub fn hardware(&self, folder: &Path, name: &str) -> Result<Arc<Hardware>> {
        keep(&self.hardware, &found(folder, name), name, |path| {
            Ok((Hardware::resolve(&path.to_string_lossy())?, None))
        })
    }

    /// A model by name, or by its path from a folder.
    ///
    /// # Errors
    /// Those of [`Model::resolve`].
    pub fn model(&self, folder: &Path, name: &str) -> Result<Arc<Model>> {
        keep(&self.models, &found(folder, name), name, |path| {
            Ok((Model::resolve(&path.to_string_lossy())?, None))
        })
    }

    /// A router trace by its path from a folder.
    ///
    /// # Errors
    /// Those of [`trace::read`].
    pub fn trace(&self, folder: &Path, name: &Path) -> Result<Arc<Trace>> {
        let shown = name.to_string_lossy();
        keep(&self.traces, &folder.join(name), &shown, |path| {
            Ok((trace::read(path)?, Some(digest_of_file(path)?)))
        })
    }

    /// Notes that a request file is used.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn requests(&self, folder: &Path, name: &Path) -> Result<()> {
        let shown = name.to_string_lossy();
        keep(&self.requests, &folder.join(name), &shown, |path| Ok(((), Some(digest_of_file(path)?))))
            .map(drop)
    }

    /// A fabric by name, or by its path from a folder; several joined by `+` are names.
    ///
    /// # Errors
    /// Those of [`Fabric::resolve`].
    pub fn fabric(&self, folder: &Path, name: &str) -> Result<Arc<Fabric>> {
        keep(&self.fabrics, &found(folder, name), name, |path| {
            Ok((Fabric::resolve(&path.to_string_lossy())?, None))
        })
    }

    /// Refuses inputs that are not what they were.
    ///
    /// # Errors
    /// One with another digest than it had, or that cannot be read any more.
    pub fn check(&self, folder: &Path, known: &[ReadInput]) -> Result<()> {
        for ReadInput { kind, name, .. } in known {
            match kind.as_str() {
                "hardware" => drop(self.hardware(folder, name)?),
                "model" => drop(self.model(folder, name)?),
                "trace" => drop(self.trace(folder, Path::new(name))?),
                "fabric" => drop(self.fabric(folder, name)?),
                _ => self.requests(folder, Path::new(name))?,
            }
        }
        let now = self.read();
        let other = |was: &&ReadInput| now.iter().find(|is| (&is.kind, &is.name) == (&was.kind, &was.name));
        match known
            .iter()
            .find_map(|was| Some((was, other(&was)?)).filter(|(was, is)| was.digest != is.digest))
        {
            Some((was, is)) => Err(was.is_not(&is.digest).into()),
            None => Ok(()),
        }
    }

    /// The device of a checked profile under limits. One that was made of equal ones before is given again, with all that it has worked out
    /// about shapes.
    ///
    /// # Errors
    /// Those of [`Device::new`].
    pub fn device(&self, hardware: &Hardware, limits: Limits) -> Result<Device> {
        let find = |devices: &VecDeque<(Hardware, Limits, Device)>| {
            let known = devices.iter().find(|known| known.1 == limits && known.0 == *hardware);
            known.map(|(_, _, device)| device.clone())
        };
        if let Some(device) = find(&unpoisoned(&self.devices)) {
            return Ok(device);
        }
        let device = Device::new(hardware, limits)?;
        let mut devices = unpoisoned(&self.devices);
        if let Some(device) = find(&devices) {
            return Ok(device);
        }
        if devices.len() == MOST_DEVICES {
            devices.pop_front();
        }
        devices.push_back((hardware.clone(), limits, device.clone()));
        Ok(device)
    }

    /// Everything that was read, by kind and name.
    pub fn read(&self) -> Vec<ReadInput> {
        fn of<T>(kind: &str, kept: &Kept<T>, digest: impl Fn(&T) -> String) -> Vec<ReadInput> {
            let kept = unpoisoned(kept);
            let input = |one: &One<T>| ReadInput {
                kind: kind.to_owned(),
                name: one.name.clone(),
                digest: one.digest.get_or_init(|| digest(&one.value)).clone(),
            };
            kept.values().map(input).collect()
        }
        let [hardware, models, traces, requests, fabrics] = KINDS;
        [
            of(hardware, &self.hardware, digest_of_json),
            of(models, &self.models, digest_of_json),
            of(traces, &self.traces, |_| unreachable!("files have a digest when they are read")),
            of(requests, &self.requests, |_| unreachable!("files have a digest when they are read")),
            of(fabrics, &self.fabrics, digest_of_json),
        ]
        .concat()
    }
}

impl ReadInput {
    /// What to say of it where it has another digest now.
    pub fn is_not(&self, digest: &str) -> InputError {
        let ReadInput { kind, name, digest: was } = self;
        let expected = format!(
            "the {kind} that earlier points of this study read, with digest {was}; put it back, or use another folder"
        );
        InputError::expected(expected).key(name).found(format!("digest {digest}"))
    }
}

/// What is behind a lock. A thread that died with it was reading a file, and had put nothing in yet.
fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep<T>(
    kept: &Kept<T>,
    path: &Path,
    name: &str,
    read: impl FnOnce(&Path) -> Result<(T, Option<String>)>,
) -> Result<Arc<T>> {
    let mut kept = unpoisoned(kept);
    if let Some(one) = kept.get(path) {
        return Ok(one.value.clone());
    }
    let (value, digest) = read(path)?;
    let value = Arc::new(value);
    let digest = digest.map_or_else(OnceLock::new, OnceLock::from);
    kept.insert(path.to_owned(), One { value: value.clone(), name: name.to_owned(), digest });
    Ok(value)
}

/// Of a value as JSON.
fn digest_of_json(value: &impl Serialize) -> String {
    digest(&serde_json::to_vec(value).expect("inputs serialise"))
}

/// The first 16 hexadecimal digits of SHA-256.
pub fn digest(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn hex(hash: &[u8]) -> String {
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn digest_of_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(Error::io(path, "read"))? {
            0 => return Ok(hex(hash.finalize().as_slice())),
            count => hash.update(&buffer[..count]),
        }
    }
}
