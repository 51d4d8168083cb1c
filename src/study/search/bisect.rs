//! Narrows a border down by halves.

use super::{Leaf, MOST_CASES, is_narrow, middle};
use crate::error::{InputError, Result};
use serde_json::Value;

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
    for _ in 0..MOST_CASES {
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
