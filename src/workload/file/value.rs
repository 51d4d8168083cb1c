//! Values as files write them.

use crate::error::{InputError, Result};
use crate::trace::json::decimal;
use crate::trace::synth::MOST_TOKENS;
use crate::units::SimTime;

/// A value as written, with its key.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub key: &'a str,
    pub text: &'a str,
}

impl Value<'_> {
    /// The error for this value.
    pub fn bad(&self, expected: impl Into<String>) -> InputError {
        InputError::expected(expected).key(self.key).found(if self.text.is_empty() {
            "nothing"
        } else {
            self.text
        })
    }

    /// The text, where it is no longer than any number or date.
    pub fn short(&self) -> Result<&str> {
        if self.text.len() > 64 {
            Err(self.bad("a number or date of at most 64 characters").into())
        } else {
            Ok(self.text)
        }
    }

    /// A number of tokens, 0 included.
    pub fn tokens(&self) -> Result<u32> {
        self.whole(MOST_TOKENS)
    }

    /// Milliseconds as a pause.
    pub fn milliseconds(&self) -> Result<SimTime> {
        let ps = decimal(self.text, 9)
            .filter(|(negative, _)| !negative)
            .and_then(|(_, ps)| u64::try_from(ps).ok());
        let ps = ps.ok_or_else(|| self.bad("milliseconds, at least 0 and within 213 days"))?;
        Ok(SimTime::from_ps(ps))
    }

    /// A whole number up to `most`.
    pub fn whole(&self, most: u32) -> Result<u32> {
        let digits = !self.text.is_empty() && self.text.bytes().all(|byte| byte.is_ascii_digit());
        let number = self.text.parse().ok().filter(|number| digits && *number <= most);
        number.ok_or_else(|| self.bad(format!("a whole number from 0 to {most}")).into())
    }
}
