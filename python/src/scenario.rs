//! Scenarios between RON, which people write, and JSON, which is what a dict is.

use crate::error::{raised, with_mistake};
use pyo3::prelude::*;
use radialsim::error::{Error, InputError, hint};
use radialsim::ron_text;
use radialsim::scenario::Scenario;
use ron::extensions::Extensions;
use ron::ser::PrettyConfig;
use std::path::{Path, PathBuf};

/// The name of a text that is no file; errors do not show it.
const NO_FILE: &str = "scenario";

/// A scenario in RON: a text beside whose `folder` its files lie, or the file `path` where there is no text.
pub fn read(text: Option<&str>, path: &Path, settings: &[String]) -> Result<Scenario, Error> {
    let read = match text {
        Some(text) => Scenario::from_text(text, &path.join(NO_FILE), settings)
            .map_err(|error| with_mistake(error, |error| InputError { file: None, ..error })),
        None => Scenario::load(path, settings),
    };
    // Nobody wrote `--set` here.
    let key = |key: Option<String>| key.map(|key| key.trim_start_matches("--set ").to_owned());
    read.map_err(|error| with_mistake(error, |error| InputError { key: key(error.key), ..error }))
}

/// The keys that a scenario can have.
#[pyfunction]
pub fn scenario_keys() -> Vec<String> {
    // Who is asked for a key that there is none of says which there are.
    let said = serde_json::from_str::<Scenario>(r#"{"": 0}"#).err().map(|error| error.to_string());
    let known = said.as_deref().and_then(ron_text::unknown).map(|unknown| unknown.known);
    known.unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// A scenario in RON, of the JSON of one. Raises `InputError` for what is none.
#[pyfunction]
pub fn scenario_to_ron(py: Python, json: &str) -> PyResult<String> {
    let made = || -> Result<String, Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let scenario: Scenario =
            serde_path_to_error::deserialize(&mut reader).map_err(|error| refused(&error))?;
        ron_text::finite(&scenario)?;
        let text = written(&scenario)?;
        // Checked as a file would be: what is wrong beyond its keys is found here.
        read(Some(&text), Path::new(""), &[])
            .map_err(|error| with_mistake(error, |error| InputError { line: None, ..error }))?;
        Ok(text)
    };
    made().map_err(|error| raised(py, error))
}

/// The JSON of a scenario in RON: of a text, or of the file `path` where there is none.
#[pyfunction]
pub fn scenario_from_ron(py: Python, text: Option<&str>, path: PathBuf) -> PyResult<String> {
    let scenario = read(text, &path, &[]).map_err(|error| raised(py, error))?;
    Ok(serde_json::to_string(&scenario).expect("scenario types serialise"))
}

fn written(scenario: &Scenario) -> Result<String, Error> {
    let style = PrettyConfig::new().struct_names(false).indentor("    ");
    let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
    let text = options.to_string_pretty(scenario, style);
    text.map_err(|error| InputError::expected(format!("a scenario that RON can hold ({error})")).into())
}

/// What serde says of JSON that is no scenario, with the key and in this program's words.
fn refused(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let said = error.inner().to_string();
    // "... at line 1 column 7": nobody wrote that line.
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    let key = error.path().to_string();
    let wrong = match ron_text::unknown(said) {
        Some(unknown) => {
            let near = hint(unknown.found, unknown.known.iter().copied());
            let expected = format!("one of {}{near}", unknown.known.join(", "));
            InputError::expected(expected).found(unknown.found)
        }
        None => InputError::expected(format!("a scenario: {said}")),
    };
    let wrong = if key == "." { wrong } else { wrong.key(key) };
    wrong.into()
}
