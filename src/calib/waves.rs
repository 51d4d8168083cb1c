//! The constants of the waves of tiles, by the mean absolute error of logarithms.

use super::constants::{MOST_ROWS, Rounds};
use super::rounded;
use super::rows::MeasuredCall;
use crate::cost::{Device, Limits};
use crate::error::Result;
use crate::hw::{Hardware, Quantising, Waves};
use crate::kernel::Kernel;

/// How the constants are searched.
const SEARCH: Rounds = Rounds { rounds: 5, reach: 4.0, closer: 1.6 };
/// What a constant costs that lies a factor of two off what one expects of it, in the mean absolute logarithm. Rows that say little about
/// a constant leave it where one expects it, which is also what another device can best borrow.
const PULL: f64 = 0.003;

/// What one expects of a GPU, and the bounds of the search. Cycles: a kernel in a captured graph starts in about 2 us; a load from the
/// last cache takes 200 to 300 cycles and one from memory 500 to 800 (microbenchmarks, arXiv 1804.06826, 2208.11174), of which a step
/// hides a part, a wave waits for a few in a row, and a split for a store and a load more. A unit takes 64 bytes a cycle from the last
/// cache (NVIDIA A100 whitepaper: 5120 bytes a cycle for 80 slices). Shares: near 1, most of the cache, half of what could be hidden.
const EXPECTED: [(f64, f64, f64); 14] = [
    (4000.0, 300.0, 12_000.0),
    (0.9, 0.3, 1.2),
    (0.9, 0.5, 1.1),
    (0.8, 0.1, 3.0),
    (60.0, 10.0, 200.0),
    (150.0, 1.0, 1500.0),
    (1500.0, 1.0, 8000.0),
    (3000.0, 1.0, 15_000.0),
    (0.5, 0.01, 0.99),
    (0.7, 0.2, 1.5),
    (0.5, 0.01, 1.0),
    // Quantising: a small kernel; a block a row, handed out one in some cycles; half of the bandwidth.
    (3000.0, 100.0, 12_000.0),
    (10.0, 0.1, 60.0),
    (0.5, 0.05, 1.1),
];
/// Constants of products whose times hold no quantising.
const PLAIN: usize = 11;

/// The constants that fit these rows best, and the mean absolute logarithm of what they leave. Constants of quantising are searched where
/// the rows have products with quantised inputs.
pub(super) fn search(hw: &Hardware, rows: &[&MeasuredCall]) -> Result<(Waves, f64)> {
    let quantised = |row: &&MeasuredCall| matches!(row.kernel, Kernel::MatMul { inputs, activations, .. } if inputs != activations);
    let count = if rows.first().is_some_and(quantised) { EXPECTED.len() } else { PLAIN };
    let of = |values: &[f64; 14]| of(values, count);
    let device = Device::new(hw, Limits::default())?;
    let step = rows.len().div_ceil(MOST_ROWS).max(1);
    let some: Vec<&MeasuredCall> = rows.iter().step_by(step).copied().collect();
    let left = |at: &[f64; 14]| -> f64 {
        let waves = of(at);
        let error =
            |row: &&MeasuredCall| libm::log(device.base(&row.kernel, Some(&waves)).s() / row.seconds).abs();
        some.iter().map(error).sum::<f64>() / some.len().max(1) as f64
    };
    let cost = |at: &[f64; 14]| -> f64 {
        let off = at.iter().zip(EXPECTED).map(|(value, (expected, ..))| libm::log2(value / expected));
        left(at) + PULL * off.map(|off| off * off).sum::<f64>()
    };
    let taken = std::array::from_fn(|constant| constant < count);
    let at = SEARCH.search(EXPECTED, taken, rounded, cost)?;
    Ok((of(&at), left(&at)))
}

fn of(values: &[f64; 14], count: usize) -> Waves {
    let [
        start_cycles,
        flops,
        dram,
        l2,
        unit_bytes,
        step_cycles,
        wave_cycles,
        split_cycles,
        overlap,
        kept,
        again,
        ref quantise @ ..,
    ] = *values;
    let [quantise_start, row_cycles, quantise_dram] = *quantise;
    Waves {
        start_cycles,
        flops,
        dram,
        l2,
        unit_bytes,
        step_cycles,
        wave_cycles,
        split_cycles,
        overlap,
        kept,
        again,
        quantise: (count > PLAIN).then_some(Quantising {
            start_cycles: quantise_start,
            row_cycles,
            dram: quantise_dram,
        }),
    }
}
