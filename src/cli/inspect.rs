//! `radialsim inspect`: files in plain words.

use super::print;
use radialsim::error::Result;
use radialsim::trace::Stats;

/// What to look at.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// A built-in model, or a Hugging Face config.json (file or folder).
    Model {
        /// Name or path.
        name: String,
    },
}

/// Looks.
pub fn run(what: &What) -> Result<()> {
    match what {
        What::Model { name } => print(&radialsim::model::Model::resolve(name)?.describe()),
    }
}

/// The counts of a trace, a line each.
pub fn counts(stats: &Stats) -> String {
    format!("requests {}\n", stats.requests)
}
