//! The four constants of a kernel class, by the mean absolute error of logarithms.

use super::rows::MeasuredCall;
use crate::cost::{Device, Limits};
use crate::error::Result;
use crate::hw::{Efficiency, Hardware, Source};
use crate::kernel::Class;

/// Rows that the search looks at; more change the constants in the third digit.
pub(super) const MOST_ROWS: usize = 3000;
/// Times that every constant is searched in turn.
const ROUNDS: usize = 4;
/// Steps of the search along one constant, each by the golden ratio.
const STEPS: usize = 14;

/// Constants of a class in the profile.
pub(super) fn of_class(hw: &mut Hardware, class: Class) -> &mut Efficiency {
    match class {
        Class::MatMul => &mut hw.kernels.matmul,
        Class::PrefillAttention => &mut hw.kernels.prefill_attention,
        Class::DecodeAttention => &mut hw.kernels.decode_attention,
        Class::Elementwise => &mut hw.kernels.elementwise,
        Class::Gather => &mut hw.kernels.gather,
        Class::Collective => unreachable!("fabrics have the times of messages, not profiles"),
    }
}

/// Sets the four constants of `class` to what fits these rows best.
pub(super) fn search(hw: &mut Hardware, class: Class, rows: &[&MeasuredCall], source: &Source) -> Result<()> {
    let step = rows.len().div_ceil(MOST_ROWS).max(1);
    let some: Vec<&MeasuredCall> = rows.iter().step_by(step).copied().collect();
    let shortest = some.iter().map(|row| row.seconds * 1e6).fold(f64::INFINITY, f64::min);
    // Bounds of flops, bytes, fixed microseconds, overlap; no call is shorter than the fixed time, give or take noise.
    let bounds = [(0.02, 1.2), (0.02, 1.5), (0.0, 1.2 * shortest), (0.0, 1.0)];
    for round in 0..ROUNDS {
        for (constant, &(low, high)) in bounds.iter().enumerate() {
            // The first search is over the whole range, later ones around what is known.
            let now = *value(of_class(hw, class), constant);
            let reach = (high - low) / f64::from(1u32 << round);
            let range = ((now - reach).max(low), (now + reach).min(high));
            let mut error = |at: f64| -> Result<f64> {
                *value(of_class(hw, class), constant) = at;
                log_error(hw, &some)
            };
            let best = golden(range, &mut error)?;
            let rounded = format!("{best:.4e}").parse().unwrap_or(best);
            *value(of_class(hw, class), constant) = rounded;
        }
    }
    let efficiency = of_class(hw, class);
    for number in
        [&mut efficiency.flops, &mut efficiency.bytes, &mut efficiency.fixed_us, &mut efficiency.overlap]
    {
        number.source = source.clone();
    }
    Ok(())
}

fn value(efficiency: &mut Efficiency, constant: usize) -> &mut f64 {
    let Efficiency { flops, bytes, fixed_us, overlap } = efficiency;
    &mut [flops, bytes, fixed_us, overlap][constant].value
}

fn log_error(hw: &Hardware, rows: &[&MeasuredCall]) -> Result<f64> {
    let device = Device::new(hw, Limits::default())?;
    let error = |row: &&MeasuredCall| libm::log(device.physical(&row.kernel).time.s() / row.seconds).abs();
    Ok(rows.iter().map(error).sum())
}

/// How constants are searched one after the other, round after round.
pub(crate) struct Rounds {
    pub rounds: i32,
    /// Reach of the first search along a constant, in either direction: a factor.
    pub reach: f64,
    /// By what the logarithm of the reach is divided from round to round.
    pub closer: f64,
}

impl Rounds {
    /// The constants of least `cost`, begun with the first number of each of `bounds`; the others are the least and the largest that it may be.
    /// `taken`: which are searched. `rounded`: what a constant is written as.
    pub fn search<const N: usize>(
        &self,
        bounds: [(f64, f64, f64); N],
        taken: [bool; N],
        rounded: impl Fn(f64) -> f64,
        cost: impl Fn(&[f64; N]) -> f64,
    ) -> Result<[f64; N]> {
        let mut at = bounds.map(|(begin, ..)| begin);
        let mut known = cost(&at);
        for round in 0..self.rounds {
            let reach = libm::log(self.reach) / libm::pow(self.closer, f64::from(round));
            for constant in (0..N).filter(|&constant| taken[constant]) {
                let (_, low, high) = bounds[constant];
                let now = libm::log(at[constant]);
                let range = ((now - reach).max(libm::log(low)), (now + reach).min(libm::log(high)));
                let with = |value: f64| {
                    let mut other = at;
                    other[constant] = rounded(libm::exp(value)).clamp(low, high);
                    other
                };
                let best = golden(range, &mut |value| Ok(cost(&with(value))))?;
                let other = with(best);
                let found = cost(&other);
                if found < known {
                    (at, known) = (other, found);
                }
            }
        }
        Ok(at)
    }
}

/// Golden-section search (Kiefer 1953) for the least of a function of one valley; with more, a near one.
pub(crate) fn golden(
    (mut low, mut high): (f64, f64),
    of: &mut impl FnMut(f64) -> Result<f64>,
) -> Result<f64> {
    let ratio = (libm::sqrt(5.0) - 1.0) / 2.0;
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_a, mut at_b) = (of(a)?, of(b)?);
    for _ in 0..STEPS {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - ratio * (high - low);
            at_a = of(a)?;
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + ratio * (high - low);
            at_b = of(b)?;
        }
    }
    Ok(if at_a <= at_b { a } else { b })
}
