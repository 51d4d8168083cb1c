//! How many tokens a text has: a function that whoever reads a tokenizer gives to whoever reads requests.

use crate::error::Result;
use std::fmt;
use std::sync::Arc;

/// The tokens of a text.
type Count = dyn Fn(&str) -> Result<u64> + Send + Sync;

/// Counts the tokens of a text. Equal to its clones alone.
#[derive(Clone)]
pub struct TokenCount {
    name: String,
    count: Arc<Count>,
}

impl TokenCount {
    /// Counts by a function; `name` says by which tokenizer.
    pub fn new(name: impl Into<String>, count: impl Fn(&str) -> Result<u64> + Send + Sync + 'static) -> Self {
        TokenCount { name: name.into(), count: Arc::new(count) }
    }

    /// By which tokenizer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// Text that the vocabulary cannot express.
    pub fn of(&self, text: &str) -> Result<u64> {
        (self.count)(text)
    }
}

impl fmt::Debug for TokenCount {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.debug_struct("TokenCount").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for TokenCount {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.count, &other.count)
    }
}
