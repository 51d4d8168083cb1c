//! A number that counts what is done with it.

use super::Number;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Add, Div, Mul, Sub};

/// What an oracle did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Additions, subtractions, products, quotients, exponentials, square roots and comparisons: one each.
    pub flops: u64,
    /// Places of the inputs that were used in an operation. Values that were only copied keep their place instead.
    pub read: BTreeSet<u32>,
}

thread_local! {
    static COUNTS: RefCell<Counts> = RefCell::default();
}

/// A value, and the place of an input that it was loaded from, if it is not the result of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    value: f64,
    place: Option<u32>,
}

impl Counted {
    /// An input array whose elements are at the places from `first` on.
    pub fn load(values: &[f64], first: u32) -> Vec<Counted> {
        let places = first..;
        values.iter().zip(places).map(|(&value, place)| Counted { value, place: Some(place) }).collect()
    }

    /// Runs `oracle` and counts. The counter is the thread's own.
    pub fn count<T>(oracle: impl FnOnce() -> T) -> (T, Counts) {
        COUNTS.take();
        let results = oracle();
        (results, COUNTS.take())
    }

    /// The place that this value was loaded from; `None` for the result of an operation.
    pub fn place(self) -> Option<u32> {
        self.place
    }

    /// One operation on these operands.
    fn operation(value: f64, operands: &[Counted]) -> Counted {
        COUNTS.with_borrow_mut(|counts| {
            counts.flops += 1;
            counts.read.extend(operands.iter().filter_map(|operand| operand.place));
        });
        Counted { value, place: None }
    }
}

impl Add for Counted {
    type Output = Counted;
    fn add(self, other: Counted) -> Counted {
        Counted::operation(self.value + other.value, &[self, other])
    }
}

impl Sub for Counted {
    type Output = Counted;
    fn sub(self, other: Counted) -> Counted {
        Counted::operation(self.value - other.value, &[self, other])
    }
}

impl Mul for Counted {
    type Output = Counted;
    fn mul(self, other: Counted) -> Counted {
        Counted::operation(self.value * other.value, &[self, other])
    }
}

impl Div for Counted {
    type Output = Counted;
    fn div(self, other: Counted) -> Counted {
        Counted::operation(self.value / other.value, &[self, other])
    }
}

impl Number for Counted {
    fn constant(value: f64) -> Self {
        Counted { value, place: None }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn size(self) -> Self {
        Counted { value: self.value.abs(), place: self.place }
    }

    fn exp(self) -> Self {
        Counted::operation(Number::exp(self.value), &[self])
    }

    fn sqrt(self) -> Self {
        Counted::operation(Number::sqrt(self.value), &[self])
    }

    fn max(self, other: Self) -> Self {
        Counted::operation(self.value.max(other.value), &[self, other])
    }

    fn exceeds(self, other: Self) -> bool {
        Counted::operation(0.0, &[self, other]);
        self.value > other.value
    }
}
