//! `radialsim list`, `completions` and `man`: what there is.

use clap::CommandFactory;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use radialsim::error::{Error, Result};
use radialsim::report::list::{self, List};
use std::path::PathBuf;

/// The names of what can be listed, each with what it is.
pub fn names() -> impl TypedValueParser<Value = List> {
    let known = List::ALL.map(|(_, name, words)| PossibleValue::new(name).help(words));
    PossibleValuesParser::new(known).map(|name| {
        let found = List::ALL.into_iter().find(|(_, known, _)| *known == name);
        found.expect("the parser lets no other name pass").0
    })
}

/// Prints a list.
pub fn run(list: List) -> Result<()> {
    super::print(&list::table(list)?)
}

/// Prints what a shell completes.
pub fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::Args::command(), "radialsim", &mut text);
    super::print(&String::from_utf8_lossy(&text))
}

/// Where manual pages go.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for the pages; created if absent.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes a manual page for each command.
pub fn man(args: &ManArgs) -> Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(Error::io(&args.folder, "make"))?;
    clap_mangen::generate_to(super::Args::command(), &args.folder)
        .map_err(Error::io(&args.folder, "write to"))
}
