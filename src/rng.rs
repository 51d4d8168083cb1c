//! Named, reproducible random streams: the same seed and name give the same numbers on every machine.
//!
//! Each use draws from its own stream (`"lengths"`, `"routes"`, ...), so that adding a draw in one place leaves
//! every other place as it was.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// The first 64 bits of a hash.
pub fn first_word(hash: Sha256) -> u64 {
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A probability, ready for many decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odds {
    /// 1.
    Always,
    /// Its binary digits, the first in the highest bit: 53 of them, as [`Stream::chance`] has.
    Digits(u64),
}

impl Odds {
    /// Of a probability `p`.
    pub fn new(p: f64) -> Odds {
        // As many multiples of 2^-53 are below p.
        let below = libm::ceil(p.clamp(0.0, 1.0) * (1u64 << 53) as f64) as u64;
        if below == 1 << 53 { Odds::Always } else { Odds::Digits(below << 11) }
    }
}

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream called `name` of the run with this `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(name.as_bytes());
        Stream(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..bound`; `bound` must not be 0. Multiply-shift (Lemire, arXiv 1805.10941); its bias is below bound / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a draw from an empty range");
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Puts values into another order, each order equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// So many independent decisions (at most 64), each true with the same probability, as bits from the lowest on.
    ///
    /// Each lane compares a uniform number with the probability digit by digit, all lanes at once, and stops when every lane is decided: for 64
    /// lanes after about 8 words rather than 64; where the probability has few binary digits, after as many words as it has digits.
    #[inline]
    pub fn chances(&mut self, odds: Odds, lanes: u32) -> u64 {
        assert!(lanes <= 64, "{lanes} decisions in 64 bits");
        let mut undecided = u64::MAX.checked_shr(64 - lanes).unwrap_or(0);
        let Odds::Digits(mut left) = odds else { return undecided };
        let mut yes = 0;
        while undecided != 0 && left != 0 {
            let word = if lanes <= 32 { self.0.next_u32().into() } else { self.0.next_u64() };
            // Where the digit is 1, a lane with 0 is below; where it is 0, a lane with 1 is above.
            let digit = (left >> 63).wrapping_neg();
            yes |= undecided & digit & !word;
            undecided &= !(word ^ digit);
            left <<= 1;
        }
        yes
    }

    /// Standard normal, by Box and Muller. `libm` rather than the system's, for equal digits everywhere.
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Log-normal with this median and this standard deviation of the logarithm.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * libm::exp(sigma * self.normal())
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.uniform())
    }

    /// Gamma with this shape (above 0) and scale 1: mean and variance are `shape`. Marsaglia and Tsang, A simple method for
    /// generating gamma variables, ACM TOMS 26 (2000); shapes below 1 by their remark G(k) = G(k + 1) U^(1/k).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let larger = self.gamma(shape + 1.0);
            return larger * libm::pow(1.0 - self.uniform(), 1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let root = 1.0 + c * x;
            if root > 0.0 {
                let v = root * root * root;
                let log_u = libm::log(1.0 - self.uniform());
                if log_u < 0.5 * x * x + d - d * v + d * libm::log(v) {
                    return d * v;
                }
            }
        }
    }

    /// An index of `weights`, drawn in proportion to them. None where they sum to zero.
    pub fn weighted(&mut self, weights: &[f64]) -> Option<usize> {
        let total: f64 = weights.iter().sum();
        if total.is_nan() || total <= 0.0 {
            return None;
        }
        let mut left = self.uniform() * total;
        let last = weights.iter().rposition(|&w| w > 0.0);
        weights
            .iter()
            .position(|&w| {
                left -= w;
                left < 0.0 && w > 0.0
            })
            .or(last)
    }
}

#[cfg(test)]
mod tests {
    use super::{Odds, Stream};
    use proptest::prelude::*;

    proptest! {
        /// Lane by lane the digits of the words are those of a number that is compared with p; how many words are read is another matter.
        #[test]
        fn decisions_side_by_side_are_decisions_one_by_one(
            p in prop_oneof![Just(0.0), Just(1.0), Just(0.25), Just(f64::MIN_POSITIVE), 0.0..1.0], lanes in 0..=64_u32, seed in any::<u64>(),
        ) {
            let mut words = Stream::new(seed, "decisions");
            let yes = words.clone().chances(Odds::new(p), lanes);
            let mut word = || if lanes <= 32 { u64::from(words.0.next_u32()) } else { words.0.next_u64() };
            let digits: Vec<u64> = (0..53).map(|_| word()).collect();
            for lane in 0..64 {
                let number = digits.iter().fold(0, |number: u64, word| number << 1 | (word >> lane & 1));
                let below = lane < lanes && (number as f64) < p * (1_u64 << 53) as f64;
                prop_assert_eq!(yes >> lane & 1 == 1, below, "lane {} of {} at {}", lane, lanes, p);
            }
        }
    }

    /// As often as it should be: 64,000 decisions, within four standard deviations.
    #[test]
    fn decisions_are_as_frequent_as_asked() {
        let mut stream = Stream::new(1, "decisions");
        for p in [0.003, 0.25, 0.5, 0.7, 0.99] {
            let yes: u32 = (0..1000).map(|_| stream.chances(Odds::new(p), 64).count_ones()).sum();
            let (mean, deviation) = (64_000.0 * p, (64_000.0 * p * (1.0 - p)).sqrt());
            assert!((f64::from(yes) - mean).abs() < 4.0 * deviation, "{yes} of {mean} at {p}");
        }
    }
}
