//! Constants of expert exchange, by the mean absolute error of logarithms.

use super::rows::{ExchangeRow, FabricTables};
use crate::calib::{PercentErrors, Rounds, least_squares, rounded};
use crate::cost::exchange_us;
use crate::error::{Error, InputError, Result};
use crate::hw::{Exchange, ExchangeMode, ExchangePart, Held};
use std::collections::BTreeSet;

/// How the constants are searched.
const SEARCH: Rounds = Rounds { rounds: 12, reach: 6.0, closer: 1.4 };
/// Where the search begins, and its bounds: a call of some microseconds, a hundredth for an expert, a thousandth for a value, a tenth for a
/// token, the bandwidth of a link, what one expert or unit reaches of it.
const BEGIN: [(f64, f64, f64); 6] = [
    (15.0, 1.0, 200.0),
    (0.01, 1e-6, 1.0),
    (1e-3, 1e-7, 0.1),
    (0.1, 1e-6, 10.0),
    (300.0, 1.0, 5000.0),
    (10.0, 0.01, 1000.0),
];

/// One way of an exchange with its errors, on shapes that the fit had not seen.
#[derive(Clone, Debug)]
pub struct ExchangeFit {
    /// The constants, of all rows.
    pub constants: Exchange,
    /// Rows.
    pub rows: usize,
    /// Shapes (hidden width, chosen experts, experts), each kept aside in turn.
    pub shapes: usize,
    /// On the shapes kept aside.
    pub held: PercentErrors,
    /// On the same rows, by a start and a bandwidth that fit the other shapes best.
    pub start_and_bandwidth: f64,
}

/// Fits each way that the tables have.
pub(super) fn fit(tables: &FabricTables) -> Result<Vec<ExchangeFit>> {
    let mut fits = Vec::new();
    for mode in [ExchangeMode::LowLatency, ExchangeMode::Normal] {
        for part in [ExchangePart::Dispatch, ExchangePart::Combine] {
            let of = |row: &&ExchangeRow| (row.mode, row.part) == (mode, part);
            let rows: Vec<&ExchangeRow> = tables.exchanges.iter().filter(of).collect();
            if !rows.is_empty() {
                fits.push(way(&rows, &tables.exchange_version)?);
            }
        }
    }
    Ok(fits)
}

fn shape(row: &ExchangeRow) -> (u32, u32, u32) {
    (row.call.hidden, row.call.chosen, row.call.experts)
}

fn way(rows: &[&ExchangeRow], version: &str) -> Result<ExchangeFit> {
    let shapes: BTreeSet<_> = rows.iter().map(|row| shape(row)).collect();
    if shapes.len() < 2 {
        let expected = "exchanges of two shapes or more, so that one can be kept aside";
        return Err(Error::from(InputError::expected(expected).key("hidden_size").found(shapes.len())));
    }
    let (mut held, mut plain) = (Vec::new(), Vec::new());
    for aside in &shapes {
        let (out, fitted): (Vec<&ExchangeRow>, Vec<&ExchangeRow>) =
            rows.iter().copied().partition(|row| shape(row) == *aside);
        let constants = search(&fitted, version)?;
        held.extend(out.iter().map(|row| (*aside, exchange_us(&constants, &row.call), row.us)));
        let bytes = |row: &ExchangeRow| row.call.bytes(row.mode, row.part);
        let relative = fitted.iter().map(|row| ([1.0 / row.us, bytes(row) / row.us], 1.0));
        let [start, each] = least_squares(relative, [(0.0, f64::INFINITY); 2]);
        plain.extend(out.iter().map(|row| (start + each * bytes(row), row.us)));
    }
    let none = || Error::from(InputError::expected("rows").key("hidden_size"));
    let errors = PercentErrors::of_families(held).ok_or_else(none)?;
    let error = Held { mean: rounded(errors.mean), interval: rounded(errors.interval) };
    Ok(ExchangeFit {
        constants: Exchange { error, ..search(rows, version)? },
        rows: rows.len(),
        shapes: shapes.len(),
        held: errors,
        start_and_bandwidth: PercentErrors::of(plain).ok_or_else(none)?.mean,
    })
}

/// The constants that fit these rows of one way best. A low-latency call costs by the expert, a normal one by values and tokens.
fn search(rows: &[&ExchangeRow], version: &str) -> Result<Exchange> {
    let first = rows.first().ok_or_else(|| InputError::expected("rows").key("hidden_size"))?;
    let taken: [bool; 6] = match first.mode {
        ExchangeMode::LowLatency => [true, true, false, false, true, true],
        ExchangeMode::Normal => [true, false, true, true, true, true],
    };
    let tokens = rows.iter().map(|row| row.call.tokens);
    let of = |at: &[f64; 6]| {
        let value = |place: usize| if taken[place] { rounded(at[place]) } else { 0.0 };
        Exchange {
            version: version.to_owned(),
            mode: first.mode,
            part: first.part,
            devices: first.call.devices,
            start_us: value(0),
            us_per_expert: value(1),
            us_per_value: value(2),
            us_per_token: value(3),
            gb_per_s: value(4),
            gb_per_s_each: value(5),
            tokens: (tokens.clone().min().unwrap_or(0), tokens.clone().max().unwrap_or(0)),
            error: Held { mean: 0.0, interval: 0.0 },
        }
    };
    let cost = |at: &[f64; 6]| -> f64 {
        let constants = of(at);
        rows.iter().map(|row| libm::log(exchange_us(&constants, &row.call) / row.us).abs()).sum()
    };
    Ok(of(&SEARCH.search(BEGIN, taken, |value| value, cost)?))
}
