//! What a network is worth on texts: perplexity, and the divergence of its predictions from a teacher's, each with its interval.
//!
//! Whoever runs networks fills a [`SequenceSums`] for each sequence; a [`NetworkWorth`] is what came of one network, and a table of rows is what `train measure`
//! and `execute --perplexity` write and a study reads.

mod bootstrap;
mod table;
#[cfg(feature = "gpu")]
mod texts;

pub use bootstrap::{Quality, SequenceSums};
pub use table::{MOST_BYTES, NetworkWorth, QualityTable};
#[cfg(feature = "gpu")]
pub use texts::{Texts, read_strings, read_texts};
