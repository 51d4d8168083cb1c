//! Bounds of a model. Within them no count below overflows 64 bits, so the sums in `size` need no checks.
//!
//! A layer has at most 4 x 2^40 attention and 3 x 2^42 feed-forward values, biases and norms included below 2^45.
//! 65,535 layers of them stay below 2^61 values; tables and patches stay below 2^46. At four bytes a value that is
//! less than 2^63 bytes. Block formats multiply one layer's values by at most 272 first, which stays below 2^54.

use super::{Input, Model};
use crate::error::{InputError, Result};

/// Most layers.
pub(super) const LAYERS: u64 = 65_535;
/// Widest residual stream, and widest query of all heads together.
pub(super) const WIDTH: u64 = 1 << 20;
/// Most heads, and widest head.
pub(super) const HEADS: u64 = 1 << 16;
/// Widest feed-forward part.
pub(super) const FFN: u64 = 1 << 22;
/// Most rows of a table: vocabulary, classes, positions, patches.
pub(super) const ROWS: u64 = 1 << 24;
/// Most values of one image patch.
pub(super) const PATCH_VALUES: u64 = 1 << 24;

/// A number outside its range, named by the field.
fn range(key: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, value, format!("a whole number from {least} to {most}")))
}

/// A mistake in one field.
fn wrong(key: &str, found: impl std::fmt::Display, expected: impl Into<String>) -> crate::error::Error {
    InputError::expected(expected).key(key).found(found).into()
}

impl Model {
    /// Whether the shapes can belong to a network; names the first field that cannot.
    ///
    /// [`Model::from_config`] and [`Model::builtin`] return checked models. A model that was deserialised or
    /// changed by hand must pass here before its sizes are asked for.
    pub fn check(&self) -> Result<()> {
        range("layers", self.layers.into(), 1, LAYERS)?;
        range("hidden", self.hidden, 1, WIDTH)?;
        range("heads", self.heads, 1, HEADS)?;
        range("kv_heads", self.kv_heads, 1, self.heads)?;
        range("head_dim", self.head_dim, 1, HEADS)?;
        range("ffn", self.ffn, 1, FFN)?;
        range("outputs", self.outputs, 0, ROWS)?;
        range("positions", self.positions, 0, ROWS)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(wrong("kv_heads", self.kv_heads, format!("a divisor of {} heads", self.heads)));
        }
        if self.q_dim() > WIDTH {
            let found = format!("{} heads of {}", self.heads, self.head_dim);
            return Err(wrong("head_dim", found, format!("at most {WIDTH} for all heads together")));
        }
        if self.rope && !self.head_dim.is_multiple_of(2) {
            return Err(wrong(
                "head_dim",
                self.head_dim,
                "an even width, as rotation by position takes pairs",
            ));
        }
        match self.input {
            Input::Tokens { vocabulary, width } => {
                range("input.vocabulary", vocabulary, 1, ROWS)?;
                range("input.width", width, 1, WIDTH)?;
                if self.tied && self.outputs != vocabulary {
                    let expected = format!("the vocabulary of {vocabulary}, as the head is the embedding");
                    return Err(wrong("outputs", self.outputs, expected));
                }
            }
            Input::Patches { values, count } => {
                range("input.values", values, 1, PATCH_VALUES)?;
                range("input.count", count, 2, ROWS)?;
                if self.tied {
                    return Err(wrong("tied", true, "false, as patches have no table to tie the head to"));
                }
            }
        }
        Ok(())
    }
}
