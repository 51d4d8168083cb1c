//! Perplexity and divergence over sequences, with intervals.

use crate::rng::Stream;

/// Times that sequences are drawn anew for an interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3: at least 1,000 for
/// percentiles).
const DRAWS: usize = 2000;

/// Sums over one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SequenceSums {
    /// Negative log-likelihood, nats, of all tokens but the first.
    pub nll: f64,
    /// KL divergence of the teacher's predictions from these, nats, at the same tokens.
    pub kl: f64,
    /// Mean depth.
    pub depth: f64,
    /// Predictions.
    pub count: f64,
}

impl SequenceSums {
    /// Mean depth of sequences of equal length.
    pub fn mean_depth(all: &[SequenceSums]) -> f64 {
        all.iter().map(|row| row.depth).sum::<f64>() / all.len() as f64
    }
}

/// A mean with an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Over all sequences.
    pub mean: f64,
    /// Ends of the interval that holds 90 % of the means of as many sequences drawn with replacement; none of a single sequence, of which
    /// nothing follows for others.
    pub interval: Option<[f64; 2]>,
}

impl Quality {
    /// Of a sum over sequences divided by their predictions.
    pub fn of(all: &[SequenceSums], value: impl Fn(&SequenceSums) -> f64, seed: u64) -> Quality {
        let mean = |rows: &mut dyn Iterator<Item = &SequenceSums>| {
            let (sum, count) =
                rows.fold((0.0, 0.0), |(sum, count), row| (sum + value(row), count + row.count));
            sum / count
        };
        let drawn = || {
            let random = &mut Stream::new(seed, "bootstrap");
            let mut means: Vec<f64> = (0..DRAWS)
                .map(|_| mean(&mut (0..all.len()).map(|_| &all[random.below(all.len() as u64) as usize])))
                .collect();
            means.sort_unstable_by(f64::total_cmp);
            [means[DRAWS / 20], means[DRAWS - 1 - DRAWS / 20]]
        };
        let interval = (all.len() > 1).then(drawn);
        Quality { mean: mean(&mut all.iter()), interval }
    }

    /// Perplexity.
    pub fn perplexity(all: &[SequenceSums], seed: u64) -> Quality {
        let Quality { mean, interval } = Quality::of(all, |row| row.nll, seed);
        Quality { mean: libm::exp(mean), interval: interval.map(|ends| ends.map(libm::exp)) }
    }
}
