//! What a trained network says of its router: the section `radial` of its `config.json`, and the same JSON in the router's own file.

use crate::error::InputError;
use crate::json_text::{self, ObjectEntries};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a router's description says, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Described {
    /// Before each layer, which of its branches a token takes.
    Skip(SkipDescription),
    /// At each hop, which layer a token visits next.
    Radial(RadialDescription),
    /// Which layers a token visits, by its word.
    Table(TableDescription),
}

/// What a skip router says beside its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipDescription {
    /// Always `skip`.
    pub kind: String,
    /// The model that it was trained for.
    pub model: String,
    /// What a token that leaves attention out leaves in the KV cache.
    pub kv: SkipKv,
    /// For each layer whether attention and whether the feed-forward branch may be left out; where neither may, nothing is decided.
    pub candidates: Vec<[bool; 2]>,
}

/// What a token that leaves attention out leaves in the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipKv {
    /// Its key and value all the same.
    #[default]
    ProjectOnly,
    /// Nothing.
    None,
}

/// What a radial router says beside its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RadialDescription {
    /// Always `radial`.
    pub kind: String,
    /// The model that it was trained for.
    pub model: String,
    /// Most layers that a token visits, 1 to [`RadialDescription::MOST_HOPS`].
    pub hops: u32,
    /// Layers that a token visits before it may leave, at most `hops`.
    pub least_hops: u32,
    /// Whether what a block adds is multiplied with the probability that the router gave the block.
    pub weighted: bool,
    /// What a visit leaves in the KV cache.
    pub kv: RadialKv,
    /// What a visit sees of it.
    pub visible: Visibility,
}

/// What a table of routes says beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableDescription {
    /// Always `table`.
    pub kind: String,
    /// The model that it was made for.
    pub model: String,
    /// Layers that each token visits, 1 to [`RadialDescription::MOST_HOPS`].
    pub hops: u32,
    /// What a visit leaves in the KV cache.
    pub kv: RadialKv,
    /// What a visit sees of it.
    pub visible: Visibility,
}

/// What a visit leaves in the KV cache of a radial network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RadialKv {
    /// One entry of a cache that all layers share.
    #[default]
    Unified,
}

/// Which entries attention sees in a unified cache; other caches are `same_layer` by nature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Entries appended at this layer.
    #[default]
    SameLayer,
    /// One entry of each token: the one that it left at the same hop, or its last where it left before. Hops that leave no entry are not
    /// counted, and tokens that left none are not seen.
    OnePerToken,
    /// All entries of all layers.
    AllEntries,
}

impl Visibility {
    /// All of them.
    pub const ALL: [Visibility; 3] = [Visibility::SameLayer, Visibility::OnePerToken, Visibility::AllEntries];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Visibility> {
        Visibility::ALL.into_iter().find(|visibility| visibility.name() == name)
    }

    /// Its name in scenarios and options.
    pub fn name(self) -> &'static str {
        match self {
            Visibility::SameLayer => "same_layer",
            Visibility::OnePerToken => "one_per_token",
            Visibility::AllEntries => "all_entries",
        }
    }
}

impl RadialDescription {
    /// Most hops of a token: every hop of a prompt's tokens has its own room in the KV cache.
    pub const MOST_HOPS: u32 = 1024;

    /// Bounds of its numbers.
    fn check(&self) -> Result<(), InputError> {
        check_hops(self.hops)?;
        if self.least_hops > self.hops {
            let what = format!("at most hops, which is {}", self.hops);
            return Err(InputError::expected(what).key("least_hops").found(self.least_hops));
        }
        Ok(())
    }
}

fn check_hops(hops: u32) -> Result<(), InputError> {
    if (1..=RadialDescription::MOST_HOPS).contains(&hops) {
        return Ok(());
    }
    let what = format!("1 to {}", RadialDescription::MOST_HOPS);
    Err(InputError::expected(what).key("hops").found(hops))
}

impl Described {
    /// Reads one from JSON.
    ///
    /// # Errors
    /// Another kind, keys that are missing or unknown, and numbers out of their bounds. The key is named as it is inside the description.
    pub fn of(value: &Value) -> Result<Described, InputError> {
        let kind = value.get("kind").and_then(Value::as_str);
        let no = |keys: &str, error: serde_json::Error| InputError::expected(format!("{keys} ({error})"));
        match kind {
            Some("skip") => {
                let read = SkipDescription::deserialize(value);
                Ok(Described::Skip(read.map_err(|error| no("kind, model, kv and candidates", error))?))
            }
            Some("radial") => {
                let keys = "kind, model, hops, least_hops, weighted, kv and visible";
                let read = RadialDescription::deserialize(value).map_err(|error| no(keys, error))?;
                read.check()?;
                Ok(Described::Radial(read))
            }
            Some("table") => {
                let keys = "kind, model, hops, kv and visible";
                let read = TableDescription::deserialize(value).map_err(|error| no(keys, error))?;
                check_hops(read.hops)?;
                Ok(Described::Table(read))
            }
            _ => {
                let found = value.get("kind").map_or("none".into(), Value::to_string);
                Err(InputError::expected("skip, radial or table").key("kind").found(found))
            }
        }
    }

    /// Reads one from the text of a router's file.
    ///
    /// # Errors
    /// Those of [`Described::of`], and what is no object or names a key twice.
    pub fn parse(text: &str) -> Result<Described, InputError> {
        let keys: ObjectEntries<Value> = json_text::from_slice(text.as_bytes(), "a description in JSON")?;
        if let Some(twice) = keys.repeated() {
            return Err(InputError::expected("each key once").key(twice));
        }
        Described::of(&Value::Object(keys.0.into_iter().collect()))
    }

    /// Its kind, as it stands in the description.
    pub fn kind(&self) -> &'static str {
        match self {
            Described::Skip(_) => "skip",
            Described::Radial(_) => "radial",
            Described::Table(_) => "table",
        }
    }

    /// The model that it was made for.
    pub fn model(&self) -> &str {
        match self {
            Described::Skip(skip) => &skip.model,
            Described::Radial(radial) => &radial.model,
            Described::Table(table) => &table.model,
        }
    }

    /// Its JSON, as it stands in files.
    ///
    /// # Panics
    /// Never: names and numbers are JSON.
    pub fn json(&self) -> String {
        let text = match self {
            Described::Skip(skip) => serde_json::to_string(skip),
            Described::Radial(radial) => serde_json::to_string(radial),
            Described::Table(table) => serde_json::to_string(table),
        };
        text.expect("a description is JSON")
    }
}
