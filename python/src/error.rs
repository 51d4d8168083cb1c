//! Errors of the library as exceptions.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use radialsim::error::{Error, InputError};

/// `radialsim.InputError`, a `ValueError`, with the place of the mistake in its attributes.
pub fn raised(py: Python, error: Error) -> PyErr {
    let said = error.to_string();
    match error {
        Error::Input(error) => exception(py, &said, &error),
        Error::Io { path, doing, cause } => {
            let wrong = InputError::expected(format!("a file that this program can {doing}"));
            exception(py, &said, &wrong.found(cause).file(path))
        }
        Error::Gate(_) | Error::NoGpu(_) | Error::Gpu(_) => PyRuntimeError::new_err(said),
    }
}

fn exception(py: Python, said: &str, error: &InputError) -> PyErr {
    let made = || -> PyResult<PyErr> {
        let keys = PyDict::new(py);
        keys.set_item("file", error.file.as_ref().map(|file| file.display().to_string()))?;
        keys.set_item("line", error.line)?;
        keys.set_item("key", &error.key)?;
        keys.set_item("found", &error.found)?;
        keys.set_item("expected", &error.expected)?;
        let class = py.import("radialsim.errors")?.getattr("InputError")?;
        Ok(PyErr::from_value(class.call((said,), Some(&keys))?))
    };
    made().unwrap_or_else(|failed| failed)
}

/// The error with its mistake changed, where it has one.
pub fn with_mistake(error: Error, change: impl FnOnce(InputError) -> InputError) -> Error {
    match error {
        Error::Input(error) => change(*error).into(),
        other => other,
    }
}
