//! Reads a scenario, and sets keys anew by their paths.

use super::{Inputs, Scenario, SetBy};
use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::ron_text;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};
use std::path::Path;

/// Larger scenario files are refused.
const MOST_BYTES: u64 = 1 << 20;

/// Most variants of a scenario.
const MOST_VARIANTS: usize = 1000;

/// Most seeds of a scenario.
const MOST_SEEDS: u32 = 1000;

impl Scenario {
    /// Reads a scenario file and applies `settings`, each `KEY=VALUE` with a key path such as `serving.max_sequences`,
    /// `variants.1.policy`, `hardware.memory.dram_gb_per_s` or `shape.layers`.
    ///
    /// # Errors
    /// A file that is no scenario, or a setting of a key that is not there or cannot have the value.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self> {
        let text = ron_text::read(path, "a scenario", MOST_BYTES)?;
        let mut scenario: Scenario =
            ron_text::parse(&text, "a scenario in RON").map_err(|error| error.file(path))?;
        ron_text::finite(&scenario).map_err(|error| {
            let line = error.key.as_deref().and_then(|key| ron_text::line_of(&text, key));
            InputError { line, ..error.file(path) }
        })?;
        scenario.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        for setting in settings {
            scenario.set(setting)?;
        }
        scenario.check().map_err(|error| {
            let line = error.key.as_deref().and_then(|key| ron_text::line_of(&text, key));
            InputError { line, ..error.file(path) }
        })?;
        Ok(scenario)
    }

    /// Sets one key: `KEY=VALUE`.
    ///
    /// # Errors
    /// No `=`, an unknown key, or a value of the wrong type.
    pub fn set(&mut self, setting: &str) -> Result<()> {
        let Some((key, text)) = setting.split_once('=') else {
            return Err(InputError::expected("KEY=VALUE").key("--set").found(setting).into());
        };
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        self.set_values(&[(key, &value)])
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
            *self = Scenario { folder, overrides, set_by, ..with_keys(self, set_by, "", &own)? };
        }
        Ok(())
    }

    /// The scenario as a study runs it: with these keys set, and checked.
    ///
    /// # Errors
    /// An unknown key, or a value that cannot be.
    pub fn with_values(&self, settings: &[(&str, &Value)]) -> Result<Scenario> {
        let mut scenario = Scenario { set_by: SetBy::Study, ..self.clone() };
        scenario.set_values(settings)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Refuses a key that is not there, naming those that are.
    ///
    /// # Errors
    /// That.
    pub fn has(&self, key: &str) -> Result<()> {
        let inputs = Inputs::default();
        let (root, path) = match key.split_once('.') {
            Some(("hardware", path)) => {
                (serde_json::to_value(&*inputs.hardware(&self.folder, &self.hardware)?), path)
            }
            Some(("shape", path)) => (serde_json::to_value(&*inputs.model(&self.folder, &self.model)?), path),
            _ => (serde_json::to_value(self), key),
        };
        place(&mut root.expect("scenario types serialise"), path, key).map(drop)
    }

    /// The number under a key, of this scenario or (behind `hardware.`) of a profile; none where no number stands there.
    pub fn number(&self, key: &str, hardware: &Hardware) -> Option<Number> {
        let (root, path) = match key.strip_prefix("hardware.") {
            Some(path) => (serde_json::to_value(hardware), path),
            None => (serde_json::to_value(self), key),
        };
        let root = root.expect("scenario types serialise");
        let place = path.split('.').try_fold(&root, |place, part| match place {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            place => place.get(part),
        })?;
        place.get("value").unwrap_or(place).as_number().cloned()
    }

    fn check(&self) -> std::result::Result<(), InputError> {
        let bad = |key: &str, found: String, expected: &str| {
            Err(InputError::expected(expected).key(key).found(found))
        };
        if self.variants.is_empty() || self.variants.len() > MOST_VARIANTS {
            return bad("variants", self.variants.len().to_string(), "1 to 1000 variants");
        }
        self.serving.check()?;
        if !(1..=MOST_SEEDS).contains(&self.seeds) {
            return bad("seeds", self.seeds.to_string(), "1 to 1000 seeds");
        }
        for (key, bound) in self.slo.bounds() {
            if let Some(bound_s) = bound.filter(|bound_s| !(bound_s.is_finite() && *bound_s > 0.0)) {
                return bad(&format!("slo.{key}"), bound_s.to_string(), "a finite number of seconds above 0");
            }
        }
        let captures = self
            .variants
            .iter()
            .filter_map(|variant| variant.capture.as_ref())
            .chain([&self.dispatch.capture]);
        for capture in captures {
            if !capture.is_sorted_by(|a, b| a < b) || capture.first() == Some(&0) {
                return bad("dispatch.capture", format!("{capture:?}"), "batch sizes from 1, ascending");
            }
        }
        if let Some(requests) = &self.workload.requests
            && requests.count == 0
        {
            return bad("workload.requests.count", "0".into(), "at least 1 request");
        }
        Ok(())
    }
}

/// What stands at a path; `shown` names it in errors.
fn place<'a>(root: &'a mut Value, path: &str, shown: &str) -> Result<&'a mut Value> {
    let mut place = root;
    for part in path.split('.') {
        let known = match &*place {
            Value::Object(map) => map.keys().cloned().collect::<Vec<_>>().join(", "),
            Value::Array(list) => format!("an index below {}", list.len()),
            _ => "no further key".to_owned(),
        };
        let next = match place {
            Value::Object(map) => map.get_mut(part),
            Value::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
            _ => None,
        };
        place = next.ok_or_else(|| InputError::expected(known).key(shown).found(part))?;
    }
    Ok(place)
}

/// `object` with the keys at these paths set anew; errors show `prefix` before the path. A number set over a sourced number
/// becomes an assumed one.
///
/// # Errors
/// A key that is not there, naming those that are; a value of the wrong type.
pub(super) fn with_keys<T: Serialize + DeserializeOwned>(
    object: &T,
    set_by: SetBy,
    prefix: &str,
    settings: &[(&str, &Value)],
) -> Result<T> {
    let mut root = serde_json::to_value(object).expect("scenario types serialise");
    let shown = |path: &str| format!("{}{prefix}{path}", set_by.label());
    for &(path, value) in settings {
        let place = place(&mut root, path, &shown(path))?;
        match place {
            Value::Object(sourced) if value.is_number() && sourced.contains_key("source") => {
                sourced["value"] = value.clone();
                sourced["source"] = serde_json::json!({ "Assumed": set_by.why() });
            }
            place => *place = value.clone(),
        }
    }
    serde_json::from_value(root).map_err(|error| {
        let alone = |setting: &(&str, &Value)| with_keys(object, set_by, prefix, &[*setting]).err();
        match settings {
            [(path, value)] => InputError::expected(format!("a value that fits: {error}"))
                .key(shown(path))
                .found(value)
                .into(),
            // Which of them it is, the message does not say. All of them are right alone only where they contradict each other.
            many => many.iter().find_map(alone).unwrap_or_else(|| {
                let paths: Vec<_> = many.iter().map(|(path, _)| shown(path)).collect();
                let expected = format!("values that fit each other: {error}");
                InputError::expected(expected).key(paths.join(", ")).into()
            }),
        }
    })
}
