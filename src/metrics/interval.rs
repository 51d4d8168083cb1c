//! How sure a mean over seeds is.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean with its confidence interval: mean - half width to mean + half width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half the width of the interval.
    pub half_width: f64,
}

impl Interval {
    /// Of independent `values` of one normal distribution: with n values, mean m and sample deviation s, m -+ t s / sqrt(n),
    /// where t is the quantile (1 + level) / 2 of Student's distribution with n - 1 degrees of freedom.
    /// None for fewer than two values, which say nothing about their spread.
    pub fn of(values: &[f64], level: f64) -> Option<Self> {
        if values.len() < 2 {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let student = StudentsT::new(0.0, 1.0, count - 1.0).expect("at least one degree of freedom");
        let half_width = student.inverse_cdf((1.0 + level) / 2.0) * (variance / count).sqrt();
        Some(Interval { mean, half_width })
    }
}
