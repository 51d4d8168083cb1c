//! What comes of one kind of kernel, fitted to tables of a model's layers.

use super::error::PercentErrors;
use crate::error::{InputError, Result};

/// What came of one kind of kernel.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Its name in the profile.
    pub name: String,
    /// Rows measured.
    pub rows: usize,
    /// What was kept aside in turn, and how often.
    pub kept: (&'static str, usize),
    /// Errors on rows kept aside, by the constants alone.
    pub constants: PercentErrors,
    /// With the correction.
    pub held: PercentErrors,
    /// Of the final profile on every row.
    pub seen: PercentErrors,
}

pub(super) fn fitted(
    name: &str,
    rows: usize,
    kept: (&'static str, usize),
    [constants, seen]: [Vec<(f64, f64)>; 2],
    held: Vec<(usize, f64, f64)>,
) -> Result<Fitted> {
    let none = || InputError::expected("rows").key(name);
    let errors = |pairs| PercentErrors::of(pairs).ok_or_else(none);
    let (constants, seen) = (errors(constants)?, errors(seen)?);
    let held = PercentErrors::of_families(held).ok_or_else(none)?;
    Ok(Fitted { name: name.to_owned(), rows, kept, constants, held, seen })
}
