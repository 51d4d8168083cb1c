//! Reads a scenario, and sets keys anew by their paths.

use super::Scenario;
use crate::error::{Error, InputError, Result};
use crate::ron_text;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
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
        if let Some(name) = key.strip_prefix("hardware.").or(key.strip_prefix("shape.")) {
            if name.is_empty() {
                return Err(InputError::expected("a key behind the dot").key(key).into());
            }
            self.overrides.push((key.to_owned(), value));
            return Ok(());
        }
        let (folder, overrides) = (std::mem::take(&mut self.folder), std::mem::take(&mut self.overrides));
        *self = Scenario { folder, overrides, ..with_key(self, "", key, value)? };
        Ok(())
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

/// `object` with the key at this path set anew; errors show `prefix` before the path. A number set over a sourced number
/// becomes an assumed one.
///
/// # Errors
/// A key that is not there, naming those that are; a value of the wrong type.
pub(super) fn with_key<T: Serialize + DeserializeOwned>(
    object: &T,
    prefix: &str,
    path: &str,
    value: Value,
) -> Result<T> {
    let mut root = serde_json::to_value(object).expect("scenario types serialise");
    let shown = value.to_string();
    let mut place = &mut root;
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
        place =
            next.ok_or_else(|| InputError::expected(known).key(format!("--set {prefix}{path}")).found(part))?;
    }
    match place {
        Value::Object(sourced) if value.is_number() && sourced.contains_key("source") => {
            sourced["value"] = value;
            sourced["source"] = serde_json::json!({ "Assumed": "set on the command line" });
        }
        place => *place = value,
    }
    serde_json::from_value(root).map_err(|error| {
        Error::from(
            InputError::expected(format!("a value that fits: {error}"))
                .key(format!("--set {prefix}{path}"))
                .found(shown),
        )
    })
}
