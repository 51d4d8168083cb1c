//! Keys set anew by their paths. A path may lead through what a file leaves out: it is then there with its defaults.

use super::{Inputs, Scenario, SetBy};
use crate::error::{InputError, Result, hint};
use crate::hw::{Hardware, known_keys};
use crate::ron_text::{Unknown, unknown};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

impl Scenario {
    /// Sets one key: `KEY=VALUE`.
    ///
    /// # Errors
    /// No `=`, an unknown key, or a value of the wrong type.
    pub fn set(&mut self, setting: &str) -> Result<()> {
        self.set_all(&[setting])
    }

    /// Sets keys, each `KEY=VALUE`, in their order.
    ///
    /// # Errors
    /// Those of [`Scenario::set`].
    pub fn set_all(&mut self, settings: &[impl AsRef<str>]) -> Result<()> {
        let parsed = |setting: &str| {
            let (key, text) = setting
                .split_once('=')
                .ok_or_else(|| InputError::expected("KEY=VALUE").key("--set").found(setting))?;
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
            Ok((key.to_owned(), value))
        };
        let settings = settings.iter().map(|setting| parsed(setting.as_ref())).collect::<Result<Vec<_>>>()?;
        let settings: Vec<(&str, &Value)> =
            settings.iter().map(|(key, value)| (key.as_str(), value)).collect();
        self.set_values(&settings)
    }

    /// Sets keys to values, in their order.
    ///
    /// # Errors
    /// An unknown key, or a value of the wrong type.
    pub fn set_values(&mut self, settings: &[(&str, &Value)]) -> Result<()> {
        let mut own = Vec::new();
        for &(key, value) in settings {
            match key.strip_prefix("hardware.").or(key.strip_prefix("shape.")) {
                Some("") => return Err(InputError::expected("a key behind the dot").key(key).into()),
                Some(_) => self.overrides.push((key.to_owned(), value.clone())),
                None => own.push((key, value)),
            }
        }
        if !own.is_empty() {
            let folder = std::mem::take(&mut self.folder);
            let overrides = std::mem::take(&mut self.overrides);
            let set_by = self.set_by;
            let set = with_keys(self, set_by, "", &own);
            *self = Scenario { folder, overrides, set_by, ..set.map_err(|refused| refused.error)? };
        }
        Ok(())
    }

    /// Refuses a key that is not there, naming those that are. `value` is one that the key is to take.
    ///
    /// # Errors
    /// That.
    pub fn has(&self, key: &str, value: &Value) -> Result<()> {
        let inputs = Inputs::default();
        let set = |refused: Refused| if refused.is_unknown { Err(refused.error.into()) } else { Ok(()) };
        let settings = |path| [(path, value)];
        let done = match key.split_once('.') {
            Some(("hardware", path)) => {
                let hardware = inputs.hardware(&self.folder, &self.hardware)?;
                with_keys(&*hardware, self.set_by, "hardware.", &settings(path)).map(drop)
            }
            Some(("shape", path)) => {
                let model = inputs.model(&self.folder, &self.model)?;
                with_keys(&*model, self.set_by, "shape.", &settings(path)).map(drop)
            }
            _ => with_keys(self, self.set_by, "", &settings(key)).map(drop),
        };
        // A value may be wrong at a point, and may fit only together with others.
        done.or_else(set)
    }

    /// The number under a key, of this scenario or (behind `hardware.`) of a profile; none where no number stands there.
    pub fn number(&self, key: &str, hardware: &Hardware) -> Option<Number> {
        let (root, path) = match key.strip_prefix("hardware.") {
            Some(path) => (serde_json::to_value(hardware), path),
            None => (serde_json::to_value(self), key),
        };
        let root = root.expect("scenario types serialise");
        let place = found(&root, path)?;
        place.get("value").unwrap_or(place).as_number().cloned()
    }
}

/// Why keys were not set.
#[derive(Debug)]
pub(super) struct Refused {
    pub error: InputError,
    /// Whether there is no such key, as opposed to a value that it cannot have.
    pub is_unknown: bool,
}

impl From<Refused> for crate::error::Error {
    fn from(refused: Refused) -> Self {
        refused.error.into()
    }
}

/// What stands at a path.
fn found<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(root, |place, part| match place {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        place => place.get(part),
    })
}

/// What a part of a variant begins with where the variant leaves it out: what the scenario says for all.
fn inherited(root: &Value, path: &[&str]) -> Option<Value> {
    let of_all = match path {
        ["variants", _, key @ ("limits" | "tiers" | "parallel")] => root.get(key)?,
        ["variants", _, "capture"] => root.get("dispatch")?.get("capture")?,
        _ => return None,
    };
    Some(of_all.clone()).filter(|value| !value.is_null())
}

/// The place of a path, made where it is not there; `shown` names the path in errors.
fn place<'a>(root: &'a mut Value, path: &str, shown: &str) -> std::result::Result<&'a mut Value, Refused> {
    let parts: Vec<&str> = path.split('.').collect();
    for end in 1..parts.len() {
        let of_all = inherited(root, &parts[..end]);
        let own = parts[..end].iter().try_fold(&mut *root, |place, part| match place {
            Value::Array(list) => list.get_mut(part.parse::<usize>().ok()?),
            place => place.get_mut(*part),
        });
        if let (Some(own @ Value::Null), Some(of_all)) = (own, of_all) {
            *own = of_all;
        }
    }
    let mut place = root;
    for part in parts {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        place = match place {
            Value::Object(map) => map.entry(part).or_insert(Value::Null),
            Value::Array(list) => {
                let known = format!("an index below {}", list.len());
                let next = part.parse::<usize>().ok().and_then(|index| list.get_mut(index));
                next.ok_or_else(|| unknown_key(InputError::expected(known), shown, part))?
            }
            _ => return Err(unknown_key(InputError::expected("no further key"), shown, part)),
        };
    }
    Ok(place)
}

fn unknown_key(error: InputError, shown: &str, part: &str) -> Refused {
    Refused { error: error.key(shown).found(part), is_unknown: true }
}

/// `object` with the keys at these paths set anew; errors show `prefix` before the path. A number set over a sourced number
/// becomes an assumed one.
///
/// # Errors
/// A key that is not there, naming those that are and the nearest; a value of the wrong type.
pub(super) fn with_keys<T: Serialize + DeserializeOwned>(
    object: &T,
    set_by: SetBy,
    prefix: &str,
    settings: &[(&str, &Value)],
) -> std::result::Result<T, Refused> {
    let before = serde_json::to_value(object).expect("scenario types serialise");
    let mut root = before.clone();
    let shown = |path: &str| format!("{}{prefix}{path}", set_by.label());
    for &(path, value) in settings {
        let source = || serde_json::json!({ "Assumed": set_by.why() });
        match place(&mut root, path, &shown(path))? {
            Value::Object(sourced) if value.is_number() && sourced.contains_key("source") => {
                sourced["value"] = value.clone();
                sourced["source"] = source();
            }
            place @ Value::Null if value.is_number() && prefix == "hardware." => {
                *place = serde_json::json!({ "value": value, "source": source() });
            }
            place => *place = value.clone(),
        }
    }
    let error = match T::deserialize(&root) {
        Ok(set) => {
            // Not every type of a scenario refuses keys that it does not know: what it took is what it writes. Profiles and models do,
            // and do not write all that they took.
            let after = serde_json::to_value(&set).expect("scenario types serialise");
            let own = settings.iter().filter(|_| prefix.is_empty());
            let lost = own.into_iter().find_map(|(path, _)| Some((path, first_unknown(&after, path)?)));
            return match lost {
                None => Ok(set),
                Some((path, (part, known))) => {
                    let known: Vec<&str> = known.iter().map(String::as_str).collect();
                    Err(unknown_key(no_such_key(&before, prefix, path, part, &known), &shown(path), part))
                }
            };
        }
        Err(error) => error.to_string(),
    };
    if let [(path, value)] = settings {
        let error = match unknown(&error) {
            // A part of the path, or else of the value.
            Some(Unknown { found, known, is_key: true }) if path.split('.').any(|part| part == found) => {
                return Err(unknown_key(
                    no_such_key(&before, prefix, path, found, &known),
                    &shown(path),
                    found,
                ));
            }
            Some(Unknown { found, known, .. }) => {
                let list = format!("one of {}{}", known.join(", "), hint(found, known));
                InputError::expected(list).found(found)
            }
            None => InputError::expected(format!("a value that fits: {error}")).found(value),
        };
        return Err(Refused { error: error.key(shown(path)), is_unknown: false });
    }
    // Which of them it is, the message does not say: one with an unknown key, else one that is wrong alone. What lacks something alone
    // may have it from another one.
    let alone = |setting: &(&str, &Value)| with_keys(object, set_by, prefix, &[*setting]).err();
    let lacks = |said: &str| said.contains("missing field");
    let mut wrong: Vec<Refused> = settings.iter().filter_map(alone).collect();
    wrong.retain(|refused| refused.is_unknown || lacks(&error) || !lacks(&refused.error.expected));
    wrong.sort_by_key(|refused| !refused.is_unknown);
    Err(wrong.into_iter().next().unwrap_or_else(|| {
        let paths: Vec<_> = settings.iter().map(|(path, _)| shown(path)).collect();
        let expected = format!("values that fit each other: {error}");
        Refused { error: InputError::expected(expected).key(paths.join(", ")), is_unknown: false }
    }))
}

/// The first part of a path that an object does not have, with the keys that are there instead.
fn first_unknown<'p>(root: &Value, path: &'p str) -> Option<(&'p str, Vec<String>)> {
    let mut place = root;
    for part in path.split('.') {
        place = match place {
            Value::Object(map) => match map.get(part) {
                Some(next) => next,
                None => return Some((part, map.keys().cloned().collect())),
            },
            Value::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get(index))?,
            _ => return None,
        };
    }
    None
}

/// The keys that are there, with the nearest; where none is near, a key of another place that ends like this one.
fn no_such_key(root: &Value, prefix: &str, path: &str, part: &str, known: &[&str]) -> InputError {
    let near = hint(part, known.iter().copied());
    let last = path.rsplit('.').next().unwrap_or(path);
    let elsewhere = || {
        let mut all = Vec::new();
        leaves(root, prefix.trim_end_matches('.'), &mut all);
        all.extend(known_keys().map(|key| format!("hardware.{key}")));
        let meant = all.into_iter().find(|key| key.rsplit('.').next() == Some(last))?;
        Some(hint(&meant, [meant.as_str()]))
    };
    let near = if near.is_empty() { elsewhere().unwrap_or_default() } else { near };
    InputError::expected(format!("{}{near}", known.join(", ")))
}

/// The paths of all keys that hold no further keys.
fn leaves(root: &Value, path: &str, all: &mut Vec<String>) {
    let Value::Object(map) = root else { return all.push(path.to_owned()) };
    for (key, value) in map {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        leaves(value, &path, all);
    }
}
