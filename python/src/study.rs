//! `sweep`.

use crate::error::raised;
use crate::simulate::threads;
use crate::wait::waiting;
use pyo3::prelude::*;
use radialsim::error::Error;
use radialsim::study::{self, Shard, Study};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Runs the study in the file `path`, or goes on with it, and writes its tables and its report into `out`. Returns its rows as JSON.
#[pyfunction]
pub fn sweep(
    py: Python,
    path: PathBuf,
    out: PathBuf,
    threads: Option<u16>,
    tick: Option<Bound<PyAny>>,
) -> PyResult<String> {
    let threads = self::threads(threads);
    let done = waiting(py, tick.as_ref(), move |pace| -> Result<String, Error> {
        let study = Study::load(&path)?;
        study::sweep(&study, &out, Shard::WHOLE, threads, pace)?;
        let assembly = study::merge(&study, std::slice::from_ref(&out))?;
        study::write(&assembly, &out, threads)?;
        let mut rows = Vec::new();
        assembly.cells(|_, cells| {
            rows.push(Value::Object(cells.into_iter().collect::<Map<_, _>>()));
            Ok(())
        })?;
        Ok(Value::Array(rows).to_string())
    })?;
    done.map_err(|error| raised(py, error))
}
