//! Days.

use crate::error::{InputError, Result};

/// The day that a template is told as today's. Renderings depend on it and on no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(pub(super) chrono::NaiveDate);

impl Date {
    /// Reads `YYYY-MM-DD`.
    ///
    /// # Errors
    /// Any other text, and days that no month has.
    pub fn parse(text: &str) -> Result<Date> {
        let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d");
        date.map(Date).map_err(|_| InputError::expected("a day as YYYY-MM-DD").key("date").found(text).into())
    }
}
