//! Wholes cut in proportion, in integers that add up.

/// Cuts a whole into parts in proportion to their weights. The parts add up to the whole, and none is more than 1 from its
/// exact share: the part from weight a to weight b of a total of T is floor(whole b / T) - floor(whole a / T).
#[derive(Clone, Copy, Debug)]
pub struct Split {
    quotient: u128,
    remainder: u64,
    total: u64,
    taken: u64,
    /// Of the remainder, what the parts so far have got.
    odd: u64,
}

impl Split {
    /// `whole` for parts whose weights add up to `total`, below 2^32. Nothing is left to be cut where `total` is 0.
    pub fn new(whole: u128, total: u64) -> Self {
        assert!(total <= u64::from(u32::MAX), "weights are counts of tokens");
        let divisor = u128::from(total.max(1));
        let (quotient, remainder) = (whole / divisor, (whole % divisor) as u64);
        Split { quotient, remainder, total: total.max(1), taken: 0, odd: 0 }
    }

    /// The next part.
    pub fn take(&mut self, weight: u64) -> u128 {
        self.taken += weight;
        assert!(self.taken <= self.total, "the weights of the parts add up to the total");
        // Remainder and weights are below 2^32, so the products fit.
        let before = std::mem::replace(&mut self.odd, self.remainder * self.taken / self.total);
        self.quotient * u128::from(weight) + u128::from(self.odd - before)
    }
}
