//! Rows brought into a narrower format: what is multiplied with what. Rounding is left out, as it is no operation on real numbers.

use super::{Number, expect};

/// Each value of `input` times `1 / scale`, held within `largest` and its negative: one scale for all, known before.
pub fn quantise<N: Number>(input: &[N], inverse_scale: N, largest: f64) -> Vec<N> {
    let (most, least) = (N::constant(largest), N::constant(-largest));
    let held = |value: N| {
        let value = value * inverse_scale;
        let value = if value.exceeds(most) { most } else { value };
        if least.exceeds(value) { least } else { value }
    };
    input.iter().map(|&value| held(value)).collect()
}

/// The same by blocks of a row: each has the scale that brings its largest size to `largest`, in units of `unit` where the format has a
/// scale of the whole besides. `input`: `rows x width`. Results: the values, and the scales block by block.
pub fn quantise_blocks<N: Number>(
    (rows, width): (usize, usize),
    block: usize,
    input: &[N],
    largest: f64,
    unit: Option<N>,
) -> (Vec<N>, Vec<N>) {
    expect(input, "input", &[rows, width]);
    let (mut values, mut scales) = (Vec::with_capacity(input.len()), Vec::new());
    for row in input.chunks_exact(width) {
        for block in row.chunks(block) {
            // A block of zeros has a scale above 0, too.
            let least = N::constant(f64::MIN_POSITIVE);
            let most = block.iter().fold(least, |most, value| most.max(value.size()));
            let scale = most / N::constant(largest);
            let scale = unit.map_or(scale, |unit| scale * unit);
            scales.push(scale);
            values.extend(block.iter().map(|&value| value / scale));
        }
    }
    (values, scales)
}
