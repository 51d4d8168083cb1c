//! How wrong a price may be: of which population that is said, and with which coverage. `docs/METRICS.md`, "Error".

use crate::hw::Hardware;

/// How wrong a price may be, in hundredths of a percent, so that sums of it over kernels are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PriceError {
    /// Mean absolute error of the correction that made it, on rows kept aside.
    pub mean: u32,
    /// Half width of the nominal 90 % interval of what the source of the fitted tables measures of a shape that no fit saw.
    pub same_source: u32,
    /// The same of what another source measures on the device: another card, another build of the software, another way to take times.
    pub any_source: u32,
}

/// How far the logarithms of two sources' times of the same products lie apart, as half the width of a 90 % interval, beyond what the interval
/// of one source holds. From Llama-2-7B's products, which Vidur timed and aiconfigurator's tables predict, on H100 and A100: of the 32 families
/// (a product of a width on a device) about 0.39 holds the share (1 + 1 / 32) 0.9 that a conformal interval asks for, of which the fits' own
/// intervals are 0.09. No device has more than two sources here. Of attention and small kernels no second source is at hand; they take
/// that of products, which is assumed.
pub const BETWEEN_SOURCES: f64 = 0.38;

/// How much wider the error of an extrapolated price is than that of its correction. Assumed: beyond the fitted rows a correction knows
/// nothing new, and without it prices of products on H100 are three times as wrong on rows kept aside (`docs/VALIDATION.md`:
/// 11.7 against 3.8 %), others more.
pub const EXTRAPOLATED: f64 = 3.0;

impl PriceError {
    /// From a mean error and the half width of the 90 % interval of one source, both in percent.
    pub fn new(mean: f64, interval: f64) -> PriceError {
        PriceError {
            mean: hundredths(mean),
            same_source: hundredths(interval),
            any_source: hundredths(joined(interval)),
        }
    }

    /// Of a price that a further correction, as wrong as this, stands on: the two have nothing to do with each other.
    pub fn and(self, other: PriceError) -> PriceError {
        let mean = libm::hypot(percent(self.mean), percent(other.mean));
        let logarithm = |error: PriceError| libm::log1p(percent(error.same_source) / 100.0);
        PriceError::new(mean, 100.0 * libm::expm1(libm::hypot(logarithm(self), logarithm(other))))
    }

    /// So many times as large, but for the spread between sources.
    pub fn times(self, factor: f64) -> PriceError {
        PriceError::new(percent(self.mean) * factor, percent(self.same_source) * factor)
    }

    /// Of a price by what was learned on a device as far from this one as `distance`: at the distance of the loans that were measured,
    /// `lent` percent on average; in between and beyond in proportion to the distance.
    pub fn lent(self, lent: f64, distance: f64) -> PriceError {
        let own = percent(self.mean);
        let more = (lent - own).max(0.0) * distance / Hardware::DEVICES_APART;
        if own > 0.0 { self.times(1.0 + more / own) } else { PriceError::new(more, more) }
    }
}

/// The half width of both spreads together, in percent: they have nothing to do with each other, so their logarithms add up by squares.
fn joined(interval: f64) -> f64 {
    let within = libm::log1p(interval / 100.0);
    100.0 * libm::expm1(libm::hypot(within, BETWEEN_SOURCES))
}

fn hundredths(percent: f64) -> u32 {
    (percent * 100.0).round() as u32
}

/// Hundredths of a percent, in percent.
pub fn percent(hundredths: u32) -> f64 {
    f64::from(hundredths) / 100.0
}
