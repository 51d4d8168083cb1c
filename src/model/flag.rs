//! Truth values that a family fixes or reads.

use super::json::Object;
use crate::error::Result;

/// A truth value of a family.
#[derive(Clone, Copy)]
pub(super) enum Flag {
    /// Never.
    No,
    /// Always.
    Yes,
    /// As this key says, with a value for its absence.
    Key(&'static str, bool),
}

impl Flag {
    pub fn read(self, config: &Object) -> Result<bool> {
        match self {
            Flag::No => Ok(false),
            Flag::Yes => Ok(true),
            Flag::Key(key, absent) => config.flag(key, absent),
        }
    }
}
