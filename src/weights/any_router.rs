//! Routers of any kind, as their files describe themselves.

use super::router_file::RouterFile;
use super::{RadialRouter, SkipRouter, WordTable};
use crate::error::{Error, Result};
use crate::model::{Described, Model};
use std::path::Path;

/// A router with a description of itself.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyRouter {
    /// Decides before each layer.
    Skip(SkipRouter),
    /// Decides hop by hop.
    Radial(RadialRouter),
    /// Decides nothing: routes stand in it.
    Table(WordTable),
}

impl AnyRouter {
    /// Reads one of any kind; `None` where the file has no key `radial` in its metadata.
    ///
    /// # Errors
    /// Those of [`SkipRouter::read`] and [`RadialRouter::read`].
    pub fn read(path: &Path) -> Result<Option<AnyRouter>> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let file = RouterFile::open(&bytes, path)?;
        Ok(match &file.described {
            None => None,
            Some(Described::Skip(described)) => {
                Some(AnyRouter::Skip(SkipRouter::of(&file, described.clone())?))
            }
            Some(Described::Radial(described)) => {
                Some(AnyRouter::Radial(RadialRouter::of(&file, described.clone())?))
            }
            Some(Described::Table(described)) => {
                Some(AnyRouter::Table(WordTable::read(&file, described.clone())?))
            }
        })
    }

    /// What it says of itself.
    pub fn described(&self) -> Described {
        match self {
            AnyRouter::Skip(router) => Described::Skip(router.described.clone()),
            AnyRouter::Radial(router) => Described::Radial(router.described.clone()),
            AnyRouter::Table(table) => Described::Table(table.described.clone()),
        }
    }

    /// Whether it was made for a model of these shapes.
    ///
    /// # Errors
    /// Other shapes.
    pub fn check(&self, model: &Model) -> Result<()> {
        match self {
            AnyRouter::Skip(router) => router.check(model.layers, model.hidden),
            AnyRouter::Radial(router) => router.check(model),
            AnyRouter::Table(table) => table.check(model),
        }
    }
}
