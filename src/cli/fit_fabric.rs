//! `radialsim fit --fabric`: measured collectives in, the curves of a fabric out.

use super::fit_args::Args;
use super::print;
use radialsim::calib::fabric;
use radialsim::error::{InputError, Result};
use radialsim::hw::{Fabric, Wiring};
use radialsim::report::{Staged, fabric_fits};
use std::path::Path;

/// Fits, says how wrong the result is, and writes it.
pub fn run(args: &Args, base: &str) -> Result<()> {
    if base.contains('+') && !Path::new(base).is_file() {
        let expected = "one fabric; networks are fitted on their own";
        return Err(InputError::expected(expected).key("fabric").found(base).into());
    }
    let staged = args.out.as_ref().map(Staged::create).transpose()?;
    let mut fabric = match Path::new(base).is_file() {
        true => Fabric::load(base)?,
        false => Fabric::datasheet(base)?,
    };
    if args.data.is_none() && args.pairs.is_none() {
        let expected = "--data DIR or --pairs FILE.csv beside --fabric";
        return Err(InputError::expected(expected).key("data").into());
    }
    if let Some(name) = &args.name {
        fabric.name.clone_from(name);
    }
    let across = fabric.levels.iter().any(|level| level.wiring == Wiring::Network);
    let tables = fabric::read(args.data.as_deref(), args.pairs.as_deref(), across)?;
    let lender = args.from.as_deref().map(Fabric::resolve).transpose()?;
    let lender = lender.as_ref().map(|lender| &lender.levels[0]);
    print(&fabric_fits(&fabric::fit(&mut fabric, &tables, lender)?))?;
    let Some(staged) = staged else { return Ok(()) };
    let text = fabric.text();
    staged.finish(|out| out.write_all(text.as_bytes()))
}
