//! What scenarios read, each file once, and what was in it: many scenarios of a study name the same few files.

use crate::cost::{Device, Limits};
use crate::error::{Error, Result};
use crate::hw::Hardware;
use crate::model::Model;
use crate::trace::{self, Trace};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Something that was read, and a hash of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Input {
    /// What it is: `hardware`, `model`, `trace`, `requests`.
    pub kind: String,
    /// The name or path under which it was asked for.
    pub name: String,
    /// First 16 hexadecimal digits of SHA-256: of the bytes of a trace or request file, as `sha256sum` prints it; of a profile or
    /// a model, which may be built in, as JSON.
    pub digest: String,
}

/// The kinds of inputs, in the order in which they are shown.
pub const KINDS: [&str; 4] = ["hardware", "model", "trace", "requests"];

/// Keeps what was read. Shared by threads: who asks for what another one reads waits for it.
#[derive(Debug, Default)]
pub struct Inputs {
    hardware: Kept<Hardware>,
    models: Kept<Model>,
    traces: Kept<Trace>,
    requests: Kept<()>,
    devices: Mutex<VecDeque<(Hardware, Limits, Device)>>,
}

/// Devices that are kept: as many as threads may use at a time, and a few more.
const MOST_DEVICES: usize = 16;

/// By name: what was read, with its digest.
type Kept<T> = Mutex<BTreeMap<String, (Arc<T>, String)>>;

impl Inputs {
    /// A profile by name or path.
    ///
    /// # Errors
    /// Those of [`Hardware::resolve`].
    pub fn hardware(&self, name: &str) -> Result<Arc<Hardware>> {
        keep(&self.hardware, name, || {
            let hardware = Hardware::resolve(name)?;
            let digest = digest_of_json(&hardware);
            Ok((hardware, digest))
        })
    }

    /// A model by name or path.
    ///
    /// # Errors
    /// Those of [`Model::resolve`].
    pub fn model(&self, name: &str) -> Result<Arc<Model>> {
        keep(&self.models, name, || {
            let model = Model::resolve(name)?;
            let digest = digest_of_json(&model);
            Ok((model, digest))
        })
    }

    /// A router trace.
    ///
    /// # Errors
    /// Those of [`trace::read`].
    pub fn trace(&self, path: &Path) -> Result<Arc<Trace>> {
        keep(&self.traces, &path.to_string_lossy(), || Ok((trace::read(path)?, digest_of_file(path)?)))
    }

    /// Notes that a request file is used.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn requests(&self, path: &Path) -> Result<()> {
        keep(&self.requests, &path.to_string_lossy(), || Ok(((), digest_of_file(path)?))).map(drop)
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
        if let Some(device) = find(&self.devices.lock().expect("no thread dies with it")) {
            return Ok(device);
        }
        let device = Device::new(hardware, limits)?;
        let mut devices = self.devices.lock().expect("no thread dies with it");
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
    pub fn read(&self) -> Vec<Input> {
        fn of<T>(kind: &str, kept: &Kept<T>) -> Vec<Input> {
            let kept = kept.lock().expect("no thread dies with it");
            let input = |(name, (_, digest)): (&String, &(Arc<T>, String))| Input {
                kind: kind.to_owned(),
                name: name.clone(),
                digest: digest.clone(),
            };
            kept.iter().map(input).collect()
        }
        let [hardware, models, traces, requests] = KINDS;
        [
            of(hardware, &self.hardware),
            of(models, &self.models),
            of(traces, &self.traces),
            of(requests, &self.requests),
        ]
        .concat()
    }
}

fn keep<T>(kept: &Kept<T>, name: &str, read: impl FnOnce() -> Result<(T, String)>) -> Result<Arc<T>> {
    let mut kept = kept.lock().expect("no thread dies with it");
    if let Some((value, _)) = kept.get(name) {
        return Ok(value.clone());
    }
    let (value, digest) = read()?;
    let value = Arc::new(value);
    kept.insert(name.to_owned(), (value.clone(), digest));
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
