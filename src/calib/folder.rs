//! A folder of measured tables, known by their names.

use super::experts::{ExpertFit, fit_experts, read_experts};
use super::fit::{Fit, OperatorFit, fit};
use super::fitted::Fitted;
use super::grid::fit_layers;
use super::layers;
use super::more_layers::add_layers;
use super::rows::{Operator, TableFormat, read};
use crate::error::{Error, InputError, Result};
use crate::hw::Hardware;
use std::path::{Path, PathBuf};

/// What tables of a folder taught a profile.
#[derive(Clone, Debug)]
pub enum FolderFit {
    /// Operators, one by one, and whole expert layers.
    Operators(Vec<OperatorFit>, Vec<ExpertFit>),
    /// The layers of one model.
    Layers(Vec<Fitted>),
}

/// Fits the profile `hw` to the tables in `folder`: those of operators, or those of the layers of a model.
///
/// # Errors
/// No table, two of a kind, and those of [`read`] and [`fit`].
pub fn fit_folder(hw: &mut Hardware, folder: &Path, how: &Fit) -> Result<FolderFit> {
    let names = names(folder)?;
    if let Some(tables) = layers::find(folder, &names)? {
        if how.share < 1.0 {
            let wrong = InputError::expected(
                "1 where layers of a model are fitted, of which each is kept aside in turn",
            );
            return Err(wrong.key("share").found(how.share).into());
        }
        return Ok(FolderFit::Layers(fit_layers(hw, &layers::read(&tables)?)?));
    }
    let mut reports: Vec<OperatorFit> = Vec::new();
    // 16 bits first, whose constants are the class's.
    for format in TableFormat::ALL {
        for (operator, _) in Operator::ALL {
            let mut found = names.iter().filter(|path| measures(path) == Some((operator, format)));
            let Some(path) = found.next() else { continue };
            if let Some(second) = found.next() {
                let key = operator.in_format(format).unwrap_or_default();
                let wrong = InputError::expected("one table of each kind").key(key).file(folder);
                return Err(wrong.found(second.display()).into());
            }
            let table = read(path, operator, format, true)?;
            reports.push(fit(hw, &table, how).map_err(|error| error.in_file(path))?);
        }
    }
    let mut experts = Vec::new();
    for path in names.iter().filter(|path| measures_experts(path)) {
        let table = read_experts(path)?;
        experts.extend(fit_experts(hw, &table).map_err(|error| error.in_file(path))?);
    }
    if reports.is_empty() && experts.is_empty() {
        let wrong = "tables gemm*, context_attention*, generation_attention* (.csv, .parquet) or moe* (.csv)";
        return Err(InputError::expected(wrong).file(folder).into());
    }
    Ok(FolderFit::Operators(reports, experts))
}

/// Adds what the tables of a model's layers in `folder` say to a profile that has those of another ([`add_layers`]).
///
/// # Errors
/// No such tables, and those of [`add_layers`].
pub fn add_folder(hw: &mut Hardware, folder: &Path) -> Result<Vec<Fitted>> {
    let expected = "tables MODEL_dense.csv, MODEL_per_sequence.csv and MODEL_attention.csv";
    let none = || Error::from(InputError::expected(expected).key("add").file(folder));
    let tables = layers::find(folder, &names(folder)?)?.ok_or_else(none)?;
    add_layers(hw, &layers::read(&tables)?)
}

/// The files of a folder.
fn names(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        names.push(entry.map_err(Error::io(folder, "read"))?.path());
    }
    names.sort();
    Ok(names)
}

/// Whether the name of a table says that it measures whole expert layers.
fn measures_experts(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("moe") && path.extension().is_some_and(|ending| ending == "csv")
}

/// What the name of a table says that it measures: `gemm*` in 16 bits, but `gemm_fp8*`, `gemm_fp8_block*` and `gemm_nvfp4*`;
/// `context_attention*` and `generation_attention*` likewise, `_fp8kv*` over a cache in 8 bits.
fn measures(path: &Path) -> Option<(Operator, TableFormat)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = path.extension().is_some_and(|ending| ending == "csv" || ending == "parquet");
    let (operator, _) = Operator::ALL.into_iter().find(|(_, stem)| name.starts_with(stem) && ending)?;
    let in_format = |&format: &TableFormat| {
        operator
            .in_format(format)
            .filter(|stem| name.starts_with(stem.as_str()))
            .map(|stem| (stem.len(), format))
    };
    // The longest name that fits: `gemm_fp8_block` also begins as `gemm_fp8`.
    let (_, format) = TableFormat::ALL.iter().filter_map(in_format).max_by_key(|&(length, _)| length)?;
    Some((operator, format))
}
