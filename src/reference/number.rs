//! What the oracles calculate with.

use std::ops::{Add, Div, Mul, Sub};

/// A number as the oracles need it. The four operators, `exp`, `sqrt`, `max` and `exceeds` are one operation each.
pub trait Number:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// A constant; not an operation.
    fn constant(value: f64) -> Self;
    /// Its value; not an operation.
    fn value(self) -> f64;
    /// Its absolute value; not an operation, as the sign is a bit.
    fn size(self) -> Self;
    /// e to this power.
    fn exp(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The larger of both.
    fn max(self, other: Self) -> Self;
    /// Whether this is larger.
    fn exceeds(self, other: Self) -> bool;

    /// Zero.
    fn zero() -> Self {
        Self::constant(0.0)
    }
}

impl Number for f64 {
    fn constant(value: f64) -> Self {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn size(self) -> Self {
        self.abs()
    }

    fn exp(self) -> Self {
        libm::exp(self)
    }

    fn sqrt(self) -> Self {
        libm::sqrt(self)
    }

    fn max(self, other: Self) -> Self {
        f64::max(self, other)
    }

    fn exceeds(self, other: Self) -> bool {
        self > other
    }
}
