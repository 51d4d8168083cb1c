//! A trained network as a folder: a model whose `config.json` has a section `radial`, and beside it `router.safetensors`.

use super::Model;
use super::describe::{grouped, size};
use super::routed::{Described, RadialDescription, SkipDescription, SkipKv, TableDescription, Visibility};
use crate::error::{Error, InputError, Result};
use crate::json_text;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of the header of a router's file: it names four tensors and has a description with two flags for each layer.
const MOST_HEADER: u64 = 4 << 20;

/// What a folder says of its router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// What is decided, and how.
    pub described: Described,
    /// Width of the router's hidden layer; 0 for a table of routes.
    pub hidden: u32,
    /// Its weights, or the entries of the table.
    pub parameters: u64,
}

impl Network {
    /// The name of the router's file in the folder.
    pub const FILE: &'static str = "router.safetensors";

    /// What `config.json` says under `radial`; `None` where it has no such key. `path`: the file, or its folder.
    ///
    /// # Errors
    /// A file that cannot be read, and a section that says what cannot be.
    pub fn section(path: &Path) -> Result<Option<Described>> {
        let file = config(path);
        let text = std::fs::read(&file).map_err(Error::io(&file, "read"))?;
        let keys: Value = json_text::from_slice(&text, "a JSON object").map_err(|error| error.file(&file))?;
        let described = keys.get("radial").filter(|section| !section.is_null()).map(Described::of);
        described.transpose().map_err(|error| under("radial", error).file(&file).into())
    }

    /// The network in a folder, or with this `config.json`; `None` where it has no router, or where there is no such path: a built-in
    /// model has none.
    ///
    /// # Errors
    /// Those of [`Network::section`], and a router's file that is absent or says something else.
    pub fn of(path: &Path) -> Result<Option<Network>> {
        if !path.exists() {
            return Ok(None);
        }
        let Some(described) = Network::section(path)? else { return Ok(None) };
        let file = config(path).with_file_name(Network::FILE);
        let header = header(&file)?;
        let wrong = |key: &str, what: &str| Error::from(InputError::expected(what).key(key).file(&file));
        let text = header.pointer("/__metadata__/radial").and_then(Value::as_str);
        let text = text.ok_or_else(|| wrong("__metadata__.radial", "a description"))?;
        let own = Described::parse(text);
        let own = own.map_err(|error| under("__metadata__.radial", error).file(&file))?;
        agree(&described, &own, &file)?;
        let sizes = |name: &str| -> Result<Vec<u64>> {
            let shape = header.get(name).and_then(|tensor| tensor.get("shape")).and_then(Value::as_array);
            let sizes = shape.and_then(|shape| shape.iter().map(Value::as_u64).collect());
            sizes.ok_or_else(|| wrong(name, "a tensor of this name"))
        };
        let mut parameters = 0u64;
        let names: &[&str] = match &described {
            Described::Table(_) => &["layers"],
            Described::Radial(_) if header.get("words").is_some() => {
                &["first", "vectors", "second", "biases", "words"]
            }
            _ => &["first", "vectors", "second", "biases"],
        };
        for &name in names {
            let count = sizes(name)?.iter().try_fold(1u64, |count, &size| count.checked_mul(size));
            let sum = count.and_then(|count| parameters.checked_add(count));
            parameters = sum.ok_or_else(|| wrong(name, "shapes below 2^64"))?;
        }
        if matches!(described, Described::Table(_)) {
            return Ok(Some(Network { described, hidden: 0, parameters }));
        }
        let hidden = sizes("first")?.first().and_then(|&hidden| u32::try_from(hidden).ok());
        let hidden = hidden.ok_or_else(|| wrong("first", "shapes below 2^32"))?;
        Ok(Some(Network { described, hidden, parameters }))
    }

    /// The lines that [`Model::describe`] does not have.
    pub fn describe(&self, model: &Model) -> String {
        let (count, size) = (grouped(self.parameters), size(self.parameters * 4));
        let name = crate::error::shorten(self.described.model());
        let router = match &self.described {
            Described::Table(_) => format!("a table of {count} layers, {size}, made for {name}; "),
            _ => format!("MLP of {}, {count} weights, {size}, trained for {name}; ", self.hidden),
        };
        let lines = match &self.described {
            Described::Skip(skip) => skip_words(skip),
            Described::Radial(radial) => radial_words(radial, model),
            Described::Table(table) => table_words(table, model),
        };
        let line = |(name, words): (&str, String)| {
            let before = if name == "router" { router.as_str() } else { "" };
            format!("{name:<14} {before}{words}\n")
        };
        lines.into_iter().map(line).collect()
    }
}

fn skip_words(skip: &SkipDescription) -> Vec<(&'static str, String)> {
    let decided = skip.candidates.iter().filter(|branches| **branches != [false; 2]).count();
    let of = |branch: usize| skip.candidates.iter().filter(|branches| branches[branch]).count();
    let kv = match skip.kv {
        SkipKv::ProjectOnly => "a token that leaves attention out leaves its key and value all the same",
        SkipKv::None => "a token that leaves attention out leaves nothing",
    };
    let network =
        format!("tokens leave out branches: attention in {} layers, feed-forward in {}", of(0), of(1));
    vec![
        ("network", network),
        ("router", format!("it decides before each of {decided} layers")),
        ("KV cache", kv.into()),
    ]
}

fn radial_words(radial: &RadialDescription, model: &Model) -> Vec<(&'static str, String)> {
    let RadialDescription { hops, least_hops, weighted, visible, .. } = radial;
    let exit = match least_hops {
        0 => "may leave at once".to_owned(),
        least if least == hops => "leaves after all of them".to_owned(),
        least => format!("may leave after {least}"),
    };
    let network = format!(
        "each token takes up to {hops} hops over a pool of {} layers, in any order and with reuse, and {exit}",
        model.layers
    );
    let added = if *weighted { "times the probability of its choice" } else { "as they are" };
    vec![
        ("network", network),
        ("router", format!("it decides at each hop; branches are added {added}")),
        ("KV cache", unified_words(*hops, *visible, model)),
    ]
}

fn table_words(table: &TableDescription, model: &Model) -> Vec<(&'static str, String)> {
    let TableDescription { hops, visible, .. } = table;
    let network = format!("each token takes {hops} hops over a pool of {} layers, by its word", model.layers);
    vec![
        ("network", network),
        ("router", "nothing is decided when it runs".into()),
        ("KV cache", unified_words(*hops, *visible, model)),
    ]
}

fn unified_words(hops: u32, visible: Visibility, model: &Model) -> String {
    let visible = match visible {
        Visibility::OnePerToken => "one entry of each earlier token, that of the same hop or its last",
        Visibility::AllEntries => "all entries of earlier tokens",
        Visibility::SameLayer => "the entries that were left at its layer",
    };
    let entry = model.kv_entry_bytes();
    format!(
        "one for all layers: a hop leaves {}, a token up to {}, and sees {visible}",
        size(entry),
        size(entry * u64::from(hops))
    )
}

/// What a folder and the router in it say is the same.
///
/// # Errors
/// A difference, with the file of the router.
pub(crate) fn agree(config: &Described, own: &Described, file: &Path) -> Result<()> {
    if config == own {
        return Ok(());
    }
    let what = format!("what config.json says under `radial`: {}", config.json());
    Err(InputError::expected(what).key("__metadata__.radial").found(own.json()).file(file).into())
}

/// Names the key inside a description by where the description stands.
pub(crate) fn under(place: &str, error: InputError) -> InputError {
    let key = error.key.iter().fold(place.to_owned(), |place, key| place + "." + key);
    error.key(key)
}

/// The `config.json` of a folder, or the file itself.
fn config(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("config.json") } else { path.to_owned() }
}

/// The header of a safetensors file.
fn header(file: &Path) -> Result<Value> {
    let mut reader = File::open(file).map_err(Error::io(file, "read"))?;
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(Error::io(file, "read"))?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER {
        let what = format!("a safetensors header of at most {MOST_HEADER} bytes");
        return Err(InputError::expected(what).key("header").found(length).file(file).into());
    }
    let mut text = Vec::new();
    reader.take(length).read_to_end(&mut text).map_err(Error::io(file, "read"))?;
    json_text::from_slice(&text, "a safetensors header").map_err(|error| error.file(file).into())
}
