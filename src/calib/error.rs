//! How wrong predictions are.

use statrs::statistics::{Data, OrderStatistics, Statistics};

/// Errors of predictions in percent of what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// Rows compared.
    pub rows: usize,
    /// Mean without sign.
    pub mean: f64,
    /// Mean with sign: above 0, predictions are too long.
    pub bias: f64,
    /// Median without sign.
    pub p50: f64,
    /// 90th percentile without sign.
    pub p90: f64,
    /// 99th percentile without sign.
    pub p99: f64,
    /// Largest without sign.
    pub worst: f64,
}

impl Errors {
    /// Of pairs (predicted, measured), all above 0; `None` without pairs.
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Errors> {
        let signed: Vec<f64> = pairs.into_iter().map(|(said, was)| 100.0 * (said / was - 1.0)).collect();
        if signed.is_empty() {
            return None;
        }
        let sizes: Vec<f64> = signed.iter().map(|error| error.abs()).collect();
        let (mean, worst) = ((&sizes).mean(), (&sizes).max());
        let mut ordered = Data::new(sizes);
        Some(Errors {
            rows: signed.len(),
            mean,
            bias: (&signed).mean(),
            p50: ordered.percentile(50),
            p90: ordered.percentile(90),
            p99: ordered.percentile(99),
            worst,
        })
    }
}
