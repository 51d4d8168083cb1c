//! From tables of measured collectives to the curves of a fabric, with their errors on sizes and on numbers of devices kept aside.

mod curves;
mod exchange;
mod rows;

pub use curves::CurveFit;
pub use exchange::ExchangeFit;
pub use rows::{CollectiveSeries, ExchangeRow, FabricTables, read};

use crate::error::{InputError, Result};
use crate::hw::{Collectives, Fabric, Level, Source};

/// What a fit says of itself.
#[derive(Clone, Debug)]
pub struct FabricFit {
    /// A row for each curve.
    pub curves: Vec<CurveFit>,
    /// A row for each way of an exchange.
    pub exchanges: Vec<ExchangeFit>,
    /// Series that repeated another one, and were left out.
    pub copies: usize,
}

/// Fits the curves of `fabric`, which has one level, to these tables; all else in it stays as it is. Where a table has several versions of a
/// library, all are fitted and the newest is written. With `lender`, every row is also held against what that level would lend.
///
/// # Errors
/// A fabric of several levels; tables that no curve can be made of.
pub fn fit(fabric: &mut Fabric, tables: &FabricTables, lender: Option<&Level>) -> Result<FabricFit> {
    let [level] = fabric.levels.as_slice() else {
        let expected = "a fabric of one level; networks are fitted on their own";
        return Err(InputError::expected(expected).key("levels").found(fabric.levels.len()).into());
    };
    let (lent, lent_by) = (level.lent.clone(), level.lender.clone());
    let level = Level { lent: None, lender: None, collectives: None, ..level.clone() };
    let fits = curves::fit(&level, &tables.series, lender)?;
    let exchanges = exchange::fit(tables)?;
    let files =
        tables.files.iter().map(|(name, writer, sha256)| format!("{name} ({writer}; sha256 {sha256})"));
    let source = format!(
        "radialsim fit, larger messages never faster, of {}; errors are those of fits that had not seen the rows",
        files.collect::<Vec<_>>().join(", ")
    );
    fabric.levels[0] = Level {
        collectives: Some(Collectives {
            gb_per_s: level.gb_per_s.value,
            source: Source::Fitted(source),
            curves: fits.iter().filter(|fit| fit.written).map(|fit| fit.curve.clone()).collect(),
            exchanges: exchanges.iter().map(|fit| fit.constants.clone()).collect(),
        }),
        // What these tables do not have goes on to be lent.
        lent,
        lender: lent_by,
        ..level
    };
    fabric.check()?;
    Ok(FabricFit { curves: fits, exchanges, copies: tables.copies })
}
