//! Reads and checks a scenario.

use super::{Scenario, SetBy};
use crate::batch::Policy;
use crate::error::{InputError, Result};
use crate::ron_text;
use serde_json::Value;
use std::path::Path;

/// Larger scenario files are refused.
const MOST_BYTES: u64 = 1 << 20;

/// Most variants of a scenario.
const MOST_VARIANTS: usize = 1000;

/// Longest wait of a queue: 11 days.
const MOST_WAIT_US: f64 = 1e12;

/// Most seeds of a scenario.
const MOST_SEEDS: u32 = 1000;

impl Scenario {
    /// Reads a scenario file and applies `settings`, each `KEY=VALUE` with a key path such as `serving.max_sequences`,
    /// `variants.1.policy`, `hardware.memory.dram_gb_per_s` or `shape.layers`.
    ///
    /// # Errors
    /// A file that is no scenario, or a setting of a key that is not there or cannot have the value.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self> {
        Scenario::from_text(&ron_text::read(path, "a scenario", MOST_BYTES)?, path, settings)
    }

    /// The same of the text of such a file; other files that it names are looked for beside `path`.
    ///
    /// # Errors
    /// Those of [`Scenario::load`].
    pub fn from_text(text: &str, path: &Path, settings: &[String]) -> Result<Self> {
        let mut scenario: Scenario =
            ron_text::parse(text, "a scenario in RON").map_err(|error| error.file(path))?;
        ron_text::finite(&scenario).map_err(|error| {
            let line = error.key.as_deref().and_then(|key| ron_text::line_of(text, key));
            InputError { line, ..error.file(path) }
        })?;
        scenario.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        scenario.set_all(settings)?;
        scenario.check().map_err(|error| {
            let line = error.key.as_deref().and_then(|key| ron_text::line_of(text, key));
            InputError { line, ..error.file(path) }
        })?;
        Ok(scenario)
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
        let policies =
            self.variants.iter().filter_map(|variant| variant.policy).chain([self.dispatch.policy]);
        for policy in policies {
            if let Policy::Queued { full, wait_us, .. } = policy {
                let key = |part: &str| format!("dispatch.policy.queued.{part}");
                if full == 0 {
                    return bad(&key("full"), "0".into(), "at least 1 token");
                }
                if !(0.0..=MOST_WAIT_US).contains(&wait_us) {
                    let expected = "0 to 1e12 microseconds";
                    return bad(&key("wait_us"), wait_us.to_string(), expected);
                }
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
