//! `radialsim._core`: the simulator as functions of Python. They take texts and paths and give texts; what is pleasant to call is written
//! in Python beside this crate (`python/radialsim`).

mod arrow;
mod error;
mod scenario;
mod simulate;
mod study;
mod table;
mod wait;

use pyo3::prelude::*;

/// The compiled part of radialsim.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::arrow::arrow_stream;
    #[pymodule_export]
    use super::program;
    #[pymodule_export]
    use super::scenario::{scenario_from_ron, scenario_keys, scenario_to_ron};
    #[pymodule_export]
    use super::simulate::{Outcome, simulate};
    #[pymodule_export]
    use super::study::sweep;
    #[pymodule_export]
    use super::table::{fit, predict};
}

/// Runs the command-line program with these words, its own name first; returns its exit code.
#[pyfunction]
fn program(py: Python, words: Vec<String>) -> u8 {
    py.detach(|| radialsim::program(words))
}
