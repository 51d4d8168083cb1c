//! What the networks of a study are worth: measured elsewhere, named by variant.

use super::{Objective, Study};
use crate::error::{Error, InputError, Result, hint};
use crate::quality::{MOST_BYTES, NetworkWorth, Quality, QualityTable};
use crate::ron_text;
use crate::scenario::{ReadInput, digest};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Where the quality of a variant stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worth {
    /// Name of the variant.
    pub variant: String,
    /// A table that `train measure --csv` or `execute --perplexity --csv` wrote, from the folder of the study.
    pub file: PathBuf,
    /// Name of its row; absent: the variant's.
    #[serde(default)]
    pub row: Option<String>,
}

impl Worth {
    fn row(&self) -> &str {
        self.row.as_deref().unwrap_or(&self.variant)
    }
}

/// Variants that are one way to trade quality for cost, such as static depth with more and more layers left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityFamily {
    /// What reports call it.
    pub name: String,
    /// Its variants, at least two.
    pub variants: Vec<String>,
}

/// Which quality is held against cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Perplexity.
    Perplexity,
    /// KL divergence from a teacher, nats.
    Kl,
}

impl Measure {
    /// All, with the names under which they are asked for.
    pub const ALL: [(Measure, &'static str); 2] = [(Measure::Perplexity, "perplexity"), (Measure::Kl, "kl")];

    /// That of a row; absent where it was not measured.
    pub fn of(self, row: &NetworkWorth) -> Option<Quality> {
        match self {
            Measure::Perplexity => Some(row.perplexity),
            Measure::Kl => row.kl,
        }
    }

    /// A value on the scale on which networks lie between others: nats, for perplexity its logarithm.
    pub fn nats(self, value: f64) -> f64 {
        match self {
            Measure::Perplexity => libm::log(value),
            Measure::Kl => value,
        }
    }

    /// What axes and columns call it.
    pub fn label(self) -> &'static str {
        match self {
            Measure::Perplexity => "perplexity",
            Measure::Kl => "KL divergence, nats",
        }
    }

    /// Less is better.
    pub fn objective(self) -> Objective {
        Objective::Least(self.label().to_owned())
    }
}

/// The quality of every variant, in their order.
#[derive(Clone, Debug)]
pub struct Worths {
    /// The rows.
    pub rows: Vec<NetworkWorth>,
    /// The quality that is asked for, of each.
    pub qualities: Vec<Quality>,
    /// For each variant the number of its file among those that were read.
    pub files: Vec<usize>,
    /// What was read.
    pub inputs: Vec<ReadInput>,
}

impl Worths {
    /// Reads the tables that a study names.
    ///
    /// # Errors
    /// A study that names none, tables that cannot be read, rows that are not there, and a quality that was not measured.
    pub fn read(study: &Study, measure: Measure) -> Result<Worths> {
        if study.spec.quality.is_empty() {
            let expected = "what each variant is worth: [(variant: NAME, file: TABLE.csv, row: NAME), ...]";
            return Err(InputError::expected(expected).key("quality").found("none").file(&study.path).into());
        }
        let folder = study.path.parent().unwrap_or(Path::new(""));
        let mut tables: Vec<(&Path, QualityTable)> = Vec::new();
        let mut worths =
            Worths { rows: Vec::new(), qualities: Vec::new(), files: Vec::new(), inputs: Vec::new() };
        let by_name: HashMap<&str, &Worth> =
            study.spec.quality.iter().map(|worth| (worth.variant.as_str(), worth)).collect();
        for variant in &study.base.variants {
            let worth = by_name[variant.name.as_str()];
            let known = tables.iter().position(|(file, _)| *file == worth.file);
            let place = match known {
                Some(place) => place,
                None => {
                    let path = folder.join(&worth.file);
                    let text = ron_text::read(&path, "a table of networks", MOST_BYTES)?;
                    tables.push((&worth.file, QualityTable::parse(&text, &path)?));
                    worths.inputs.push(ReadInput {
                        kind: "quality".into(),
                        name: worth.file.display().to_string(),
                        digest: digest(text.as_bytes()),
                    });
                    tables.len() - 1
                }
            };
            let row = tables[place].1.get(worth.row())?.clone();
            let quality = measure.of(&row).ok_or_else(|| {
                let expected = "a divergence for each network; `--quality perplexity` does without";
                let wrong = InputError::expected(expected).key(format!("{}.kl", row.network)).found("none");
                wrong.file(folder.join(&worth.file))
            })?;
            worths.qualities.push(quality);
            worths.rows.push(row);
            worths.files.push(place);
        }
        Ok(worths)
    }
}

/// Keys that make a network another one, whose quality is not the one that was measured.
fn changes_network(key: &str) -> bool {
    let mut parts = key.split('.');
    match parts.next() {
        Some("model" | "shape") => true,
        Some("workload") => parts.next().is_none_or(|next| next == "trace"),
        Some("variants") => parts.nth(1).is_none_or(|next| next == "routes"),
        _ => false,
    }
}

impl Study {
    /// Reads the tables of quality that the study names, to say what is wrong with them before anything runs.
    ///
    /// # Errors
    /// A study that names none, tables that cannot be read, and rows that are not there.
    pub fn check_tables(&self, measure: Measure) -> Result<()> {
        Worths::read(self, measure).map(drop)
    }

    /// Checks what can be known of `quality` and `families` before a table is read.
    pub(super) fn check_worth(&self) -> Result<()> {
        let bad = |key: &str, found: &str, expected: &str| -> Error {
            InputError::expected(expected).key(key).found(found).into()
        };
        let spec = &self.spec;
        let names: Vec<&str> = self.base.variants.iter().map(|variant| variant.name.as_str()).collect();
        let variant = |key: &str, name: &str| {
            if names.contains(&name) {
                return Ok(());
            }
            let near = hint(name, names.iter().copied());
            Err(bad(key, name, &format!("the name of a variant: one of {}{near}", names.join("; "))))
        };
        let once = |key: &str, all: Vec<&String>| {
            let mut seen = HashSet::new();
            match all.into_iter().find(|name| !seen.insert(*name)) {
                Some(twice) => Err(bad(key, twice, "each name once")),
                None => Ok(()),
            }
        };
        spec.quality.iter().try_for_each(|worth| variant("quality, variant", &worth.variant))?;
        once("quality, variant", spec.quality.iter().map(|worth| &worth.variant).collect())?;
        let lacks = |name: &&&str| !spec.quality.iter().any(|worth| worth.variant == **name);
        if let Some(name) = names.iter().find(lacks).filter(|_| !spec.quality.is_empty()) {
            return Err(bad("quality", &format!("none of {name}"), "an entry for each variant"));
        }
        once("families, name", spec.families.iter().map(|family| &family.name).collect())?;
        for family in &spec.families {
            let key = "families, variants";
            family.variants.iter().try_for_each(|name| variant(key, name))?;
            once(key, family.variants.iter().collect())?;
            if family.variants.len() < 2 {
                let expected = "at least two, between which others can lie";
                return Err(bad(key, &format!("{} in {}", family.variants.len(), family.name), expected));
            }
        }
        let moved = self.grid.leaves().into_iter().flat_map(|leaf| &leaf.keys);
        let mut moved = moved.filter(|key| !spec.quality.is_empty() && changes_network(key));
        match moved.next() {
            Some(key) => {
                let expected =
                    "axes that leave the networks as they are: the quality of a variant was measured for one";
                Err(bad("axes", key, expected))
            }
            None => Ok(()),
        }
    }
}
