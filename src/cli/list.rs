//! `radialsim list`, `completions` and `man`: what there is.

use clap::CommandFactory;
use radialsim::error::{Error, Result};
use radialsim::report::list::{self, List};
use std::path::PathBuf;

/// What to list.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum What {
    /// Built-in models.
    Models,
    /// Shipped devices.
    Hardware,
    /// Shipped fabrics, which join devices.
    Fabrics,
    /// Engines whose host times are known.
    Engines,
    /// Dispatch policies.
    Policies,
    /// Ways to draw routes.
    Methods,
    /// Numbers of a variant, for studies.
    Metrics,
}

/// Prints a list.
pub fn run(what: What) -> Result<()> {
    let list = match what {
        What::Models => List::Models,
        What::Hardware => List::Hardware,
        What::Fabrics => List::Fabrics,
        What::Engines => List::Engines,
        What::Policies => List::Policies,
        What::Methods => List::Methods,
        What::Metrics => List::Metrics,
    };
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
    /// Folder for them; made where it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes a manual page for each command.
pub fn man(args: &ManArgs) -> Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(Error::io(&args.folder, "make"))?;
    clap_mangen::generate_to(super::Args::command(), &args.folder)
        .map_err(Error::io(&args.folder, "write to"))
}
