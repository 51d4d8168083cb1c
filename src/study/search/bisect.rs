//! Narrows a border down by halves.

use super::Leaf;
use crate::error::{InputError, Result};
use crate::study::axis::number_at;
use serde_json::Value;

/// Most halvings.
const MOST_HALVINGS: usize = 100_000;

/// Two values of an axis with a border between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Border {
    /// The value on the near side.
    pub low: Value,
    /// The value on the far side.
    pub high: Value,
}

/// Halves the way from `low`, where `is_near` holds, to `high`, where it does not, until they are neighbours or `tolerance` apart.
///
/// # Errors
/// Those of `is_near`.
pub fn bisect(
    leaf: &Leaf,
    low: Value,
    high: Value,
    tolerance: f64,
    mut is_near: impl FnMut(&Value) -> Result<bool>,
) -> Result<Border> {
    let mut border = Border { low, high };
    for _ in 0..MOST_HALVINGS {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        if is_narrow(number(&border.low), number(&border.high), tolerance) {
            return Ok(border);
        }
        let Some(value) = middle(leaf, &border.low, &border.high) else { return Ok(border) };
        if is_near(&value)? { border.low = value } else { border.high = value }
    }
    Err(InputError::expected("a tolerance that can be reached")
        .key("searches, tolerance")
        .found(tolerance)
        .into())
}

/// The value half-way between two: by ratio on a logarithmic axis, whole where both are whole. None where there is none between.
fn middle(leaf: &Leaf, low: &Value, high: &Value) -> Option<Value> {
    let (from, to) = (low.as_f64()?, high.as_f64()?);
    let is_whole = low.as_i64().is_some() && high.as_i64().is_some();
    let value = number_at(from, to, 0.5, leaf.is_log(), is_whole);
    let between = value.as_f64()?;
    (from < between && between < to).then_some(value)
}

/// Whether two values are near enough.
fn is_narrow(low: f64, high: f64, tolerance: f64) -> bool {
    high - low <= tolerance * low.abs()
}
